//! `qurrent link rate`: tables, curves and pictures of expected key rates.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{fails, json, ok, run, str_of};

fn shanxi() -> String {
    str_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../networks/shanxi.toml")).to_owned()
}

/// Points of a curve as (km, bit/s).
fn points(curve: &Value) -> Vec<(f64, f64)> {
    let points = curve["points"].as_array().unwrap();
    points.iter().map(|point| (point["km"].as_f64().unwrap(), point["secret_bit_s"].as_f64().unwrap())).collect()
}

#[test]
fn a_network_is_a_table_of_its_links() {
    let rows = json(&["link", "rate", "--network", &shanxi(), "--json"]);
    let rows = rows.as_array().unwrap();
    let lengths: Vec<_> = rows.iter().map(|row| row["length_km"].as_f64().unwrap()).collect();
    assert_eq!(lengths, [50.0, 80.0, 120.0, 150.0, 180.0]);
    assert_eq!(rows[0]["proof"], "lim2014");
    assert!((rows[0]["secret_bit_s"].as_f64().unwrap() - 4_487.0).abs() < 5.0);
    let best = json(&["link", "rate", "--network", &shanxi(), "--optimise", "--json"]);
    assert!(best[0]["secret_bit_s"].as_f64().unwrap() >= rows[0]["secret_bit_s"].as_f64().unwrap());
    let text = ok(&["link", "rate", "--network", &shanxi()]);
    assert!(text.contains("changzhi-linfen") && text.contains("secret bit/s"), "{text}");
}

#[test]
fn protocols_are_curves_over_distance() {
    let said = json(&[
        "link",
        "rate",
        "--hardware",
        "gys",
        "--leak-factor",
        "1.22",
        "--protocol",
        "bb84-asymptotic",
        "--protocol",
        "plob",
        "--from",
        "20",
        "--to",
        "160",
        "--step",
        "20",
        "--json",
    ]);
    let curves = said["curves"].as_array().unwrap();
    assert_eq!(curves.len(), 2);
    let rates = points(&curves[0]);
    assert_eq!(rates.len(), 8);
    assert!(rates.windows(2).all(|pair| pair[1].1 <= pair[0].1));
    // Ma et al. 2005 at a fixed intensity of 0.48: 9.624524e-4 bits per pulse at 20 km, no key beyond 142 km.
    let first = curves[0]["points"][0]["secret_bit_per_pulse"].as_f64().unwrap();
    assert!((first / 9.624_524e-4 - 1.0).abs() < 1e-5, "{first}");
    assert!(rates.iter().all(|(km, rate)| (*rate > 0.0) == (*km < 142.0)));
    assert!(points(&curves[1]).iter().zip(&rates).all(|(limit, rate)| limit.1 > rate.1));
    assert!(curves[0]["sifting"].as_str().unwrap().contains("bases"));
}

#[test]
fn a_network_gives_curves_their_hardware() {
    let network = shanxi();
    let args =
        ["link", "rate", "--network", &network, "--link", "changzhi-linfen", "--from", "180", "--to", "180", "--json"];
    let said = json(&args);
    assert_eq!(said["curves"][0]["protocol"], "bb84-lim2014");
    assert!((points(&said["curves"][0])[0].1 - 520.0).abs() < 2.0);
    let said = fails(&["link", "rate", "--network", &network, "--link", "moon"]);
    assert!(said.contains("moon") && said.contains("changzhi-linfen"), "{said}");
}

#[test]
fn curves_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let (svg, png) = (dir.path().join("rates.svg"), dir.path().join("rates.png"));
    let text = ok(&[
        "link",
        "rate",
        "--proof",
        "lim2014",
        "--proof",
        "wiesemann2026",
        "--step",
        "20",
        "--svg",
        str_of(&svg),
        "--png",
        str_of(&png),
    ]);
    assert!(text.contains("rates.svg") && text.contains("rates.png"), "{text}");
    let svg = fs::read_to_string(svg).unwrap();
    for part in ["fibre length (km)", "secret key rate (bit/s)", "Lim et al. 2014", "Wiesemann", "Pirandola"] {
        assert!(svg.contains(part), "{part} is not in the picture");
    }
    let png = fs::read(png).unwrap();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(png[16..24], [0, 0, 9, 96, 0, 0, 5, 240], "2,400 by 1,520 pixels");
    assert!(png.len() > 10_000, "there is something on it: {} bytes", png.len());
    let nowhere = dir.path().join("nowhere/rates.png");
    let said = fails(&["link", "rate", "--step", "50", "--png", str_of(&nowhere)]);
    assert!(said.contains("nowhere/rates.png"), "{said}");
}

#[test]
fn wrong_usage_ends_with_code_2() {
    let network = shanxi();
    for (args, part) in [
        (&["--protocol", "e91"][..], "bb84-lim2014"),
        (&["--proof", "lim2013"], "wiesemann2026"),
        (&["--hardware", "s9"], "gys"),
        (&["--from", "100", "--to", "50"], "swap"),
        (&["--step", "0"], "0.01"),
        (&["--to", "2000", "--step", "0.01"], "--step"),
        (&["--leak-factor", "0.9"], "from 1 to 2"),
        (&["--block-bits", "10"], "10"),
        (&["--png", "rates.jpg"], ".png"),
        (&["--link", "taiyuan-jinzhong"], "--network"),
        (&["--hardware", "s1", "--network", &network], "--network"),
    ] {
        let output = run(&[&["link", "rate"], args].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}
