//! What can be wrong with what comes in from outside.

use types::codec::CodecError;

/// Why light could not be taken from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no emission record.
    #[error("bytes are no emission record")]
    Corrupt(#[source] CodecError),
    /// A record of a version that this build does not know.
    #[error("emission record has version {found}, this build knows version {known}")]
    Version {
        /// Version in the record.
        found: u8,
        /// Version of this build.
        known: u8,
    },
    /// A number that no source can have.
    #[error("emission record has {field} out of range: {rule}")]
    Range {
        /// Which number.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        Self::Corrupt(error)
    }
}
