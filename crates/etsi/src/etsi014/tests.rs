//! Bodies of requests and answers: what is read, what is refused, what is written.

use crypto::secret::SecretBytes;
use proptest::prelude::*;
use serde_json::json;
use types::id::{KeyId, SaeId, SiteId};

use super::*;

const ID: &str = "6f1d3b0a-7c2e-4f59-9a56-2b1c0d3e4f50";

fn sae(text: &str) -> SaeId {
    SaeId::new(text).unwrap()
}

fn read(body: &str) -> Result<KeyRequest, BadRequest> {
    KeyRequest::read(&sae("slave"), body.as_bytes())
}

#[test]
fn no_body_an_empty_one_and_braces_ask_for_the_defaults() {
    for body in ["", " \r\n\t", "{}", r#"{"unknown": [1, {"deep": null}]}"#] {
        assert_eq!(read(body), Ok(KeyRequest::default()), "{body:?}");
    }
    assert_eq!(KeyRequest::read_query(""), Ok(KeyRequest::default()));
}

#[test]
fn a_full_key_request_is_read() {
    let body = json!({
        "number": 3.0, "size": 512, "additional_slave_SAE_IDs": ["a b/c", "größe"],
        "extension_mandatory": [{ "qurrent_route": "indirect" }, { "qurrent_min_hops": 2, "qurrent_max_hops": 4 }],
        "extension_optional": [{ "abc_future": { "x": 1 } }, { "qurrent_wait": 500 }, { "qurrent_paths": "many" }],
    });
    let request = read(&body.to_string()).unwrap();
    assert_eq!((request.number, request.size), (3, Some(512)));
    assert_eq!(request.additional, [sae("a b/c"), sae("größe")]);
    let mandatory = Wishes { route: Some(Route::Indirect), min_hops: Some(2), max_hops: Some(4), ..Wishes::default() };
    assert_eq!(request.mandatory, mandatory);
    let hurry = read(r#"{"extension_mandatory":[{"qurrent_priority":"telemetry"},{"qurrent_max_hops":0}]}"#).unwrap();
    assert_eq!((hurry.mandatory.priority, hurry.mandatory.max_hops), (Some(Class::Telemetry), Some(0)));
    assert_eq!(request.optional, Wishes { wait_ms: Some(500), ..Wishes::default() });
    assert_eq!(read(std::str::from_utf8(&request.write(&[], &[])).unwrap()), Ok(request));
}

#[test]
fn wrong_key_requests_are_refused_each_for_its_reason() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(BODY_MAX));
    let many = json!({ "additional_slave_SAE_IDs": (0..65).map(|n| n.to_string()).collect::<Vec<_>>() }).to_string();
    let malformed = [
        "[1]",
        "7",
        "null",
        "{",
        "{}x",
        r#"{"number":"2"}"#,
        r#"{"number":-1}"#,
        r#"{"number":1.5}"#,
        r#"{"number":null}"#,
        r#"{"number":4294967296}"#,
        r#"{"number":1e99}"#,
        r#"{"number":[1]}"#,
        r#"{"number":true}"#,
        r#"{"number":1,"number":2}"#,
        r#"{"size":"256"}"#,
        r#"{"size":-8}"#,
        r#"{"size":256.5}"#,
        r#"{"additional_slave_SAE_IDs":"a"}"#,
        r#"{"additional_slave_SAE_IDs":[1]}"#,
        r#"{"additional_slave_SAE_IDs":[""]}"#,
        r#"{"additional_slave_SAE_IDs":["  "]}"#,
        r#"{"additional_slave_SAE_IDs":["a","a"]}"#,
        r#"{"additional_slave_SAE_IDs":["slave"]}"#,
        r#"{"additional_slave_SAE_IDs":["a\u0000"]}"#,
        r#"{"additional_slave_SAE_IDs":null}"#,
        r#"{"extension_mandatory":{}}"#,
        r#"{"extension_mandatory":["x"]}"#,
        r#"{"extension_optional":7}"#,
        "\u{feff}{}",
        &deep,
        &long,
        &many,
    ];
    for body in malformed {
        let refused = read(body).unwrap_err();
        assert_eq!((refused.message, refused.reason), (text::MALFORMED, Reason::Malformed), "{body:.60}");
    }
    assert!(KeyRequest::read(&sae("slave"), b"{\"number\":\"\xff\"}").is_err());
}

