//! Opening: checks the root key, finds what is live, and finishes what a crash interrupted.
//!
//! Whatever lies in a segment between live slots is overwritten; a segment without a live slot is destroyed.
//! Both happen only after the root key has proved right and the state table whole. Secrets are not opened here
//! but when they are read, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::compaction::Moving;
use super::{Embedded, MARKS, ROWS, STATE_NAME, bad_row};
use crate::disk::{Disk, DiskFile, TableFile};
use crate::entry::{Entry, Place};
use crate::kek::{Class, Layout};
use crate::segment::{self, Segment, SegmentId, Slot};
use crate::{Error, RootKey};

/// Opens a store on any disk.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    root: RootKey,
    mut rng: Box<dyn CryptoRng + Send>,
    segment_len: u32,
) -> Result<Embedded, Error> {
    let names = disk.names().map_err(Error::io("list", disk.path()))?;
    let on_disk: BTreeSet<SegmentId> = names.iter().filter_map(|name| SegmentId::of_name(name)).collect();
    let path = disk.path().join(STATE_NAME);
    if !names.iter().any(|name| name == STATE_NAME) {
        if !on_disk.is_empty() {
            // Without this, a lost state table would make every segment look like a leftover.
            let reason = "segment files are there but the state table is not; restore it";
            return Err(Error::Corrupt { what: "the store".into(), path, reason });
        }
        create_state(&*disk, &root, &names, &mut *rng)?;
    }
    let file = disk.open(STATE_NAME).map_err(Error::io("open", &path))?;
    // What a killed process had written and not synced may be read now: it must not go away again.
    file.sync_data().map_err(Error::io("sync", &path))?;
    let state = open_table(file, &path)?;
    let version = check_root(&state, &path, disk.path(), &root)?;

    let mut store = Embedded {
        disk,
        root,
        rng,
        state,
        segments: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        active: [None; Class::COUNT],
        next_segment: 0,
        segment_len,
        dirty: BTreeMap::new(),
    };
    if version != FORMAT_VERSION {
        let mark = sealed_mark(&store.root, &mut store.rng);
        store.set_mark(FORMAT, &mark)?;
    }
    for id in &on_disk {
        match Segment::load(&*store.disk, &store.root, *id) {
            Ok(segment) => drop(store.segments.insert(*id, segment)),
            Err(reason) => drop(store.unreadable.insert(*id, reason)),
        }
    }
    let Rows { slots, bare } = store.scan_rows()?;
    let highest = slots.keys().chain(&on_disk).map(|id| id.0).max().unwrap_or(0);
    store.next_segment = highest.saturating_add(1);
    for id in slots.keys() {
        if !store.segments.contains_key(id) {
            store.unreadable.entry(*id).or_insert("the segment's files are not there");
        }
    }
    // A segment that rows point to but that cannot be opened stays for the rows' sake.
    for id in on_disk.iter().filter(|id| !slots.contains_key(id)) {
        segment::destroy(&*store.disk, *id)?;
        store.segments.remove(id);
        store.unreadable.remove(id);
    }
    for (id, slots) in slots {
        store.settle_segment(id, slots)?;
    }
    store.disk.sync_names().map_err(Error::io("sync folder", store.disk.path()))?;
    store.name_bare_slots(bare)?;
    Ok(store)
}

/// What the state table says of the segments.
#[derive(Default)]
struct Rows {
    slots: BTreeMap<SegmentId, Vec<Slot>>,
    /// Rows whose slots do not name them, written by an earlier version.
    bare: Vec<(Vec<u8>, Place)>,
}

impl Embedded {
    fn scan_rows(&self) -> Result<Rows, Error> {
        let path = self.state_path();
        let failed = || Error::state::<redb::StorageError>("read", &path);
        let transaction = self.state.begin_read().map_err(Error::state("read", &path))?;
        let table = transaction.open_table(ROWS).map_err(Error::state("read", &path))?;
        let mut rows = Rows::default();
        for row in table.iter().map_err(failed())? {
            let (key, bytes) = row.map_err(failed())?;
            let entry = Entry::decode(bytes.value()).map_err(|_| bad_row(&path, key.value()))?;
            let Some(place) = entry.place else { continue };
            let layout = self.segments.get(&place.segment).map_or(Layout::Named, Segment::layout);
            let len = Segment::slot_len(layout, key.value(), place.len).ok_or_else(|| bad_row(&path, key.value()))?;
            rows.slots.entry(place.segment).or_default().push(Slot { offset: place.offset, len });
            if layout == Layout::Bare {
                rows.bare.push((key.value().to_vec(), place));
            }
        }
        Ok(rows)
    }

    /// Notes a segment's live slots and overwrites everything else in it.
    fn settle_segment(&mut self, id: SegmentId, slots: Vec<Slot>) -> Result<(), Error> {
        let Some(segment) = self.segments.get_mut(&id) else { return Ok(()) };
        let Ok(content) = segment.read_all() else {
            self.segments.remove(&id);
            self.unreadable.insert(id, "its segment cannot be read");
            return Ok(());
        };
        segment.restore_slots(slots);
        let segment = &*segment;
        let mut end_of_last = 0;
        for slot in segment.live() {
            erase_between(&*self.disk, segment, &content, end_of_last, slot.offset)?;
            end_of_last = slot.offset + slot.len;
        }
        let end = u32::try_from(content.len()).unwrap_or(u32::MAX);
        erase_between(&*self.disk, segment, &content, end_of_last, end)?;
        // Also when all was zeros: a killed process may have overwritten and not synced.
        segment.sync(&*self.disk)
    }

