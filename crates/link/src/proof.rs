//! How many secret bits a block holds: finite-key security proofs, by name.
//!
//! A proof turns what both ends observed and disclosed about one block ([`BlockCounts`]: how often which
//! intensity was detected in which basis, and the errors of the disclosed test basis), the bits disclosed
//! during reconciliation and the security parameters into a length ([`KeyLength`]). The sequence of operations
//! is fixed and uses `libm` only, so both ends get the same bits on any platform.
//!
//! **Security statement.** With `eps_sec = Security::epsilon_secrecy` and
//! `eps_cor = Security::epsilon_correctness`, a key of the returned length, made by a universal-2 hash of the
//! verified block, is `eps_sec`-secret: `(1 - p_abort) 1/2 || rho_SE - U (x) rho_E ||_1 <= eps_sec`, and
//! `eps_cor`-correct: the ends differ with probability at most `eps_cor`. Both are composable; they add over
//! blocks and over uses of the key. One extra bit is paid for the public outcome accept/abort
//! (Tsurumaru, Mizutani, Sasaki, arXiv:2507.21416v1).
//!
//! **Provided.** BB84 with asymmetric basis choice against general attacks, for a block of a length fixed
//! beforehand:
//! - [`Proof::Lim2014`]: two decoys;
//! - [`Proof::Rusca2018`]: one decoy, as first published;
//! - [`Proof::Wiesemann2026`]: one decoy, with its gaps closed and a sampling bound without approximation.
//!
//! With one decoy the first two intensities of every array count and the third is never sent. These proofs bound
//! vacuum events from above by errors, so they need the errors of the key basis too
//! ([`BlockCounts::key_errors`], known once the block is reconciled); without them they give no key. Disclosing
//! those numbers is charged here ([`KeyLength::disclosed`]), not in `leak`.
//!
//! [`distillation`] and [`preprocessing`] go beyond one-way post-processing. Their bounds are asymptotic and
//! carry other names ([`KeyRule`]).
//!
//! **Variable length.** A link computes the length from what it observed: public counts and the bits that
//! reconciliation disclosed. The acceptance set is every set of counts for which the result is above zero; there
//! is no other test. The three papers state their theorems for a length fixed beforehand, with acceptance exactly
//! if the counts allow that length. That a length taken from the data keeps the same epsilon needs a proof of its
//! own. There is one for BB84 in the same framework of entropic uncertainty (Tupkary, Nahar, Sinha, Luetkenhaus,
//! arXiv:2408.17349, two decoys, other concentration bounds; Tupkary, Tan, Luetkenhaus, arXiv:2311.01600, in
//! general), none known to us for exactly the bounds used here. The status is therefore: each length is right for
//! the fixed-length protocol that would have asked for it; the step to variable length rests on the argument of
//! those papers, not on a theorem about these formulas. [`Proof::Lim2014`] and [`Proof::Rusca2018`] have a second
//! weakness: their tail bound for sampling without replacement is an approximation, and arXiv:2405.16578v3 names
//! flaws in their treatment of acceptance, which [`Proof::Wiesemann2026`] mends.
//!
//! **Not provided.** Source flaws, Trojan light, detectors of unequal efficiency, correlations between pulses:
//! the proofs assume them away. With lim2014 the error rate of the key basis is not an input; a threshold such as
//! "abort above 11 %" is used nowhere. A block is refused if and only if its length comes out as zero.
//!
//! ```
//! use link::proof::{BlockCounts, Proof, secret_length};
//! use types::{network::{DecoySettings, Security}, units::BitLen};
//! let decoy = DecoySettings {
//!     key_basis: 0.9,
//!     intensities: [0.45, 0.2, 0.0002],
//!     probabilities: [0.5, 0.35, 0.15],
//!     block_bits: 10_000_000,
//! };
//! let security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
//! let counts = BlockCounts {
//!     key: [7_623_010, 2_375_360, 1_630],
//!     test: [94_111, 29_325, 20],
//!     test_errors: [2_274, 713, 4],
//!     key_errors: None,
//! };
//! let length = secret_length(Proof::Lim2014, &counts, BitLen(1_909_200), &decoy, &security);
//! assert!(length.bits > 1_500_000 && length.bits < 1_600_000);
//! ```

pub mod distillation;
mod entropy;
mod lim2014;
mod one_decoy;
pub mod preprocessing;
mod rule;
mod statistics;
#[cfg(test)]
mod tests;

pub use types::network::Proof;
use types::network::{DecoySettings, Security};
use types::quantum::Intensity;
use types::units::BitLen;

pub use self::entropy::{binary_entropy, one_way_threshold};
pub use self::rule::{KeyRule, UnknownRule};

