//! Segment files: preallocated, append-only rows of sealed secrets, each file under its own key.
//!
//! ```text
//! 0000000000000007.keys   | row key, sealed secret, tag | row key, sealed secret, tag | … | zeros |
//! 0000000000000007.kek    | description, sealed key-encryption key (KEK) | zeros |   see `kek`
//! ```
//!
//! | length | field of a slot | rule |
//! |---|---|---|
//! | 2 | row key's length | at least 1 |
//! | r | row key | public; compaction finds the row by it |
//! | n | ciphertext | |
//! | 16 | tag | |
//!
//! A slot's nonce is its offset. Offsets only grow, and a segment is written by the process that made it and by
//! no later one, so a nonce cannot repeat under a KEK. A deleted secret's slot is overwritten in place; a dead
//! segment's KEK is overwritten, then both files are removed.
//!
//! In memory a segment knows of each slot whether it is live, see `slots`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crypto::aead::{AeadKey, TAG_LEN, nonce_of};
use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;

use crate::disk::{Disk, DiskFile};
use crate::entry::Place;
use crate::kek::{self, Class, KekSlot, Layout};
use crate::{Error, RootKey};

mod slots;

pub(crate) use self::slots::Slot;
use self::slots::Slots;

/// Number of a segment; never used twice in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId(pub(crate) u64);

impl SegmentId {
    pub(crate) fn keys_name(self) -> String {
        format!("{:016x}.keys", self.0)
    }

    pub(crate) fn kek_name(self) -> String {
        format!("{:016x}.kek", self.0)
    }

    /// The segment that a file name belongs to.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".keys").or_else(|| name.strip_suffix(".kek"))?;
        let id = Self(u64::from_str_radix(stem, 16).ok()?);
        (id.keys_name() == name || id.kek_name() == name).then_some(id)
    }
}

/// One segment: its files, its key and which slots are live.
#[derive(Debug)]
pub(crate) struct Segment {
    description: KekSlot,
    keys: Arc<dyn DiskFile>,
    key: AeadKey,
    next: u32,
    slots: Slots,
    damaged: AtomicBool,
}

impl Segment {
    /// Makes the two files, durably, so that rows may point into them.
    pub(crate) fn create(
        disk: &dyn Disk,
        root: &RootKey,
        id: SegmentId,
        class: Class,
        capacity: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        let description = KekSlot { id, layout: Layout::Named, class, capacity, sealed: Vec::new() };
        let (description, kek) = kek::create(disk, root, description, rng)?;
        let path = disk.path().join(id.keys_name());
        let keys = disk.create(&id.keys_name(), u64::from(capacity)).map_err(Error::io("create", &path))?;
        keys.sync_data().map_err(Error::io("write", &path))?;
        disk.sync_names().map_err(Error::io("sync folder", disk.path()))?;
        Ok(Self::new(description, keys, AeadKey::new(&kek), 0))
    }

