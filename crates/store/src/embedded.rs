//! The embedded back end: one folder, held by this process alone.
//!
//! One commit, in this order, each step durable before the next:
//!
//! ```text
//! sealed secrets into fresh slots  →  state table (the commit point)  →  dead segments' KEKs destroyed
//! ```
//!
//! Replaced and deleted slots are overwritten together with the next slots written to their segment, so that both share
//! one wait for the disk, or by [`Embedded::wipe`]. A crash before the commit point leaves slots that no row points to;
//! a crash after it leaves slots to be overwritten. Opening sees to both: whatever is not live is overwritten.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::record::{Change, Record};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::disk::Disk;
use crate::entry::{Entry, Place, row_key, split_row_key};
use crate::kek::{Class, Layout};
use crate::segment::{self, Segment, SegmentId, Slot};
use crate::store::{Stats, record_name};
use crate::{Error, RootKey};

mod compaction;
mod records;
mod recovery;
mod rekey;
#[cfg(test)]
mod tests;

pub(crate) use records::EmbeddedRecords;
pub(crate) use recovery::open;

/// A store in a folder.
pub(crate) struct Embedded {
    disk: Arc<dyn Disk>,
    root: RootKey,
    rng: Box<dyn CryptoRng + Send>,
    state: Database,
    segments: BTreeMap<SegmentId, Segment>,
    /// Segments that rows point to but that could not be opened, and why.
    unreadable: BTreeMap<SegmentId, &'static str>,
    active: [Option<SegmentId>; Class::COUNT],
    next_segment: u64,
    segment_len: u32,
    /// Dead slots that are still to be overwritten.
    dirty: BTreeMap<SegmentId, Vec<Slot>>,
}

impl Embedded {
    /// Makes changes, whose limits were checked, durable together.
    pub(crate) fn commit(&mut self, changes: &[&Change]) -> Result<(), Error> {
        self.commit_checked(changes)?;
        self.compact_one().map(|_| ())
    }

    /// Overwrites every dead slot, durably.
    pub(crate) fn wipe(&mut self) -> Result<(), Error> {
        for (id, slots) in std::mem::take(&mut self.dirty) {
            if let Some(segment) = self.segments.get(&id) {
                erase(&*self.disk, segment, slots)?;
                segment.sync(&*self.disk)?;
            }
        }
        Ok(())
    }

    /// Whether dead slots are still to be overwritten.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Moves the rest out of one mostly dead segment and destroys it.
    pub(crate) fn compact(&mut self) -> Result<bool, Error> {
        self.compact_one()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for segment in self.segments.values() {
            stats.segments += 1;
            stats.damaged_segments += u64::from(segment.is_damaged());
            stats.secrets += segment.live_count() as u64;
            stats.live_bytes += segment.live_bytes();
            stats.reserved_bytes += u64::from(segment.capacity());
        }
        stats
    }

    pub(crate) fn root(&self) -> &RootKey {
        &self.root
    }

    pub(crate) fn rng(&mut self) -> &mut (dyn CryptoRng + Send) {
        &mut *self.rng
    }

    pub(crate) fn folder(&self) -> &Path {
        self.disk.path()
    }

    /// A small public value beside the records.
    pub(crate) fn mark(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.state_path();
        let transaction = self.state.begin_read().map_err(Error::state("read", &path))?;
        let marks = transaction.open_table(MARKS).map_err(Error::state("read", &path))?;
        let mark = marks.get(name).map_err(Error::state("read", &path))?;
        Ok(mark.map(|mark| mark.value().to_vec()))
    }

    pub(crate) fn set_mark(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        let path = self.state_path();
        let transaction = self.state.begin_write().map_err(Error::state("write", &path))?;
        {
            let mut marks = transaction.open_table(MARKS).map_err(Error::state("write", &path))?;
            marks.insert(name, value).map_err(Error::state("write", &path))?;
        }
        transaction.commit().map_err(Error::state("write", &path))
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
        let place = self.reserve(class, row, len)?;
        let segment = self.segments.get(&place.segment).expect("a slot was just reserved in it");
        let (_, bytes) = plan.writes.entry(place.segment).or_insert((place.offset, Vec::new()));
        segment.seal(place, row, secret, bytes);
        Ok(place)
    }

