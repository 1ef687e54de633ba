//! Wrapping keys over ETSI GS QKD 014: the publisher's vault is the master SAE, the receiver's is the slave SAE.

use client::{Kme, SuppliedKey};
use crypto::secret::Key256;
use types::id::{KeyId, SaeId, SiteId};
use vault::{KeyError, WrappingKeys};

use crate::failure::Failure;
use crate::provision::vault_sae;

/// Takes wrapping keys from the site's key management entity.
pub struct KmeKeys<'a>(pub &'a Kme);

/// Bits of a wrapping key.
const SIZE_BITS: u32 = 256;

impl WrappingKeys for KmeKeys<'_> {
    async fn stock(&self, site: &SiteId) -> Result<Option<u64>, KeyError> {
        let status = self.0.status(&sae(site)?).await.map_err(unavailable)?;
        // The count is of keys of the default size.
        let bits = status.stored_key_count.saturating_mul(status.key_size);
        Ok(Some(bits / u64::from(SIZE_BITS)))
    }

    async fn supply(&self, site: &SiteId, number: u32) -> Result<Vec<(KeyId, Key256)>, KeyError> {
        let sae = sae(site)?;
        let status = self.0.status(&sae).await.map_err(unavailable)?;
        let most = u32::try_from(status.max_key_per_request).unwrap_or(u32::MAX).max(1);
        let mut keys = Vec::new();
        let mut left = number;
        while left > 0 {
            let batch = left.min(most);
            let supplied = self.0.encrypt(&sae, batch, SIZE_BITS).await.map_err(unavailable)?;
            for supplied in supplied {
                keys.push((supplied.id, key_of(&supplied)?));
            }
            left -= batch;
        }
        Ok(keys)
    }

    async fn collect(&self, publisher: &SiteId, ids: &[KeyId]) -> Result<Vec<Key256>, KeyError> {
        let sae = sae(publisher)?;
        let status = self.0.status(&sae).await.map_err(unavailable)?;
        let most = usize::try_from(status.max_key_per_request).unwrap_or(usize::MAX).max(1);
        let mut keys = Vec::with_capacity(ids.len());
        for batch in ids.chunks(most) {
            let supplied = self.0.decrypt_all(&sae, batch).await.map_err(unavailable)?;
            for supplied in &supplied {
                keys.push(key_of(supplied)?);
            }
        }
        Ok(keys)
    }
}

fn sae(site: &SiteId) -> Result<SaeId, KeyError> {
    vault_sae(site).map_err(unavailable)
}

fn key_of(supplied: &SuppliedKey) -> Result<Key256, KeyError> {
    Key256::from_secret(&supplied.key).ok_or_else(|| wrong(format!("key {} has not {SIZE_BITS} bit", supplied.id)))
}

fn wrong(reason: String) -> KeyError {
    KeyError::PeerMisbehaved { reason }
}

fn unavailable(error: impl Into<Failure>) -> KeyError {
    KeyError::Unavailable { source: Box::new(error.into()) }
}
