//! Key request (ETSI GS QKD 014, 6.2) and key IDs (6.4), in their POST and GET forms.

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use types::id::{KeyId, SaeId};

use super::error::BadRequest;
use super::extension::{Extension, Members, Wishes};
use super::{json, path};

/// Most additional slaves that are read; a KME may take fewer.
pub const ADDITIONAL_MAX: usize = 64;
/// Most key ids that are read; a KME may take fewer.
pub const KEY_IDS_MAX: usize = 1_024;
const EXTENSIONS_MAX: usize = 64;

/// What get key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// How many keys.
    pub number: u32,
    /// Bits of each; the KME's default if not said.
    pub size: Option<u32>,
    /// Further slaves of the same keys.
    pub additional: Vec<SaeId>,
    /// What must be met.
    pub mandatory: Wishes,
    /// What is met if it can be.
    pub optional: Wishes,
    /// Optional extensions of other makers, for whoever knows them.
    pub others: Vec<Extension>,
}

impl Default for KeyRequest {
    fn default() -> Self {
        Self {
            number: 1,
            size: None,
            additional: Vec::new(),
            mandatory: Wishes::default(),
            optional: Wishes::default(),
            others: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct RawRequest {
    #[serde(default, deserialize_with = "json::count")]
    number: Option<u32>,
    #[serde(default, deserialize_with = "json::count")]
    size: Option<u32>,
    #[serde(default, rename = "additional_slave_SAE_IDs", deserialize_with = "json::list::<_, _, ADDITIONAL_MAX>")]
    additional: Vec<String>,
    #[serde(default, deserialize_with = "json::list::<_, _, EXTENSIONS_MAX>")]
    extension_mandatory: Vec<Members>,
    #[serde(default, deserialize_with = "json::list::<_, _, EXTENSIONS_MAX>")]
    extension_optional: Vec<Members>,
}

impl KeyRequest {
    /// Reads the body of a POST. No body, or an empty one, asks for all defaults.
    ///
    /// # Errors
    /// If it is malformed or has an extension that must be refused.
    pub fn read(slave: &SaeId, body: &[u8]) -> Result<Self, BadRequest> {
        let raw: RawRequest = json::read(body)?;
        let mut additional = Vec::with_capacity(raw.additional.len());
        let mut seen = BTreeSet::from([slave.clone()]);
        for id in &raw.additional {
            let id = path::sae(id)?;
            if !seen.insert(id.clone()) {
                return Err(BadRequest::malformed("additional_slave_SAE_IDs shall name each further SAE once"));
            }
            additional.push(id);
        }
        let flat = |list: Vec<Members>| list.into_iter().flat_map(|members| members.0).collect::<Vec<_>>();
        let optional = flat(raw.extension_optional);
        Ok(Self {
            number: raw.number.unwrap_or(1),
            size: raw.size,
            additional,
            mandatory: Wishes::mandatory(&flat(raw.extension_mandatory))?,
            others: optional.iter().filter(|extension| !extension.is_ours()).cloned().collect(),
            optional: Wishes::optional(&optional),
        })
    }

    /// Reads the query of a GET: `number` and `size`; anything else needs a POST.
    ///
    /// # Errors
    /// If a member is malformed, unknown or comes twice.
    pub fn read_query(query: &str) -> Result<Self, BadRequest> {
        let mut request = Self::default();
        for (name, value) in path::query(query)? {
            let count = if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().ok() } else { None };
            let count = count.ok_or_else(|| BadRequest::malformed(format!("{} is no number", path::short(&name))));
            match name.as_str() {
                "number" => request.number = count?,
                "size" => request.size = Some(count?),
                _ => return Err(BadRequest::malformed(format!("{} needs the POST form", path::short(&name)))),
            }
        }
        Ok(request)
    }

    /// The body of a POST. Extensions beside those of the request itself are appended to the lists.
    #[must_use]
    pub fn write(&self, mandatory: &[Extension], optional: &[Extension]) -> Vec<u8> {
        let mut body = json!({ "number": self.number });
        if let Some(size) = self.size {
            body["size"] = size.into();
        }
        if !self.additional.is_empty() {
            body["additional_slave_SAE_IDs"] = json!(self.additional);
        }
        let lists = [
            ("extension_mandatory", self.mandatory.extensions(), mandatory),
            ("extension_optional", self.optional.extensions(), optional),
        ];
        for (name, mut ours, theirs) in lists {
            if name == "extension_optional" {
                ours.extend_from_slice(&self.others);
            }
            ours.extend_from_slice(theirs);
            if !ours.is_empty() {
                body[name] = json!(ours);
            }
        }
        body.to_string().into_bytes()
    }
}

/// What get key with key IDs asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIds(pub Vec<KeyId>);

#[derive(Deserialize)]
struct RawIds {
    #[serde(default, rename = "key_IDs", deserialize_with = "json::list::<_, _, KEY_IDS_MAX>")]
    ids: Vec<RawId>,
}

/// `{"key_ID": "…"}` with any other members, or the plain text that some makers send.
struct RawId(String);

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id;
        impl<'de> Visitor<'de> for Id {
            type Value = RawId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with key_ID")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawId, E> {
                Ok(RawId(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawId, A::Error> {
                let mut id = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "key_ID" {
                        // A whole key object may come back; its key is not looked at.
                        map.next_value::<IgnoredAny>()?;
                    } else if id.replace(map.next_value::<String>()?).is_some() {
                        return Err(serde::de::Error::duplicate_field("key_ID"));
                    }
                }
                id.map(RawId).ok_or_else(|| serde::de::Error::missing_field("key_ID"))
            }
        }
        deserializer.deserialize_any(Id)
    }
}

impl KeyIds {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// If it is malformed, names no key, or names one twice.
    pub fn read(body: &[u8]) -> Result<Self, BadRequest> {
        let raw: RawIds = json::read(body)?;
        let ids = raw.ids.iter().map(|id| key_id(&id.0)).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Err(BadRequest::malformed("key_IDs names no key"));
        }
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            return Err(BadRequest::malformed("key_IDs shall name each key once"));
        }
        Ok(Self(ids))
    }

    /// Reads the query of a GET: exactly one `key_ID`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn read_query(query: &str) -> Result<Self, BadRequest> {
        match path::query(query)?.as_slice() {
            [(name, id)] if name == "key_ID" => Ok(Self(vec![key_id(id)?])),
            _ => Err(BadRequest::malformed("exactly one key_ID is needed; several need the POST form")),
        }
    }

    /// The body of a POST. Objects, because some makers take nothing else.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let ids: Vec<_> = self.0.iter().map(|id| json!({ "key_ID": id.to_string() })).collect();
        json!({ "key_IDs": ids }).to_string().into_bytes()
    }
}

/// A UUID in its hyphenated text form and no other.
fn key_id(text: &str) -> Result<KeyId, BadRequest> {
    let id = (text.len() == UUID_CHARS).then(|| text.parse().ok()).flatten();
    id.ok_or_else(|| BadRequest::malformed("key_ID must be a UUID"))
}

const UUID_CHARS: usize = 36;
