//! kill -9 of site processes under way: pools agree afterwards, no key is issued twice, service is back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, run, str_of, wait_until};

/// Takes keys in the east; gives ids and bits of those that were supplied.
fn take(world: &World, count: usize) -> Vec<(String, String)> {
    let sae = world.sae("east", "app-east").join("sae.toml");
    let number = count.to_string();
    let output = run(&["key", "--sae", str_of(&sae), "--json", "get", "app-west", "--number", &number]);
    keys(&output.stdout)
}

/// As [`take`], asking again while sites find each other after a restart, as a 503 tells a client to.
fn take_when_up(world: &World, count: usize) -> Vec<(String, String)> {
    let mut taken = Vec::new();
    wait_until(Duration::from_secs(30), "keys for the west", || {
        taken = take(world, count);
        taken.len() == count
    });
    taken
}

/// Collects keys in the west by id.
fn collect(world: &World, ids: &[&str]) -> Vec<(String, String)> {
    let sae = world.sae("west", "app-west").join("sae.toml");
    let mut args = vec!["key", "--sae", str_of(&sae), "--json", "fetch", "app-east"];
    args.extend(ids);
    keys(&run(&args).stdout)
}

fn keys(printed: &[u8]) -> Vec<(String, String)> {
    let parsed: Value = serde_json::from_slice(printed).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = parsed["keys"].as_array().cloned().unwrap_or_default();
    list.iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

#[test]
fn kill_9_of_every_site_loses_nothing_supplied_and_repeats_nothing() {
    let mut world = World::start();
    let mut supplied: Vec<(String, String)> = Vec::new();
    for victim in ["east", "middle", "west", "east", "west"] {
        let waiting = take_when_up(&world, 2);
        world.kill_9(victim);
        // What dies with the process is refused or fails; nothing of it may come back later.
        if victim != "east" {
            supplied.extend(take(&world, 1));
        }
        world.spawn_site(victim);
        world.wait_for_keys("east", "app-west", 8);
        world.wait_for_keys("west", "app-east", 8);
        supplied.extend(waiting);
        supplied.extend(take_when_up(&world, 2));
    }
    let ids: BTreeSet<_> = supplied.iter().map(|(id, _)| id.clone()).collect();
    let bits: BTreeSet<_> = supplied.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(ids.len(), supplied.len(), "an id was supplied twice");
    assert_eq!(bits.len(), supplied.len(), "key bits were supplied twice");
    for (id, key) in &supplied {
        let found = collect(&world, &[id]);
        assert_eq!(found, [(id.clone(), key.clone())], "the west does not hold {id} as supplied");
        assert!(collect(&world, &[id]).is_empty(), "{id} was delivered twice");
    }
}

#[test]
fn sigterm_stops_every_process_cleanly_and_the_network_resumes() {
    let mut world = World::start();
    let before = take_when_up(&world, 1);
    for name in ["east", "middle", "west", "fibre"] {
        let status = world.terminate(name);
        assert!(status.success(), "{name}: {status}\n{}", world.log(name));
    }
    world.spawn("fibre", &["fibre", "--config", &world.path("fibre.toml").display().to_string()]);
    for site in ["east", "middle", "west"] {
        world.spawn_site(site);
    }
    world.wait_for_keys("east", "app-west", 8);
    let (id, key) = before.first().unwrap();
    assert_eq!(collect(&world, &[id]), [(id.clone(), key.clone())], "a supplied key must survive a restart");
}
