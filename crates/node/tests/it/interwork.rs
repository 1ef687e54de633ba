//! Two networks with authorities of their own, one site of each in the same trusted node: an SAE of the first shares
//! keys with an SAE of the second through ETSI GS QKD 020, whatever is killed in between.

mod official;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, free_port, ok_of, run, str_of, wait_until};

/// Network A (east, west) and network B (north, south), west beside north.
struct Two {
    a: World,
    b: World,
    /// Where west listens for north, and north for west.
    west: String,
    north: String,
}

impl Two {
    fn start() -> Self {
        let (mut a, mut b) = (World::provision_file("pair.toml", 60), World::provision_file("other.toml", 60));
        let (west, north) = (free_port().to_string(), free_port().to_string());
        let entry = |own: &str, other: &str, ca: &Path, identity: &str, sae: &str| {
            format!(
                "\n[[interwork]]\nname = \"beside\"\nlisten = \"{own}\"\nurl = \"https://{other}\"\n\
                 identity = \"urn:qurrent:kme:{identity}\"\nsaes = [\"{sae}\"]\n\
                 tls = {{ ca = \"{}\", certificate = \"tls/kme.pem\", key = \"tls/kme.key\" }}\n",
                ca.display()
            )
        };
        // West has a file of its own of the authority that it trusts towards north.
        let (ca_a, ca_b) = (a.path("authority/ca.pem"), a.path("sites/west/tls/beside.pem"));
        std::fs::copy(b.path("authority/ca.pem"), &ca_b).unwrap();
        append(&a.node("west"), &entry(&west, &north, &ca_b, "north", "app-south"));
        append(&a.node("east"), "\n[foreign]\napp-south = \"west\"\n");
        append(&b.node("north"), &entry(&north, &west, &ca_a, "west", "app-east"));
        append(&b.node("south"), "\n[foreign]\napp-east = \"north\"\n");
        for (world, sites) in [(&mut a, ["east", "west"]), (&mut b, ["north", "south"])] {
            world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
            sites.into_iter().for_each(|site| world.spawn_site(site));
        }
        a.wait_for_keys("east", "app-west", 8);
        b.wait_for_keys("north", "app-south", 8);
        Self { a, b, west, north }
    }

    fn master(&self) -> PathBuf {
        self.a.sae("east", "app-east").join("sae.toml")
    }

    /// Fetches a key in network B.
    fn collect(&self, id: &str) -> Vec<(String, String)> {
        let sae = self.b.sae("south", "app-south").join("sae.toml");
        keys(&run(&["key", "--sae", str_of(&sae), "--json", "fetch", "app-east", id]).stdout)
    }

    /// Takes keys until `count` came at once, as a 503 tells a client to ask again.
    fn take_when_up(&self, count: usize) -> Vec<(String, String)> {
        let mut taken = Vec::new();
        wait_until(Duration::from_secs(90), "keys for the other network", || {
            taken = take(&self.master(), count);
            taken.len() == count
        });
        taken
    }
}

fn append(file: &str, text: &str) {
    let before = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, before + text).unwrap();
}

fn take(sae: &Path, count: usize) -> Vec<(String, String)> {
    let number = count.to_string();
    keys(&run(&["key", "--sae", str_of(sae), "--json", "get", "app-south", "--number", &number]).stdout)
}

fn keys(printed: &[u8]) -> Vec<(String, String)> {
    let parsed: Value = serde_json::from_slice(printed).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = parsed["keys"].as_array().cloned().unwrap_or_default();
    list.iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// Status and body of a request with the certificate of `folder`, to a server of the authority `ca`.
fn curl(certificate: &Path, key: &Path, ca: &Path, url: &str, more: &[&str]) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--write-out", "\n%{http_code}", "--cacert", str_of(ca)]);
    command.args(["--cert", str_of(certificate), "--key", str_of(key), url]).args(more);
    let out = ok_of(&mut command);
    let (text, code) = out.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), text.to_owned())
}

