//! The store: a set of records that changes atomically and durably.
//!
//! One commit, in this order, each step durable before the next:
//!
//! ```text
//! sealed secrets into fresh slots  →  state table (the commit point)  →  replaced and deleted slots overwritten,
//!                                                                       dead segments' KEKs destroyed
//! ```
//!
//! A crash before the commit point leaves slots that no row points to; a crash after it leaves slots to be
//! overwritten. Opening does both: whatever is not live is overwritten.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use redb::{Database, ReadableTable, TableDefinition};

use crate::disk::{Disk, FsDisk};
use crate::entry::{Entry, Place, row_key, split_row_key};
use crate::segment::{self, Class, Segment, SegmentId};
use crate::{Error, RootKey};

mod compaction;
mod recovery;
#[cfg(test)]
mod tests;

/// Durable records of one site, held by this process alone.
pub struct Store {
    disk: Arc<dyn Disk>,
    root: RootKey,
    rng: Box<dyn CryptoRng + Send>,
    state: Database,
    segments: BTreeMap<SegmentId, Segment>,
    active: [Option<SegmentId>; Class::COUNT],
    next_segment: u64,
    segment_len: u32,
    poisoned: bool,
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
    /// Segment files.
    pub segments: u64,
    /// Segments with a slot that did not open.
    pub damaged_segments: u64,
    /// Sealed secrets.
    pub secrets: u64,
    /// Bytes of sealed secrets.
    pub live_bytes: u64,
    /// Bytes set aside on disk for sealed secrets.
    pub reserved_bytes: u64,
}

