//! Determinism and the corners of the dead time; the physics against closed forms in the files below.

mod attacks;
mod model;
mod weather;

use proptest::prelude::*;

use types::network::{ClassicalChannel, Coexistence, DecoySettings, Direction, Environment, Hardware};
use types::quantum::{Basis, Detection};
use types::units::Kilometres;

use super::*;
use crate::Source;
use crate::model::dead_slots;

const SIGMAS: f64 = 4.0;

fn channel_of(link: &Link, seed: u8) -> (Source, Channel) {
    let alice = Source::new(&link.decoy, [seed; 32]);
    let channel = Channel::new(link, alice.emission(), [seed.wrapping_add(100); 32]);
    (alice, channel)
}

fn after(link: &Link, seconds: f64) -> Slot {
    Slot(slots(seconds * link.hardware.clock_hz))
}

/// Links of `networks/shanxi.toml`.
fn link(km: f64) -> Link {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
    let network = types::network::Network::parse(text).unwrap();
    network.links().values().find(|link| link.length.0 == km).unwrap().clone()
}

/// A short link of bright pulses, noisy detectors and much afterpulsing: many doubles, every term visible.
fn coarse() -> Link {
    Link {
        hardware: Hardware {
            clock_hz: 1e6,
            attenuation_db_per_km: 0.2,
            efficiency: 0.2,
            dark_count_hz: 2e5,
            gate_ns: 10.0,
            misalignment: 0.05,
            dead_time_us: 7.0,
            afterpulse: 0.03,
            efficiency_ratio: 1.0,
            jitter_ps: 0.0,
            wavelength_nm: 1550.0,
        },
        length: Kilometres(20.0),
        decoy: DecoySettings {
            key_basis: 0.6,
            intensities: [0.5, 0.2, 1e-3],
            probabilities: [0.4, 0.35, 0.25],
            block_bits: 1_000_000,
        },
        ..link(50.0)
    }
}

/// The same with so long a dead time that most points fall into one, and bright: many points in a slot.
fn busy() -> Link {
    let mut link = coarse();
    link.hardware.dead_time_us = 100.0;
    link.decoy.intensities = [2.0, 0.5, 0.01];
    link
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

/// Within so many standard deviations of a count.
#[track_caller]
fn near(what: &str, count: f64, mean: f64) {
    let sigma = mean.max(1.0).sqrt();
    assert!((count - mean).abs() <= SIGMAS * sigma, "{what}: {count} counted, {mean} expected, sigma {sigma}");
}

/// A share of a count within so many standard deviations.
#[track_caller]
fn share_near(what: &str, count: u32, of: u32, share: f64) {
    let mean = f64::from(of) * share;
    let sigma = (mean * (1.0 - share)).max(1.0).sqrt();
    assert!((f64::from(count) - mean).abs() <= SIGMAS * sigma, "{what}: {count} of {of}, expected {share}");
}

#[test]
fn same_seeds_same_records() {
    let setting = link(80.0);
    let run = |seed| {
        let mut out = Vec::new();
        channel_of(&setting, seed).1.run_until(after(&setting, 0.05), &mut out);
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
    channel_of(&setting, 7).1.run_until(after(&setting, 0.1), &mut out);
    let mut digest = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
    for click in &out {
        let flags = u8::from(click.bit) | u8::from(click.basis == Basis::Key) << 1 | u8::from(click.double) << 2;
        for byte in click.slot.0.to_be_bytes().into_iter().chain([flags]) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!((out.len(), digest), (1571, 3_376_860_710_462_613_359));
}

#[test]
fn channels_move_between_threads() {
    fn moves<T: Send + 'static>() {}
    moves::<Channel>();
    moves::<Source>();
}

#[test]
fn dead_time_blanks_both_detectors() {
    for setting in [link(50.0), coarse(), busy()] {
        let mut out = Vec::new();
        channel_of(&setting, 5).1.run_until(after(&setting, 0.5), &mut out);
        let dead = slots(dead_slots(&setting.hardware));
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
    let (_, mut channel) = channel_of(&setting, 6);
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
    let (alice, mut channel) = channel_of(&setting, 8);
    let mut out = Vec::new();
    channel.run_until(after(&setting, 20.0), &mut out);
    let errors = out.iter().filter(|click| alice.prepare(click.slot).bit != click.bit).count();
    near("errors", errors as f64, out.len() as f64 / 2.0);
    assert_eq!(channel.counts().dark, channel.counts().clicks);
}

/// A link with everything that can vary.
fn stormy() -> Link {
    let mut link = coarse();
    link.hardware.efficiency_ratio = 0.7;
    link.hardware.jitter_ps = 2_000.0;
    link.coexistence = Some(channels());
    link.environment = Some(Environment {
        polarisation_rad2_per_s: 0.1,
        polarisation_control_s: 0.2,
        lightning_per_h: 1e4,
        lightning_us: 2e4,
        loss_db_per_km_k: 1e-3,
        ..Environment::default()
    });
    link
}

/// Two channels whose Raman light is worth one and a half dark counts of `coarse`.
fn channels() -> Coexistence {
    let channel = |direction| ClassicalChannel { direction, received_dbm: -19.0 };
    Coexistence {
        channels: vec![channel(Direction::Forward), channel(Direction::Backward)],
        raman_per_km_nm: 2e-9,
        filter_nm: 0.6,
        isolation_db: 100.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_do_not_matter(
        seed: u8,
        mut ends in proptest::collection::vec(0_u64..4_000_000, 0..12),
        attacked in 0_usize..9,
        from in 0_u64..2_000_000,
    ) {
        const ATTACKS: [&str; 8] = [
            "intercept-resend:0.3", "photon-number-splitting", "blinding", "blinding:pulsed:compensated",
            "time-shift:900:0.5:1.5", "trojan-light", "cut", "flood:0.2",
        ];
        let attack: Option<Attack> = ATTACKS.get(attacked).map(|text| text.parse().unwrap());
        ends.sort_unstable();
        for setting in [link(50.0), coarse(), busy(), stormy()] {
            let last = Slot(4_000_000);
            let until = Slot(from + 1_500_000);
            let mut whole = Vec::new();
            let (_, mut once) = channel_of(&setting, seed);
            once.run_until(Slot(from), &mut whole);
            once.set_attack(attack);
            once.run_until(until, &mut whole);
            once.set_attack(None);
            once.run_until(last, &mut whole);

            let mut parts = Vec::new();
            let (_, mut often) = channel_of(&setting, seed);
            let mut steps: Vec<(Slot, Option<Option<Attack>>)> = ends.iter().map(|end| (Slot(*end), None)).collect();
            steps.extend([(Slot(from), Some(attack)), (until, Some(None)), (last, None)]);
            steps.sort_by_key(|(end, _)| *end);
            for (end, change) in steps {
                often.run_until(end, &mut parts);
                prop_assert_eq!(often.position(), end);
                prop_assert!(parts.iter().all(|click| click.slot < end));
                let counts = often.counts();
                prop_assert!(counts.blanked <= counts.slots);
                if let Some(attack) = change {
                    often.set_attack(attack);
                }
            }
            prop_assert!(whole == parts);
            prop_assert_eq!(once.counts(), often.counts());
            prop_assert_eq!(once.take_reading(), often.take_reading());
            prop_assert_eq!(once.take_transmitter_reading(), often.take_transmitter_reading());
        }
    }
}
