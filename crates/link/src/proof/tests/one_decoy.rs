//! Vectors of the two one-decoy proofs, and what must hold of them for any counts.

use super::statistics::deviation;
use super::*;

/// D_k = 1 - (1 - p_dc) e^(-eta k), e_k = e_mis (1 - e^(-eta k)) + p_dc / 2 at p_dc = 1e-8, e_mis = 1 %, a receiver of
/// 20 % and 0.2 dB/km: counts of a block of `n` key-basis bits, and the pulses that it takes.
fn model(km: f64, n: f64, decoy: &DecoySettings) -> (RealCounts, f64) {
    let (p_dc, e_mis) = (1e-8, 0.01);
    let eta = 10_f64.powf(-0.2 * km / 10.0) * 0.2;
    let light = decoy.intensities.map(|mu: f64| (-eta * mu).exp());
    let share = |k: usize, value: f64| decoy.probabilities[k] * value;
    let detected: [f64; 3] = core::array::from_fn(|k| share(k, 1.0 - (1.0 - p_dc) * light[k]));
    let wrong: [f64; 3] = core::array::from_fn(|k| share(k, e_mis * (1.0 - light[k]) + p_dc / 2.0));
    let pulses = n / (detected.iter().sum::<f64>() * decoy.key_basis.powi(2));
    let key = pulses * decoy.key_basis.powi(2);
    let test = pulses * (1.0 - decoy.key_basis).powi(2);
    let counts = RealCounts {
        key: detected.map(|d| key * d),
        test: detected.map(|d| test * d),
        test_errors: wrong.map(|e| test * e),
        key_errors: Some(wrong.map(|e| key * e)),
    };
    (counts, pulses)
}

fn settings() -> DecoySettings {
    DecoySettings {
        key_basis: 0.9,
        intensities: [0.5, 0.15, 0.0],
        probabilities: [0.7, 0.3, 0.0],
        block_bits: 10_000_000,
    }
}

const SECURITY: Security = Security { epsilon_secrecy: 1e-9, epsilon_correctness: 1e-15 };

struct Vector {
    proof: Proof,
    km: f64,
    n: f64,
    s_x0_upper: Option<f64>,
    s_x1: f64,
    s_z1: Option<f64>,
    v_z1: Option<f64>,
    phase_error: f64,
    bits: f64,
}

