//! The header and the cutting of a byte stream into frames.
//!
//! ```text
//! u8 major | u8 minor | u8 micro | u8 service | u32 payload length | payload
//! ```

use crypto::secret::SecretBytes;
use zeroize::Zeroizing;

use super::{Error, KEY_MAX, METADATA_MAX, MIMETYPE_BYTES, Qos, URI_MAX, Version};

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The sender could not read a frame.
    Error,
    /// OPEN_CONNECT called.
    OpenRequest,
    /// OPEN_CONNECT answered.
    OpenResponse,
    /// GET_KEY called.
    GetRequest,
    /// GET_KEY answered.
    GetResponse,
    /// CLOSE called.
    CloseRequest,
    /// CLOSE answered.
    CloseResponse,
}

impl Service {
    const ALL: [Self; 7] = [
        Self::Error,
        Self::OpenRequest,
        Self::OpenResponse,
        Self::GetRequest,
        Self::GetResponse,
        Self::CloseRequest,
        Self::CloseResponse,
    ];

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Error => 0x00,
            Self::OpenRequest => 0x02,
            Self::OpenResponse => 0x03,
            Self::GetRequest => 0x04,
            Self::GetResponse => 0x05,
            Self::CloseRequest => 0x08,
            Self::CloseResponse => 0x09,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.number() == number)
    }

    fn is_request(self) -> bool {
        matches!(self, Self::OpenRequest | Self::GetRequest | Self::CloseRequest)
    }

    /// Most bytes of its payload.
    fn payload_max(self) -> usize {
        let qos = Qos::NUMBERS_BYTES + MIMETYPE_BYTES;
        match self {
            Self::Error => 0,
            Self::OpenRequest => 2 * (URI_MAX + 1) + qos + 16,
            Self::OpenResponse => 4 + qos + 16,
            Self::GetRequest => 16 + 4 + 4 + METADATA_MAX,
            Self::GetResponse => 16 + KEY_MAX + METADATA_MAX,
            Self::CloseRequest => 16,
            Self::CloseResponse => 4,
        }
    }
}

/// One frame whose payload is not read yet. It may hold key and is wiped.
#[derive(Debug)]
pub struct RawFrame {
    /// The sender's version bytes.
    pub version: Version,
    /// What it is for.
    pub service: Service,
    /// Its payload.
    pub payload: SecretBytes,
}

/// Cuts a byte stream into frames as the bytes come. After an error the stream is out of step for ever.
#[derive(Debug)]
pub struct Decoder {
    requests: bool,
    bytes: Zeroizing<Vec<u8>>,
}

impl Decoder {
    /// For the requests that a server reads.
    #[must_use]
    pub fn of_requests() -> Self {
        Self { requests: true, bytes: Zeroizing::default() }
    }

    /// For the responses that a client reads.
    #[must_use]
    pub fn of_responses() -> Self {
        Self { requests: false, bytes: Zeroizing::default() }
    }

    /// Adds bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Grown by hand, so that the old buffer is wiped and not merely freed.
            let mut grown = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole frame, if all of it came.
    ///
    /// # Errors
    /// [`Error::Service`] and [`Error::TooLong`], as soon as the header is there.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, Error> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [major, minor, micro, number, length @ ..] = *header;
        let service = Service::from_number(number)
            .filter(|service| service.is_request() == self.requests)
            .ok_or(Error::Service(number))?;
        let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let max = service.payload_max();
        if len > max {
            return Err(Error::TooLong { len, max });
        }
        let end = HEADER_BYTES + len;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload = SecretBytes::copy_of(&self.bytes[HEADER_BYTES..end]);
        let rest = Zeroizing::new(self.bytes[end..].to_vec());
        self.bytes = rest;
        Ok(Some(RawFrame { version: Version([major, minor, micro]), service, payload }))
    }
}

/// A header and its payload.
pub(super) fn framed(version: Version, service: Service, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + payload.len()));
    out.extend_from_slice(&version.0);
    out.push(service.number());
    out.extend_from_slice(&u32::try_from(payload.len()).expect("our payloads are bounded").to_be_bytes());
    out.extend_from_slice(payload);
    out
}

const HEADER_BYTES: usize = 8;
