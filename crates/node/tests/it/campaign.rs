//! A hundred thousand requests that are malformed or not allowed, over kept connections: none is a server's fault,
//! none takes a key, and the site does not grow.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::raw::{Answer, Https};
use crate::world::{World, wait_until};

const REQUESTS: usize = 100_000;
const CONNECTIONS: usize = 6;
/// Rare, because the site puts each into its audit log, durably.
const ONE_IN: u64 = 40;

/// A small generator with a seed: SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn text(&mut self, most: u64) -> String {
        let alphabet: Vec<char> = "abc019-_.~ %/?#\"\\{}[]:,+&=\u{e9}\u{4e2d}\u{1f511}".chars().collect();
        (0..self.roll(most) + 1).map(|_| *self.pick(&alphabet)).collect()
    }
}

/// One bad request, as bytes. `not_mine` are keys of other SAEs.
fn bad(dice: &mut Dice, not_mine: &[String]) -> Vec<u8> {
    let slave = dice.pick(&["vault-east", "app-west", "vault-west"]).to_string();
    let post = |path: String, body: String| {
        format!("POST {path} HTTP/1.1\r\nhost: kme\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let enc = |slave: &str| format!("/api/v1/keys/{slave}/enc_keys");
    let request = match dice.roll(10) {
        0 => post(enc(&slave), number(dice)),
        1 => post(enc(&slave), extension(dice)),
        2 => {
            let mut body = br#"{"number":1,"size":256,"extension_optional":[{"abc_x":{"y":[1,2]}}]}"#.to_vec();
            // A brace or quote less, or a byte that no JSON has: never a right request.
            for _ in 0..=dice.roll(3) {
                let at = usize::try_from(dice.roll(body.len() as u64 + 1)).unwrap();
                body.truncate(at);
            }
            body.push(*dice.pick(b"{[\"\\\xff\x01"));
            let mut bytes = post(enc(&slave), String::new()).into_bytes();
            let head = format!("content-length: {}", body.len());
            let text = String::from_utf8(bytes).unwrap().replace("content-length: 0", &head);
            bytes = text.into_bytes();
            bytes.extend_from_slice(&body);
            return bytes;
        }
        3 => post(enc(&encode(&dice.text(160))), "{}".to_owned()),
        4 => post(format!("/api/v1/keys/{slave}/dec_keys"), ids(dice, not_mine)),
        5 => {
            let query = encode(&dice.text(20));
            let name = dice.pick(&["number", "size", "key_ID", "x"]);
            format!("GET {}?{name}=x{query} HTTP/1.1\r\nhost: kme\r\n\r\n", enc(&slave))
        }
        6 => {
            let method = dice.pick(&["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]);
            format!("{method} {} HTTP/1.1\r\nhost: kme\r\n\r\n", enc(&slave))
        }
        7 => {
            let rest = encode(&dice.text(60));
            format!("GET /{rest} HTTP/1.1\r\nhost: kme\r\n\r\n")
        }
        8 => post(enc(&slave), additional(dice)),
        _ if dice.roll(40) == 0 => post(enc(&slave), format!("{{\"x\":\"{}\"}}", "y".repeat(300_000))),
        _ if dice.roll(10) == 0 => format!("GET / HTTP/1.1\r\nhost: kme\r\nx: {}\r\n\r\n", "z".repeat(70_000)),
        _ if dice.roll(10) == 0 => format!("{} \u{1}\r\n\r\n", dice.text(30)),
        _ => post("/qurrent/v1/events".to_owned(), dice.text(80)),
    };
    request.into_bytes()
}

fn number(dice: &mut Dice) -> String {
    let name = dice.pick(&["number", "size"]);
    let value = dice.pick(&[
        "0",
        "-1",
        "-256",
        "1.5",
        "\"1\"",
        "null",
        "true",
        "[]",
        "{}",
        "4294967296",
        "1e40",
        "257",
        "9999999",
    ]);
    if (*name, *value) == ("number", "257") {
        return "{\"number\":257,\"size\":256}".to_owned();
    }
    format!("{{\"{name}\":{value}}}")
}

fn extension(dice: &mut Dice) -> String {
    let unknown = format!("abc_{}", dice.roll(1000));
    let (name, value) = dice
        .pick(&[
            (unknown.as_str(), json!(1)),
            ("qurrent_route", json!("scenic")),
            ("qurrent_paths", json!(0)),
            ("qurrent_wait", json!(-1)),
            ("qurrent_priority", json!(1)),
            ("qurrent_max_age", json!("old")),
        ])
        .clone();
    json!({ "extension_mandatory": [{ name: value }] }).to_string()
}

fn additional(dice: &mut Dice) -> String {
    let list: Value = dice
        .pick(&[json!("x"), json!([1]), json!([""]), json!(["a", "a"]), json!([" "]), json!([null]), json!(["\u{0}"])])
        .clone();
    json!({ "additional_slave_SAE_IDs": list }).to_string()
}

fn ids(dice: &mut Dice, not_mine: &[String]) -> String {
    if dice.roll(ONE_IN) == 0 {
        return json!({ "key_IDs": [dice.pick(not_mine)] }).to_string();
    }
    if dice.roll(ONE_IN) == 0 {
        let id = format!("{:08x}-7c2e-4f59-9a56-2b1c0d3e4f50", dice.roll(1 << 32));
        return json!({ "key_IDs": [{ "key_ID": id }] }).to_string();
    }
    let id = dice.pick(not_mine).clone();
    let list = dice
        .pick(&[
            json!([]),
            json!([7]),
            json!([{}]),
            json!([[id]]),
            json!([id, id]),
            json!([{ "key_id": id }]),
            json!(id),
            json!(["x"]),
        ])
        .clone();
    json!({ "key_IDs": list }).to_string()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn resident_kib(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.pid("east"))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn stock(client: &mut Https) -> u64 {
    let answer = client.request("GET", "/api/v1/keys/app-west/status", None).unwrap();
    answer.json()["stored_key_count"].as_u64().unwrap()
}

/// Sends bad requests over one connection, which is opened again when the site closes it; counts the answers.
fn attack(world: &World, seed: u64, requests: usize, not_mine: &[String]) -> BTreeMap<u16, usize> {
    let mut dice = Dice(seed);
    let mut counts = BTreeMap::new();
    let connect = || Https::connect(world, "east", "app-east");
    let mut client = connect();
    let mut reopened = 0;
    for nth in 0..requests {
        let request = bad(&mut dice, not_mine);
        let answered: std::io::Result<Answer> = client.send(&request).and_then(|()| client.answer(false));
        let Ok(answer) = answered else {
            // The site may close without an answer when what came before the body was enough to refuse.
            reopened += 1;
            client = connect();
            continue;
        };
        let said = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        assert!((400..500).contains(&answer.status), "seed {seed}, request {nth}: {answer:?}\n{said}");
        assert!(answer.json()["message"].is_string(), "seed {seed}, request {nth}: {answer:?}\n{said}");
        *counts.entry(answer.status).or_insert(0) += 1;
        if answer.header("connection").is_some_and(|value| value == "close") || answer.status == 413 {
            client = connect();
        }
    }
    assert!(reopened * 20 < requests, "{reopened} of {requests} without an answer");
    counts
}

#[test]
fn a_hundred_thousand_bad_requests_take_no_key_and_no_memory_slow_() {
    let mut world = World::start();
    let mut client = Https::connect(&world, "east", "vault-east");
    let ids = |taken: &Value| -> Vec<String> {
        taken["keys"].as_array().unwrap().iter().map(|key| key["key_ID"].as_str().unwrap().to_owned()).collect()
    };
    let mut take = |slave: &str| {
        let path = format!("/api/v1/keys/{slave}/enc_keys");
        client.request("POST", &path, Some(r#"{"number":4}"#)).unwrap().json()
    };
    // Keys that wait for another SAE: one of the other site, and one of this.
    let (taken, here) = (take("vault-west"), take("gateway-dispatch"));
    let waiting = ids(&taken);
    let not_mine: Vec<String> = waiting.iter().cloned().chain(ids(&here)).collect();
    // Without quantum channels no key is made, and the stock changes only by what is taken.
    world.kill_9("fibre");
    let mut last = (0, 0);
    let mut client = Https::connect(&world, "east", "app-east");
    wait_until(Duration::from_secs(60), "a stock at rest", || {
        let now = stock(&mut client);
        last = (now, if last.0 == now { last.1 + 1 } else { 0 });
        last.1 == 15
    });
    let run = |seed: u64, requests: usize| {
        let (world, not_mine) = (&world, &not_mine);
        std::thread::scope(|scope| {
            let each = requests / CONNECTIONS;
            let attacks: Vec<_> = (0..CONNECTIONS as u64)
                .map(|n| scope.spawn(move || attack(world, seed * 1000 + n, each, not_mine)))
                .collect();
            let mut all = BTreeMap::new();
            for counts in attacks.into_iter().map(|attack| attack.join().unwrap()) {
                counts.into_iter().for_each(|(status, count)| *all.entry(status).or_insert(0) += count);
            }
            all
        })
    };
    run(1, REQUESTS / 5);
    let before = resident_kib(&world);
    let counts = run(2, REQUESTS);
    let after = resident_kib(&world);
    for status in [400, 401, 404, 405, 413, 431] {
        assert!(counts.contains_key(&status), "no {status} among {counts:?}");
    }
    assert!(after * 10 <= before * 11, "the site grew from {before} to {after} KiB: {counts:?}");
    let mut client = Https::connect(&world, "east", "app-east");
    assert_eq!(stock(&mut client), last.0, "{counts:?}");
    // The keys that were asked for by the wrong SAE are still there for the right one.
    let body = json!({ "key_IDs": waiting }).to_string();
    let path = "/api/v1/keys/vault-east/dec_keys";
    let found = Https::connect(&world, "west", "vault-west").request("POST", path, Some(&body)).unwrap();
    assert_eq!((found.status, &found.json()["keys"][0]["key"]), (200, &taken["keys"][0]["key"]));
}
