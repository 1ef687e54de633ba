//! Key-data mapping: how much quantum key each tensor gets. Planning spends nothing.
//!
//! Rules are tried in order; the first whose pattern matches a tensor's name gives its class. A tensor that asks
//! for a key of its own gets one while the budget lasts, in the order of the rules and then of the file; after that
//! its key is derived from the model key, and the plan says so. Objective: the budget goes to the rules that stand
//! first. Every class seals with AES-256-GCM, so all of them are computational; a key of its own means that a
//! tensor stays closed when the model key is lost, and the reverse.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use types::units::{BitLen, BitsPerSecond};

use crate::error::{Error, Result};
use crate::format::{FileFormat, ModelFile, Piece};
use crate::layout::Layout;
use crate::limits::OWN_KEYS_MAX;

mod glob;

pub use glob::Glob;

/// Bits of one wrapping key.
pub const WRAPPING_KEY_BITS: u64 = 256;

/// How a tensor is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Class {
    /// Its group key is derived from the model key. Costs no quantum key of its own.
    Derived = 0,
    /// It has a random key of its own, wrapped for each site under a quantum key of its own.
    OwnKey = 1,
}

impl Class {
    /// The class of a number on disk.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Derived, Self::OwnKey].into_iter().find(|class| *class as u8 == number)
    }

    /// Its name in rules, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Derived => "derived",
            Self::OwnKey => "own-key",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One rule: tensors whose name matches ask for a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which tensors.
    pub pattern: Glob,
    /// What they ask for.
    pub class: Class,
}

impl std::str::FromStr for Rule {
    type Err = Error;

    /// Parses `PATTERN=CLASS`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::Request { what: format!("rule {text:?}"), reason: reason.to_owned() };
        let (pattern, class) =
            text.rsplit_once('=').ok_or_else(|| wrong("write it as PATTERN=own-key or PATTERN=derived"))?;
        let class = [Class::Derived, Class::OwnKey]
            .into_iter()
            .find(|known| known.name() == class)
            .ok_or_else(|| wrong("the class is own-key or derived"))?;
        let pattern =
            Glob::new(pattern).ok_or_else(|| wrong("the pattern is 1 to 200 characters; * and ? are wildcards"))?;
        Ok(Self { pattern, class })
    }
}

/// An ordered list of rules. What none of them matches is [`Class::Derived`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Default for Rules {
    /// Own keys for what is worth most per byte: adapters, heads and embeddings, in this order.
    fn default() -> Self {
        let own = [
            "*lora_*",
            "*adapter*",
            "*lm_head*",
            "*classifier*",
            "*score.*",
            "*pooler*",
            "*embed*",
            "*wte.*",
            "*wpe.*",
        ];
        let rule =
            |pattern| Rule { pattern: Glob::new(pattern).expect("the defaults are patterns"), class: Class::OwnKey };
        Self(own.into_iter().map(rule).collect())
    }
}

/// One piece with what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPiece {
    /// The piece.
    pub piece: Piece,
    /// What it gets.
    pub class: Class,
    /// What its rule asked for; differs when the budget did not last.
    pub wanted: Class,
}

impl PlannedPiece {
    /// Quantum key that it costs for each site.
    #[must_use]
    pub fn key_bits(&self) -> BitLen {
        BitLen(if self.class == Class::OwnKey { WRAPPING_KEY_BITS } else { 0 })
    }
}

/// What every byte of a model gets, before anything is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    format: FileFormat,
    pieces: Vec<PlannedPiece>,
    file_len: u64,
    chunks: u64,
    packs: u64,
    sealed_len: u64,
    keys_per_site: u32,
}

