//! One connection seen from the server, one stream seen from the client. No IO.

use zeroize::Zeroizing;

use super::frame::framed;
use super::{
    Dialect, Error, GetRequest, Ksid, OpenRequest, Qos, RawFrame, Request, Response, Service, Status, Version,
};

/// The server's end of one connection: knows how its client writes.
#[derive(Debug, Default)]
pub struct ServerSession {
    dialect: Option<Dialect>,
    version: Option<Version>,
}

impl ServerSession {
    /// A session of which nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a call.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the payload is not what its service needs.
    pub fn request(&mut self, frame: &RawFrame) -> Result<Request, Error> {
        let (request, dialect) = frame.payload.expose(|payload| Request::decode(frame.service, payload))?;
        self.dialect = dialect.or(self.dialect);
        self.version = Some(frame.version);
        Ok(request)
    }

    /// How the client writes. Until a frame tells, its version bytes do.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        let by_version = if self.version == Some(Version::FIXED) { Dialect::Fixed } else { Dialect::Terminated };
        self.dialect.unwrap_or(by_version)
    }

    /// The frame of an answer, in the client's dialect and with its version bytes.
    #[must_use]
    pub fn respond(&self, response: &Response) -> Zeroizing<Vec<u8>> {
        framed(self.version(), response.service(), &response.encode(self.dialect()))
    }

    /// The frame that says that a frame could not be read.
    #[must_use]
    pub fn fault(&self) -> Zeroizing<Vec<u8>> {
        framed(self.version(), Service::Error, &[])
    }

    fn version(&self) -> Version {
        self.version.unwrap_or(Version::STANDARD)
    }
}

/// A client of one stream: makes the frames of its calls, takes the frames of the answers. Where the bytes go, and over
/// how many connections, is the caller's.
#[derive(Debug)]
pub struct Client {
    dialect: Dialect,
    version: Version,
    source: String,
    destination: String,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Apart,
    Opening,
    Open(Stream),
    Getting(Stream, u32),
    Closing(Stream),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream {
    ksid: Ksid,
    qos: Qos,
}

impl Client {
    /// A client between two applications; the source is the caller's own.
    #[must_use]
    pub fn new(dialect: Dialect, source: &str, destination: &str) -> Self {
        let version = match dialect {
            Dialect::Terminated => Version::STANDARD,
            Dialect::Fixed => Version::FIXED,
        };
        Self { dialect, version, source: source.to_owned(), destination: destination.to_owned(), stage: Stage::Apart }
    }

    /// The stream, once it is open.
    #[must_use]
    pub fn ksid(&self) -> Option<Ksid> {
        self.stream().map(|stream| stream.ksid)
    }

    /// What the server granted, once the stream is open.
    #[must_use]
    pub fn qos(&self) -> Option<&Qos> {
        self.stream().map(|stream| &stream.qos)
    }

    /// Calls OPEN_CONNECT.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`] while an answer is awaited or a stream is open.
    pub fn open(&mut self, qos: Qos, ksid: Ksid) -> Result<Vec<u8>, Error> {
        if self.stage != Stage::Apart {
            return Err(Error::OutOfTurn("a stream is open, or an answer is awaited"));
        }
        self.stage = Stage::Opening;
        let (source, destination) = (self.source.clone(), self.destination.clone());
        Ok(self.frame(&Request::Open(OpenRequest { source, destination, qos, ksid })))
    }

    /// Calls GET_KEY.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`] if no stream is open or an answer is awaited.
    pub fn get(&mut self, index: u32, metadata_size: u32) -> Result<Vec<u8>, Error> {
        let stream = self.take_open()?;
        let ksid = stream.ksid;
        self.stage = Stage::Getting(stream, index);
        let buffer = vec![0; usize::try_from(metadata_size).unwrap_or_default().min(super::METADATA_MAX)];
        Ok(self.frame(&Request::Get(GetRequest { ksid, index, metadata_size, buffer })))
    }

    /// Calls CLOSE.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn close(&mut self) -> Result<Vec<u8>, Error> {
        let stream = self.take_open()?;
        let ksid = stream.ksid;
        self.stage = Stage::Closing(stream);
        Ok(self.frame(&Request::Close { ksid }))
    }

    /// Takes the answer to the call under way.
    ///
    /// # Errors
    /// If it is malformed, or the answer to something else.
    pub fn response(&mut self, frame: &RawFrame) -> Result<Response, Error> {
        let response = frame.payload.expose(|payload| Response::decode(frame.service, payload, self.dialect))?;
        let wrong = || Error::OutOfTurn("an answer to a call that was not made");
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Apart), &response) {
            (Stage::Opening, Response::Open(open)) => match open.status {
                Status::Success | Status::PeerNotConnected if !open.ksid.is_null() => {
                    Stage::Open(Stream { ksid: open.ksid, qos: open.qos.clone() })
                }
                _ => Stage::Apart,
            },
            (Stage::Getting(stream, index), Response::Get(get)) => {
                let whole = get.index == index
                    && usize::try_from(stream.qos.key_chunk_size).is_ok_and(|size| size == get.key.len());
                if get.status == Status::Success && !whole {
                    return Err(Error::OutOfTurn("a chunk of another index or size than asked for"));
                }
                Stage::Open(stream)
            }
            (Stage::Closing(_), Response::Close { .. }) => Stage::Apart,
            _ => return Err(wrong()),
        };
        Ok(response)
    }

    fn take_open(&mut self) -> Result<Stream, Error> {
        match std::mem::replace(&mut self.stage, Stage::Apart) {
            Stage::Open(stream) => Ok(stream),
            other => {
                self.stage = other;
                Err(Error::OutOfTurn("no stream is open, or an answer is awaited"))
            }
        }
    }

    fn stream(&self) -> Option<&Stream> {
        match &self.stage {
            Stage::Open(stream) | Stage::Getting(stream, _) | Stage::Closing(stream) => Some(stream),
            Stage::Apart | Stage::Opening => None,
        }
    }

    fn frame(&self, request: &Request) -> Vec<u8> {
        framed(self.version, request.service(), &request.encode(self.dialect)).to_vec()
    }
}
