//! Why a log did not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on a log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused. A log that was being written is poisoned: reopen it after the remedy.
    #[error("cannot {action} {}: {}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// What is on disk is not what was written and is no torn tail either.
    #[error("{} is damaged at entry {entry} (byte {offset}): {reason}; keep the file and restore a copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// First byte of what does not hold.
        offset: u64,
        /// The entry that should stand there.
        entry: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The persisted checkpoint does not hold or does not fit the log.
    #[error("checkpoint {} does not hold: {reason}", path.display())]
    BadCheckpoint {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process writes this log.
    #[error("{} is in use by another process: stop it first", path.display())]
    Locked {
        /// The log's file.
        path: PathBuf,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    ApiMisuse(String),
    /// An earlier write failed: drop this instance and reopen the log.
    #[error("the log failed before and was closed; reopen it")]
    Poisoned,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full; free space, then reopen",
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only; check it, mount it writable, then reopen",
        io::ErrorKind::PermissionDenied => "this user may not; give the folder to the user that runs the site",
        io::ErrorKind::NotFound => "it is not there; check the path",
        _ => "check the disk, then reopen",
    }
}
