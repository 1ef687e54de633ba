//! Known texts, refusals by name, and generated bodies.

use crypto::secret::SecretBytes;
use proptest::prelude::*;
use types::id::{KeyId, SaeId};

use super::*;

const TRANSFER: &str = r#"{
  "keys": [{"key_id": "550e8400-e29b-41d4-a716-446655440000",
    "value": "wHHVxRwDJs3/bXd38GHP3oe4svTuRpZS0yCC7x4Ly+s=",
    "extension": {"E32473_extension1": "per key", "E32473_extension2": {"property1": 10111}}}],
  "initiator_sae_id": "encryptor1",
  "target_sae_ids": ["encryptor2"],
  "ack_callback_url": "https://kme1/kmapi/v1/ext_keys/ack",
  "extension_mandatory": {"E32473_route_type": "direct"},
  "extension_optional": {"E32473_module_type": {"min_version": 2.50, "vendor":  "Company ABC"}},
  "a_member_of_later": [1, {"x": null}]
}"#;

fn key_id() -> KeyId {
    "550e8400-e29b-41d4-a716-446655440000".parse().unwrap()
}

fn sae(text: &str) -> TransferSae {
    TransferSae::new(SaeId::new(text).unwrap()).unwrap()
}

#[test]
fn the_standards_example_is_read_and_its_extensions_stay_as_they_came() {
    let transfer = ExtKeyContainer::parse(TRANSFER.as_bytes()).unwrap();
    assert_eq!(transfer.keys[0].id, key_id());
    assert_eq!(transfer.keys[0].value.len(), 32);
    assert_eq!((transfer.initiator.clone(), transfer.targets.clone()), (sae("encryptor1"), vec![sae("encryptor2")]));
    let url = transfer.ack_callback_url.as_ref().unwrap();
    assert_eq!((url.authority().as_str(), url.path().as_str()), ("kme1:443", ACK_PATH));
    let optional = transfer.extension_optional.as_ref().unwrap();
    let as_it_came = r#"{"E32473_module_type": {"min_version": 2.50, "vendor":  "Company ABC"}}"#;
    assert_eq!(optional.as_json(), as_it_came);
    assert!(optional.is_well_named());
    assert_eq!(transfer.extension_mandatory.as_ref().unwrap().names(), ["E32473_route_type"]);
    let written = transfer.to_json();
    written.expose(|text| assert!(std::str::from_utf8(text).unwrap().contains(as_it_came)));
    assert_eq!(written.expose(ExtKeyContainer::parse).unwrap(), transfer);
}

