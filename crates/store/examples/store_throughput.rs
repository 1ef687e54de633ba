//! Prints how fast this disk takes commits: `cargo run --release -p store --example store_throughput [FOLDER]`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use crypto::record::{Change, Record, Table};
use crypto::secret::{Key256, SecretBytes};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use store::{RootKey, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir_in(".")?,
    };
    println!("| records per commit | secret | commits/s | records/s | p50 | p99 | deletes/s | open |");
    println!("|---|---|---|---|---|---|---|---|");
    for (batch, secret_len) in [(1, 32), (10, 32), (100, 32), (1000, 32), (1, 32_768)] {
        measure(&folder.path().join(format!("{batch}-{secret_len}")), batch, secret_len)?;
    }
    Ok(())
}

/// Puts records for two seconds, deletes them again, and opens what is left.
fn measure(folder: &std::path::Path, batch: u64, secret_len: usize) -> Result<(), store::Error> {
    let root = || RootKey::from_key(Key256::copy_of(&[1; 32]));
    let rng = || ChaCha20Rng::from_seed([2; 32]);
    let secret = SecretBytes::random(secret_len, &mut rng());
    let (mut store, _) = Store::open(folder, root(), rng())?;
    let put = |n: u64| {
        Change::Put(Record {
            table: Table::PairKey,
            key: n.to_be_bytes().to_vec(),
            value: vec![0; 64],
            secret: Some(secret.duplicate()),
        })
    };
    let delete = |n: u64| Change::Delete { table: Table::PairKey, key: n.to_be_bytes().to_vec() };

    let (mut times, mut next) = (Vec::new(), 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let changes: Vec<Change> = (next..next + batch).map(put).collect();
        let before = Instant::now();
        store.commit(&changes)?;
        times.push(before.elapsed());
        next += batch;
    }
    let spent = times.iter().sum::<Duration>().as_secs_f64();
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let (commits, p50, p99) = (times.len() as f64, at(50), at(99));

    let half = next / 2 / batch * batch;
    let before = Instant::now();
    for first in (0..half).step_by(usize::try_from(batch).unwrap_or(1)) {
        store.commit(&(first..first + batch).map(delete).collect::<Vec<_>>())?;
    }
    let deletes = half as f64 / before.elapsed().as_secs_f64();
    drop(store);
    let before = Instant::now();
    let (_, records) = Store::open(folder, root(), rng())?;
    println!(
        "| {batch} | {secret_len} B | {:.0} | {:.0} | {p50:.1?} | {p99:.1?} | {deletes:.0} | {:.0?} for {} |",
        commits / spent,
        next as f64 / spent,
        before.elapsed(),
        records.len(),
    );
    Ok(())
}
