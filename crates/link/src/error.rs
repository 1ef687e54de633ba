//! Why a link end refuses to go on. Says nothing about key bits.

use types::codec::CodecError;

use crate::message::Kind;

/// Why an input was not taken.
///
/// After [`Error::PeerMisbehaved`], [`Error::Mismatch`] or [`Error::PeerSilent`] the end is offline, the block in
/// progress is given up (its record leaves as [`Output::Aborted`](crate::Output::Aborted)) and the shell closes
/// the connection; a new one starts clean. After the others the end cannot work until somebody acts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other end, or somebody between, broke the protocol.
    #[error("the other end broke the protocol: {0}")]
    PeerMisbehaved(Misbehaviour),
    /// The two ends are configured differently.
    #[error("the two ends differ in {field}: ours is {ours}, theirs is {theirs}")]
    Mismatch {
        /// Which setting.
        field: &'static str,
        /// Its value here.
        ours: String,
        /// Its value there.
        theirs: String,
    },
    /// An awaited answer did not come in time.
    #[error("no answer from the other end while waiting for {awaited}")]
    PeerSilent {
        /// What was awaited.
        awaited: &'static str,
    },
    /// A local reserve or number range is used up.
    #[error("{what} is used up")]
    Exhausted {
        /// Which.
        what: &'static str,
    },
    /// The shell called in a way that this end or role does not have.
    #[error("wrong use of the link end: {what}")]
    ApiMisuse {
        /// What was wrong.
        what: &'static str,
    },
    /// A durable record is not what this crate wrote.
    #[error("durable record {what} is corrupt")]
    Corrupt {
        /// Which record.
        what: &'static str,
    },
}

/// How the other end broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Bytes that are no message.
    #[error("malformed message: {0}")]
    Malformed(CodecError),
    /// A message that does not fit the state.
    #[error("{got:?} came while {state}")]
    OutOfTurn {
        /// What came.
        got: Kind,
        /// What this end was doing.
        state: &'static str,
    },
    /// A message of a vendor link that does not fit the state.
    #[error("{got} came while {state}")]
    OutOfOrder {
        /// What came.
        got: &'static str,
        /// What this end was doing.
        state: &'static str,
    },
    /// A field that contradicts what this end knows.
    #[error("{field} contradicts what this end knows")]
    Contradiction {
        /// Which field.
        field: &'static str,
    },
    /// A tag that does not hold.
    #[error("{what} is not authentic")]
    NotAuthentic {
        /// Which message.
        what: &'static str,
    },
    /// A tag counter that was used already or for which no key is here.
    #[error("tag counter {counter} was used already or has no key")]
    TagCounter {
        /// The counter.
        counter: u64,
    },
    /// More work or disclosure asked for than a block may cost.
    #[error("{what} beyond the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl From<CodecError> for Misbehaviour {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error)
    }
}

impl From<Misbehaviour> for Error {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::PeerMisbehaved(misbehaviour)
    }
}
