//! Published figures and reference values of every protocol.

use proptest::prelude::*;

use super::asymptotic::{DecoyBound, Line, best_intensity, weak_pulse_threshold};
use super::distilled::Bases;
use super::mdi::{Relay, bessel_less_one};
use super::memory::{Memories, attempts};
use super::*;

fn hardware(name: &str) -> Hardware {
    HardwareSet::named(name).unwrap().hardware
}

fn gys(km: f64) -> Line {
    Line::of(&hardware("gys"), Kilometres(km))
}

const GYS_F: f64 = 1.22;
const VACUUM_WEAK: DecoyBound = DecoyBound::VacuumWeak { nu: 0.05 };

#[track_caller]
fn near(what: &str, value: f64, reference: f64, difference: f64) {
    assert!((value - reference).abs() <= difference, "{what}: {value}, reference {reference}");
}

/// Ma et al. 2005: 0.48 and 0.54.
#[test]
fn best_intensities_of_ma_2005() {
    near("f = 1.22", best_intensity(0.033, 1.22), 0.478_92, 5e-6);
    near("f = 1", best_intensity(0.033, 1.0), 0.544_12, 5e-6);
}

#[test]
fn curve_of_ma_2005() {
    for (km, rate) in [
        (0.0, 2.554_588e-3),
        (20.0, 9.624_524e-4),
        (50.0, 2.225_961e-4),
        (100.0, 1.718_444e-5),
        (120.0, 4.814_562e-6),
        (140.0, 2.464_667e-7),
        (142.0, 1.679_455e-9),
    ] {
        within(&format!("{km} km"), gys(km).rate(0.48, GYS_F, DecoyBound::Infinite).bits_per_pulse, rate, 1e-5);
    }
    for (km, rate, y1, e1, true_y1, true_e1) in [
        (100.0, 1.6020e-5, 3.5399e-4, 0.0375, 3.5915e-4, 0.035_21),
        (120.0, 4.3686e-6, 1.3563e-4, 0.0412, 1.3760e-4, 0.038_77),
        (140.0, 7.3779e-8, 5.2615e-5, 0.0506, 5.3367e-5, 0.047_88),
    ] {
        let point = gys(km).rate(0.48, GYS_F, VACUUM_WEAK);
        within("rate", point.bits_per_pulse, rate, 4e-5);
        within("Y1", point.y1, y1, 5e-5);
        near("e1", point.e1, e1, 5e-5);
        let (y1, e1) = gys(km).single_photons();
        within("true Y1", y1, true_y1, 5e-5);
        within("true e1", e1, true_e1, 2e-4);
    }
}

/// Ma et al. 2005: 142 km; 140.6 km with vacuum and weak decoy, about 30 km without decoys (with another bound).
#[test]
fn reach_of_ma_2005() {
    let reach = |mu: f64, bound| last_above_zero(|km| gys(km).rate(mu, GYS_F, bound).bits_per_pulse, 1.0, 200.0);
    near("mu = 0.48", reach(0.48, DecoyBound::Infinite), 142.014, 0.002);
    near("mu = 0.479", reach(0.479, DecoyBound::Infinite), 142.022, 0.002);
    for (nu, km) in [(0.05, 140.62), (0.10, 139.10), (0.13, 138.13)] {
        near("vacuum and weak", reach(0.48, DecoyBound::VacuumWeak { nu }), km, 0.01);
    }
    let best = |bound| last_above_zero(|km| gys(km).best(GYS_F, bound).1.bits_per_pulse, 1.0, 200.0);
    near("best mu", best(DecoyBound::Infinite), 142.209, 0.01);
    near("no decoy", best(DecoyBound::NoDecoy), 40.2, 0.1);
    // Errors of a few percent bound the vacuum of a weak decoy very loosely.
    assert!(gys(1.0).rate(0.48, GYS_F, DecoyBound::OneDecoy { nu: 0.05 }).bits_per_pulse < 0.0);
    let quiet = Line { misalignment: 0.002, ..gys(10.0) };
    assert!(quiet.rate(0.48, GYS_F, DecoyBound::OneDecoy { nu: 0.15 }).bits_per_pulse > 0.0);
}

