//! The store: a set of records that changes atomically and durably, in a folder or in a database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;

use crate::database::{self, Database, DatabaseConfig, DatabaseRecords, Writer};
use crate::disk::FsDisk;
use crate::embedded::{self, Embedded, EmbeddedRecords};
use crate::{Error, RootKey};

/// Durable records of one site. One process writes; see [`Store::open_database`] for others that wait.
pub struct Store {
    pub(crate) back: Back,
    poisoned: bool,
}

/// Where the records are.
pub(crate) enum Back {
    Folder(Box<Embedded>),
    Database(Box<Database>),
}

/// What reading a record gave.
#[derive(Debug)]
pub enum Loaded {
    /// The record, secret and all.
    Whole(Record),
    /// Its secret is lost.
    Damaged(Damaged),
}

/// A record whose secret is lost to damage on disk. Its row is still there until it is deleted or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which table.
    pub table: Table,
    /// Key within the table.
    pub key: Vec<u8>,
    /// The public value.
    pub value: Vec<u8>,
    /// In which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segment files, or key-encryption keys of a database.
    pub segments: u64,
    /// Segments with a slot that did not open when it was read.
    pub damaged_segments: u64,
    /// Sealed secrets.
    pub secrets: u64,
    /// Bytes of sealed secrets.
    pub live_bytes: u64,
    /// Bytes set aside on disk for sealed secrets; 0 for a database.
    pub reserved_bytes: u64,
}

/// Records in order of table and key, read one at a time; see [`Store::records`].
pub struct Records<'a>(RecordsOf<'a>);

enum RecordsOf<'a> {
    Folder(Box<EmbeddedRecords<'a>>),
    Database(DatabaseRecords<'a>),
}

impl Store {
    /// Most changes in one commit.
    pub const CHANGES_MAX: usize = 65_536;
    /// Most bytes of secrets in one commit.
    pub const COMMIT_SECRET_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Opens or makes the store in `folder`. Its records are read with [`Store::records`].
    ///
    /// `rng` is the operating system's generator; it makes the segments' keys.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::WrongRootKey`], [`Error::Io`], and [`Error::Corrupt`] if the state table is damaged.
    pub fn open_folder(folder: &Path, root: RootKey, rng: impl CryptoRng + Send + 'static) -> Result<Self, Error> {
        let disk = Arc::new(FsDisk::open(folder)?);
        let embedded = embedded::open(disk, root, Box::new(rng), embedded::SEGMENT_LEN)?;
        Ok(Self::of(Back::Folder(Box::new(embedded))))
    }

    /// As [`Store::open_folder`], with all its records at once, by table and key.
    ///
    /// # Errors
    /// As [`Store::open_folder`], and [`Error::Corrupt`] if any record is damaged (see [`Store::open_damaged`]).
    pub fn open(
        folder: &Path,
        root: RootKey,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<(Self, Vec<Record>), Error> {
        let store = Self::open_folder(folder, root, rng)?;
        let records = store.records()?.map(|record| record?.whole()).collect::<Result<_, _>>()?;
        Ok((store, records))
    }

    /// As [`Store::open`], but returns damaged records apart, so that the rest can be used.
    ///
    /// # Errors
    /// As [`Store::open_folder`].
    pub fn open_damaged(
        folder: &Path,
        root: RootKey,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<(Self, Vec<Record>, Vec<Damaged>), Error> {
        let store = Self::open_folder(folder, root, rng)?;
        let (records, damaged) = store.sorted()?;
        Ok((store, records, damaged))
    }

    /// Opens the database of a site, makes its tables if they are not there, and waits until this replica is the one
    /// that writes. While another writes, `waiting` hears of it about four times in a lease and says whether to go on;
    /// a store that is dropped in order gives its place up at once, one that vanishes keeps it for its lease.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::DatabaseRefused`], [`Error::OtherSite`], [`Error::WrongRootKey`], and
    /// [`Error::Standby`] if `waiting` said no.
    pub fn open_database(
        config: &DatabaseConfig,
        root: RootKey,
        rng: impl CryptoRng + Send + 'static,
        mut waiting: impl FnMut(&Writer) -> bool,
    ) -> Result<Self, Error> {
        let database = database::open(config, root, Box::new(rng), &mut waiting)?;
        Ok(Self::of(Back::Database(Box::new(database))))
    }

    /// Says that this process is alive and still the writer. Due every [`Store::heartbeat_every`] when nothing is
    /// committed; a folder needs none.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another replica took over, else as [`Store::commit`].
    pub fn heartbeat(&mut self) -> Result<(), Error> {
        self.guard(|back| match back {
            Back::Folder(_) => Ok(()),
            Back::Database(database) => database.heartbeat(),
        })
    }

    /// How often [`Store::heartbeat`] is due.
    #[must_use]
    pub fn heartbeat_every(&self) -> Option<Duration> {
        match &self.back {
            Back::Folder(_) => None,
            Back::Database(database) => Some(database.heartbeat_every()),
        }
    }

    pub(crate) fn of(back: Back) -> Self {
        Self { back, poisoned: false }
    }

    /// Reads all records, one at a time, in order of table and key.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Poisoned`]; while reading also [`Error::Corrupt`] for a row that makes no sense.
    pub fn records(&self) -> Result<Records<'_>, Error> {
        self.read(None)
    }

    /// [`Store::records`] of one table.
    ///
    /// # Errors
    /// As [`Store::records`].
    pub fn records_of(&self, table: Table) -> Result<Records<'_>, Error> {
        self.read(Some(table))
    }

    fn read(&self, table: Option<Table>) -> Result<Records<'_>, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        Ok(Records(match &self.back {
            Back::Folder(embedded) => RecordsOf::Folder(Box::new(embedded.records(table)?)),
            Back::Database(database) => RecordsOf::Database(database.records(table)),
        }))
    }

    pub(crate) fn sorted(&self) -> Result<(Vec<Record>, Vec<Damaged>), Error> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for loaded in self.records()? {
            match loaded? {
                Loaded::Whole(record) => records.push(record),
                Loaded::Damaged(lost) => damaged.push(lost),
            }
        }
        Ok((records, damaged))
    }

    /// Makes all changes durable together, in order: after an error none or all of them hold, seen at reopening.
    ///
    /// No opening brings back what the changes replaced or deleted. In a folder those secrets are overwritten by a
    /// later commit that writes to the same file, and at the latest by [`Store::wipe`]. Changes of several callers may
    /// be joined in one commit; that is how many commits share one wait for the disk.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if a change is beyond its limits or updates a record that is not there: nothing has
    /// changed, and the store stays usable. After any other error the store is poisoned: reopen it.
    pub fn commit<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), Error> {
        let changes: Vec<&Change> = changes.into_iter().collect();
        self.guard(|back| {
            check_limits(&changes)?;
            if changes.is_empty() {
                return Ok(());
            }
            match back {
                Back::Folder(embedded) => embedded.commit(&changes),
                Back::Database(database) => database.commit(&changes),
            }
        })
    }

    /// [`Store::commit`] of several batches as one.
    ///
    /// # Errors
    /// As [`Store::commit`]; one refused change refuses all batches.
    pub fn commit_many<'a>(&mut self, batches: impl IntoIterator<Item = &'a [Change]>) -> Result<(), Error> {
        self.commit(batches.into_iter().flatten())
    }

    /// One bounded step of housekeeping: moves the rest out of one mostly dead segment and destroys it. Commits
    /// do this by themselves; an idle process may call it until it says `false`.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn compact(&mut self) -> Result<bool, Error> {
        self.guard(|back| match back {
            Back::Folder(embedded) => embedded.compact(),
            Back::Database(database) => database.compact(),
        })
    }

    /// Overwrites on disk, durably, what earlier commits replaced or deleted and no commit has overwritten since. Due
    /// soon after a commit when [`Store::is_dirty`]; a store that is dropped or opened does it by itself.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.guard(|back| match back {
            Back::Folder(embedded) => embedded.wipe(),
            Back::Database(_) => Ok(()),
        })
    }

    /// Whether [`Store::wipe`] has something to do.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        match &self.back {
            Back::Folder(embedded) => embedded.is_dirty(),
            Back::Database(_) => false,
        }
    }

    /// Changes the root key: what is sealed under it is sealed anew, data is not rewritten. A crash leaves a store
    /// that one of the two keys opens whole.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn rekey(&mut self, new: RootKey) -> Result<(), Error> {
        self.guard(|back| match back {
            Back::Folder(embedded) => embedded.rekey(new),
            Back::Database(database) => database.rekey(new),
        })
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.back {
            Back::Folder(embedded) => embedded.stats(),
            Back::Database(database) => database.stats(),
        }
    }

    pub(crate) fn guard<R>(&mut self, operation: impl FnOnce(&mut Back) -> Result<R, Error>) -> Result<R, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let result = operation(&mut self.back);
        self.poisoned = matches!(&result, Err(error) if !matches!(error, Error::ApiMisuse(_)));
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        match &mut self.back {
            _ if self.poisoned => {}
            // If this fails, the next opening does it.
            Back::Folder(embedded) => drop(embedded.wipe()),
            Back::Database(database) => database.release(),
        }
    }
}

