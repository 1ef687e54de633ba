//! Advantage distillation: key beyond the one-way threshold, by two-way repetition blocks.
//!
//! ```text
//! block of b sifted bits x_1 .. x_b, the same positions at both ends, drawn at random once all bits are sifted
//! Alice  -> c + x_1, .., c + x_b      with one fresh random bit c for the block
//! Bob    -> kept, if his bits of all b positions give the same c; else the block is dropped
//! key bit of a kept block: c at Alice, Bob's copy of it at Bob; reconciled and amplified as ever
//! ```
//!
//! Maurer 1993; Gottesman, Lo 2003; here with the entropy bound of Li et al., "Improving the performance of
//! practical decoy-state quantum key distribution with advantage distillation technology", Commun. Phys. 5, 53
//! (2022), cited as L22. A block counts if all its b pulses were single photons; their state has Bell weights
//!
//! ```text
//! l0 = 1 - 2E + l3, l1 = l2 = E - l3, 0 <= l3 <= E            bit and phase error rate E
//! p  = (l0 + l1)^b + (l2 + l3)^b                              such a block is kept
//! L0, L1 = ((l0 + l1)^b +- (l0 - l1)^b) / 2p,  L2, L3 = ((l2 + l3)^b +- (l2 - l3)^b) / 2p
//! K_b(E) = min over l3 of 1 - (L0 + L1) h(L0 / (L0 + L1)) - (L2 + L3) h(L2 / (L2 + L3))
//! ```
//!
//! **What this is worth.** The bound is asymptotic, for collective attacks. Photon numbers and phase error come from
//! a finite-key proof with its epsilons, a deviation is taken off for the number of all-single-photon blocks, and
//! the proof's other costs are paid; but nothing here proves that what remains is `eps_sec`-secret for a block of
//! finite length, and the bit error rate of single photons in the key basis is taken to be no higher than the
//! bound on their phase error rate. That is why the name ([`KeyRule`](super::KeyRule)) says `ad-asymptotic`. The
//! first complete finite-key treatment is Treplin, Kleinpass, Orsucci, arXiv:2511.21665.
//!
//! One-decoy proofs need the errors of the key basis, and distillation never reconciles the whole key basis: without
//! [`BlockCounts::key_errors`] there is no plan and no key with them.

use types::network::{DecoySettings, Proof, Security};
use types::units::BitLen;

use super::entropy::binary_entropy;
use super::statistics::{deviation, within};
use super::{BlockCounts, KeyLength, OUTCOME_BITS, floor_to_bits, real, secret_length as one_way_length};

/// How a block would best be distilled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Sifted bits in one repetition block.
    pub b: u32,
    /// Secret bits that the whole block is expected to give.
    pub expected_bits: u64,
    /// Expected error rate of the kept bits, for reconciliation.
    pub expected_qber: f64,
    /// Expected number of kept bits.
    pub expected_kept: u64,
}

/// The longest repetition block that [`plan`] tries.
pub const REPETITION_MAX: u32 = 32;

/// The repetition length that promises most key, by the counts that both ends know before reconciliation, if any
/// promises some. `f_expected` is what reconciliation of the kept bits will disclose, over the Shannon limit.
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
    let plans = (2..=REPETITION_MAX).map(|b| {
        let kept = libm::floor(n / f64::from(b)) * kept_share(qber, b);
        let expected_qber = kept_error(qber, b);
        let leak = f_expected * kept * binary_entropy(expected_qber);
        let length = length(&bounds, n, security, b, kept, leak);
        Plan { b, expected_bits: length.bits, expected_qber, expected_kept: floor_to_bits(kept) }
    });
    plans.filter(|plan| plan.expected_bits > 0).max_by_key(|plan| (plan.expected_bits, u32::MAX - plan.b))
}

/// Secret bits in the `blocks_kept` bits that distillation with repetition blocks of `b` left, of which `leak` bits
/// were disclosed since. The announcements of distillation itself are paid by the bound. `counts` are those of the
/// whole sifted block.
#[must_use]
pub fn secret_length(
    counts: &BlockCounts,
    proof: Proof,
    decoy: &DecoySettings,
    security: &Security,
    b: u32,
    blocks_kept: u64,
    leak: BitLen,
) -> KeyLength {
    let sifted: u64 = counts.key.iter().sum();
    if b == 0 || b > REPETITION_MAX || blocks_kept > sifted / u64::from(b.max(1)) {
        return KeyLength::none();
    }
    let bounds = one_way_length(proof, counts, BitLen(0), decoy, security);
    length(&bounds, real(sifted), security, b, real(blocks_kept), real(leak.0))
}