/// eps_sec = 1e-9, eps_cor = 1e-15, leak = 1.16 n h(e). The published lengths know neither the bit for the outcome
/// nor the price of telling the errors of the key basis.
#[test]
fn vectors_of_both_one_decoy_proofs() {
    let vectors = [
        Vector {
            proof: Proof::Rusca2018,
            km: 50.0,
            n: 1e7,
            s_x0_upper: Some(87_956.1),
            s_x1: 5_705_330.0,
            s_z1: Some(51_287.3),
            v_z1: Some(1_995.21),
            phase_error: 0.046_707_2,
            bits: 3_214_600.0,
        },
        Vector {
            proof: Proof::Wiesemann2026,
            km: 50.0,
            n: 1e7,
            s_x0_upper: Some(87_818.4),
            s_x1: 5_706_300.0,
            s_z1: Some(51_395.2),
            v_z1: Some(1_992.51),
            phase_error: 0.060_216_4,
            bits: 2_895_470.0,
        },
        Vector {
            proof: Proof::Rusca2018,
            km: 100.0,
            n: 1e7,
            s_x0_upper: None,
            s_x1: 5_674_720.0,
            s_z1: Some(50_908.9),
            v_z1: None,
            phase_error: 0.047_098_9,
            bits: 3_182_230.0,
        },
        Vector {
            proof: Proof::Wiesemann2026,
            km: 100.0,
            n: 1e7,
            s_x0_upper: None,
            s_x1: 0.0,
            s_z1: None,
            v_z1: None,
            phase_error: 0.060_625,
            bits: 2_865_300.0,
        },
        Vector {
            proof: Proof::Rusca2018,
            km: 150.0,
            n: 1e8,
            s_x0_upper: None,
            s_x1: 5.803_44e7,
            s_z1: Some(655_902.0),
            v_z1: None,
            phase_error: 0.026_578_7,
            bits: 3.834_63e7,
        },
        Vector {
            proof: Proof::Wiesemann2026,
            km: 150.0,
            n: 1e8,
            s_x0_upper: None,
            s_x1: 0.0,
            s_z1: None,
            v_z1: None,
            phase_error: 0.030_849_6,
            bits: 3.708_93e7,
        },
    ];
    for vector in vectors {
        let (counts, _) = model(vector.km, vector.n, &settings());
        let errors: f64 = counts.key_errors.unwrap().iter().sum();
        let leak = 1.16 * vector.n * binary_entropy(errors / vector.n);
        let length = planned_length(vector.proof, &counts, leak, &settings(), &SECURITY);
        let what = |field: &str| format!("{} at {} km: {field}", vector.proof, vector.km);
        let given = |field: &str, value: f64, reference: Option<f64>| {
            reference.into_iter().for_each(|reference| close(&what(field), value, reference));
        };
        given("s_x0_upper", length.s_x0_upper.unwrap(), vector.s_x0_upper);
        given("s_x1", length.s_x1, (vector.s_x1 > 0.0).then_some(vector.s_x1));
        given("s_z1", length.s_z1, vector.s_z1);
        given("v_z1", length.v_z1, vector.v_z1);
        given("phase error", length.phase_error, Some(vector.phase_error));
        close(&what("length"), length.margin + OUTCOME_BITS + length.disclosed, vector.bits);
        // Two numbers of at most 24 bits, or 27 of the longer block.
        assert!(length.disclosed >= 44.0 && length.disclosed <= 54.0, "{}", length.disclosed);
    }
}

#[test]
fn pulses_and_counts_of_the_model() {
    let (counts, pulses) = model(50.0, 1e7, &settings());
    close("N", pulses, 1.569_94e9);
    close("n_1", counts.key[0], 8_857_220.0);
    close("m_X", counts.test_errors[0], 1_093.54);
    close("m_Z", counts.key_errors.unwrap().iter().sum(), 100_006.0);
    close("N at 100 km", model(100.0, 1e7, &settings()).1, 1.563_44e10);
    close("N at 150 km", model(150.0, 1e8, &settings()).1, 1.562_62e12);
}

#[test]
fn errors_of_the_key_basis_must_be_known() {
    let (mut counts, _) = model(50.0, 1e7, &settings());
    counts.key_errors = None;
    for proof in [Proof::Rusca2018, Proof::Wiesemann2026] {
        assert_eq!(planned_length(proof, &counts, 0.0, &settings(), &SECURITY).bits, 0);
    }
}

#[test]
fn a_proof_for_another_number_of_decoys_gives_no_key() {
    let (counts, _) = model(50.0, 1e7, &settings());
    assert_eq!(planned_length(Proof::Lim2014, &counts, 0.0, &settings(), &SECURITY).bits, 0);
    let two = super::settings(0.85, 0.38, 0.44, 0.41, 0.22);
    let (counts, _) = expected_counts(50.0, 1e7, &two);
    let counts = RealCounts { key_errors: Some([0.0; 3]), ..counts };
    for proof in [Proof::Rusca2018, Proof::Wiesemann2026] {
        assert_eq!(planned_length(proof, &counts, 0.0, &two, &SECURITY).bits, 0);
    }
}

#[test]
fn no_errors_seen_is_not_no_errors() {
    let counts = BlockCounts {
        key: [700_000, 300_000, 0],
        test: [7_000, 3_000, 0],
        test_errors: [0; 3],
        key_errors: Some([0; 3]),
    };
    for proof in [Proof::Rusca2018, Proof::Wiesemann2026] {
        let length = secret_length(proof, &counts, BitLen(0), &settings(), &SECURITY);
        assert!(length.v_z1 >= 1.0 && length.phase_error > 0.001, "{proof}: {length:?}");
        assert!(length.s_z1 > 0.0 && length.s_x0 <= 2.0 * deviation(1e6, 1e-9 / 19.0));
        assert!(length.s_x0_upper.unwrap() > 0.0);
    }
}

