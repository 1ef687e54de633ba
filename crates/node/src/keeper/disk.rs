//! What the keeper says of its disk: how it was used, and why it could not go on.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::report::Timing;

/// What the disk did since the process started.
#[derive(Clone, Debug, Default)]
pub struct DiskUse {
    /// Passes to the store.
    pub commits: Timing,
    /// Passes to the audit log.
    pub appends: Timing,
    /// Changes of records.
    pub changes: u64,
}

/// Whether and why the keeper could not go on.
#[derive(Debug, Default)]
pub struct DiskFailure {
    happened: CancellationToken,
    why: OnceLock<DiskError>,
}

impl DiskFailure {
    /// Waits until it happens.
    pub async fn happened(&self) {
        self.happened.cancelled().await;
    }

    /// Whether it has happened.
    pub(super) fn has_happened(&self) -> bool {
        self.happened.is_cancelled()
    }

    /// Why, if it happened.
    #[must_use]
    pub fn why(&self) -> Option<&DiskError> {
        self.why.get()
    }

    pub(super) fn tell(&self, error: DiskError) {
        drop(self.why.set(error));
        self.happened.cancel();
    }
}

/// Why the keeper cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The store did not take a commit.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The audit log did not take an entry.
    #[error(transparent)]
    Log(#[from] ledger::Error),
    /// Nobody is left who could give it work.
    #[error("every handle to the keeper is gone")]
    Abandoned,
}
