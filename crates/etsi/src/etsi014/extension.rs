//! Extensions of a key request (ETSI GS QKD 014, 6.2): objects of one name and value, in a mandatory and an optional
//! list. Names of ours begin with `qurrent_`.
//!
//! | name | value | asks for |
//! |---|---|---|
//! | `qurrent_max_age` | milliseconds | a key made at most so long ago |
//! | `qurrent_route` | `"direct"`, `"indirect"`, `"any"` | a key of one link, or one that trusted relays carried |
//! | `qurrent_min_hops`, `qurrent_max_hops` | 0 to 32 | trusted nodes crossed on the key's way; 0 over a shared link |
//! | `qurrent_paths` | 1 to 8 | a key put together from so many disjoint ways |
//! | `qurrent_wait` | milliseconds, at most 60,000 | to wait so long for key before 503 |
//! | `qurrent_priority` | `"telecontrol"`, `"telemetry"`, `"model"`, `"other"` | a place in the queue for scarce key, at most the SAE's own |

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

use super::error::BadRequest;
use super::path::short;

/// Name of the extension for the greatest age in milliseconds.
pub const MAX_AGE: &str = "qurrent_max_age";
/// Name of the extension for the route.
pub const ROUTE: &str = "qurrent_route";
/// Name of the extension for the fewest hops.
pub const MIN_HOPS: &str = "qurrent_min_hops";
/// Name of the extension for the most hops.
pub const MAX_HOPS: &str = "qurrent_max_hops";
/// Name of the extension for the number of disjoint ways.
pub const PATHS: &str = "qurrent_paths";
/// Name of the extension for the time to wait in milliseconds.
pub const WAIT: &str = "qurrent_wait";
/// Name of the extension for the place in the queue.
pub const PRIORITY: &str = "qurrent_priority";

/// One name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The name, with the prefix of who defined it.
    pub name: String,
    /// The value.
    pub value: Value,
}

impl Extension {
    /// An extension to send.
    #[must_use]
    pub fn new(name: &str, value: impl Into<Value>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }

    pub(super) fn is_ours(&self) -> bool {
        NAMES.contains(&self.name.as_str())
    }
}

impl Serialize for Extension {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(&self.name, &self.value)])
    }
}

/// The members of one object of a list; the standard shows one member, several are taken as well.
pub(super) struct Members(pub(super) Vec<Extension>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(serde::de::Error::custom("an extension has too many members"));
                    }
                    members.push(Extension { name, value });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Which ways a key may have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Over one QKD link, no trusted node crossed.
    Direct,
    /// Over at least one trusted node.
    Indirect,
    /// Either.
    #[default]
    Any,
}

impl Route {
    /// As it stands in a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Indirect => "indirect",
            Self::Any => "any",
        }
    }
}

/// Place in the queue for scarce key, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Commands to switchgear and what protects it.
    Telecontrol,
    /// Measured values.
    Telemetry,
    /// Distribution of models.
    Model,
    /// Everything else.
    Other,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Telecontrol, Self::Telemetry, Self::Model, Self::Other];

    /// As it stands in a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Telecontrol => "telecontrol",
            Self::Telemetry => "telemetry",
            Self::Model => "model",
            Self::Other => "other",
        }
    }
}

/// The extensions of ours that one list holds; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Greatest age.
    pub max_age_ms: Option<u64>,
    /// Which ways.
    pub route: Option<Route>,
    /// Fewest trusted nodes crossed.
    pub min_hops: Option<u8>,
    /// Most trusted nodes crossed.
    pub max_hops: Option<u8>,
    /// Disjoint ways.
    pub paths: Option<u8>,
    /// Time to wait for key.
    pub wait_ms: Option<u64>,
    /// Place in the queue.
    pub priority: Option<Class>,
}