fn blocks() -> impl Strategy<Value = BlockCounts> {
    (0_u64..3_000_000, 0_u64..2_000_000, 0.0..0.13, 0.0..0.13, 1_u64..40).prop_map(|(bright, dim, e1, e2, part)| {
        let errors = |n: u64, e: f64| (n as f64 * e) as u64;
        let of = |n: [u64; 3]| [errors(n[0], e1), errors(n[1], e2), 0];
        let (key, test) = ([bright, dim, 0], [bright / part, dim / part, 0]);
        BlockCounts { key, test, test_errors: of(test), key_errors: Some(of(key)) }
    })
}

proptest! {
    #[test]
    fn one_decoy_lengths_move_the_right_way(counts in blocks(), leak in 0_u64..500_000, more in 0_u64..9_999) {
        for proof in [Proof::Rusca2018, Proof::Wiesemann2026] {
            let length = |counts: &BlockCounts, leak| secret_length(proof, counts, BitLen(leak), &settings(), &SECURITY);
            let base = length(&counts, leak);
            let total: u64 = counts.key.iter().sum();
            prop_assert!(base.margin.is_finite());
            prop_assert!(base.bits <= total);
            prop_assert!((0.0..=0.5).contains(&base.phase_error));
            prop_assert!(base.s_x0 >= 0.0 && base.s_x1 >= 0.0 && base.s_x0 + base.s_x1 <= total as f64 + 1e-6);
            prop_assert!(base.s_x0_upper.unwrap() >= base.s_x0);
            prop_assert!(length(&counts, leak + more).bits <= base.bits);
            let mut noisier = counts;
            noisier.test_errors[0] = (noisier.test_errors[0] + more).min(noisier.test[0]);
            prop_assert!(length(&noisier, leak).margin <= base.margin + 1e-6);
            let key_errors = counts.key_errors.unwrap();
            noisier = counts;
            noisier.key_errors = Some([(key_errors[0] + more).min(counts.key[0]), key_errors[1], 0]);
            let noisier = length(&noisier, leak);
            prop_assert!(noisier.s_x1 <= base.s_x1 && noisier.phase_error >= base.phase_error - 1e-12);
            // Fewer errors than the vacuum events must make contradict these, and lower what they are worth.
            prop_assert!(noisier.margin <= base.margin + 1e-6 || noisier.s_x0 > base.s_x0);
        }
    }

    /// Bounds hold: photon numbers of the model's block known, none is on the wrong side.
    #[test]
    fn one_decoy_bounds_stay_below_the_truth(km in 0.0..160.0_f64) {
        let decoy = settings();
        let (counts, pulses) = model(km, 1e7, &decoy);
        let (p_dc, eta) = (1e-8, 10_f64.powf(-0.2 * km / 10.0) * 0.2);
        let tau = |n: i32| -> f64 {
            decoy.intensities.iter().zip(decoy.probabilities).map(|(mu, p)| p * (-mu).exp() * mu.powi(n)).sum()
        };
        let key = pulses * decoy.key_basis.powi(2);
        let y1 = 1.0 - (1.0 - p_dc) * (1.0 - eta);
        for proof in [Proof::Rusca2018, Proof::Wiesemann2026] {
            let length = planned_length(proof, &counts, 0.0, &decoy, &SECURITY);
            prop_assert!(length.s_x0 <= key * tau(0) * p_dc);
            prop_assert!(length.s_x0_upper.unwrap() >= key * tau(0) * p_dc);
            prop_assert!(length.s_x1 <= key * tau(1) * y1);
            prop_assert!(length.phase_error >= (p_dc / 2.0 + 0.01 * eta) / y1);
        }
    }
}