#[test]
fn escaped_base64_is_the_same_key_and_other_escapes_stay() {
    let plain = ExtKeyContainer::parse(TRANSFER.as_bytes()).unwrap();
    for (from, to) in [("+", r"\u002B"), ("/b", r"\/b"), ("/b", r"\u002fb"), ("wHH", r"\u0077HH"), ("s=", r"s\u003D")] {
        let escaped = TRANSFER.replacen(from, to, 1);
        assert_ne!(escaped, TRANSFER);
        assert_eq!(ExtKeyContainer::parse(escaped.as_bytes()).unwrap().keys, plain.keys, "{from}");
    }
    let same = |text: &str| field::without_needless_escapes(text.as_bytes()).as_slice() == text.as_bytes();
    assert!(
        [r#""\\u002B""#, r#""\u0022\u005c\u001f\u0141\n""#, r"\", r"\u", r"\u00", r"\u00+1", ""].into_iter().all(same)
    );
    assert_eq!(field::without_needless_escapes(br"\\\u002B").as_slice(), br"\\+");
}

#[test]
fn a_refused_transfer_quotes_nothing_of_it() {
    for (from, to) in [(r#""value": "wHHVx"#, r#""value": "!wHHVx"#), (r#"[{"key_id""#, r#"["wHHVx", {"key_id""#)] {
        let why = ExtKeyContainer::parse(TRANSFER.replace(from, to).as_bytes()).unwrap_err();
        let problem = String::from_utf8(Problem::of_transfer(&why).to_json()).unwrap();
        assert!(!problem.contains("wHHVx") && !format!("{why:?} {why}").contains("wHHVx"), "{problem}");
    }
}

#[test]
fn transfers_that_are_refused() {
    let long = "a".repeat(65);
    let swaps = [
        ("no keys", r#""keys": [{"#, r#""keys": [], "k": [{"#),
        ("a key id that is no UUID", "550e8400-e29b", "550e8400e29b"),
        (
            "a key id in braces",
            "\"550e8400-e29b-41d4-a716-446655440000\"",
            "\"{550e8400-e29b-41d4-a716-446655440000}\"",
        ),
        ("no base64", "wHHV", "wH-V"),
        ("base64 without padding", "Ly+s=", "Ly+s"),
        ("base64 with bits in its padding", "Ly+s=", "Ly+t="),
        ("an empty key", "wHHVxRwDJs3/bXd38GHP3oe4svTuRpZS0yCC7x4Ly+s=", ""),
        ("a key as number", r#""wHHVxRwDJs3/bXd38GHP3oe4svTuRpZS0yCC7x4Ly+s=""#, "5"),
        ("an empty SAE id", "encryptor1", ""),
        ("a long SAE id", "encryptor1", &long),
        ("an SAE id with a space", "encryptor1", "encryptor 1"),
        ("an SAE id with half a percent code", "encryptor1", "encryptor%1"),
        ("no targets", r#"["encryptor2"]"#, "[]"),
        ("a target as text", r#"["encryptor2"]"#, r#""encryptor2""#),
        ("a target twice", r#"["encryptor2"]"#, r#"["encryptor2", "encryptor2"]"#),
        ("the initiator as target", "encryptor2", "encryptor1"),
        ("a callback without TLS", "https://kme1", "http://kme1"),
        ("a callback with a user", "https://kme1", "https://kme1@kme2"),
        ("a callback without host", "https://kme1", "https://"),
        ("a callback with a fragment", "ext_keys/ack", "ext_keys/ack#x"),
        ("an empty extension", r#"{"E32473_route_type": "direct"}"#, "{}"),
        ("an extension that is a list", r#"{"E32473_route_type": "direct"}"#, "[1]"),
        ("a callback that is null", r#""https://kme1/kmapi/v1/ext_keys/ack""#, "null"),
        ("a member twice", r#""initiator_sae_id""#, r#""initiator_sae_id": "x", "initiator_sae_id""#),
        ("a tail", "null}]\n}", "null}]\n} 1"),
        ("no JSON", "\"keys\"", "keys"),
    ];
    for (name, from, to) in swaps {
        let text = TRANSFER.replacen(from, to, 1);
        assert_ne!(text, TRANSFER, "{name}");
        assert!(ExtKeyContainer::parse(text.as_bytes()).is_err(), "{name}");
    }
    let twice = TRANSFER.replacen(
        r#"[{"key_id""#,
        r#"[{"key_id": "550e8400-e29b-41d4-a716-446655440000", "value": "AAAA"}, {"key_id""#,
        1,
    );
    let why = ExtKeyContainer::parse(twice.as_bytes()).unwrap_err();
    assert_eq!(why, Malformed::Contradiction("a key_id stands twice"));
    let without = TRANSFER.replacen("\"initiator_sae_id\"", "\"other\"", 1);
    assert_eq!(ExtKeyContainer::parse(without.as_bytes()), Err(Malformed::Missing("initiator_sae_id")));
}

#[test]
fn bounds_hold() {
    let transfer = |keys: usize, bytes: usize| ExtKeyContainer {
        keys: (0..keys)
            .map(|n| Key {
                id: KeyId(types::id::Uuid::from_u128(n as u128)),
                value: SecretBytes::from_vec(vec![7; bytes]),
                extension: None,
            })
            .collect(),
        initiator: sae("a"),
        targets: vec![sae("b")],
        ack_callback_url: None,
        extension_mandatory: None,
        extension_optional: None,
    };
    let survives = |transfer: ExtKeyContainer| transfer.to_json().expose(ExtKeyContainer::parse).is_ok();
    assert!(survives(transfer(KEYS_MAX, 32)) && !survives(transfer(KEYS_MAX + 1, 32)));
    assert!(survives(transfer(1, KEY_BYTES_MAX)) && !survives(transfer(1, KEY_BYTES_MAX + 1)));
    assert!(survives(transfer(128, KEY_BYTES_MAX)) && !survives(transfer(129, KEY_BYTES_MAX)));
    let mut many = transfer(1, 32);
    many.targets = (0..=TARGETS_MAX).map(|n| sae(&format!("t{n}"))).collect();
    assert!(!survives(many));
    assert!(Extension::new(&format!(r#"{{"E1_a":"{}"}}"#, "x".repeat(EXTENSION_BYTES_MAX))).is_err());
    assert!(AckContainers::parse(&vec![b' '; BODY_MAX + 1]).is_err());
    let deep = format!(r#"{{"versions":[],"extension":{}1{}}}"#, r#"{"E1_a":"#.repeat(5_000), "}".repeat(5_000));
    assert!(VersionContainer::parse(deep.as_bytes()).is_err());
}

#[test]
fn acknowledgements_voids_versions_and_problems_have_the_standards_members() {
    let ack = AckContainer {
        keys: vec![KeyEntry { id: key_id(), extension: None }],
        status: AckStatus::FailedToVoid,
        initiator: sae("encryptor1"),
        targets: vec![sae("encryptor2")],
        message: Some("an SAE has it".to_owned()),
        extension: None,
    };
    let expected = r#"[{"key_id_container":[{"key_id":"550e8400-e29b-41d4-a716-446655440000"}],"ack_status":"failed to void","initiator_sae_id":"encryptor1","target_sae_ids":["encryptor2"],"message":"an SAE has it"}]"#;
    assert_eq!(String::from_utf8(AckContainers(vec![ack]).to_json()).unwrap(), expected);
    let void = VoidContainer {
        key_ids: vec![key_id()],
        initiator: sae("encryptor1"),
        targets: vec![sae("encryptor2")],
        ack_callback_url: Some(CallbackUrl::of("kme1:8443", ACK_PATH).unwrap()),
        extension: None,
        all_confirmation: None,
    };
    let expected = r#"{"key_ids":["550e8400-e29b-41d4-a716-446655440000"],"initiator_sae_id":"encryptor1","target_sae_ids":["encryptor2"],"ack_callback_url":"https://kme1:8443/kmapi/v1/ext_keys/ack"}"#;
    assert_eq!(String::from_utf8(void.to_json()).unwrap(), expected);
    let versions = VersionContainer::parse(br#"{"versions":["v1"]}"#).unwrap();
    assert!(versions.capabilities.is_empty());
    assert_eq!(VersionContainer::parse(b"{}"), Err(Malformed::Missing("versions")));
    assert!(AckContainers::parse(br#"{"key_ids":[]}"#).is_err(), "one object instead of a list");
    let problem =
        Problem::new(503, ProblemKind::UnsupportedMandatoryExtension, "unsupported_mandatory_extension", "E1_a");
    let expected = r#"{"type":"https://qkd.etsi.org/gs020-interop-kms/unsupported-mandatory-extension","status":503,"title":"unsupported mandatory extension","details":{"unsupported_mandatory_extension":"E1_a"}}"#;
    assert_eq!(String::from_utf8(problem.to_json()).unwrap(), expected);
}

/// Texts that look like messages: the example with pieces swapped, cut and doubled.
fn near_messages() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        TRANSFER,
        r#"[{"key_id_container":[{"key_id":"550e8400-e29b-41d4-a716-446655440000"}],"ack_status":"relayed","initiator_sae_id":"a","target_sae_ids":["b"]}]"#,
        r#"{"key_ids":[],"initiator_sae_id":"a","target_sae_ids":["b"],"all_confirmation":true}"#,
        r#"{"versions":["v1"],"capabilities":["synchronous_mode"]}"#,
        r#"{"type":"x","status":1,"details":{"a":"b"}}"#,
    ]);
    (pieces, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4)).prop_map(
        |(text, edits)| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte, edit) in edits {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = byte,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte % 96 + 32),
                }
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn generated_bodies(bytes in near_messages()) {
        fuzzing::bodies(&bytes);
    }

    #[test]
    fn random_bodies(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::bodies(&bytes);
    }
}
