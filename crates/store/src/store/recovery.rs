//! Opening: checks the root key, reads every record, and finishes what a crash interrupted.
//!
//! Whatever lies in a segment between live slots is overwritten; a segment without a live slot is destroyed.
//! Both happen only after the root key has proved right and the state table whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crypto::domain::Domain;
use crypto::record::Record;
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Damaged, ROWS, STATE_NAME, Store, bad_row};
use crate::disk::{Disk, DiskFile, TableFile};
use crate::entry::{Entry, Place, split_row_key};
use crate::segment::{self, Class, Segment, SegmentId};
use crate::{Error, RootKey};

/// Opens a store on any disk.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    root: RootKey,
    mut rng: Box<dyn CryptoRng + Send>,
    segment_len: u32,
) -> Result<(Store, Vec<Record>, Vec<Damaged>), Error> {
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
    let state = open_table(file, &path)?;
    check_root(&state, &path, disk.path(), &root)?;

    let rows = read_rows(&state, &path)?;
    let next_segment =
        rows.values().flat_map(|row| row.place).map(|place| place.segment).chain(on_disk.iter().copied());
    let next_segment = next_segment.map(|id| id.0).max().unwrap_or(0);
    let mut store = Store {
        disk,
        root,
        rng,
        state,
        segments: BTreeMap::new(),
        active: [None; Class::COUNT],
        next_segment: next_segment.saturating_add(1),
        segment_len,
        poisoned: false,
    };

    let mut by_segment: BTreeMap<SegmentId, Vec<(&[u8], Place)>> = BTreeMap::new();
    for (key, row) in &rows {
        if let Some(place) = row.place {
            by_segment.entry(place.segment).or_default().push((key, place));
        }
    }
    let mut secrets: BTreeMap<&[u8], Result<SecretBytes, &'static str>> = BTreeMap::new();
    for (id, slots) in by_segment {
        load_segment(&mut store, id, slots, &mut secrets)?;
    }
    for id in on_disk {
        // A segment that rows point to but that cannot be opened stays for the rows' sake.
        if !store.segments.contains_key(&id) && !rows.values().any(|row| row.place.is_some_and(|p| p.segment == id)) {
            segment::destroy(&*store.disk, id)?;
        }
    }
    store.disk.sync_names().map_err(Error::io("sync folder", store.disk.path()))?;

    let (mut records, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for (row_key, row) in &rows {
        let (table, key) = split_row_key(row_key).ok_or_else(|| bad_row(&path, row_key))?;
        let (key, value) = (key.to_vec(), row.value.clone());
        match (row.place, secrets.remove(row_key.as_slice())) {
            (None, _) => records.push(Record { table, key, value, secret: None }),
            (Some(_), Some(Ok(secret))) => records.push(Record { table, key, value, secret: Some(secret) }),
            (Some(place), failure) => {
                let reason = failure.and_then(Result::err).unwrap_or("its segment was not read");
                damaged.push(Damaged {
                    table,
                    key,
                    value,
                    path: store.disk.path().join(place.segment.keys_name()),
                    reason,
                });
            }
        }
    }
    Ok((store, records, damaged))
}

/// Makes a state table that is marked with the root key. Only a whole one gets the name that opening looks for.
fn create_state(
    disk: &dyn Disk,
    root: &RootKey,
    names: &[String],
    mut rng: &mut (dyn CryptoRng + Send),
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
        let mut mark = FORMAT_VERSION.to_be_bytes().to_vec();
        let nothing = SecretBytes::from_vec(Vec::new());
        mark.extend(root.seal(Domain::StoreSegmentKek, &[MARK_CONTEXT], &nothing, &mut rng));
        marks.insert(FORMAT, mark.as_slice()).map_err(Error::state("write", &path))?;
    }
    transaction.commit().map_err(Error::state("write", &path))?;
    drop(state);
    disk.rename(NEW_STATE_NAME, STATE_NAME).map_err(Error::io("rename", &path))?;
    disk.sync_names().map_err(Error::io("sync folder", disk.path()))
}

fn open_table(file: Arc<dyn DiskFile>, path: &Path) -> Result<Database, Error> {
    // The engine may panic later on a file that was altered behind its back, so every page is checked now.
    Database::builder()
        .set_cache_size(CACHE_LEN)
        .set_check_integrity_on_open(true)
        .create_with_backend(TableFile(file))
        .map_err(Error::state("open", path))
}

