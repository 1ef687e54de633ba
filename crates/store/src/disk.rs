//! The few file operations that the store needs, over one flat folder.
//!
//! [`FsDisk`] is the real one. The tests have another that cuts the power after any operation, loses what was
//! not synced, and runs full.

use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

use crate::Error;

#[cfg(test)]
pub(crate) mod sim;

/// A folder of files. Names become durable with [`Disk::sync_names`], content with [`DiskFile::sync_data`].
pub(crate) trait Disk: Debug + Send + Sync {
    /// Names of the files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A new file of `len` zero bytes, with its space set aside.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and renamings durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Where the folder is, for messages.
    fn path(&self) -> &Path;
}

/// One file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Fills `out` from `offset` on.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes length and content durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// A real folder, held against other processes.
#[derive(Debug)]
pub(crate) struct FsDisk {
    folder: PathBuf,
    _lock: File,
}

impl FsDisk {
    /// Makes the folder if needed (for its owner alone) and locks it.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io("create folder", folder))?;
        let path = folder.join(LOCK_NAME);
        let mut lock = private_file().create(true).truncate(false).open(&path).map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What stands there only completes a message; an unreadable file makes it "unknown".
                let _ = Read::by_ref(&mut lock).take(20).read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().map_or_else(|_| "unknown".into(), |pid| pid.to_string());
                return Err(Error::Locked { path: folder.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }
}

impl Disk for FsDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = private_file().create_new(true).open(self.folder.join(name))?;
        if len > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, len) {
                Ok(()) => {}
                // Not every file system can set space aside; then a full disk shows at the write.
                Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = private_file().open(self.folder.join(name))?;
        // After a failed write-back Linux keeps pages in memory that are not on the medium, and calls them clean.
        // What is not dirty is dropped, so that recovery reads what is there. A hint that is refused costs nothing.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Arc::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

/// Lets the state table's engine work on any [`DiskFile`].
#[derive(Debug)]
pub(crate) struct TableFile(pub(crate) Arc<dyn DiskFile>);

impl redb::StorageBackend for TableFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

const LOCK_NAME: &str = "lock";