#[test]
fn a_mandatory_extension_is_met_or_refused_in_the_standards_words() {
    for unknown in [json!([{ "abc_route_type": "direct" }]), json!([{ "qurrent_route": "any" }, { "name": 1 }])] {
        let refused = read(&json!({ "extension_mandatory": unknown }).to_string()).unwrap_err();
        assert_eq!(refused.message, "not all extension_mandatory parameters are supported");
        assert_eq!(refused.reason, Reason::ExtensionUnknown);
    }
    let unmet = [
        json!([{ "qurrent_route": "scenic" }]),
        json!([{ "qurrent_route": 1 }]),
        json!([{ "qurrent_max_age": "5" }]),
        json!([{ "qurrent_max_age": -5 }]),
        json!([{ "qurrent_max_age": 5.5 }]),
        json!([{ "qurrent_min_hops": -1 }]),
        json!([{ "qurrent_max_hops": 33 }]),
        json!([{ "qurrent_paths": 9 }]),
        json!([{ "qurrent_wait": 60_001 }]),
        json!([{ "qurrent_priority": "first" }]),
        json!([{ "qurrent_wait": 1 }, { "qurrent_wait": 1 }]),
        json!([{ "qurrent_route": "direct", "qurrent_min_hops": 1 }]),
        json!([{ "qurrent_min_hops": 3 }, { "qurrent_max_hops": 2 }]),
    ];
    for list in unmet {
        let refused = read(&json!({ "extension_mandatory": list }).to_string()).unwrap_err();
        assert_eq!(refused.message, "not all extension_mandatory request options could be met", "{list}");
        assert_eq!(refused.reason, Reason::ExtensionUnmet);
        let request = read(&json!({ "extension_optional": list }).to_string());
        assert!(request.is_ok(), "the same is ignored as an option: {list}");
    }
}

#[test]
fn queries_take_two_numbers_each_once() {
    let request = KeyRequest::read_query("size=%351%32&number=02").unwrap();
    assert_eq!((request.number, request.size), (2, Some(512)));
    for query in [
        "number=",
        "number=x",
        "number=-1",
        "number=%2B1",
        "number=1.0",
        "number=1&number=1",
        "number=1&%6eumber=1",
        "number=4294967296",
        "size=0x8",
        "extension_mandatory=x",
        "number",
        "=",
        "number=%",
        "number=%zz",
        "number=%ff",
    ] {
        assert!(KeyRequest::read_query(query).is_err(), "{query}");
    }
    assert!(KeyIds::read_query(&format!("key_ID={ID}")).is_ok());
    for query in [
        String::new(),
        format!("key_ID={ID}&key_ID={ID}"),
        format!("key_id={ID}"),
        "key_ID=7".to_owned(),
        format!("x=1&key_ID={ID}"),
    ] {
        assert!(KeyIds::read_query(&query).is_err(), "{query}");
    }
}

#[test]
fn key_ids_are_taken_as_objects_with_anything_around_and_as_texts() {
    let id: KeyId = ID.parse().unwrap();
    for body in [
        json!({ "key_IDs": [{ "key_ID": ID }] }),
        json!({ "key_IDs": [ID] }),
        json!({ "key_IDs": [{ "key": "c2VjcmV0", "key_ID": ID, "key_extension": { "x": [] } }], "more": 1 }),
        json!({ "key_IDs": [{ "key_ID": ID, "key_ID_extension": {} }], "key_IDs_extension": {} }),
    ] {
        assert_eq!(KeyIds::read(body.to_string().as_bytes()), Ok(KeyIds(vec![id])), "{body}");
    }
    let many = vec![ID; KEY_IDS_MAX + 1];
    for body in [
        json!({}),
        json!({ "key_IDs": [] }),
        json!({ "key_IDs": ID }),
        json!({ "key_IDs": { "key_ID": ID } }),
        json!({ "key_IDs": [{}] }),
        json!({ "key_IDs": [{ "key_ID": 7 }] }),
        json!({ "key_IDs": [null] }),
        json!({ "key_IDs": [[ID]] }),
        json!({ "key_IDs": ["no-uuid"] }),
        json!({ "key_IDs": [ID.replace('-', "")] }),
        json!({ "key_IDs": [format!("{{{ID}}}")] }),
        json!({ "key_IDs": [ID, ID] }),
        json!({ "key_IDs": [ID, { "key_ID": ID.to_uppercase() }] }),
        json!({ "key_IDs": many }),
        json!([ID]),
    ] {
        let refused = KeyIds::read(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(refused.reason, Reason::Malformed, "{body:.80}");
    }
}

#[test]
fn paths_are_percent_decoded_once_and_only_inside_a_segment() {
    for (path, id) in [
        ("/api/v1/keys/app-west/status", "app-west"),
        ("/api/v1/keys/a%2Fb%20c/status", "a/b c"),
        ("/api/v1/keys/gr%C3%B6%C3%9Fe/status", "größe"),
        ("/api/v1/keys/50%25/status", "50%"),
        ("/api/v1/keys/%252F/status", "%2F"),
        ("/api/v1/keys/a+b/status", "a+b"),
        ("/api/v1/keys/status/status", "status"),
        ("/api/v1/keys/../status", ".."),
    ] {
        let resource = Resource::parse(path).unwrap();
        assert_eq!((resource.call, resource.sae()), (Call::Status, Ok(sae(id))), "{path}");
        assert_eq!(Resource::parse(&Resource::path(Call::Status, &sae(id))).unwrap().sae(), Ok(sae(id)));
    }
    for path in
        ["/api/v1/keys/x/statu", "/api/v1/keys//status", "/api/v1/keys/a/b/status", "/api/v1/keys/x/status/", "/"]
    {
        assert_eq!(Resource::parse(path), None, "{path}");
    }
    let long = format!("/api/v1/keys/{}/status", "x".repeat(129));
    for path in [
        "/api/v1/keys/%/status",
        "/api/v1/keys/%ff/status",
        "/api/v1/keys/%00/status",
        "/api/v1/keys/%20/status",
        &long,
    ] {
        assert!(Resource::parse(path).unwrap().sae().is_err(), "{path:.40}");
    }
}

#[test]
fn a_key_container_is_written_as_the_standard_shows_it() {
    let site = |name| SiteId::new(name).unwrap();
    let origin = KeyOrigin { paths: vec![vec![site("east"), site("west")]], hops: 0, combined: 1, age_ms: 12 };
    let keys = [
        SuppliedKey { id: ID.parse().unwrap(), key: SecretBytes::copy_of(&[0xff; 32]), origin: Some(origin) },
        SuppliedKey { id: ID.parse().unwrap(), key: SecretBytes::copy_of(&[0; 8]), origin: None },
    ];
    let body = write_container(&keys);
    let text = std::str::from_utf8(&body).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"keys":[{{"key_ID":"{ID}","key":"//////////////////////////////////////////8=","key_extension":{{"qurrent_origin":{{"paths":[["east","west"]],"hops":0,"combined":1,"age_ms":12}}}}}},{{"key_ID":"{ID}","key":"AAAAAAAAAAA="}}]}}"#
        )
    );
    assert_eq!(read_container(&body).unwrap(), keys);
    assert_eq!(&**write_container(&[]), br#"{"keys":[]}"#);
}

