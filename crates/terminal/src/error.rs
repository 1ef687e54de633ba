//! Why something did not happen, and whose fault it was. Says nothing about key bits or plaintext.

use types::codec::CodecError;
use types::id::BatchId;

use crate::{Class, Suite};

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record was not opened. Nothing changed but counters.
    #[error("record refused")]
    Refused(#[source] Refusal),
    /// The pad does not hold what the operation needs.
    #[error("the pad is exhausted: {needed} bytes needed, {left} in one piece")]
    Exhausted {
        /// Bytes needed in one piece.
        needed: u64,
        /// Bytes in one piece that are left.
        left: u64,
    },
    /// The caller asked for what cannot be.
    #[error("{what}")]
    ApiMisuse {
        /// What was asked.
        what: &'static str,
    },
    /// The other end, or somebody between, does not follow the protocol.
    #[error("the other end broke the protocol: {what}")]
    PeerMisbehaved {
        /// What it did.
        what: &'static str,
    },
    /// Bytes from outside do not decode.
    #[error("a message does not decode")]
    Malformed(#[source] CodecError),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error)
    }
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Shorter than a header and a tag, or longer than a record can be.
    #[error("a record cannot have {len} bytes")]
    Length {
        /// The length found.
        len: usize,
    },
    /// A format version that this build does not know.
    #[error("record version {version} is not known")]
    Version {
        /// The version found.
        version: u8,
    },
    /// A kind, class or flag that this build does not know.
    #[error("header field {field} has the unknown value {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The value found.
        value: u8,
    },
    /// A suite that this build does not open.
    #[error("suite {number} ({name}) is not supported")]
    Suite {
        /// Its number.
        number: u8,
        /// Its name, or "unknown".
        name: &'static str,
    },
    /// A batch of the other direction.
    #[error("batch {batch} belongs to the other direction")]
    Direction {
        /// The batch.
        batch: BatchId,
    },
    /// A batch that is not installed here.
    #[error("batch {batch} is not installed")]
    Batch {
        /// The batch.
        batch: BatchId,
    },
    /// Positions outside the batch.
    #[error("offset {offset} is outside batch {batch}")]
    Range {
        /// The batch.
        batch: BatchId,
        /// The offset found.
        offset: u64,
    },
    /// Positions that were opened before.
    #[error("offset {offset} was used before")]
    Replayed {
        /// The offset found.
        offset: u64,
    },
    /// Positions behind the replay window.
    #[error("offset {offset} is behind the replay window")]
    TooOld {
        /// The offset found.
        offset: u64,
    },
    /// Too many forgeries aimed at these positions.
    #[error("offset {offset} is blocked after too many forgeries")]
    Blocked {
        /// The offset found.
        offset: u64,
    },
    /// The tag does not hold.
    #[error("the record at offset {offset} is not authentic")]
    Forged {
        /// The offset found.
        offset: u64,
    },
    /// The suite is below what this class of message must have.
    #[error("class {class:?} must not come under suite {suite:?}")]
    BelowFloor {
        /// The class of the message.
        class: Class,
        /// The suite found.
        suite: Suite,
    },
}
