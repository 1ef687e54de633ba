//! A segment's key file: one page that says what the segment is and holds its key-encryption key (KEK), sealed.
//!
//! ```text
//! | 0     magic, version, segment, class, capacity, sealed KEK, zeros |   one half is in use;
//! | 2048  the same under another root key, or zeros                   |   both only while the root key changes
//! ```
//!
//! The page is never moved. A segment is destroyed by overwriting it, a root key by overwriting the half that was
//! sealed under it.

use crypto::domain::Domain;
use crypto::record::Table;
use crypto::secret::Key256;
use rand_core::CryptoRng;
use types::codec::{CodecError, Reader, Writer};

use crate::disk::Disk;
use crate::segment::SegmentId;
use crate::{Error, RootKey};

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

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Transient, Self::Stock, Self::LongLived].into_iter().find(|class| *class as u8 == number)
    }
}

/// How the slots of a segment look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Layout {
    /// Sealed secrets alone; written by earlier versions, emptied at the next opening.
    Bare = 1,
    /// Each slot begins with its row's key.
    Named = 2,
}

/// One half of a key file: the segment's description and its sealed KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KekSlot {
    pub(crate) id: SegmentId,
    pub(crate) layout: Layout,
    pub(crate) class: Class,
    pub(crate) capacity: u32,
    pub(crate) sealed: Vec<u8>,
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

    /// The same description with the KEK sealed under `root`.
    fn sealed_under(mut self, root: &RootKey, kek: &Key256, rng: &mut impl CryptoRng) -> Self {
        self.sealed = root.seal(Domain::StoreSegmentKek, &[&self.binding()], &kek.to_secret(), rng);
        self
    }

    fn open(&self, root: &RootKey) -> Option<Key256> {
        let kek = root.open(Domain::StoreSegmentKek, &[&self.binding()], &self.sealed).ok()?;
        Key256::from_secret(&kek)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(KEK_MAGIC).u16(self.layout as u16).put(&self.binding()).put(&self.sealed);
        let mut half = w.finish();
        half.resize(HALF_LEN, 0);
        half
    }

    pub(crate) fn decode(half: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(half);
        if r.take("magic", KEK_MAGIC.len())? != KEK_MAGIC {
            return Err(CodecError::Value { field: "magic" });
        }
        let layout = match r.u16("version")? {
            1 => Layout::Bare,
            2 => Layout::Named,
            _ => return Err(CodecError::Value { field: "version" }),
        };
        let id = SegmentId(r.u64("segment")?);
        let class = Class::from_number(r.u8("class")?).ok_or(CodecError::Value { field: "class" })?;
        let capacity = r.u32("capacity")?;
        let sealed = r.take("sealed key", 32 + RootKey::OVERHEAD)?.to_vec();
        Ok(Self { id, layout, class, capacity, sealed })
    }
}

/// Makes a segment's key file, durably but for its name.
pub(crate) fn create(
    disk: &dyn Disk,
    root: &RootKey,
    description: KekSlot,
    rng: &mut impl CryptoRng,
) -> Result<(KekSlot, Key256), Error> {
    let kek = Key256::random(rng);
    let description = description.sealed_under(root, &kek, rng);
    let name = description.id.kek_name();
    let path = disk.path().join(&name);
    let file = disk.create(&name, KEK_PAGE_LEN as u64).map_err(Error::io("create", &path))?;
    file.write_at(0, &description.encode()).and_then(|()| file.sync_data()).map_err(Error::io("write", &path))?;
    Ok((description, kek))
}

/// Reads a key file. A half that another root key sealed is what a change of the root key left: it is overwritten.
pub(crate) fn load(disk: &dyn Disk, root: &RootKey, id: SegmentId) -> Result<(KekSlot, Key256), &'static str> {
    let page = read(disk, id)?;
    let (half, description, kek) = find(&page, root, id)?;
    let other = other_half(half);
    if page[other..other + HALF_LEN].iter().any(|byte| *byte != 0) {
        overwrite(disk, id, other, HALF_LEN).map_err(|_| "the segment's key file cannot be written")?;
    }
    Ok((description, kek))
}

