//! Suites: how a record is sealed, what it consumes of the batch, what the result is worth.
//!
//! | number | suite | consumes per record | strength | here |
//! |---|---|---|---|---|
//! | 0 | OTP + Poly1305, fresh key per record | 32 B + length, to 16 B | information-theoretic | yes |
//! | 1 | OTP + 128-bit tag, hash key per epoch | 16 B + length | information-theoretic | no |
//! | 2 | OTP + 64-bit tag, hash key per epoch | 8 B + length | information-theoretic | no |
//! | 3 | SM4-GCM, epoch key from the batch | 16 B per epoch | computational | no |
//! | 4 | AES-256-GCM, epoch key from the batch | 32 B per epoch | computational | yes |
//! | 5 | tag only, no encryption | 32 B | information-theoretic, readable | no |
//! | 6 | AEAD under a post-quantum key | none | computational, no quantum key | no |

use crate::error::Refusal;

/// Positions in a batch are counted in units of this many bytes.
pub const UNIT: u64 = 16;

/// A suite that this build seals and opens. The number is on the wire: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Suite {
    /// One-time pad and a Wegman-Carter tag of 128 bits under a fresh 32-byte key.
    OtpWc128 = 0,
    /// AES-256-GCM under a key derived from 32 bytes of the batch, for one epoch.
    Aes256Gcm = 4,
}

/// What protection rests on, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Strength {
    /// A computational assumption stands behind it, whatever the key was.
    Computational,
    /// One-time pad and Wegman-Carter tag: no assumption on the attacker's computer.
    InformationTheoretic,
}

impl Suite {
    /// All suites of this build.
    pub const ALL: [Self; 2] = [Self::OtpWc128, Self::Aes256Gcm];

    /// The suite of a number on the wire.
    ///
    /// # Errors
    /// [`Refusal::Suite`] with the suite's name if this build does not have it.
    pub fn from_number(number: u8) -> Result<Self, Refusal> {
        let name = match number {
            0 => return Ok(Self::OtpWc128),
            4 => return Ok(Self::Aes256Gcm),
            1 => "OTP with 128-bit tags under an epoch hash key",
            2 => "OTP with 64-bit tags",
            3 => "SM4-GCM",
            5 => "authenticate-only",
            6 => "AEAD under a post-quantum key",
            _ => "unknown",
        };
        Err(Refusal::Suite { number, name })
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Short name for logs, metrics and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtpWc128 => "otp-wc128",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }

    /// What its protection rests on.
    #[must_use]
    pub const fn strength(self) -> Strength {
        match self {
            Self::OtpWc128 => Strength::InformationTheoretic,
            Self::Aes256Gcm => Strength::Computational,
        }
    }

    /// Bytes of the batch that a record of `len` bytes of plaintext consumes. A pure function of suite and length.
    #[must_use]
    pub const fn consumption(self, len: usize) -> u64 {
        match self {
            Self::OtpWc128 => TAG_KEY + (len as u64).next_multiple_of(UNIT),
            Self::Aes256Gcm => 0,
        }
    }

    /// Largest plaintext of one record.
    #[must_use]
    pub const fn plain_max(self) -> usize {
        match self {
            // Two records of this size fit into the replay window.
            Self::OtpWc128 => 4096,
            Self::Aes256Gcm => 16 * 1024,
        }
    }
}

/// Bytes of a fresh tag key, in front of the pad of each record of suite 0.
pub(crate) const TAG_KEY: u64 = crypto::tag::OneTimeTagKey::LEN as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round_and_unknown_ones_are_named() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_number(suite.number()), Ok(suite));
        }
        assert_eq!(Suite::from_number(3), Err(Refusal::Suite { number: 3, name: "SM4-GCM" }));
        assert_eq!(Suite::from_number(200), Err(Refusal::Suite { number: 200, name: "unknown" }));
    }

    #[test]
    fn key_bits_equal_wire_bits_for_whole_units() {
        // Table I of paper 2: key use rate equals cipher rate. 16 B header + 16 B tag against a 32 B tag key.
        for len in (0..=4096).step_by(16) {
            assert_eq!(Suite::OtpWc128.consumption(len), len as u64 + 16 + 16);
        }
        assert_eq!(Suite::OtpWc128.consumption(1), 48);
        assert_eq!(Suite::Aes256Gcm.consumption(4096), 0);
    }
}
