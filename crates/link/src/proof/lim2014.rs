//! Lim, Curty, Walenta, Xu, Zbinden, "Concise security bounds for practical decoy-state quantum key
//! distribution", PRA 89 022307 (2014), arXiv:1311.7129, cited as L14. X is the key basis, Z the test basis.

use types::network::{DecoySettings, Security};

use super::entropy::binary_entropy;
use super::statistics::{PhotonStatistics, Sampling, deviation, within};
use super::{KeyLength, OUTCOME_BITS, RealCounts, floor_to_bits};

/// Secret length of a block: L14 eq. (1) with all 21 failure probabilities equal (L14, below eq. (1)).
pub(super) fn key_length(counts: &RealCounts, leak: f64, decoy: &DecoySettings, security: &Security) -> KeyLength {
    let eps = security.epsilon_secrecy / TERMS;
    let source = PhotonStatistics::of(decoy);
    let x = source.events(&counts.key, eps);
    let z = source.events(&counts.test, eps);
    let v_z1 = source.single_photon_errors(&counts.test_errors, eps);

    // L14 eq. (5).
    let phase_error = Sampling::Hypergeometric.error_rate(v_z1, z.single, x.single, eps);
    let margin = x.vacuum + x.single
        - x.single * binary_entropy(phase_error)
        - leak
        - 6.0 * libm::log2(TERMS / security.epsilon_secrecy)
        - libm::log2(2.0 / security.epsilon_correctness)
        - OUTCOME_BITS;
    KeyLength {
        bits: floor_to_bits(margin),
        margin,
        s_x0: x.vacuum,
        s_x0_upper: None,
        s_x1: x.single,
        s_z1: z.single,
        v_z1,
        phase_error,
        disclosed: 0.0,
    }
}

/// Lower bounds on events of one basis.
struct Events {
    vacuum: f64,
    single: f64,
}

impl PhotonStatistics {
    /// L14 eqs. (2) and (3): vacuum and single-photon events of one basis.
    fn events(&self, n: &[f64; 3], eps: f64) -> Events {
        let [mu1, mu2, mu3] = self.mu;
        let [tau0, tau1] = self.tau;
        // Counts that no channel makes, other than with negligible probability, could put a bound above what there
        // is; a bound below zero says nothing.
        let total = n[0] + n[1] + n[2];
        let [lower, upper] = self.scaled(n, deviation(total, eps));
        // L14 eq. (2).
        let vacuum = within(tau0 * (mu2 * lower[2] - mu3 * upper[1]) / (mu2 - mu3), total);
        // L14 eq. (3).
        let single =
            tau1 * mu1 * (lower[1] - upper[2] - (mu2 * mu2 - mu3 * mu3) / (mu1 * mu1) * (upper[0] - vacuum / tau0))
                / (mu1 * (mu2 - mu3) - mu2 * mu2 + mu3 * mu3);
        Events { vacuum, single: within(single, total - vacuum) }
    }

    /// L14 eq. (4): v_Z,1, single-photon errors of the test basis. At least one is assumed, because the estimate
    /// of the phase error approximates the tail of a hypergeometric distribution and would take "none seen" for
    /// "none there".
    fn single_photon_errors(&self, m: &[f64; 3], eps: f64) -> f64 {
        let [_, mu2, mu3] = self.mu;
        let [lower, upper] = self.scaled(m, deviation(m[0] + m[1] + m[2], eps));
        (self.tau[1] * (upper[1] - lower[2]) / (mu2 - mu3)).max(1.0)
    }
}

/// Equal failure probabilities that the total is split into.
const TERMS: f64 = 21.0;
