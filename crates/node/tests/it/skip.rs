//! SKIP with curl and with the PyPI client `skip-qkd`: by certificate, and by pre-shared key through stunnel as the guide
//! says.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, free_port, ok_of, str_of, wait_until};

/// Asks a site's API with an SAE's certificate: status and body.
pub fn ask(world: &World, site: &str, sae: &str, path: &str, more: &[&str]) -> (u16, Value) {
    let folder = world.sae(site, sae);
    let file = |name: &str| str_of(&folder.join(name)).to_owned();
    let url = format!("https://{}{path}", world.listen(site, "kme"));
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "--write-out", "\n%{http_code}", "--cacert", &file("ca.pem")]);
    command.args(["--cert", &file("cert.pem"), "--key", &file("key.pem"), &url]).args(more);
    let out = ok_of(&mut command);
    let (text, code) = out.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(text).unwrap_or_default())
}

/// Installs the third-party programs that tests talk to, if they are not there.
pub fn install_peers() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/install.sh");
    ok_of(&mut Command::new(script));
}

/// Changes a site's configuration.
pub fn configure(world: &World, site: &str, change: impl FnOnce(&mut toml::Table)) {
    let mut config: toml::Table = fs::read_to_string(world.node(site)).unwrap().parse().unwrap();
    change(&mut config);
    fs::write(world.node(site), config.to_string()).unwrap();
}

/// Starts everything, and waits until `east` and `west` have key for each other.
pub fn start(world: &mut World) {
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
    for site in ["east", "middle", "west"] {
        world.spawn_site(site);
    }
    world.wait_for_keys("east", "app-west", 8);
    world.wait_for_keys("west", "app-east", 8);
}

fn start_with_aliases() -> World {
    let mut world = World::provision();
    let skip: toml::Table = "[alias]\nKP_east = \"app-east\"\nKP_west = \"app-west\"\n".parse().unwrap();
    for site in ["east", "west"] {
        configure(&world, site, |config| {
            config.insert("skip".to_owned(), skip.clone().into());
        });
    }
    start(&mut world);
    world
}

