//! The name under which a key's length was computed: a proof, and what was done beyond one-way post-processing.

use core::fmt;
use core::str::FromStr;

use types::network::{BeyondOneWay, Proof};

/// How a key's length was computed. Its name goes with the key; one that ends in `-asymptotic` rests on a bound that
/// holds for endless blocks only.
///
/// ```
/// use link::proof::KeyRule;
/// let rule: KeyRule = "lim2014+ad-asymptotic".parse().unwrap();
/// assert!(!rule.is_finite());
/// assert_eq!(rule.to_string(), "lim2014+ad-asymptotic");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRule {
    /// The proof whose bounds on photon numbers and phase error are used.
    pub proof: Proof,
    /// What was done beyond one-way post-processing.
    pub beyond: BeyondOneWay,
}

impl KeyRule {
    /// All that this build knows.
    pub fn all() -> impl Iterator<Item = Self> {
        let beyond = [BeyondOneWay::Off, BeyondOneWay::NoisyPreprocessing, BeyondOneWay::AdvantageDistillation];
        Proof::ALL.into_iter().flat_map(move |proof| beyond.map(|beyond| Self { proof, beyond }))
    }

    /// Whether the length is that of a finite-key proof.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.beyond == BeyondOneWay::Off
    }

    /// What stands after the proof's name.
    fn suffix(self) -> &'static str {
        match self.beyond {
            BeyondOneWay::Off => "",
            BeyondOneWay::NoisyPreprocessing => "+np-asymptotic",
            BeyondOneWay::AdvantageDistillation => "+ad-asymptotic",
        }
    }
}

impl From<Proof> for KeyRule {
    fn from(proof: Proof) -> Self {
        Self { proof, beyond: BeyondOneWay::Off }
    }
}

impl fmt::Display for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.proof.name(), self.suffix())
    }
}

impl FromStr for KeyRule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, UnknownRule> {
        let is_it = |rule: &Self| name.strip_prefix(rule.proof.name()) == Some(rule.suffix());
        Self::all().find(is_it).ok_or(UnknownRule)
    }
}

/// A name that no rule of this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule for a key's length: not a proof's name, alone or with +np-asymptotic or +ad-asymptotic")]
pub struct UnknownRule;
