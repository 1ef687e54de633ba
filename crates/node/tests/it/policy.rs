//! What SAEs may draw: quotas, classes with reserves, and policies that change while a site runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::raw::{Answer, Https, tls};
use crate::world::{World, json, ok_of, str_of, wait_until};

fn take(client: &mut Https, slave: &str, number: u32, more: &str) -> Answer {
    let body = format!("{{\"number\":{number}{more}}}");
    client.request("POST", &format!("/api/v1/keys/{slave}/enc_keys"), Some(&body)).unwrap()
}

/// Puts a policy of an SAE into a site's configuration.
fn policy(world: &World, site: &str, sae: &str, policy: &str) {
    let policy: toml::Table = policy.parse().unwrap();
    world.configure(site, |config| {
        config["policy"]["sae"].as_table_mut().unwrap().insert(sae.to_owned(), policy.into());
    });
}

/// Asks a site to read its files again.
fn hang_up(world: &World, site: &str) {
    ok_of(Command::new("kill").args(["-HUP", &world.pid(site).to_string()]));
}

#[test]
fn who_drew_its_share_is_told_when_to_ask_again_and_others_are_not_hurt() {
    let mut world = World::provision();
    policy(&world, "east", "app-east", "class = 'telemetry'\nrate = { keys_per_second = 0.02, burst = 10 }");
    world.start_alone("east");
    let mut app = Https::connect(&world, "east", "app-east");
    assert_eq!(take(&mut app, "vault-east", 8, "").status, 200);
    for number in [3, 9, 3] {
        let refused = take(&mut app, "vault-east", number, "");
        assert_eq!((refused.status, refused.reason().as_str()), (503, "over_quota"), "{refused:?}");
        assert_eq!(refused.header("content-type").as_deref(), Some("application/json"));
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(refused.json()["details"][0]["retry_after_s"].as_u64(), Some(wait), "{refused:?}");
        let expected = if number == 9 { 300..=350 } else { 1..=50 };
        assert!(expected.contains(&wait), "{number} keys: {wait} s");
    }
    // Nothing was consumed: what was left can be drawn.
    assert_eq!(take(&mut app, "vault-east", 2, "").status, 200);
    let never = take(&mut app, "vault-east", 11, "");
    assert_eq!((never.status, never.reason().as_str()), (400, "out_of_range"), "{never:?}");
    // The same limit at the other interfaces of the site, and nobody else's.
    let skip = app.request("GET", "/key?remoteSystemID=vault-east", None).unwrap();
    assert_eq!(skip.status, 503, "{skip:?}");
    assert!(skip.header("retry-after").is_some());
    let mut vault = Https::connect(&world, "east", "vault-east");
    (0..20).for_each(|_| assert_eq!(take(&mut vault, "app-east", 100, "").status, 200));

    // Another limit, without a restart and without a signal; what was drawn stays drawn.
    policy(&world, "east", "app-east", "class = 'telemetry'\nrate = { keys_per_second = 0.02, burst = 30 }");
    wait_until(Duration::from_secs(20), "the other limit", || take(&mut app, "vault-east", 20, "").status == 200);
    assert_eq!(take(&mut app, "vault-east", 10, "").status, 503);
    let entries = json(&["audit", "log", "--json", "--config", &world.node("east"), "--last", "1000"]);
    assert!(entries.to_string().contains("POLICIES_CHANGED"), "{entries}");

    // What an operator sees of it.
    wait_until(Duration::from_secs(20), "metrics", || {
        let text = metrics(&world, "east");
        let count = |line: &str| text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<u64>().ok());
        let refusals = |interface: &str, reason: &str| {
            count(&format!("qurrent_refusals_total{{site=\"east\",interface=\"{interface}\",reason=\"{reason}\"}}"))
        };
        refusals("etsi014", "over_quota").is_some_and(|times| times >= 4)
            && refusals("skip", "over_quota") == Some(1)
            && refusals("etsi014", "out_of_range").is_some_and(|times| times >= 1)
            && count("qurrent_tls_handshakes_total{site=\"east\",ended=\"accepted\"}").is_some_and(|times| times >= 2)
            && count("qurrent_store_commit_seconds_count{site=\"east\"}").is_some_and(|times| times > 0)
            && text.ends_with("# EOF\n")
            && !text.contains("site=\"west\"")
    });

    // A file that is wrong changes nothing and is named with its line.
    let good = fs::read_to_string(world.node("east")).unwrap();
    fs::write(world.node("east"), good.replacen("burst = 30", "burst = 0", 1)).unwrap();
    hang_up(&world, "east");
    wait_until(Duration::from_secs(20), "a warning", || {
        let log = world.log("east");
        log.contains("burst must be at least 1") && log.contains("line") && log.contains("node.toml")
    });
    assert_eq!(take(&mut app, "vault-east", 10, "").status, 503);
    // No limit at all.
    policy(&world, "east", "app-east", "class = 'telemetry'");
    hang_up(&world, "east");
    wait_until(Duration::from_secs(20), "no limit", || take(&mut app, "vault-east", 100, "").status == 200);
}

/// The metrics of a site.
fn metrics(world: &World, site: &str) -> String {
    let mut tcp = TcpStream::connect(world.listen(site, "metrics")).unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: site\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    body.to_owned()
}

/// Slaves of `KEYS_SUPPLIED` for many keys at a site, in the order of the audit log.
fn supplied_to(world: &World, site: &str, keys: u64) -> Vec<String> {
    let entries = json(&["audit", "log", "--json", "--config", &world.node(site), "--last", "100000"]);
    let mut found: Vec<(u64, String)> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["code"] == "KEYS_SUPPLIED" && entry["fields"]["keys"] == keys)
        .map(|entry| (entry["seq"].as_u64().unwrap(), entry["fields"]["master"].as_str().unwrap().to_owned()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, master)| master).collect()
}