#[test]
fn two_encryptors_get_the_same_key_once() {
    install_peers();
    let world = start_with_aliases();
    let east = |path: &str| ask(&world, "east", "app-east", path, &[]);
    let west = |path: &str| ask(&world, "west", "app-west", path, &[]);

    let (code, capabilities) = east("/capabilities");
    assert_eq!((code, &capabilities["localSystemID"]), (200, &Value::from("KP_east")));
    assert_eq!((&capabilities["entropy"], &capabilities["key"]), (&Value::from(true), &Value::from(true)));
    let remotes = capabilities["remoteSystemID"].as_array().unwrap();
    assert!(remotes.contains(&"KP_west".into()) && !remotes.contains(&"KP_east".into()), "{remotes:?}");

    for (query, digits) in [("", 64), ("&size=128", 32), ("&size=2048", 512)] {
        let (code, made) = east(&format!("/key?remoteSystemID=KP_west{query}"));
        assert_eq!(code, 200, "{made}");
        let (id, key) = (made["keyId"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert_eq!((id.len(), key.len()), (32, digits));
        // Another system cannot have it, and its asking does not use it up.
        let (code, _) = ask(&world, "middle", "app-middle", &format!("/key/{id}?remoteSystemID=app-east"), &[]);
        assert_eq!(code, 400);
        assert_eq!(west(&format!("/key/{id}?remoteSystemID=KP_east")), (200, made.clone()));
        assert_eq!(west(&format!("/key/{id}?remoteSystemID=KP_east")).0, 400, "a key is delivered once");
    }

    let (code, entropy) = east("/entropy?minentropy=20");
    assert_eq!((code, entropy["minentropy"].as_u64()), (200, Some(20)));
    assert_eq!(entropy["randomStr"].as_str().unwrap().len(), 6);
    let lots: Vec<_> = (0..3).map(|_| east("/entropy").1["randomStr"].to_string()).collect();
    assert!(lots[0] != lots[1] && lots[1] != lots[2] && lots[0].len() == 66);

    wrong_requests_take_no_key(&world);
    the_python_client_agrees(&world);
    stunnel_takes_a_pre_shared_key(&world);
}

fn wrong_requests_take_no_key(world: &World) {
    let stock = || ask(world, "east", "app-east", "/api/v1/keys/app-west/status", &[]).1["stored_key_count"].as_u64();
    let before = stock();
    for (path, expected) in [
        ("/key", 400),
        ("/key?remoteSystemID=", 400),
        ("/key?remoteSystemID=nobody", 400),
        ("/key?remoteSystemID=KP_east", 400),
        ("/key?remoteSystemID=KP_west&size=7", 400),
        ("/key?remoteSystemID=KP_west&size=0", 400),
        ("/key?remoteSystemID=KP_west&size=x", 400),
        ("/key?remoteSystemID=KP_west&number=2", 400),
        ("/key/550e8400e29b41d4a716446655440000?remoteSystemID=KP_west", 400),
        ("/key/xyz?remoteSystemID=KP_west", 400),
        ("/key/550e8400e29b41d4a716446655440000", 400),
        ("/entropy?minentropy=0", 400),
        ("/entropy?minentropy=1000000", 400),
        ("/keys", 404),
    ] {
        let (code, body) = ask(world, "east", "app-east", path, &[]);
        assert_eq!(code, expected, "{path}: {body}");
        assert!(body["message"].is_string(), "{path}: {body}");
    }
    let path = "/key?remoteSystemID=KP_west";
    for more in [&["--request", "POST"][..], &["--request", "DELETE"], &["--head"]] {
        assert_eq!(ask(world, "east", "app-east", path, more).0, 405, "{more:?}");
    }
    // Whatever the encryptor says that the host is called.
    assert_eq!(ask(world, "east", "app-east", "/capabilities", &["--header", "Host: KP_east"]).0, 200);
    let after = stock();
    // The background relay may add keys meanwhile; refusals must not take any.
    assert!(after >= before, "{before:?} {after:?}");
}

/// Runs the third-party client; its arguments are an expression of Python on `east` and `west`.
fn python(world: &World, client: &str, expression: &str) -> Value {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = |site: &str| str_of(&world.sae(site, &format!("app-{site}"))).to_owned();
    let script = format!(
        "import json\nfrom skip_qkd.skip_qkd import SkipQKDClient, MTLSConfig, PSKConfig\n\
         def mtls(at, name, f):\n    return SkipQKDClient(at, name, mtls_config=MTLSConfig(f+'/ca.pem', f+'/cert.pem', f+'/key.pem'))\n\
         west = lambda: mtls('{}', 'KP_west', '{}')\n{client}\nprint(json.dumps({expression}))\n",
        world.listen("west", "kme"),
        folder("west"),
    );
    let script =
        script.replace("EAST_AT", &world.listen("east", "kme").to_string()).replace("EAST_FOLDER", &folder("east"));
    serde_json::from_str(&ok_of(Command::new(root.join("target/peers/venv/bin/python")).args(["-c", &script]))).unwrap()
}

const BY_CERTIFICATE: &str = "east = lambda: mtls('EAST_AT', 'KP_east', 'EAST_FOLDER')";
const EXCHANGE: &str =
    "(lambda k: [k, west().fetch_key_by_id(k['keyId'], 'KP_east')])(east().request_key('KP_west', 256))";

fn the_python_client_agrees(world: &World) {
    let both = python(world, BY_CERTIFICATE, EXCHANGE);
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0]["key"].as_str().unwrap().len(), 64);
    let capabilities = python(world, BY_CERTIFICATE, "[east().capabilities(), east().entropy(128)]");
    assert_eq!(capabilities[0]["localSystemID"], "KP_east");
    assert_eq!(capabilities[1]["randomStr"].as_str().unwrap().len(), 32);
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The configuration of the guide, with this world's addresses and files.
fn stunnel_takes_a_pre_shared_key(world: &World) {
    let folder = world.dir.path().join("stunnel");
    fs::create_dir(&folder).unwrap();
    let secrets = folder.join("psk.txt");
    fs::write(&secrets, format!("router-east:{}\n", "5a".repeat(32))).unwrap();
    ok_of(Command::new("chmod").args(["600", str_of(&secrets)]));
    let (outer, inner) = (free_port(), free_port());
    let sae = world.sae("east", "app-east");
    let guide = include_str!("../../../../docs/guide/bridges.md");
    let sample = guide.split("```ini\n").nth(1).unwrap().split("```").next().unwrap();
    let config = sample
        .replace("10.0.0.1:8443", &outer.to_string())
        .replace("127.0.0.1:8444", &inner.to_string())
        .replace("127.0.0.1:7443", &world.listen("east", "kme").to_string())
        .replace("/etc/qurrent/skip-psk.txt", str_of(&secrets))
        .replace("/etc/qurrent/router-east", str_of(&sae));
    let file = folder.join("stunnel.conf");
    fs::write(&file, format!("foreground = yes\npid =\n{config}")).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    let child = Command::new("stunnel").arg(&file).stdin(Stdio::null()).stderr(log).spawn().unwrap();
    let _stunnel = Running(child);
    wait_until(Duration::from_secs(10), "stunnel listens", || std::net::TcpStream::connect(outer).is_ok());
    let asked = over_psk(outer, "/key?remoteSystemID=KP_west");
    let (id, key) = (asked["keyId"].as_str().unwrap(), &asked["key"]);
    let (code, found) = ask(world, "west", "app-west", &format!("/key/{id}?remoteSystemID=KP_east"), &[]);
    assert_eq!((code, &found["key"]), (200, key));
    assert_eq!(over_psk(outer, "/capabilities")["localSystemID"], "KP_east");
}

/// As IOS XE does: TLS 1.2 with a pre-shared key, HTTP/1.1, one request for each connection.
fn over_psk(at: std::net::SocketAddr, path: &str) -> Value {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-tls1_2", "-connect", &at.to_string()]);
    command.args(["-psk_identity", "router-east", "-psk", &"5a".repeat(32)]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: KP_east\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), request.as_bytes()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(out.starts_with("HTTP/1.1 200"), "{out}");
    serde_json::from_str(out.split_once("\r\n\r\n").unwrap().1).unwrap()
}
