//! Where wrapping keys come from: the site's own key management entity, over ETSI GS QKD 014 in the shell.

use crypto::secret::Key256;
use types::id::{KeyId, SiteId};

/// Gives 256-bit keys that this site shares with another one. Each key is given once at each end.
pub trait WrappingKeys: Sync {
    /// How many such keys are ready with `site`, or `None` if the source cannot tell.
    fn stock(&self, site: &SiteId) -> impl Future<Output = Result<Option<u64>, KeyError>> + Send;

    /// Takes `number` fresh keys shared with `site`, all or none. (ETSI: the master's `enc_keys`.)
    fn supply(&self, site: &SiteId, number: u32)
    -> impl Future<Output = Result<Vec<(KeyId, Key256)>, KeyError>> + Send;

    /// Fetches the keys that `publisher` was supplied with, in the order of `ids`. (ETSI: the slave's `dec_keys`.)
    fn collect(&self, publisher: &SiteId, ids: &[KeyId]) -> impl Future<Output = Result<Vec<Key256>, KeyError>> + Send;
}

/// Why keys were not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not enough key is in stock.
    #[error("{wanted} keys of 256 bit are needed and {available} are ready")]
    Short {
        /// Keys asked for.
        wanted: u64,
        /// Keys ready.
        available: u64,
    },
    /// The key was fetched before, or never was.
    #[error("key {id} was fetched already or is not known")]
    Spent {
        /// The key.
        id: KeyId,
    },
    /// The key management entity gave something else than asked for.
    #[error("the key management entity answered wrongly: {reason}")]
    PeerMisbehaved {
        /// What is wrong.
        reason: String,
    },
    /// The key management entity cannot be reached or refused.
    #[error("the key management entity did not answer the request")]
    Unavailable {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl KeyError {
    /// What the user can do, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Short { .. } => {
                "wait until the links have made more key (`qurrent key status`), or let fewer tensors have a key of their own"
            }
            Self::Spent { .. } => {
                "a wrapping key can be fetched once: ask the publisher to publish the model again for this site"
            }
            Self::PeerMisbehaved { .. } => "look at the log of the site's key management entity",
            Self::Unavailable { .. } => {
                "check that this site's `qurrent node` runs and has key in stock (`qurrent key status`)"
            }
        };
        Some(hint.to_owned())
    }
}
