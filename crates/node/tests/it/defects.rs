//! Defects that other key management entities have at ETSI GS QKD 014, each with the test that ours has it not.
//! The rest of them are in `limits` (silent clients) and `identity` (classic TLS).

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::raw::Https;
use crate::traces::Traces;
use crate::world::{World, wait_until};

/// A key as it was supplied: id and base64.
type Supplied = (String, String);

fn keys(answer: &Value) -> Vec<Supplied> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answer["keys"].as_array().unwrap().iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

fn order(client: &mut Https, slave: &str, body: &Value) -> (u16, Value) {
    let answer = client.request("POST", &format!("/api/v1/keys/{slave}/enc_keys"), Some(&body.to_string())).unwrap();
    (answer.status, answer.json())
}

/// Takes keys, asking again while sites find each other.
fn take(client: &mut Https, slave: &str, number: u32) -> Vec<Supplied> {
    let mut taken = Vec::new();
    wait_until(Duration::from_secs(60), "keys", || {
        let (status, answer) = order(client, slave, &json!({ "number": number }));
        if status == 200 {
            taken = keys(&answer);
        }
        status == 200
    });
    taken
}

fn collect(client: &mut Https, master: &str, ids: &[&str]) -> (u16, Value) {
    let path = format!("/api/v1/keys/{master}/dec_keys");
    let answer = client.request("POST", &path, Some(&json!({ "key_IDs": ids }).to_string())).unwrap();
    (answer.status, answer.json())
}

fn stock(client: &mut Https, slave: &str) -> u64 {
    let answer = client.request("GET", &format!("/api/v1/keys/{slave}/status"), None).unwrap();
    answer.json()["stored_key_count"].as_u64().unwrap()
}

/// Ends the quantum channels and waits until no more key is made, so that a stock only changes by what is taken.
fn freeze(world: &mut World, client: &mut Https, slave: &str) -> u64 {
    world.kill_9("fibre");
    let mut last = (u64::MAX, 0);
    wait_until(Duration::from_secs(60), "a stock at rest", || {
        let now = stock(client, slave);
        last = (now, if last.0 == now { last.1 + 1 } else { 0 });
        last.1 == 15
    });
    last.0
}

#[test]
fn key_ids_are_random_and_no_function_of_the_key() {
    let world = World::start();
    let mut east = Https::connect(&world, "east", "app-east");
    let mut supplied = take(&mut east, "app-west", 8);
    supplied.extend(take(&mut east, "app-west", 8));
    supplied.extend(take(&mut east, "vault-east", 64));
    let ids: BTreeSet<_> = supplied.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), supplied.len());
    for (id, key) in &supplied {
        assert_eq!((&id[14..15], id.len()), ("4", 36), "a random UUID: {id}");
        let bytes = hex::decode(id.replace('-', "")).unwrap();
        let key = STANDARD.decode(key).unwrap();
        let algorithms = [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256, &digest::SHA384, &digest::SHA512];
        let mut images: Vec<Vec<u8>> = algorithms.map(|hash| digest::digest(hash, &key).as_ref().to_vec()).into();
        images.push(key);
        for image in images {
            // In any order of bytes within words, as UUIDs are stored: no run of four bytes is the same.
            let backwards: Vec<u8> = image.iter().rev().copied().collect();
            for image in [image, backwards] {
                let shared = bytes.windows(4).any(|run| image.windows(4).any(|part| part == run));
                assert!(!shared, "{id} shows a part of its key or of a hash of it");
            }
        }
    }
}

#[test]
fn a_key_is_delivered_once_and_is_gone_from_disk_and_memory() {
    let world = World::start();
    let (mut east, mut west) = (Https::connect(&world, "east", "app-east"), Https::connect(&world, "west", "app-west"));
    let taken = take(&mut east, "app-west", 4);
    let bits = taken.iter().map(|(_, key)| STANDARD.decode(key).unwrap());
    let traces = Traces::of(bits);
    let waits = traces.in_memory(world.pid("west"));
    assert!(waits.is_some(), "the slave's site holds what waits for its slave: the search works");
    let ids: Vec<_> = taken.iter().map(|(id, _)| id.as_str()).collect();
    let (status, found) = collect(&mut west, "app-east", &ids);
    assert_eq!((status, keys(&found)), (200, taken.clone()));
    for site in ["east", "middle", "west"] {
        assert_eq!(traces.in_memory(world.pid(site)), None, "{site} holds a delivered key in its memory");
    }
    assert_eq!(traces.in_files(world.dir.path()), None);
    for ids in [&ids[..], &ids[..1]] {
        let (status, answer) = collect(&mut west, "app-east", ids);
        assert_eq!((status, &answer["message"]), (400, &json!("one or more keys specified are not found on KME")));
        assert_eq!(answer["details"][0]["reason"], "key_not_found");
    }
}