#[test]
fn thresholds_of_weak_pulses() {
    for (mu, ideal, real) in [
        (0.01, 0.1092, 0.0973),
        (0.1, 0.1019, 0.0905),
        (0.2, 0.0941, 0.0833),
        (0.3, 0.0868, 0.0765),
        (0.48, 0.0744, 0.0652),
        (0.6, 0.0669, 0.0584),
    ] {
        near("f = 1", weak_pulse_threshold(mu, 1.0), ideal, 1e-4);
        near("f = 1.16", weak_pulse_threshold(mu, 1.16), real, 1e-4);
    }
}

#[test]
fn single_photons_of_finite_number() {
    near("1e-10", single_photon::serfling(1e6, 5e4, 1e-10), 0.021_99, 5e-6);
    near("1e-15", single_photon::serfling(1e6, 5e4, 1e-15), 0.026_93, 5e-6);
    let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-10 };
    for (total, rates) in [
        (1e4, [0.268, 0.165, 0.034]),
        (1e5, [0.519, 0.385, 0.201]),
        (1e6, [0.670, 0.514, 0.300]),
        (1e7, [0.751, 0.582, 0.351]),
    ] {
        for (qber, rate) in [0.01, 0.025, 0.05].into_iter().zip(rates) {
            let found = single_photon::rate_per_sifted_bit(total, qber, 1.1, &security);
            near(&format!("{total}, {qber}"), found, rate, 1e-3);
        }
    }
}

/// Matsumoto, arXiv:1301.5083: key up to a depolarising rate of 6.5 % (each Pauli error p/3, so q = 4p/3). The proofs
/// before it: 3.5, 3.7 and 4.2 %. Ours ends at 6.65 %; a search over all channels, without the symmetries used here,
/// found the same.
#[test]
fn threshold_of_b92() {
    let rate = |p: f64| b92::rate(1.0, 4.0 * p / 3.0, 1.0);
    near("threshold", last_above_zero(|p| rate(p).bits_per_pulse, 0.01, 0.2), 0.0665, 1e-4);
    let noiseless = rate(1e-9);
    near("conclusive", noiseless.conclusive, 0.25, 1e-8);
    near("entropy", noiseless.entropy, 1.0, 1e-3);
    let noisy = b92::rate(1.0, 0.1, 1.0);
    near("conclusive", noisy.conclusive, 0.275, 1e-12);
    near("QBER", noisy.qber, 0.1 / 1.1, 1e-12);
    // The toy error: BB84's formula would still promise key at a QBER of 9 %.
    assert!(noisy.bits_per_pulse < 0.0);
}

#[test]
fn b92_is_refused_beyond_the_limit_of_state_discrimination() {
    for (mu, limit_db) in [(0.1, 7.42), (0.2, 4.82), (0.5, 1.99)] {
        near("coherent", b92::loss_limit(b92::coherent_overlap(mu)).0, limit_db, 0.005);
    }
    let limit = b92::loss_limit(core::f64::consts::FRAC_1_SQRT_2).0;
    near("single photons", limit, 5.33, 0.005);
    let passed = |db: f64| 10_f64.powf(-0.1 * db);
    assert_eq!(b92::rate(passed(limit + 0.01), 1e-6, 1.16).bits_per_pulse, 0.0);
    // Just before it the search has found Eve's measurement by itself: next to nothing is left.
    let before = b92::rate(passed(limit - 0.05), 1e-6, 1.16);
    assert!(before.entropy < 0.05, "{before:?}");
    let rates: Vec<_> = [0.0, 1.0, 2.0, 3.0, 4.0].map(|db| b92::rate(passed(db), 0.01, 1.16).bits_per_pulse).into();
    assert!(rates.windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}");
}

#[test]
fn mdi_with_decoys() {
    let at = |km: f64| Relay::half_way(&hardware("mdi"), Kilometres(km));
    let zero = at(0.0).rate([0.4, 0.4], F_EC);
    for (what, value, reference) in [
        ("R", zero.bits_per_pulse, 4.6737e-4),
        ("Q_Z", zero.q_z, 1.5426e-3),
        ("E_Z", zero.e_z, 0.015_204),
        ("Y11", zero.y11, 0.010_514),
        ("e11_X", zero.e11_x, 0.015_069),
        ("Q11", zero.q11, 7.5588e-4),
        ("Q_X", zero.q_x, 3.1302e-3),
        ("E_X", zero.e_x, 0.254_02),
    ] {
        within(what, value, reference, 5e-5);
    }
    let hundred = at(100.0).rate([0.4, 0.4], F_EC);
    within("R", hundred.bits_per_pulse, 4.2693e-6, 2e-5);
    within("Q_Z", hundred.q_z, 1.6743e-5, 4e-5);
    within("E_Z", hundred.e_z, 0.017_009, 4e-5);
    within("Y11", hundred.y11, 1.053e-4, 4e-5);
    within("e11_X", hundred.e11_x, 0.015_793, 4e-5);
    let far = at(200.0).rate([0.4, 0.4], F_EC);
    within("R", far.bits_per_pulse, 2.083e-8, 3e-4);
    within("E_Z", far.e_z, 0.034_432, 2e-5);
    within("e11_X", far.e11_x, 0.022_928, 3e-5);
    near("best at 0 km", at(0.0).best(F_EC).0, 0.60, 0.01);
    near("best at 200 km", at(200.0).best(F_EC).0, 0.45, 0.01);
}