    /// Opens a segment of an earlier process; nothing is appended to it any more.
    pub(crate) fn load(disk: &dyn Disk, root: &RootKey, id: SegmentId) -> Result<Self, &'static str> {
        let (description, kek) = kek::load(disk, root, id)?;
        let keys = disk.open(&id.keys_name()).map_err(|_| "the segment file cannot be opened")?;
        let next = description.capacity;
        Ok(Self::new(description, keys, AeadKey::new(&kek), next))
    }

    fn new(description: KekSlot, keys: Arc<dyn DiskFile>, key: AeadKey, next: u32) -> Self {
        Self { description, keys, key, next, slots: Slots::default(), damaged: AtomicBool::new(false) }
    }

    /// Bytes of the slot of a secret under a row's key.
    pub(crate) fn slot_len(layout: Layout, row: &[u8], secret_len: u32) -> Option<u32> {
        let head = match layout {
            Layout::Bare => 0,
            Layout::Named => HEAD_LEN + row.len(),
        };
        secret_len.checked_add(u32::try_from(head + TAG_LEN).ok()?)
    }

    /// Sets aside the next slot for a secret of `len` bytes, if there is room.
    pub(crate) fn reserve(&mut self, row: &[u8], len: u32) -> Option<Place> {
        let place = Place { segment: self.id(), offset: self.next, len };
        let end = self.next.checked_add(Self::slot_len(Layout::Named, row, len)?)?;
        if end > self.description.capacity {
            return None;
        }
        self.next = end;
        Some(place)
    }

    /// The bytes of a slot.
    pub(crate) fn seal(&self, place: Place, row: &[u8], secret: &SecretBytes, out: &mut Vec<u8>) {
        assert!(
            place.segment == self.id() && self.description.layout == Layout::Named,
            "only fresh segments are filled"
        );
        out.extend_from_slice(&u16::try_from(row.len()).expect("a row's key has at most 257 bytes").to_be_bytes());
        out.extend_from_slice(row);
        let from = out.len();
        secret.expose(|secret| out.extend_from_slice(secret));
        let tag = self.key.seal(nonce_of(u64::from(place.offset)), &binding(place, row), &mut out[from..]);
        out.extend_from_slice(&tag);
    }

    /// Reads and opens the slot of a row.
    pub(crate) fn read(&self, place: Place, row: &[u8]) -> Result<SecretBytes, &'static str> {
        let slot = self.slots.find(place.offset).ok_or(OUTSIDE)?;
        if Self::slot_len(self.description.layout, row, place.len) != Some(slot.len) {
            return Err(OUTSIDE);
        }
        self.open_slot(slot, Some((place, row))).map(|(_, secret)| secret)
    }

    /// Reads and opens a live slot that names its row.
    pub(crate) fn read_named(&self, slot: Slot) -> Result<(Vec<u8>, SecretBytes), &'static str> {
        self.open_slot(slot, None)
    }

    fn open_slot(&self, slot: Slot, expected: Option<(Place, &[u8])>) -> Result<(Vec<u8>, SecretBytes), &'static str> {
        let result = self.open_slot_unmarked(slot, expected);
        if result.is_err() {
            self.damaged.store(true, Ordering::Relaxed);
        }
        result
    }

    fn open_slot_unmarked(
        &self,
        slot: Slot,
        expected: Option<(Place, &[u8])>,
    ) -> Result<(Vec<u8>, SecretBytes), &'static str> {
        let mut content = vec![0; usize::try_from(slot.len).unwrap_or(0)];
        self.keys.read_at(u64::from(slot.offset), &mut content).map_err(|_| "its segment cannot be read")?;
        let closed = "the sealed secret does not open";
        let (row, sealed) = match self.description.layout {
            Layout::Bare => (expected.map(|(_, row)| row).ok_or(closed)?, content.as_slice()),
            Layout::Named => split_named(&content).ok_or(closed)?,
        };
        if expected.is_some_and(|(_, expected)| expected != row) {
            return Err(closed);
        }
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(closed)?;
        let len = u32::try_from(body.len()).map_err(|_| closed)?;
        let place = Place { segment: self.id(), offset: slot.offset, len };
        let mut secret = SecretBytes::copy_of(body);
        let nonce = nonce_of(u64::from(place.offset));
        secret.expose_mut(|body| self.key.open(nonce, &binding(place, row), body, *tag)).map_err(|_| closed)?;
        Ok((row.to_vec(), secret))
    }

    /// The whole file.
    pub(crate) fn read_all(&self) -> std::io::Result<Vec<u8>> {
        let len = self.keys.len()?.min(u64::from(self.description.capacity));
        let mut content = vec![0; usize::try_from(len).unwrap_or(0)];
        self.keys.read_at(0, &mut content)?;
        Ok(content)
    }

    /// Writes slots that stand one after the other.
    pub(crate) fn write(&self, disk: &dyn Disk, offset: u32, sealed: &[u8]) -> Result<(), Error> {
        self.keys.write_at(u64::from(offset), sealed).map_err(Error::io("write", &self.path(disk)))
    }

    /// Overwrites a range with zeros.
    pub(crate) fn erase(&self, disk: &dyn Disk, offset: u32, len: u32) -> Result<(), Error> {
        self.write(disk, offset, &vec![0; usize::try_from(len).unwrap_or(0)])
    }

    /// Makes writes and erasures durable.
    pub(crate) fn sync(&self, disk: &dyn Disk) -> Result<(), Error> {
        self.keys.sync_data().map_err(Error::io("sync", &self.path(disk)))
    }

    /// Takes over the slots that rows point to, found at opening. Those that overlap or lie outside are left out.
    pub(crate) fn restore_slots(&mut self, mut slots: Vec<Slot>) {
        assert!(self.slots.live_count() == 0, "slots are restored once");
        slots.sort_unstable_by_key(|slot| slot.offset);
        let mut end_of_last = 0;
        for slot in slots {
            match slot.offset.checked_add(slot.len) {
                Some(end) if slot.offset >= end_of_last && end <= self.description.capacity => {
                    end_of_last = end;
                    self.slots.push(slot);
                }
                _ => self.damaged.store(true, Ordering::Relaxed),
            }
        }
        self.slots.shrink();
    }

    /// A slot that was just reserved is now live.
    pub(crate) fn mark_live(&mut self, place: Place, row: &[u8]) {
        let len = Self::slot_len(Layout::Named, row, place.len).expect("it was reserved");
        self.slots.push(Slot { offset: place.offset, len });
    }

    /// A live slot's secret was deleted or replaced; returns what to overwrite. `None` if it was not live.
    pub(crate) fn mark_dead(&mut self, place: Place) -> Option<Slot> {
        self.slots.remove(place.offset)
    }

    /// Live slots by offset.
    pub(crate) fn live(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.live()
    }

    /// How many slots are live.
    pub(crate) fn live_count(&self) -> usize {
        self.slots.live_count()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.slots.live_bytes()
    }

    /// A live slot did not open; it is left where it is.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.description.id
    }

    pub(crate) fn layout(&self) -> Layout {
        self.description.layout
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.description.capacity
    }

    /// First byte never given out.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Nothing is appended to it any more: memory set aside for slots to come is given back.
    pub(crate) fn retire(&mut self) {
        self.slots.shrink();
    }

    pub(crate) fn path(&self, disk: &dyn Disk) -> std::path::PathBuf {
        disk.path().join(self.id().keys_name())
    }
}

