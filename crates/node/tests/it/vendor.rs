//! Links that are fed by another maker's devices: a second network of two sites stands for the maker, and its KMEs are
//! the devices. Our two sites take key there over real sockets and supply it to their own SAEs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, fails, json, ok_of, run, str_of, wait_until};

/// Both networks. The maker's runs in the background of the whole test.
struct Worlds {
    ours: World,
    maker: World,
}

impl Worlds {
    /// Provisions both, and feeds our one link from the maker's KMEs.
    fn provision() -> Self {
        let maker = World::provision_file("maker.toml", 30);
        let ours = World::provision_file("fed.toml", 30);
        for (site, device, peer) in [("north", "plant", "app-store"), ("south", "store", "app-plant")] {
            let folder = maker.sae(device, &format!("app-{device}"));
            let file = |name: &str| str_of(&folder.join(name)).to_owned();
            let kme = maker.listen(device, "kme");
            let mut config: toml::Table = fs::read_to_string(ours.node(site)).unwrap().parse().unwrap();
            let link = config["link"][0].as_table_mut().unwrap();
            link.remove("fibre").unwrap();
            link.insert("source".to_owned(), "etsi014".into());
            let device: toml::Table = format!(
                "kme = \"{kme}\"\npeer_sae = \"{peer}\"\npool_target = 300000\n\
                 tls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}",
                file("ca.pem"),
                file("cert.pem"),
                file("key.pem")
            )
            .parse()
            .unwrap();
            link.insert("device".to_owned(), device.into());
            fs::write(ours.node(site), config.to_string()).unwrap();
        }
        Self { ours, maker }
    }

    fn start() -> Self {
        let mut worlds = Self::provision();
        worlds.start_maker();
        for site in ["north", "south"] {
            worlds.ours.spawn_site(site);
        }
        worlds.wait_for_keys(64);
        worlds
    }

    fn start_maker(&mut self) {
        self.maker.spawn("fibre", &["fibre", "--config", str_of(&self.maker.path("fibre.toml"))]);
        for site in ["plant", "store"] {
            self.maker.spawn_site(site);
        }
        self.maker.wait_for_keys("plant", "app-store", 64);
    }

    fn wait_for_keys(&self, count: u64) {
        self.ours.wait_for_keys("north", "app-south", count);
        self.ours.wait_for_keys("south", "app-north", count);
    }

