//! Monte Carlo against the closed form: every count within four standard deviations.

use super::*;
use crate::model::{Afterpulses, Expected, calm_polarisation_error, dark_probability, gate_acceptance};

#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn against_model(link: &Link, seconds: f64, seed: u8, merged: f64) {
    let (alice, mut channel) = channel_of(link, seed);
    let mut clicks = Vec::new();
    channel.run_until(after(link, seconds), &mut clicks);
    let tally = Tally::of(&alice, &clicks);
    let counts = channel.counts();
    let expected = Expected::of(link, &link.decoy, Afterpulses::Later);

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
    near("errors in unlike bases", f64::from(tally.mismatched_errors), f64::from(tally.mismatched) / 2.0);
    let q = link.decoy.key_basis;
    near("unlike bases", f64::from(tally.mismatched), 2.0 * q * (1.0 - q) * all);
    let p_ap = link.hardware.afterpulse;
    near("afterpulses", counts.afterpulse as f64, all * p_ap / (1.0 + p_ap));
    // Noise with something else in its slot is not counted as its own.
    let terms = crate::terms::Terms::of(link, 15.0);
    let accepted = gate_acceptance(link);
    let found = 0.5 * terms.relative[0] + 0.5 * terms.relative[1];
    let sent = || link.decoy.intensities.iter().zip(link.decoy.probabilities);
    let photons: f64 = sent().map(|(mu, p)| mu * p).sum();
    let seen = terms.transmittance() * found * accepted;
    let dark_pulses: f64 = sent().map(|(mu, p)| p * (-mu * seen).exp()).sum();
    let live = link.hardware.clock_hz * expected.live_fraction * scale;
    let alone =
        live * dark_pulses * (1.0 - p_ap * expected.clicks_per_s / link.hardware.clock_hz / expected.live_fraction);
    let noise: f64 = terms.coexistence.iter().sum();
    near("coexistence", counts.coexistence as f64, -(-noise).exp_m1() * alone);
    let darkness = 1.0 - (1.0 - dark_probability(&link.hardware)).powi(2);
    near("dark", counts.dark as f64, darkness * (-noise).exp() * alone);
    let light = live * photons * terms.transmittance();
    near("lost to mismatch", counts.lost_to_mismatch as f64, light * (1.0 - found));
    near("lost to the gate", counts.lost_to_gate as f64, light * found * (1.0 - accepted));
    // The live fraction is what the clicks leave; its spread is theirs.
    let spread = SIGMAS * (1.0 - expected.live_fraction) / all.sqrt();
    assert!((counts.live_fraction() - expected.live_fraction).abs() <= spread + merged, "{counts:?}");
    // The watchdogs count the same clicks.
    let reading = channel.take_reading();
    assert_eq!(u64::from(reading.doubles), counts.doubles);
    let arrived: u64 = reading.arrivals.as_flattened().iter().map(|n| u64::from(*n)).sum();
    assert_eq!(arrived, counts.clicks + counts.doubles);
    assert!(reading.photocurrent_ua > 0.0 && reading.photocurrent_ua < 0.5);
    assert_eq!(channel.take_reading(), ReceiverReading::default());
}

#[test]
fn link_of_50_km_agrees_with_the_model() {
    against_model(&link(50.0), 30.0, 1, 0.0);
}

#[test]
fn link_of_80_km_agrees_with_the_model() {
    against_model(&link(80.0), 30.0, 9, 0.0);
}

#[test]
fn link_of_120_km_agrees_with_the_model() {
    against_model(&link(120.0), 40.0, 2, 0.0);
}

#[test]
fn link_of_150_km_agrees_with_the_model() {
    against_model(&link(150.0), 60.0, 10, 0.0);
}

#[test]
fn link_of_180_km_agrees_with_the_model() {
    against_model(&link(180.0), 100.0, 3, 0.0);
}

// Afterpulse and photon in the same slot are one click: p_ap D of the clicks, 3 % of about 1 % in `coarse`.
const MERGED: f64 = 3e-4;