/// First half of a change of the root key: the KEK is sealed under the new one too, durably.
pub(crate) fn seal_anew(
    disk: &dyn Disk,
    id: SegmentId,
    old: &RootKey,
    new: &RootKey,
    rng: &mut impl CryptoRng,
) -> Result<(), Error> {
    let path = disk.path().join(id.kek_name());
    let corrupt = |reason| Error::Corrupt { what: "a segment's key".into(), path: path.clone(), reason };
    let page = read(disk, id).map_err(corrupt)?;
    let (half, description, kek) = find(&page, old, id).map_err(corrupt)?;
    let fresh = description.sealed_under(new, &kek, rng).encode();
    let file = disk.open(&id.kek_name()).map_err(Error::io("open", &path))?;
    file.write_at(other_half(half) as u64, &fresh).and_then(|()| file.sync_data()).map_err(Error::io("write", &path))
}

/// Destroys a key file's content: after this no root key opens the segment.
pub(crate) fn destroy(disk: &dyn Disk, id: SegmentId) -> Result<(), Error> {
    overwrite(disk, id, 0, KEK_PAGE_LEN).map_err(Error::io("overwrite", &disk.path().join(id.kek_name())))
}

fn overwrite(disk: &dyn Disk, id: SegmentId, from: usize, len: usize) -> std::io::Result<()> {
    let file = disk.open(&id.kek_name())?;
    file.write_at(from as u64, &vec![0; len])?;
    file.sync_data()
}

fn read(disk: &dyn Disk, id: SegmentId) -> Result<[u8; KEK_PAGE_LEN], &'static str> {
    let file = disk.open(&id.kek_name()).map_err(|_| "the segment's key file cannot be opened")?;
    let mut page = [0; KEK_PAGE_LEN];
    file.read_at(0, &mut page).map_err(|_| "the segment's key file cannot be read")?;
    Ok(page)
}

/// The half that `root` opens.
fn find(page: &[u8; KEK_PAGE_LEN], root: &RootKey, id: SegmentId) -> Result<(usize, KekSlot, Key256), &'static str> {
    let mut reason = "the segment's key file is damaged";
    for half in [0, HALF_LEN] {
        let Ok(description) = KekSlot::decode(&page[half..half + HALF_LEN]) else { continue };
        if description.id != id {
            reason = "the segment's key file belongs to another segment";
        } else if let Some(kek) = description.open(root) {
            return Ok((half, description, kek));
        } else {
            reason = "the segment's key does not open";
        }
    }
    Err(reason)
}

fn other_half(half: usize) -> usize {
    if half == 0 { HALF_LEN } else { 0 }
}

const KEK_MAGIC: &[u8] = b"QKEK";
/// A key file fills one page of the file system, so that overwriting it touches nothing else.
pub(crate) const KEK_PAGE_LEN: usize = 4096;
/// Whole sectors, so that writing one half cannot tear the other.
const HALF_LEN: usize = KEK_PAGE_LEN / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_is_pinned_and_every_other_is_refused() {
        let slot = KekSlot {
            id: SegmentId(7),
            layout: Layout::Named,
            class: Class::Stock,
            capacity: 0x0010_0000,
            sealed: vec![9; 64],
        };
        let half = slot.encode();
        assert_eq!(half.len(), HALF_LEN);
        assert_eq!(half[..20], *b"QKEK\0\x02\0\0\0\0\0\0\0\x07\x02\0\x10\0\0\x09");
        assert_eq!(KekSlot::decode(&half), Ok(slot.clone()));
        let mut earlier = half.clone();
        earlier[5] = 1;
        assert_eq!(KekSlot::decode(&earlier), Ok(KekSlot { layout: Layout::Bare, ..slot }));
        for (name, at, to) in
            [("magic", 0, b'q'), ("version 0", 5, 0), ("version 3", 5, 3), ("class 0", 14, 0), ("class 4", 14, 4)]
        {
            let mut bent = half.clone();
            bent[at] = to;
            assert!(KekSlot::decode(&bent).is_err(), "{name}");
        }
        assert!(KekSlot::decode(&half[..82]).is_err(), "cut short");
        assert!(KekSlot::decode(&[0; HALF_LEN]).is_err(), "overwritten");
    }
}
