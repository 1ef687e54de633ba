//! Monte Carlo against the closed form, determinism, and the corners of the dead time.

use proptest::prelude::*;

use super::*;
use crate::Source;
use crate::model::{Afterpulses, Expected};

const SIGMAS: f64 = 4.0;

struct Setting {
    hardware: Hardware,
    length: Kilometres,
    decoy: DecoySettings,
}

impl Setting {
    fn channel(&self, seed: u8) -> (Source, Channel) {
        let alice = Source::new(&self.decoy, [seed; 32]);
        let channel =
            Channel::new(&self.hardware, self.length, &self.decoy, alice.emission(), [seed.wrapping_add(100); 32]);
        (alice, channel)
    }

    fn slots(&self, seconds: f64) -> Slot {
        Slot(slots(seconds * self.hardware.clock_hz))
    }
}

/// Links of `networks/shanxi.toml`.
fn link(km: f64) -> Setting {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
    let network = types::network::Network::parse(text).unwrap();
    let link = network.links().values().find(|link| link.length.0 == km).unwrap();
    Setting { hardware: link.hardware.clone(), length: link.length, decoy: link.decoy.clone() }
}

/// A short link of bright pulses, noisy detectors and much afterpulsing: many doubles, every term visible.
fn coarse() -> Setting {
    Setting {
        hardware: Hardware {
            clock_hz: 1e6,
            attenuation_db_per_km: 0.2,
            efficiency: 0.2,
            dark_count_hz: 2e5,
            gate_ns: 10.0,
            misalignment: 0.05,
            dead_time_us: 7.0,
            afterpulse: 0.03,
        },
        length: Kilometres(20.0),
        decoy: DecoySettings {
            key_basis: 0.6,
            intensities: [0.5, 0.2, 1e-3],
            probabilities: [0.4, 0.35, 0.25],
            block_bits: 1_000_000,
        },
    }
}

/// Counts as Alice and Bob together would find them after comparing everything.
#[derive(Default)]
struct Tally {
    key: [u32; 3],
    key_errors: [u32; 3],
    test: [u32; 3],
    test_errors: [u32; 3],
    mismatched: u32,
    mismatched_errors: u32,
    ones: u32,
}

impl Tally {
    fn of(alice: &Source, clicks: &[Detection]) -> Self {
        let mut tally = Self::default();
        for click in clicks {
            let sent = alice.prepare(click.slot);
            let k = sent.intensity.index();
            let error = u32::from(sent.bit != click.bit);
            tally.ones += u32::from(click.bit);
            match (sent.basis, click.basis) {
                (Basis::Key, Basis::Key) => {
                    tally.key[k] += 1;
                    tally.key_errors[k] += error;
                }
                (Basis::Test, Basis::Test) => {
                    tally.test[k] += 1;
                    tally.test_errors[k] += error;
                }
                _ => {
                    tally.mismatched += 1;
                    tally.mismatched_errors += error;
                }
            }
        }
        tally
    }
}

#[track_caller]
fn near(what: &str, count: f64, mean: f64) {
    let sigma = mean.max(1.0).sqrt();
    assert!((count - mean).abs() <= SIGMAS * sigma, "{what}: {count} counted, {mean} expected, sigma {sigma}");
}

fn against_model(setting: &Setting, seconds: f64, seed: u8, merged: f64) {
    let (alice, mut channel) = setting.channel(seed);
    let mut clicks = Vec::new();
    channel.run_until(setting.slots(seconds), &mut clicks);
    let tally = Tally::of(&alice, &clicks);
    let counts = channel.counts();
    let expected = Expected::of(&setting.hardware, setting.length, &setting.decoy, Afterpulses::Later);

    // `merged`: share of the clicks that the closed form counts twice, see the tests.
    let scale = seconds * (1.0 - merged);
    for k in 0..3 {
        near(&format!("n_X,{k}"), f64::from(tally.key[k]), expected.key_per_s[k] * scale);
        near(&format!("errors in X,{k}"), f64::from(tally.key_errors[k]), expected.key_errors_per_s[k] * scale);
        near(&format!("n_Z,{k}"), f64::from(tally.test[k]), expected.test_per_s[k] * scale);
        near(&format!("m_Z,{k}"), f64::from(tally.test_errors[k]), expected.test_errors_per_s[k] * scale);
    }
    let all = counts.clicks as f64;
    assert_eq!(counts.clicks, clicks.len() as u64);
    near("clicks", all, expected.clicks_per_s * scale);
    near("doubles", counts.doubles as f64, expected.doubles_per_s * scale);
    assert_eq!(counts.doubles, clicks.iter().filter(|click| click.double).count() as u64);
    near("ones", f64::from(tally.ones), all / 2.0);
    near("errors in unlike bases", f64::from(tally.mismatched_errors), f64::from(tally.mismatched) / 2.0);
    let q = setting.decoy.key_basis;
    near("unlike bases", f64::from(tally.mismatched), 2.0 * q * (1.0 - q) * all);
    near(
        "afterpulses",
        counts.afterpulse as f64,
        all * setting.hardware.afterpulse / (1.0 + setting.hardware.afterpulse),
    );
    let p_dc = model::dark_probability(&setting.hardware);
    let dark = 2.0 * p_dc * setting.hardware.clock_hz * expected.live_fraction * scale;
    // A dark count together with a photon is not counted as dark; their product is the difference.
    near(
        "dark",
        counts.dark as f64,
        dark * (1.0 - expected.clicks_per_s / setting.hardware.clock_hz / expected.live_fraction),
    );
    // The live fraction is what the clicks leave; its spread is theirs.
    let spread = SIGMAS * (1.0 - expected.live_fraction) / all.sqrt();
    assert!((counts.live_fraction() - expected.live_fraction).abs() <= spread + merged, "{counts:?}");
}

