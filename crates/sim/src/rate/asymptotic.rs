//! Decoy-state BB84 with endless blocks: Ma, Qi, Zhao, Lo, "Practical decoy state for quantum key distribution",
//! PRA 72 012326 (2005), quant-ph/0503005, cited as M05.
//!
//! **Sifting.** Both ends choose one of two bases with equal probability and keep the half of the detections in
//! which they agree: q = 1/2.
//!
//! ```text
//! Q_k = Y0 + 1 - e^(-eta k)                        gain of intensity k
//! E_k Q_k = Y0/2 + e_d (1 - e^(-eta k))
//! Y1 = Y0 + eta, e1 = (Y0/2 + e_d eta) / Y1, Q1 = Y1 k e^-k
//! R >= q { -Q_mu f h(E_mu) + Q1 [1 - h(e1)] }      M05 eq. (1), after Gottesman, Lo, Luetkenhaus, Preskill (2004)
//! ```
//!
//! Afterpulses, which M05 leaves out, are added as in Lim et al. 2014: a share p_ap more clicks, half of them wrong.

use link::proof::binary_entropy;
use optics::model::{dark_probability, dead_slots, transmittance};
use types::network::Hardware;
use types::units::Kilometres;

use super::search::highest;

/// What is known of the single photons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecoyBound {
    /// Everything: endlessly many decoy intensities.
    Infinite,
    /// Bounds from vacuum and one weak decoy of this mean photon number.
    VacuumWeak {
        /// Mean photon number of the weak decoy.
        nu: f64,
    },
    /// Bounds from one weak decoy; errors alone bound the vacuum.
    OneDecoy {
        /// Mean photon number of the decoy.
        nu: f64,
    },
    /// No decoy: every pulse of several photons may have been let through.
    NoDecoy,
}

/// Source, fibre and receiver of an optical link, as M05 sees them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Probability that a photon is detected.
    pub eta: f64,
    /// Y0: probability of a click without light, both detectors together.
    pub y0: f64,
    /// e_d.
    pub misalignment: f64,
    /// p_ap.
    pub afterpulse: f64,
    /// Slots that the detectors rest after a click; M05 has none. It counts where an intensity is chosen.
    pub dead_slots: f64,
}

/// What the bounds give for one intensity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AsymptoticRate {
    /// Secret bits per pulse; negative by what is missing.
    pub bits_per_pulse: f64,
    /// Lower bound on the yield of single photons.
    pub y1: f64,
    /// Upper bound on their error rate.
    pub e1: f64,
    /// Gain of the signal.
    pub gain: f64,
    /// Error rate of the signal.
    pub qber: f64,
}

impl Line {
    /// The line of this hardware and length.
    #[must_use]
    pub fn of(hardware: &Hardware, length: Kilometres) -> Self {
        Self {
            eta: transmittance(hardware, length),
            y0: 2.0 * dark_probability(hardware),
            misalignment: hardware.misalignment,
            afterpulse: hardware.afterpulse,
            dead_slots: dead_slots(hardware),
        }
    }

    /// Share of the slots in which the detectors do not rest, if a live slot clicks with probability `clicks`.
    #[must_use]
    pub fn live(&self, clicks: f64) -> f64 {
        1.0 / (1.0 + clicks * self.dead_slots)
    }

    /// Q_k.
    #[must_use]
    pub fn gain(&self, k: f64) -> f64 {
        self.clicks(-libm::expm1(-self.eta * k))
    }

    /// E_k Q_k.
    #[must_use]
    pub fn wrong(&self, k: f64) -> f64 {
        self.errors(-libm::expm1(-self.eta * k))
    }

    /// Y1 and e1 as they are.
    #[must_use]
    pub fn single_photons(&self) -> (f64, f64) {
        let y1 = self.clicks(self.eta);
        (y1, self.errors(self.eta) / y1)
    }

    /// Clicks per pulse whose light is detected with probability `seen`.
    fn clicks(&self, seen: f64) -> f64 {
        (self.y0 + seen) * (1.0 + self.afterpulse)
    }

    fn errors(&self, seen: f64) -> f64 {
        0.5 * self.y0 + self.misalignment * seen + 0.5 * self.afterpulse * (self.y0 + seen)
    }

