//! The tree against pinned JSON; paths; notifications.

use serde_json::{Value, json};

use super::*;

fn id(name: &str) -> Uuid {
    stable_id("shanxi", "test", name)
}

fn node() -> Node {
    let link = Link {
        qkdl_id: id("link"),
        qkdl_status: LinkStatus::Active,
        qkdl_enable: true,
        qkdl_local: InterfaceEnd { qkdn_id: id("east"), qkdi_id: Some(1) },
        qkdl_remote: InterfaceEnd { qkdn_id: id("west"), qkdi_id: Some(2) },
        qkdl_type: LinkType::Physical,
        qkdl_applications: vec![id("app")],
        virt_prev_hop: None,
        virt_next_hop: Vec::new(),
        phys_channel_att: Some(Millis(10_050)),
        phys_wavelength: Some(Millis(1_550_120)),
        phys_qkd_role: Some(QkdRole::Transmitter),
        qkdl_performance: Performance {
            expected_consumption: Some(512),
            skr: Some(4_096),
            eskr: Some(3_000),
            phys_perf: vec![PhysicalPerformance { perf_type: PerfType::Qber, value: Millis::nearest(0.0312) }],
        },
    };
    let app = Application {
        app_id: id("app"),
        app_status: AppStatus::On,
        app_type: AppType::Client,
        server_app_id: "urn:qurrent:sae:a".to_owned(),
        client_app_id: vec!["urn:qurrent:sae:b".to_owned()],
        app_priority: 0,
        creation_time: "2026-11-22T04:00:00Z".to_owned(),
        app_statistics: Statistics {
            statistics: vec![StatisticsInterval {
                end_time: "2026-11-22T04:15:00Z".to_owned(),
                start_time: "2026-11-22T04:00:00Z".to_owned(),
                consumed_bits: 256,
            }],
        },
        backing_qkdl_id: vec![id("link")],
        local_qkdn_id: id("east"),
        remote_qkdn_id: id("west"),
    };
    let interface = Interface {
        qkdi_id: 1,
        qkdi_status: InterfaceStatus::Enabled,
        qkdi_model: "simulated".to_owned(),
        qkdi_type: InterfaceType::DiscreteVariables,
        qkdi_att_point: AttachmentPoint { device: "east".to_owned(), port: "east-west".to_owned() },
        qkdi_capabilities: InterfaceCapabilities {
            role_support: RoleSupport::Transmitter,
            wavelength_range: "1550.12".to_owned(),
        },
    };
    Node {
        qkdn_id: id("east"),
        qkdn_status: NodeStatus::Operating,
        qkdn_version: "0.1.0".to_owned(),
        qkdn_location_id: "East".to_owned(),
        qkdn_capabilities: Capabilities {
            link_stats_support: true,
            application_stats_support: true,
            key_relay_mode_enable: true,
        },
        qkd_applications: Applications { qkd_app: vec![app] },
        qkd_interfaces: Interfaces { qkd_interface: vec![interface] },
        qkd_links: Links { qkd_link: vec![link] },
    }
}

#[test]
fn the_tree_is_pinned() {
    let text = serde_json::to_string_pretty(&node()).unwrap();
    assert_eq!(text, include_str!("pinned.json").trim_end());
}

#[test]
fn ids_are_stable_and_say_whose_they_are() {
    assert_eq!(stable_id("shanxi", "node", "taiyuan").to_string(), "abe146c2-6e5d-8332-bb79-1afca9a55fd2");
    assert_ne!(stable_id("shanxi", "node", "a"), stable_id("shanxi", "link", "a"));
    assert_ne!(stable_id("shanxi", "node", "a"), stable_id("hebei", "node", "a"));
    assert_ne!(stable_id("ab", "node", "c"), stable_id("a", "bnode", "c"), "parts do not run into each other");
    assert_eq!(id("x").get_version_num(), 8);
}

#[test]
fn decimals_have_three_digits() {
    for (value, text) in [(0.0312, "0.031"), (-1.5, "-1.500"), (0.0, "0.000"), (12.3456, "12.346"), (f64::NAN, "0.000")]
    {
        assert_eq!(serde_json::to_value(Millis::nearest(value)).unwrap(), text);
    }
}