#[test]
fn saturated_link_agrees_with_the_model() {
    against_model(&link(50.0), 30.0, 1, 0.0);
}

#[test]
fn middle_link_agrees_with_the_model() {
    against_model(&link(120.0), 40.0, 2, 0.0);
}

#[test]
fn long_link_agrees_with_the_model() {
    against_model(&link(180.0), 100.0, 3, 0.0);
}

#[test]
fn doubles_and_noise_agree_with_the_model() {
    // Afterpulse and photon in the same slot are one click: p_ap D of the clicks, 3 % of 0.9 %.
    against_model(&coarse(), 40.0, 4, 3e-4);
}

#[test]
fn same_seeds_same_records() {
    let setting = link(80.0);
    let run = |seed| {
        let mut out = Vec::new();
        setting.channel(seed).1.run_until(setting.slots(0.05), &mut out);
        out
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

/// Pins the record stream: a change here changes every stored transcript and needs a reason.
#[test]
fn records_are_pinned() {
    let setting = link(50.0);
    let mut out = Vec::new();
    setting.channel(7).1.run_until(setting.slots(0.1), &mut out);
    let mut digest = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
    for click in &out {
        let flags = u8::from(click.bit) | u8::from(click.basis == Basis::Key) << 1 | u8::from(click.double) << 2;
        for byte in click.slot.0.to_be_bytes().into_iter().chain([flags]) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!((out.len(), digest), (1576, 16_130_269_258_680_532_905));
}

#[test]
fn dead_time_blanks_both_detectors() {
    for setting in [link(50.0), coarse()] {
        let mut out = Vec::new();
        setting.channel(5).1.run_until(setting.slots(0.5), &mut out);
        let dead = slots(model::dead_slots(&setting.hardware));
        assert!(out.windows(2).all(|pair| pair[1].slot.0 - pair[0].slot.0 > dead));
        assert!(out.windows(2).any(|pair| pair[1].slot.0 - pair[0].slot.0 == dead + 1), "no afterpulse seen");
    }
}

#[test]
fn no_light_no_dark_counts_no_clicks() {
    let mut setting = coarse();
    setting.hardware.dark_count_hz = 0.0;
    setting.length = Kilometres(1e6);
    let mut out = Vec::new();
    let (_, mut channel) = setting.channel(6);
    channel.run_until(Slot(u64::MAX), &mut out);
    assert!(out.is_empty());
    assert_eq!(channel.counts().clicks, 0);
    assert_eq!(channel.position(), Slot(u64::MAX));
}

#[test]
fn dark_counts_alone_are_random_bits() {
    let mut setting = coarse();
    setting.length = Kilometres(1e6);
    setting.hardware.afterpulse = 0.0;
    let (alice, mut channel) = setting.channel(8);
    let mut out = Vec::new();
    channel.run_until(setting.slots(20.0), &mut out);
    let errors = out.iter().filter(|click| alice.prepare(click.slot).bit != click.bit).count();
    near("errors", errors as f64, out.len() as f64 / 2.0);
    assert_eq!(channel.counts().dark, channel.counts().clicks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_do_not_matter(seed: u8, mut ends in proptest::collection::vec(0_u64..4_000_000, 0..12)) {
        for setting in [link(50.0), coarse()] {
            let last = Slot(4_000_000);
            let mut whole = Vec::new();
            let (_, mut once) = setting.channel(seed);
            once.run_until(last, &mut whole);
            let mut parts = Vec::new();
            let (_, mut often) = setting.channel(seed);
            ends.sort_unstable();
            for end in &ends {
                often.run_until(Slot(*end), &mut parts);
                prop_assert_eq!(often.position(), Slot(*end));
                prop_assert!(parts.iter().all(|click| click.slot.0 < *end));
                let counts = often.counts();
                prop_assert!(counts.blanked <= counts.slots);
            }
            often.run_until(last, &mut parts);
            prop_assert!(whole == parts);
            prop_assert_eq!(once.counts(), often.counts());
        }
    }
}
