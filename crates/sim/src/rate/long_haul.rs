//! What one span can do at most, and the protocol that beats the span's limit: the bound of Pirandola, Laurenza,
//! Ottaviani, Banchi, Nat. Commun. 8 15043 (2017), and phase-matching QKD, Ma, Zeng, Zhou, PRX 8 031043 (2018).
//!
//! ```text
//! PLOB             R <= -log2(1 - eta)               any protocol over one span without a repeater
//! phase matching   R  = (2/M) Q [1 - f h(E) - h(E_X)]
//!   Q = 1 - e^(-eta mu) + 2 pd e^(-eta mu),  E = (pd + eta mu (e_M + e_d)) e^(-eta mu) / Q
//!   e_M = pi/M - (M/pi)^2 sin^3(pi/M)                 M phase slices
//!   E_X <= 1 - sum of q_k over k = 1, 3, 5,  q_k = (1 - (1 - 2 pd)(1 - eta)^k) e^-mu mu^k / k! / Q
//! ```
//!
//! **Sifting.** Alice and Bob send pulses of random phase to a relay half way; rounds whose phases fell into the same
//! or the opposite of M slices are kept, a share 2/M. eta is that of one arm, so that the rate falls with the root of
//! the span's loss. This transcription ends at 397 km where the paper's curve ends at 418 km: a sketch for planning.

use core::f64::consts::PI;

use link::proof::binary_entropy;
use types::network::Hardware;
use types::units::Kilometres;

use super::search::highest;

/// Most secret bits per pulse over a fibre without a repeater.
#[must_use]
pub fn plob(hardware: &Hardware, length: Kilometres) -> f64 {
    let eta = libm::pow(10.0, -0.1 * hardware.attenuation_db_per_km * length.0);
    -libm::log1p(-eta) / core::f64::consts::LN_2
}

/// Phase-matching QKD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseMatching {
    /// Probability that a photon of one arm is detected.
    pub eta: f64,
    /// Dark counts of one detector per gate.
    pub dark: f64,
    /// e_d.
    pub misalignment: f64,
    /// Slots that the relay's detectors rest after a click. It counts where an intensity is chosen.
    pub dead_slots: f64,
}

/// What phase matching gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseMatchingRate {
    /// Secret bits per pulse; negative by what is missing.
    pub bits_per_pulse: f64,
    /// Error rate of the sifted bits.
    pub qber: f64,
    /// Q.
    pub gain: f64,
}

impl PhaseMatching {
    /// The relay half way along a fibre.
    #[must_use]
    pub fn half_way(hardware: &Hardware, length: Kilometres) -> Self {
        Self {
            eta: optics::model::transmittance(hardware, Kilometres(0.5 * length.0)),
            dark: optics::model::dark_probability(hardware),
            misalignment: hardware.misalignment,
            dead_slots: optics::model::dead_slots(hardware),
        }
    }

    /// Share of the slots in which the relay does not rest, if a live slot clicks with probability `clicks`.
    #[must_use]
    pub fn live(&self, clicks: f64) -> f64 {
        1.0 / (1.0 + clicks * self.dead_slots)
    }

    /// The rate of intensity `mu`.
    #[must_use]
    pub fn rate(&self, mu: f64, f_ec: f64) -> PhaseMatchingRate {
        let dark = libm::exp(-self.eta * mu);
        let gain = 1.0 - dark + 2.0 * self.dark * dark;
        let slice = PI / SLICES;
        let slice_error = slice - libm::pow(libm::sin(slice), 3.0) / (slice * slice);
        let qber = ((self.dark + self.eta * mu * (slice_error + self.misalignment)) * dark / gain).min(0.5);
        let mut odd = 0.0;
        let mut weight = libm::exp(-mu);
        for k in 1..=5_u8 {
            weight *= mu / f64::from(k);
            if k % 2 == 1 {
                let missed = (1.0 - 2.0 * self.dark) * libm::pow(1.0 - self.eta, f64::from(k));
                odd += (1.0 - missed) * weight / gain;
            }
        }
        let e_x = (1.0 - odd).clamp(0.0, 0.5);
        let secret = 1.0 - f_ec * binary_entropy(qber) - binary_entropy(e_x);
        PhaseMatchingRate { bits_per_pulse: 2.0 / SLICES * gain * secret, qber, gain }
    }

    /// The best intensity, dead time included, and its rate per live slot.
    #[must_use]
    pub fn best(&self, f_ec: f64) -> (f64, PhaseMatchingRate) {
        let score = |log: f64| {
            let rate = self.rate(libm::exp(log), f_ec);
            rate.bits_per_pulse * self.live(rate.gain)
        };
        let (log, _) = highest(score, libm::log(1e-4), 0.0);
        let mu = libm::exp(log);
        (mu, self.rate(mu, f_ec))
    }
}

/// M.
const SLICES: f64 = 16.0;
