//! Who watches a publish or fetch: progress for people, events for the site's audit log.

use futures_util::future::BoxFuture;
use types::event::Event;

use crate::error::{Error, Result};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading, sealing and writing chunks.
    Sealing,
    /// Wrapping the keys for the sites.
    Wrapping,
    /// Reading, opening and writing chunks.
    Opening,
    /// Checking digests.
    Verifying,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done (sites, for [`Stage::Wrapping`]).
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Why an audit log did not take an event.
pub type AuditError = Box<dyn std::error::Error + Send + Sync>;

/// Is told of progress and events while they happen.
pub trait Observer: Send {
    /// How far it is. Called often.
    fn progress(&mut self, progress: Progress) {
        let _ = progress;
    }

    /// Makes an event durable in the site's audit log. Its effect happens after that, and only if it succeeds.
    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), AuditError>> {
        let _ = event;
        Box::pin(async { Ok(()) })
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

pub(crate) async fn record(observer: &mut dyn Observer, event: Event) -> Result<()> {
    let code = event.code();
    observer.event(event).await.map_err(|source| Error::Audit { event: code, source })
}
