//! Known vectors, published thresholds, and the directions in which a bound may move.
#![expect(clippy::cast_possible_truncation, reason = "rounded counts of a test are small")]

use proptest::prelude::*;

use types::network::UnknownProof;

use super::*;

mod beyond;
mod one_decoy;

/// Test model of Lim et al. 2014, section IV, written out here so that the vectors depend on nothing else.
fn expected_counts(km: f64, n_x: f64, decoy: &DecoySettings) -> (RealCounts, f64) {
    let (p_dc, p_ap, e_mis) = (6e-7, 0.04, 5e-3);
    let eta = 10_f64.powf(-0.2 * km / 10.0) * 0.1;
    let mut detected = [0.0; 3];
    let mut wrong = [0.0; 3];
    for k in 0..3 {
        let light = (-eta * decoy.intensities[k]).exp();
        let click = 1.0 - (1.0 - 2.0 * p_dc) * light;
        detected[k] = decoy.probabilities[k] * click * (1.0 + p_ap);
        wrong[k] = decoy.probabilities[k] * (p_dc + e_mis * (1.0 - light) + p_ap * click / 2.0);
    }
    let total: f64 = detected.iter().sum();
    let pulses = n_x / (total * decoy.key_basis.powi(2));
    let test = pulses * (1.0 - decoy.key_basis).powi(2);
    let counts = RealCounts {
        key: detected.map(|r| pulses * decoy.key_basis.powi(2) * r),
        test: detected.map(|r| test * r),
        test_errors: wrong.map(|e| test * e),
        key_errors: None,
    };
    (counts, wrong.iter().sum::<f64>() / total)
}

fn settings(key_basis: f64, p1: f64, p2: f64, mu1: f64, mu2: f64) -> DecoySettings {
    DecoySettings {
        key_basis,
        intensities: [mu1, mu2, 2e-4],
        probabilities: [p1, p2, 1.0 - p1 - p2],
        block_bits: 10_000_000,
    }
}

#[track_caller]
fn close(what: &str, value: f64, reference: f64) {
    assert!((value - reference).abs() <= 1e-5 * reference.abs(), "{what}: {value} is not {reference}");
}

struct Vector {
    km: f64,
    n_x: f64,
    decoy: DecoySettings,
    s_x0: f64,
    s_x1: f64,
    s_z1: f64,
    v_z1: f64,
    phase_error: f64,
    leak: f64,
    bits: f64,
}

/// Vectors of the test model with eps_sec = 1e-15 per secret bit, eps_cor = 1e-15, leak = 1.16 n h(e).
#[test]
fn vectors_of_the_lim_2014_model() {
    let vectors = [
        Vector {
            km: 50.0,
            n_x: 1e7,
            decoy: settings(0.9, 0.5, 0.35, 0.45, 0.2),
            s_x0: 0.0,
            s_x1: 6.226_67e6,
            s_z1: 56_082.6,
            v_z1: 4_379.42,
            phase_error: 0.088_244_2,
            leak: 1.909_2e6,
            bits: 1.636_13e6,
        },
        Vector {
            km: 100.0,
            n_x: 1e7,
            decoy: settings(0.85, 0.38, 0.44, 0.41, 0.22),
            s_x0: 0.0,
            s_x1: 6.540_43e6,
            s_z1: 177_328.0,
            v_z1: 8_920.68,
            phase_error: 0.054_902_8,
            leak: 2.034_93e6,
            bits: 2.498_19e6,
        },
        Vector {
            km: 100.0,
            n_x: 1e9,
            decoy: settings(0.95, 0.6, 0.3, 0.45, 0.15),
            s_x0: 2.028_61e6,
            s_x1: 6.371_56e8,
            s_z1: 1.620_98e6,
            v_z1: 68_561.1,
            phase_error: 0.043_442_8,
            leak: 2.008_03e8,
            bits: 2.740_83e8,
        },
    ];
    for vector in vectors {
        let (counts, qber) = expected_counts(vector.km, vector.n_x, &vector.decoy);
        let leak = 1.16 * vector.n_x * binary_entropy(qber);
        close("leak", leak, vector.leak);
        let security = Security { epsilon_secrecy: 1e-15 * vector.bits, epsilon_correctness: 1e-15 };
        let length = planned_length(Proof::Lim2014, &counts, leak, &vector.decoy, &security);
        close("s_x0", length.s_x0, vector.s_x0);
        close("s_x1", length.s_x1, vector.s_x1);
        close("s_z1", length.s_z1, vector.s_z1);
        close("v_z1", length.v_z1, vector.v_z1);
        close("phase error", length.phase_error, vector.phase_error);
        close("length", length.margin, vector.bits);
    }
}

