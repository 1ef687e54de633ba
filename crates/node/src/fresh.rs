//! Files of a running site that are read again: when one of them changes, and at SIGHUP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Watches over some files.
pub struct Watch {
    seen: Seen,
    tick: Interval,
    /// `None` if this process cannot listen for the signal.
    hangup: Option<Signal>,
}

/// Files as they were.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen(Vec<(PathBuf, Option<Stamp>)>);

/// What tells that a file changed: time, length, inode.
type Stamp = (SystemTime, u64, u64);

impl Seen {
    /// Files as they are now; to be asked for before they are read.
    #[must_use]
    pub fn now(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (stamp(&file), file)).map(|(stamp, file)| (file, stamp)).collect())
    }
}

impl Watch {
    /// Watches for changes since the files were seen; within a runtime.
    #[must_use]
    pub fn new(seen: Seen) -> Self {
        Self::every(POLL, seen)
    }

    fn every(poll: Duration, seen: Seen) -> Self {
        let hangup = signal(SignalKind::hangup());
        if let Err(error) = &hangup {
            tracing::warn!(%error, "cannot listen for SIGHUP; files are read again when they change");
        }
        let mut tick = interval(poll);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seen, tick, hangup: hangup.ok() }
    }

    /// Returns when the files are to be read again.
    pub async fn changed(&mut self) {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(signal) => _ = signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                _ = self.tick.tick() => false,
                () = hangup => true,
            };
            let now = Seen::now(self.seen.0.iter().map(|(file, _)| file.clone()));
            let differ = now != self.seen;
            self.seen = now;
            if asked || differ {
                return;
            }
        }
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_removed_or_comes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let poll = Duration::from_millis(2);
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::every(poll, Seen::now([file.clone(), other.clone()]));
        let is_quiet = async |watch: &mut Watch| tokio::time::timeout(poll * 20, watch.changed()).await.is_err();
        assert!(is_quiet(&mut watch).await);
        fs::write(dir.path().join("new"), "2").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        watch.changed().await;
        assert!(is_quiet(&mut watch).await, "said once");
        fs::remove_file(&file).unwrap();
        watch.changed().await;
        fs::write(&other, "3").unwrap();
        watch.changed().await;
    }
}
