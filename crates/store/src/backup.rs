//! Backups that cannot bring a spent key back: everything one-time is left out.
//!
//! | length | field | rule |
//! |---|---|---|
//! | 4 | magic | `QBAK` |
//! | 2 | version | 1 |
//! | 2 + n | site | |
//! | 16 | store | random, drawn anew by every restore |
//! | 4 | incarnation | how often this site's store was restored |
//! | 8 | sequence | grows with every backup of the store |
//! | 8 | made | seconds since 1970 |
//! | 4 | records | |
//! | 4 + n | sealed records | under the root key, bound to all bytes before |
//! | 32 | digest | SHA-256 of all bytes before |
//!
//! Which records come along, and why, is in `docs/operations/storage.md`. What is not named there does not.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crypto::domain::Domain;
use crypto::hash::sha256;
use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use types::codec::{CodecError, Reader, Writer};
use types::id::SiteId;

use crate::store::{Back, Store};
use crate::{Error, RootKey};

/// What a backup says of itself without the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Whose records they are.
    pub site: SiteId,
    /// Which store they were taken from.
    pub from: Incarnation,
    /// Number of the backup; grows.
    pub sequence: u64,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// How many records it holds.
    pub records: u32,
}

/// Which life of a site's store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Random, drawn when the store was made or restored.
    pub store: [u8; 16],
    /// How often the site's store was restored.
    pub number: u32,
    /// The backup that this store was restored from.
    pub restored_from: Option<u64>,
}

impl Incarnation {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).put(&self.store).u32(self.number);
        w.u8(u8::from(self.restored_from.is_some())).u64(self.restored_from.unwrap_or_default());
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.u8("version")? != 1 {
            return Err(CodecError::Value { field: "version" });
        }
        let (store, number) = (r.array("store")?, r.u32("incarnation")?);
        let restored_from = match (r.u8("flag")?, r.u64("sequence")?) {
            (0, 0) => None,
            (1, sequence) => Some(sequence),
            _ => return Err(CodecError::Value { field: "flag" }),
        };
        r.end()?;
        Ok(Self { store, number, restored_from })
    }
}

/// A backup's file, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupFile<'a> {
    pub(crate) info: BackupInfo,
    /// What the sealed records are bound to.
    head: &'a [u8],
    sealed: &'a [u8],
}

impl BackupInfo {
    /// Reads what a backup says of itself and checks its digest, which needs no key and proves nothing against an
    /// adversary.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Corrupt`] if it is damaged.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let bytes = read_file(file)?;
        BackupFile::decode(&bytes).map(|backup| backup.info).map_err(|_| damaged(file))
    }

    /// As [`BackupInfo::read`], and opens the records: only the root key's holder can have made them.
    ///
    /// # Errors
    /// As [`BackupInfo::read`], and [`Error::WrongRootKey`].
    pub fn verify(file: &Path, root: &RootKey) -> Result<Self, Error> {
        open(file, root).map(|(info, _)| info)
    }

    fn head(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(MAGIC).u16(VERSION).bytes16(self.site.as_str().as_bytes()).put(&self.from.store);
        w.u32(self.from.number).u64(self.sequence).u64(self.made).u32(self.records);
        w.finish()
    }
}

impl<'a> BackupFile<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let (body, digest) = bytes.split_last_chunk::<32>().ok_or(CodecError::Value { field: "length" })?;
        if sha256(body) != *digest {
            return Err(CodecError::Value { field: "digest" });
        }
        let mut r = Reader::new(body);
        if r.take("magic", MAGIC.len())? != MAGIC {
            return Err(CodecError::Value { field: "magic" });
        }
        if r.u16("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let site = SiteId::new(r.text16("site", 32)?).map_err(|_| CodecError::Value { field: "site" })?;
        let from = Incarnation { store: r.array("store")?, number: r.u32("incarnation")?, restored_from: None };
        let (sequence, made) = (r.u64("sequence")?, r.u64("made")?);
        let records = u32::try_from(r.count("records", Store::CHANGES_MAX)?).expect("it was a 32-bit count");
        let head = &body[..body.len() - r.left()];
        let sealed = r.bytes32("sealed records", BODY_MAX + RootKey::OVERHEAD)?;
        r.end()?;
        Ok(Self { info: BackupInfo { site, from, sequence, made, records }, head, sealed })
    }
}

impl Store {
    /// Which life of the site's store this is; `None` before its first backup.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Corrupt`] if the store's own note of it is damaged.
    pub fn incarnation(&self) -> Result<Option<Incarnation>, Error> {
        let Some(mark) = self.back.mark(INCARNATION)? else { return Ok(None) };
        Incarnation::decode(&mark).map(Some).map_err(|_| self.back.bad_mark())
    }