impl Loaded {
    /// The record, or why it is lost.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn whole(self) -> Result<Record, Error> {
        match self {
            Self::Whole(record) => Ok(record),
            Self::Damaged(Damaged { table, key, path, reason, .. }) => {
                Err(Error::Corrupt { what: format!("record {}", record_name(table, &key)), path, reason })
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Loaded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            RecordsOf::Folder(records) => records.next(),
            RecordsOf::Database(records) => records.next(),
        }
    }
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.back {
            Back::Folder(embedded) => embedded.fmt(f),
            Back::Database(database) => database.fmt(f),
        }
    }
}

fn check_limits(changes: &[&Change]) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::ApiMisuse(text));
    if changes.len() > Store::CHANGES_MAX {
        return refuse(format!("{} changes, at most {} go into one commit", changes.len(), Store::CHANGES_MAX));
    }
    let mut secret_bytes = 0;
    for change in changes {
        let (table, key, value_len, secret_len) = match change {
            Change::Put(record) => {
                let secret_len = record.secret.as_ref().map_or(0, SecretBytes::len);
                (record.table, &record.key, record.value.len(), secret_len)
            }
            Change::Update { table, key, value } => (*table, key, value.len(), 0),
            Change::Delete { table, key } => (*table, key, 0, 0),
        };
        for (what, len, max) in [
            ("key", key.len(), Record::KEY_MAX),
            ("value", value_len, Record::VALUE_MAX),
            ("secret", secret_len, Record::SECRET_MAX),
        ] {
            if len > max {
                return refuse(format!("{what} of {len} B in {table:?}, at most {max} B"));
            }
        }
        secret_bytes += secret_len;
    }
    if secret_bytes > Store::COMMIT_SECRET_BYTES_MAX {
        return refuse(format!("{secret_bytes} B of secrets, at most {} B per commit", Store::COMMIT_SECRET_BYTES_MAX));
    }
    Ok(())
}

/// A record's name in messages.
pub(crate) fn record_name(table: Table, key: &[u8]) -> String {
    let mut name = format!("{table:?}/");
    for byte in key {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}
