//! What SAEs may wish of a key, what they may draw, and what a pair's stock does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etsi::etsi020::Extension;
use types::id::SiteId;

/// What is asked of keys beyond number and size (extensions of ETSI GS QKD 014 requests).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wishes {
    /// No part of the key may be older.
    pub max_age: Option<Duration>,
    /// Over which kind of way.
    pub route: RouteWish,
    /// Trusted nodes crossed, at least; 0 is met by a shared link.
    pub min_hops: Option<u8>,
    /// Trusted nodes crossed, at most.
    pub max_hops: Option<u8>,
    /// From how many node-disjoint ways each part must be combined; 1 is plain.
    pub paths: u8,
    /// How long the request may wait for key to be made; if not said, the SAE's policy says it.
    pub wait: Option<Duration>,
    /// Lowers the SAE's class for this request; it cannot raise it.
    pub priority: Option<Priority>,
    /// What else may be heeded by whoever knows it, if the keys go into another network.
    pub passed_on: Option<PassedOn>,
}

/// Optional extensions of other makers for the KME of another network: one JSON object as ETSI GS QKD 020 has it. It is
/// passed on unchanged, and not kept over a restart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedOn(Arc<str>);

impl PassedOn {
    /// Longest text in bytes.
    pub const BYTES_MAX: usize = 4_096;

    /// Checks an object; [`None`] if it is none, too long, or a name has not the form `E`, number, `_`, name.
    #[must_use]
    pub fn new(json: &str) -> Option<Self> {
        let extension = Extension::new(json).ok().filter(|_| json.len() <= Self::BYTES_MAX)?;
        extension.is_well_named().then(|| Self(json.into()))
    }

    /// The object.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    pub(crate) fn extension(&self) -> Option<Extension> {
        Extension::new(&self.0).ok()
    }
}

impl fmt::Debug for PassedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassedOn({} bytes)", self.0.len())
    }
}

impl Default for Wishes {
    fn default() -> Self {
        let (max_age, min_hops, max_hops, wait) = (None, None, None, None);
        Self { max_age, route: RouteWish::Any, min_hops, max_hops, paths: 1, wait, priority: None, passed_on: None }
    }
}

/// Kind of way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteWish {
    /// Either.
    #[default]
    Any,
    /// Over one link, no trusted node crossed.
    Direct,
    /// Over at least one trusted node.
    Indirect,
}

/// Class of an SAE, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Commands to switchgear and what protects it.
    Telecontrol,
    /// Measured values.
    Telemetry,
    /// Distribution of models.
    Model,
    /// Everything else.
    #[default]
    Other,
}

impl Priority {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Telecontrol, Self::Telemetry, Self::Model, Self::Other];

    /// The name in configuration, metrics and extensions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telecontrol => "telecontrol",
            Self::Telemetry => "telemetry",
            Self::Model => "model",
            Self::Other => "other",
        }
    }

    /// The class of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// What an SAE may draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaePolicy {
    /// Its class.
    pub priority: Priority,
    /// How fast it may draw; no limit if not said.
    pub rate: Option<TokenRate>,
    /// Percent of a pair's stock, and of what is made for it, that it may draw; 100 is no limit.
    pub stock_share_percent: u8,
    /// How long its requests wait for key unless they say it themselves.
    pub wait: Duration,
}

impl Default for SaePolicy {
    fn default() -> Self {
        Self { priority: Priority::Other, rate: None, stock_share_percent: 100, wait: Duration::ZERO }
    }
}

/// A token bucket; one token is 256 bits of key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRate {
    /// Tokens that come back per second.
    pub keys_per_second: f64,
    /// Tokens in a full bucket.
    pub burst: u32,
}

/// What the stock of end-to-end keys for one other site does.
#[derive(Clone, Debug, PartialEq)]
pub struct PairFlow {
    /// The other site.
    pub peer: SiteId,
    /// Keys of 256 bit that are ready.
    pub ready: u32,
    /// Keys that this site holds for supply by the other.
    pub held: u32,
    /// Keys made since the process started.
    pub made: u64,
    /// Keys made per second while keys are lacking.
    pub made_per_second: f64,
    /// Keys taken since the process started, by each class, in the order of [`Priority::ALL`].
    pub taken: [u64; 4],
    /// Keys taken per second by each class, in the order of [`Priority::ALL`].
    pub taken_per_second: [f64; 4],
    /// Requests that wait for key.
    pub waiting: u32,
    /// When the stock is empty if it goes on like this; `None` if it does not shrink.
    pub time_to_empty: Option<Duration>,
}