#[test]
fn integer_counts_go_the_same_way() {
    let decoy = settings(0.85, 0.38, 0.44, 0.41, 0.22);
    let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
    let (real, qber) = expected_counts(100.0, 1e7, &decoy);
    let whole = |counts: [f64; 3]| counts.map(|n| n.round() as u64);
    let counts = BlockCounts {
        key: whole(real.key),
        test: whole(real.test),
        test_errors: whole(real.test_errors),
        key_errors: None,
    };
    let leak = (1.16 * 1e7 * binary_entropy(qber)).ceil() as u64;
    let length = secret_length(Proof::Lim2014, &counts, BitLen(leak), &decoy, &security);
    let planned = planned_length(Proof::Lim2014, &real, leak as f64, &decoy, &security);
    // Rounding the handful of errors of the dimmest pulses moves the phase error by parts in 10^4.
    assert!((length.bits as f64 / planned.margin - 1.0).abs() < 1e-3);
    assert_eq!(length.bits, length.margin.floor() as u64);
    // Every bit of leak is a bit of key.
    let more = secret_length(Proof::Lim2014, &counts, BitLen(leak + 1000), &decoy, &security);
    assert_eq!(more.bits + 1000, length.bits);
}

#[test]
fn impossible_or_empty_counts_give_no_key() {
    let decoy = settings(0.85, 0.38, 0.44, 0.41, 0.22);
    let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
    let length = |counts: &BlockCounts| secret_length(Proof::Lim2014, counts, BitLen(0), &decoy, &security);
    assert_eq!(length(&BlockCounts::default()).bits, 0);
    let key = [5_000_000, 4_000_000, 10_000];
    assert_eq!(length(&BlockCounts { key, ..BlockCounts::default() }).bits, 0, "no test bits");
    assert_eq!(length(&BlockCounts { key, test: [10, 10, 1], test_errors: [1, 11, 0], key_errors: None }).bits, 0);
    let huge = BlockCounts { key: [u64::MAX; 3], test: [u64::MAX; 3], test_errors: [u64::MAX; 3], key_errors: None };
    assert_eq!(length(&huge).bits, 0);
    let half = BlockCounts { key, test: [160_000, 128_000, 300], test_errors: [80_000, 64_000, 150], key_errors: None };
    assert_eq!(length(&half).phase_error, 0.5);
    assert_eq!(length(&half).bits, 0);
}

/// Photon-number splitting: single photons blocked, so that the decoys come through too rarely; no bit is wrong.
#[test]
fn photon_number_splitting_gives_no_key_without_any_error() {
    let decoy = settings(0.85, 0.38, 0.44, 0.48, 0.1);
    let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
    let multi = decoy.intensities.map(|mu: f64| 1.0 - (1.0 + mu) * (-mu).exp());
    let passed = |n: f64| {
        let shares: [f64; 3] = core::array::from_fn(|k| decoy.probabilities[k] * multi[k]);
        shares.map(|share| (n * share / shares.iter().sum::<f64>()).round() as u64)
    };
    let counts = BlockCounts { key: passed(1e7), test: passed(3e5), test_errors: [0; 3], key_errors: None };
    let length = secret_length(Proof::Lim2014, &counts, BitLen(0), &decoy, &security);
    assert_eq!((length.bits, length.s_x1), (0, 0.0));
}

#[test]
fn entropy_and_one_way_thresholds() {
    assert_eq!(binary_entropy(0.0), 0.0);
    assert_eq!(binary_entropy(1.0), 0.0);
    assert_eq!(binary_entropy(0.5), 1.0);
    close("h(0.11)", binary_entropy(0.11), 0.499_915_958);
    for (f, threshold) in
        [(1.0, 0.110_03), (1.02, 0.108_39), (1.05, 0.106_02), (1.1, 0.102_28), (1.16, 0.098_11), (1.22, 0.094_24)]
    {
        assert!((one_way_threshold(f) - threshold).abs() < 1e-5, "{f}");
    }
}

#[test]
fn proofs_are_found_by_name() {
    for proof in Proof::ALL {
        assert_eq!(proof.name().parse(), Ok(proof));
        assert_eq!(proof.to_string(), proof.name());
    }
    assert_eq!("lim2013".parse::<Proof>(), Err(UnknownProof));
}

