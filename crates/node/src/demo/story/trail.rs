//! The audit trail of all sites, exported, verified offline, and a tampered copy refused.

use std::fs;

use serde_json::Value;

use super::Stage;
use crate::failure::{Context as _, Failure, Outcome};

/// Exports the logs of all sites into one file, verifies it, then flips one bit in the middle and expects the
/// verifier to refuse.
pub(super) async fn verify(stage: &mut Stage) -> Outcome<(String, ())> {
    let export = stage.layout.dir().join("audit.export");
    let mut args = vec!["audit".to_owned(), "export".to_owned(), "--out".to_owned(), export.display().to_string()];
    for site in stage.network.sites().keys() {
        args.extend(["--config".to_owned(), stage.layout.node(site).display().to_string()]);
    }
    stage.processes.run(&args).await?;
    let trust = stage.layout.trust().display().to_string();
    let check = |file: &std::path::Path| {
        ["audit", "verify", "--json", "--trust", &trust, &file.display().to_string()].map(str::to_owned)
    };
    let printed = stage.processes.run(&check(&export)).await?;
    let report: Value = serde_json::from_str(&printed).context(|| "answer of audit verify".to_owned())?;
    let logs = report["logs"].as_array().map_or(0, Vec::len);
    let entries: u64 = report["logs"].as_array().into_iter().flatten().filter_map(|log| log["entries"].as_u64()).sum();
    if logs != stage.network.sites().len() || entries == 0 {
        return Err(Failure::new(format!("the export holds {entries} entries of {logs} logs")));
    }
    let tampered = export.with_extension("tampered");
    let mut bytes = fs::read(&export).context(|| format!("cannot read {}", export.display()))?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(&tampered, &bytes).context(|| format!("cannot write {}", tampered.display()))?;
    if stage.processes.run(&check(&tampered)).await.is_ok() {
        return Err(Failure::new(format!("the verifier took an export with byte {middle} changed")));
    }
    let size = bytes.len() / 1024;
    Ok((format!("{entries} entries of {logs} sites in {size} KiB verify offline; one flipped bit is refused"), ()))
}