impl Plan {
    /// Maps a file under rules, with at most `budget` wrapping keys for each site.
    ///
    /// # Errors
    /// [`Error::Request`] if the budget does not even hold the model key, [`Error::Limit`] for too many chunks.
    pub fn new(file: &ModelFile, rules: &Rules, budget: u32) -> Result<Self> {
        let Some(mut left) = budget.checked_sub(1) else {
            return Err(Error::Request {
                what: "key budget".to_owned(),
                reason: "each site needs at least one wrapping key, for the model key".to_owned(),
            });
        };
        left = left.min(u32::try_from(OWN_KEYS_MAX).expect("the limit fits 32 bits"));
        let rule_of: Vec<Option<usize>> = file
            .pieces()
            .iter()
            .map(|piece| rules.0.iter().position(|rule| piece.is_tensor() && rule.pattern.matches(&piece.name)))
            .collect();
        let wanted = |at: Option<usize>| at.and_then(|at| rules.0.get(at)).map_or(Class::Derived, |rule| rule.class);
        let mut asking: Vec<(usize, usize)> = rule_of
            .iter()
            .enumerate()
            .filter(|(_, rule)| wanted(**rule) == Class::OwnKey)
            .filter_map(|(at, rule)| rule.map(|rule| (rule, at)))
            .collect();
        asking.sort_unstable();
        let mut pieces: Vec<PlannedPiece> = file
            .pieces()
            .iter()
            .zip(&rule_of)
            .map(|(piece, rule)| PlannedPiece { piece: piece.clone(), class: Class::Derived, wanted: wanted(*rule) })
            .collect();
        let mut keys_per_site = 1;
        for (_, at) in asking {
            // A tensor without bytes has nothing to protect.
            let planned = pieces.get_mut(at).filter(|planned| planned.piece.len > 0 && left > 0);
            if let Some(planned) = planned {
                planned.class = Class::OwnKey;
                left -= 1;
                keys_per_site += 1;
            }
        }
        let layout = Layout::of(file.pieces())?;
        Ok(Self {
            format: file.format(),
            pieces,
            file_len: file.byte_len(),
            chunks: layout.places.len() as u64,
            packs: layout.packs.len() as u64,
            sealed_len: layout.packs.iter().map(|pack| u64::from(*pack)).sum(),
            keys_per_site,
        })
    }

    /// Every piece of the file, in its order.
    #[must_use]
    pub fn pieces(&self) -> &[PlannedPiece] {
        &self.pieces
    }

    /// What kind of file it is for.
    #[must_use]
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Wrapping keys of 256 bit that each site costs: one for the model key, one for each tensor with its own.
    #[must_use]
    pub fn keys_per_site(&self) -> u32 {
        self.keys_per_site
    }

    /// Quantum key that each site costs.
    #[must_use]
    pub fn key_bits_per_site(&self) -> BitLen {
        BitLen(u64::from(self.keys_per_site) * WRAPPING_KEY_BITS)
    }

    /// How long a link of this secret key rate gathers the key for one site; `None` if it never does.
    #[must_use]
    pub fn time_to_gather(&self, rate: BitsPerSecond) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "key counts are far below 2^52")]
        let seconds = self.key_bits_per_site().0 as f64 / rate.0;
        (rate.0 > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    /// Totals, for a table's foot or JSON.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let tensors = || self.pieces.iter().filter(|planned| planned.piece.is_tensor());
        let own = || tensors().filter(|planned| planned.class == Class::OwnKey);
        Totals {
            file_bytes: self.file_len,
            sealed_bytes: self.sealed_len,
            tensors: tensors().count() as u64,
            chunks: self.chunks,
            packs: self.packs,
            own_key_tensors: own().count() as u64,
            own_key_bytes: own().map(|planned| planned.piece.len).sum(),
            short_of_budget: tensors()
                .filter(|planned| planned.class != planned.wanted && planned.piece.len > 0)
                .count() as u64,
            keys_per_site: u64::from(self.keys_per_site),
            key_bits_per_site: self.key_bits_per_site().0,
        }
    }
}

/// Totals of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of all sealed chunks.
    pub sealed_bytes: u64,
    /// Tensors.
    pub tensors: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Pack objects.
    pub packs: u64,
    /// Tensors with a key of their own.
    pub own_key_tensors: u64,
    /// Bytes of those.
    pub own_key_bytes: u64,
    /// Tensors that asked for a key of their own and did not get one.
    pub short_of_budget: u64,
    /// Wrapping keys that each site costs.
    pub keys_per_site: u64,
    /// Their bits.
    pub key_bits_per_site: u64,
}
