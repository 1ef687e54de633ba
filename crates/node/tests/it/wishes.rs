//! What a request may ask for, over HTTPS at four sites in a ring: further slaves at other sites, ways, age, waiting.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::raw::{Answer, Https};
use crate::world::{World, str_of, wait_until};

const SITES: [&str; 4] = ["north", "east", "south", "west"];

fn start() -> World {
    let mut world = World::provision_file("ring.toml", 60);
    light_on(&mut world);
    SITES.iter().for_each(|site| world.spawn_site(site));
    for slave in ["app-east", "app-south", "app-west"] {
        world.wait_for_keys("north", slave, 16);
    }
    world
}

fn light_on(world: &mut World) {
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
}

fn ask(world: &World, site: &str, path: &str, body: &Value) -> Answer {
    let mut client = Https::connect(world, site, &format!("app-{site}"));
    client.request("POST", path, Some(&body.to_string())).unwrap()
}

/// Asks at north for keys to share with south.
fn order(world: &World, body: &Value) -> Answer {
    ask(world, "north", "/api/v1/keys/app-south/enc_keys", body)
}

/// As [`order`], asking again while the answer is 503.
fn order_patiently(world: &World, body: &Value) -> Value {
    let mut answer = None;
    wait_until(Duration::from_secs(90), &format!("keys for {body}"), || {
        let now = order(world, body);
        assert!([200, 503].contains(&now.status), "{body}: {now:?}");
        let done = now.status == 200;
        answer = Some(now.json());
        done
    });
    answer.unwrap()
}

fn collect(world: &World, site: &str, key: &Value) -> (u16, Value) {
    let answer = ask(world, site, "/api/v1/keys/app-north/dec_keys", &json!({ "key_IDs": [key["key_ID"]] }));
    (answer.status, answer.json())
}

fn stock(world: &World, slave: &str) -> u64 {
    let path = format!("/api/v1/keys/{slave}/status");
    let answer = Https::connect(world, "north", "app-north").request("GET", &path, None).unwrap();
    answer.json()["stored_key_count"].as_u64().unwrap()
}

/// Ends the quantum channels and waits until no more key is made.
fn freeze(world: &mut World) {
    world.kill_9("fibre");
    let mut last = (u64::MAX, 0);
    wait_until(Duration::from_secs(60), "a stock at rest", || {
        let now = stock(world, "app-south");
        last = (now, if last.0 == now { last.1 + 1 } else { 0 });
        last.1 == 15
    });
}

#[test]
fn keys_come_as_they_were_asked_for() {
    let mut world = start();
    two_ways(&world);
    one_key_for_three_sites(&mut world);
    young_keys_only(&mut world);
    waiting_for_key(&mut world);
}

/// Combined from both ways around the ring, and the answer says so at both ends.
fn two_ways(world: &World) {
    let combined = json!({ "number": 2, "extension_mandatory": [{ "qurrent_paths": 2 }] });
    // Sites that have just started have not heard of every link yet.
    wait_until(Duration::from_secs(60), "both ways are known", || order(world, &combined).status != 400);
    let taken = order_patiently(world, &combined);
    for key in taken["keys"].as_array().unwrap() {
        let origin = &key["key_extension"]["qurrent_origin"];
        let ways: BTreeSet<String> = origin["paths"].as_array().unwrap().iter().map(Value::to_string).collect();
        let around = [json!(["north", "east", "south"]), json!(["north", "west", "south"])];
        assert_eq!(ways, around.iter().map(Value::to_string).collect(), "{origin}");
        assert_eq!((&origin["combined"], &origin["hops"]), (&json!(2), &json!(1)), "{origin}");
        let (status, found) = collect(world, "south", key);
        assert_eq!((status, &found["keys"][0]["key"]), (200, &key["key"]));
        assert_eq!(found["keys"][0]["key_extension"]["qurrent_origin"]["combined"], 2);
    }
    // What no way can meet is refused for good, what may come later is not.
    for wish in [json!({ "qurrent_paths": 3 }), json!({ "qurrent_route": "direct" }), json!({ "qurrent_max_hops": 0 })]
    {
        let answer = order(world, &json!({ "extension_mandatory": [wish] }));
        assert_eq!((answer.status, answer.reason().as_str()), (400, "extension_unmet"), "{wish}");
        let preferred = order_patiently(world, &json!({ "extension_optional": [wish] }));
        assert_eq!(preferred["keys"].as_array().unwrap().len(), 1, "{wish}");
    }
    let direct = json!({ "extension_mandatory": [{ "qurrent_route": "direct" }] });
    let near = ask(world, "north", "/api/v1/keys/app-east/enc_keys", &direct);
    assert_eq!(near.status, 200, "{near:?}");
    assert_eq!(near.json()["keys"][0]["key_extension"]["qurrent_origin"]["hops"], 0);
}

