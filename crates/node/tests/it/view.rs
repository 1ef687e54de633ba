//! ETSI GS QKD 015 over RESTCONF: what a controller reads and hears, and who else does not.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::skip::{ask, configure, start};
use crate::world::{World, str_of, wait_until};

const ROOT: &str = "/restconf/data/etsi-qkd-sdn-node:qkd_node";

struct Stream(Child);

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_controller_reads_the_node_and_hears_of_changes() {
    let mut world = World::provision();
    configure(&world, "east", |config| {
        config.insert("controllers".to_owned(), toml::Value::Array(vec!["vault-east".into()]));
    });
    start(&mut world);
    let read = |path: &str| ask(&world, "east", "vault-east", path, &[]);

    // The view follows the site's reports, which come twice a second.
    let is_there = |body: &Value| {
        let links = body["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"].as_array();
        let makes = |link: &Value| link["qkdl_performance"]["skr"].as_u64().is_some_and(|rate| rate > 0);
        let has_way = |link: &Value| link["virt_next_hop"][0].is_string();
        links.is_some_and(|links| links.iter().any(makes) && links.iter().any(has_way))
    };
    wait_until(Duration::from_secs(20), "a link that makes key, and a way over it", || is_there(&read(ROOT).1));
    let (code, body) = read(ROOT);
    assert_eq!(code, 200, "{body}");
    let node = &body["etsi-qkd-sdn-node:qkd_node"];
    assert_eq!(node["qkdn_status"], "etsi-qkd-node-types:OPERATING");
    assert_eq!(node["qkdn_location_id"], "East");
    let links = node["qkd_links"]["qkd_link"].as_array().unwrap();
    let of_type = |kind: &str| links.iter().find(|link| link["qkdl_type"] == format!("etsi-qkd-node-types:{kind}"));
    let link = of_type("PHYS").unwrap();
    assert_eq!(link["qkdl_status"], "etsi-qkd-node-types:ACTIVE");
    assert_eq!(link["phys_channel_att"], "10.000");
    assert!(link["qkdl_performance"]["skr"].as_u64().unwrap() > 0, "{link}");
    assert!(link["qkdl_performance"]["eskr"].as_u64() <= link["qkdl_performance"]["skr"].as_u64(), "{link}");
    assert!(of_type("VIRT").is_some(), "east and west need the relay: {links:?}");
    let middle = link["qkdl_remote"]["qkdn_id"].as_str().unwrap();
    assert_eq!(of_type("VIRT").unwrap()["virt_next_hop"][0], middle);

    let id = link["qkdl_id"].as_str().unwrap();
    let (code, one) = read(&format!("{ROOT}/qkd_links/qkd_link={id}"));
    assert_eq!((code, &one["etsi-qkd-sdn-node:qkd_link"][0]["qkdl_id"]), (200, &Value::from(id)));
    assert_eq!(read(&format!("{ROOT}/qkd_interfaces/qkd_interface=1")).0, 200);
    assert_eq!(read("/restconf").0, 200);
    others_are_refused(&world, id);

    // The stream, into a file. What happens after its beginning arrives there.
    let heard = world.dir.path().join("stream");
    let file = |name: &str| str_of(&world.sae("east", "vault-east").join(name)).to_owned();
    let url = format!("https://{}/restconf/streams/etsi-qkd-sdn-node", world.listen("east", "kme"));
    let child = Command::new("curl")
        .args(["-sSN", "--cacert", &file("ca.pem"), "--cert", &file("cert.pem"), "--key", &file("key.pem"), &url])
        .args(["--include"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&heard).unwrap())
        .spawn()
        .unwrap();
    let _stream = Stream(child);
    let hears = |what: &str| fs::read_to_string(&heard).unwrap().contains(what);
    wait_until(Duration::from_secs(10), "the stream", || hears("text/event-stream"));
    assert_eq!(ask(&world, "east", "app-east", "/api/v1/keys/app-west/enc_keys", &[]).0, 200);
    wait_until(Duration::from_secs(20), "the new application", || hears("sdqkdn_application_new"));
    let (_, apps) = read(&format!("{ROOT}/qkd_applications"));
    let app = &apps["etsi-qkd-sdn-node:qkd_applications"]["qkd_app"][0];
    assert_eq!(app["server_app_id"], "urn:qurrent:sae:app-east");
    assert_eq!(app["app_statistics"]["statistics"][0]["consumed_bits"], 256);

    world.kill_9("middle");
    wait_until(Duration::from_secs(40), "the link's end", || hears("sdqkdn_link_down"));
    let text = fs::read_to_string(&heard).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let all: Vec<_> = events.collect();
    assert!(all.len() >= 2 && all.iter().all(|event| event["ietf-restconf:notification"]["eventTime"].is_string()));
    let (_, down) = ask(&world, "east", "vault-east", &format!("{ROOT}/qkd_links/qkd_link={id}/qkdl_status"), &[]);
    let status = down["etsi-qkd-sdn-node:qkdl_status"].as_str().unwrap();
    assert!(["etsi-qkd-node-types:PASSIVE", "etsi-qkd-node-types:OFF"].contains(&status), "{status}");
}

fn others_are_refused(world: &World, link: &str) {
    let error = |body: &Value| body["ietf-restconf:errors"]["error"][0]["error-tag"].as_str().unwrap().to_owned();
    let (code, body) = ask(world, "east", "app-east", ROOT, &[]);
    assert_eq!((code, error(&body).as_str()), (403, "access-denied"));
    // At another site the same certificate is no controller.
    let path = world.sae("east", "vault-east");
    assert!(path.is_dir());
    assert_eq!(ask(world, "west", "vault-west", ROOT, &[]).0, 403);
    let put = ["--request", "PUT", "--data", "{}"];
    let (code, body) = ask(world, "east", "vault-east", &format!("{ROOT}/qkd_links/qkd_link={link}"), &put);
    assert_eq!((code, error(&body).as_str()), (405, "operation-not-supported"));
    for (path, more, expected) in [
        (format!("{ROOT}/nothing"), &[][..], 404),
        (format!("{ROOT}/qkd_links/qkd_link=%zz"), &[], 400),
        (format!("{ROOT}?depth=1"), &[], 400),
        ("/restconf/data/ietf-system:system".to_owned(), &[], 404),
        ("/restconf/streams/other".to_owned(), &[], 404),
        (ROOT.to_owned(), &["--header", "Accept: application/yang-data+xml"], 406),
    ] {
        let (code, body) = ask(world, "east", "vault-east", &path, more);
        assert_eq!(code, expected, "{path}: {body}");
        assert!(!error(&body).is_empty());
    }
}