/// Destroys a segment: its KEK is overwritten, durably, before the names go. [`Disk::sync_names`] is the caller's.
pub(crate) fn destroy(disk: &dyn Disk, id: SegmentId) -> Result<(), Error> {
    let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match kek::destroy(disk, id) {
        Err(Error::Io { source, .. }) if is_gone(&source) => {}
        other => other?,
    }
    for name in [id.keys_name(), id.kek_name()] {
        match disk.remove(&name) {
            Err(error) if !is_gone(&error) => return Err(Error::io("remove", &disk.path().join(name))(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Row key and sealed secret of a slot that names its row.
pub(crate) fn split_named(slot: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = slot.split_first_chunk::<HEAD_LEN>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    if len == 0 { None } else { rest.split_at_checked(len) }
}

/// A slot as version 1 wrote it.
#[cfg(test)]
pub(crate) fn seal_bare(kek: &crypto::secret::Key256, place: Place, row: &[u8], secret: &SecretBytes) -> Vec<u8> {
    let mut sealed = secret.expose(<[u8]>::to_vec);
    let tag = AeadKey::new(kek).seal(nonce_of(u64::from(place.offset)), &binding(place, row), &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

/// What a sealed secret is bound to: its position and its record.
fn binding(place: Place, row: &[u8]) -> Vec<u8> {
    let label = Domain::StoreSegmentKek.label();
    let mut out = Vec::with_capacity(label.len() + 16 + row.len());
    out.extend_from_slice(label);
    out.extend_from_slice(&place.segment.0.to_be_bytes());
    out.extend_from_slice(&place.offset.to_be_bytes());
    out.extend_from_slice(&place.len.to_be_bytes());
    out.extend_from_slice(row);
    out
}

/// Bytes before a row's key in a slot.
const HEAD_LEN: usize = 2;
const OUTSIDE: &str = "its slot is outside the segment or another record's";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments() {
        let id = SegmentId(0x1f);
        assert_eq!(id.keys_name(), "000000000000001f.keys");
        assert_eq!(SegmentId::of_name(&id.keys_name()), Some(id));
        assert_eq!(SegmentId::of_name(&id.kek_name()), Some(id));
        for name in ["1f.keys", "000000000000001F.keys", "+00000000000001f.keys", "state.redb", "lock"] {
            assert_eq!(SegmentId::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_slot_comes_apart_and_every_other_is_refused() {
        assert_eq!(split_named(b"\0\x02rkrest"), Some((&b"rk"[..], &b"rest"[..])));
        for (name, slot) in [
            ("empty", &b""[..]),
            ("cut in the length", b"\0"),
            ("no row", b"\0\0rk"),
            ("row beyond its end", b"\0\x03rk"),
        ] {
            assert_eq!(split_named(slot), None, "{name}");
        }
    }
}
