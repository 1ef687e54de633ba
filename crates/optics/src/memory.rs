//! Two quantum memories at a relay, loaded from both sides until each holds a photon: Monte Carlo and closed forms.
//!
//! A link with memories in its middle (Panayi, Razavi, Ma, Luetkenhaus, New J. Phys. 16, 043005 (2014); Abruzzo,
//! Kampermann, Bruss, Phys. Rev. A 89, 012301 (2014)) tries on both sides at once, attempt after attempt. A side that
//! succeeded waits for the other, so the rate falls with the loss of half the line, not of all of it; but what waits
//! dephases.
//!
//! ```text
//! N_A, N_B  geometric, P(N = n) = P (1 - P)^(n-1)
//! E[max(N_A, N_B)] = 1/P_A + 1/P_B - 1/(P_A + P_B - P_A P_B)
//! D = E[e^(-|N_A - N_B| t / T2)]      what is left of the coherence at the joint measurement
//! e_X = (1 - (1 - 2 e_d) D) / 2,  e_Z = e_d
//! ```
//!
//! Here for photons one at a time and a relay that heralds a loading itself, so that the attempt period is the
//! memories' own and not the way of light. Not provided: sources of more than one photon, several pairs of memories,
//! a limit of the storage time, dark counts of the herald.

use rand_core::Rng;

use crate::ziggurat::{Ziggurat, unit};

/// A relay with two memories.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relay {
    loading: [f64; 2],
    attempts_hz: f64,
    coherence_s: f64,
    error: f64,
}

/// A joint measurement after both memories were loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// Attempts until both were loaded.
    pub attempts: u64,
    /// Attempts that the first one waited.
    pub waited: u64,
    /// Whether the outcome is wrong in the basis that dephasing spoils, and in the other.
    pub errors: [bool; 2],
}

impl Relay {
    /// A relay whose memories are loaded with these probabilities per attempt and keep their coherence for a mean time;
    /// a pair is wrong with a probability even without waiting. None if a number is out of range.
    #[must_use]
    pub fn new(loading: [f64; 2], attempts_hz: f64, coherence_s: f64, error: f64) -> Option<Self> {
        let possible = loading.iter().all(|p| *p > 0.0 && *p <= 1.0)
            && attempts_hz > 0.0
            && coherence_s > 0.0
            && (0.0..=0.5).contains(&error);
        possible.then_some(Self { loading, attempts_hz, coherence_s, error })
    }

    /// Mean attempts until both memories are loaded.
    #[must_use]
    pub fn mean_attempts(&self) -> f64 {
        let [a, b] = self.loading;
        1.0 / a + 1.0 / b - 1.0 / (a + b - a * b)
    }

    /// Mean attempts that the first memory waits for the second.
    #[must_use]
    pub fn mean_wait(&self) -> f64 {
        let [a, b] = self.loading;
        // max - min, and the smaller of two geometric numbers is geometric.
        self.mean_attempts() - 1.0 / (a + b - a * b)
    }

    /// D: mean coherence at the joint measurement.
    #[must_use]
    pub fn coherence(&self) -> f64 {
        let [a, b] = self.loading;
        let x = self.kept_per_attempt();
        // P(N_A - N_B = m) = P_A P_B (1 - P_A)^m / (P_A + P_B - P_A P_B) for m >= 0, and the other way round.
        let later = |p: f64| (1.0 - p) * x / (1.0 - (1.0 - p) * x);
        a * b / (a + b - a * b) * (1.0 + later(a) + later(b))
    }

    /// Error rates in the basis that dephasing spoils, and in the other.
    #[must_use]
    pub fn error_rates(&self) -> [f64; 2] {
        [(1.0 - (1.0 - 2.0 * self.error) * self.coherence()) / 2.0, self.error]
    }

    /// Joint measurements per second.
    #[must_use]
    pub fn pairings_per_s(&self) -> f64 {
        self.attempts_hz / self.mean_attempts()
    }

    /// One joint measurement by chance.
    pub fn pair(&self, rng: &mut impl Rng) -> Pairing {
        let [a, b] = self.loading.map(|p| attempts(p, rng));
        let waited = a.abs_diff(b);
        // A phase flips with (1 - coherence) / 2.
        let flips = (1.0 - libm::pow(self.kept_per_attempt(), waited as f64)) / 2.0;
        let mut happens = |p: f64| unit(rng.next_u64()) < p;
        let spoiled = happens(self.error) ^ happens(flips);
        Pairing { attempts: a.max(b), waited, errors: [spoiled, happens(self.error)] }
    }

    /// Coherence that is left after one attempt more.
    fn kept_per_attempt(&self) -> f64 {
        libm::exp(-1.0 / (self.attempts_hz * self.coherence_s))
    }
}

