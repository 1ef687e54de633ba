//! Payloads of the three calls.

use types::codec::{CodecError, Reader, Writer};

use super::types::text_until_nul;
use super::{Dialect, Ksid, METADATA_MAX, MIMETYPE_BYTES, Qos, Service, URI_MAX};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// OPEN_CONNECT.
    Open(OpenRequest),
    /// GET_KEY.
    Get(GetRequest),
    /// CLOSE.
    Close {
        /// Which stream.
        ksid: Ksid,
    },
}

/// OPEN_CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// URI of the one application.
    pub source: String,
    /// URI of the other.
    pub destination: String,
    /// What is asked for.
    pub qos: Qos,
    /// Which stream; null for a new one.
    pub ksid: Ksid,
}

/// GET_KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetRequest {
    /// Which stream.
    pub ksid: Ksid,
    /// Which chunk of it.
    pub index: u32,
    /// Bytes that the caller has for metadata; 0 for none wanted.
    pub metadata_size: u32,
    /// The caller's buffer as it came; its content means nothing to the standard.
    pub buffer: Vec<u8>,
}

impl GetRequest {
    /// Whether the buffer is no buffer but says that a symmetric key is wanted, and for which role: a fork of the C library
    /// puts these two bytes there. No metadata that we have fits two bytes.
    #[must_use]
    pub fn is_symmetric_hint(&self) -> bool {
        matches!(self.buffer[..], [0, 0 | 0x10 | 0x11])
    }
}

impl Request {
    /// Its service.
    #[must_use]
    pub fn service(&self) -> Service {
        match self {
            Self::Open(_) => Service::OpenRequest,
            Self::Get(_) => Service::GetRequest,
            Self::Close { .. } => Service::CloseRequest,
        }
    }

    /// The payload in a dialect.
    pub(super) fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Open(open) => {
                for uri in [&open.source, &open.destination] {
                    w.put(uri.as_bytes()).u8(0);
                }
                open.qos.write(&mut w, dialect);
                w.put(&open.ksid.0);
            }
            Self::Get(get) => {
                w.put(&get.ksid.0).u32(get.index).u32(get.metadata_size);
                if dialect == Dialect::Terminated {
                    w.put(&get.buffer);
                }
            }
            Self::Close { ksid } => _ = w.put(&ksid.0),
        }
        w.finish()
    }

    /// Reads a payload; says the dialect when the payload tells it.
    pub(super) fn decode(service: Service, payload: &[u8]) -> Result<(Self, Option<Dialect>), CodecError> {
        let mut r = Reader::new(payload);
        let (request, dialect) = match service {
            Service::OpenRequest => {
                let (open, dialect) = read_open(&mut r)?;
                (Self::Open(open), Some(dialect))
            }
            Service::GetRequest => {
                let (get, dialect) = read_get(&mut r)?;
                (Self::Get(get), dialect)
            }
            Service::CloseRequest => (Self::Close { ksid: Ksid(r.array("Key_stream_ID")?) }, None),
            _ => return Err(CodecError::Value { field: "service" }),
        };
        r.end()?;
        Ok((request, dialect))
    }
}

fn read_open(r: &mut Reader<'_>) -> Result<(OpenRequest, Dialect), CodecError> {
    let source = text_until_nul(r, "source", URI_MAX)?;
    let destination = text_until_nul(r, "destination", URI_MAX)?;
    // What is left after the numbers tells the dialects apart; a terminated mimetype of 255 bytes reads the same in both.
    let fixed = r.left() == Qos::NUMBERS_BYTES + MIMETYPE_BYTES + 16;
    let dialect = if fixed { Dialect::Fixed } else { Dialect::Terminated };
    let qos = Qos::read(r, dialect)?;
    Ok((OpenRequest { source, destination, qos, ksid: Ksid(r.array("Key_stream_ID")?) }, dialect))
}

fn read_get(r: &mut Reader<'_>) -> Result<(GetRequest, Option<Dialect>), CodecError> {
    let ksid = Ksid(r.array("Key_stream_ID")?);
    let index = r.u32("index")?;
    let metadata_size = r.u32("Metadata_size")?;
    if metadata_size == 0 || r.left() == 0 {
        let dialect = (metadata_size > 0).then_some(Dialect::Fixed);
        return Ok((GetRequest { ksid, index, metadata_size, buffer: Vec::new() }, dialect));
    }
    let len = usize::try_from(metadata_size).unwrap_or(usize::MAX);
    if len > METADATA_MAX {
        return Err(CodecError::TooLong { field: "Metadata_buffer", len, max: METADATA_MAX });
    }
    let buffer = r.take("Metadata_buffer", len)?.to_vec();
    Ok((GetRequest { ksid, index, metadata_size, buffer }, Some(Dialect::Terminated)))
}
