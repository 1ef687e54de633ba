//! Why the store did not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation failed. Names files and records, never their secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused. The instance is poisoned; reopen it after the remedy.
    #[error("cannot {action} {}: {}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The state table's engine refused for a reason other than the disk.
    #[error("the state table {} failed", path.display())]
    State {
        /// Its file.
        path: PathBuf,
        /// The engine's answer.
        source: Box<redb::Error>,
    },
    /// What is on disk is not what was written.
    #[error("{what} in {} is damaged: {reason}", path.display())]
    Corrupt {
        /// Which record or part.
        what: String,
        /// In which file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The root key is not the one that this store was made with.
    #[error("the root key does not open {}: use the key file that the store was made with", path.display())]
    WrongRootKey {
        /// The store's folder.
        path: PathBuf,
    },
    /// Another process holds the store.
    #[error("{} is in use by process {holder}: stop it first", path.display())]
    Locked {
        /// The store's folder.
        path: PathBuf,
        /// The process id that stands in the lock file, or `unknown`.
        holder: String,
    },
    /// A key file that the store must not use.
    #[error("key file {} refused: {reason}", path.display())]
    KeyFileRefused {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The token did not do what was asked of it.
    #[error("token {token}, key {key}: {why}")]
    Token {
        /// Label of the token.
        token: String,
        /// Label of its key.
        key: String,
        /// The module's answer.
        why: String,
    },
    /// The database refused or went away. The instance is poisoned; reopen it after the remedy.
    #[error("cannot {action} {}: check the server and the connection, then reopen", path.display())]
    Database {
        /// What was tried.
        action: &'static str,
        /// Which database.
        path: PathBuf,
        /// The server's answer.
        source: Box<postgres::Error>,
    },
    /// A database that the store must not use, or cannot reach as it is configured.
    #[error("database refused: {why}")]
    DatabaseRefused {
        /// Why, and what to do.
        why: String,
    },
    /// The database holds the records of another site; one-time keys of two sites never share a database.
    #[error("{} holds the records of site {found}, not of {wanted}: give each site a database of its own", path.display())]
    OtherSite {
        /// Which database.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: String,
    },
    /// Another replica has taken over as the writer; nothing was written.
    #[error("{} has another writer now: this replica was silent for too long; restart it to wait for its turn", path.display())]
    Fenced {
        /// Which database.
        path: PathBuf,
    },
    /// Another replica writes, and the caller did not want to wait.
    #[error("replica {writer} writes to {}", path.display())]
    Standby {
        /// Which database.
        path: PathBuf,
        /// The replica that writes.
        writer: String,
    },
    /// The caller asked for something that cannot be; nothing was changed.
    #[error("change refused: {0}")]
    ApiMisuse(String),
    /// An earlier write failed: drop this instance and reopen the store.
    #[error("the store failed before and was closed; reopen it")]
    Poisoned,
}

impl Error {
    /// Wraps an error of the operating system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps an error of the database.
    pub(crate) fn database(action: &'static str, path: &Path) -> impl FnOnce(postgres::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Database { action, path, source: Box::new(source) }
    }

    /// Wraps an error of the state table's engine.
    pub(crate) fn state<E: Into<redb::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |source| match source.into() {
            redb::Error::Io(source) => Self::Io { action, path, source },
            redb::Error::Corrupted(_) => {
                Self::Corrupt { what: "the state table".into(), path, reason: "its checksums do not hold" }
            }
            source => Self::State { path, source: Box::new(source) },
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full; free space, then reopen",
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only; check it, mount it writable, then reopen",
        io::ErrorKind::PermissionDenied => "this user may not; give the folder to the user that runs the site",
        io::ErrorKind::NotFound => "it is not there; restore it",
        _ => "check the disk, then reopen",
    }
}