/// Proves that `root` is the key that this store was made with.
fn check_root(state: &Database, path: &Path, folder: &Path, root: &RootKey) -> Result<(), Error> {
    let corrupt = |reason| Error::Corrupt { what: "the store's mark".into(), path: path.to_path_buf(), reason };
    let transaction = state.begin_read().map_err(Error::state("read", path))?;
    let marks = transaction.open_table(MARKS).map_err(Error::state("read", path))?;
    let mark = marks.get(FORMAT).map_err(Error::state("read", path))?;
    let mark = mark.map(|mark| mark.value().to_vec()).ok_or_else(|| corrupt("it is missing"))?;
    let Some((version, sealed)) = mark.split_first_chunk::<2>() else {
        return Err(corrupt("it is cut short"));
    };
    if u16::from_be_bytes(*version) != FORMAT_VERSION {
        return Err(corrupt("it is of another version of this program"));
    }
    root.open(Domain::StoreSegmentKek, &[MARK_CONTEXT], sealed)
        .map(|_| ())
        .map_err(|_| Error::WrongRootKey { path: folder.to_path_buf() })
}

struct Row {
    value: Vec<u8>,
    place: Option<Place>,
}

fn read_rows(state: &Database, path: &Path) -> Result<BTreeMap<Vec<u8>, Row>, Error> {
    let failed = || Error::state::<redb::StorageError>("read", path);
    let transaction = state.begin_read().map_err(Error::state("read", path))?;
    let table = transaction.open_table(ROWS).map_err(Error::state("read", path))?;
    let mut rows = BTreeMap::new();
    for row in table.iter().map_err(failed())? {
        let (key, bytes) = row.map_err(failed())?;
        let entry = Entry::decode(bytes.value()).map_err(|_| bad_row(path, key.value()))?;
        rows.insert(key.value().to_vec(), Row { value: entry.value.to_vec(), place: entry.place });
    }
    Ok(rows)
}

/// Opens a segment's live slots and overwrites everything else in it.
fn load_segment<'a>(
    store: &mut Store,
    id: SegmentId,
    mut slots: Vec<(&'a [u8], Place)>,
    secrets: &mut BTreeMap<&'a [u8], Result<SecretBytes, &'static str>>,
) -> Result<(), Error> {
    let loaded = Segment::load(&*store.disk, &store.root, id).and_then(|segment| {
        segment.read_all().map(|content| (segment, content)).map_err(|_| "its segment cannot be read")
    });
    let (mut segment, content) = match loaded {
        Ok(loaded) => loaded,
        Err(reason) => {
            secrets.extend(slots.into_iter().map(|(row, _)| (row, Err(reason))));
            return Ok(());
        }
    };
    slots.sort_by_key(|(_, place)| place.offset);
    let mut end_of_last = 0;
    let mut is_dirty = false;
    for (row, place) in slots {
        let slot = range(place.offset, place.slot_len());
        let secret = match content.get(slot) {
            Some(sealed) if place.offset >= end_of_last => {
                is_dirty |= erase_between(store, &segment, &content, end_of_last, place.offset)?;
                end_of_last = place.offset + place.slot_len();
                segment.mark_live(place, row.into());
                segment.unseal(place, row, sealed).ok_or("the sealed secret does not open")
            }
            _ => Err("its slot is outside the segment or another record's"),
        };
        segment.damaged |= secret.is_err();
        secrets.insert(row, secret);
    }
    let end = u32::try_from(content.len()).unwrap_or(u32::MAX);
    is_dirty |= erase_between(store, &segment, &content, end_of_last, end)?;
    if is_dirty {
        segment.sync(&*store.disk)?;
    }
    store.segments.insert(id, segment);
    Ok(())
}

fn erase_between(store: &Store, segment: &Segment, content: &[u8], from: u32, to: u32) -> Result<bool, Error> {
    let len = to.saturating_sub(from);
    let is_dirty = content.get(range(from, len)).is_some_and(|gap| gap.iter().any(|byte| *byte != 0));
    if is_dirty {
        segment.erase(&*store.disk, from, len)?;
    }
    Ok(is_dirty)
}

fn range(offset: u32, len: u32) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
}

const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");
const FORMAT: &str = "format";
const FORMAT_VERSION: u16 = 1;
/// A state table in the making.
const NEW_STATE_NAME: &str = "state.new";
const MARK_CONTEXT: &[u8] = b"mark";
/// Memory that the state table's engine may use.
const CACHE_LEN: usize = 16 * 1024 * 1024;