/// A geometric number: how many attempts until the first success.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn attempts(p: f64, rng: &mut impl Rng) -> u64 {
    // The whole part of an exponential deviate is geometric; a certain success divides by minus infinity.
    let failures = Ziggurat::shared().exponential(rng) / -libm::log1p(-p);
    (failures as u64).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    fn even(p: f64) -> Relay {
        Relay::new([p, p], 1e6, 1.0, 0.01).unwrap()
    }

    fn close(value: f64, reference: f64, tolerance: f64) {
        assert!((value / reference - 1.0).abs() < tolerance, "{value} is not {reference}");
    }

    #[test]
    fn mean_attempts_of_even_sides() {
        // (3 - 2 P) / (P (2 - P)).
        for (p, attempts) in
            [(1.0, 1.0), (0.5, 2.666_667), (0.1, 14.736_842), (0.01, 149.748_744), (1e-3, 1_499.749_875)]
        {
            close(even(p).mean_attempts(), attempts, 1e-6);
        }
    }

    /// One memory of a pair in the middle of a line: P0 = 0.9 0.6 10^(-0.2 (L/2) / 10), a million attempts per second.
    fn middle(km: f64, coherence_s: f64) -> Relay {
        let p = 0.9 * 0.6 * libm::pow(10.0, -0.2 * km / 2.0 / 10.0);
        Relay::new([p, p], 1e6, coherence_s, 0.01).unwrap()
    }

    /// Key rate of single photons, with joint measurements that succeed with 0.18 and reconciliation at 1.16.
    fn rate(relay: &Relay) -> f64 {
        let h = |x: f64| -x * x.log2() - (1.0 - x) * (1.0 - x).log2();
        let [x, z] = relay.error_rates();
        relay.pairings_per_s() * 0.18 * (1.0 - h(x) - 1.16 * h(z))
    }

    #[test]
    fn rates_of_a_relay_in_the_middle() {
        for (km, attempts, long, short) in [
            (50.0, 8.5108, 17_458.0, Some(17_110.0)),
            (100.0, 27.521, 5_398.7, Some(5_052.0)),
            (180.0, 175.01, 848.61, Some(591.0)),
            (300.0, 2_777.5, 53.111, None),
            (400.0, 27_778.0, 4.9962, None),
        ] {
            close(middle(km, 1.0).mean_attempts(), attempts, 3e-5);
            close(rate(&middle(km, 1.0)), long, 3e-5);
            match short {
                Some(short) => close(rate(&middle(km, 1e-3)), short, 1e-3),
                None => assert!(rate(&middle(km, 1e-3)) < 0.0),
            }
        }
        close(middle(180.0, 1.0).coherence(), 0.999_88, 1e-5);
        close(middle(180.0, 1.0).error_rates()[0], 0.010_057, 1e-4);
    }

    #[test]
    fn chance_agrees_with_the_closed_forms() {
        const PAIRS: u32 = 200_000;
        let n = f64::from(PAIRS);
        for (seed, relay) in [
            (1, even(0.5)),
            (2, even(1.0)),
            (3, Relay::new([0.02, 0.02], 1e6, 5e-5, 0.03).unwrap()),
            (4, Relay::new([0.3, 0.01], 1e6, 1e-4, 0.01).unwrap()),
        ] {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let (mut attempts, mut squares, mut waited, mut wait_squares) = (0.0, 0.0, 0.0, 0.0);
            let mut errors = [0.0; 2];
            for _ in 0..PAIRS {
                let pair = relay.pair(&mut rng);
                let (m, w) = (pair.attempts as f64, pair.waited as f64);
                attempts += m;
                squares += m * m;
                waited += w;
                wait_squares += w * w;
                for (count, wrong) in errors.iter_mut().zip(pair.errors) {
                    *count += f64::from(u8::from(wrong));
                }
            }
            let within = |sum: f64, squares: f64, mean: f64| {
                let spread = ((squares / n - (sum / n).powi(2)).max(0.0) / n).sqrt();
                assert!((sum / n - mean).abs() <= 4.0 * spread, "{}, expected {mean}", sum / n);
            };
            within(attempts, squares, relay.mean_attempts());
            within(waited, wait_squares, relay.mean_wait());
            for (count, rate) in errors.into_iter().zip(relay.error_rates()) {
                within(count, count, rate);
            }
        }
    }

    #[test]
    fn impossible_relays_are_refused() {
        for (loading, hz, s, error) in [
            ([0.0, 0.5], 1e6, 1.0, 0.01),
            ([0.5, 1.1], 1e6, 1.0, 0.01),
            ([0.5, 0.5], 0.0, 1.0, 0.01),
            ([0.5, 0.5], 1e6, f64::NAN, 0.01),
            ([0.5, 0.5], 1e6, 1.0, 0.6),
        ] {
            assert_eq!(Relay::new(loading, hz, s, error), None);
        }
    }
}
