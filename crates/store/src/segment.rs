//! Segment files: preallocated, append-only rows of sealed secrets, each file under its own key.
//!
//! ```text
//! 0000000000000007.keys   | sealed secret, tag | sealed secret, tag | … | zeros |
//! 0000000000000007.kek    | description, sealed key-encryption key (KEK) | zeros |   one page, never moved
//! ```
//!
//! A slot's nonce is its offset. Offsets only grow, and a segment is written by the process that made it and by
//! no later one, so a nonce cannot repeat under a KEK. A deleted secret's slot is overwritten in place; a dead
//! segment's KEK is overwritten, then both files are removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::aead::{AeadKey, TAG_LEN, nonce_of};
use crypto::domain::Domain;
use crypto::record::Table;
use crypto::secret::{Key256, SecretBytes};
use rand_core::CryptoRng;
use types::codec::{CodecError, Reader, Writer};

use crate::disk::{Disk, DiskFile};
use crate::entry::Place;
use crate::{Error, RootKey};

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

/// Records of one class live about equally long and share segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Gone within minutes.
    Transient = 1,
    /// Key stock.
    Stock = 2,
    /// Kept for months.
    LongLived = 3,
}

impl Class {
    pub(crate) const COUNT: usize = 3;

    pub(crate) fn of(table: Table) -> Self {
        match table {
            Table::PoolBlock | Table::PoolMark | Table::PairKey => Self::Stock,
            Table::TerminalBatch | Table::ModelKey => Self::LongLived,
            _ => Self::Transient,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Transient, Self::Stock, Self::LongLived].into_iter().find(|class| *class as u8 == number)
    }
}

/// One segment: its files, its key and which slots are live.
#[derive(Debug)]
pub(crate) struct Segment {
    id: SegmentId,
    description: KekSlot,
    keys: Arc<dyn DiskFile>,
    key: AeadKey,
    next: u32,
    live: BTreeMap<u32, Live>,
    live_bytes: u64,
    /// A live slot did not open; it is left where it is.
    pub(crate) damaged: bool,
}

/// A live slot.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// Bytes of the secret.
    pub(crate) len: u32,
    /// Key of the row in the state table.
    pub(crate) row: Box<[u8]>,
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
        let kek = Key256::random(rng);
        let mut description = KekSlot { id, class, capacity, sealed: Vec::new() };
        description.sealed = root.seal(Domain::StoreSegmentKek, &[&description.binding()], &kek.to_secret(), rng);
        let page = description.encode();
        let create = |name: String, len, content: &[u8]| {
            let path = disk.path().join(&name);
            let file = disk.create(&name, len).map_err(Error::io("create", &path))?;
            file.write_at(0, content).and_then(|()| file.sync_data()).map_err(Error::io("write", &path))?;
            Ok(file)
        };
        create(id.kek_name(), KEK_PAGE_LEN as u64, &page)?;
        let keys = create(id.keys_name(), u64::from(capacity), &[])?;
        disk.sync_names().map_err(Error::io("sync folder", disk.path()))?;
        let key = AeadKey::new(&kek);
        Ok(Self { id, description, keys, key, next: 0, live: BTreeMap::new(), live_bytes: 0, damaged: false })
    }

    /// Opens a segment of an earlier process; nothing is appended to it any more.
    pub(crate) fn load(disk: &dyn Disk, root: &RootKey, id: SegmentId) -> Result<Self, &'static str> {
        let kek_file = disk.open(&id.kek_name()).map_err(|_| "the segment's key file cannot be opened")?;
        let mut page = [0; KEK_PAGE_LEN];
        kek_file.read_at(0, &mut page).map_err(|_| "the segment's key file cannot be read")?;
        let description = KekSlot::decode(&page).map_err(|_| "the segment's key file is damaged")?;
        if description.id != id {
            return Err("the segment's key file belongs to another segment");
        }
        let kek = root
            .open(Domain::StoreSegmentKek, &[&description.binding()], &description.sealed)
            .ok()
            .and_then(|kek| Key256::from_secret(&kek))
            .ok_or("the segment's key does not open")?;
        let keys = disk.open(&id.keys_name()).map_err(|_| "the segment file cannot be opened")?;
        let (key, next) = (AeadKey::new(&kek), description.capacity);
        Ok(Self { id, description, keys, key, next, live: BTreeMap::new(), live_bytes: 0, damaged: false })
    }

    /// Sets aside the next slot for a secret of `len` bytes, if there is room.
    pub(crate) fn reserve(&mut self, len: u32) -> Option<Place> {
        let place = Place { segment: self.id, offset: self.next, len };
        let end = self.next.checked_add(place.slot_len())?;
        if end > self.description.capacity {
            return None;
        }
        self.next = end;
        Some(place)
    }

    /// Seals a secret for its slot and its record.
    pub(crate) fn seal(&self, place: Place, row: &[u8], secret: &SecretBytes) -> Vec<u8> {
        debug_assert_eq!(place.segment, self.id);
        let mut sealed = secret.expose(<[u8]>::to_vec);
        let tag = self.key.seal(nonce_of(u64::from(place.offset)), &binding(place, row), &mut sealed);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens what stands in a slot.
    pub(crate) fn unseal(&self, place: Place, row: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut secret = SecretBytes::copy_of(body);
        let nonce = nonce_of(u64::from(place.offset));
        secret.expose_mut(|body| self.key.open(nonce, &binding(place, row), body, *tag)).ok()?;
        Some(secret)
    }

    /// Reads and opens one slot.
    pub(crate) fn read(&self, place: Place, row: &[u8]) -> Option<SecretBytes> {
        let mut sealed = vec![0; usize::try_from(place.slot_len()).ok()?];
        self.keys.read_at(u64::from(place.offset), &mut sealed).ok()?;
        self.unseal(place, row, &sealed)
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

    pub(crate) fn mark_live(&mut self, place: Place, row: Box<[u8]>) {
        self.live_bytes += u64::from(place.slot_len());
        let before = self.live.insert(place.offset, Live { len: place.len, row });
        assert!(before.is_none(), "slot {place:?} was given out twice");
    }

    pub(crate) fn mark_dead(&mut self, place: Place) {
        let live = self.live.remove(&place.offset);
        assert!(live.is_some_and(|live| live.len == place.len), "slot {place:?} was not live");
        self.live_bytes -= u64::from(place.slot_len());
    }

    /// Live slots by offset.
    pub(crate) fn live(&self) -> &BTreeMap<u32, Live> {
        &self.live
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.description.capacity
    }

    /// First byte never given out.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    pub(crate) fn path(&self, disk: &dyn Disk) -> std::path::PathBuf {
        disk.path().join(self.id.keys_name())
    }
}

