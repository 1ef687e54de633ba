//! What all the proofs compute alike: photon-number weights of the source, deviations, random sampling.

use types::network::DecoySettings;

/// Intensities and the photon-number distribution that they make together. With one decoy only the first two
/// entries of the arrays mean anything.
pub(super) struct PhotonStatistics {
    pub(super) mu: [f64; 3],
    /// e^mu_k / p_k: turns counts of an intensity into the scale of the bounds. Zero for one that is never sent.
    pub(super) weight: [f64; 3],
    /// Probabilities that a pulse has no photon, one photon: tau_0, tau_1.
    pub(super) tau: [f64; 2],
}

impl PhotonStatistics {
    pub(super) fn of(decoy: &DecoySettings) -> Self {
        let mu = decoy.intensities;
        let p = decoy.probabilities;
        let mut weight = [0.0; 3];
        let mut tau = [0.0; 2];
        for k in 0..3 {
            weight[k] = if p[k] > 0.0 { libm::exp(mu[k]) / p[k] } else { 0.0 };
            // Lim et al. 2014, below eq. (2): tau_n = sum_k e^-k k^n p_k / n!
            let poisson = libm::exp(-mu[k]) * p[k];
            tau[0] += poisson;
            tau[1] += poisson * mu[k];
        }
        Self { mu, weight, tau }
    }

    /// n^-_k and n^+_k = e^k / p_k (n_k -+ delta), by Hoeffding's inequality over all intensities. The lower ones
    /// may be negative, which only loosens the bounds.
    pub(super) fn scaled(&self, n: &[f64; 3], delta: f64) -> [[f64; 3]; 2] {
        [-delta, delta].map(|shift| core::array::from_fn(|k| self.weight[k] * (n[k] + shift)))
    }
}

/// sqrt(n/2 ln(1/eps)): Hoeffding's deviation of a count out of `n` that fails with probability `eps`.
pub(super) fn deviation(n: f64, eps: f64) -> f64 {
    (0.5 * n * -libm::log(eps)).max(0.0).sqrt()
}

/// The value, not below zero and not above `most`; zero if it is no number.
pub(super) fn within(value: f64, most: f64) -> f64 {
    value.min(most).max(0.0)
}

/// How far the error rate of the untested part of a random sample may lie above that of the tested part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sampling {
    /// The approximated hypergeometric tail of Lim et al. 2014, below eq. (5), after Fung, Ma, Chau (2010).
    /// `1/eps^2` stands for the paper's `21^2/a^2`.
    Hypergeometric,
    /// Serfling's inequality, which is no approximation.
    Serfling,
}

impl Sampling {
    /// Upper bound on the error rate among `key` events from `errors` among `test` events. One half means that
    /// nothing is known.
    pub(super) fn error_rate(self, errors: f64, test: f64, key: f64, eps: f64) -> f64 {
        // Not `test <= 0.0`: what is no number must fall here too.
        if !(test > 0.0 && key > 0.0) {
            return 0.5;
        }
        let rate = errors / test;
        if rate < 0.5 { (rate + self.excess(rate, test, key, eps)).min(0.5) } else { 0.5 }
    }

    /// gamma(a, b, c, d) with a = eps, b = rate, c = test, d = key.
    fn excess(self, rate: f64, test: f64, key: f64, eps: f64) -> f64 {
        let size = (test + key) / (test * key);
        let square = match self {
            Self::Hypergeometric => {
                let variance = (1.0 - rate) * rate;
                size * variance / core::f64::consts::LN_2 * libm::log2(size / variance / (eps * eps))
            }
            Self::Serfling => size * (test + 1.0) / test * -libm::log(eps),
        };
        square.max(0.0).sqrt()
    }
}