    /// Waits until our sites leave the devices alone: their stock is good and stays as it is.
    fn wait_for_rest(&self) {
        let sae = self.maker.sae("plant", "app-plant").join("sae.toml");
        let (mut last, mut same) = (0, 0);
        wait_until(Duration::from_secs(90), "full pools", || {
            let output = run(&["key", "--sae", str_of(&sae), "--json", "status", "app-store"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let stored = status["stored_key_count"].as_u64().unwrap_or_default();
            same = if stored == last && stored >= 128 { same + 1 } else { 0 };
            last = stored;
            same == 30
        });
    }

    /// Takes keys in the north and collects them in the south; they must be the same. Gives ids and bits.
    fn exchange(&self, number: usize) -> Vec<(String, String)> {
        let taken = self.take(number);
        let ids: Vec<_> = taken.iter().map(|(id, _)| id.as_str()).collect();
        let sae = self.ours.sae("south", "app-south").join("sae.toml");
        let mut args = vec!["key", "--sae", str_of(&sae), "--json", "fetch", "app-north"];
        args.extend(ids);
        assert_eq!(keys(&json(&args)), taken, "both SAEs hold the same keys");
        taken
    }

    /// As a 503 tells a client to, asks again while the sites find each other.
    fn take(&self, number: usize) -> Vec<(String, String)> {
        let sae = self.ours.sae("north", "app-north").join("sae.toml");
        let number_text = number.to_string();
        let mut taken = Vec::new();
        wait_until(Duration::from_secs(60), "keys for the south", || {
            let output = run(&["key", "--sae", str_of(&sae), "--json", "get", "app-south", "--number", &number_text]);
            taken = keys(&serde_json::from_slice(&output.stdout).unwrap_or_default());
            taken.len() == number
        });
        taken
    }
}

fn keys(printed: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = printed["keys"].as_array().cloned().unwrap_or_default();
    list.iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// Lines of a log that hold all of these.
fn lines(log: &str, needles: &[&str]) -> usize {
    log.lines().filter(|line| needles.iter().all(|needle| line.contains(needle))).count()
}

#[test]
fn key_of_another_makers_devices_reaches_both_saes_and_survives_kill_9() {
    let mut worlds = Worlds::start();
    let mut supplied = worlds.exchange(20);
    for victim in ["north", "south", "north", "south"] {
        // Need, so that blocks are under way when the process dies.
        supplied.extend(worlds.exchange(100));
        worlds.ours.kill_9(victim);
        worlds.ours.spawn_site(victim);
        worlds.wait_for_keys(64);
        supplied.extend(worlds.exchange(20));
    }
    let bits: BTreeSet<_> = supplied.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(bits.len(), supplied.len(), "key bits were supplied twice");
    for site in ["north", "south"] {
        let log = worlds.ours.log(site);
        assert!(lines(&log, &["key comes from a QKD device"]) >= 3, "{site}");
        assert_eq!(lines(&log, &["devices disagree"]), 0, "{site}");
        assert_eq!(lines(&log, &["is not authentic"]), 0, "{site}");
        assert_eq!(lines(&log, &["misbehaved"]), 0, "{site}: the pools of both ends agree");
    }

    worlds.wait_for_rest();
    // The devices go away: what is in the pools stays usable, and the sites say what is missing.
    for site in ["plant", "store"] {
        worlds.maker.kill_9(site);
    }
    for site in ["north", "south"] {
        wait_until(Duration::from_secs(60), "a warning", || {
            lines(&worlds.ours.log(site), &["WARN", "does not deliver"]) > 0
        });
    }
    for _ in 0..4 {
        // More than the stock of 256 end-to-end keys: relayed from the link's pool.
        worlds.exchange(100);
    }
    let answers = |worlds: &Worlds, site| lines(&worlds.ours.log(site), &["the QKD device answers"]);
    let before = ["north", "south"].map(|site| answers(&worlds, site));
    for site in ["plant", "store"] {
        worlds.maker.spawn_site(site);
    }
    for (site, before) in ["north", "south"].into_iter().zip(before) {
        wait_until(Duration::from_secs(120), "the device again", || answers(&worlds, site) > before);
    }
}

#[test]
fn a_store_set_back_to_an_older_state_is_noticed_and_makes_no_key() {
    let mut worlds = Worlds::start();
    worlds.wait_for_rest();
    worlds.ours.terminate("south");
    let store = worlds.ours.path("sites/south/data/store");
    let backup = worlds.ours.path("backup");
    let copy = |from: &Path, to: &Path| ok_of(Command::new("cp").arg("-r").args([from, to]));
    copy(&store, &backup);
    worlds.ours.spawn_site("south");
    // More than the pool held, so that blocks were made since.
    for _ in 0..8 {
        worlds.exchange(120);
    }
    worlds.wait_for_rest();
    worlds.ours.terminate("south");
    fs::remove_dir_all(&store).unwrap();
    copy(&backup, &store);
    worlds.ours.spawn_site("south");
    for site in ["north", "south"] {
        wait_until(Duration::from_secs(60), "the ends to notice", || {
            lines(&worlds.ours.log(site), &["WARN", "the two ends differ in next block"]) > 0
        });
    }
    worlds.ours.terminate("north");
    worlds.ours.terminate("south");
    for site in ["north", "south"] {
        let noticed = lines(&worlds.ours.log(site), &["the two ends differ in next block"]);
        assert!(noticed <= 3, "{site} said it {noticed} times");
    }
}

#[test]
fn a_link_keeps_its_source_and_wrong_combinations_are_refused() {
    let worlds = Worlds::provision();
    let file = worlds.ours.node("north");
    let good = fs::read_to_string(&file).unwrap();
    let refused = |text: &str| {
        fs::write(&file, text).unwrap();
        fails(&["node", "--config", &file])
    };
    let said = refused(&good.replace("source = \"etsi014\"\n", ""));
    assert!(said.contains("line ") && said.contains("north-south") && said.contains("add that line"), "{said}");
    let said = refused(&good.replace("source = \"etsi014\"", "source = \"etsi014\"\nfibre = \"127.0.0.1:9\""));
    assert!(said.contains("remove one of them"), "{said}");
    let said = refused(&good.replace("/cert.pem", "/missing.pem"));
    assert!(said.contains("missing.pem"), "{said}");
    // The certificate of a site is no SAE's.
    let cert = worlds.maker.path("sites/plant/tls/kme.pem");
    let sae_cert = worlds.maker.sae("plant", "app-plant").join("cert.pem");
    let said = refused(&good.replace(str_of(&sae_cert), str_of(&cert)));
    assert!(said.contains("names no SAE"), "{said}");

    fs::write(&file, &good).unwrap();
    let mut ours = worlds.ours;
    ours.spawn_site("north");
    wait_until(Duration::from_secs(30), "the site", || ours.log("north").contains("site is up"));
    wait_until(Duration::from_secs(30), "a warning", || lines(&ours.log("north"), &["WARN", "does not deliver"]) > 0);
    ours.terminate("north");
    let mut config: toml::Table = good.parse().unwrap();
    let link = config["link"][0].as_table_mut().unwrap();
    link.remove("source");
    link.remove("device");
    link.insert("fibre".to_owned(), "127.0.0.1:9".into());
    fs::write(&file, config.to_string()).unwrap();
    let said = fails(&["node", "--config", &file]);
    assert!(said.contains("source = \"etsi014\" before") && said.contains("new id"), "{said}");
}