#[test]
fn reach_of_mdi() {
    let reach = |dark: f64, hardware: &Hardware, f_ec: f64| {
        let rate = |km: f64| Relay { dark, ..Relay::half_way(hardware, Kilometres(km)) }.best(f_ec).1.bits_per_pulse;
        last_above_zero(rate, 50.0, 500.0)
    };
    for (dark, km) in [(3.01e-6, 231.9), (6.02e-6, 201.9), (1e-6, 279.8), (1e-7, 379.8)] {
        near(&format!("dark {dark}"), reach(dark, &hardware("mdi"), F_EC), km, 0.2);
    }
    // Li et al. 2022 quote 195 km, with dark counts counted otherwise.
    near("gys", reach(0.85e-6, &hardware("gys"), GYS_F), 200.7, 0.2);
}

#[test]
fn bessel_series_keeps_its_digits() {
    within("small", bessel_less_one(1e-6), 2.5e-13, 1e-12);
    within("one", bessel_less_one(1.0), 0.266_065_877_752_008_3, 1e-14);
    within("ten", bessel_less_one(10.0), 2_814.716_628_466_254, 1e-14);
}

#[test]
fn memories_at_the_relay() {
    for (p0, t) in [(1.0, 1.0), (0.5, 2.666_667), (0.1, 14.736_842), (0.01, 149.748_744), (1e-3, 1_499.749_875)] {
        within("<T>", attempts(p0, p0), t, 1e-6);
        within("identity", attempts(p0, p0), (3.0 - 2.0 * p0) / (p0 * (2.0 - p0)), 1e-12);
    }
    let ideal = hardware("ideal");
    let slow = Memories { coherence_s: 1e-3, ..Memories::default() };
    for (km, t, rate, rate_1_ms) in [
        (50.0, 8.5108, 17_458.0, Some(17_110.0)),
        (100.0, 27.521, 5_398.7, Some(5_052.0)),
        (180.0, 175.01, 848.61, Some(591.0)),
        (300.0, 2_777.5, 53.111, None),
        (400.0, 27_778.0, 4.9962, None),
    ] {
        let point = Memories::default().rate(&ideal, Kilometres(km), F_EC);
        within("<T>", point.attempts, t, 3e-5);
        within("rate", point.bits_per_s, rate, 3e-5);
        let point = slow.rate(&ideal, Kilometres(km), F_EC);
        match rate_1_ms {
            Some(rate) => within("T2 = 1 ms", point.bits_per_s, rate, 1e-3),
            None => assert!(point.bits_per_s < 0.0),
        }
    }
    let point = Memories::default().rate(&ideal, Kilometres(180.0), F_EC);
    near("e_X", point.e_x, 0.010_057, 1e-6);
}

/// Without the error-correction term the formula promises key at any bit error rate.
#[test]
fn the_short_form_of_the_memories_rate_is_no_key_rate() {
    let noise = Hardware { misalignment: 0.2, ..hardware("ideal") };
    let point = Memories::default().rate(&noise, Kilometres(100.0), F_EC);
    assert!(point.without_correction > 0.0 && point.bits_per_s < 0.0);
    let good = Memories::default().rate(&hardware("ideal"), Kilometres(100.0), F_EC);
    assert!(good.without_correction > good.bits_per_s);
}

#[test]
fn limit_of_a_span() {
    let ideal = hardware("ideal");
    for (km, bits) in
        [(50.0, 0.152_003), (100.0, 0.014_499_6), (180.0, 3.624_34e-4), (300.0, 1.442_696e-6), (580.0, 3.6239e-12)]
    {
        within(&format!("{km} km"), long_haul::plob(&ideal, Kilometres(km)), bits, 1e-5);
    }
}

