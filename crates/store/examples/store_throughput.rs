//! Prints how fast commits are, and what a store with many keys takes of memory and time.
//!
//! ```text
//! cargo run --release -p store --example store_throughput -- folder [FOLDER]
//! cargo run --release -p store --example store_throughput -- consume [FOLDER]
//! cargo run --release -p store --example store_throughput -- held [FOLDER] [KEYS]
//! cargo run --release -p store --example store_throughput -- database 'host=/run/postgresql user=qurrent'
//! ```
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use crypto::record::{Change, Record, Table};
use crypto::secret::{Key256, SecretBytes};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use store::{DatabaseConfig, RootKey, Store};
use types::id::SiteId;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let second = arguments.get(1).map_or(".", String::as_str);
    match arguments.first().map_or("folder", String::as_str) {
        "folder" => {
            let folder = tempfile::tempdir_in(second)?;
            heading();
            for (batch, secret_len) in SHAPES {
                let path = folder.path().join(format!("{batch}-{secret_len}"));
                measure(batch, secret_len, || Ok(Store::open_folder(&path, root(), rng())?))?;
            }
        }
        "consume" => {
            let folder = tempfile::tempdir_in(second)?;
            consume(folder.path())?;
        }
        "held" => {
            let folder = tempfile::tempdir_in(second)?;
            let keys = arguments.get(2).map_or(Ok(1_000_000), |keys| keys.parse())?;
            held(folder.path(), keys)?;
        }
        "database" => {
            heading();
            for (batch, secret_len) in SHAPES {
                measure(batch, secret_len, || {
                    let config = DatabaseConfig {
                        connection: second.to_owned(),
                        password: None,
                        tls: None,
                        site: SiteId::new("bench").map_err(|error| error.to_string())?,
                        replica: "bench".into(),
                        lease: Duration::from_secs(10),
                    };
                    Ok(Store::open_database(&config, root(), rng(), |_| true)?)
                })?;
            }
        }
        other => return Err(format!("unknown: {other}; say folder, consume, held or database").into()),
    }
    Ok(())
}

fn heading() {
    println!("| records per commit | secret | commits/s | records/s | p50 | p99 | deletes/s | open and read |");
    println!("|---|---|---|---|---|---|---|---|");
}

