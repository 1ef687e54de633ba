//! Finite blocks on other hardware than the reference network's, and with one decoy.

use types::network::Decoys;

use super::*;

const SECURITY: Security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };

/// The best rate of a named set with the proof's usual number of decoys.
fn best(set: &str, km: f64, proof: Proof, block_bits: u32, security: &Security) -> RatePoint {
    let hardware = HardwareSet::named(set).unwrap().hardware;
    best_of(&hardware, km, proof, block_bits, security)
}

fn best_of(hardware: &Hardware, km: f64, proof: Proof, block_bits: u32, security: &Security) -> RatePoint {
    let decoy = DecoySettings { block_bits, ..usual_settings(proof.decoys()) };
    let setting = Setting {
        hardware,
        length: Kilometres(km),
        coexistence: None,
        environment: None,
        decoy: &decoy,
        proof,
        security,
        f_ec: F_EC,
        afterpulses: Afterpulses::Lumped,
    };
    let found = optimise(&setting);
    Setting { decoy: &found, ..setting }.rate()
}

/// Noisier gated detectors: rate and QBER; about 8 % is the most that a block of 1e6 bears.
#[test]
fn sets_s2_and_s3() {
    for (set, km, skr, qber) in [
        ("s2", 50.0, 5925.0, 3.24),
        ("s2", 120.0, 3213.0, 3.65),
        ("s2", 150.0, 1568.0, 4.27),
        ("s2", 180.0, 323.0, 6.13),
        ("s3", 150.0, 653.0, 6.67),
        ("s3", 160.0, 215.0, 7.87),
    ] {
        let point = best(set, km, Proof::Lim2014, 1_000_000, &SECURITY);
        within(&format!("{set}, {km} km"), point.skr.0, skr, 0.01);
        within(&format!("{set}, {km} km, QBER"), point.qber * 100.0, qber, 0.02);
    }
    // The reference search gave up at 170 km; ours still finds a handful of bits per second there, and none beyond.
    assert!(best("s3", 170.0, Proof::Lim2014, 1_000_000, &SECURITY).skr.0 < 5.0);
    assert_eq!(best("s3", 175.0, Proof::Lim2014, 1_000_000, &SECURITY).skr.0, 0.0);
}

/// Without dead time to level them, rates follow the loss: a factor of 400 over 26 dB.
#[test]
fn unsaturated_detectors() {
    for (km, skr) in [(50.0, 107e3), (80.0, 27.4e3), (120.0, 4355.0), (150.0, 1088.0), (180.0, 266.0)] {
        let point = best("snspd", km, Proof::Lim2014, 1_000_000, &SECURITY);
        within(&format!("{km} km"), point.skr.0, skr, 0.02);
    }
}

/// Rates that the authors' own program for arXiv:2405.16578 gives (625 MHz, lossless receiver, 200 dark counts per
/// second in all, 2 % misalignment, eps 1e-12, f = 1.16), all its parameters optimised. Its block is the number of
/// sifted bits of both bases together. Ours pays for the public outcome and the
/// disclosed errors besides, some 40 bits: that shows in the shortest block at the longest distance.
#[test]
fn rates_of_wiesemann_2026() {
    let hardware = Hardware {
        clock_hz: 625e6,
        attenuation_db_per_km: 0.2,
        efficiency: 1.0,
        dark_count_hz: 100.0,
        gate_ns: 1.6,
        misalignment: 0.02,
        dead_time_us: 0.0,
        afterpulse: 0.0,
        efficiency_ratio: 1.0,
        jitter_ps: 0.0,
        wavelength_nm: 1550.0,
    };
    let security = Security { epsilon_secrecy: 1e-12, epsilon_correctness: 1e-12 };
    for (sifted, rates) in [
        (1e5, [519_940.0, 49_659.0, 4_638.0, 924.4, 201.2]),
        (1e7, [3.3443e6, 3.2324e5, 31_666.0, 7_499.0, 2_637.0]),
        (1e9, [5.8635e6, 5.6953e5, 56_117.0, 13_535.0, 4_952.0]),
    ] {
        for (km, rate) in [50.0, 100.0, 150.0, 180.0, 200.0].into_iter().zip(rates) {
            let found = best_of_both_bases(&hardware, km, sifted, &security);
            // What ours pays besides is 0.8 % of the shortest blocks at most.
            within(&format!("{km} km, {sifted}"), found, rate, if sifted < 1e6 { 0.008 } else { 2e-4 });
        }
    }
}