    /// Writes a backup of the store as it is now, sealed under the root key, into a new file. It holds no one-time key.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there already; [`Error::ApiMisuse`] if there are more records than a backup
    /// holds. After another error the store is poisoned.
    pub fn backup(&mut self, site: &SiteId, made: u64, to: &Path) -> Result<BackupInfo, Error> {
        let mut kept = Vec::new();
        for table in TABLES {
            for loaded in self.records_of(table)? {
                let record = loaded?.whole()?;
                if comes_along(record.table, &record.key) {
                    kept.push(record);
                }
            }
        }
        let len: usize = kept.iter().map(written_len).sum();
        if kept.len() > Self::CHANGES_MAX || len > BODY_MAX {
            return Err(Error::ApiMisuse(format!(
                "{} records of {len} bytes, at most {} of {BODY_MAX} go into a backup",
                kept.len(),
                Self::CHANGES_MAX
            )));
        }
        let records = u32::try_from(kept.len()).expect("it was just compared");
        // All room from the start: growing would leave copies of secrets behind.
        let mut body = Vec::with_capacity(len);
        kept.iter().for_each(|record| write_record(&mut body, record));
        let body = SecretBytes::from_vec(body);
        let from = match self.incarnation()? {
            Some(incarnation) => incarnation,
            None => {
                let fresh = self.guard(|back| {
                    let fresh = Incarnation { store: random_id(back), number: 0, restored_from: None };
                    back.set_mark(INCARNATION, &fresh.encode())?;
                    Ok(fresh)
                });
                fresh?
            }
        };
        // A number is taken before its file is there: two files never have the same.
        let sequence = self.guard(|back| {
            let last = back.mark(SEQUENCE)?.unwrap_or_else(|| vec![0; 8]);
            let last = <[u8; 8]>::try_from(last.as_slice()).map_err(|_| back.bad_mark())?;
            let next = u64::from_be_bytes(last) + 1;
            back.set_mark(SEQUENCE, &next.to_be_bytes())?;
            Ok(next)
        })?;
        let info = BackupInfo { site: site.clone(), from, sequence, made, records };
        let head = info.head();
        let sealed = self.back.seal(&head, &body);
        let mut w = Writer::new();
        w.put(&head).bytes32(&sealed);
        let mut out = w.finish();
        out.extend_from_slice(&sha256(&out));
        write_file(to, &out)?;
        Ok(info)
    }

    /// Fills this store, which must be empty, from a backup of its site. Afterwards it is a new incarnation: its pools
    /// and stocks are empty and its links need fresh initial keys.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::WrongRootKey`], [`Error::OtherSite`], [`Error::ApiMisuse`] if the store has
    /// records; else as [`Store::commit`].
    pub fn restore(&mut self, site: &SiteId, file: &Path) -> Result<BackupInfo, Error> {
        let (info, records) = open(file, self.back.root())?;
        if info.site != *site {
            let (found, wanted) = (info.site.to_string(), site.to_string());
            return Err(Error::OtherSite { path: file.to_path_buf(), found, wanted });
        }
        if let Some(first) = self.records()?.next() {
            drop(first?);
            return Err(Error::ApiMisuse(
                "a backup goes into an empty store: move the old one away, and never start it again".into(),
            ));
        }
        // Marked first, so that it is never full and unmarked.
        self.guard(|back| {
            let (store, number) = (random_id(back), info.from.number.saturating_add(1));
            let restored = Incarnation { store, number, restored_from: Some(info.sequence) };
            back.set_mark(SEQUENCE, &info.sequence.to_be_bytes())?;
            back.set_mark(INCARNATION, &restored.encode())
        })?;
        let changes: Vec<Change> = records.into_iter().map(Change::Put).collect();
        self.commit(&changes)?;
        Ok(info)
    }
}

impl Back {
    fn mark(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Folder(embedded) => embedded.mark(name),
            Self::Database(database) => database.mark(name),
        }
    }

    fn set_mark(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        match self {
            Self::Folder(embedded) => embedded.set_mark(name, value),
            Self::Database(database) => database.set_mark(name, value),
        }
    }

    fn root(&self) -> &RootKey {
        match self {
            Self::Folder(embedded) => embedded.root(),
            Self::Database(database) => database.root(),
        }
    }

    fn rng(&mut self) -> &mut (dyn CryptoRng + Send) {
        match self {
            Self::Folder(embedded) => embedded.rng(),
            Self::Database(database) => database.rng(),
        }
    }

    fn bad_mark(&self) -> Error {
        let path = match self {
            Self::Folder(embedded) => embedded.folder(),
            Self::Database(database) => database.name(),
        };
        Error::Corrupt { what: "the store's note of its backups".into(), path: path.into(), reason: "it is malformed" }
    }

    fn seal(&mut self, head: &[u8], body: &SecretBytes) -> Vec<u8> {
        let root = self.root().duplicate();
        root.seal(Domain::StoreBackup, &[head], body, &mut self.rng())
    }
}