#[test]
fn paths_select() {
    let tree = serde_json::to_value(node()).unwrap();
    let root = "etsi-qkd-sdn-node:qkd_node";
    let at = |path: &str| select(&tree, &format!("{root}{path}"));
    assert_eq!(at("").unwrap(), json!({ "etsi-qkd-sdn-node:qkd_node": tree }));
    assert_eq!(at("/").unwrap(), at("").unwrap());
    assert_eq!(at("/qkdn_version").unwrap(), json!({ "etsi-qkd-sdn-node:qkdn_version": "0.1.0" }));
    let link = format!("/qkd_links/qkd_link={}", id("link"));
    assert_eq!(at(&link).unwrap()["etsi-qkd-sdn-node:qkd_link"][0], tree["qkd_links"]["qkd_link"][0]);
    assert_eq!(at(&format!("{link}/qkdl_performance/skr")).unwrap(), json!({ "etsi-qkd-sdn-node:skr": 4_096 }));
    for key in ["QBER", "etsi-qkd-node-types%3AQBER"] {
        let found = at(&format!("{link}/qkdl_performance/phys_perf={key}/value")).unwrap();
        assert_eq!(found, json!({ "etsi-qkd-sdn-node:value": "0.031" }));
    }
    assert!(at("/qkd_interfaces/qkd_interface=1/qkdi_model").is_ok());
    assert!(at("/etsi-qkd-sdn-node:qkd_interfaces").is_ok());
    let end = "/app_statistics/statistics=2026-11-22T04%3A15%3A00Z/consumed_bits";
    let found = at(&format!("/qkd_applications/qkd_app={}{end}", id("app"))).unwrap();
    assert_eq!(found, json!({ "etsi-qkd-sdn-node:consumed_bits": 256 }));
}

#[test]
fn wrong_paths_are_refused() {
    let tree = serde_json::to_value(node()).unwrap();
    for (path, missing) in [
        ("", true),
        ("qkd_node", true),
        ("other:qkd_node", true),
        ("etsi-qkd-sdn-node:qkd_node/nothing", true),
        ("etsi-qkd-sdn-node:qkd_node//qkd_links", true),
        ("etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link=00000000-0000-0000-0000-000000000000", true),
        ("etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link/qkdl_id", false),
        ("etsi-qkd-sdn-node:qkd_node/qkd_links=1", false),
        ("etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link=%zz", false),
        ("etsi-qkd-sdn-node:qkd_node/qkdn_version/more", true),
    ] {
        let error = select(&tree, path).unwrap_err();
        assert_eq!(matches!(error, ResourceError::Missing(_)), missing, "{path}: {error}");
    }
    proptest::proptest!(|(path in "(etsi-qkd-sdn-node:qkd_node/)?[a-z_=/%0-9:]{0,60}")| {
        drop(select(&tree, &path));
    });
}

#[test]
fn notifications_are_pinned() {
    let at = "2026-11-22T04:00:00Z";
    let text = envelope(at, &Notification::LinkDown { qkdl_id: Uuid::nil() });
    let expected = r#"{"ietf-restconf:notification":{"eventTime":"2026-11-22T04:00:00Z","etsi-qkd-sdn-node:sdqkdn_link_down":{"qkd_link":{"qkdl_id":"00000000-0000-0000-0000-000000000000"}}}}"#;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::from_str::<Value>(expected).unwrap());
    let alarm = Alarm { subject: AlarmSubject::Interface(3), message: "blinded".to_owned(), severity: Severity::Major };
    let value: Value = serde_json::from_str(&envelope(at, &Notification::Alarm(alarm))).unwrap();
    let content = &value["ietf-restconf:notification"]["etsi-qkd-sdn-node:alarm"];
    assert_eq!(
        *content,
        json!({ "interface": { "qkdi_id": 3 }, "message": "blinded", "severity": "etsi-qkd-node-types:MAJOR" })
    );
    let new = envelope(at, &Notification::ApplicationNew(Box::new(node().qkd_applications.qkd_app[0].clone())));
    assert!(new.contains("\"server_app_id\":\"urn:qurrent:sae:a\""), "{new}");
}

#[test]
fn small_changes_are_not_worth_a_message() {
    let base = node().qkd_links.qkd_link[0].qkdl_performance.clone();
    let with = |change: fn(&mut Performance)| {
        let mut changed = base.clone();
        change(&mut changed);
        changed.differs_from(&base)
    };
    assert!(!with(|_| ()));
    assert!(!with(|p| p.skr = Some(4_200)));
    assert!(with(|p| p.skr = Some(5_000)));
    assert!(with(|p| p.eskr = None));
    assert!(!with(|p| p.phys_perf[0].value = Millis(33)));
    assert!(with(|p| p.phys_perf[0].value = Millis(40)));
    assert!(with(|p| p.phys_perf.clear()));
}

#[test]
fn errors_are_restconf() {
    let body = error_body(ErrorTag::AccessDenied, "no");
    let expected = json!({ "error-type": "application", "error-tag": "access-denied", "error-message": "no" });
    assert_eq!(body["ietf-restconf:errors"]["error"][0], expected);
    assert_eq!(ErrorTag::OperationNotSupported.status(), 405);
}
