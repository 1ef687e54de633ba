//! Why something did not happen, with the name of the thing and what to do about it.

use std::io;
use std::path::PathBuf;

use types::codec::CodecError;
use types::id::{ModelId, SiteId};

use crate::keyring::KeyringError;
use crate::supply::KeyError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model was not planned, published, listed, verified or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file's header does not describe its bytes.
    #[error("{} is not a safetensors file: {field}: {reason}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// Which part of the header.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file ends before what its header announces.
    #[error("{} is cut short at byte {len}: {field} needs bytes up to {needed}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// What reaches past the end.
        field: String,
        /// Where that would end.
        needed: u64,
    },
    /// The file was written to while it was being published.
    #[error("{} changed while it was being read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// A local file or folder could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk has no room.
    #[error("the disk is full: cannot write {place}")]
    DiskFull {
        /// What did not fit.
        place: String,
    },
    /// Something is larger than the format allows.
    #[error("{what} is {found}, but at most {max} is allowed")]
    Limit {
        /// What it is.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The maximum.
        max: u64,
    },
    /// A rule of the plan does not parse, or a request contradicts itself.
    #[error("{what}: {reason}")]
    Request {
        /// Which part of the request.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object store failed.
    #[error("cannot {action} {object}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// The object.
        object: String,
        /// Why not.
        source: object_store::Error,
    },
    /// No version of this model is in the store.
    #[error("no model {model} is in the store")]
    NoSuchModel {
        /// The name asked for.
        model: ModelId,
    },
    /// The model is there, the version is not.
    #[error("model {model} has no version {version}; the newest is {newest}")]
    NoSuchVersion {
        /// The model.
        model: ModelId,
        /// The version asked for.
        version: u64,
        /// The newest one there.
        newest: u64,
    },
    /// The model has no tensor of this name.
    #[error("model {model} version {version} has no tensor {tensor:?}")]
    NoSuchTensor {
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
        /// The name asked for.
        tensor: String,
    },
    /// Another publisher committed the same version first.
    #[error("version {version} of {model} was published by someone else meanwhile")]
    VersionTaken {
        /// The model.
        model: ModelId,
        /// The version.
        version: u64,
    },
    /// An object that a manifest names is not in the store.
    #[error("{object} is missing from the store")]
    Missing {
        /// The object.
        object: String,
    },
    /// An object is shorter than its manifest says.
    #[error("{object} is cut short: it has {len} bytes and needs {needed}")]
    Truncated {
        /// The object.
        object: String,
        /// Its length.
        len: u64,
        /// The length it must have.
        needed: u64,
    },
    /// Bytes that do not decode as what they should be.
    #[error("{object} is malformed")]
    Malformed {
        /// The object.
        object: String,
        /// Why.
        source: FormatError,
    },
    /// A manifest or envelope stands where another belongs.
    #[error("{object} is of {found}, not of {expected}")]
    Misplaced {
        /// The object.
        object: String,
        /// What it says it is.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// The manifest names a publisher that is not trusted.
    #[error("{object} is published by {site}, which is not a trusted publisher")]
    UnknownPublisher {
        /// The object.
        object: String,
        /// Who it says published it.
        site: SiteId,
    },
    /// The audit log did not take the event, so its effect did not happen.
    #[error("the audit log did not take the event {event}")]
    Audit {
        /// Code of the event.
        event: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The manifest was signed with a key that is not trusted.
    #[error("{object} is signed by publisher key {signed_by}, but the trusted one is {trusted}")]
    OtherPublisher {
        /// The object.
        object: String,
        /// Fingerprint of the signer.
        signed_by: String,
        /// Fingerprint of the trusted key.
        trusted: String,
    },
    /// A signature or a sealed key does not hold.
    #[error("{object} is not authentic: {what} does not hold")]
    NotAuthentic {
        /// The object.
        object: String,
        /// What was checked.
        what: &'static str,
    },
    /// A sealed chunk is not the one that was published.
    #[error("{object} is corrupt: chunk {chunk} of {tensor} is not what was published")]
    CorruptChunk {
        /// The object.
        object: String,
        /// The tensor that the chunk belongs to.
        tensor: String,
        /// The chunk's index in the tensor.
        chunk: u32,
    },
    /// All chunks opened, and yet the file is not the published one.
    #[error("{} does not have the published SHA-256", path.display())]
    FileDigest {
        /// The file.
        path: PathBuf,
    },
    /// This site was not among the receivers.
    #[error("model {model} version {version} has no envelope for site {site}; it has them for: {}", list(sites))]
    NoEnvelope {
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
        /// This site.
        site: SiteId,
        /// The receivers.
        sites: Vec<SiteId>,
    },
    /// The store's newest version is older than one that this site has seen.
    #[error("the store offers version {offered} of {model} as the newest, but version {seen} was seen here before")]
    RolledBack {
        /// The model.
        model: ModelId,
        /// The newest version offered.
        offered: u64,
        /// The newest version seen.
        seen: u64,
    },
    /// A version that this site has seen has another manifest now.
    #[error("version {version} of {model} is not the one that was seen here before")]
    Replaced {
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
    },
    /// The key management entity did not give the keys.
    #[error("no wrapping keys shared with site {peer}")]
    Keys {
        /// The other site.
        peer: SiteId,
        /// Why.
        source: KeyError,
    },
    /// The site's own keyring failed.
    #[error("cannot {action} the key of {model} version {version} in this site's keyring")]
    Keyring {
        /// What was tried.
        action: &'static str,
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
        /// Why not.
        source: KeyringError,
    },
}

/// Why bytes are no manifest or envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A field is cut short, too long or impossible.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The bytes are of another kind.
    #[error("it does not begin as a {what}")]
    Magic {
        /// What it was to be.
        what: &'static str,
    },
    /// A version of the format that this program does not know.
    #[error("format version {found} is newer than version {known} of this program")]
    Version {
        /// The version found.
        found: u8,
        /// The newest version known.
        known: u8,
    },
    /// Fields contradict each other.
    #[error("{field} {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Error {
    /// What the user can do, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotSafetensors { .. } => {
                "check that the file is the one you mean; to distribute a file of another format as it is, add --opaque"
            }
            Self::CutShort { .. } => "the file is incomplete: copy or download it again",
            Self::SourceChanged { .. } => "wait until the file is written completely, then publish it again",
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check who owns the file and its folder, and their permissions"
            }
            Self::File { .. } => "check the path",
            Self::DiskFull { .. } => "free some space and run the command again; what is done already is kept",
            Self::Store { .. } => "check that the object store is reachable and that this user may write to it",
            Self::NoSuchModel { .. } | Self::NoSuchVersion { .. } => "`qurrent model list` shows what is there",
            Self::NoSuchTensor { .. } => "`qurrent model show --tensors` lists its tensors",
            Self::VersionTaken { .. } => "publish again: it becomes the next version",
            Self::Missing { .. } | Self::Truncated { .. } | Self::CorruptChunk { .. } => {
                "the store lost or changed it: restore the object from a copy of the store, or publish the model again"
            }
            Self::UnknownPublisher { .. } => {
                "do not use the model before you know why; a publisher is trusted when its verifying key is installed"
            }
            Self::Audit { .. } => "check that this site's `qurrent node` runs, then run the command again",
            Self::OtherPublisher { .. } => {
                "do not use the model before you know why; if the publisher has a new key, install its verifying key"
            }
            Self::Malformed { .. } | Self::Misplaced { .. } | Self::NotAuthentic { .. } | Self::Replaced { .. } => {
                "do not use the model: somebody changed it in the store; tell the publisher"
            }
            Self::RolledBack { .. } => {
                "the store lost newer versions or hides them: ask its operator; --version fetches an older one on purpose"
            }
            Self::FileDigest { .. } => "the partial file was removed: fetch again",
            Self::NoEnvelope { .. } => "ask the publisher to publish for this site",
            Self::Keys { source, .. } => return source.hint(),
            Self::Keyring { .. } => "check the site's state folder and its root key",
            Self::Limit { .. } | Self::Request { .. } => return None,
        };
        Some(hint.to_owned())
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { place: path.display().to_string() }
            }
            _ => Self::File { action, path, source },
        }
    }

    pub(crate) fn store(
        action: &'static str,
        object: &object_store::path::Path,
    ) -> impl FnOnce(object_store::Error) -> Self {
        let object = object.to_string();
        move |source| match &source {
            object_store::Error::NotFound { .. } => Self::Missing { object },
            _ if disk_is_full(&source) => Self::DiskFull { place: object },
            _ => Self::Store { action, object, source },
        }
    }

    pub(crate) fn malformed(object: &object_store::path::Path) -> impl FnOnce(FormatError) -> Self {
        let object = object.to_string();
        move |source| Self::Malformed { object, source }
    }
}

fn disk_is_full(error: &object_store::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        }
        cause = error.source();
    }
    false
}

fn list(sites: &[SiteId]) -> String {
    sites.iter().map(SiteId::as_str).collect::<Vec<_>>().join(", ")
}