/// Waits until a site answers at all.
fn wait_for_answer(certificate: &str, key: &str, ca: &str, url: &str) {
    wait_until(Duration::from_secs(60), "an answer", || {
        let args = ["-sS", "--max-time", "5", "--cacert", ca, "--cert", certificate, "--key", key, url];
        Command::new("curl").args(args).output().unwrap().status.success()
    });
}

#[test]
fn keys_cross_two_networks_and_survive_kill_9_of_either_border() {
    let mut two = Two::start();
    // What works: three keys, then others, each fetched once on the other side.
    let mut supplied: BTreeMap<String, String> = two.take_when_up(3).into_iter().collect();
    foreign_callers_are_checked(&two);
    certificates_are_read_again(&two, &mut supplied);
    the_other_network_down(&mut two, &mut supplied);
    for victim in ["west", "north", "west", "north"] {
        let stop = AtomicBool::new(false);
        let master = two.master();
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut taken = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    taken.extend(take(&master, 2));
                }
                taken
            });
            let world = if victim == "west" { &mut two.a } else { &mut two.b };
            std::thread::park_timeout(Duration::from_millis(700));
            world.kill_9(victim);
            std::thread::park_timeout(Duration::from_millis(300));
            world.spawn_site(victim);
            std::thread::park_timeout(Duration::from_millis(700));
            stop.store(true, Ordering::Relaxed);
            taker.join().unwrap()
        });
        let after = two.take_when_up(2);
        for (id, bits) in taken.into_iter().chain(after) {
            assert!(supplied.insert(id.clone(), bits).is_none(), "{id} was supplied twice");
        }
    }
    let distinct: std::collections::BTreeSet<_> = supplied.values().collect();
    assert_eq!(distinct.len(), supplied.len(), "key bits were supplied twice");
    for (id, bits) in &supplied {
        assert_eq!(two.collect(id), [(id.clone(), bits.clone())], "network B does not hold {id} as supplied");
        assert!(two.collect(id).is_empty(), "{id} was delivered twice");
    }
}

/// West stops trusting north's authority and trusts it again, without a restart.
fn certificates_are_read_again(two: &Two, supplied: &mut BTreeMap<String, String>) {
    let trusted = two.a.path("sites/west/tls/beside.pem");
    let own = |file: &str| two.b.path("sites/north/tls").join(file);
    let is_let_in = || {
        let (certificate, key, ca) = (own("kme.pem"), own("kme.key"), two.a.path("authority/ca.pem"));
        let url = format!("https://{}/kmapi/versions", two.west);
        let args = ["-sS", "--max-time", "5", "--cacert", str_of(&ca), "--cert", str_of(&certificate)];
        let command = Command::new("curl").args(args).args(["--key", str_of(&key), &url]).output();
        command.unwrap().status.success()
    };
    assert!(is_let_in());
    let before = std::fs::read(&trusted).unwrap();
    std::fs::copy(two.a.path("authority/ca.pem"), &trusted).unwrap();
    wait_until(Duration::from_secs(30), "north to be refused", || !is_let_in());
    // Neither over a new connection nor over one that was open: the server's certificate is not trusted either.
    assert!(take(&two.master(), 1).is_empty(), "a key went to a KME that is not trusted any more");
    std::fs::write(&trusted, before).unwrap();
    wait_until(Duration::from_secs(30), "north to be let in again", is_let_in);
    supplied.extend(two.take_when_up(2));
}

