//! Where a sender's pad comes from.
//!
//! A [`PadSource`] hands out stretches of key that are gone from durable storage already: what a sender holds
//! in memory cannot be handed out again, neither after a crash nor to another sender. A crash loses at most the
//! stretches handed out.

use crypto::secret::SecretBytes;
use types::id::BatchId;

/// A stretch of one batch, taken from the pool for good.
#[derive(Debug)]
pub struct PadChunk {
    batch: BatchId,
    offset: u64,
    bytes: SecretBytes,
}

impl PadChunk {
    /// A stretch that starts at `offset` of `batch`.
    #[must_use]
    pub fn new(batch: BatchId, offset: u64, bytes: SecretBytes) -> Self {
        Self { batch, offset, bytes }
    }

    /// The batch that it belongs to.
    #[must_use]
    pub fn batch(&self) -> BatchId {
        self.batch
    }

    /// The offset of its first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether `next` begins where this one ends.
    #[must_use]
    pub fn continues(&self, next: &Self) -> bool {
        self.batch == next.batch && self.offset + self.bytes.len() as u64 == next.offset
    }

    /// Appends a stretch that continues this one.
    pub(crate) fn join(&mut self, next: &Self) {
        debug_assert!(self.continues(next));
        let mut both = SecretBytes::from_vec(alloc::vec![0; self.len() + next.len()]);
        both.expose_mut(|both| {
            let (front, back) = both.split_at_mut(self.bytes.len());
            self.bytes.expose(|bytes| front.copy_from_slice(bytes));
            next.bytes.expose(|bytes| back.copy_from_slice(bytes));
        });
        self.bytes = both;
    }

    /// Takes the first `len` bytes by value, with their offset. `None`, and nothing changes, if there are fewer.
    pub(crate) fn take(&mut self, len: usize) -> Option<(u64, SecretBytes)> {
        let front = self.bytes.split_front(len)?;
        let offset = self.offset;
        self.offset += len as u64;
        Some((offset, front))
    }
}

/// Hands out stretches of key, each once.
///
/// The contract: a stretch is durably gone from the pool before it is handed out; stretches of one batch come in
/// ascending order; all are of the sender's direction and begin at a multiple of 16.
pub trait PadSource {
    /// The next stretch, or `None` if there is none now.
    fn next_chunk(&mut self) -> Option<PadChunk>;
}

impl<I: Iterator<Item = PadChunk>> PadSource for I {
    fn next_chunk(&mut self) -> Option<PadChunk> {
        self.next()
    }
}
