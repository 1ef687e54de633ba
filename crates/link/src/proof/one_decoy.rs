//! One decoy: two intensities, and vacuum events bounded from above by the errors that they make.
//!
//! - R18: Rusca, Boaron, Gruenenfelder, Martin, Zbinden, "Finite-key analysis for the 1-decoy state QKD
//!   protocol", APL 112 171104 (2018), arXiv:1801.03443.
//! - W26: Wiesemann, Krause, Tupkary, Luetkenhaus, Rusca, Walenta, "A consolidated and accessible security proof
//!   for finite-size decoy-state quantum key distribution", arXiv:2405.16578v3 (2026). Same bounds on photon
//!   numbers; Serfling's inequality for the sampling, 15 equal failure probabilities instead of 19, a smaller
//!   constant, and vacuum events not credited.
//!
//! Both papers call the key basis Z and the test basis X (W26: X and Z). Here it is the other way round than in
//! R18, as in the whole crate: X is the key basis.

use types::network::{DecoySettings, Security};

use super::entropy::binary_entropy;
use super::statistics::{PhotonStatistics, Sampling, deviation, within};
use super::{KeyLength, OUTCOME_BITS, RealCounts, floor_to_bits};

/// What the two papers do differently.
pub(super) struct Version {
    /// Equal failure probabilities that the total is split into.
    terms: f64,
    sampling: Sampling,
    /// Whether vacuum events count as secret bits.
    vacuum_counts: bool,
    /// Bits paid for eps_sec.
    secrecy_bits: fn(epsilon_secrecy: f64) -> f64,
}

/// R18, secret length of the 1-decoy protocol.
pub(super) const RUSCA_2018: Version = Version {
    terms: 19.0,
    sampling: Sampling::Hypergeometric,
    vacuum_counts: true,
    secrecy_bits: |eps| 6.0 * libm::log2(19.0 / eps),
};

/// W26, secret length of the 1-decoy protocol, as in the authors' own program for it.
pub(super) const WIESEMANN_2026: Version = Version {
    terms: 15.0,
    sampling: Sampling::Serfling,
    vacuum_counts: false,
    // 2^(1/4) inside the logarithm, four times: one bit.
    secrecy_bits: |eps| 4.0 * libm::log2(15.0 / eps) - 1.0,
};

/// Secret length of a block. Without the errors of the key basis nothing bounds its vacuum events, so there is no
/// key.
pub(super) fn key_length(
    version: &Version,
    counts: &RealCounts,
    leak: f64,
    decoy: &DecoySettings,
    security: &Security,
) -> KeyLength {
    let Some(key_errors) = counts.key_errors else { return KeyLength::none() };
    let eps = security.epsilon_secrecy / version.terms;
    let source = PhotonStatistics::of(decoy);
    let x = source.events_of_one_decoy(&counts.key, &key_errors, eps);
    let z = source.events_of_one_decoy(&counts.test, &counts.test_errors, eps);
    let v_z1 = source.single_photon_errors_of_one_decoy(&counts.test_errors, eps);

    let phase_error = version.sampling.error_rate(v_z1, z.single, x.single, eps);
    let disclosed = disclosed_bits(&counts.key);
    let margin = if version.vacuum_counts { x.vacuum } else { 0.0 } + x.single * (1.0 - binary_entropy(phase_error))
        - leak
        - (version.secrecy_bits)(security.epsilon_secrecy)
        - libm::log2(2.0 / security.epsilon_correctness)
        - OUTCOME_BITS
        - disclosed;
    KeyLength {
        bits: floor_to_bits(margin),
        margin,
        s_x0: x.vacuum,
        s_x0_upper: Some(x.vacuum_upper),
        s_x1: x.single,
        s_z1: z.single,
        v_z1,
        phase_error,
        disclosed,
    }
}

/// Bounds on events of one basis: vacuum from both sides, single photons from below.
struct Events {
    vacuum: f64,
    vacuum_upper: f64,
    single: f64,
}

impl PhotonStatistics {
    fn events_of_one_decoy(&self, n: &[f64; 3], m: &[f64; 3], eps: f64) -> Events {
        let [mu1, mu2, _] = self.mu;
        let [tau0, tau1] = self.tau;
        let total = n[0] + n[1];
        let [lower, upper] = self.scaled(n, deviation(total, eps));
        // R18 after L14 eq. (2), with the dimmer of two intensities in place of the third.
        let vacuum = within(tau0 / (mu1 - mu2) * (mu1 * lower[1] - mu2 * upper[0]), total);
        // R18: a vacuum event is wrong every other time, so errors bound them; the better of both intensities.
        let [_, errors] = self.scaled(m, deviation(m[0] + m[1], eps));
        let wrong = tau0 * errors[0].min(errors[1]) + deviation(total, eps);
        let vacuum_upper = within(2.0 * wrong, total);
        // Bounds that contradict each other come from counts that no channel makes: each is used at its worst.
        let (vacuum, vacuum_upper) = (vacuum.min(vacuum_upper), vacuum_upper.max(vacuum));
        // R18 after L14 eq. (3), solved for two intensities.
        let dim = mu2 * mu2 / (mu1 * mu1);
        let single = tau1 * mu1 / (mu2 * (mu1 - mu2)) * (lower[1] - dim * upper[0] - (1.0 - dim) * vacuum_upper / tau0);
        Events { vacuum, vacuum_upper, single: within(single, total - vacuum) }
    }

    /// R18 after L14 eq. (4): single-photon errors of the test basis. At least one is assumed: see lim2014.
    fn single_photon_errors_of_one_decoy(&self, m: &[f64; 3], eps: f64) -> f64 {
        let [mu1, mu2, _] = self.mu;
        let [lower, upper] = self.scaled(m, deviation(m[0] + m[1], eps));
        (self.tau[1] / (mu1 - mu2) * (upper[0] - lower[1])).max(1.0)
    }
}

/// The errors of the key basis are told in public, one number up to n_k for each intensity. They depend on the key,
/// so that they cost what it takes to write them down (chain rule of the smooth min-entropy).
fn disclosed_bits(n: &[f64; 3]) -> f64 {
    libm::ceil(libm::log2(n[0] + 1.0)) + libm::ceil(libm::log2(n[1] + 1.0))
}
