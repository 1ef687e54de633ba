//! Backup, the loss of a store, and the way back: with new link keys and without any old one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::world::{World, fails, json, ok, str_of, wait_until};

#[test]
fn a_site_that_lost_its_store_comes_back_from_a_backup_with_new_link_keys_slow_() {
    let mut world = World::start();
    let node = world.node("east");
    let backup = world.dir.path().join("east.backup");
    let create = ["backup", "create", "--config", &node, "--to", str_of(&backup)];
    let text = fails(&create);
    assert!(text.contains("in use by process") && text.contains("stop it first"), "{text}");
    assert!(world.terminate("east").success());
    ok(&create);
    let info = json(&["backup", "inspect", str_of(&backup), "--config", &node, "--json"]);
    assert_eq!((info["site"].as_str(), info["incarnation"].as_u64()), (Some("east"), Some(0)));
    // Another site's root key does not open it.
    fails(&["backup", "inspect", str_of(&backup), "--config", &world.node("west")]);

    // The site goes on; then its store is lost.
    world.spawn_site("east");
    world.wait_for_keys("east", "app-west", 8);
    world.kill_9("east");
    let store = world.path("sites/east/data/store");
    let restore = ["backup", "restore", "--config", &node, "--from", str_of(&backup)];
    let text = fails(&restore);
    assert!(text.contains("empty store"), "{text}");
    fs::rename(&store, world.dir.path().join("lost")).unwrap();
    let restored = ok(&restore);
    assert!(restored.contains("network rekey --link east-middle"), "{restored}");

    // Without a new key the link waits, and the site runs.
    world.spawn_site("east");
    wait_until(Duration::from_secs(60), "the site is up and says that its link waits", || {
        let log = world.log("east");
        log.contains("restored from a backup") && log.contains("no authentication key") && log.contains("site is up")
    });
    let dir = world.path("");
    ok(&["network", "rekey", "--dir", str_of(&dir), "--link", "east-middle"]);
    assert!(world.terminate("east").success());
    assert!(world.terminate("middle").success());
    world.spawn_site("middle");
    world.spawn_site("east");
    world.wait_for_keys("east", "app-west", 8);
    world.wait_for_keys("west", "app-east", 8);
    for site in ["east", "middle"] {
        let key = world.path(&format!("sites/{site}/links/east-middle.key"));
        assert!(!key.exists(), "the key file is destroyed once the store holds it");
    }
    // Keys still come out the same at both ends.
    let sae = |site: &str| str_of(&world.sae(site, &format!("app-{site}")).join("sae.toml")).to_owned();
    let got = json(&["key", "--sae", &sae("east"), "--json", "get", "app-west"]);
    let id = got["keys"][0]["key_ID"].as_str().unwrap();
    let fetched = json(&["key", "--sae", &sae("west"), "--json", "fetch", "app-east", id]);
    assert_eq!(got["keys"][0]["key"], fetched["keys"][0]["key"]);
}

#[test]
fn the_root_key_goes_under_a_passphrase_and_changes() {
    let mut world = World::provision();
    let (node, site) = (world.node("east"), world.path("sites/east"));
    let starts = |world: &mut World| {
        world.spawn_site("east");
        wait_until(Duration::from_secs(60), "east is up", || world.log("east").contains("site is up"));
        assert!(world.terminate("east").success());
        fs::remove_file(world.dir.path().join("east.log")).unwrap();
    };
    starts(&mut world);
    // In the file of its own, then under a passphrase from a file.
    fails(&["store", "protect", "--config", &node, "--from", str_of(&site.join("root.key"))]);
    let text = fs::read_to_string(&node).unwrap().replace("root_key = \"root.key\"", "root_key = \"root.sealed\"");
    let store =
        "\n[store]\nroot = { passphrase = { file = \"root.pass\" } }\nbackup = { folder = \"backups\", keep = 3 }\n";
    fs::write(&node, text + store).unwrap();
    write_private(&site.join("root.pass"), "a passphrase of some length\n");
    ok(&["store", "protect", "--config", &node, "--from", str_of(&site.join("root.key"))]);
    fs::remove_file(site.join("root.key")).unwrap();
    starts(&mut world);
    assert_eq!(fs::read_dir(site.join("backups")).unwrap().count(), 1, "one backup was due at the start");
    // A new root key.
    let before = fs::read(site.join("root.sealed")).unwrap();
    ok(&["store", "rekey", "--config", &node]);
    assert_ne!(fs::read(site.join("root.sealed")).unwrap(), before);
    assert!(!site.join("root.sealed.next").exists());
    starts(&mut world);
    fs::write(site.join("root.sealed"), before).unwrap();
    let refused = fails(&["backup", "create", "--config", &node, "--to", str_of(&site.join("b"))]);
    assert!(refused.contains("root key does not open"), "{refused}");
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}
