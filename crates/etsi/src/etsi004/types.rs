//! The parameters of the calls (ETSI GS QKD 004 V2.1.1, table 2).

use types::codec::{CodecError, Reader, Writer};
use types::id::Uuid;

use super::MIMETYPE_BYTES;

/// How an implementation writes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Mimetype ends with NUL, GET_KEY carries its metadata buffer, every answer has all fields, one connection a call.
    Terminated,
    /// Mimetype always has 256 bytes, GET_KEY carries only the buffer's size, an error is a bare status, one
    /// connection for all calls.
    Fixed,
}

/// The three version bytes of a header: of the standard in one implementation, of the program in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub [u8; 3]);

impl Version {
    /// The standard's, as the C library writes it.
    pub const STANDARD: Self = Self([2, 1, 1]);
    /// As the other implementation writes it.
    pub const FIXED: Self = Self([1, 0, 1]);
}

/// Key stream id: 16 bytes, all zero for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ksid(pub [u8; 16]);

impl Ksid {
    /// No id: the server makes one.
    pub const NULL: Self = Self([0; 16]);

    /// A UUID version 4 from 16 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(*types::id::KeyId::from_random(bytes).0.as_bytes())
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::NULL
    }
}

impl core::fmt::Display for Ksid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

impl core::fmt::Debug for Ksid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ksid({self})")
    }
}

/// Format of metadata: at most 255 bytes of text without NUL, empty for no metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mimetype(String);

impl Mimetype {
    /// Checks and wraps a text; `None` if it is too long or has a NUL.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() < MIMETYPE_BYTES && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    /// No metadata.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The type that every implementation takes.
    #[must_use]
    pub fn json() -> Self {
        Self("application/json".to_owned())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read_terminated(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        text_until_nul(r, "mimetype", MIMETYPE_BYTES - 1).map(Self)
    }

    fn read_fixed(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let field = r.take("mimetype", MIMETYPE_BYTES)?;
        let end = field.iter().position(|byte| *byte == 0).ok_or(CodecError::Value { field: "mimetype" })?;
        if field[end..].iter().any(|byte| *byte != 0) {
            return Err(CodecError::Value { field: "mimetype" });
        }
        let text = core::str::from_utf8(&field[..end]).map_err(|_| CodecError::Value { field: "mimetype" })?;
        Ok(Self(text.to_owned()))
    }
}

/// Quality of service of a stream. 0 leaves a value to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Bytes of one GET_KEY.
    pub key_chunk_size: u32,
    /// Most bits in a second that the application asks for.
    pub max_bps: u32,
    /// Fewest bits in a second that it needs.
    pub min_bps: u32,
    /// Deviation of the rate that it bears, in bits in a second.
    pub jitter: u32,
    /// Its priority; what it means is the server's.
    pub priority: u32,
    /// Milliseconds after which a call ends with an error.
    pub timeout_ms: u32,
    /// Seconds after which unused key of the stream is erased.
    pub ttl_s: u32,
    /// Format of the metadata.
    pub mimetype: Mimetype,
}

impl Qos {
    /// Bytes of the numbers before the mimetype.
    pub(super) const NUMBERS_BYTES: usize = 28;

    pub(super) fn read(r: &mut Reader<'_>, dialect: Dialect) -> Result<Self, CodecError> {
        Ok(Self {
            key_chunk_size: r.u32("Key_chunk_size")?,
            max_bps: r.u32("Max_bps")?,
            min_bps: r.u32("Min_bps")?,
            jitter: r.u32("Jitter")?,
            priority: r.u32("Priority")?,
            timeout_ms: r.u32("Timeout")?,
            ttl_s: r.u32("TTL")?,
            mimetype: match dialect {
                Dialect::Terminated => Mimetype::read_terminated(r)?,
                Dialect::Fixed => Mimetype::read_fixed(r)?,
            },
        })
    }

    pub(super) fn write(&self, w: &mut Writer, dialect: Dialect) {
        w.u32(self.key_chunk_size).u32(self.max_bps).u32(self.min_bps).u32(self.jitter);
        w.u32(self.priority).u32(self.timeout_ms).u32(self.ttl_s).put(self.mimetype.0.as_bytes());
        let zeros = match dialect {
            Dialect::Terminated => 1,
            Dialect::Fixed => MIMETYPE_BYTES - self.mimetype.0.len(),
        };
        w.put(&[0; MIMETYPE_BYTES][..zeros]);
    }
}

/// Outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Status {
    /// Successful.
    Success = 0,
    /// OPEN_CONNECT: the stream is there, the peer application not yet.
    PeerNotConnected = 1,
    /// GET_KEY: not enough key, or none any more at this index.
    InsufficientKey = 2,
    /// GET_KEY: the peer application is not connected.
    GetPeerNotConnected = 3,
    /// No QKD connection: unknown stream or application, or no way to the other site.
    NoConnection = 4,
    /// OPEN_CONNECT: the id is used by another application.
    KsidInUse = 5,
    /// The time of the QoS has passed.
    Timeout = 6,
    /// OPEN_CONNECT: the QoS cannot be met; the answer has a counter-proposal.
    QosNotMet = 7,
    /// GET_KEY: the metadata does not fit; no key was consumed.
    MetadataTooSmall = 8,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Success,
        Self::PeerNotConnected,
        Self::InsufficientKey,
        Self::GetPeerNotConnected,
        Self::NoConnection,
        Self::KsidInUse,
        Self::Timeout,
        Self::QosNotMet,
        Self::MetadataTooSmall,
    ];

    /// As it goes over the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The status of a number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.number() == number)
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Self::from_number(r.u32("status")?).ok_or(CodecError::Value { field: "status" })
    }
}

/// A text of at most `max` bytes and its NUL.
pub(super) fn text_until_nul(r: &mut Reader<'_>, field: &'static str, max: usize) -> Result<String, CodecError> {
    let mut bytes = Vec::new();
    loop {
        match r.u8(field)? {
            0 => break,
            _ if bytes.len() == max => return Err(CodecError::TooLong { field, len: bytes.len() + 1, max }),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| CodecError::Value { field })
}
