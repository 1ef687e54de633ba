//! Noisy pre-processing: key a little beyond the one-way threshold, because noise hurts Eve more than Bob.
//!
//! Alice flips each sifted bit with probability `q` and keeps the flips to herself; then post-processing goes on as
//! ever, at the higher error rate e' = E (1-q) + q (1-E). Renner, Gisin, Kraus, PRA 72 012332 (2005), and Kraus,
//! Gisin, Renner, PRL 95 080501 (2005):
//!
//! ```text
//! r = min over l3 of S(X'|E) - h(e')     Bell weights 1 - 2Q + l3, Q - l3, Q - l3, l3
//! ```
//!
//! **What this is worth.** As with [`distillation`](super::distillation): photon numbers and phase error are those
//! of a finite-key proof, single photons are taken to have no more bit errors than phase errors, and the entropy
//! bound itself is asymptotic, for collective attacks. The name says `np-asymptotic`. It reaches from 11.0 % to
//! 12.4 % with single photons, and a link of weak pulses gains next to nothing. One-decoy proofs need the errors of
//! the key basis, which are not known before reconciliation: with them there is no plan unless the counts say more.

use types::network::{DecoySettings, Proof, Security};
use types::units::BitLen;

use super::distillation::minimum;
use super::entropy::binary_entropy;
use super::{BlockCounts, KeyLength, OUTCOME_BITS, floor_to_bits, real, secret_length as one_way_length};

/// How much noise would serve a block best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Alice flips a bit with this probability, in millionths.
    pub flip_ppm: u32,
    /// Secret bits that the block is expected to give.
    pub expected_bits: u64,
    /// Expected error rate between her flipped bits and Bob's, for reconciliation.
    pub expected_qber: f64,
}

/// The flip probability that promises most key, if any promises some and more than without flips.
#[must_use]
pub fn plan(
    counts: &BlockCounts,
    proof: Proof,
    decoy: &DecoySettings,
    security: &Security,
    f_expected: f64,
) -> Option<Plan> {
    let tested: u64 = counts.test.iter().sum();
    if tested == 0 {
        return None;
    }
    let qber = real(counts.test_errors.iter().sum()) / real(tested);
    let bounds = one_way_length(proof, counts, BitLen(0), decoy, security);
    let n = real(counts.key.iter().sum());
    let at = |flip_ppm: u32| {
        let expected_qber = flipped(qber, flip(flip_ppm));
        let leak = f_expected * n * binary_entropy(expected_qber);
        let expected_bits = length(&bounds, security, flip_ppm, leak).bits;
        Plan { flip_ppm, expected_bits, expected_qber }
    };
    let without = at(0).expected_bits;
    let coarse = (0..FLIP_PPM_MAX / COARSE_PPM).map(|i| at(i * COARSE_PPM));
    let best = coarse.max_by_key(|plan| plan.expected_bits)?;
    let near = best.flip_ppm.saturating_sub(COARSE_PPM);
    let fine = (0..=2 * COARSE_PPM / FINE_PPM).map(|i| at(near + i * FINE_PPM));
    let best = fine.chain([best]).max_by_key(|plan| plan.expected_bits)?;
    (best.expected_bits > without).then_some(best)
}

/// Secret bits in a block whose bits Alice flipped with probability `flip_ppm` millionths before reconciliation
/// disclosed `leak` bits.
#[must_use]
pub fn secret_length(
    counts: &BlockCounts,
    proof: Proof,
    decoy: &DecoySettings,
    security: &Security,
    flip_ppm: u32,
    leak: BitLen,
) -> KeyLength {
    if flip_ppm > FLIP_PPM_MAX {
        return KeyLength::none();
    }
    let bounds = one_way_length(proof, counts, BitLen(0), decoy, security);
    length(&bounds, security, flip_ppm, real(leak.0))
}

/// E (1-q) + q (1-E): the error rate after flips with probability `q`.
#[must_use]
pub fn flipped(e: f64, q: f64) -> f64 {
    e * (1.0 - q) + q * (1.0 - e)
}

/// Eve's uncertainty of a flipped bit of a single photon with bit and phase error rate `e`: min over l3 of S(X'|E).
#[must_use]
pub fn entropy_bound(e: f64, q: f64) -> f64 {
    minimum(|l3| conditional_entropy([1.0 - 2.0 * e + l3, e - l3, e - l3, l3], q), 0.0, e)
}

/// S(X'|E) = 1 + S(mixture of Eve's two states) - S(E) of given Bell weights.
///
/// Without and with a bit error, Eve holds sqrt(l0) |0> +- sqrt(l1) |1> and sqrt(l2) |2> +- sqrt(l3) |3>, the sign
/// being Alice's bit. Flips mix the signs, which leaves two blocks of two by two.
pub(super) fn conditional_entropy(weights: [f64; 4], q: f64) -> f64 {
    let [l0, l1, l2, l3] = weights;
    let mixed = |a: f64, b: f64| {
        let (trace, determinant) = (a + b, 4.0 * q * (1.0 - q) * a * b);
        let root = (trace * trace - 4.0 * determinant).max(0.0).sqrt();
        shannon(0.5 * (trace + root)) + shannon(0.5 * (trace - root))
    };
    1.0 + mixed(l0, l1) + mixed(l2, l3) - weights.map(shannon).iter().sum::<f64>()
}

/// -x log2 x
fn shannon(x: f64) -> f64 {
    if x > 0.0 { -x * libm::log2(x) } else { 0.0 }
}

fn length(bounds: &KeyLength, security: &Security, flip_ppm: u32, leak: f64) -> KeyLength {
    if !bounds.margin.is_finite() {
        return KeyLength::none();
    }
    let margin = bounds.s_x1 * entropy_bound(bounds.phase_error, flip(flip_ppm))
        - leak
        - 6.0 * libm::log2(TERMS / security.epsilon_secrecy)
        - libm::log2(2.0 / security.epsilon_correctness)
        - OUTCOME_BITS
        - bounds.disclosed;
    KeyLength { bits: floor_to_bits(margin), margin, ..*bounds }
}

fn flip(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

/// A flip probability of one half leaves nothing to reconcile.
pub const FLIP_PPM_MAX: u32 = 499_999;
const COARSE_PPM: u32 = 10_000;
const FINE_PPM: u32 = 500;
/// Equal failure probabilities, as of lim2014, whose constant is the largest of the three proofs.
const TERMS: f64 = 21.0;
