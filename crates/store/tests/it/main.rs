//! The store on a real disk that runs full.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};

use crypto::record::{Change, Record, Table};
use crypto::secret::{Key256, SecretBytes};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use store::{Error, RootKey, Store};

fn open(folder: &Path) -> Result<(Store, Vec<Record>), Error> {
    Store::open(folder, RootKey::from_key(Key256::copy_of(&[7; 32])), ChaCha20Rng::from_seed([1; 32]))
}

fn put(n: u32) -> Change {
    let (key, value) = (n.to_be_bytes().to_vec(), vec![1; 3000]);
    Change::Put(Record { table: Table::PoolBlock, key, value, secret: Some(SecretBytes::copy_of(&[2; 3000])) })
}

/// Commits until the disk refuses; returns how many were acknowledged.
fn fill(store: &mut Store, from: u32) -> (u32, Error) {
    for n in from.. {
        if let Err(error) = store.commit(&[put(n)]) {
            return (n, error);
        }
    }
    unreachable!("no disk is endless")
}

/// A small file system of its own, gone with the value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder).stderr(Stdio::null());
        mount_status(&mut mount).then_some(Self(folder))
    }
}

fn mount_status(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        mount_status(Command::new("umount").arg(self.0));
    }
}

const LIMITED: &str = "STORE_TEST_LIMITED_FOLDER";

/// On a small file system where the process may mount one, else under a limit of the length of files: the process
/// runs itself again under that limit.
#[test]
fn a_full_disk_stops_the_store_and_nothing_acknowledged_is_lost() {
    if let Some(folder) = std::env::var_os(LIMITED) {
        let (mut store, records) = open(Path::new(&folder)).unwrap();
        assert!(records.is_empty());
        let (acknowledged, error) = fill(&mut store, 0);
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(matches!(store.commit(&[put(0)]), Err(Error::Poisoned)));
        std::fs::write(Path::new(&folder).join("acknowledged"), acknowledged.to_string()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    if let Some(_mounted) = SmallDisk::mount(folder.path()) {
        let ballast = folder.path().join("ballast");
        std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
        let path = folder.path().join("store");
        let (mut store, _) = open(&path).unwrap();
        let (acknowledged, error) = fill(&mut store, 0);
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("free space"), "{error}");
        drop(store);
        assert!(acknowledged > 50, "{acknowledged}");
        // Full as it is, it opens or says why not; with space it opens and goes on.
        match open(&path) {
            Ok((_, records)) => assert!(records.len() >= acknowledged as usize),
            Err(error) => assert!(error.to_string().contains("free space"), "{error}"),
        }
        std::fs::remove_file(ballast).unwrap();
        let (mut store, records) = open(&path).unwrap();
        assert!([acknowledged, acknowledged + 1].contains(&u32::try_from(records.len()).unwrap()));
        let (more, _) = fill(&mut store, acknowledged + 1);
        assert!(more > acknowledged + 50, "{acknowledged} and then up to {more}");
        drop(store);
        mount_status(Command::new("mount").args(["-o", "remount,ro"]).arg(folder.path()));
        let error = open(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    let limited = folder.path().join("limited");
    std::fs::create_dir(&limited).unwrap();
    let name = "a_full_disk_stops_the_store_and_nothing_acknowledged_is_lost";
    let inner = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 6000; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(LIMITED, &limited)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&inner.stderr));
    let acknowledged: usize = std::fs::read_to_string(limited.join("acknowledged")).unwrap().parse().unwrap();
    let (mut store, records) = open(&limited).unwrap();
    assert!(acknowledged > 50 && [acknowledged, acknowledged + 1].contains(&records.len()), "{acknowledged}");
    store.commit(&[put(1_000_000)]).unwrap();
}
