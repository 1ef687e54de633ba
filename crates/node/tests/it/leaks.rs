//! No delivered key anywhere: not in a log at the finest level, not in memory after delivery, not in a file after the
//! stop, whichever interface it went through.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etsi::etsi004::{Ksid, Qos, Status};
use serde_json::{Value, json};

use crate::raw::Https;
use crate::skip::{ask, configure, start};
use crate::streams::{Caller, qos};
use crate::traces::Traces;
use crate::world::{World, wait_until};

fn bits(answer: &Value) -> Vec<Vec<u8>> {
    let keys = answer["keys"].as_array().unwrap();
    keys.iter().map(|key| STANDARD.decode(key["key"].as_str().unwrap()).unwrap()).collect()
}

/// ETSI GS QKD 014 from one site to another, of several sizes.
fn keys(world: &World, from: &str, to: &str) -> Vec<Vec<u8>> {
    let (master, slave) = (format!("app-{from}"), format!("app-{to}"));
    let mut all = Vec::new();
    for (number, size) in [(1, 256), (3, 512), (2, 4_096)] {
        let body = json!({ "number": number, "size": size }).to_string();
        let mut taken = Value::Null;
        wait_until(Duration::from_secs(90), "keys", || {
            let mut client = Https::connect(world, from, &master);
            let answer = client.request("POST", &format!("/api/v1/keys/{slave}/enc_keys"), Some(&body)).unwrap();
            taken = answer.json();
            answer.status == 200
        });
        let ids: Vec<&Value> = taken["keys"].as_array().unwrap().iter().map(|key| &key["key_ID"]).collect();
        let body = json!({ "key_IDs": ids }).to_string();
        let path = format!("/api/v1/keys/{master}/dec_keys");
        let found = Https::connect(world, to, &slave).request("POST", &path, Some(&body)).unwrap();
        assert_eq!((found.status, bits(&found.json())), (200, bits(&taken)));
        all.extend(bits(&taken));
    }
    all
}

/// ETSI GS QKD 004, read to its end by both.
fn stream(world: &World) -> Vec<Vec<u8>> {
    let mut east = Caller::new(world, "east", "app-east", "app-west");
    let mut west = Caller::new(world, "west", "app-west", "app-east");
    let opened = east.open(qos(64), Ksid::NULL);
    assert_eq!(west.open(Qos::default(), opened.ksid).status, Status::Success);
    let chunks: Vec<_> = (0..20).map(|index| east.get(index)).collect();
    let same: Vec<_> = (0..20).map(|index| west.get(index)).collect();
    assert!(chunks == same);
    assert_eq!((east.close(), west.close()), (Status::Success, Status::Success));
    chunks
}

/// SKIP, as routers ask.
fn skip(world: &World) -> Vec<Vec<u8>> {
    let made = ask(world, "east", "app-east", "/key?remoteSystemID=KP_west&size=512", &[]);
    assert_eq!(made.0, 200);
    let path = format!("/key/{}?remoteSystemID=KP_east", made.1["keyId"].as_str().unwrap());
    assert!(ask(world, "west", "app-west", &path, &[]) == made, "both have the same key");
    vec![hex::decode(made.1["key"].as_str().unwrap()).unwrap()]
}

#[test]
fn no_delivered_key_is_in_a_log_in_memory_or_in_a_file() {
    let mut world = World::provision();
    world.level = "trace";
    let names: toml::Table = "[alias]\nKP_east = \"app-east\"\nKP_west = \"app-west\"\n".parse().unwrap();
    for site in SITES {
        let names = names.clone();
        configure(&world, site, |config| drop(config.insert("skip".to_owned(), names.into())));
    }
    start(&mut world);
    let mut delivered = keys(&world, "east", "west");
    delivered.extend(keys(&world, "west", "east"));
    delivered.extend(stream(&world));
    delivered.extend(skip(&world));
    let traces = Traces::of(delivered);
    let found: Vec<_> = SITES.iter().filter_map(|site| Some((site, traces.in_memory(world.pid(site))?))).collect();
    for (site, places) in &found {
        eprintln!("{site} has a delivered key in its memory at\n{places}");
    }
    assert!(found.is_empty());
    let mut finer = false;
    for site in SITES {
        assert!(world.terminate(site).success());
        let log = world.log(site);
        finer |= log.contains("DEBUG") || log.contains("TRACE");
        assert_eq!(traces.find(log.as_bytes()), None, "{site} logs a delivered key");
    }
    assert!(finer, "more is logged than usually");
    assert_eq!(traces.in_files(world.dir.path()), None, "a file has a delivered key");
}

const SITES: [&str; 3] = ["east", "middle", "west"];