/// What both ends know of a block after sifting and the disclosure of the test basis. Arrays are by intensity,
/// brightest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// n_X,k: sifted bits of the key basis; their sum is the block.
    pub key: [u64; Intensity::COUNT],
    /// n_Z,k: sifted bits of the test basis.
    pub test: [u64; Intensity::COUNT],
    /// m_Z,k: errors among them.
    pub test_errors: [u64; Intensity::COUNT],
    /// m_X,k: errors of the key basis, as reconciliation found them and both ends know them; `None` before, and
    /// where nobody asks. Not known is not the same as none.
    pub key_errors: Option<[u64; Intensity::COUNT]>,
}

/// The same quantities as real numbers, for planning with expected values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RealCounts {
    /// n_X,k.
    pub key: [f64; Intensity::COUNT],
    /// n_Z,k.
    pub test: [f64; Intensity::COUNT],
    /// m_Z,k.
    pub test_errors: [f64; Intensity::COUNT],
    /// m_X,k.
    pub key_errors: Option<[f64; Intensity::COUNT]>,
}

/// What a proof finds in a block, with the bounds that it found on the way, for the audit record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyLength {
    /// Bits of secret key; 0 means that the block gives none.
    pub bits: u64,
    /// The same before rounding down; negative by what is missing.
    pub margin: f64,
    /// Lower bound on vacuum events in the key basis.
    pub s_x0: f64,
    /// Upper bound on vacuum events in the key basis, of the proofs that use one.
    pub s_x0_upper: Option<f64>,
    /// Lower bound on single-photon events in the key basis.
    pub s_x1: f64,
    /// Lower bound on single-photon events in the test basis.
    pub s_z1: f64,
    /// Upper bound on errors of single-photon events in the test basis.
    pub v_z1: f64,
    /// Upper bound on the phase error rate of the single-photon events in the key basis.
    pub phase_error: f64,
    /// Bits charged for counts that are disclosed because the proof needs them: [`BlockCounts::key_errors`].
    pub disclosed: f64,
}

/// Secret bits in a block of which `leak` bits were disclosed for reconciliation, in either direction, failed
/// attempts included. The verification tag is paid by `log2(2 / eps_cor)` inside; bits that a longer tag
/// discloses beyond that belong to `leak`.
#[must_use]
pub fn secret_length(
    proof: Proof,
    counts: &BlockCounts,
    leak: BitLen,
    decoy: &DecoySettings,
    security: &Security,
) -> KeyLength {
    if !counts.possible() {
        return KeyLength::none();
    }
    planned_length(proof, &RealCounts::from(counts), real(leak.0), decoy, security)
}

/// The same of real numbers: what a block of expected counts would give. For planning, never for key.
#[must_use]
pub fn planned_length(
    proof: Proof,
    counts: &RealCounts,
    leak: f64,
    decoy: &DecoySettings,
    security: &Security,
) -> KeyLength {
    if proof.decoys() != decoy.decoys() {
        return KeyLength::none();
    }
    match proof {
        Proof::Lim2014 => lim2014::key_length(counts, leak, decoy, security),
        Proof::Rusca2018 => one_decoy::key_length(&one_decoy::RUSCA_2018, counts, leak, decoy, security),
        Proof::Wiesemann2026 => one_decoy::key_length(&one_decoy::WIESEMANN_2026, counts, leak, decoy, security),
        // A proof that this build cannot compute bounds nothing.
        _ => KeyLength::none(),
    }
}

impl KeyLength {
    /// No key, and nothing known.
    fn none() -> Self {
        Self {
            bits: 0,
            margin: f64::NEG_INFINITY,
            s_x0: 0.0,
            s_x0_upper: None,
            s_x1: 0.0,
            s_z1: 0.0,
            v_z1: 0.0,
            phase_error: 0.5,
            disclosed: 0.0,
        }
    }
}

impl BlockCounts {
    /// Whether a block can have these counts: no more errors than bits, and nothing beyond any block's size.
    fn possible(&self) -> bool {
        let errors_within = self.test.iter().zip(self.test_errors).all(|(n, m)| m <= *n);
        let key_errors = self.key_errors.unwrap_or_default();
        let corrected_within = self.key.iter().zip(key_errors).all(|(n, m)| m <= *n);
        errors_within && corrected_within && self.key.iter().chain(&self.test).all(|n| *n <= COUNT_MAX)
    }
}

impl From<&BlockCounts> for RealCounts {
    fn from(counts: &BlockCounts) -> Self {
        Self {
            key: counts.key.map(real),
            test: counts.test.map(real),
            test_errors: counts.test_errors.map(real),
            key_errors: counts.key_errors.map(|errors| errors.map(real)),
        }
    }
}

/// A count as a real number; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are at most COUNT_MAX, the leak is far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Rounds down; what is not positive is no key.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, NaN becomes 0")]
fn floor_to_bits(margin: f64) -> u64 {
    libm::floor(margin) as u64
}

/// The public outcome accept/abort (arXiv:2507.21416v1).
const OUTCOME_BITS: f64 = 1.0;
/// More detections of one kind than this no block has.
const COUNT_MAX: u64 = 1 << 48;