/// The KME beside does not answer: a clear 503, and service is back with it.
fn the_other_network_down(two: &mut Two, supplied: &mut BTreeMap<String, String>) {
    two.b.kill_9("north");
    let folder = two.a.sae("east", "app-east");
    let url = format!("https://{}/api/v1/keys/app-south/enc_keys", two.a.listen("east", "kme"));
    let file = |name: &str| folder.join(name);
    for _ in 0..2 {
        let (status, body) = curl(&file("cert.pem"), &file("key.pem"), &file("ca.pem"), &url, &[]);
        assert_eq!(status, 503, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(
            body["message"].as_str().is_some_and(|text| text.contains("network") || text.contains("KME")),
            "{body}"
        );
    }
    // Stock of the first network is as full as before, and keys inside it go on.
    two.a.wait_for_keys("east", "app-west", 8);
    two.b.spawn_site("north");
    supplied.extend(two.take_when_up(3));
}

/// Only the configured KME gets in, by TLS 1.3; nothing that comes in is answered with a 500.
fn foreign_callers_are_checked(two: &Two) {
    let ca = two.b.path("authority/ca.pem");
    let site = |file: &str| two.a.path("sites/west/tls").join(file);
    let url = |path: &str| format!("https://{}{path}", two.north);
    let (status, body) = curl(&site("kme.pem"), &site("kme.key"), &ca, &url("/kmapi/versions"), &[]);
    assert_eq!((status, body.as_str()), (200, r#"{"versions":["v1"],"capabilities":["synchronous_mode"]}"#));
    // The right authority, another name.
    let sae = two.a.sae("west", "app-west");
    let (status, body) = curl(&sae.join("cert.pem"), &sae.join("key.pem"), &ca, &url("/kmapi/versions"), &[]);
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("https://qkd.etsi.org/gs020-interop-kms/unauthorized"), "{body}");
    // The KME of the other side itself, by the wrong authority; and TLS 1.2.
    let own = |file: &str| two.b.path("sites/north/tls").join(file);
    for (certificate, key, more) in
        [(own("kme.pem"), own("kme.key"), None), (site("kme.pem"), site("kme.key"), Some(["--tls-max", "1.2"]))]
    {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", str_of(&ca), "--cert", str_of(&certificate)]);
        command.args(["--key", str_of(&key), &url("/kmapi/versions")]).args(more.into_iter().flatten());
        assert!(!command.output().unwrap().status.success(), "must be turned away");
    }
    let transfer = r#"{"keys":[{"key_id":"550e8400-e29b-41d4-a716-446655440000","value":"AAAA"}],"initiator_sae_id":"app-east","target_sae_ids":["app-south"],"ack_callback_url":"https://169.254.169.254/x"}"#;
    let bad = [
        ("/kmapi/v1/ext_keys", "", 400, "invalid-parameter"),
        ("/kmapi/v1/ext_keys", "[]", 400, "invalid-parameter"),
        ("/kmapi/v1/ext_keys", r#"{"keys":[]}"#, 400, "missing-parameters"),
        ("/kmapi/v1/ext_keys", transfer, 400, "invalid-parameter"),
        ("/kmapi/v1/ext_keys/ack", "{}", 400, "ack-not-understood"),
        ("/kmapi/v1/ext_keys/void", "%00", 400, "void-request-not-understood"),
        ("/kmapi/v1/other", "{}", 404, "invalid-parameter"),
        ("/kmapi/versions", "{}", 405, "invalid-parameter"),
    ];
    for (path, body, expected, kind) in bad {
        let more = ["--header", "Content-Type: application/json; charset=UTF-8", "--data-binary", body];
        let (status, answer) = curl(&site("kme.pem"), &site("kme.key"), &ca, &url(path), &more);
        assert_eq!(status, expected, "{path} {body}: {answer}");
        assert!(answer.contains(&format!("gs020-interop-kms/{kind}\"")), "{path} {body}: {answer}");
    }
    // Towards north, west is a server too.
    let (status, body) = curl(
        &own("kme.pem"),
        &own("kme.key"),
        &two.a.path("authority/ca.pem"),
        &format!("https://{}/kmapi/versions", two.west),
        &[],
    );
    assert_eq!(status, 200, "{body}");
}