/// Blocks as a link could see them, around the middle of the test model.
fn blocks() -> impl Strategy<Value = (BlockCounts, DecoySettings)> {
    (10_000_u64..2_000_000, 10_000_u64..2_000_000, 0_u64..4_000, 0.0..0.12, 0.0..0.12).prop_map(
        |(bright, middle, dim, e1, e2)| {
            let decoy = settings(0.8, 0.4, 0.45, 0.42, 0.2);
            let test = [bright / 16, middle / 16, dim / 16];
            let errors = |n: u64, e: f64| (n as f64 * e) as u64;
            let test_errors = [errors(test[0], e1), errors(test[1], e2), test[2] / 4];
            (BlockCounts { key: [bright, middle, dim], test, test_errors, key_errors: None }, decoy)
        },
    )
}

proptest! {
    #[test]
    fn length_falls_with_leak_epsilon_and_signal_errors((counts, decoy) in blocks(), leak in 0_u64..500_000, more in 0_u64..9_999) {
        let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
        let length = |counts: &BlockCounts, leak, security: &Security| {
            secret_length(Proof::Lim2014, counts, BitLen(leak), &decoy, security)
        };
        let base = length(&counts, leak, &security);
        prop_assert!(base.margin.is_finite());
        prop_assert!(base.bits as f64 <= base.margin.max(0.0));
        prop_assert!(base.bits <= counts.key.iter().sum());
        prop_assert!((0.0..=0.5).contains(&base.phase_error));
        prop_assert!(base.s_x0 >= 0.0 && base.s_x1 >= 0.0);

        prop_assert!(length(&counts, leak + more, &security).bits <= base.bits);
        let stricter = Security { epsilon_secrecy: 1e-12, ..security };
        prop_assert!(length(&counts, leak, &stricter).bits <= base.bits);
        let surer = Security { epsilon_correctness: 1e-18, ..security };
        prop_assert!(length(&counts, leak, &surer).bits <= base.bits);
        let mut noisier = counts;
        noisier.test_errors[1] = (noisier.test_errors[1] + more).min(noisier.test[1]);
        prop_assert!(length(&noisier, leak, &security).bits <= base.bits);
    }

    #[test]
    fn longer_blocks_of_the_same_kind_give_a_larger_share((counts, decoy) in blocks(), factor in 2_u64..50) {
        let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
        let times = |n: [u64; 3]| n.map(|n| n * factor);
        let longer = BlockCounts {
            key: times(counts.key),
            test: times(counts.test),
            test_errors: times(counts.test_errors),
            key_errors: None,
        };
        let share = |counts: &BlockCounts| {
            let total: u64 = counts.key.iter().sum();
            secret_length(Proof::Lim2014, counts, BitLen(0), &decoy, &security).margin / total as f64
        };
        prop_assert!(share(&longer) >= share(&counts) - 1e-12);
    }

    /// Bounds hold: with the true photon numbers of a simulated block known, none is on the wrong side.
    #[test]
    fn bounds_stay_below_the_truth(km in 0.0..130.0_f64) {
        let decoy = settings(0.85, 0.38, 0.44, 0.41, 0.22);
        let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
        let (counts, _) = expected_counts(km, 1e7, &decoy);
        let length = planned_length(Proof::Lim2014, &counts, 0.0, &decoy, &security);
        // Yields of the model for zero and one photon, as a share of all detections.
        let (p_dc, eta) = (6e-7, 10_f64.powf(-0.2 * km / 10.0) * 0.1);
        let tau = |n: i32| -> f64 {
            decoy.intensities.iter().zip(decoy.probabilities).map(|(mu, p)| p * (-mu).exp() * mu.powi(n)).sum()
        };
        let (y0, y1) = (2.0 * p_dc, 1.0 - (1.0 - 2.0 * p_dc) * (1.0 - eta));
        let all: f64 = decoy.intensities.iter().zip(decoy.probabilities)
            .map(|(mu, p)| p * (1.0 - (1.0 - 2.0 * p_dc) * (-eta * mu).exp())).sum();
        prop_assert!(length.s_x0 <= 1e7 * tau(0) * y0 / all);
        prop_assert!(length.s_x1 <= 1e7 * tau(1) * y1 / all);
        prop_assert!(length.phase_error >= (p_dc + 5e-3 * eta + 0.02 * y1) / (1.04 * y1));
    }
}
