//! Choices of a link's post-processing, as the network file names them.

use core::fmt;
use core::str::FromStr;

use serde::Deserialize;

use super::Decoys;

/// Which finite-key proof bounds the key of a block. Its name goes with every block, so that an auditor can compute
/// the length again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Proof {
    /// Lim, Curty, Walenta, Xu, Zbinden, PRA 89 022307 (2014): two decoys.
    Lim2014,
    /// Rusca, Boaron, Gruenenfelder, Martin, Zbinden, APL 112 171104 (2018): one decoy.
    Rusca2018,
    /// Wiesemann, Krause, Tupkary, Luetkenhaus, Rusca, Walenta, arXiv:2405.16578v3 (2026): one decoy, corrected.
    Wiesemann2026,
}

impl Proof {
    /// All proofs, oldest first.
    pub const ALL: [Self; 3] = [Self::Lim2014, Self::Rusca2018, Self::Wiesemann2026];

    /// Its name on the wire, in the network file and in audit records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lim2014 => "lim2014",
            Self::Rusca2018 => "rusca2018",
            Self::Wiesemann2026 => "wiesemann2026",
        }
    }

    /// The number of decoys that it is for.
    #[must_use]
    pub fn decoys(self) -> Decoys {
        match self {
            Self::Lim2014 => Decoys::Two,
            Self::Rusca2018 | Self::Wiesemann2026 => Decoys::One,
        }
    }

    /// The newest proof for a source with so many decoys.
    #[must_use]
    pub fn newest(decoys: Decoys) -> Self {
        match decoys {
            Decoys::One => Self::Wiesemann2026,
            Decoys::Two => Self::Lim2014,
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
#[error("unknown security proof; this build knows lim2014, rusca2018 and wiesemann2026")]
pub struct UnknownProof;

/// What a link tries when a block gives no key by one-way post-processing. Off unless the file enables it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeyondOneWay {
    /// Nothing: the block is given up.
    #[default]
    Off,
    /// Alice flips a share of her bits before reconciliation (Renner, Gisin, Kraus 2005).
    NoisyPreprocessing,
    /// Two-way advantage distillation over short repetition blocks (Maurer 1993; Li et al. 2022).
    AdvantageDistillation,
}

/// How sifted keys are reconciled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconciliation {
    /// By round-trip time and error rate, block by block.
    #[default]
    Auto,
    /// Interactive binary search; least leak, many round trips.
    Cascade,
    /// Rate-adaptive low-density parity-check codes; few round trips.
    Ldpc,
}
