//! The standard's own OpenAPI document as judge: of every message that is made here, and of a running site.

use std::path::{Path, PathBuf};
use std::process::Command;

use crypto::secret::SecretBytes;
use etsi::etsi020::{
    ACK_PATH, AckContainer, AckContainers, AckStatus, CallbackUrl, ExtKeyContainer, Extension, Key, KeyEntry, Problem,
    ProblemKind, TransferSae, VersionContainer, VoidContainer,
};
use serde_json::{Value, json};
use types::id::{KeyId, SaeId};

use super::append;
use crate::world::{World, free_port, ok_of, str_of};

/// A program of the third-party environment, installed if it is not there.
fn peer(program: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ok_of(&mut Command::new(root.join("tests/peers/install.sh")));
    Command::new(root.join("target/peers/etsi014/bin").join(program))
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/etsi020/interop-kms.yaml")
}

/// One message of every kind and with every optional member, by the name of its schema.
fn samples() -> Vec<(&'static str, Value)> {
    let sae = |name: &str| TransferSae::new(SaeId::new(name).unwrap()).unwrap();
    let id = KeyId::from_random([7; 16]);
    let extension = || Some(Extension::new(r#"{"E32473_a":{"b":[1,2.5,null]},"E32473_c":"d"}"#).unwrap());
    let url = || Some(CallbackUrl::of("kme.test:8443", ACK_PATH).unwrap());
    let mut samples = Vec::new();
    for full in [false, true] {
        let transfer = ExtKeyContainer {
            keys: vec![Key { id, value: SecretBytes::copy_of(&[9; 33]), extension: extension().filter(|_| full) }],
            initiator: sae("app-east"),
            targets: vec![sae("app-south"), sae("urn:x:%20y")],
            ack_callback_url: url().filter(|_| full),
            extension_mandatory: extension().filter(|_| full),
            extension_optional: extension().filter(|_| full),
        };
        samples.push(("ext_key_container", transfer.to_json().expose(|text| serde_json::from_slice(text).unwrap())));
        let statuses = [
            AckStatus::Relayed,
            AckStatus::Failed,
            AckStatus::Voided,
            AckStatus::FailedToVoid,
            AckStatus::KeyNotPresent,
        ];
        let acks = statuses.map(|status| AckContainer {
            keys: vec![KeyEntry { id, extension: extension().filter(|_| full) }],
            status,
            initiator: sae("app-east"),
            targets: vec![sae("app-south")],
            message: full.then(|| "why".to_owned()),
            extension: extension().filter(|_| full),
        });
        samples.push(("ack_containers", serde_json::from_slice(&AckContainers(acks.to_vec()).to_json()).unwrap()));
        let void = VoidContainer {
            key_ids: if full { vec![id] } else { Vec::new() },
            initiator: sae("app-east"),
            targets: vec![sae("app-south")],
            ack_callback_url: url().filter(|_| full),
            extension: extension().filter(|_| full),
            all_confirmation: full.then_some(true),
        };
        samples.push(("void_container", serde_json::from_slice(&void.to_json()).unwrap()));
        let versions = VersionContainer {
            versions: vec!["v1".to_owned()],
            capabilities: vec!["synchronous_mode".to_owned()],
            extension: extension().filter(|_| full),
        };
        samples.push(("version_container", serde_json::from_slice(&versions.to_json()).unwrap()));
    }
    for kind in ProblemKind::ALL {
        let problem = Problem::new(400, kind, "topic", "text").and("other", "text");
        samples.push(("problem_details", serde_json::from_slice(&problem.to_json()).unwrap()));
    }
    samples
}

#[test]
fn every_message_is_valid_by_the_official_document() {
    ok_of(peer("openapi-spec-validator").arg(document()));
    let samples: Vec<_> = samples().into_iter().map(|(schema, value)| json!([schema, value])).collect();
    let script = "
import json, sys, yaml
from jsonschema import Draft202012Validator as Validator, FormatChecker
document = yaml.safe_load(open(sys.argv[1]))
def check(schema, value):
    root = {'$ref': '#/components/schemas/' + schema, 'components': document['components']}
    return [error.message for error in Validator(root, format_checker=FormatChecker()).iter_errors(value)]
samples = json.loads(sys.argv[2])
for schema, value in samples:
    errors = check(schema, value)
    assert not errors, (schema, value, errors)
# The judge sees what is wrong, too.
assert check('ack_containers', {'key_ids': []}) and check('void_container', {}) and check('problem_details', {})
print(len(samples))
";
    let count = samples.len().to_string();
    let said = ok_of(peer("python").args(["-c", script]).arg(document()).arg(Value::Array(samples).to_string()));
    assert_eq!(said.trim(), count);
}

#[test]
fn a_site_answers_as_the_official_document_says() {
    let (a, mut b) = (World::provision_file("pair.toml", 60), World::provision_file("other.toml", 60));
    let north = free_port().to_string();
    let entry = format!(
        "\n[[interwork]]\nname = \"beside\"\nlisten = \"{north}\"\nurl = \"https://{}\"\n\
         identity = \"urn:qurrent:kme:west\"\nsaes = [\"app-east\"]\n\
         tls = {{ ca = \"{}\", certificate = \"tls/kme.pem\", key = \"tls/kme.key\" }}\n",
        free_port(),
        a.path("authority/ca.pem").display(),
    );
    append(&b.node("north"), &entry);
    b.spawn_site("north");
    let west = |file: &str| str_of(&a.path("sites/west/tls").join(file)).to_owned();
    let authority = str_of(&b.path("authority/ca.pem")).to_owned();
    let versions = format!("https://{north}/kmapi/versions");
    super::wait_for_answer(&west("kme.pem"), &west("kme.key"), &authority, &versions);
    // A body of the right form is refused with 400 or 503 when its SAEs, its callback or its keys are unknown, which
    // no schema can say.
    let settings = b.dir.path().join("schemathesis.toml");
    let text = "[checks.positive_data_acceptance]\nexpected-statuses = [\"2xx\", \"400\", \"401\", \"503\"]\n";
    std::fs::write(&settings, text).unwrap();
    let mut schemathesis = peer("schemathesis");
    schemathesis.args(["--config-file", str_of(&settings), "run"]).arg(document());
    schemathesis.args(["--url", &format!("https://{north}"), "--tls-verify", &authority]);
    schemathesis.args(["--request-cert", &west("kme.pem"), "--request-cert-key", &west("kme.key")]);
    schemathesis.args(["--checks", "all", "--max-examples", "40", "--seed", "20", "--continue-on-failure"]);
    // Hypothesis keeps what it found in the current folder.
    let said = ok_of(schemathesis.current_dir(b.dir.path()));
    assert!(said.contains("No issues found") || said.contains("passed"), "{said}");
}