impl Store {
    /// Most changes in one commit.
    pub const CHANGES_MAX: usize = 65_536;
    /// Most bytes of secrets in one commit.
    pub const COMMIT_SECRET_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Opens or makes the store in `folder` and returns all its records, by table and key.
    ///
    /// `rng` is the operating system's generator; it makes the segments' keys.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::WrongRootKey`], [`Error::Io`], and [`Error::Corrupt`] if any record is damaged
    /// (see [`Store::open_damaged`]).
    pub fn open(
        folder: &Path,
        root: RootKey,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<(Self, Vec<Record>), Error> {
        let (store, records, damaged) = Self::open_damaged(folder, root, rng)?;
        match damaged.into_iter().next() {
            None => Ok((store, records)),
            Some(Damaged { table, key, path, reason, .. }) => {
                Err(Error::Corrupt { what: format!("record {}", record_name(table, &key)), path, reason })
            }
        }
    }

    /// As [`Store::open`], but returns damaged records apart, so that the rest can be used.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Corrupt`] only if the state table itself is damaged.
    pub fn open_damaged(
        folder: &Path,
        root: RootKey,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<(Self, Vec<Record>, Vec<Damaged>), Error> {
        let disk = Arc::new(FsDisk::open(folder)?);
        recovery::open(disk, root, Box::new(rng), SEGMENT_LEN)
    }

    /// Makes all changes durable together, in order: after an error none or all of them hold, seen at reopening.
    ///
    /// When it returns, secrets that the changes replaced or deleted are overwritten on disk. Changes of several
    /// callers may be joined in one commit; that is how many commits share one wait for the disk.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if a change is beyond its limits or updates a record that is not there: nothing has
    /// changed, and the store stays usable. After any other error the store is poisoned: reopen it.
    pub fn commit<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), Error> {
        let changes: Vec<&Change> = changes.into_iter().collect();
        self.guard(|store| {
            check_limits(&changes)?;
            if changes.is_empty() {
                return Ok(());
            }
            store.commit_checked(&changes)?;
            store.compact_one().map(|_| ())
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
        self.guard(Self::compact_one)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for segment in self.segments.values() {
            stats.segments += 1;
            stats.damaged_segments += u64::from(segment.damaged);
            stats.secrets += segment.live().len() as u64;
            stats.live_bytes += segment.live_bytes();
            stats.reserved_bytes += u64::from(segment.capacity());
        }
        stats
    }

    fn guard<R>(&mut self, operation: impl FnOnce(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let result = operation(self);
        self.poisoned = matches!(&result, Err(error) if !matches!(error, Error::ApiMisuse(_)));
        result
    }

    fn commit_checked(&mut self, changes: &[&Change]) -> Result<(), Error> {
        let path = self.state_path();
        let transaction = self.state.begin_write().map_err(Error::state("write", &path))?;
        let mut plan = Plan::default();
        {
            let mut rows = transaction.open_table(ROWS).map_err(Error::state("write", &path))?;
            for change in changes {
                // An early return drops the transaction, which undoes it.
                self.plan_change(&mut rows, change, &mut plan)?;
            }
        }
        self.write_slots(&plan)?;
        transaction.commit().map_err(Error::state("write", &path))?;
        self.settle(plan)
    }

    fn plan_change(&mut self, rows: &mut Rows<'_>, change: &Change, plan: &mut Plan) -> Result<(), Error> {
        let path = self.state_path();
        let failed = || Error::state::<redb::StorageError>("write", &path);
        match change {
            Change::Put(Record { table, key, value, secret }) => {
                let row = row_key(*table, key);
                let place = match secret {
                    Some(secret) => Some(self.plan_secret(Class::of(*table), &row, secret, plan)?),
                    None => None,
                };
                let entry = Entry { value, place }.encode();
                let before = rows.insert(row.as_slice(), entry.as_slice()).map_err(failed())?;
                let before = before.map(|old| self.place_in(&row, old.value())).transpose()?.flatten();
                plan.effects.push(Effect { row, before, after: place });
            }
            Change::Update { table, key, value } => {
                let row = row_key(*table, key);
                let place = match rows.get(row.as_slice()).map_err(failed())? {
                    Some(old) => self.place_in(&row, old.value())?,
                    None => {
                        let name = record_name(*table, key);
                        return Err(Error::ApiMisuse(format!("update of {name}, which is not there")));
                    }
                };
                rows.insert(row.as_slice(), Entry { value, place }.encode().as_slice()).map_err(failed())?;
            }
            Change::Delete { table, key } => {
                let row = row_key(*table, key);
                let before = rows.remove(row.as_slice()).map_err(failed())?;
                let before = before.map(|old| self.place_in(&row, old.value())).transpose()?.flatten();
                plan.effects.push(Effect { row, before, after: None });
            }
        }
        Ok(())
    }

    /// Gives a secret a slot, seals it, and queues its bytes.
    fn plan_secret(&mut self, class: Class, row: &[u8], secret: &SecretBytes, plan: &mut Plan) -> Result<Place, Error> {
        let len = u32::try_from(secret.len()).expect("limits were checked");
        let place = self.reserve(class, len)?;
        let segment = self.segments.get(&place.segment).expect("a slot was just reserved in it");
        let sealed = segment.seal(place, row, secret);
        let (_, bytes) = plan.writes.entry(place.segment).or_insert((place.offset, Vec::new()));
        bytes.extend_from_slice(&sealed);
        Ok(place)
    }

    fn reserve(&mut self, class: Class, len: u32) -> Result<Place, Error> {
        let active = self.active[class.index()].and_then(|id| self.segments.get_mut(&id));
        if let Some(place) = active.and_then(|segment| segment.reserve(len)) {
            return Ok(place);
        }
        let slot_len = Place { segment: SegmentId(0), offset: 0, len }.slot_len();
        let id = SegmentId(self.next_segment);
        self.next_segment += 1;
        let capacity = self.segment_len.max(slot_len);
        let mut segment = Segment::create(&*self.disk, &self.root, id, class, capacity, &mut self.rng)?;
        let place = segment.reserve(len).expect("a fresh segment was made large enough");
        self.segments.insert(id, segment);
        if slot_len <= self.segment_len {
            self.active[class.index()] = Some(id);
        }
        Ok(place)
    }

    fn write_slots(&self, plan: &Plan) -> Result<(), Error> {
        for (id, (offset, sealed)) in &plan.writes {
            let segment = self.segments.get(id).expect("slots were reserved in it");
            segment.write(&*self.disk, *offset, sealed)?;
            segment.sync(&*self.disk)?;
        }
        Ok(())
    }

    /// After the commit point: what is live now, and the end of what is not.
    fn settle(&mut self, plan: Plan) -> Result<(), Error> {
        let mut dead: BTreeMap<SegmentId, Vec<Place>> = BTreeMap::new();
        for Effect { row, before, after } in plan.effects {
            if let Some(place) = after {
                let segment = self.segments.get_mut(&place.segment).expect("slots were reserved in it");
                segment.mark_live(place, row.into_boxed_slice());
            }
            // A segment that could not be opened is not among ours; the next opening destroys it.
            if let Some(place) = before
                && let Some(segment) = self.segments.get_mut(&place.segment)
                && segment.live().contains_key(&place.offset)
            {
                segment.mark_dead(place);
                dead.entry(place.segment).or_default().push(place);
            }
        }
        for id in self.destroy_dead_segments()? {
            dead.remove(&id);
        }
        for (id, places) in dead {
            let segment = self.segments.get(&id).expect("it was not destroyed");
            for place in places {
                segment.erase(&*self.disk, place.offset, place.slot_len())?;
            }
            segment.sync(&*self.disk)?;
        }
        Ok(())
    }

    /// Destroys segments without a live secret; an active one only when much of it was used.
    fn destroy_dead_segments(&mut self) -> Result<Vec<SegmentId>, Error> {
        let is_over = |(id, segment): (&SegmentId, &Segment)| {
            let is_active = self.active.contains(&Some(*id));
            let is_worn = u64::from(segment.next()) * EMPTY_USE_DIVISOR >= u64::from(segment.capacity());
            (segment.live().is_empty() && (!is_active || is_worn)).then_some(*id)
        };
        let over: Vec<SegmentId> = self.segments.iter().filter_map(is_over).collect();
        for id in &over {
            segment::destroy(&*self.disk, *id)?;
            self.segments.remove(id);
            for active in &mut self.active {
                if *active == Some(*id) {
                    *active = None;
                }
            }
        }
        if !over.is_empty() {
            self.disk.sync_names().map_err(Error::io("sync folder", self.disk.path()))?;
        }
        Ok(over)
    }

    fn place_in(&self, row: &[u8], bytes: &[u8]) -> Result<Option<Place>, Error> {
        Entry::decode(bytes).map(|entry| entry.place).map_err(|_| self.bad_row(row))
    }

    fn bad_row(&self, row: &[u8]) -> Error {
        bad_row(&self.state_path(), row)
    }

    fn state_path(&self) -> PathBuf {
        self.disk.path().join(STATE_NAME)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("folder", &self.disk.path()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

type Rows<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// What one commit is about to do.
#[derive(Default)]
struct Plan {
    /// Per segment: first offset, and sealed slots that follow each other.
    writes: BTreeMap<SegmentId, (u32, Vec<u8>)>,
    effects: Vec<Effect>,
}

/// One row's secret before and after.
struct Effect {
    row: Vec<u8>,
    before: Option<Place>,
    after: Option<Place>,
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

fn record_name(table: Table, key: &[u8]) -> String {
    let mut name = format!("{table:?}/");
    for byte in key {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

fn bad_row(path: &Path, row: &[u8]) -> Error {
    let what = split_row_key(row).map_or_else(|| "a row".into(), |(table, key)| record_name(table, key));
    Error::Corrupt { what, path: path.to_path_buf(), reason: "the row is malformed" }
}

const STATE_NAME: &str = "state.redb";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Bytes of an ordinary segment; a larger secret gets a segment of its own.
const SEGMENT_LEN: u32 = 1024 * 1024;
/// An active segment without live secrets is destroyed once it was used to one part in this many.
const EMPTY_USE_DIVISOR: u64 = 16;
