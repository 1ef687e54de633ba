//! Decoy-state BB84 with advantage distillation, endless blocks: Li et al., Commun. Phys. 5 53 (2022).
//!
//! **Sifting.** As BB84, q = 1/2; then blocks of b sifted bits are reduced to one, and dropped unless Bob's all agree
//! ([`link::proof::distillation`]).
//!
//! ```text
//! R = (q Q_mu / b) [ (Q1/Q_mu)^b p1 K_b(e1) - ((1-E_mu)^b + E_mu^b) f h(Et(E_mu)) ]
//! ```

use link::proof::binary_entropy;
use link::proof::distillation::{entropy_bound, entropy_bound_six_state, kept_error, kept_share};

use super::asymptotic::Line;
use super::search::highest;

/// Which error rates the measurement shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bases {
    /// Two bases: BB84.
    Two,
    /// Three bases: six-state.
    Three,
}

/// What distillation gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistilledRate {
    /// Secret bits per pulse; negative by what is missing.
    pub bits_per_pulse: f64,
    /// Sifted bits in one repetition block.
    pub b: u32,
    /// Intensity.
    pub mu: f64,
    /// Error rate of the sifted bits.
    pub qber: f64,
    /// Error rate of the kept bits.
    pub kept_qber: f64,
}

/// The rate per live slot with repetition blocks of `b` and the best intensity for them, dead time included,
/// everything known of single photons.
#[must_use]
pub fn rate(line: &Line, b: u32, f_ec: f64, bases: Bases) -> DistilledRate {
    let secret = secret_share(line, b, bases);
    let score = |log: f64| {
        let mu = libm::exp(log);
        with_share(line, b, mu, f_ec, secret).bits_per_pulse * line.live(line.gain(mu))
    };
    let (log, _) = highest(score, libm::log(1e-3), libm::log(1.5));
    with_share(line, b, libm::exp(log), f_ec, secret)
}

/// The same at a given intensity.
#[must_use]
pub fn rate_at(line: &Line, b: u32, mu: f64, f_ec: f64, bases: Bases) -> DistilledRate {
    with_share(line, b, mu, f_ec, secret_share(line, b, bases))
}

/// p1 K_b(e1)
fn secret_share(line: &Line, b: u32, bases: Bases) -> f64 {
    let (_, e1) = line.single_photons();
    let bound = match bases {
        Bases::Two => entropy_bound(e1, b),
        Bases::Three => entropy_bound_six_state(e1, b),
    };
    kept_share(e1, b) * bound
}

fn with_share(line: &Line, b: u32, mu: f64, f_ec: f64, secret: f64) -> DistilledRate {
    let gain = line.gain(mu);
    let qber = line.wrong(mu) / gain;
    let single = line.single_photons().0 * mu * libm::exp(-mu) / gain;
    let kept_qber = kept_error(qber, b);
    let leak = kept_share(qber, b) * f_ec * binary_entropy(kept_qber);
    let bits_per_pulse = SIFTED * gain / f64::from(b) * (libm::pow(single, f64::from(b)) * secret - leak);
    DistilledRate { bits_per_pulse, b, mu, qber, kept_qber }
}

/// The best repetition length, from one (which is no distillation) to `most`.
#[must_use]
pub fn best(line: &Line, most: u32, f_ec: f64) -> DistilledRate {
    let first = rate(line, 1, f_ec, Bases::Two);
    (2..=most)
        .map(|b| rate(line, b, f_ec, Bases::Two))
        .fold(first, |best, next| if next.bits_per_pulse > best.bits_per_pulse { next } else { best })
}

/// q: share of the detections with equal bases.
const SIFTED: f64 = 0.5;