/// Our transcription of Ma, Zeng, Zhou 2018; the paper's curve ends at 418 km.
#[test]
fn phase_matching() {
    let rate =
        |km: f64| long_haul::PhaseMatching::half_way(&hardware("pm"), Kilometres(km)).best(1.15).1.bits_per_pulse;
    for (km, bits) in [(100.0, 7.9e-5), (200.0, 7.8e-6), (300.0, 6.9e-7)] {
        within(&format!("{km} km"), rate(km), bits, 0.01);
    }
    near("reach", last_above_zero(rate, 100.0, 600.0), 397.0, 1.0);
    let ideal = hardware("ideal");
    assert!(rate(350.0) > long_haul::plob(&ideal, Kilometres(350.0)), "beats the limit of one span");
}

/// Li et al. 2022: from 142 to 180 km, six-state from 146 to 187 km (b = 12). The intensity there is 0.6; the best
/// intensity reaches a little farther.
#[test]
fn reach_with_advantage_distillation() {
    let reach = |b, mu: f64, bases| {
        last_above_zero(|km| distilled::rate_at(&gys(km), b, mu, GYS_F, bases).bits_per_pulse, 50.0, 250.0)
    };
    for (b, mu, km) in [
        (2, 0.6, 162.4),
        (3, 0.5, 168.6),
        (4, 0.5, 172.0),
        (5, 0.6, 174.9),
        (8, 0.6, 178.3),
        (12, 0.6, 180.3),
        (20, 0.6, 182.1),
        (40, 0.6, 183.5),
    ] {
        near(&format!("b = {b}"), reach(b, mu, Bases::Two), km, 0.06);
    }
    for (b, km) in [(5, 181.7), (8, 185.4), (12, 187.7), (20, 189.8), (40, 191.5)] {
        near(&format!("six-state, b = {b}"), reach(b, 0.6, Bases::Three), km, 0.06);
    }
    let best = |b, bases| last_above_zero(|km| distilled::rate(&gys(km), b, GYS_F, bases).bits_per_pulse, 50.0, 250.0);
    near("b = 1", best(1, Bases::Two), 142.2, 0.05);
    near("six-state, b = 1", best(1, Bases::Three), 146.2, 0.05);
    near("b = 12, best intensity", best(12, Bases::Two), 180.85, 0.02);
}

/// Weak pulses at 11.4 % without dark counts: secret bits per sifted detection at the best intensity.
#[test]
fn distilled_weak_pulses_at_eleven_point_four_percent() {
    let line = Line { eta: 1e-4, y0: 0.0, misalignment: 0.114, afterpulse: 0.0, dead_slots: 0.0 };
    for (b, mu, share, kept) in [(2, 0.130, 0.0198, 0.0163), (3, 0.207, 0.0099, 0.0021)] {
        let point = distilled::rate(&line, b, F_EC, Bases::Two);
        near("mu", point.mu, mu, 0.002);
        near("share", point.bits_per_pulse / (0.5 * line.gain(point.mu)), share, 2.5e-4);
        near("kept", point.kept_qber, kept, 5e-5);
    }
    assert!(distilled::rate(&line, 1, F_EC, Bases::Two).bits_per_pulse <= 0.0);
}

#[test]
fn protocols_are_found_by_name() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.name().parse(), Ok(protocol));
        assert!(UnknownProtocol.to_string().contains(protocol.name()));
        assert!(!protocol.about().is_empty() && !protocol.sifting().is_empty());
    }
    assert_eq!("e91".parse::<Protocol>(), Err(UnknownProtocol));
    for set in HardwareSet::all() {
        assert_eq!(HardwareSet::named(set.name), Some(set));
    }
}

/// On saturated detectors weak pulses are better than wasted clicks: the search lowers the intensity, and finite blocks
/// with rare test pulses stay below twice what endless ones give (bases are chosen evenly there).
#[test]
fn intensities_are_chosen_for_dead_time() {
    let line = Line::of(&hardware("s1"), Kilometres(20.0));
    let rested = Line { dead_slots: 0.0, ..line };
    let (mu, rate) = line.best(F_EC, DecoyBound::Infinite);
    let (bright, rate_rested) = rested.best(F_EC, DecoyBound::Infinite);
    assert!(mu < 0.5 * bright);
    assert!(rate.bits_per_pulse * line.live(rate.gain) > rate_rested.bits_per_pulse * line.live(rate_rested.gain));
    let conditions = Conditions {
        hardware: hardware("s1"),
        security: Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 },
        f_ec: F_EC,
        block_bits: 1_000_000,
        decoy: None,
        optimise: true,
    };
    for km in [10.0, 60.0, 120.0, 180.0] {
        let rate = |protocol: Protocol| protocol.rate(&conditions, Kilometres(km)).skr.0;
        let endless = rate(Protocol::DecoyBb84Asymptotic(DecoyBound::Infinite));
        let finite = rate(Protocol::DecoyBb84(Proof::Lim2014));
        assert!(finite < 2.0 * endless, "{km} km: {finite} against {endless}");
    }
}

