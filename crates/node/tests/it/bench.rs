//! `qurrent bench kms` with tiny sizes: every row is there with a number and a bar. No figure is judged.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{ok_of, run};

/// Every row of the group, in order.
const ROWS: [&str; 17] = [
    "kms.enc_one.per_cpu_s",
    "kms.enc_two.per_cpu_s",
    "kms.p99_ms",
    "kms.dec.per_cpu_s",
    "kms.status.per_cpu_s",
    "kms.silent.p99_ms",
    "kms.handshake.vs_nginx",
    "kms.enc_one.vs_kme",
    "kms.enc_two.vs_kme",
    "kms.dec.vs_kme",
    "kms.status.vs_kme",
    "kms.pool_growth",
    "kms.rss_mb",
    "relay.keys_per_cpu_s",
    "relay.jain",
    "relay.worst_pair",
    "relay.failover_ms",
];

#[test]
fn every_figure_of_key_management_can_be_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ok_of(&mut Command::new(root.join("tests/peers/install.sh")));
    let output = run(&["bench", "kms", "--smoke", "--json"]);
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let rows: Value = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("{error}: {printed}\n{}", String::from_utf8_lossy(&output.stderr)));
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ROWS);
    let mut all_measured = true;
    for row in rows {
        assert!(row["bar"].is_f64() && !row["how"].as_str().unwrap().is_empty(), "{row}");
        if row["value"].is_null() && row["name"].as_str().unwrap().ends_with(".vs_kme") {
            // The rival is not built for the tests; its rows say how to build it.
            assert!(row["how"].as_str().unwrap().contains("tests/peers/kme.sh") && row["met"].is_null(), "{row}");
            all_measured = false;
            continue;
        }
        assert!(row["value"].as_f64().is_some_and(f64::is_finite) && row["met"].is_boolean(), "{row}");
    }
    // Bars do not count here; what could not be measured does.
    assert_eq!(output.status.code(), Some(if all_measured { 0 } else { 2 }), "{output:?}");
}
