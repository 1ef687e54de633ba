//! Error (ETSI GS QKD 014, 6.5): a message in the standard's words, and details with a code for programs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The texts that ETSI GS QKD 014 prescribes, and ours where it prescribes none.
pub mod text {
    /// A key asked for is not here, or not any more (5.5).
    pub const KEYS_NOT_FOUND: &str = "one or more keys specified are not found on KME";
    /// A mandatory extension is not known (6.2).
    pub const EXTENSION_UNKNOWN: &str = "not all extension_mandatory parameters are supported";
    /// A mandatory extension is known, and cannot be met (6.2).
    pub const EXTENSION_UNMET: &str = "not all extension_mandatory request options could be met";
    /// A size that is no number of bytes (6.2).
    pub const SIZE_MULTIPLE: &str = "size shall be a multiple of 8";
    /// Any other request that is wrong in itself; the standard leaves the text open.
    pub const MALFORMED: &str = "malformed request";
}

/// Why a request was refused, for programs: member `reason` of the first of the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The request is wrong in itself.
    Malformed,
    /// A number or size is outside what this KME supplies.
    OutOfRange,
    /// No KME of the network serves the SAE named.
    UnknownSae,
    /// A key id that this KME does not hold: never held, delivered before, or expired.
    KeyNotFound,
    /// A mandatory extension that this KME does not know.
    ExtensionUnknown,
    /// A mandatory extension that cannot be met.
    ExtensionUnmet,
    /// The caller may not ask this.
    NotAuthorised,
    /// Not enough key now; ask again later.
    NotEnoughKey,
    /// The KME of the other SAE does not answer; ask again later.
    PeerDown,
    /// The SAE has drawn its share; ask again later.
    OverQuota,
    /// The network of the other SAE did not take the key; ask again later.
    NotExported,
    /// A limit of the KME is reached; ask again later.
    Busy,
    /// The KME is stopping.
    Stopping,
    /// There is no such resource.
    NoSuchPath,
    /// The resource has no such method.
    MethodNotAllowed,
    /// The body is larger than taken.
    TooLarge,
    /// The body is said to be something other than JSON.
    NotJson,
    /// The body did not come in time.
    TooSlow,
    /// The server could not read the request as HTTP.
    BadHttp,
}

/// A request that is refused without asking the core (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {detail}")]
pub struct BadRequest {
    /// The standard's text.
    pub message: &'static str,
    /// The code.
    pub reason: Reason,
    /// What exactly is wrong, for people.
    pub detail: String,
}

impl BadRequest {
    /// A request that did not come whole.
    #[must_use]
    pub fn from_transport(detail: &str) -> Self {
        Self::malformed(detail)
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self { message: text::MALFORMED, reason: Reason::Malformed, detail: detail.into() }
    }

    pub(super) fn unknown(name: &str) -> Self {
        let detail = format!("{name} is no extension of this KME");
        Self { message: text::EXTENSION_UNKNOWN, reason: Reason::ExtensionUnknown, detail }
    }

    pub(super) fn unmet(name: &str, why: &str) -> Self {
        let detail = format!("{name}: {why}");
        Self { message: text::EXTENSION_UNMET, reason: Reason::ExtensionUnmet, detail }
    }

    /// The body to send.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.message, self.reason).with("detail", self.detail.clone())
    }
}

/// Body of every answer that is not 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened.
    pub message: String,
    /// Objects of names and values.
    #[serde(default)]
    pub details: Vec<Map<String, Value>>,
}

impl ErrorBody {
    /// An error with its code.
    #[must_use]
    pub fn new(message: &str, reason: Reason) -> Self {
        let body = Self { message: message.to_owned(), details: vec![Map::new()] };
        body.with("reason", serde_json::to_value(reason).unwrap_or_default())
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(first) = self.details.first_mut() {
            first.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Reads what a KME of any make answers; `None` if it is no error of this standard.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Loose {
            message: String,
            #[serde(default)]
            details: Value,
        }
        let Loose { message, details } = serde_json::from_slice(body).ok()?;
        let details = match details {
            Value::Array(list) => list.into_iter().filter_map(|member| member.as_object().cloned()).collect(),
            Value::Object(one) => vec![one],
            _ => Vec::new(),
        };
        Some(Self { message, details })
    }

    /// The code, if a KME of this project wrote it.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let found = self.details.iter().find_map(|detail| detail.get("reason"))?;
        Reason::deserialize(found).ok()
    }

    /// The body as JSON.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let details = self.details.iter().flat_map(|detail| detail.iter());
        let details: Vec<_> = details.map(|(name, said)| format!("{name} {}", value(said))).collect();
        if details.is_empty() { self.message.clone() } else { format!("{} ({})", self.message, details.join(", ")) }
    }
}