/// Every protocol over every kilometre: numbers, never above the span's limit but for relays in the middle.
#[test]
fn curves_are_sane() {
    for name in ["s1", "gys", "mdi", "ideal"] {
        let conditions = Conditions {
            hardware: hardware(name),
            security: Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 },
            f_ec: F_EC,
            block_bits: 1_000_000,
            decoy: None,
            optimise: false,
        };
        for protocol in Protocol::ALL {
            let mut last = f64::INFINITY;
            for km in [1.0, 40.0, 80.0, 160.0, 320.0, 640.0] {
                let point = protocol.rate(&conditions, Kilometres(km));
                let what = format!("{protocol} on {name} at {km} km: {point:?}");
                assert!(point.bits_per_pulse.is_finite() && point.bits_per_pulse >= 0.0, "{what}");
                // A saturated receiver may gain from loss as long as its settings are not adapted.
                assert!(point.bits_per_pulse <= last || conditions.hardware.dead_time_us > 0.0, "{what}");
                last = point.bits_per_pulse;
                let limit = Protocol::Plob.rate(&conditions, Kilometres(km)).bits_per_pulse;
                let relayed = matches!(protocol, Protocol::MdiMemory | Protocol::PhaseMatching);
                assert!(point.bits_per_pulse <= limit * (1.0 + 1e-12) || relayed, "{what}, limit {limit}");
            }
        }
    }
}

proptest! {
    /// What decoys bound lies on the safe side of what is, so that bounds never promise more than the truth.
    #[test]
    fn decoy_bounds_are_on_the_safe_side(
        km in 0.0..140.0_f64,
        mu in 0.2..0.9_f64,
        share in 0.02..0.6_f64,
        misalignment in 0.0..0.08_f64,
    ) {
        let line = Line { misalignment, ..gys(km) };
        let (y1, e1) = line.single_photons();
        let everything = line.rate(mu, GYS_F, DecoyBound::Infinite).bits_per_pulse;
        let nu = mu * share;
        for bound in [DecoyBound::VacuumWeak { nu }, DecoyBound::OneDecoy { nu }, DecoyBound::NoDecoy] {
            let point = line.rate(mu, GYS_F, bound);
            prop_assert!(point.y1 <= y1 * (1.0 + 1e-9), "{:?}", point);
            prop_assert!(point.e1 >= e1 * (1.0 - 1e-9), "{:?}", point);
            prop_assert!(point.bits_per_pulse <= everything + 1e-15);
        }
    }

    #[test]
    fn rates_fall_with_distance(km in 0.0..130.0_f64, more in 0.1..10.0_f64) {
        for bound in [DecoyBound::Infinite, VACUUM_WEAK] {
            let rate = |km| gys(km).rate(0.48, GYS_F, bound).bits_per_pulse;
            prop_assert!(rate(km + more) < rate(km));
        }
        let memories = |km| Memories::default().rate(&hardware("ideal"), Kilometres(km), F_EC).bits_per_s;
        prop_assert!(memories(km + more) < memories(km));
        let mdi = |km| Relay::half_way(&hardware("mdi"), Kilometres(km)).rate([0.4, 0.4], F_EC).bits_per_pulse;
        prop_assert!(mdi(km + more) < mdi(km));
    }

    /// The weaker the decoy, the closer to what is.
    #[test]
    fn a_vanishing_decoy_tells_everything(km in 0.0..138.0_f64) {
        let everything = gys(km).rate(0.48, GYS_F, DecoyBound::Infinite).bits_per_pulse;
        let loss = |nu| everything - gys(km).rate(0.48, GYS_F, DecoyBound::VacuumWeak { nu }).bits_per_pulse;
        prop_assert!(loss(0.001) < loss(0.01) && loss(0.01) < loss(0.1));
        prop_assert!(loss(0.001) < 2e-3 * gys(km).rate(0.48, GYS_F, DecoyBound::Infinite).gain);
    }
}
