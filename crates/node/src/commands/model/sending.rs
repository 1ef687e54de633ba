//! `qurrent model publish` and `qurrent model fetch`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use types::id::SiteId;
use vault::{FetchRequest, Plan, PublishRequest, WrappingKeys};

use super::local::LocalSite;
use super::planning::{BUDGET, size};
use super::watch::Watch;
use super::wrapping::KmeKeys;
use super::{FetchArgs, PublishArgs, failed};
use crate::clock;
use crate::commands::print;
use crate::entropy::os_rng;
use crate::failure::Outcome;

/// Publishes a model for other sites.
///
/// # Errors
/// With what went wrong and what to do; nothing half published is visible then.
pub async fn publish(local: &LocalSite, args: &PublishArgs, json: bool) -> Outcome<()> {
    let file = Arc::new(args.mapping.open(&args.file)?);
    let sites = if args.site.is_empty() { local.others()? } else { args.site.clone() };
    let (store, signing, ring, client) =
        (local.writable_store()?, local.signing_key()?, local.keyring()?, local.client()?);
    let keys = KmeKeys(&client);
    let budget = match args.mapping.budget() {
        Some(budget) => budget,
        None => budget_of(&keys, &sites).await.map_err(failed)?,
    };
    let plan = Plan::new(&file, &args.mapping.rules(), budget).map_err(failed)?;
    // What crashed runs left behind; a day is longer than any publish.
    if let Err(error) = store.sweep(clock::utc_now(), Duration::from_secs(24 * 3600)).await {
        tracing::warn!(%error, "leftovers of earlier runs stay in the store");
    }
    let request = PublishRequest {
        model: &args.model,
        publisher: local.id(),
        sites: &sites,
        signing: &signing,
        now: clock::utc_now(),
    };
    let begun = clock::now();
    let mut watch = Watch::new(args.model.to_string(), Some(&client));
    let done = store.publish((&file, &plan), request, &keys, &ring, &mut os_rng(), &mut watch).await;
    drop(watch);
    let done = done.map_err(failed)?;
    let seconds = clock::now().since(begun).as_secs_f64();
    let bits = u64::from(done.keys_per_site) * vault::plan::WRAPPING_KEY_BITS * done.sites.len() as u64;
    let document = json!({
        "model": done.model,
        "version": done.version,
        "manifest_sha256": hex::encode(done.manifest_sha256),
        "file_sha256": hex::encode(done.file_sha256),
        "bytes": done.bytes,
        "sealed_bytes": done.sealed_bytes,
        "tensors": done.tensors,
        "chunks": done.chunks,
        "envelopes": done.sites.len(),
        "sites": done.sites,
        "keys_per_site": done.keys_per_site,
        "qkd_bits": bits,
        "seconds": seconds,
    });
    print(json, &document, || {
        format!(
            "published {} version {}: {} in {} chunks, for {}; {bits} bit of quantum key, {seconds:.1} s\nmanifest {}\nfetch it there with: qurrent model fetch {} --out FILE",
            done.model,
            done.version,
            size(done.bytes),
            done.chunks,
            names(&done.sites),
            hex::encode(done.manifest_sha256),
            done.model,
        )
    })
}

/// At most a quarter of the smallest stock, and at most [`BUDGET`].
async fn budget_of(keys: &impl WrappingKeys, sites: &[SiteId]) -> vault::Result<u32> {
    let mut budget = BUDGET;
    for site in sites {
        let stock = keys.stock(site).await.map_err(|source| vault::Error::Keys { peer: site.clone(), source })?;
        if let Some(stock) = stock {
            budget = budget.min(u32::try_from(stock / 4).unwrap_or(u32::MAX));
        }
    }
    Ok(budget.max(1))
}

/// Fetches a model for this site.
///
/// # Errors
/// With what went wrong and what to do; the target is as it was before then.
pub async fn fetch(local: &LocalSite, args: &FetchArgs, json: bool) -> Outcome<()> {
    let (store, ring, client, publishers) = (local.store()?, local.keyring()?, local.client()?, local.publishers()?);
    let request = FetchRequest { model: &args.model, version: args.version, site: local.id(), publishers: &publishers };
    let begun = clock::now();
    let mut watch = Watch::new(args.model.to_string(), Some(&client));
    let done = store.fetch(request, &args.out, &KmeKeys(&client), &ring, &mut watch).await;
    drop(watch);
    let done = done.map_err(failed)?;
    let seconds = clock::now().since(begun).as_secs_f64();
    let document = json!({
        "model": done.model,
        "version": done.version,
        "out": args.out,
        "manifest_sha256": hex::encode(done.manifest_sha256),
        "file_sha256": hex::encode(done.file_sha256),
        "bytes": done.bytes,
        "resumed_bytes": done.resumed_bytes,
        "seconds": seconds,
    });
    print(json, &document, || {
        let resumed = match done.resumed_bytes {
            0 => String::new(),
            bytes => format!(" ({} were there from an interrupted run)", size(bytes)),
        };
        format!(
            "fetched {} version {} to {}: {}{resumed}, {seconds:.1} s\nSHA-256 {} as published",
            done.model,
            done.version,
            args.out.display(),
            size(done.bytes),
            hex::encode(done.file_sha256),
        )
    })
}

pub(super) fn names(sites: &[SiteId]) -> String {
    sites.iter().map(SiteId::as_str).collect::<Vec<_>>().join(", ")
}
