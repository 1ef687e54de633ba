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
//! **Provided.** [`Proof::Lim2014`]: BB84, asymmetric basis choice, two decoys, block of a length fixed
//! beforehand, general attacks.
//!
//! **Not provided.** Source flaws, Trojan light, detectors of unequal efficiency, correlations between pulses:
//! the proof assumes them away. The observed error rate of the key basis is not an input; a threshold such as
//! "abort above 11 %" is not used. A block is refused if and only if its length comes out as zero.
//!
//! ```
//! use link::proof::{BlockCounts, Proof};
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
//! };
//! let length = Proof::Lim2014.secret_length(&counts, BitLen(1_909_200), &decoy, &security);
//! assert!(length.bits > 1_500_000 && length.bits < 1_600_000);
//! ```

mod entropy;
mod lim2014;
#[cfg(test)]
mod tests;

use core::fmt;
use core::str::FromStr;

use types::network::{DecoySettings, Security};
use types::quantum::Intensity;
use types::units::BitLen;

pub use self::entropy::{binary_entropy, one_way_threshold};

/// Which proof bounds the key. Its name goes with every block, so that an auditor can check the length again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// Lim, Curty, Walenta, Xu, Zbinden, PRA 89 022307 (2014): two decoys, Hoeffding bounds.
    Lim2014,
}

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
    /// Lower bound on single-photon events in the key basis.
    pub s_x1: f64,
    /// Lower bound on single-photon events in the test basis.
    pub s_z1: f64,
    /// Upper bound on errors of single-photon events in the test basis.
    pub v_z1: f64,
    /// Upper bound on the phase error rate of the single-photon events in the key basis.
    pub phase_error: f64,
}

impl Proof {
    /// All proofs of this build.
    pub const ALL: [Self; 1] = [Self::Lim2014];

    /// Its name on the wire, in config and in audit records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lim2014 => "lim2014",
        }
    }

    /// Secret bits in a block of which `leak` bits were disclosed for reconciliation, in either direction, failed
    /// attempts included. The verification tag is paid by `log2(2 / eps_cor)` inside; bits that a longer tag
    /// discloses beyond that belong to `leak`.
    #[must_use]
    pub fn secret_length(
        self,
        counts: &BlockCounts,
        leak: BitLen,
        decoy: &DecoySettings,
        security: &Security,
    ) -> KeyLength {
        if !counts.possible() {
            return KeyLength::none();
        }
        self.planned_length(&RealCounts::from(counts), real(leak.0), decoy, security)
    }

    /// The same of real numbers: what a block of expected counts would give. For planning, never for key.
    #[must_use]
    pub fn planned_length(
        self,
        counts: &RealCounts,
        leak: f64,
        decoy: &DecoySettings,
        security: &Security,
    ) -> KeyLength {
        match self {
            Self::Lim2014 => lim2014::key_length(counts, leak, decoy, security),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Proof {
    type Err = UnknownProof;

    fn from_str(name: &str) -> Result<Self, UnknownProof> {
        Self::ALL.into_iter().find(|proof| proof.name() == name).ok_or(UnknownProof)
    }
}

/// A name that no proof of this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown security proof; this build knows lim2014")]
pub struct UnknownProof;

impl KeyLength {
    /// No key, and nothing known.
    fn none() -> Self {
        Self { bits: 0, margin: f64::NEG_INFINITY, s_x0: 0.0, s_x1: 0.0, s_z1: 0.0, v_z1: 0.0, phase_error: 0.5 }
    }
}

impl BlockCounts {
    /// Whether a block can have these counts: no more errors than bits, and nothing beyond any block's size.
    fn possible(&self) -> bool {
        let errors_within = self.test.iter().zip(self.test_errors).all(|(n, m)| m <= *n);
        errors_within && self.key.iter().chain(&self.test).all(|n| *n <= COUNT_MAX)
    }
}

impl From<&BlockCounts> for RealCounts {
    fn from(counts: &BlockCounts) -> Self {
        Self { key: counts.key.map(real), test: counts.test.map(real), test_errors: counts.test_errors.map(real) }
    }
}

/// A count as a real number; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are at most COUNT_MAX, the leak is far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

/// More detections of one kind than this no block has.
const COUNT_MAX: u64 = 1 << 48;