impl Wishes {
    /// Reads a mandatory list: all must be known, then all must be right.
    pub(super) fn mandatory(list: &[Extension]) -> Result<Self, BadRequest> {
        if let Some(unknown) = list.iter().find(|extension| !NAMES.contains(&extension.name.as_str())) {
            return Err(BadRequest::unknown(&short(&unknown.name)));
        }
        let mut wishes = Self::default();
        for extension in list {
            wishes.put(extension).map_err(|why| BadRequest::unmet(&short(&extension.name), why))?;
        }
        if wishes.contradicts() {
            return Err(BadRequest::unmet(ROUTE, "no way has so many hops"));
        }
        Ok(wishes)
    }

    /// Reads an optional list: what is unknown or wrong is ignored.
    pub(super) fn optional(list: &[Extension]) -> Self {
        let mut wishes = Self::default();
        for extension in list {
            let before = wishes.clone();
            if wishes.put(extension).is_err() || wishes.contradicts() {
                wishes = before;
            }
        }
        wishes
    }

    /// As extensions to send.
    #[must_use]
    pub fn extensions(&self) -> Vec<Extension> {
        let number = |name: &str, value: Option<u64>| value.map(|value| Extension::new(name, value));
        let small = |name: &str, value: Option<u8>| number(name, value.map(u64::from));
        [
            number(MAX_AGE, self.max_age_ms),
            self.route.map(|route| Extension::new(ROUTE, route.name())),
            small(MIN_HOPS, self.min_hops),
            small(MAX_HOPS, self.max_hops),
            small(PATHS, self.paths),
            number(WAIT, self.wait_ms),
            self.priority.map(|class| Extension::new(PRIORITY, class.name())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn put(&mut self, extension: &Extension) -> Result<(), &'static str> {
        let Extension { name, value } = extension;
        match name.as_str() {
            MAX_AGE => set(&mut self.max_age_ms, number(value, 0, u64::MAX)?),
            ROUTE => set(&mut self.route, route(value)?),
            MIN_HOPS => set(&mut self.min_hops, small(value, 0, HOPS_MAX)?),
            MAX_HOPS => set(&mut self.max_hops, small(value, 0, HOPS_MAX)?),
            PATHS => set(&mut self.paths, small(value, 1, PATHS_MAX)?),
            WAIT => set(&mut self.wait_ms, number(value, 0, WAIT_MAX_MS)?),
            PRIORITY => set(&mut self.priority, class(value)?),
            _ => Err("it is not known here"),
        }
    }

    /// Whether no way at all can be meant.
    fn contradicts(&self) -> bool {
        let (fewest, most) = (self.min_hops.unwrap_or(0), self.max_hops.unwrap_or(HOPS_MAX));
        let by_route = match self.route.unwrap_or_default() {
            Route::Direct => fewest > 0,
            Route::Indirect => most < 1,
            Route::Any => false,
        };
        by_route || fewest > most
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("it comes more than once"),
    }
}

fn number(value: &Value, least: u64, most: u64) -> Result<u64, &'static str> {
    let number = value.as_u64().ok_or("a whole number is needed, not negative")?;
    if (least..=most).contains(&number) { Ok(number) } else { Err("the number is out of range") }
}

fn small(value: &Value, least: u8, most: u8) -> Result<u8, &'static str> {
    let number = number(value, least.into(), most.into())?;
    u8::try_from(number).map_err(|_| "the number is out of range")
}

fn route(value: &Value) -> Result<Route, &'static str> {
    let known = [Route::Direct, Route::Indirect, Route::Any];
    let found = known.into_iter().find(|route| value.as_str() == Some(route.name()));
    found.ok_or("the value is one of direct, indirect, any")
}

fn class(value: &Value) -> Result<Class, &'static str> {
    let found = Class::ALL.into_iter().find(|class| value.as_str() == Some(class.name()));
    found.ok_or("the value is one of telecontrol, telemetry, model, other")
}

const NAMES: [&str; 7] = [MAX_AGE, ROUTE, MIN_HOPS, MAX_HOPS, PATHS, WAIT, PRIORITY];
const MEMBERS_MAX: usize = 16;
const HOPS_MAX: u8 = 32;
const PATHS_MAX: u8 = 8;
const WAIT_MAX_MS: u64 = 60_000;
