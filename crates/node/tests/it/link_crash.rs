//! kill -9 of either end of a link, two hundred times, with a watcher on the wire.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::wire::{TagSpent, tag_spent};
use serde_json::Value;

use crate::world::{World, ok, run, str_of, wait_until};

/// Every tag that was seen on the wire, with its message.
#[derive(Default)]
struct Seen {
    tags: BTreeMap<TagSpent, Vec<u8>>,
    /// Pads that hid two different messages.
    twice: Vec<TagSpent>,
    /// Messages whose tag was in the direction that its stream is not for.
    reflected: usize,
}

/// A wire between Bob's and Alice's process that notes every tag.
fn watch(alice: SocketAddr) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let all = seen.clone();
    std::thread::spawn(move || {
        for bob in listener.incoming().flatten() {
            let Ok(alice) = TcpStream::connect(alice) else { continue };
            for (from, to, by_alice) in
                [(bob.try_clone(), alice.try_clone(), false), (alice.try_clone(), bob.try_clone(), true)]
            {
                let (Ok(from), Ok(to), seen) = (from, to, all.clone()) else { continue };
                std::thread::spawn(move || carry(from, to, by_alice, &seen));
            }
        }
    });
    (address, seen)
}

fn carry(mut from: TcpStream, mut to: TcpStream, by_alice: bool, seen: &Mutex<Seen>) {
    let mut forward = || -> std::io::Result<()> {
        loop {
            let mut len = [0; 4];
            from.read_exact(&mut len)?;
            let mut wire = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
            from.read_exact(&mut wire)?;
            if let Some(tag) = tag_spent(&wire) {
                let mut seen = seen.lock().unwrap();
                seen.reflected += usize::from(tag.by_alice != by_alice);
                let before = seen.tags.insert(tag, wire.clone());
                if before.is_some_and(|before| before != wire) {
                    seen.twice.push(tag);
                }
            }
            to.write_all(&[&len[..], &wire].concat())?;
        }
    };
    let _ended = forward();
    let _closed = to.shutdown(Shutdown::Both);
}

/// Numbers of the blocks that a site's log says were filed.
fn filed(world: &World, site: &str) -> Vec<u64> {
    let printed = ok(&["audit", "log", "--config", &world.node(site), "--last", "1000000", "--json"]);
    let entries: Value = serde_json::from_str(&printed).unwrap();
    let mut blocks: Vec<u64> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["code"] == "BLOCK_FILED")
        .map(|entry| entry["fields"]["block"].as_u64().unwrap())
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

#[test]
fn kill_9_of_either_end_two_hundred_times_slow_() {
    let mut world = World::provision_file("pair.toml", 60);
    let config = world.node("west");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    let alice: SocketAddr = table["link"][0]["classical"].as_str().unwrap().parse().unwrap();
    let (wire, seen) = watch(alice);
    table["link"][0]["classical"] = wire.to_string().into();
    std::fs::write(&config, toml::to_string(&table).unwrap()).unwrap();
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
    world.spawn_site("east");
    world.spawn_site("west");
    world.wait_for_keys("east", "app-west", 1);

    // Pauses from a fixed seed (Numerical Recipes' generator): every phase of a block is hit.
    let mut state = 12_345_u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for round in 0..200 {
        std::thread::park_timeout(Duration::from_millis(u64::from(60 + draw(500))));
        let victim = if draw(2) == 0 { "east" } else { "west" };
        world.kill_9(victim);
        world.spawn_site(victim);
        if round % 25 == 24 {
            let tags = seen.lock().unwrap().tags.len();
            wait_until(Duration::from_secs(60), "the link makes key again by itself", || {
                seen.lock().unwrap().tags.len() >= tags + 6
            });
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.tags.len() > 50, "{} tags seen", seen.tags.len());
    assert!(seen.twice.is_empty(), "pads hid two messages: {:?}", seen.twice);
    assert_eq!(seen.reflected, 0);
    drop(seen);

    world.wait_for_keys("east", "app-west", 8);
    world.wait_for_keys("west", "app-east", 8);
    same_keys(&world, "east", "west");
    same_keys(&world, "west", "east");
    // What is filed at one end is filed at the other as soon as both had time to.
    wait_until(Duration::from_secs(60), "both ends filed the same blocks", || {
        let (east, west) = (filed(&world, "east"), filed(&world, "west"));
        let last = east.last().min(west.last()).copied().unwrap_or_default();
        let until = |blocks: &[u64]| blocks.iter().filter(|block| **block < last).copied().collect::<Vec<_>>();
        last > 10 && until(&east) == until(&west)
    });
}

/// Keys taken at one site are the same at the other.
fn same_keys(world: &World, master: &str, slave: &str) {
    let sae = |site: &str| world.sae(site, &format!("app-{site}")).join("sae.toml");
    let to = format!("app-{slave}");
    let from = format!("app-{master}");
    let get = run(&["key", "--sae", str_of(&sae(master)), "--json", "get", &to, "--number", "4"]);
    let taken: Value = serde_json::from_slice(&get.stdout).unwrap();
    for key in taken["keys"].as_array().unwrap() {
        let id = key["key_ID"].as_str().unwrap();
        let fetch = run(&["key", "--sae", str_of(&sae(slave)), "--json", "fetch", &from, id]);
        let fetched: Value = serde_json::from_slice(&fetch.stdout).unwrap();
        assert_eq!(fetched["keys"][0]["key"], key["key"], "{id}");
    }
}
