//! Reads a log without writing anything, also beside the process that appends to it.
//!
//! Reading stops at the last whole group: what follows is being written or was torn.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crypto::sign::{SigningKey, VerifyingKey};

use crate::checkpoint::SignedCheckpoint;
use crate::frame::{Scan, Stored};
use crate::proof::{ConsistencyProof, InclusionProof};
use crate::tree::{Frontier, Nodes};
use crate::{Entry, Error, Origin};

/// A log on disk.
#[derive(Clone, Debug)]
pub struct LogReader {
    folder: PathBuf,
    origin: Origin,
}

impl LogReader {
    /// The log in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none, [`Error::Corrupt`] if it is of another origin.
    pub fn open(folder: &Path, origin: &Origin) -> Result<Self, Error> {
        let reader = Self { folder: folder.to_path_buf(), origin: origin.clone() };
        reader.scan()?;
        Ok(reader)
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// All entries, oldest first, each checked against the one before.
    ///
    /// # Errors
    /// [`Error::Io`]; the iterator yields [`Error::Corrupt`] at damage and then ends.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<Entry, Error>>, Error> {
        Ok(self.scan()?.map(|stored| stored.map(|stored| stored.entry)))
    }

    /// The last `n` entries, oldest first.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn last(&self, n: usize) -> Result<Vec<Entry>, Error> {
        let mut last = VecDeque::new();
        for entry in self.entries()? {
            last.push_back(entry?);
            if last.len() > n {
                last.pop_front();
            }
        }
        Ok(last.into())
    }

    /// The head that the site signed last.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] if it does not hold, [`Error::Io`].
    pub fn last_checkpoint(&self, key: &VerifyingKey) -> Result<Option<SignedCheckpoint>, Error> {
        read_checkpoint(&self.folder, &self.origin, key)
    }

    /// Signs the head of what can be read now, in memory only. It keeps to the last persisted head: a log that
    /// does not continue that one is refused.
    ///
    /// # Errors
    /// As [`LogReader::entries`]; [`Error::BadCheckpoint`].
    pub fn sign_head(&self, key: &SigningKey) -> Result<SignedCheckpoint, Error> {
        let last = self.last_checkpoint(key.verifying_key())?;
        let mut tree = Frontier::default();
        let mut agrees = last.as_ref().is_none_or(|last| last.size() == 0);
        let mut scan = self.scan()?;
        for stored in &mut scan {
            tree.push(stored?.leaf);
            agrees |= last.as_ref().is_some_and(|last| last.size() == tree.size() && last.root() == tree.root().0);
        }
        if !agrees {
            let reason = "the log's entries are not those that it signed";
            return Err(Error::BadCheckpoint { path: checkpoint_path(&self.folder), reason });
        }
        // The writer may not have synced its last group yet, and what is signed must not get lost.
        scan.sync()?;
        Ok(SignedCheckpoint::sign(&self.origin, tree.size(), tree.root(), key))
    }

    /// Proves that entry `seq` is under a checkpoint.
    ///
    /// # Errors
    /// As [`LogReader::entries`]; [`Error::ApiMisuse`] if the checkpoint does not reach the entry.
    pub fn prove(&self, seq: u64, head: &SignedCheckpoint, key: &VerifyingKey) -> Result<InclusionProof, Error> {
        if seq >= head.size() {
            let size = head.size();
            return Err(Error::ApiMisuse(format!("entry {seq} is not under the checkpoint, which has {size} entries")));
        }
        let mut envelope = None;
        let nodes = self.nodes(head, |stored| {
            if stored.entry.seq == seq {
                envelope = Some(stored.envelope.clone());
            }
        })?;
        let envelope = envelope.expect("the entry is under the checkpoint");
        Ok(InclusionProof::make(&nodes, seq, envelope, head, key))
    }

    /// Proves that the log under `new` continues the log of `old_size` entries.
    ///
    /// # Errors
    /// As [`LogReader::entries`]; [`Error::ApiMisuse`] if `old_size` is 0 or above the checkpoint.
    pub fn prove_consistency(&self, old_size: u64, new: &SignedCheckpoint) -> Result<ConsistencyProof, Error> {
        if !(1..=new.size()).contains(&old_size) {
            return Err(Error::ApiMisuse(format!("a log of {old_size} entries is none of 1 to {}", new.size())));
        }
        Ok(ConsistencyProof::make(&self.nodes(new, |_| ())?, old_size))
    }

    /// All tree nodes under a checkpoint.
    fn nodes(&self, head: &SignedCheckpoint, mut visit: impl FnMut(&Stored)) -> Result<Nodes, Error> {
        let mut nodes = Nodes::default();
        let mut tree = Frontier::default();
        for stored in self.scan()? {
            if nodes.size() == head.size() {
                break;
            }
            let stored = stored?;
            visit(&stored);
            nodes.push(stored.leaf);
            tree.push(stored.leaf);
        }
        if tree.size() != head.size() || tree.root().0 != head.root() {
            let reason = "the log's entries are not those that it signed";
            return Err(Error::BadCheckpoint { path: checkpoint_path(&self.folder), reason });
        }
        Ok(nodes)
    }

    pub(crate) fn scan(&self) -> Result<Scan, Error> {
        let path = log_path(&self.folder);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Scan::new(file, &path, &self.origin)
    }
}

pub(crate) fn log_path(folder: &Path) -> PathBuf {
    folder.join("entries.log")
}

pub(crate) fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoint.note")
}

pub(crate) fn read_checkpoint(
    folder: &Path,
    origin: &Origin,
    key: &VerifyingKey,
) -> Result<Option<SignedCheckpoint>, Error> {
    let path = checkpoint_path(folder);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let mut note = Vec::new();
    file.take(SignedCheckpoint::NOTE_MAX as u64 + 1).read_to_end(&mut note).map_err(Error::io("read", &path))?;
    let signed = SignedCheckpoint::open(&note, origin, key);
    signed.map(Some).map_err(|_| Error::BadCheckpoint { path, reason: "its form, origin or signatures do not hold" })
}