#[test]
fn key_containers_of_other_makers_are_read_and_broken_ones_refused_without_quoting_keys() {
    let escaped = format!(r#" {{"Keys":[{{"key":"\/\/8=","key_ID":"{ID}","key_extension":null,"x":1}}],"y":{{}}}}"#);
    let keys = read_container(escaped.as_bytes()).unwrap();
    assert_eq!(keys[0].key, SecretBytes::copy_of(&[0xff, 0xff]));
    for body in [
        "",
        "[]",
        r#"{"keys":{}}"#,
        "{}",
        r#"{"keys":[{"key_ID":"x","key":"c2VjcmV0"}]}"#,
        &format!(r#"{{"keys":[{{"key_ID":"{ID}","key":"c2VjcmV0!"}}]}}"#),
        &format!(r#"{{"keys":[{{"key_ID":"{ID}","key":"c2VjcmV0="}}]}}"#),
        &format!(r#"{{"keys":[{{"key_ID":"{ID}"}}]}}"#),
        &format!(r#"{{"keys":[{{"key_ID":"{ID}","key":["c2VjcmV0"]}}]}}"#),
    ] {
        let refused = read_container(body.as_bytes()).unwrap_err().to_string();
        assert!(!refused.contains("c2VjcmV0"), "{refused}");
    }
}

#[test]
fn errors_carry_the_text_and_the_code() {
    let body = ErrorBody::new(text::KEYS_NOT_FOUND, Reason::KeyNotFound).with("retry_after_s", 2);
    let written = String::from_utf8(body.write()).unwrap();
    assert_eq!(
        written,
        r#"{"message":"one or more keys specified are not found on KME","details":[{"reason":"key_not_found","retry_after_s":2}]}"#
    );
    let read = ErrorBody::read(written.as_bytes()).unwrap();
    assert_eq!((read.reason(), &read), (Some(Reason::KeyNotFound), &body));
    for other in [
        r#"{"message":"no"}"#,
        r#"{"message":"no","details":null}"#,
        r#"{"message":"no","details":{"reason":"later"}}"#,
    ] {
        assert_eq!(ErrorBody::read(other.as_bytes()).unwrap().reason(), None, "{other}");
    }
    assert_eq!(ErrorBody::read(b"<html>"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::messages(&bytes);
        fuzzing::target(&bytes);
    }

    #[test]
    fn bent_messages_are_read_or_refused(
        which in 0..4_usize,
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = [
            r#"{"number":2,"size":64,"additional_slave_SAE_IDs":["a"],"extension_mandatory":[{"qurrent_wait":5}]}"#.to_owned(),
            format!(r#"{{"key_IDs":[{{"key_ID":"{ID}","key_ID_extension":{{}}}},"{ID}"]}}"#),
            format!(r#"{{"keys":[{{"key_ID":"{ID}","key":"AAAAAAAAAAA=","key_extension":{{"qurrent_origin":{{"paths":[["a"]],"hops":1,"age_ms":2}}}}}}]}}"#),
            r#"{"message":"no","details":[{"reason":"busy"}]}"#.to_owned(),
        ];
        let mut bytes = good[which].clone().into_bytes();
        for (at, byte) in bends {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzzing::messages(&bytes);
    }
}