/// The best rate of one decoy when the number of sifted bits of both bases together is given.
fn best_of_both_bases(hardware: &Hardware, km: f64, sifted: f64, security: &Security) -> f64 {
    let rate = |at: &[f64; 4]| {
        let [key_basis, mu1, share, p1] = *at;
        if !(0.05..0.999).contains(&key_basis) || !(0.0..0.99).contains(&share) || !(0.01..0.99).contains(&p1) {
            return 0.0;
        }
        let decoy = DecoySettings {
            key_basis,
            intensities: [mu1, mu1 * share, 0.0],
            probabilities: [p1, 1.0 - p1, 0.0],
            block_bits: (sifted * key_basis.powi(2) / (key_basis.powi(2) + (1.0 - key_basis).powi(2))) as u32,
        };
        let setting = Setting {
            hardware,
            length: Kilometres(km),
            coexistence: None,
            environment: None,
            decoy: &decoy,
            proof: Proof::Wiesemann2026,
            security,
            f_ec: F_EC,
            afterpulses: Afterpulses::Lumped,
        };
        setting.rate().skr.0
    };
    let usual = DecoySettings { block_bits: sifted as u32, ..usual_settings(Decoys::One) };
    let start = optimise(&Setting {
        hardware,
        length: Kilometres(km),
        coexistence: None,
        environment: None,
        decoy: &usual,
        proof: Proof::Wiesemann2026,
        security,
        f_ec: F_EC,
        afterpulses: Afterpulses::Lumped,
    });
    let [mu1, mu2, _] = start.intensities;
    let mut best = [start.key_basis, mu1, mu2 / mu1, start.probabilities[0]];
    let mut step = 0.1;
    while step > 1e-4 {
        let before = rate(&best);
        for axis in 0..4 {
            for sign in [1.0, -1.0] {
                let mut trial = best;
                trial[axis] += sign * step;
                if rate(&trial) > rate(&best) {
                    best = trial;
                }
            }
        }
        if rate(&best) <= before {
            step *= 0.5;
        }
    }
    rate(&best)
}

/// Rusca et al. 2018: up to blocks of 1e8 bits one decoy gives more than two, in almost all settings. So it is with
/// quiet detectors. The reference network is not such a setting: afterpulses and 2.7 % misalignment make errors that
/// one decoy must take for vacuum.
#[test]
fn one_decoy_against_two() {
    let quiet = Hardware { dark_count_hz: 10.0, misalignment: 0.01, afterpulse: 0.0, ..network_hardware() };
    for km in [20.0, 100.0, 150.0] {
        let rate = |proof| best_of(&quiet, km, proof, 1_000_000, &SECURITY).skr.0;
        assert!(rate(Proof::Rusca2018) > rate(Proof::Lim2014), "{km} km");
    }
    for km in [50.0, 120.0, 180.0] {
        let rate = |proof| best("s1", km, proof, 1_000_000, &SECURITY).skr.0;
        let (one, two, mended) = (rate(Proof::Rusca2018), rate(Proof::Lim2014), rate(Proof::Wiesemann2026));
        assert!(mended > 0.0 && mended < one && one < two, "{km} km: {mended}, {one}, {two}");
    }
}

fn network_hardware() -> Hardware {
    Hardware { clock_hz: 1e9, dead_time_us: 0.0, ..HardwareSet::named("s1").unwrap().hardware }
}