#[test]
fn doubles_and_noise_agree_with_the_model() {
    against_model(&coarse(), 40.0, 4, MERGED);
}

/// Without afterpulses, which often meet a photon here: the closed form counts both.
#[test]
fn busy_detectors_agree_with_the_model() {
    let mut link = busy();
    link.hardware.afterpulse = 0.0;
    against_model(&link, 200.0, 20, 0.0);
}

#[test]
fn unlike_detectors_agree_with_the_model() {
    for (ratio, seed) in [(0.6, 11), (1.5, 12)] {
        let mut link = coarse();
        link.hardware.efficiency_ratio = ratio;
        against_model(&link, 20.0, seed, MERGED);
    }
}

#[test]
fn jitter_agrees_with_the_model() {
    let mut link = coarse();
    link.hardware.jitter_ps = 5_000.0;
    against_model(&link, 20.0, 13, MERGED);
}

#[test]
fn raman_light_agrees_with_the_model() {
    let mut link = coarse();
    link.coexistence = Some(channels());
    against_model(&link, 20.0, 14, MERGED);
}

#[test]
fn all_constant_terms_agree_with_the_model() {
    let mut link = coarse();
    link.hardware.efficiency_ratio = 0.8;
    link.hardware.jitter_ps = 4_000.0;
    link.coexistence = Some(channels());
    against_model(&link, 20.0, 15, MERGED);
}

#[test]
fn one_decoy_agrees_with_the_model() {
    let mut link = coarse();
    link.decoy.intensities = [0.5, 0.15, 0.0];
    link.decoy.probabilities = [0.7, 0.3, 0.0];
    against_model(&link, 20.0, 16, MERGED);
    let (alice, _) = channel_of(&link, 16);
    assert!((0..10_000).all(|slot| alice.prepare(Slot(slot)).intensity.index() < 2));
}

/// A polarisation that walks and is turned back, fast enough for many independent values.
#[test]
fn calm_polarisation_agrees_with_the_model() {
    let mut link = coarse();
    let air = Environment {
        polarisation_rad2_per_s: 20.0,
        polarisation_control_s: 0.004,
        delay_ps_per_km_k: 0.0,
        tracking_error_ps: 0.0,
        ..Environment::default()
    };
    assert!((calm_polarisation_error(&air) - 0.01).abs() < 1e-12);
    link.environment = Some(air);
    against_model(&link, 20.0, 17, MERGED);
}

/// Corrections in every step of the weather, so that there are many: 10,000 in this run.
#[test]
fn errors_of_the_tracking_loop_agree_with_the_model() {
    let mut link = coarse();
    link.hardware.jitter_ps = 3_000.0;
    link.environment = Some(Environment {
        swing_k: 0.0,
        tracking_s: 0.002,
        tracking_error_ps: 2_000.0,
        polarisation_rad2_per_s: 0.0,
        polarisation_control_s: 0.04,
        ..Environment::default()
    });
    // The width of the gate over 3,606 ps of jitter and correction together.
    assert!((gate_acceptance(&link) - 0.8344).abs() < 1e-4);
    against_model(&link, 20.0, 19, MERGED);
}

#[test]
fn jitter_spreads_over_the_gate_as_a_normal_curve() {
    let mut link = coarse();
    link.hardware.jitter_ps = 2_500.0;
    link.hardware.dark_count_hz = 0.0;
    link.hardware.afterpulse = 0.0;
    let (_, mut channel) = channel_of(&link, 18);
    channel.run_until(after(&link, 20.0), &mut Vec::new());
    let arrivals = channel.take_reading().arrivals;
    // Edges of the parts at half standard deviations.
    let below = |sigmas: f64| 0.5 * libm::erfc(-sigmas / core::f64::consts::SQRT_2);
    for detector in arrivals {
        let all: u32 = detector.iter().sum();
        for (part, count) in (0_u32..).zip(detector) {
            let from = -2.0 + 0.5 * f64::from(part);
            let share = (below(from + 0.5) - below(from)) / (below(2.0) - below(-2.0));
            share_near("part of the gate", count, all, share);
        }
    }
}
