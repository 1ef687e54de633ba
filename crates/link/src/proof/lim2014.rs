//! Lim, Curty, Walenta, Xu, Zbinden, "Concise security bounds for practical decoy-state quantum key
//! distribution", PRA 89 022307 (2014), arXiv:1311.7129, cited as L14. X is the key basis, Z the test basis.

use types::network::{DecoySettings, Security};

use super::entropy::binary_entropy;
use super::{KeyLength, RealCounts};

/// Secret length of a block: L14 eq. (1) with all 21 failure probabilities equal (L14, below eq. (1)).
pub(super) fn key_length(counts: &RealCounts, leak: f64, decoy: &DecoySettings, security: &Security) -> KeyLength {
    let eps_sec = security.epsilon_secrecy;
    let source = PhotonStatistics::of(decoy);
    let x = source.bound(&counts.key, eps_sec);
    let z = source.bound(&counts.test, eps_sec);
    let v_z1 = source.single_photon_errors(&counts.test_errors, eps_sec);

    let phase_error = phase_error(v_z1, z.single, x.single, eps_sec);
    let margin = x.vacuum + x.single
        - x.single * binary_entropy(phase_error)
        - leak
        - 6.0 * libm::log2(TERMS / eps_sec)
        - libm::log2(2.0 / security.epsilon_correctness)
        - OUTCOME_BITS;
    KeyLength { bits: floor_to_bits(margin), margin, s_x0: x.vacuum, s_x1: x.single, s_z1: z.single, v_z1, phase_error }
}

/// Intensities, their probabilities, and the photon-number distribution that they make together.
struct PhotonStatistics {
    mu: [f64; 3],
    /// e^mu_k / p_k: turns counts of an intensity into the scale of the bounds.
    weight: [f64; 3],
    /// Probabilities that a pulse has no photon, one photon: tau_0, tau_1.
    tau: [f64; 2],
}

/// Lower bounds on events of one basis.
struct Events {
    vacuum: f64,
    single: f64,
}

impl PhotonStatistics {
    fn of(decoy: &DecoySettings) -> Self {
        let mu = decoy.intensities;
        let p = decoy.probabilities;
        let mut weight = [0.0; 3];
        let mut tau = [0.0; 2];
        for k in 0..3 {
            weight[k] = libm::exp(mu[k]) / p[k];
            // L14, below eq. (2): tau_n = sum_k e^-k k^n p_k / n!
            let poisson = libm::exp(-mu[k]) * p[k];
            tau[0] += poisson;
            tau[1] += poisson * mu[k];
        }
        Self { mu, weight, tau }
    }

    /// L14 eqs. (2) and (3): vacuum and single-photon events of one basis.
    fn bound(&self, n: &[f64; 3], eps_sec: f64) -> Events {
        let [mu1, mu2, mu3] = self.mu;
        let [tau0, tau1] = self.tau;
        let [lower, upper] = self.hoeffding(n, eps_sec);
        // Counts that no channel makes, other than with negligible probability, could put a bound above what there
        // is; a bound below zero says nothing.
        let total = n[0] + n[1] + n[2];
        // L14 eq. (2).
        let vacuum = (tau0 * (mu2 * lower[2] - mu3 * upper[1]) / (mu2 - mu3)).clamp(0.0, total);
        // L14 eq. (3).
        let single =
            tau1 * mu1 * (lower[1] - upper[2] - (mu2 * mu2 - mu3 * mu3) / (mu1 * mu1) * (upper[0] - vacuum / tau0))
                / (mu1 * (mu2 - mu3) - mu2 * mu2 + mu3 * mu3);
        Events { vacuum, single: single.clamp(0.0, total - vacuum) }
    }

    /// L14 eq. (4): v_Z,1, single-photon errors of the test basis. At least one is assumed, because the estimate
    /// of the phase error below approximates the tail of a hypergeometric distribution and would take "none seen"
    /// for "none there".
    fn single_photon_errors(&self, m: &[f64; 3], eps_sec: f64) -> f64 {
        let [_, mu2, mu3] = self.mu;
        let [lower, upper] = self.hoeffding(m, eps_sec);
        (self.tau[1] * (upper[1] - lower[2]) / (mu2 - mu3)).max(1.0)
    }

    /// L14, below eq. (2): n^-_k and n^+_k = e^k / p_k (n_k -+ sqrt(n/2 ln(21/eps_sec))), by Hoeffding's
    /// inequality over all intensities. The lower ones may be negative, which only loosens the bounds.
    fn hoeffding(&self, n: &[f64; 3], eps_sec: f64) -> [[f64; 3]; 2] {
        let total = n[0] + n[1] + n[2];
        let delta = (0.5 * total * libm::log(TERMS / eps_sec)).sqrt();
        let mut lower = [0.0; 3];
        let mut upper = [0.0; 3];
        for k in 0..3 {
            lower[k] = self.weight[k] * (n[k] - delta);
            upper[k] = self.weight[k] * (n[k] + delta);
        }
        [lower, upper]
    }
}

/// L14 eq. (5): phase error rate of the single-photon events of the key basis from the bit error rate of those
/// of the test basis, by random sampling without replacement. One half means that nothing is known.
fn phase_error(errors: f64, test: f64, key: f64, eps_sec: f64) -> f64 {
    if test <= 0.0 || key <= 0.0 {
        return 0.5;
    }
    let rate = errors / test;
    if rate >= 0.5 {
        return 0.5;
    }
    (rate + gamma(eps_sec, rate, test, key)).min(0.5)
}

/// L14, below eq. (5): gamma(a, b, c, d).
fn gamma(a: f64, b: f64, c: f64, d: f64) -> f64 {
    let variance = (1.0 - b) * b;
    let size = (c + d) / (c * d);
    let log = libm::log2(size / variance * (TERMS * TERMS) / (a * a));
    (size * variance / core::f64::consts::LN_2 * log).max(0.0).sqrt()
}

/// Rounds down; what is not positive is no key.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, NaN becomes 0")]
fn floor_to_bits(margin: f64) -> u64 {
    libm::floor(margin) as u64
}

/// Equal failure probabilities that the total is split into.
const TERMS: f64 = 21.0;
/// The public outcome accept/abort (arXiv:2507.21416v1).
const OUTCOME_BITS: f64 = 1.0;