/// Tables with records that may be restored.
const TABLES: [Table; 3] = [Table::LinkState, Table::PoolMark, Table::ModelKey];

/// Whether a record may be restored. A table that is not named here holds one-time key or lives by it.
fn comes_along(table: Table, key: &[u8]) -> bool {
    match table {
        Table::LinkState | Table::ModelKey => true,
        // The window of filed blocks has the link alone as its key; marks of halves go with the halves.
        Table::PoolMark => {
            key.split_first_chunk::<2>().is_some_and(|(len, link)| usize::from(u16::from_be_bytes(*len)) == link.len())
        }
        _ => false,
    }
}

fn written_len(record: &Record) -> usize {
    8 + record.key.len() + record.value.len() + record.secret.as_ref().map_or(0, |secret| 4 + secret.len())
}

fn write_record(out: &mut Vec<u8>, record: &Record) {
    let mut w = Writer::new();
    w.u8(record.table as u8).bytes16(&record.key).bytes32(&record.value).u8(u8::from(record.secret.is_some()));
    out.extend_from_slice(&w.finish());
    if let Some(secret) = &record.secret {
        let len = u32::try_from(secret.len()).expect("a secret's length was checked when it was stored");
        out.extend_from_slice(&len.to_be_bytes());
        secret.expose(|secret| out.extend_from_slice(secret));
    }
}

/// Reads the records of an opened backup.
pub(crate) fn read_records(body: &[u8], records: u32) -> Result<Vec<Record>, CodecError> {
    let mut r = Reader::new(body);
    let mut found = Vec::new();
    for _ in 0..records {
        let table = Table::from_number(r.u8("table")?).ok_or(CodecError::Value { field: "table" })?;
        let key = r.bytes16("key", Record::KEY_MAX)?.to_vec();
        if !comes_along(table, &key) {
            return Err(CodecError::Value { field: "table" });
        }
        let value = r.bytes32("value", Record::VALUE_MAX)?.to_vec();
        let secret = match r.u8("flag")? {
            0 => None,
            1 => Some(SecretBytes::copy_of(r.bytes32("secret", Record::SECRET_MAX)?)),
            _ => return Err(CodecError::Value { field: "flag" }),
        };
        found.push(Record { table, key, value, secret });
    }
    r.end()?;
    Ok(found)
}

fn open(file: &Path, root: &RootKey) -> Result<(BackupInfo, Vec<Record>), Error> {
    let bytes = read_file(file)?;
    let backup = BackupFile::decode(&bytes).map_err(|_| damaged(file))?;
    let body = root.open(Domain::StoreBackup, &[backup.head], backup.sealed);
    let body = body.map_err(|_| Error::WrongRootKey { path: file.to_path_buf() })?;
    let records = body.expose(|body| read_records(body, backup.info.records)).map_err(|_| damaged(file))?;
    Ok((backup.info, records))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("open backup", path))?;
    file.take(BODY_MAX as u64 + 4096).read_to_end(&mut bytes).map_err(Error::io("read backup", path))?;
    Ok(bytes)
}

/// A file has its name only when it is whole.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::io("write backup", path)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = std::path::PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part).map_err(Error::io("create backup", &part))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write backup", &part))?;
    std::fs::rename(&part, path).map_err(Error::io("rename backup", &part))?;
    crate::root_key::sync_folder_of(path)
}

fn random_id(back: &mut Back) -> [u8; 16] {
    let mut id = [0; 16];
    back.rng().fill_bytes(&mut id);
    id
}

fn damaged(file: &Path) -> Error {
    let reason = "it is cut short, bent or not a backup; take another one";
    Error::Corrupt { what: "the backup".into(), path: file.to_path_buf(), reason }
}