#[test]
fn a_restart_issues_no_key_again() {
    let mut world = World::start();
    let mut supplied = Vec::new();
    for round in 0..4 {
        supplied.extend(take(&mut Https::connect(&world, "east", "app-east"), "app-west", 4));
        if round % 2 == 0 {
            world.kill_9("east");
        } else {
            assert!(world.terminate("east").success());
        }
        world.spawn_site("east");
        world.wait_for_keys("east", "app-west", 4);
    }
    let bits: BTreeSet<_> = supplied.iter().map(|(_, key)| key).collect();
    assert_eq!(bits.len(), supplied.len(), "key bits were supplied twice");
}

#[test]
fn bad_requests_consume_nothing() {
    let mut world = World::start();
    let mut east = Https::connect(&world, "east", "app-east");
    let before = freeze(&mut world, &mut east, "app-west");
    let bad = [
        "{",
        "[1]",
        "7",
        "\"x\"",
        r#"{"number":"abc01"}"#,
        r#"{"number":"2"}"#,
        r#"{"number":0}"#,
        r#"{"number":-1}"#,
        r#"{"number":1.5}"#,
        r#"{"number":null}"#,
        r#"{"number":129}"#,
        r#"{"number":4294967296}"#,
        r#"{"number":1e300}"#,
        r#"{"number":1,"number":1}"#,
        r#"{"size":257}"#,
        r#"{"size":0}"#,
        r#"{"size":-8}"#,
        r#"{"size":"256"}"#,
        r#"{"size":256.5}"#,
        r#"{"size":56}"#,
        r#"{"size":65544}"#,
        r#"{"size":65536,"number":9}"#,
        r#"{"additional_slave_SAE_IDs":"app-middle"}"#,
        r#"{"additional_slave_SAE_IDs":["app-west"]}"#,
        r#"{"additional_slave_SAE_IDs":["app-middle","app-middle"]}"#,
        r#"{"additional_slave_SAE_IDs":["app-east"]}"#,
        r#"{"additional_slave_SAE_IDs":[""]}"#,
        r#"{"additional_slave_SAE_IDs":["nobody"]}"#,
        r#"{"extension_mandatory":[{"abc_route_type":"direct"}]}"#,
        r#"{"extension_mandatory":[{"qurrent_route":7}]}"#,
        r#"{"extension_mandatory":"x"}"#,
        r#"{"extension_optional":"x"}"#,
    ];
    for body in bad {
        let path = "/api/v1/keys/app-west/enc_keys";
        let answer = east.request("POST", path, Some(body)).unwrap();
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.json()["message"].is_string());
    }
    let path = "/api/v1/keys/app-west/enc_keys?size=1";
    assert_eq!(east.request("GET", path, None).unwrap().status, 400);
    assert_eq!(east.request("HEAD", "/api/v1/keys/app-west/enc_keys", None).unwrap().status, 405);
    for sae in ["nobody", "app-east", "%00", "%20"] {
        let answer = east.request("GET", &format!("/api/v1/keys/{sae}/enc_keys"), None).unwrap();
        assert_eq!(answer.status, 400, "{sae}");
    }
    assert_eq!(stock(&mut east, "app-west"), before);

    // More than there is: refused whole, and as something that time may heal.
    let (status, answer) = order(&mut east, "app-west", &json!({ "number": 128, "size": 4096 }));
    assert_eq!((status, &answer["details"][0]["reason"]), (503, &json!("not_enough_key")));
    assert_eq!(stock(&mut east, "app-west"), before);
    // And what is asked for rightly is there, down to the last key.
    let (status, answer) = order(&mut east, "app-west", &json!({ "number": 2 }));
    assert_eq!((status, keys(&answer).len(), stock(&mut east, "app-west")), (200, 2, before - 2));
}

