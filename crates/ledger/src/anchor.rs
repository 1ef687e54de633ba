//! The seam to the chain that orders the checkpoints of all sites.

use crate::SignedCheckpoint;

/// Takes a site's checkpoints to where no single site can rewrite them.
///
/// Contract:
/// - [`Anchor::submit`] only queues and never waits for a quorum: a log must go on without one. Sizes may repeat
///   and skip; the newest checkpoint stands for all before it.
/// - [`Anchor::anchored_size`] is the size of the newest checkpoint of this site that is final. It never falls.
///   What it counts cannot be rewritten without evidence; what it does not count rests on this site's word.
/// - An implementation that learns that this site signed two heads that contradict each other says so as an
///   error of `submit`, for good.
pub trait Anchor {
    /// Why a checkpoint was not taken.
    type Error;

    /// Queues a checkpoint.
    ///
    /// # Errors
    /// If the anchor will never take this checkpoint.
    fn submit(&mut self, checkpoint: &SignedCheckpoint) -> Result<(), Self::Error>;

    /// How many entries are final.
    fn anchored_size(&self) -> u64;
}

/// No chain: counts what would have to be anchored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanchored {
    newest: u64,
}

impl Unanchored {
    /// Entries under a checkpoint and not anchored; all of them.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.newest
    }
}

impl Anchor for Unanchored {
    type Error = std::convert::Infallible;

    fn submit(&mut self, checkpoint: &SignedCheckpoint) -> Result<(), Self::Error> {
        self.newest = self.newest.max(checkpoint.size());
        Ok(())
    }

    fn anchored_size(&self) -> u64 {
        0
    }
}