    /// Lower bound on Y1 and upper bound on e1.
    #[must_use]
    pub fn bounds(&self, mu: f64, bound: DecoyBound) -> (f64, f64) {
        let y0 = self.clicks(0.0);
        let signal = self.gain(mu) * libm::exp(mu);
        // M05 eq. (34) with a bound on Y0 in place of Y0 where nobody sends vacuum.
        let weak = |nu: f64, y0: f64| {
            let square = nu * nu / (mu * mu);
            let y1 = mu / (mu * nu - nu * nu) * (self.gain(nu) * libm::exp(nu) - signal * square - (1.0 - square) * y0);
            y1.max(0.0)
        };
        // M05 eq. (37).
        let error = |nu: f64, y0: f64, y1: f64| {
            let wrong = self.wrong(nu) * libm::exp(nu) - 0.5 * y0;
            if y1 > 0.0 { (wrong / (y1 * nu)).min(0.5) } else { 0.5 }
        };
        match bound {
            DecoyBound::Infinite => self.single_photons(),
            DecoyBound::VacuumWeak { nu } => {
                let y1 = weak(nu, y0);
                (y1, error(nu, y0, y1))
            }
            DecoyBound::OneDecoy { nu } => {
                // M05, section on one decoy: vacuum makes no more errors than there are.
                let y1 = weak(nu, 2.0 * self.wrong(mu) * libm::exp(mu));
                (y1, error(nu, 0.0, y1))
            }
            DecoyBound::NoDecoy => {
                // Every pulse of two photons and more arrives, and all errors are those of single photons.
                let multi = -libm::expm1(-mu) - mu * libm::exp(-mu);
                let single = (self.gain(mu) - multi).max(0.0);
                let e1 = if single > 0.0 { (self.wrong(mu) / single).min(0.5) } else { 0.5 };
                (single * libm::exp(mu) / mu, e1)
            }
        }
    }

    /// The key rate of signal intensity `mu` with reconciliation at `f_ec` times the Shannon limit.
    #[must_use]
    pub fn rate(&self, mu: f64, f_ec: f64, bound: DecoyBound) -> AsymptoticRate {
        let (y1, e1) = self.bounds(mu, bound);
        let gain = self.gain(mu);
        let qber = self.wrong(mu) / gain;
        let q1 = y1 * mu * libm::exp(-mu);
        let bits_per_pulse = SIFTED * (q1 * (1.0 - binary_entropy(e1)) - gain * f_ec * binary_entropy(qber));
        AsymptoticRate { bits_per_pulse, y1, e1, gain, qber }
    }

    /// The signal intensity with the highest rate, dead time included, and its rate per live slot.
    #[must_use]
    pub fn best(&self, f_ec: f64, bound: DecoyBound) -> (f64, AsymptoticRate) {
        let least = match bound {
            DecoyBound::VacuumWeak { nu } | DecoyBound::OneDecoy { nu } => 1.01 * nu,
            // Without decoys the best intensity is about eta.
            DecoyBound::Infinite | DecoyBound::NoDecoy => 1e-6,
        };
        // A search over the logarithm: the best may lie anywhere from eta to one.
        let score = |log: f64| {
            let rate = self.rate(libm::exp(log), f_ec, bound);
            rate.bits_per_pulse * self.live(rate.gain)
        };
        let (log, _) = highest(score, libm::log(least), libm::log(MU_MAX));
        let mu = libm::exp(log);
        (mu, self.rate(mu, f_ec, bound))
    }
}

/// M05 eq. (12): the best signal intensity where dark counts and eta are small, (1 - mu) e^-mu = f h(e_d) / (1 - h(e_d)).
#[must_use]
pub fn best_intensity(misalignment: f64, f_ec: f64) -> f64 {
    let entropy = binary_entropy(misalignment);
    let right = f_ec * entropy / (1.0 - entropy);
    super::search::last_above_zero(|mu| (1.0 - mu) * libm::exp(-mu) - right, 0.0, 1.0)
}

/// The error rate at which weak pulses of intensity `mu` give no key, without dark counts and with everything known
/// of their single photons: e^-mu (1 - h(e)) = f h(e).
#[must_use]
pub fn weak_pulse_threshold(mu: f64, f_ec: f64) -> f64 {
    let rate = |e: f64| libm::exp(-mu) * (1.0 - binary_entropy(e)) - f_ec * binary_entropy(e);
    super::search::last_above_zero(rate, 0.0, 0.5)
}

/// q: share of the detections with equal bases.
const SIFTED: f64 = 0.5;
const MU_MAX: f64 = 1.5;
