//! `qurrent model list`, `show` and `verify`.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use jiff::Timestamp;
use serde_json::{Value, json};
use types::units::UtcNanos;
use vault::{Class, Manifest};

use super::local::LocalSite;
use super::planning::{SECURITY, size};
use super::sending::names;
use super::watch::Watch;
use super::{ShowArgs, VerifyArgs, failed};
use crate::commands::print;
use crate::failure::{Failure, Outcome};

/// Lists all versions of all models.
///
/// # Errors
/// If the store cannot be listed.
pub async fn list(local: &LocalSite, json: bool) -> Outcome<()> {
    let listed = local.store()?.list(Some(&local.publishers()?)).await.map_err(failed)?;
    let document: Vec<Value> = listed
        .iter()
        .map(|entry| match &entry.manifest {
            Ok(manifest) => summary(manifest),
            Err(error) => json!({ "model": entry.model, "version": entry.version, "problem": error.to_string() }),
        })
        .collect();
    print(json, &document, || {
        if listed.is_empty() {
            return "no model is in the store".to_owned();
        }
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["model", "version", "size", "tensors", "publisher", "published", "for"]);
        for entry in &listed {
            let (model, version) = (entry.model.to_string(), entry.version.to_string());
            match &entry.manifest {
                Ok(manifest) => table.add_row([
                    model,
                    version,
                    size(manifest.file_len),
                    manifest.tensors().to_string(),
                    manifest.publisher.to_string(),
                    when(manifest.published_at),
                    receivers(manifest),
                ]),
                Err(error) => table.add_row([model, version, format!("refused: {error}")]),
            };
        }
        table.to_string()
    })
}

/// Shows one version.
///
/// # Errors
/// If it is not there or does not verify.
pub async fn show(local: &LocalSite, args: &ShowArgs, json: bool) -> Outcome<()> {
    let manifest = local.store()?.manifest(&args.model, args.version, &local.publishers()?).await.map_err(failed)?;
    let mut document = summary(&manifest);
    document["manifest_sha256"] = json!(hex::encode(manifest.sha256()));
    document["envelopes"] =
        manifest.envelopes.iter().map(|envelope| json!({ "site": envelope.site, "key_ids": envelope.keys })).collect();
    if args.tensors || json {
        document["pieces"] = manifest
            .pieces
            .iter()
            .map(|sealed| {
                json!({
                    "name": sealed.piece.name,
                    "tensor": sealed.piece.is_tensor(),
                    "class": sealed.class,
                    "bytes": sealed.piece.len,
                    "chunks": sealed.chunks.len(),
                })
            })
            .collect();
    }
    print(json, &document, || {
        let mut text = format!(
            "{} version {}, published by {} at {}\n  file      {} in {} tensors, SHA-256 {}\n  sealed    {} in {} chunks and {} pack objects\n  manifest  {}, signature holds\n  security  computational: {SECURITY}, keys by HKDF from the model key; {} tensors have a key of their own\n",
            manifest.model,
            manifest.version,
            manifest.publisher,
            when(manifest.published_at),
            size(manifest.file_len),
            manifest.tensors(),
            hex::encode(manifest.file_sha256),
            size(manifest.sealed_len()),
            manifest.chunks(),
            manifest.packs.len(),
            hex::encode(manifest.sha256()),
            manifest.own_keys(),
        );
        for envelope in &manifest.envelopes {
            let first = envelope.keys.first().map(ToString::to_string).unwrap_or_default();
            let more = match envelope.keys.len() {
                0 | 1 => String::new(),
                keys => format!(" and {} more", keys - 1),
            };
            text.push_str(&format!("  for {}: wrapped by quantum key {first}{more}\n", envelope.site));
        }
        if args.tensors {
            let mut table = Table::new();
            table.load_style(UTF8_FULL_CONDENSED);
            table.set_header(["tensor", "class", "bytes", "chunks"]);
            for sealed in &manifest.pieces {
                let (class, bytes) = (sealed.class.to_string(), sealed.piece.len.to_string());
                table.add_row([sealed.piece.name.clone(), class, bytes, sealed.chunks.len().to_string()]);
            }
            text.push_str(&table.to_string());
        }
        text
    })
}

/// Checks every object of a version.
///
/// # Errors
/// If the manifest is not there or does not verify, or if any object is not as published.
pub async fn verify(local: &LocalSite, args: &VerifyArgs, json: bool) -> Outcome<()> {
    let mut watch = Watch::new(args.model.to_string(), None);
    let checked = local.store()?.verify(&args.model, args.version, &local.publishers()?, &mut watch).await;
    drop(watch);
    let checked = checked.map_err(failed)?;
    let faults: Vec<String> = checked.faults.iter().map(ToString::to_string).collect();
    let mut document = summary(&checked.manifest);
    document["manifest_sha256"] = json!(hex::encode(checked.manifest.sha256()));
    document["good_chunks"] = json!(checked.good_chunks);
    document["good_envelopes"] = json!(checked.good_envelopes);
    document["faults"] = json!(faults);
    print(json, &document, || {
        let mut text = format!(
            "{} version {}: signature holds, {} of {} chunks and {} of {} envelopes are as published\n",
            checked.manifest.model,
            checked.manifest.version,
            checked.good_chunks,
            checked.manifest.chunks(),
            checked.good_envelopes,
            checked.manifest.envelopes.len(),
        );
        for fault in faults.iter().take(SHOWN_FAULTS) {
            text.push_str(&format!("  {fault}\n"));
        }
        if faults.len() > SHOWN_FAULTS {
            text.push_str(&format!("  and {} more\n", faults.len() - SHOWN_FAULTS));
        }
        text
    })?;
    match checked.faults.first() {
        None => Ok(()),
        Some(first) => {
            let count = checked.faults.len();
            let failure = Failure::new(format!("{count} objects or chunks are not as published"));
            Err(match first.hint() {
                Some(hint) => failure.remedy(hint),
                None => failure,
            })
        }
    }
}

/// Faults that are listed for people; JSON has them all.
const SHOWN_FAULTS: usize = 20;

fn summary(manifest: &Manifest) -> Value {
    let own = || manifest.pieces.iter().filter(|sealed| sealed.class == Class::OwnKey);
    json!({
        "model": manifest.model,
        "version": manifest.version,
        "epoch": manifest.epoch,
        "publisher": manifest.publisher,
        "published_at": when(manifest.published_at),
        "format": manifest.format,
        "file_sha256": hex::encode(manifest.file_sha256),
        "bytes": manifest.file_len,
        "sealed_bytes": manifest.sealed_len(),
        "tensors": manifest.tensors(),
        "chunks": manifest.chunks(),
        "packs": manifest.packs.len(),
        "own_key_tensors": own().count(),
        "own_key_bytes": own().map(|sealed| sealed.piece.len).sum::<u64>(),
        "security": "computational",
        "cipher": SECURITY,
        "sites": manifest.envelopes.iter().map(|envelope| &envelope.site).collect::<Vec<_>>(),
    })
}

fn receivers(manifest: &Manifest) -> String {
    names(&manifest.envelopes.iter().map(|envelope| envelope.site.clone()).collect::<Vec<_>>())
}

fn when(at: UtcNanos) -> String {
    let seconds = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}
