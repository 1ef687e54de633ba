//! The link commands: simulation against the model, both ends as processes, attackers.

use serde_json::Value;

use crate::world::{fails, json, str_of};

fn shanxi() -> String {
    format!("{}/../../networks/shanxi.toml", env!("CARGO_MANIFEST_DIR"))
}

fn pair() -> String {
    format!("{}/tests/data/pair.toml", env!("CARGO_MANIFEST_DIR"))
}

fn run_pair(dir: &std::path::Path, more: &[&str]) -> Value {
    let network = pair();
    let mut args = vec!["link", "run", "--network", &network, "--dir", str_of(dir), "--time-scale", "60", "--json"];
    args.extend(more);
    json(&args)
}

#[test]
fn photons_agree_with_the_model_on_all_reference_links() {
    let links = json(&["link", "simulate", "--network", &shanxi(), "--seconds", "3", "--json"]);
    let links = links.as_array().unwrap();
    assert_eq!(links.len(), 5);
    for link in links {
        let counts = link["counts"].as_array().unwrap();
        assert_eq!(counts.len(), 15);
        assert!(counts.iter().all(|count| count["sigmas"].as_f64().unwrap().abs() < 4.5), "{link}");
    }
    let attacked = json(&[
        "link",
        "simulate",
        "--network",
        &shanxi(),
        "--link",
        "taiyuan-jinzhong",
        "--seconds",
        "1",
        "--attack",
        "intercept-resend",
        "--json",
    ]);
    assert!(attacked[0]["qber"].as_f64().unwrap() > 0.24, "{attacked}");
}

#[test]
fn a_link_runs_in_two_processes_and_resumes_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = run_pair(dir.path(), &["--blocks", "2"]);
    let blocks = first["blocks"].as_array().unwrap();
    assert!(!blocks.is_empty() && first["alarms"].as_array().unwrap().is_empty(), "{first}");
    assert!(blocks.iter().all(|block| block["rule"] == "lim2014" && block["secret"].as_u64().unwrap() > 1_000));
    let last = blocks.last().unwrap()["block"].as_u64().unwrap();
    let again = run_pair(dir.path(), &["--blocks", "1"]);
    assert!(again["blocks"][0]["block"].as_u64().unwrap() > last, "block numbers go on: {again}");
    let error = fails(&["link", "run", "--network", &shanxi(), "--dir", str_of(dir.path()), "--blocks", "1"]);
    assert!(error.contains("another link") && error.contains("--dir"), "{error}");
}

#[test]
fn attackers_are_named_by_the_running_link() {
    for (attack, name) in [
        ("intercept-resend:0.5", "intercept-resend"),
        ("blinding:pulsed:compensated", "detector blinding"),
        ("trojan-light", "Trojan light"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ran = run_pair(dir.path(), &["--seconds", "8", "--attack", attack]);
        assert!(ran["blocks"].as_array().unwrap().is_empty(), "{attack}: {ran}");
        let alarms = ran["alarms"].as_array().unwrap();
        assert!(alarms.iter().any(|alarm| alarm.as_str().unwrap().starts_with(name)), "{attack}: {ran}");
    }
    let error = fails(&["link", "run", "--network", &pair(), "--attack", "theft"]);
    assert!(error.contains("no attack is called"), "{error}");
}

#[test]
fn every_figure_of_the_bench_can_be_measured() {
    let rows = json(&["bench", "link", "--smoke", "--json"]);
    let rows = rows.as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in
        ["optics.events_per_s", "cascade.q11.f", "ldpc.short.fer", "pa.1m.mbit_s", "mac.gb_s", "link.e2e.mbit_s"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    for row in rows {
        assert!(row["value"].as_f64().is_some_and(f64::is_finite), "{row}");
    }
}
