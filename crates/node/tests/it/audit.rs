//! The audit trail: exported beside running sites, verified offline, refused after any change.

use std::fs;

use crate::world::{World, fails, json, ok, run, str_of};

#[test]
fn exports_verify_and_tampered_ones_do_not() {
    let world = World::start();
    let export = world.dir.path().join("audit.export");
    let trust = world.path("trust.toml");
    let nodes = ["east", "middle", "west"].map(|site| world.node(site));
    let mut args = vec!["audit", "export", "--out", str_of(&export)];
    for node in &nodes {
        args.extend(["--config", node]);
    }
    ok(&args);
    let verify = |file: &std::path::Path| run(&["audit", "verify", "--trust", str_of(&trust), str_of(file)]);
    let report = json(&["audit", "verify", "--json", "--trust", str_of(&trust), str_of(&export)]);
    assert_eq!(report["verified"], true, "{report:#}");
    assert_eq!(report["logs"].as_array().map(Vec::len), Some(3), "{report:#}");

    let whole = fs::read(&export).unwrap();
    let bad = world.dir.path().join("bad.export");
    let spread = (0..24).map(|part| part * whole.len() / 24);
    for at in spread.chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&bad, &changed).unwrap();
        assert!(!verify(&bad).status.success(), "byte {at} changed");
        let mut removed = whole.clone();
        removed.remove(at);
        fs::write(&bad, &removed).unwrap();
        assert!(!verify(&bad).status.success(), "byte {at} removed");
        let mut inserted = whole.clone();
        inserted.insert(at, 0);
        fs::write(&bad, &inserted).unwrap();
        assert!(!verify(&bad).status.success(), "byte inserted at {at}");
    }
    let stranger = World::provision();
    let said = fails(&["audit", "verify", "--trust", str_of(&stranger.path("trust.toml")), str_of(&export)]);
    assert!(said.contains("audit"), "{said}");

    let log = ok(&["audit", "log", "--config", &world.node("middle"), "--last", "1000"]);
    for code in ["SERVICE_STARTED", "LINK_UP", "BLOCK_FILED", "RELAY_HOP"] {
        assert!(log.contains(code), "{code} is missing in the middle's log:\n{log}");
    }
}