/// Puts records for two seconds, deletes half of them again, opens and reads what is left, and deletes that.
fn measure(batch: u64, secret_len: usize, open: impl Fn() -> Outcome<Store>) -> Outcome<()> {
    let secret = SecretBytes::random(secret_len, &mut rng());
    let mut store = open()?;
    let (mut times, mut next) = (Vec::new(), 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let changes: Vec<Change> = (next..next + batch).map(|n| put(n, &secret)).collect();
        let before = Instant::now();
        store.commit(&changes)?;
        times.push(before.elapsed());
        next += batch;
    }
    let spent = times.iter().sum::<Duration>().as_secs_f64();
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let (commits, p50, p99) = (times.len() as f64, at(50), at(99));

    let step = usize::try_from(batch)?;
    let half = next / 2 / batch * batch;
    let before = Instant::now();
    for first in (0..half).step_by(step) {
        store.commit(&(first..first + batch).map(delete).collect::<Vec<_>>())?;
    }
    let deletes = half as f64 / before.elapsed().as_secs_f64();
    drop(store);
    let before = Instant::now();
    let mut store = open()?;
    let left = store.records()?.count();
    println!(
        "| {batch} | {secret_len} B | {:.0} | {:.0} | {p50:.1?} | {p99:.1?} | {deletes:.0} | {:.0?} for {left} |",
        commits / spent,
        next as f64 / spent,
        before.elapsed(),
    );
    for first in (half..next).step_by(10_000) {
        store.commit(&(first..next.min(first + 10_000)).map(delete).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Takes a key out and puts another in, one of each in a commit: overwriting what was taken in every commit, and as a
/// site does, with a later commit or every 50 ms. In turn, so that both see the same disk.
fn consume(folder: &Path) -> Outcome<()> {
    println!("| overwritten | commits/s | p50 | p99 |");
    println!("|---|---|---|---|");
    let secret = SecretBytes::random(32, &mut rng());
    let mut store = Store::open_folder(folder, root(), rng())?;
    let mut next = 20_000;
    store.commit(&(0..next).map(|n| put_pair(n, &secret)).collect::<Vec<_>>())?;
    for round in 0..6 {
        let at_once = round % 2 == 0;
        let (mut times, start, mut wiped) = (Vec::new(), Instant::now(), Instant::now());
        while start.elapsed() < Duration::from_secs(3) {
            let before = Instant::now();
            store.commit(&[delete_pair(next - 20_000), put_pair(next, &secret)])?;
            if at_once {
                store.wipe()?;
            }
            times.push(before.elapsed());
            if store.is_dirty() && wiped.elapsed() >= Duration::from_millis(50) {
                store.wipe()?;
                wiped = Instant::now();
            }
            next += 1;
        }
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        let how = if at_once { "at once" } else { "within 50 ms" };
        println!("| {how} | {rate:.0} | {:.1?} | {:.1?} |", share(&times, 50), share(&times, 99));
    }
    Ok(())
}

/// Fills a store with pair keys and prints, at each power of ten, what a commit of one key costs and how much memory
/// the process holds; then opens it anew.
fn held(folder: &Path, keys: u64) -> Outcome<()> {
    println!("| keys held | commit p50 | commit p99 | take and put p50 | resident |");
    println!("|---|---|---|---|---|");
    let secret = SecretBytes::random(32, &mut rng());
    let mut store = Store::open_folder(folder, root(), rng())?;
    let (mut next, mut mark) = (0, 1_000);
    while next < keys {
        let until = mark.min(keys);
        while next < until {
            let to = until.min(next + 1_000);
            store.commit(&(next..to).map(|n| put_pair(n, &secret)).collect::<Vec<_>>())?;
            next = to;
        }
        let single: Vec<Duration> =
            (0..400).map(|n| timed(&mut store, &[put_pair(u64::MAX / 2 + n, &secret)])).collect::<Result<_, _>>()?;
        let both: Vec<Duration> = (0..400)
            .map(|n| {
                let changes = [delete_pair(u64::MAX / 2 + n), put_pair(u64::MAX / 3 + n, &secret)];
                timed(&mut store, &changes)
            })
            .collect::<Result<_, _>>()?;
        store.commit(&(0..400).map(|n| delete_pair(u64::MAX / 3 + n)).collect::<Vec<_>>())?;
        println!(
            "| {next} | {:.0?} | {:.0?} | {:.0?} | {} |",
            share(&single, 50),
            share(&single, 99),
            share(&both, 50),
            resident()
        );
        mark *= 10;
    }
    let stats = store.stats();
    println!("{stats:?}");
    drop(store);
    println!("closed: {} resident", resident());
    let before = Instant::now();
    let store = Store::open_folder(folder, root(), rng())?;
    println!("open: {:.2?}, {} resident", before.elapsed(), resident());
    let before = Instant::now();
    let read = store.records()?.count();
    println!("read {read} records one at a time: {:.2?}, {} resident", before.elapsed(), resident());
    Ok(())
}

fn timed(store: &mut Store, changes: &[Change]) -> Result<Duration, store::Error> {
    let before = Instant::now();
    store.commit(changes)?;
    Ok(before.elapsed())
}

fn share(times: &[Duration], share: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() * share / 100).copied().unwrap_or_default()
}

/// Memory that the process holds now, and the most it ever held, as the kernel says.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        kib / 1024
    };
    format!("{} MiB (peak {})", field("VmRSS:"), field("VmHWM:"))
}

fn put(n: u64, secret: &SecretBytes) -> Change {
    let secret = Some(secret.duplicate());
    Change::Put(Record { table: Table::PairKey, key: n.to_be_bytes().to_vec(), value: vec![0; 64], secret })
}

fn delete(n: u64) -> Change {
    Change::Delete { table: Table::PairKey, key: n.to_be_bytes().to_vec() }
}

/// A pair key's row as a key management entity makes it: side, peer, random id of the relay, index.
fn pair_row(n: u64) -> Vec<u8> {
    let relay = crypto::hash::sha256(&(n / 64).to_be_bytes());
    let mut key = b"\0\0\x07taiyuan".to_vec();
    key.extend_from_slice(&relay[..16]);
    key.extend_from_slice(&[0, u8::try_from(n % 64).unwrap_or(0)]);
    key
}

fn put_pair(n: u64, secret: &SecretBytes) -> Change {
    let secret = Some(secret.duplicate());
    Change::Put(Record { table: Table::PairKey, key: pair_row(n), value: vec![1], secret })
}

fn delete_pair(n: u64) -> Change {
    Change::Delete { table: Table::PairKey, key: pair_row(n) }
}

fn root() -> RootKey {
    RootKey::from_key(Key256::copy_of(&[1; 32]))
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([2; 32])
}

/// Records in a commit, and bytes of each secret.
const SHAPES: [(u64, usize); 5] = [(1, 32), (10, 32), (100, 32), (1_000, 32), (1, 32_768)];
