//! Prints how fast this disk takes entries, and how fast an export verifies:
//! `cargo run --release -p ledger --example log_throughput [ENTRIES]`.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use crypto::secret::Key256;
use crypto::sign::SigningKey;
use ledger::{Origin, SiteLog, Source, Trust, export, verify};
use types::event::Event;
use types::id::{KeyId, SaeId};
use types::units::{BitLen, UtcNanos};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let entries: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let origin: Origin = "shanxi/taiyuan/audit".parse()?;
    let key = || SigningKey::from_seed(&Key256::copy_of(&[1; 32]));
    let event = Event::KeysSupplied {
        master: SaeId::new("sae-taiyuan-1")?,
        slave: SaeId::new("sae-datong-1")?,
        first: KeyId::from_random([3; 16]),
        keys: 10,
        size: BitLen(256),
    };
    println!("| entries per append | entries/s | appends/s |\n|---|---|---|");
    for (batch, share) in [(1, 50), (10, 10), (100, 2), (1000, 1)] {
        let folder = tempfile::tempdir_in(".")?;
        let mut log = SiteLog::open(folder.path(), origin.clone(), key(), UtcNanos(0))?;
        let (batch_events, count) = (vec![event.clone(); batch], entries / share);
        let start = Instant::now();
        while log.size() < count as u64 {
            log.append(UtcNanos(log.size()), &batch_events)?;
        }
        let spent = start.elapsed().as_secs_f64();
        println!("| {batch} | {:.0} | {:.0} |", log.size() as f64 / spent, log.size() as f64 / batch as f64 / spent);
        if share > 1 {
            continue;
        }
        let start = Instant::now();
        log.checkpoint()?;
        println!("\ncheckpoint: {:.1?}", start.elapsed());
        drop(log);
        let start = Instant::now();
        let log = SiteLog::open(folder.path(), origin.clone(), key(), UtcNanos(0))?;
        println!("open {} entries: {:.0?}", log.size(), start.elapsed());

        let verifying = log.verifying_key();
        let mut out = Vec::new();
        let start = Instant::now();
        export(&mut out, &[Source { folder: folder.path(), origin: &origin, key: verifying, signing_key: None }])?;
        println!("export: {:.0?}, {} B, {} B per entry", start.elapsed(), out.len(), out.len() / entries);
        let fingerprint = verifying.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
        let trust = Trust::new([(origin.to_string(), fingerprint)])?;
        let start = Instant::now();
        let report = verify(&out[..], &trust)?;
        println!(
            "verify {} entries: {:.0?}",
            report.sites.iter().map(|site| site.entries).sum::<u64>(),
            start.elapsed()
        );
    }
    Ok(())
}
