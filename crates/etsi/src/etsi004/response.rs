//! Payloads of the three answers.

use crypto::secret::SecretBytes;
use types::codec::{CodecError, Reader, Writer};
use zeroize::Zeroizing;

use super::{Dialect, KEY_MAX, Ksid, METADATA_MAX, Qos, Service, Status};

/// An answer.
#[derive(Debug)]
pub enum Response {
    /// To OPEN_CONNECT.
    Open(OpenResponse),
    /// To GET_KEY.
    Get(GetResponse),
    /// To CLOSE.
    Close {
        /// Outcome.
        status: Status,
    },
}

/// Answer to OPEN_CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenResponse {
    /// Outcome.
    pub status: Status,
    /// What is granted, or the counter-proposal.
    pub qos: Qos,
    /// The stream.
    pub ksid: Ksid,
}

/// Answer to GET_KEY.
#[derive(Debug)]
pub struct GetResponse {
    /// Outcome.
    pub status: Status,
    /// Which chunk.
    pub index: u32,
    /// The chunk; empty if there is none.
    pub key: SecretBytes,
    /// What is known of the chunk, in the stream's format; empty if not wanted.
    pub metadata: Vec<u8>,
    /// With [`Status::MetadataTooSmall`], the bytes that metadata needs.
    pub needed: u32,
}

impl GetResponse {
    /// An answer without key.
    #[must_use]
    pub fn refused(status: Status, index: u32) -> Self {
        Self { status, index, key: SecretBytes::copy_of(&[]), metadata: Vec::new(), needed: 0 }
    }
}

impl Response {
    /// Its service.
    #[must_use]
    pub fn service(&self) -> Service {
        match self {
            Self::Open(_) => Service::OpenResponse,
            Self::Get(_) => Service::GetResponse,
            Self::Close { .. } => Service::CloseResponse,
        }
    }

    /// Its outcome.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Open(open) => open.status,
            Self::Get(get) => get.status,
            Self::Close { status } => *status,
        }
    }

    /// The payload in a dialect.
    pub(super) fn encode(&self, dialect: Dialect) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Open(open) => Zeroizing::new(open.encode(dialect)),
            Self::Get(get) => get.encode(dialect),
            Self::Close { status } => Zeroizing::new(status.number().to_be_bytes().to_vec()),
        }
    }

    pub(super) fn decode(service: Service, payload: &[u8], dialect: Dialect) -> Result<Self, CodecError> {
        let mut r = Reader::new(payload);
        let response = match service {
            Service::OpenResponse => Self::Open(OpenResponse::decode(&mut r, dialect)?),
            Service::GetResponse => Self::Get(GetResponse::decode(&mut r, dialect)?),
            Service::CloseResponse => Self::Close { status: Status::read(&mut r)? },
            _ => return Err(CodecError::Value { field: "service" }),
        };
        r.end()?;
        Ok(response)
    }
}

impl OpenResponse {
    fn encode(&self, dialect: Dialect) -> Vec<u8> {
        // Clients of the fixed dialect take every status but 0 and 7 for a failure and lose the stream's id; ETSI GS QKD
        // 004 V2.1.1, 6.2.2 calls an opening without peer a success. They learn of a missing peer from GET_KEY.
        let status = match (dialect, self.status) {
            (Dialect::Fixed, Status::PeerNotConnected) => Status::Success,
            (_, status) => status,
        };
        let mut w = Writer::new();
        w.u32(status.number());
        if dialect == Dialect::Terminated || has_stream(status) {
            self.qos.write(&mut w, dialect);
            w.put(&self.ksid.0);
        }
        w.finish()
    }

    fn decode(r: &mut Reader<'_>, dialect: Dialect) -> Result<Self, CodecError> {
        let status = Status::read(r)?;
        if dialect == Dialect::Fixed && !has_stream(status) {
            return Ok(Self { status, qos: Qos::default(), ksid: Ksid::NULL });
        }
        Ok(Self { status, qos: Qos::read(r, dialect)?, ksid: Ksid(r.array("Key_stream_ID")?) })
    }
}

impl GetResponse {
    fn encode(&self, dialect: Dialect) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(16 + self.key.len() + self.metadata.len()));
        let number = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_be_bytes());
        let length = |len: usize| u32::try_from(len).expect("our keys and metadata are bounded");
        number(&mut out, self.status.number());
        if dialect == Dialect::Fixed && self.status != Status::Success {
            if self.status == Status::MetadataTooSmall {
                number(&mut out, self.needed);
            }
            return out;
        }
        number(&mut out, self.index);
        number(&mut out, length(self.key.len()));
        self.key.expose(|key| out.extend_from_slice(key));
        if self.status == Status::MetadataTooSmall {
            // The size is the answer; its bytes are there because this dialect's reader takes that many.
            number(&mut out, self.needed);
            out.extend(std::iter::repeat_n(0, usize::try_from(self.needed).unwrap_or_default().min(METADATA_MAX)));
        } else {
            number(&mut out, length(self.metadata.len()));
            out.extend_from_slice(&self.metadata);
        }
        out
    }

    fn decode(r: &mut Reader<'_>, dialect: Dialect) -> Result<Self, CodecError> {
        let status = Status::read(r)?;
        if dialect == Dialect::Fixed && status != Status::Success {
            let needed = if status == Status::MetadataTooSmall { r.u32("Metadata_size")? } else { 0 };
            return Ok(Self { needed, ..Self::refused(status, 0) });
        }
        let index = r.u32("index")?;
        let key = SecretBytes::copy_of(r.bytes32("Key_buffer", KEY_MAX)?);
        let metadata = r.bytes32("Metadata_buffer", METADATA_MAX)?;
        if status == Status::MetadataTooSmall {
            let needed = u32::try_from(metadata.len()).expect("it was checked to be small");
            return Ok(Self { status, index, key, metadata: Vec::new(), needed });
        }
        Ok(Self { status, index, key, metadata: metadata.to_vec(), needed: 0 })
    }
}

fn has_stream(status: Status) -> bool {
    matches!(status, Status::Success | Status::QosNotMet)
}