/// The length from bounds of the sifted block, `n` bits of it.
fn length(bounds: &KeyLength, n: f64, security: &Security, b: u32, kept: f64, leak: f64) -> KeyLength {
    let blocks = libm::floor(n / f64::from(b));
    if !bounds.margin.is_finite() || blocks < 1.0 {
        return KeyLength::none();
    }
    let e1 = bounds.phase_error;
    // Blocks are drawn from the sifted bits at random, so that a share (s_X1/n)^b has single photons only. The
    // number that are kept besides is a count of independent events; Hoeffding bounds how far it falls short.
    let mean = blocks * libm::pow(bounds.s_x1 / n, f64::from(b)) * kept_share(e1, b);
    let singles = within(mean - deviation(blocks, security.epsilon_secrecy), kept);
    let margin = singles * entropy_bound(e1, b)
        - leak
        - 6.0 * libm::log2(TERMS / security.epsilon_secrecy)
        - libm::log2(2.0 / security.epsilon_correctness)
        - OUTCOME_BITS
        - bounds.disclosed;
    KeyLength { bits: floor_to_bits(margin), margin, ..*bounds }
}

/// (1-e)^b + e^b: the share of blocks that is kept at error rate `e`.
#[must_use]
pub fn kept_share(e: f64, b: u32) -> f64 {
    libm::pow(1.0 - e, f64::from(b)) + libm::pow(e, f64::from(b))
}

/// E^b / (E^b + (1-E)^b): the error rate of the bits of kept blocks.
#[must_use]
pub fn kept_error(e: f64, b: u32) -> f64 {
    libm::pow(e, f64::from(b)) / kept_share(e, b)
}

/// K_b(E): Eve's uncertainty of the bit of a kept block of single photons, in bits (L22).
#[must_use]
pub fn entropy_bound(e: f64, b: u32) -> f64 {
    minimum(|l3| entropy([1.0 - 2.0 * e + l3, e - l3, e - l3, l3], b), 0.0, e)
}

/// The same of the six-state protocol, which measures all three error rates: l3 = E/2.
#[must_use]
pub fn entropy_bound_six_state(e: f64, b: u32) -> f64 {
    entropy([1.0 - 1.5 * e, e / 2.0, e / 2.0, e / 2.0], b)
}

/// 1 - (L0 + L1) h(L0 / (L0 + L1)) - (L2 + L3) h(L2 / (L2 + L3)) of given Bell weights.
pub(super) fn entropy(weights: [f64; 4], b: u32) -> f64 {
    let [l0, l1, l2, l3] = weights;
    let power = |x: f64| libm::pow(x, f64::from(b));
    // A share without weight has no entropy either.
    let share = |sum: f64, difference: f64, p: f64| {
        if sum <= 0.0 { 0.0 } else { sum / p * binary_entropy(0.5 * (1.0 + difference / sum)) }
    };
    let (right, wrong) = (power(l0 + l1), power((l2 + l3).max(0.0)));
    let p = right + wrong;
    1.0 - share(right, power(l0 - l1), p) - share(wrong, power(l2 - l3), p)
}

/// The least value of a function between two ends: a grid, then golden sections around its best point. The
/// functions here have one valley.
pub(super) fn minimum(f: impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    let step = (high - low) / GRID;
    let (mut best_at, mut best) = (low, f(low));
    for i in 1..=64_u8 {
        let at = low + f64::from(i) * step;
        let value = f(at);
        if value < best {
            (best_at, best) = (at, value);
        }
    }
    let (mut a, mut d) = ((best_at - step).max(low), (best_at + step).min(high));
    for _ in 0..SECTIONS {
        let (b, c) = (d - GOLDEN * (d - a), a + GOLDEN * (d - a));
        let (at_b, at_c) = (f(b), f(c));
        best = best.min(at_b).min(at_c);
        if at_b < at_c {
            d = c;
        } else {
            a = b;
        }
    }
    best
}

/// Equal failure probabilities, as of lim2014, whose constant is the largest of the three proofs.
const TERMS: f64 = 21.0;
const GRID: f64 = 64.0;
const SECTIONS: u32 = 40;
/// (sqrt(5) - 1) / 2
const GOLDEN: f64 = 0.618_033_988_749_894_9;
