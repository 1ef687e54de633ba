//! Epochs of an AEAD suite: the key, derived from 32 bytes of a batch, and the counter that is its nonce.

use crypto::aead::{AeadKey, nonce_of};
use crypto::domain::Domain;
use crypto::kdf;
use crypto::secret::{Key256, SecretBytes};
use types::id::BatchId;

use crate::record::{COUNTER_BITS, TAG_LEN};
use crate::suite::UNIT;
use crate::window::Window;

/// Bytes of a batch that one epoch key takes.
pub(crate) const SEED_LEN: usize = 32;

/// When an epoch's key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLimits {
    /// Records after which a new key is taken if the pool has one.
    pub records: u64,
    /// Bytes after which a new key is taken if the pool has one.
    pub bytes: u64,
    /// Records after which nothing is sealed under the key any more; at most 2^24.
    pub records_max: u64,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self { records: 1 << 20, bytes: 1 << 32, records_max: 1 << COUNTER_BITS }
    }
}

/// The sending end of an epoch.
#[derive(Debug)]
pub(crate) struct SendEpoch {
    pub(crate) batch: BatchId,
    unit: u64,
    key: AeadKey,
    records: u64,
    bytes: u64,
}

impl SendEpoch {
    /// An epoch whose seed was taken at `offset` of `batch`. `None` if the seed has not 32 bytes or the offset
    /// does not fit the header's field.
    pub(crate) fn new(batch: BatchId, offset: u64, seed: &SecretBytes) -> Option<Self> {
        let unit = offset / UNIT;
        if !offset.is_multiple_of(UNIT) || unit >= 1 << (u64::BITS - COUNTER_BITS) {
            return None;
        }
        Some(Self { batch, unit, key: epoch_key(batch, offset, seed)?, records: 0, bytes: 0 })
    }

    /// Whether a new key should be taken if there is one.
    pub(crate) fn is_worn(&self, limits: &EpochLimits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }

    /// Lets it count as worn.
    pub(crate) fn wear(&mut self, limits: &EpochLimits) {
        self.bytes = self.bytes.max(limits.bytes);
    }

    /// Whether the key must not seal any more.
    pub(crate) fn is_spent(&self, limits: &EpochLimits) -> bool {
        self.records >= limits.records_max.min(1 << COUNTER_BITS)
    }

    /// The offset field of the next record.
    pub(crate) fn next_field(&self) -> u64 {
        self.unit << COUNTER_BITS | self.records
    }

    /// Seals under the next counter; the caller checked that the epoch is not spent.
    pub(crate) fn seal(&mut self, aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.key.seal(nonce_of(self.next_field()), aad, buffer);
        self.records += 1;
        self.bytes += buffer.len() as u64;
        tag
    }
}

/// The receiving end of an epoch.
#[derive(Debug)]
pub(crate) struct ReceiveEpoch {
    pub(crate) batch: BatchId,
    pub(crate) offset: u64,
    pub(crate) window: Window,
    pub(crate) failures: u32,
    key: AeadKey,
}

impl ReceiveEpoch {
    /// As [`SendEpoch::new`].
    pub(crate) fn new(batch: BatchId, offset: u64, seed: &SecretBytes) -> Option<Self> {
        Some(Self { batch, offset, window: Window::new(), failures: 0, key: epoch_key(batch, offset, seed)? })
    }

    /// Opens in place.
    pub(crate) fn open(&self, field: u64, aad: &[u8], buffer: &mut [u8], tag: [u8; TAG_LEN]) -> bool {
        self.key.open(nonce_of(field), aad, buffer, tag).is_ok()
    }
}

fn epoch_key(batch: BatchId, offset: u64, seed: &SecretBytes) -> Option<AeadKey> {
    let seed = Key256::from_secret(seed)?;
    let context: [&[u8]; 2] = [&batch.0.to_be_bytes(), &offset.to_be_bytes()];
    Some(AeadKey::new(&kdf::derive(&seed, Domain::TerminalEpoch, &context)))
}