#[test]
fn a_dead_peer_consumes_nothing() {
    let mut world = World::start();
    let mut east = Https::connect(&world, "east", "app-east");
    let before = freeze(&mut world, &mut east, "app-west");
    world.kill_9("west");
    for _ in 0..100 {
        let answer = east.request("GET", "/api/v1/keys/app-west/enc_keys", None).unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    world.spawn_site("west");
    let taken = take(&mut east, "app-west", 1);
    // The first request may have been on its way when the west died; its key stays bound to the same pair.
    wait_until(Duration::from_secs(90), "the stock as it was", || stock(&mut east, "app-west") + 2 >= before);
    let mut west = Https::connect(&world, "west", "app-west");
    let (status, found) = collect(&mut west, "app-east", &[&taken[0].0]);
    assert_eq!((status, keys(&found)), (200, taken));
}

#[test]
fn orders_in_a_row_are_all_kept_and_seen_by_their_slave_alone() {
    let world = World::start();
    let mut east = Https::connect(&world, "east", "app-east");
    let mut west = Https::connect(&world, "west", "app-west");
    let (first, second) = (take(&mut east, "app-west", 1), take(&mut east, "app-west", 1));
    let other = take(&mut east, "vault-west", 1);
    for taken in [&second, &first] {
        let (status, found) = collect(&mut west, "app-east", &[&taken[0].0]);
        assert_eq!((status, &keys(&found)), (200, taken));
    }
    let (status, answer) = collect(&mut west, "app-east", &[&other[0].0]);
    assert_eq!((status, &answer["details"][0]["reason"]), (401, &json!("not_authorised")));
    // One key that is another's spoils the whole request, and nothing of it is consumed.
    let mine = take(&mut east, "app-west", 1);
    assert_eq!(collect(&mut west, "app-east", &[&mine[0].0, &other[0].0]).0, 401);
    assert_eq!(collect(&mut west, "app-east", &[&mine[0].0, "6f1d3b0a-7c2e-4f59-9a56-2b1c0d3e4f50"]).0, 400);
    assert_eq!(keys(&collect(&mut west, "app-east", &[&mine[0].0]).1), mine);
    let (status, found) = collect(&mut Https::connect(&world, "west", "vault-west"), "app-east", &[&other[0].0]);
    assert_eq!((status, keys(&found)), (200, other));
}

#[test]
fn one_site_cannot_see_another_saes_keys() {
    let world = World::start();
    let taken = take(&mut Https::connect(&world, "east", "app-east"), "app-west", 1);
    let id = taken[0].0.as_str();
    // The relay's SAE, the master itself, and another SAE of the slave's site: with the right and with a wrong master.
    for (site, sae) in [("middle", "app-middle"), ("east", "app-east"), ("east", "vault-east"), ("west", "vault-west")]
    {
        for master in ["app-east", "app-middle"] {
            let (status, answer) = collect(&mut Https::connect(&world, site, sae), master, &[id]);
            assert!(matches!(status, 400 | 401), "{site} {sae} {master}: {status}");
            assert!(answer["keys"].is_null());
        }
    }
    // An SAE of another site is nobody here.
    let stranger = crate::raw::tls(&world.sae("middle", "app-middle"));
    let mut stranger = Https::open(world.listen("west", "kme"), stranger).unwrap();
    assert_eq!(collect(&mut stranger, "app-east", &[id]).0, 401);
    assert_eq!(stranger.request("GET", "/api/v1/keys/app-east/status", None).unwrap().status, 401);
    // There is no way to list what is stored.
    for path in ["/api/v1/kme/key-pool", "/api/v1/keys/app-east/keys", "/api/v1/keys", "/keys", "/metrics"] {
        assert_eq!(stranger.request("GET", path, None).unwrap().status, 404, "{path}");
    }
    let (status, found) = collect(&mut Https::connect(&world, "west", "app-west"), "app-east", &[id]);
    assert_eq!((status, keys(&found)), (200, taken));
}

#[test]
fn sixteen_clients_at_once_get_distinct_keys_and_no_dead_lock() {
    let world = World::start();
    world.wait_for_keys("east", "app-west", 64);
    world.wait_for_keys("west", "app-east", 64);
    let run = |here: &'static str, there: &'static str| {
        let (mine, peer) = (format!("app-{here}"), format!("app-{there}"));
        let mut client = Https::connect(&world, here, &mine);
        let mut slave = Https::connect(&world, there, &peer);
        let mut taken = Vec::new();
        for _ in 0..8 {
            let keys_of_one = take(&mut client, &peer, 1);
            let (status, found) = collect(&mut slave, &mine, &[&keys_of_one[0].0]);
            assert_eq!((status, &keys(&found)), (200, &keys_of_one));
            taken.extend(keys_of_one);
        }
        taken
    };
    let all: Vec<Supplied> = std::thread::scope(|scope| {
        let run = &run;
        let tasks: Vec<_> = (0..16)
            .map(|n| scope.spawn(move || if n % 2 == 0 { run("east", "west") } else { run("west", "east") }))
            .collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap()).collect()
    });
    assert_eq!(all.len(), 16 * 8);
    assert_eq!(all.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), all.len(), "an id came twice");
    assert_eq!(all.iter().map(|(_, key)| key).collect::<BTreeSet<_>>().len(), all.len(), "bits came twice");
}