/// All sites have it or nobody has.
fn one_key_for_three_sites(world: &mut World) {
    let all = json!({ "number": 2, "size": 512, "additional_slave_SAE_IDs": ["app-east", "app-west"] });
    let taken = order_patiently(world, &all);
    assert_eq!(taken["keys"].as_array().unwrap().len(), 2);
    for key in taken["keys"].as_array().unwrap() {
        for site in ["south", "east", "west"] {
            let (status, found) = collect(world, site, key);
            assert_eq!((status, &found["keys"][0]["key"]), (200, &key["key"]), "{site}");
            assert_eq!(collect(world, site, key).0, 400, "each collects it once");
        }
    }
    world.kill_9("west");
    for _ in 0..3 {
        let answer = order(world, &all);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some() && answer.json()["keys"].is_null());
    }
    world.spawn_site("west");
    let taken = order_patiently(world, &all);
    for key in taken["keys"].as_array().unwrap() {
        for site in ["west", "south", "east"] {
            assert_eq!(collect(world, site, key).1["keys"][0]["key"], key["key"], "{site}");
        }
    }
}

/// No part of a key is older than was asked.
fn young_keys_only(world: &mut World) {
    let young = |ms: u64| json!({ "extension_mandatory": [{ "qurrent_max_age": ms }] });
    let taken = order_patiently(world, &young(30_000));
    let age = taken["keys"][0]["key_extension"]["qurrent_origin"]["age_ms"].as_u64().unwrap();
    assert!(age <= 30_000, "{age} ms");
    freeze(world);
    let before = stock(world, "app-south");
    assert!(before > 0);
    let answer = order(world, &young(1));
    assert_eq!((answer.status, answer.reason().as_str()), (503, "not_enough_key"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(stock(world, "app-south"), before, "a refused request takes nothing");
    assert_eq!(order(world, &young(3_600_000)).status, 200);
}

/// With the light off: until the deadline, then 503. With the light on again: until there is key.
fn waiting_for_key(world: &mut World) {
    let wait = |ms: u64| json!({ "extension_mandatory": [{ "qurrent_wait": ms }] });
    // What the links still have is relayed on: until that is used up, waiting helps.
    let mut in_vain = None;
    wait_until(Duration::from_secs(60), "a request that waits in vain", || {
        let left = stock(world, "app-south");
        if left > 0 {
            order(world, &json!({ "number": left.min(64) }));
            return false;
        }
        let begun = Instant::now();
        let answer = order(world, &wait(1_500));
        in_vain = (answer.status != 200).then(|| (answer, begun.elapsed()));
        in_vain.is_some()
    });
    let (answer, waited) = in_vain.unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (503, "not_enough_key"), "{answer:?}");
    assert!(answer.header("retry-after").and_then(|s| s.parse::<u64>().ok()).is_some_and(|seconds| seconds > 0));
    assert!(waited < Duration::from_secs(20), "{waited:?}");

    let mut client = Https::connect(world, "north", "app-north");
    let body = wait(60_000).to_string();
    let waiting =
        std::thread::spawn(move || client.request("POST", "/api/v1/keys/app-south/enc_keys", Some(&body)).unwrap());
    light_on(world);
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let key = &answer.json()["keys"][0];
    let (status, found) = collect(world, "south", key);
    assert_eq!((status, &found["keys"][0]["key"]), (200, &key["key"]));
}