/// Takes keys until none are left for the SAE; gives how many.
fn drain(client: &mut Https, slave: &str, number: u32) -> u32 {
    let (mut taken, mut refused) = (0, 0);
    wait_until(Duration::from_secs(60), "a stock at its floor", || {
        // Link key that is left may still be made into stock.
        let answer = take(client, slave, number, "");
        match answer.status {
            200 => (taken, refused) = (taken + number, 0),
            _ => {
                assert_eq!((answer.status, answer.reason().as_str()), (503, "not_enough_key"), "{answer:?}");
                refused += 1;
            }
        }
        refused == 10
    });
    taken
}

#[test]
fn telecontrol_gets_key_before_telemetry_before_models() {
    // The policies are those that provisioning wrote.
    let mut world = World::provision();
    world.configure("east", |config| config["limits"]["head_s"] = 300.into());
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
    ["east", "middle", "west"].into_iter().for_each(|site| world.spawn_site(site));
    let slave = "app-middle";
    world.wait_for_keys("east", slave, 100);
    world.kill_9("fibre");
    let mut models = Https::connect(&world, "east", "vault-east");
    drain(&mut models, slave, 10);
    let mut telemetry = Https::connect(&world, "east", "app-east");
    // One tenth of 256 keys is kept for telemetry, one fifth for telecontrol.
    let kept = drain(&mut telemetry, slave, 5);
    assert!((20..=40).contains(&kept), "{kept}");
    assert_eq!(take(&mut models, slave, 1, "").status, 503);
    let mut telecontrol = Https::connect(&world, "east", "gateway-dispatch");
    assert_eq!(take(&mut telecontrol, slave, 20, "").status, 200);
    assert_eq!(take(&mut telemetry, slave, 1, "").status, 503);
    drain(&mut telecontrol, slave, 1);

    // All wait, the least urgent first.
    let path = format!("/api/v1/keys/{slave}/enc_keys");
    let body = r#"{"number":32,"extension_mandatory":[{"qurrent_wait":60000}]}"#;
    let head = format!("POST {path} HTTP/1.1\r\nhost: kme\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for client in [&mut models, &mut telemetry, &mut telecontrol] {
        client.send(head.as_bytes()).unwrap();
        // Requests of several connections keep their order only if one is there before the next is sent.
        let status =
            Https::connect(&world, "east", "app-east").request("GET", &path.replace("enc_keys", "status"), None);
        assert_eq!(status.unwrap().status, 200);
    }
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
    for client in [&mut telecontrol, &mut telemetry, &mut models] {
        let answer = client.answer(false).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["keys"].as_array().map(Vec::len), Some(32));
    }
    assert_eq!(supplied_to(&world, "east", 32), ["gateway-dispatch", "app-east", "vault-east"]);
}

#[test]
fn a_policy_that_is_wrong_stops_the_start_and_says_what_to_do() {
    let world = World::provision();
    policy(&world, "east", "vault-west", "class = 'model'");
    let said = crate::world::fails(&["node", "--config", &world.node("east")]);
    for part in ["node.toml", "[policy.sae.vault-west]", "west serves this SAE", "what to do"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn ten_thousand_refusals_are_a_few_entries_of_the_audit_log_with_their_exact_number() {
    const REQUESTS: usize = 10_000;
    const CONNECTIONS: usize = 8;
    let mut world = World::provision();
    world.start_alone("east");
    // Certificates of the right authority: an SAE of another site, and a KME.
    let stranger = tls(&world.sae("west", "app-west"));
    let folder = world.dir.path().join("kme");
    fs::create_dir(&folder).unwrap();
    for (from, to) in [("ca.pem", "ca.pem"), ("kme.pem", "cert.pem"), ("kme.key", "key.pem")] {
        fs::copy(world.path("sites/west/tls").join(from), folder.join(to)).unwrap();
    }
    let kme = tls(&folder);
    let address = world.listen("east", "kme");
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let config = if connection == 0 { &kme } else { &stranger };
            scope.spawn(move || {
                let mut client = Https::open(address, config.clone()).unwrap();
                for _ in 0..REQUESTS / CONNECTIONS {
                    let answer = client.request("GET", "/api/v1/keys/vault-east/enc_keys", None).unwrap();
                    assert_eq!((answer.status, answer.reason().as_str()), (401, "not_authorised"), "{answer:?}");
                }
            });
        }
    });
    assert!(world.terminate("east").success());
    let entries = json(&["audit", "log", "--json", "--config", &world.node("east"), "--last", "100000"]);
    let mut counts = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for entry in entries.as_array().unwrap() {
        let fields = &entry["fields"];
        let (who, times) = match entry["code"].as_str().unwrap() {
            "REQUEST_REFUSED" => (format!("sae {}", fields["sae"].as_str().unwrap()), 1),
            "REFUSALS_COUNTED" => (fields["who"].as_str().unwrap().to_owned(), fields["times"].as_u64().unwrap()),
            _ => continue,
        };
        let (found, total) = counts.entry(who).or_default();
        (*found, *total) = (*found + 1, *total + times);
    }
    let of_kme = u64::try_from(REQUESTS / CONNECTIONS).unwrap();
    let expected = [("kme west", of_kme), ("sae app-west", 7 * of_kme)];
    for (who, total) in expected {
        let (found, counted) = counts[who];
        assert_eq!(counted, total, "{who}: {counts:?}");
        assert!(found <= 12, "{who}: {counts:?}");
    }
    assert_eq!(counts.len(), 2, "{counts:?}");
}
