//! Beyond one-way: published thresholds, and distilled blocks of a link that one-way post-processing gives up.

use super::*;

use types::network::BeyondOneWay;

const SECURITY: Security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };

/// The last error rate at which a falling function is above zero.
fn threshold(rate: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.05, 0.35);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if rate(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Secret bits per sifted bit of single photons: (p/b) (K_b - f h(Et)).
fn single_photon_rate(e: f64, b: u32, f: f64) -> f64 {
    let gain = distillation::entropy_bound(e, b) - f * binary_entropy(distillation::kept_error(e, b));
    distillation::kept_share(e, b) / f64::from(b) * gain
}

/// Thresholds of single photons at f = 1, BB84 and six-state; b = 1 is one-way, 20 is near the limits of 20 % and
/// 27.6 % for endless b.
#[test]
fn thresholds_of_advantage_distillation() {
    for (b, bb84, six_state) in [
        (1, 0.1100, 0.1262),
        (2, 0.1407, 0.1810),
        (3, 0.1545, 0.2046),
        (4, 0.1627, 0.2181),
        (6, 0.1722, 0.2333),
        (10, 0.1810, 0.2471),
        (20, 0.1889, 0.2592),
    ] {
        let found = threshold(|e| single_photon_rate(e, b, 1.0));
        assert!((found - bb84).abs() < 1e-4, "b = {b}: {found}");
        let six =
            threshold(|e| distillation::entropy_bound_six_state(e, b) - binary_entropy(distillation::kept_error(e, b)));
        assert!((six - six_state).abs() < 1e-4, "six-state, b = {b}: {six}");
    }
}

#[test]
fn key_at_eleven_point_four_percent() {
    for (b, f, rate) in [
        (1, 1.0, -0.0237),
        (2, 1.0, 0.0497),
        (3, 1.0, 0.0243),
        (4, 1.0, 0.0099),
        (2, 1.16, 0.0421),
        (3, 1.16, 0.0235),
        (4, 1.16, 0.0098),
    ] {
        let found = single_photon_rate(0.114, b, f);
        assert!((found - rate).abs() < 6e-5, "b = {b}, f = {f}: {found}");
    }
    assert!((distillation::kept_error(0.114, 2) - 0.0163).abs() < 5e-5);
    assert!((distillation::kept_error(0.114, 3) - 0.0021).abs() < 5e-5);
}

/// What the live rules lean on: error rates of bits and phases below a bound never leave Eve with more than both at
/// the bound do.
#[test]
fn bounds_hold_for_smaller_and_unequal_error_rates() {
    // The least over all Bell weights of these error rates of bits and phases.
    let least = |bit: f64, phase: f64, f: &dyn Fn([f64; 4]) -> f64| {
        let weights = |l3| [1.0 - bit - phase + l3, phase - l3, bit - l3, l3];
        distillation::minimum(|l3| f(weights(l3)), (bit + phase - 1.0).max(0.0), bit.min(phase))
    };
    let rates = |most: f64| (0..=8_u8).map(move |i| most * f64::from(i) / 8.0);
    for most in [0.01, 0.05, 0.08, 0.114, 0.15, 0.2, 0.3] {
        for (bit, phase) in rates(most).flat_map(|bit| rates(most).map(move |phase| (bit, phase))) {
            for b in [1, 2, 3, 5, 9, 17] {
                let kept = least(bit, phase, &|weights| distillation::entropy(weights, b));
                let there = distillation::kept_share(bit, b) * kept;
                let at_most = distillation::kept_share(most, b) * distillation::entropy_bound(most, b);
                assert!(there >= at_most - 1e-9, "b = {b}, {bit} and {phase} below {most}: {there}, {at_most}");
            }
            for flip in [0.0, 0.05, 0.2, 0.4] {
                let there = least(bit, phase, &|weights| preprocessing::conditional_entropy(weights, flip));
                let at_most = preprocessing::entropy_bound(most, flip);
                assert!(there >= at_most - 1e-9, "flips {flip}, {bit} and {phase} below {most}: {there}, {at_most}");
            }
        }
    }
}

/// Rates at Q = 11.4 % by flip probability, and the threshold with the best one. Literature: 12.4 %.
#[test]
fn noisy_preprocessing() {
    let rate = |e: f64, q: f64| preprocessing::entropy_bound(e, q) - binary_entropy(preprocessing::flipped(e, q));
    for (q, r) in
        [(0.0, -0.023_728), (0.1, 0.016_225), (0.2, 0.012_913), (0.3, 0.006_449), (0.4, 0.001_692), (0.45, 0.000_427)]
    {
        assert!((rate(0.114, q) - r).abs() < 2e-6, "q = {q}: {}", rate(0.114, q));
    }
    let best = |e: f64| (0..500_u16).map(|i| rate(e, f64::from(i) * 0.001)).fold(f64::NEG_INFINITY, f64::max);
    let found = threshold(best);
    assert!((found - 0.1241).abs() < 1e-4, "{found}");
}

/// A block at this error rate from a link near enough that dark counts do not matter, two decoys.
fn block(qber: f64) -> (BlockCounts, DecoySettings) {
    let decoy = settings(0.5, 0.5, 0.3, 0.15, 0.04);
    let (eta, n) = (1e-3, 1e7);
    let yields: [f64; 3] =
        core::array::from_fn(|k| decoy.probabilities[k] * (1.0 - (-eta * decoy.intensities[k]).exp()));
    let total: f64 = yields.iter().sum();
    let share = |n: f64| yields.map(|y| (n * y / total).round() as u64);
    let test = share(n);
    let test_errors = test.map(|n| (n as f64 * qber).round() as u64);
    (BlockCounts { key: share(n), test, test_errors, key_errors: None }, decoy)
}

#[test]
fn a_block_at_eleven_point_four_percent_is_distilled() {
    let (counts, decoy) = block(0.114);
    let n: u64 = counts.key.iter().sum();
    let leak = BitLen((n as f64 * binary_entropy(0.114)).ceil() as u64);
    assert_eq!(secret_length(Proof::Lim2014, &counts, leak, &decoy, &SECURITY).bits, 0);

    let plan = distillation::plan(&counts, Proof::Lim2014, &decoy, &SECURITY, 1.16);
    let Some(plan) = plan else { panic!("{:?}", secret_length(Proof::Lim2014, &counts, leak, &decoy, &SECURITY)) };
    assert!(plan.b == 2 || plan.b == 3);
    assert!((plan.expected_qber - distillation::kept_error(0.114, plan.b)).abs() < 1e-5);
    // 0.0198 bits per sifted bit without statistics; a block of 1e7 loses a good part of it.
    assert!(plan.expected_bits > n / 1000 && plan.expected_bits < n / 50, "{plan:?}");

    let leak = BitLen((1.16 * plan.expected_kept as f64 * binary_entropy(plan.expected_qber)).ceil() as u64);
    let length =
        |kept, leak| distillation::secret_length(&counts, Proof::Lim2014, &decoy, &SECURITY, plan.b, kept, leak);
    let whole = length(plan.expected_kept, leak);
    assert!(whole.bits.abs_diff(plan.expected_bits) <= 2);
    assert_eq!(length(plan.expected_kept, leak.saturating_sub(BitLen(1_000))).bits, whole.bits + 1_000);
    // Fewer kept bits than all-single-photon blocks should leave: what there is counts.
    assert_eq!(length(10, BitLen(0)).bits, 0);
    assert_eq!(length(n / 2 + 1, leak).bits, 0, "more kept than there are blocks");
}

#[test]
fn what_cannot_be_distilled_is_not() {
    let (counts, decoy) = block(0.2);
    assert_eq!(distillation::plan(&counts, Proof::Lim2014, &decoy, &SECURITY, 1.16), None);
    let none = BlockCounts::default();
    assert_eq!(distillation::plan(&none, Proof::Lim2014, &decoy, &SECURITY, 1.16), None);
    assert_eq!(preprocessing::plan(&none, Proof::Lim2014, &decoy, &SECURITY, 1.16), None);
    for b in [0, 1, 2, 33, u32::MAX] {
        let length = distillation::secret_length(&none, Proof::Lim2014, &decoy, &SECURITY, b, 0, BitLen(0));
        assert_eq!(length.bits, 0);
    }
}

/// Where one-way key ends, flips still give some: over a narrow band of error rates with weak pulses.
#[test]
fn a_block_with_flipped_bits() {
    let mut gained = 0;
    for step in 0..80_u8 {
        let (counts, decoy) = block(0.084 + 0.000_05 * f64::from(step));
        let plan = preprocessing::plan(&counts, Proof::Lim2014, &decoy, &SECURITY, 1.05);
        let Some(plan) = plan else { continue };
        let n: u64 = counts.key.iter().sum();
        let leak = BitLen((1.05 * n as f64 * binary_entropy(plan.expected_qber)).ceil() as u64);
        let length =
            |flip, leak| preprocessing::secret_length(&counts, Proof::Lim2014, &decoy, &SECURITY, flip, leak).bits;
        assert!(plan.flip_ppm > 0 && length(plan.flip_ppm, leak).abs_diff(plan.expected_bits) <= 2);
        let e = counts.test_errors.iter().sum::<u64>() as f64 / counts.test.iter().sum::<u64>() as f64;
        let without = BitLen((1.05 * n as f64 * binary_entropy(e)).ceil() as u64);
        gained += u32::from(length(0, without) == 0);
        assert_eq!(length(500_000, BitLen(0)), 0);
    }
    assert!(gained > 0, "flips saved no block");
}

#[test]
fn rules_are_found_by_name() {
    let names: Vec<_> = KeyRule::all().map(|rule| rule.to_string()).collect();
    assert_eq!(names.len(), 9);
    for (rule, name) in KeyRule::all().zip(&names) {
        assert_eq!(name.parse(), Ok(rule));
        assert_eq!(rule.is_finite(), !name.ends_with("-asymptotic"));
    }
    assert_eq!("wiesemann2026".parse(), Ok(KeyRule::from(Proof::Wiesemann2026)));
    let rule = KeyRule { proof: Proof::Lim2014, beyond: BeyondOneWay::NoisyPreprocessing };
    assert_eq!(rule.to_string(), "lim2014+np-asymptotic");
    assert_eq!("lim2014+".parse::<KeyRule>(), Err(UnknownRule));
    assert_eq!("lim2014+ad".parse::<KeyRule>(), Err(UnknownRule));
}
