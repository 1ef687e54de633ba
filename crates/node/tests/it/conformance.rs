//! Programs of others against our key delivery: the OpenAPI document judged and played against a running site, and
//! two clients of ETSI GS QKD 014 that we did not write.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{World, ok_of, str_of};

/// A program of the third-party environment, installed if it is not there.
fn peer(program: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ok_of(&mut Command::new(root.join("tests/peers/install.sh")));
    Command::new(root.join("target/peers/etsi014/bin").join(program))
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/etsi014.yaml")
}

/// Files of an SAE: certificate, key, authority.
fn files(world: &World, site: &str, sae: &str) -> [String; 3] {
    let folder = world.sae(site, sae);
    ["cert.pem", "key.pem", "ca.pem"].map(|name| str_of(&folder.join(name)).to_owned())
}

#[test]
fn the_openapi_document_is_valid_and_is_what_the_site_shows() {
    ok_of(peer("openapi-spec-validator").arg(document()));
    let mut world = World::provision();
    world.start_alone("east");
    let mut client = crate::raw::Https::connect(&world, "east", "app-east");
    let shown = client.request("GET", "/api/v1/openapi.yaml", None).unwrap();
    assert_eq!((shown.status, shown.body), (200, std::fs::read(document()).unwrap()));
}

#[test]
fn a_site_answers_as_the_openapi_document_says_slow_() {
    let mut world = World::provision();
    world.start_alone("east");
    let [certificate, key, authority] = files(&world, "east", "app-east");
    // Which SAEs there are is not in the document. A well-formed id of no key is refused with 400, as the standard says.
    let settings = world.dir.path().join("schemathesis.toml");
    let text = r#"
[parameters]
"path.slave_SAE_ID" = "vault-east"
"path.master_SAE_ID" = "vault-east"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "503"]
"#;
    std::fs::write(&settings, text).unwrap();
    let mut schemathesis = peer("schemathesis");
    schemathesis.args(["--config-file", str_of(&settings), "run"]).arg(document());
    schemathesis.args(["--url", &format!("https://{}", world.listen("east", "kme"))]);
    schemathesis.args(["--request-cert", &certificate, "--request-cert-key", &key, "--tls-verify", &authority]);
    schemathesis.args(["--checks", "all", "--max-examples", "15", "--seed", "7", "--continue-on-failure"]);
    // Hypothesis keeps what it found in the current folder.
    let said = ok_of(schemathesis.current_dir(world.dir.path()));
    assert!(said.contains(" passed"), "{said}");
}

#[test]
fn the_client_of_lip6_takes_and_collects_keys() {
    let world = World::start();
    let host = |site: &str| world.listen(site, "kme").to_string();
    let script = "
import json, sys
from etsi_qkd_014_client import QKD014Client
(east_host, east_crt, east_key, east_ca, west_host, west_crt, west_key, west_ca) = sys.argv[1:]
east, west = QKD014Client(east_host, east_crt, east_key, east_ca), QKD014Client(west_host, west_crt, west_key, west_ca)
code, status = east.get_status('app-west')
assert code == 200, status
simple = east.get_key('app-west')
posted = east.get_key('app-west', number=3, size=512)
optional = east.get_key('app-west', number=1, extension_optional=[{'abc_max_age': 1}])
for code, container in (simple, posted, optional):
    assert code == 200, container.message
    ids = [key.key_id for key in container.keys]
    code, found = west.get_key_with_key_IDs('app-east', ids)
    assert code == 200, found.message
    assert [key.key for key in found.keys] == [key.key for key in container.keys]
    code, again = west.get_key_with_key_IDs('app-east', ids)
    assert (code, again.message) == (400, 'one or more keys specified are not found on KME'), (code, again.message)
code, refused = east.get_key('app-west', extension_mandatory=[{'abc_route_type': 'direct'}])
assert (code, refused.message) == (400, 'not all extension_mandatory parameters are supported')
code, refused = west.get_key_with_key_IDs('app-middle', ['6f1d3b0a-7c2e-4f59-9a56-2b1c0d3e4f50'])
assert code == 400
print('equal')
";
    let mut python = peer("python");
    python.args(["-c", script]);
    for (site, sae) in [("east", "app-east"), ("west", "app-west")] {
        python.arg(host(site)).args(files(&world, site, sae));
    }
    assert_eq!(ok_of(&mut python).trim(), "equal");

    let [certificate, key, authority] = files(&world, "east", "app-east");
    let mut cli = peer("qkd014-client");
    cli.args(["-H", &host("east"), "-c", &certificate, "-k", &key, "-r", &authority]);
    let said = ok_of(cli.args(["get_status", "app-west"]));
    assert!(said.contains("app-west") && said.contains("256"), "{said}");
}

#[test]
fn the_doctor_of_qkdsec_finds_nothing_wrong() {
    let mut world = World::provision();
    world.configure("east", |config| drop(config.insert("allow_self_pair".to_owned(), true.into())));
    world.start_alone("east");
    // Its round trip collects a key as the SAE that took it, so the slave is the master.
    let report = doctor(&world, "app-east");
    let status = |name: &str| {
        let results = report["results"].as_array().unwrap();
        results.iter().find(|result| result["name"] == name).map(|result| result["status"].clone())
    };
    assert_eq!(report["passed"], json!(true), "{report:#}");
    // ETSI GS QKD 014, 5.5 has 400 for a key that is not there; the doctor would rather see 404.
    assert_eq!(report["counts"]["warn"], json!(1), "{report:#}");
    assert_eq!(status("error_contract_404"), Some(json!("warn")));
    assert_eq!(report["counts"]["pass"].as_u64().unwrap() + 1, report["results"].as_array().unwrap().len() as u64);

    // Without that setting an SAE is not its own slave.
    let mut world = World::provision();
    world.start_alone("east");
    let mut client = crate::raw::Https::connect(&world, "east", "app-east");
    assert_eq!(client.request("GET", "/api/v1/keys/app-east/enc_keys", None).unwrap().status, 400);
}

fn doctor(world: &World, slave: &str) -> Value {
    let [certificate, key, authority] = files(world, "east", "app-east");
    let url = format!("https://{}", world.listen("east", "kme"));
    let mut command = peer("qkdsec");
    command.args(["doctor", &url, "--slave-sae-id", slave, "--format", "json"]);
    command.args(["--cert", &certificate, "--key", &key, "--ca-cert", &authority]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}