const MAGIC: &[u8] = b"QBAK";
const VERSION: u16 = 1;
const INCARNATION: &str = "incarnation";
const SEQUENCE: &str = "backups";
/// Most bytes of records in a backup.
const BODY_MAX: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use crypto::secret::Key256;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn root(n: u8) -> RootKey {
        RootKey::from_key(Key256::copy_of(&[n; 32]))
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([3; 32])
    }

    fn site() -> SiteId {
        SiteId::new("taiyuan").unwrap()
    }

    fn put(table: Table, key: &[u8], secret: Option<&[u8]>) -> Change {
        let (key, value, secret) = (key.to_vec(), b"value".to_vec(), secret.map(SecretBytes::copy_of));
        Change::Put(Record { table, key, value, secret })
    }

    /// A store with a record of every kind.
    fn full(folder: &Path) -> Store {
        let mut store = Store::open_folder(folder, root(7), rng()).unwrap();
        let mut changes: Vec<Change> =
            Table::ALL.iter().map(|table| put(*table, b"\0\x03a-b\0\0\0\0\0\0\0\x07\x01", Some(&[9; 40]))).collect();
        changes.push(put(Table::PoolMark, b"\0\x03a-b", None));
        store.commit(&changes).unwrap();
        store
    }

    #[test]
    fn one_time_key_is_left_out_and_the_rest_comes_back_as_a_new_incarnation() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut store = full(&path("old"));
        assert_eq!(store.incarnation().unwrap(), None);
        let first = store.backup(&site(), 1_790_000_000, &path("1.backup")).unwrap();
        let second = store.backup(&site(), 1_790_000_001, &path("2.backup")).unwrap();
        assert_eq!((first.sequence, second.sequence, second.records), (1, 2, 3));
        assert!(matches!(store.backup(&site(), 0, &path("2.backup")), Err(Error::Io { .. })), "never overwritten");
        assert_eq!(BackupInfo::read(&path("2.backup")).unwrap(), second);
        assert_eq!(BackupInfo::verify(&path("2.backup"), &root(7)).unwrap(), second);
        assert!(matches!(BackupInfo::verify(&path("2.backup"), &root(8)), Err(Error::WrongRootKey { .. })));
        // The store goes on as before.
        store.commit(&[put(Table::PairKey, b"x", Some(b"y"))]).unwrap();
        assert!(matches!(store.restore(&site(), &path("2.backup")), Err(Error::ApiMisuse(_))), "it is not empty");
        drop(store);

        let mut fresh = Store::open_folder(&path("new"), root(7), rng()).unwrap();
        let other = SiteId::new("linfen").unwrap();
        assert!(matches!(fresh.restore(&other, &path("2.backup")), Err(Error::OtherSite { .. })));
        fresh.restore(&site(), &path("2.backup")).unwrap();
        let incarnation = fresh.incarnation().unwrap().unwrap();
        assert_eq!((incarnation.number, incarnation.restored_from), (1, Some(2)));
        assert_ne!(incarnation.store, second.from.store);
        drop(fresh);
        let (mut fresh, records) = Store::open(&path("new"), root(7), rng()).unwrap();
        let kept: Vec<_> = records.iter().map(|r| (r.table, r.key.len(), r.secret.is_some())).collect();
        assert_eq!(kept, [(Table::LinkState, 14, true), (Table::PoolMark, 5, false), (Table::ModelKey, 14, true)]);
        assert_eq!(fresh.backup(&site(), 0, &path("4.backup")).unwrap().from.number, 1);
    }

    #[test]
    fn a_backup_shows_no_secret_and_every_other_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b");
        let mut store = full(&folder.path().join("store"));
        store.backup(&site(), 5, &file).unwrap();
        let good = std::fs::read(&file).unwrap();
        assert!(!good.windows(9).any(|window| window == [9; 9]) && !good.windows(5).any(|window| window == b"value"));
        assert_eq!(good[..15], *b"QBAK\0\x01\0\x07taiyuan");
        let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>), with_digest: bool| {
            let mut bent = good.clone();
            change(&mut bent);
            if with_digest && bent.len() >= 32 {
                let at = bent.len() - 32;
                let digest = sha256(&bent[..at]);
                bent[at..].copy_from_slice(&digest);
            }
            std::fs::write(&file, bent).unwrap();
            assert!(BackupInfo::verify(&file, &root(7)).is_err(), "{name}");
        };
        for at in 0..good.len() {
            refused("a flipped bit", &|b| b[at] ^= 0x10, false);
        }
        for at in [0, 5, 7, 9, 20, 35, 40, 50, 58, 62, 80, good.len() - 40] {
            refused(&format!("byte {at}, with a digest that fits"), &|b| b[at] ^= 1, true);
        }
        refused("trailing byte", &|b| b.insert(good.len() - 32, 0), true);
        for len in 0..good.len() {
            refused("cut short", &|b| b.truncate(len), false);
        }
    }

    #[test]
    fn records_that_must_not_come_back_are_refused_in_a_sealed_backup_too() {
        for (name, table, key) in [
            ("pool block", Table::PoolBlock, &b"\0\x01a"[..]),
            ("mark of a half", Table::PoolMark, b"\0\x01a\0\0\0\0\0\0\0\0\0"),
            ("pair key", Table::PairKey, b"k"),
            ("delivery", Table::Delivery, b"k"),
            ("authentication key", Table::LinkAuthentication, b"k"),
            ("pending block", Table::LinkPending, b"k"),
            ("terminal batch", Table::TerminalBatch, b"k"),
        ] {
            let mut body = Vec::new();
            let record = Record { table, key: key.to_vec(), value: Vec::new(), secret: None };
            write_record(&mut body, &record);
            assert_eq!(body.len(), written_len(&record));
            assert!(read_records(&body, 1).is_err(), "{name}");
        }
    }
}