/// Destroys a segment: its KEK is overwritten, durably, before the names go. [`Disk::sync_names`] is the caller's.
pub(crate) fn destroy(disk: &dyn Disk, id: SegmentId) -> Result<(), Error> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let kek_path = disk.path().join(id.kek_name());
    match disk.open(&id.kek_name()) {
        Ok(kek) => {
            kek.write_at(0, &[0; KEK_PAGE_LEN])
                .and_then(|()| kek.sync_data())
                .map_err(Error::io("overwrite", &kek_path))?;
        }
        Err(error) if gone(&error) => {}
        Err(error) => return Err(Error::io("open", &kek_path)(error)),
    }
    for name in [id.keys_name(), id.kek_name()] {
        match disk.remove(&name) {
            Err(error) if !gone(&error) => return Err(Error::io("remove", &disk.path().join(name))(error)),
            _ => {}
        }
    }
    Ok(())
}

/// What a segment's key file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KekSlot {
    id: SegmentId,
    class: Class,
    capacity: u32,
    sealed: Vec<u8>,
}

impl KekSlot {
    /// What the sealed KEK is bound to.
    fn binding(&self) -> [u8; 13] {
        let mut out = [0; 13];
        out[..8].copy_from_slice(&self.id.0.to_be_bytes());
        out[8] = self.class as u8;
        out[9..].copy_from_slice(&self.capacity.to_be_bytes());
        out
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(KEK_MAGIC).u16(KEK_VERSION).put(&self.binding()).put(&self.sealed);
        let mut page = w.finish();
        page.resize(KEK_PAGE_LEN, 0);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(page);
        if r.take("magic", KEK_MAGIC.len())? != KEK_MAGIC {
            return Err(CodecError::Value { field: "magic" });
        }
        if r.u16("version")? != KEK_VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let id = SegmentId(r.u64("segment")?);
        let class = Class::from_number(r.u8("class")?).ok_or(CodecError::Value { field: "class" })?;
        let capacity = r.u32("capacity")?;
        let sealed = r.take("sealed key", 32 + RootKey::OVERHEAD)?.to_vec();
        Ok(Self { id, class, capacity, sealed })
    }
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

const KEK_MAGIC: &[u8] = b"QKEK";
const KEK_VERSION: u16 = 1;
/// A key file fills one page of the file system, so that overwriting it touches nothing else.
pub(crate) const KEK_PAGE_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_is_pinned_and_every_other_is_refused() {
        let slot = KekSlot { id: SegmentId(7), class: Class::Stock, capacity: 0x0010_0000, sealed: vec![9; 64] };
        let page = slot.encode();
        assert_eq!(page.len(), KEK_PAGE_LEN);
        assert_eq!(page[..20], *b"QKEK\0\x01\0\0\0\0\0\0\0\x07\x02\0\x10\0\0\x09");
        assert_eq!(KekSlot::decode(&page), Ok(slot));
        for (name, at, to) in [("magic", 0, b'q'), ("version", 5, 2), ("class 0", 14, 0), ("class 4", 14, 4)] {
            let mut bent = page.clone();
            bent[at] = to;
            assert!(KekSlot::decode(&bent).is_err(), "{name}");
        }
        assert!(KekSlot::decode(&page[..82]).is_err(), "cut short");
        assert!(KekSlot::decode(&[0; KEK_PAGE_LEN]).is_err(), "overwritten");
    }

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
}
