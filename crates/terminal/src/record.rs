//! The record: a 16-byte header in clear, the ciphertext, a 16-byte tag. All of it is authenticated.
//!
//! ```text
//!  0        1        2        3        4                 8                                16
//!  +--------+--------+--------+--------+-----------------+--------------------------------+
//!  | ver|kind  suite |  class | flags  |      batch      |             offset             | ciphertext | tag 16
//!  +--------+--------+--------+--------+-----------------+--------------------------------+
//! ```
//! Suite 0: `offset` is the first byte consumed: 32 B tag key, then the pad. Suite 4: `offset` is
//! `epoch unit << 24 | counter`, where the epoch's 32 key bytes stand at `epoch unit * 16` of the batch.

use types::id::BatchId;

use crate::error::Refusal;
use crate::suite::Suite;

/// Bytes of a header.
pub const HEADER_LEN: usize = 16;
/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes that a record adds to its plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Largest record in bytes.
pub const RECORD_MAX: usize = OVERHEAD + 16 * 1024;
/// Version of the format, in the high half of the first byte.
pub const VERSION: u8 = 1;
/// Bits of the counter in the offset field of an epoch suite.
pub const COUNTER_BITS: u32 = 24;

/// Which way a record goes. The top bit of the batch id, so that two directions never share a byte of pad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the control center to the terminal; top bit 0.
    Down,
    /// From the terminal to the control center; top bit 1.
    Up,
}

impl Direction {
    const BIT: u32 = 1 << 31;

    /// The batch id of a number in this direction; the number's top bit is ignored.
    #[must_use]
    pub const fn batch(self, number: u32) -> BatchId {
        match self {
            Self::Down => BatchId(number & !Self::BIT),
            Self::Up => BatchId(number | Self::BIT),
        }
    }

    /// The direction of a batch.
    #[must_use]
    pub const fn of(batch: BatchId) -> Self {
        if batch.0 & Self::BIT == 0 { Self::Down } else { Self::Up }
    }

    /// The other direction.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Down => Self::Up,
            Self::Up => Self::Down,
        }
    }
}

/// A batch's number without its direction.
#[must_use]
pub const fn batch_number(batch: BatchId) -> u32 {
    batch.0 & !Direction::BIT
}

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the plain side.
    Payload = 0,
    /// A message between the two ends themselves.
    Control = 1,
}

/// What a message is to the grid; decides its protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Class {
    /// Frames that keep a connection alive and acknowledge (IEC 104 U and S frames).
    Supervisory = 0,
    /// Measured values, states, and everything that is not recognised.
    Telemetry = 1,
    /// Interrogation and clock messages.
    Interrogation = 2,
    /// Commands, set points, parameters, and their confirmations.
    Command = 3,
    /// The two ends' own messages.
    Session = 4,
}

impl Class {
    /// All classes, by number.
    pub const ALL: [Self; 5] = [Self::Supervisory, Self::Telemetry, Self::Interrogation, Self::Command, Self::Session];

    /// Short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisory => "supervisory",
            Self::Telemetry => "telemetry",
            Self::Interrogation => "interrogation",
            Self::Command => "command",
            Self::Session => "session",
        }
    }
}

/// The parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record carries.
    pub kind: Kind,
    /// How it is sealed.
    pub suite: Suite,
    /// The class of its content.
    pub class: Class,
    /// The batch that its key comes from.
    pub batch: BatchId,
    /// Position in the batch, or epoch and counter.
    pub offset: u64,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION << 4 | self.kind as u8;
        out[1] = self.suite.number();
        out[2] = self.class as u8;
        out[4..8].copy_from_slice(&self.batch.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.offset.to_be_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// A [`Refusal`] that names the field.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Refusal> {
        let [first, suite, class, flags, b0, b1, b2, b3, offset @ ..] = *bytes;
        if first >> 4 != VERSION {
            return Err(Refusal::Version { version: first >> 4 });
        }
        let kind = match first & 0x0f {
            0 => Kind::Payload,
            1 => Kind::Control,
            value => return Err(Refusal::Field { field: "kind", value }),
        };
        let class = *Class::ALL.get(usize::from(class)).ok_or(Refusal::Field { field: "class", value: class })?;
        if flags != 0 {
            return Err(Refusal::Field { field: "flags", value: flags });
        }
        Ok(Self {
            kind,
            suite: Suite::from_number(suite)?,
            class,
            batch: BatchId(u32::from_be_bytes([b0, b1, b2, b3])),
            offset: u64::from_be_bytes(offset),
        })
    }
}

/// Splits the offset field of an epoch suite into the epoch's position in bytes and the counter.
#[must_use]
pub fn split_epoch(offset: u64) -> (u64, u64) {
    ((offset >> COUNTER_BITS) * crate::suite::UNIT, offset & ((1 << COUNTER_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_pinned() {
        let header = Header {
            kind: Kind::Control,
            suite: Suite::Aes256Gcm,
            class: Class::Session,
            batch: Direction::Up.batch(0x0102_0304),
            offset: 0x1122_3344_5566_7788,
        };
        let bytes = header.encode();
        assert_eq!(bytes, [0x11, 4, 4, 0, 0x81, 2, 3, 4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn each_wrong_field_is_refused_by_name() {
        let good =
            Header { kind: Kind::Payload, suite: Suite::OtpWc128, class: Class::Command, batch: BatchId(1), offset: 0 }
                .encode();
        let with = |index: usize, value: u8| {
            let mut bytes = good;
            bytes[index] = value;
            Header::decode(&bytes)
        };
        assert_eq!(with(0, 0x20), Err(Refusal::Version { version: 2 }));
        assert_eq!(with(0, 0x12), Err(Refusal::Field { field: "kind", value: 2 }));
        assert_eq!(with(1, 6), Err(Refusal::Suite { number: 6, name: "AEAD under a post-quantum key" }));
        assert_eq!(with(2, 5), Err(Refusal::Field { field: "class", value: 5 }));
        assert_eq!(with(3, 1), Err(Refusal::Field { field: "flags", value: 1 }));
    }

    #[test]
    fn directions_never_share_a_batch_id() {
        for number in [0, 1, 7, u32::MAX >> 1, u32::MAX] {
            assert_ne!(Direction::Down.batch(number), Direction::Up.batch(number));
            for direction in [Direction::Down, Direction::Up] {
                assert_eq!(Direction::of(direction.batch(number)), direction);
                assert_ne!(Direction::of(direction.batch(number)), direction.reverse());
            }
        }
    }
}
