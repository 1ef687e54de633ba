//! The log of one site while it is being written.
//!
//! Appending is synchronous: when it returns, the entries are on the disk, and what they report may happen.
//! Memory does not grow with the log: the tree's right edge and the last entries are kept.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crypto::sign::{SigningKey, VerifyingKey};
use types::codec::Writer;
use types::event::Event;
use types::units::UtcNanos;

use crate::checkpoint::SignedCheckpoint;
use crate::envelope::leaf_hash;
use crate::frame::{self, Chain, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Scan};
use crate::reader::{checkpoint_path, log_path, read_checkpoint};
use crate::tree::Frontier;
use crate::{Entry, Error, Origin};

#[cfg(test)]
mod tests;

/// A site's log, held by this process alone.
#[derive(Debug)]
pub struct SiteLog {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    origin: Origin,
    key: SigningKey,
    chain: Chain,
    tree: Frontier,
    end: u64,
    recent: VecDeque<Entry>,
    checkpoint: Option<SignedCheckpoint>,
    poisoned: bool,
}

impl SiteLog {
    /// How many of the last entries are kept in memory.
    pub const RECENT_MAX: usize = 1024;

    /// Opens or makes the log in `folder`. Every entry is checked, and the last signed checkpoint against them.
    ///
    /// A torn tail, which was never acknowledged, is cut, and [`Event::LogRecovered`] is appended at `now`.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::BadCheckpoint`], [`Error::Io`].
    pub fn open(folder: &Path, origin: Origin, key: SigningKey, now: UtcNanos) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io("create folder", folder))?;
        let path = log_path(folder);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        let checkpoint = read_checkpoint(folder, &origin, key.verifying_key())?;

        let mut scan = Scan::new(file.try_clone().map_err(Error::io("open", &path))?, &path, &origin)?;
        let (mut tree, mut recent) = (Frontier::default(), VecDeque::new());
        for stored in &mut scan {
            let stored = stored?;
            tree.push(stored.leaf);
            remember(&mut recent, stored.entry);
            if let Some(signed) = checkpoint.as_ref().filter(|signed| signed.size() == tree.size())
                && signed.root() != tree.root().0
            {
                let reason = "the log's entries are not those that it signed";
                return Err(Error::BadCheckpoint { path: checkpoint_path(folder), reason });
            }
        }
        if checkpoint.as_ref().is_some_and(|signed| signed.size() > tree.size()) {
            let reason = "the log has fewer entries than it signed; restore it";
            return Err(Error::BadCheckpoint { path: checkpoint_path(folder), reason });
        }
        let (end, cut) = scan.end();
        let chain = scan.into_chain();
        let folder = folder.to_path_buf();
        let mut log = Self { folder, path, file, origin, key, chain, tree, end, recent, checkpoint, poisoned: false };
        if end == 0 {
            log.begin()?;
        } else if cut > 0 {
            log.file.set_len(end).and_then(|()| log.file.sync_all()).map_err(Error::io("cut", &log.path))?;
            log.append(now, &[Event::LogRecovered { cut }])?;
        }
        Ok(log)
    }

    /// Writes the header of a new log.
    fn begin(&mut self) -> Result<(), Error> {
        let header = frame::file_header(&self.origin);
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(&header, 0))
            .and_then(|()| self.file.sync_all())
            .map_err(Error::io("write", &self.path))?;
        self.end = header.len() as u64;
        sync_folder(&self.folder)
    }

    /// Appends events at one time and returns their numbers once they are durable.
    ///
    /// # Errors
    /// [`Error::Io`]; the log is then poisoned: reopen it, which tells what was kept.
    pub fn append(&mut self, time: UtcNanos, events: &[Event]) -> Result<Range<u64>, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let first = self.size();
        let mut rest = events;
        while !rest.is_empty() {
            // Only what is written and synced stays in memory: an early return leaves the instance poisoned.
            self.poisoned = true;
            rest = self.append_group(time, rest)?;
            self.poisoned = false;
        }
        Ok(first..self.size())
    }

    fn append_group<'a>(&mut self, time: UtcNanos, events: &'a [Event]) -> Result<&'a [Event], Error> {
        let first = self.chain.next();
        let (mut frames, mut count) = (Writer::new(), 0);
        for event in events.iter().take(GROUP_ENTRIES_MAX) {
            let entry = Entry::of_event(self.origin.site(), self.chain.next(), time, self.chain.prev(), event);
            let envelope = entry.encode();
            if frames.len() + envelope.len() + 8 > GROUP_BYTES_MAX {
                break;
            }
            let leaf = leaf_hash(&envelope);
            frame::put_frame(&mut frames, &envelope, leaf);
            self.chain.advance(leaf);
            self.tree.push(leaf);
            remember(&mut self.recent, entry);
            count += 1;
        }
        let group = frame::group(first, count, &frames.finish());
        self.file.write_all_at(&group, self.end).map_err(Error::io("write", &self.path))?;
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        self.end += group.len() as u64;
        assert_eq!(self.tree.size(), self.chain.next(), "tree and chain grow together");
        Ok(events.get(count..).unwrap_or_default())
    }

    /// Signs the log's head and keeps the signed head on disk. Free if nothing was appended since the last one.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn checkpoint(&mut self) -> Result<&SignedCheckpoint, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        if self.checkpoint.as_ref().is_none_or(|signed| signed.size() < self.size()) {
            let signed = SignedCheckpoint::sign(&self.origin, self.size(), self.tree.root(), &self.key);
            let path = checkpoint_path(&self.folder);
            let new = path.with_extension("new");
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)
                .and_then(|mut file| file.write_all(signed.note()).and_then(|()| file.sync_all()))
                .map_err(Error::io("write", &new))?;
            std::fs::rename(&new, &path).map_err(Error::io("replace", &path))?;
            sync_folder(&self.folder)?;
            self.checkpoint = Some(signed);
        }
        Ok(self.checkpoint.as_ref().expect("there is one now"))
    }

    /// The last signed head, if there is one.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// Entries after the last checkpoint: what a caller counts to decide when to sign the next.
    #[must_use]
    pub fn unsigned(&self) -> u64 {
        self.size() - self.checkpoint.as_ref().map_or(0, SignedCheckpoint::size)
    }

    /// How many entries there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Root of the tree over all entries.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        self.tree.root().0
    }

    /// The last `n` entries, oldest first; at most [`SiteLog::RECENT_MAX`].
    pub fn recent(&self, n: usize) -> impl DoubleEndedIterator<Item = &Entry> {
        self.recent.iter().skip(self.recent.len().saturating_sub(n))
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key that checks this log's checkpoints.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        self.key.verifying_key()
    }

    /// Where the log is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn remember(recent: &mut VecDeque<Entry>, entry: Entry) {
    if recent.len() == SiteLog::RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(entry);
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync folder", folder))
}