    fn reserve(&mut self, class: Class, row: &[u8], len: u32) -> Result<Place, Error> {
        if let Some(active) = self.active[class.index()].and_then(|id| self.segments.get_mut(&id)) {
            if let Some(place) = active.reserve(row, len) {
                return Ok(place);
            }
            active.retire();
        }
        let slot_len = Segment::slot_len(Layout::Named, row, len).expect("limits were checked");
        let id = SegmentId(self.next_segment);
        self.next_segment += 1;
        let capacity = self.segment_len.max(slot_len);
        let mut segment = Segment::create(&*self.disk, &self.root, id, class, capacity, &mut self.rng)?;
        let place = segment.reserve(row, len).expect("a fresh segment was made large enough");
        self.segments.insert(id, segment);
        if slot_len <= self.segment_len {
            self.active[class.index()] = Some(id);
        }
        Ok(place)
    }

    fn write_slots(&mut self, plan: &Plan) -> Result<(), Error> {
        for (id, (offset, sealed)) in &plan.writes {
            let segment = self.segments.get(id).expect("slots were reserved in it");
            segment.write(&*self.disk, *offset, sealed)?;
            // They are dead since an earlier commit, which is durable: no crash can need them again.
            erase(&*self.disk, segment, self.dirty.remove(id).unwrap_or_default())?;
            segment.sync(&*self.disk)?;
        }
        Ok(())
    }

    /// After the commit point: what is live now, and the end of what is not.
    fn settle(&mut self, plan: Plan) -> Result<(), Error> {
        for Effect { row, before, after } in plan.effects {
            if let Some(place) = after {
                let segment = self.segments.get_mut(&place.segment).expect("slots were reserved in it");
                segment.mark_live(place, &row);
            }
            // A segment that could not be opened is not among ours; an opening destroys it when no row needs it.
            if let Some(place) = before
                && let Some(segment) = self.segments.get_mut(&place.segment)
                && let Some(slot) = segment.mark_dead(place)
            {
                self.dirty.entry(place.segment).or_default().push(slot);
            }
        }
        for id in self.destroy_dead_segments()? {
            self.dirty.remove(&id);
        }
        if self.dirty.values().map(Vec::len).sum::<usize>() > DIRTY_MAX {
            self.wipe()?;
        }
        Ok(())
    }

    /// Destroys segments without a live secret; an active one only when much of it was used.
    fn destroy_dead_segments(&mut self) -> Result<Vec<SegmentId>, Error> {
        let is_over = |(id, segment): (&SegmentId, &Segment)| {
            let is_active = self.active.contains(&Some(*id));
            let is_worn = u64::from(segment.next()) * EMPTY_USE_DIVISOR >= u64::from(segment.capacity());
            (segment.live_count() == 0 && (!is_active || is_worn)).then_some(*id)
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

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("folder", &self.disk.path())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
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

/// Overwrites slots; neighbours in one write.
fn erase(disk: &dyn Disk, segment: &Segment, mut slots: Vec<Slot>) -> Result<(), Error> {
    slots.sort_unstable_by_key(|slot| slot.offset);
    let joined = slots.chunk_by(|a, b| a.offset + a.len == b.offset);
    joined.into_iter().try_for_each(|row| segment.erase(disk, row[0].offset, row.iter().map(|slot| slot.len).sum()))
}

fn bad_row(path: &Path, row: &[u8]) -> Error {
    let what = split_row_key(row).map_or_else(|| "a row".into(), |(table, key)| record_name(table, key));
    Error::Corrupt { what, path: path.to_path_buf(), reason: "the row is malformed" }
}

const STATE_NAME: &str = "state.redb";
/// Small public values beside the records.
const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Bytes of an ordinary segment; a larger secret gets a segment of its own.
pub(crate) const SEGMENT_LEN: u32 = 1024 * 1024;
/// Most dead slots that wait to be overwritten.
const DIRTY_MAX: usize = 1_024;
/// An active segment without live secrets is destroyed once it was used to one part in this many.
const EMPTY_USE_DIVISOR: u64 = 16;
