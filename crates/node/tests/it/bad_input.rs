//! Wrong files, ports and certificates: the thing is named, a remedy is given, the exit code is not 0.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::world::{World, fails, run, str_of};

#[test]
fn a_malformed_network_file_is_named_with_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/line.toml")).unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, good.replacen("bob = \"west\"", "bob = \"moon\"", 1)).unwrap();
    let said = fails(&["network", "check", str_of(&file)]);
    for part in ["bad.toml", "line 5", "link.bob", "moon", "what to do"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    let said = fails(&["network", "init", "--network", str_of(&file), "--dir", str_of(&dir.path().join("net"))]);
    assert!(said.contains("link.bob"), "{said}");
    assert!(!dir.path().join("net/network.toml").exists());
}

#[test]
fn a_provisioned_folder_is_not_overwritten() {
    let world = World::provision();
    let network = world.path("network.toml");
    let said = fails(&["network", "init", "--network", str_of(&network), "--dir", str_of(&world.path(""))]);
    assert!(said.contains("holds a network already"), "{said}");
}

#[test]
fn a_taken_port_is_named() {
    let world = World::provision();
    let address = world.listen("east", "kme");
    let _taken = TcpListener::bind(address).unwrap();
    let said = fails(&["node", "--config", &world.node("east")]);
    assert!(said.contains(&address.to_string()) && said.contains("node.toml"), "{said}");
}

#[test]
fn a_readable_root_key_is_refused() {
    let world = World::provision();
    let key = world.path("sites/east/root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = fails(&["node", "--config", &world.node("east")]);
    assert!(said.contains("root.key"), "{said}");
}

#[test]
fn an_unknown_field_of_a_configuration_is_named() {
    let world = World::provision();
    let node = world.node("east");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, format!("colour = \"red\"\n{text}")).unwrap();
    let said = fails(&["node", "--config", &node]);
    assert!(said.contains("colour") && said.contains("node.toml"), "{said}");
}

#[test]
fn a_site_that_is_down_is_named_to_the_sae() {
    let world = World::provision();
    let sae = world.sae("east", "app-east").join("sae.toml");
    let said = fails(&["key", "--sae", str_of(&sae), "status", "app-west"]);
    let address = world.listen("east", "kme").to_string();
    assert!(said.contains(&address) && said.contains("running"), "{said}");
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let mut world = World::provision();
    let stranger = World::provision();
    world.spawn("fibre", &["fibre", "--config", &world.path("fibre.toml").display().to_string()]);
    world.spawn_site("east");
    let ours = world.sae("east", "app-east").join("sae.toml");
    crate::world::wait_until(std::time::Duration::from_secs(30), "east answers", || {
        run(&["key", "--sae", str_of(&ours), "status", "app-west"]).status.success()
    });
    // The stranger's certificate, shown to our site: both ends refuse what they do not know.
    let theirs = stranger.sae("east", "app-east");
    let config = fs::read_to_string(theirs.join("sae.toml")).unwrap();
    let port = |world: &World| world.listen("east", "kme").to_string();
    fs::write(theirs.join("sae.toml"), config.replace(&port(&stranger), &port(&world))).unwrap();
    let said = fails(&["key", "--sae", str_of(&theirs.join("sae.toml")), "status", "app-west"]);
    assert!(said.contains("TLS handshake") && said.contains("authority"), "{said}");
    fs::copy(ours.parent().unwrap().join("ca.pem"), theirs.join("ca.pem")).unwrap();
    let said = fails(&["key", "--sae", str_of(&theirs.join("sae.toml")), "status", "app-west"]);
    assert!(said.contains(&port(&world)), "{said}");
}

#[test]
fn wrong_usage_ends_with_exit_code_2() {
    for args in [&["demo", "--colour"][..], &["node"], &["key", "get"], &["frobnicate"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_disk_that_takes_no_more_stops_the_site_with_its_name_and_loses_nothing() {
    let mut world = World::start();
    let (east, west) = (world.sae("east", "app-east").join("sae.toml"), world.sae("west", "app-west").join("sae.toml"));
    let taken = crate::world::json(&["key", "--sae", str_of(&east), "--json", "get", "app-west"]);
    assert!(world.terminate("east").success());

    // A limit on file sizes stands for the full disk: every file that would grow past it is refused.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" node --config \"$1\"";
    let output = std::process::Command::new("timeout")
        .args(["60", "sh", "-c", script, crate::world::QURRENT, &world.node("east")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("east/data") && said.contains("what to do"), "{said}");

    world.spawn_site("east");
    world.wait_for_keys("east", "app-west", 8);
    let id = taken["keys"][0]["key_ID"].as_str().unwrap();
    let found = crate::world::json(&["key", "--sae", str_of(&west), "--json", "fetch", "app-east", id]);
    assert_eq!(found["keys"][0]["key"], taken["keys"][0]["key"]);
}

#[test]
fn a_site_that_is_down_costs_no_key() {
    let mut world = World::start();
    world.kill_9("west");
    let east = world.sae("east", "app-east").join("sae.toml");
    let stock = || {
        let status = crate::world::json(&["key", "--sae", str_of(&east), "--json", "status", "app-west"]);
        status["stored_key_count"].as_u64().unwrap()
    };
    let before = stock();
    for _ in 0..3 {
        let said = fails(&["key", "--sae", str_of(&east), "get", "app-west", "--number", "4"]);
        assert!(said.contains("503"), "{said}");
    }
    // Keys named in an unanswered assignment stay bound to this pair of SAEs; none is gone for it.
    world.spawn_site("west");
    world.wait_for_keys("east", "app-west", before);
    crate::world::wait_until(std::time::Duration::from_secs(30), "a key once the west is back", || {
        run(&["key", "--sae", str_of(&east), "get", "app-west", "--number", "4"]).status.success()
    });
}
