//! The first authentication key of a link, as a file that both ends get, and how a link takes another one.
//!
//! ```text
//! | key, at least 2080 bytes |                                                            a link's first key
//! | "qurrent link key" (16) | version 1 (2) | generation (4) | key, at least 2080 bytes |   any later one
//! ```
//!
//! A generation is a life of the link: blocks of generation *g* are numbered from *g* · 2^36 on. Ends of different
//! generations refuse each other's block numbers and share no authentication key, so old and new do not mix. Taking a
//! new key ends everything of the generation before at this end: authentication key, blocks in waiting, pool.

use std::path::Path;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use link::LinkEnd;
use store::Store;
use types::codec::Writer;
use types::id::{BlockSeq, LinkId};

use crate::config::{read_secret_bytes, write_secret};
use crate::failure::{Context as _, Failure, Outcome};

/// A link's authentication key to start from.
#[derive(Debug)]
pub struct InitialKey {
    /// Which life of the link it begins; 0 for the first.
    pub generation: u32,
    /// The key, the same at both ends.
    pub key: SecretBytes,
}

impl InitialKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, others can read it, or it is of another version.
    pub fn read(file: &Path) -> Outcome<Self> {
        let bytes = read_secret_bytes(file)?;
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Ok(Self { generation: 0, key: SecretBytes::copy_of(&bytes) });
        };
        let bad = || Failure::new(format!("{} is no link key of this program's version", file.display()));
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(bad)?;
        let (generation, key) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
        let generation = u32::from_be_bytes(*generation);
        if u16::from_be_bytes(*version) != VERSION || generation == 0 || generation > GENERATION_MAX {
            return Err(bad());
        }
        Ok(Self { generation, key: SecretBytes::copy_of(key) })
    }

    /// Writes a key file of a generation after the first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &Path) -> Outcome<()> {
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAGIC.len() + 6 + self.key.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        self.key.expose(|key| bytes.extend_from_slice(key));
        write_secret(file, &bytes)
    }

    /// The first block of this life.
    #[must_use]
    pub fn first_block(&self) -> BlockSeq {
        BlockSeq(u64::from(self.generation) << BLOCK_BITS)
    }

    /// The generation of a link end by its state: the number of its next block stands behind the version.
    #[must_use]
    pub fn generation_of(records: &[Record]) -> Option<u32> {
        let state = records.iter().find(|record| record.table == Table::LinkState)?;
        let next = state.value.get(1..9).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())?;
        u32::try_from(u64::from_be_bytes(next) >> BLOCK_BITS).ok()
    }

    /// A generation for a key made now: minutes since 1970, so that a later key has a higher one.
    #[must_use]
    pub fn generation_at(seconds: u64) -> u32 {
        u32::try_from(seconds / 60).unwrap_or(GENERATION_MAX).clamp(1, GENERATION_MAX)
    }
}

/// Whether a link's records lack the authentication key that its state needs: it was restored from a backup.
#[must_use]
pub fn has_no_key(records: &[Record]) -> bool {
    !records.iter().any(|record| record.table == Table::LinkAuthentication)
}

/// What ends with a generation: every record of the link end, and its pool. The window of filed blocks stays.
///
/// # Errors
/// If the store cannot be read.
pub fn end_generation(link: &LinkId, records: &[Record], store: &Store) -> Outcome<Vec<Change>> {
    let mut changes: Vec<Change> = records
        .iter()
        .filter(|record| LinkEnd::owns(link, record))
        .map(|record| Change::Delete { table: record.table, key: record.key.clone() })
        .collect();
    let mut prefix = Writer::new();
    prefix.bytes16(link.as_str().as_bytes());
    let prefix = prefix.finish();
    for table in [Table::PoolBlock, Table::PoolMark] {
        let what = || format!("pool of link {link}");
        for record in store.records_of(table).context(what)? {
            // A record that is damaged has a key all the same.
            let key = match record.context(what)? {
                store::Loaded::Whole(record) => record.key,
                store::Loaded::Damaged(damaged) => damaged.key,
            };
            if key.starts_with(&prefix) && key.len() > prefix.len() {
                changes.push(Change::Delete { table, key });
            }
        }
    }
    Ok(changes)
}

const MAGIC: &[u8] = b"qurrent link key";
const VERSION: u16 = 1;
/// Blocks of one generation, as a power of two.
const BLOCK_BITS: u32 = 36;
/// The highest generation whose blocks have numbers.
const GENERATION_MAX: u32 = (1 << (64 - BLOCK_BITS)) - 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_tells_its_generation_and_bent_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-b.key");
        let key =
            InitialKey { generation: InitialKey::generation_at(1_800_000_000), key: SecretBytes::copy_of(&[7; 2080]) };
        key.write(&file).unwrap();
        let read = InitialKey::read(&file).unwrap();
        assert_eq!((read.generation, &read.key), (30_000_000, &key.key));
        assert_eq!(read.first_block().0, 30_000_000 << 36);
        let changes = LinkEnd::provision_from(&LinkId::new("a-b").unwrap(), &read.key, read.first_block()).unwrap();
        let records: Vec<Record> = changes.into_iter().filter_map(Change::into_put).collect();
        assert_eq!(InitialKey::generation_of(&records), Some(30_000_000));
        assert!(!has_no_key(&records) && has_no_key(&[]));

        let good = std::fs::read(&file).unwrap();
        assert_eq!(good[..22], *b"qurrent link key\0\x01\x01\xc9\xc3\x80");
        for (name, change) in [
            ("version", (|b| b[17] = 2) as fn(&mut Vec<u8>)),
            ("generation 0", |b| b[18..22].fill(0)),
            ("generation beyond its blocks", |b| b[18] = 0x10),
            ("cut in the head", |b| b.truncate(20)),
        ] {
            let mut bent = good.clone();
            change(&mut bent);
            std::fs::write(&file, bent).unwrap();
            assert!(InitialKey::read(&file).is_err(), "{name}");
        }
        std::fs::write(&file, [9; 4096]).unwrap();
        assert_eq!(InitialKey::read(&file).unwrap().generation, 0, "a file of a link's first key is the key alone");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(InitialKey::read(&file).is_err());
    }
}
