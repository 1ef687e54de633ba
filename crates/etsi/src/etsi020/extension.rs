//! Extensions of makers: objects that are passed on as the text they came as.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::field::FieldError;
use super::{EXTENSION_BYTES_MAX, EXTENSION_MEMBERS_MAX};

/// An extension object: 1 to 1,024 members, each named `E`, the maker's IANA enterprise number, `_` and a name.
///
/// What is unknown is passed on without change, so the text itself is kept.
#[derive(Clone)]
pub struct Extension {
    text: Box<RawValue>,
    names: Vec<String>,
}

impl Extension {
    /// Checks a JSON object.
    ///
    /// # Errors
    /// If it is no object of 1 to 1,024 members, or larger than 16 KiB.
    pub fn new(json: &str) -> Result<Self, FieldError> {
        serde_json::from_str(json).map_err(|_| NOT_ONE)
    }

    /// The object as it came.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.text.get()
    }

    /// The names of its members.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether every name has the form of the standard.
    #[must_use]
    pub fn is_well_named(&self) -> bool {
        self.names.iter().all(|name| {
            let number = name.strip_prefix('E').and_then(|rest| rest.split_once('_'));
            number.is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }
}

impl PartialEq for Extension {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Extension {}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extension({:?})", self.names)
    }
}

impl Serialize for Extension {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Extension {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(from)?;
        let is_small = text.get().len() <= EXTENSION_BYTES_MAX;
        let names = is_small.then(|| serde_json::from_str::<Names>(text.get()).ok()).flatten();
        let names = names.ok_or_else(|| de::Error::custom(NOT_ONE))?.0;
        Ok(Self { text, names })
    }
}

struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<String>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an extension object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Vec<String>, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
                    names.push(name);
                }
                let fits = (1..=EXTENSION_MEMBERS_MAX).contains(&names.len());
                if fits { Ok(names) } else { Err(de::Error::custom("1 to 1024 members")) }
            }
        }
        from.deserialize_map(Members).map(Self)
    }
}

const NOT_ONE: FieldError = FieldError::new("extension", "an object of 1 to 1024 members and at most 16 KiB");
