//! ETSI GS QKD 014 with curl: a key taken at one site, the same key by its id at the other.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{World, str_of};

fn curl(world: &World, site: &str, sae: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let folder = world.sae(site, sae);
    let file = |name: &str| str_of(&folder.join(name)).to_owned();
    let url = format!("https://{}{path}", world.listen(site, "kme"));
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--write-out", "\n%{http_code}", "--cacert", &file("ca.pem")]);
    command.args(["--cert", &file("cert.pem"), "--key", &file("key.pem"), &url]);
    if let Some(body) = body {
        command.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
    }
    let out = crate::world::ok_of(&mut command);
    let (text, code) = out.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(text).unwrap_or_default())
}

#[test]
fn curl_takes_a_key_in_the_east_and_finds_it_by_id_in_the_west() {
    let world = World::start();
    let east = |path: &str, body: Option<&Value>| curl(&world, "east", "app-east", path, body);
    let west = |path: &str, body: Option<&Value>| curl(&world, "west", "app-west", path, body);

    let (code, status) = east("/api/v1/keys/app-west/status", None);
    assert_eq!(code, 200);
    assert_eq!(status["source_KME_ID"], "east");
    assert_eq!(status["target_KME_ID"], "west");
    assert_eq!(status["key_size"], 256);

    // The GET form and the POST form; the keys cross the relay in the middle.
    let (code, taken) = east("/api/v1/keys/app-west/enc_keys", None);
    assert_eq!(code, 200, "{taken}");
    let (code, more) = east("/api/v1/keys/app-west/enc_keys", Some(&json!({ "number": 3, "size": 512 })));
    assert_eq!(code, 200, "{more}");
    assert_eq!(more["keys"].as_array().unwrap().len(), 3);

    let id = taken["keys"][0]["key_ID"].as_str().unwrap();
    let (code, found) = west(&format!("/api/v1/keys/app-east/dec_keys?key_ID={id}"), None);
    assert_eq!(code, 200, "{found}");
    assert_eq!(found["keys"][0]["key"], taken["keys"][0]["key"]);
    let ids: Vec<_> = more["keys"].as_array().unwrap().iter().map(|key| json!({ "key_ID": key["key_ID"] })).collect();
    let (code, rest) = west("/api/v1/keys/app-east/dec_keys", Some(&json!({ "key_IDs": ids })));
    assert_eq!(code, 200, "{rest}");
    for (collected, taken) in rest["keys"].as_array().unwrap().iter().zip(more["keys"].as_array().unwrap()) {
        assert_eq!((&collected["key_ID"], &collected["key"]), (&taken["key_ID"], &taken["key"]));
        // The way that the key came is told to both; only the moment by which they ask differs.
        let (collected, taken) =
            (&collected["key_extension"]["qurrent_origin"], &taken["key_extension"]["qurrent_origin"]);
        assert_eq!(taken["paths"], json!([["east", "middle", "west"]]));
        assert_eq!((&collected["paths"], &collected["hops"], &taken["hops"]), (&taken["paths"], &json!(1), &json!(1)));
        assert!(collected["age_ms"].as_u64() >= taken["age_ms"].as_u64());
    }

    refusals_consume_nothing(&world, &ids, id);
    the_relay_saw_only_sealed_keys(&world, taken["keys"][0]["key"].as_str().unwrap());
}

/// Every way to ask wrongly: 4xx, a JSON body with the standard's text, and the stock is as before.
fn refusals_consume_nothing(world: &World, spent: &[Value], id: &str) {
    let east = |path: &str, body: Option<&Value>| curl(world, "east", "app-east", path, body);
    let west = |path: &str, body: Option<&Value>| curl(world, "west", "app-west", path, body);
    let (code, body) = west(&format!("/api/v1/keys/app-east/dec_keys?key_ID={id}"), None);
    assert_eq!(code, 400);
    assert_eq!(body["message"], "one or more keys specified are not found on KME");
    let (code, _) = west("/api/v1/keys/app-east/dec_keys", Some(&json!({ "key_IDs": spent })));
    assert_eq!(code, 400);

    let wrong = [
        ("/api/v1/keys/app-west/enc_keys", json!({ "size": 257 })),
        ("/api/v1/keys/app-west/enc_keys", json!({ "size": 0 })),
        ("/api/v1/keys/app-west/enc_keys", json!({ "number": 0 })),
        ("/api/v1/keys/app-west/enc_keys", json!({ "number": "2" })),
        ("/api/v1/keys/app-west/enc_keys", json!({ "number": -1 })),
        ("/api/v1/keys/app-west/enc_keys", json!([1])),
        ("/api/v1/keys/app-west/enc_keys", json!({ "extension_mandatory": [{ "abc_route_type": "direct" }] })),
        ("/api/v1/keys/nobody/enc_keys", json!({})),
        ("/api/v1/keys/app-east/enc_keys", json!({})),
        ("/api/v1/keys/app-west/dec_keys", json!({ "key_IDs": [{ "key_ID": "no-uuid" }] })),
        ("/api/v1/keys/app-west/dec_keys", json!({})),
    ];
    for (path, body) in &wrong {
        let (code, answer) = east(path, Some(body));
        assert!((400..500).contains(&code), "{path} {body}: {code} {answer}");
        assert!(answer["message"].is_string(), "{path} {body}: {answer}");
    }
    let (_, before) = east("/api/v1/keys/app-west/status", None);
    for (path, body) in &wrong {
        east(path, Some(body));
    }
    let (_, after) = east("/api/v1/keys/app-west/status", None);
    // The background relay may add keys meanwhile; refusals must not take any.
    assert!(after["stored_key_count"].as_u64() >= before["stored_key_count"].as_u64(), "{before} {after}");

    // A key of east and west is nothing for an SAE of the middle.
    let (code, taken) = east("/api/v1/keys/app-west/enc_keys", None);
    assert_eq!(code, 200, "{taken}");
    let id = taken["keys"][0]["key_ID"].as_str().unwrap();
    let (code, _) = curl(world, "middle", "app-middle", &format!("/api/v1/keys/app-east/dec_keys?key_ID={id}"), None);
    assert!((400..500).contains(&code), "{code}");
    let (code, found) = west(&format!("/api/v1/keys/app-east/dec_keys?key_ID={id}"), None);
    assert_eq!((code, &found["keys"][0]["key"]), (200, &taken["keys"][0]["key"]));
}

/// No file of any site holds a supplied key in clear, neither raw nor as base64 or hexadecimal text.
fn the_relay_saw_only_sealed_keys(world: &World, key_base64: &str) {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.decode(key_base64).unwrap();
    let images = [key.clone(), hex::encode(&key).into_bytes(), key_base64.as_bytes().to_vec()];
    let mut folders = vec![world.dir.path().to_path_buf()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                assert!(!holds(&path, &images), "{} holds a key in clear", path.display());
            }
        }
    }
    assert!(files > 20);
}

fn holds(path: &Path, images: &[Vec<u8>]) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    images.iter().any(|image| bytes.windows(image.len()).any(|window| window == image.as_slice()))
}
