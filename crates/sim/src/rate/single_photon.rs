//! BB84 with a source of single photons and finite blocks: Tomamichel, Lim, Gisin, Renner, "Tight finite-key
//! analysis for quantum cryptography", Nat. Commun. 3 634 (2012).
//!
//! **Sifting.** Bits of one basis make key, all bits of the other are disclosed and give the error rate; the bases are
//! chosen with unequal probability.
//!
//! ```text
//! l <= n (1 - h(Q + mu)) - leak - log2(2 / (eps_sec^2 eps_cor))
//! mu = sqrt( (n + k)/(n k) (k + 1)/k ln(4 / eps_sec) )            n bits of key, k disclosed
//! ```

use link::proof::binary_entropy;
use types::network::Security;

use super::search::highest;

/// sqrt((n + k)/(n k) (k + 1)/k ln(1/eps)): Serfling's deviation between `k` sampled bits and the `n` others.
#[must_use]
pub fn serfling(n: f64, k: f64, eps: f64) -> f64 {
    ((n + k) / (n * k) * (k + 1.0) / k * -libm::log(eps)).sqrt()
}

/// Secret bits in `n` key bits after `k` disclosed ones with error rate `qber`; negative by what is missing.
#[must_use]
pub fn secret_length(n: f64, k: f64, qber: f64, f_ec: f64, security: &Security) -> f64 {
    let worst = (qber + serfling(n, k, security.epsilon_secrecy / 4.0)).min(0.5);
    let cost = 1.0 - 2.0 * libm::log2(security.epsilon_secrecy) - libm::log2(security.epsilon_correctness);
    n * (1.0 - binary_entropy(worst)) - f_ec * n * binary_entropy(qber) - cost
}

/// Secret bits for each of `total` bits that are sifted, of which the best share is disclosed.
#[must_use]
pub fn rate_per_sifted_bit(total: f64, qber: f64, f_ec: f64, security: &Security) -> f64 {
    let rate = |share: f64| secret_length(total * (1.0 - share), total * share, qber, f_ec, security) / total;
    highest(rate, 1e-4, 0.9).1
}

/// The best probability of the key basis for a block of `n` key bits, and secret bits per pulse with it, if a pulse
/// is detected with probability `detected`.
#[must_use]
pub fn best(detected: f64, qber: f64, n: f64, f_ec: f64, security: &Security) -> (f64, f64) {
    let rate = |key_basis: f64| {
        let (key, test) = (key_basis * key_basis, (1.0 - key_basis) * (1.0 - key_basis));
        secret_length(n, n * test / key, qber, f_ec, security) * detected * key / n
    };
    highest(rate, 0.5, 0.999)
}