    /// Moves secrets out of segments of the earlier layout, which goes away with them.
    fn name_bare_slots(&mut self, bare: Vec<(Vec<u8>, Place)>) -> Result<(), Error> {
        for rows in bare.chunks(MOVE_MAX) {
            let mut moving = Vec::with_capacity(rows.len());
            for (row, place) in rows {
                let segment = self.segments.get(&place.segment).expect("its layout was read");
                // A damaged one stays where it is and is reported when it is read.
                if let Ok(secret) = segment.read(*place, row) {
                    moving.push(Moving { from: *place, row: row.clone(), secret });
                }
            }
            self.move_secrets(moving)?;
        }
        Ok(())
    }
}

fn erase_between(disk: &dyn Disk, segment: &Segment, content: &[u8], from: u32, to: u32) -> Result<(), Error> {
    let len = to.saturating_sub(from);
    let is_dirty = content.get(range(from, len)).is_some_and(|gap| gap.iter().any(|byte| *byte != 0));
    if is_dirty { segment.erase(disk, from, len) } else { Ok(()) }
}

fn range(offset: u32, len: u32) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
}

/// Makes a state table that is marked with the root key. Only a whole one gets the name that opening looks for.
fn create_state(
    disk: &dyn Disk,
    root: &RootKey,
    names: &[String],
    rng: &mut (dyn CryptoRng + Send),
) -> Result<(), Error> {
    let path = disk.path().join(NEW_STATE_NAME);
    if names.iter().any(|name| name == NEW_STATE_NAME) {
        disk.remove(NEW_STATE_NAME).map_err(Error::io("remove", &path))?;
    }
    let file = disk.create(NEW_STATE_NAME, 0).map_err(Error::io("create", &path))?;
    let state = open_table(file, &path)?;
    let transaction = state.begin_write().map_err(Error::state("write", &path))?;
    {
        transaction.open_table(ROWS).map_err(Error::state("write", &path))?;
        let mut marks = transaction.open_table(MARKS).map_err(Error::state("write", &path))?;
        marks.insert(FORMAT, sealed_mark(root, rng).as_slice()).map_err(Error::state("write", &path))?;
    }
    transaction.commit().map_err(Error::state("write", &path))?;
    drop(state);
    disk.rename(NEW_STATE_NAME, STATE_NAME).map_err(Error::io("rename", &path))?;
    disk.sync_names().map_err(Error::io("sync folder", disk.path()))
}

/// Version of the format, and a proof of the root key.
pub(super) fn sealed_mark(root: &RootKey, mut rng: &mut (dyn CryptoRng + Send)) -> Vec<u8> {
    let mut mark = FORMAT_VERSION.to_be_bytes().to_vec();
    let nothing = SecretBytes::from_vec(Vec::new());
    mark.extend(root.seal(Domain::StoreSegmentKek, &[MARK_CONTEXT], &nothing, &mut rng));
    mark
}

fn open_table(file: Arc<dyn DiskFile>, path: &Path) -> Result<Database, Error> {
    // The engine may panic later on a file that was altered behind its back, so every page is checked now.
    Database::builder()
        .set_cache_size(CACHE_LEN)
        .set_check_integrity_on_open(true)
        .create_with_backend(TableFile(file))
        .map_err(Error::state("open", path))
}

/// Proves that `root` is the key that this store was made with; returns the version of its format.
fn check_root(state: &Database, path: &Path, folder: &Path, root: &RootKey) -> Result<u16, Error> {
    let corrupt = |reason| Error::Corrupt { what: "the store's mark".into(), path: path.to_path_buf(), reason };
    let transaction = state.begin_read().map_err(Error::state("read", path))?;
    let marks = transaction.open_table(MARKS).map_err(Error::state("read", path))?;
    let mark = marks.get(FORMAT).map_err(Error::state("read", path))?;
    let mark = mark.map(|mark| mark.value().to_vec()).ok_or_else(|| corrupt("it is missing"))?;
    let Some((version, sealed)) = mark.split_first_chunk::<2>() else {
        return Err(corrupt("it is cut short"));
    };
    let version = u16::from_be_bytes(*version);
    if !(1..=FORMAT_VERSION).contains(&version) {
        return Err(corrupt("it is of another version of this program"));
    }
    root.open(Domain::StoreSegmentKek, &[MARK_CONTEXT], sealed)
        .map(|_| version)
        .map_err(|_| Error::WrongRootKey { path: folder.to_path_buf() })
}

pub(super) const FORMAT: &str = "format";
/// Version 1 had slots that do not name their rows.
const FORMAT_VERSION: u16 = 2;
/// A state table in the making.
const NEW_STATE_NAME: &str = "state.new";
const MARK_CONTEXT: &[u8] = b"mark";
/// Memory that the state table's engine may use.
const CACHE_LEN: usize = 16 * 1024 * 1024;
/// Most secrets moved in one commit.
const MOVE_MAX: usize = 1_024;
