//! Refusals as problem details (RFC 9457) with the types that the standard lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::Malformed;

/// Why a request was refused (`problem_details`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, as a URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The kind in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Topics with explanations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// The kinds of problem that the standard lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A required member is missing.
    MissingParameters,
    /// A member is not as it must be.
    InvalidParameter,
    /// The keys cannot be brought to their targets.
    KeyRouting,
    /// A void request is not as it must be.
    VoidNotUnderstood,
    /// A void request names no keys and does not confirm that all are meant.
    NoKeyIdsOrConfirmation,
    /// An acknowledgement is not as it must be.
    AckNotUnderstood,
    /// No such key is known.
    KeyNotPresent,
    /// The caller may not ask this.
    Unauthorized,
    /// The request did not arrive in time.
    Timeout,
    /// Something is wrong here.
    ServerSide,
    /// There is not enough key to bring the keys to their targets.
    InsufficientKeyMaterial,
    /// A mandatory extension is not supported.
    UnsupportedMandatoryExtension,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::MissingParameters,
        Self::InvalidParameter,
        Self::KeyRouting,
        Self::VoidNotUnderstood,
        Self::NoKeyIdsOrConfirmation,
        Self::AckNotUnderstood,
        Self::KeyNotPresent,
        Self::Unauthorized,
        Self::Timeout,
        Self::ServerSide,
        Self::InsufficientKeyMaterial,
        Self::UnsupportedMandatoryExtension,
    ];

    /// The URI of the kind.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{PREFIX}{}", self.title().replace(' ', "-"))
    }

    /// The kind in words; the URI ends with the same words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::MissingParameters => "missing parameters",
            Self::InvalidParameter => "invalid parameter",
            Self::KeyRouting => "key routing error",
            Self::VoidNotUnderstood => "void request not understood",
            Self::NoKeyIdsOrConfirmation => "no key ids or confirmation",
            Self::AckNotUnderstood => "ack not understood",
            Self::KeyNotPresent => "key not present",
            Self::Unauthorized => "unauthorized",
            Self::Timeout => "timeout",
            Self::ServerSide => "server side general error",
            Self::InsufficientKeyMaterial => "insufficient key material",
            Self::UnsupportedMandatoryExtension => "unsupported mandatory extension",
        }
    }
}

impl Problem {
    /// A problem with one detail.
    #[must_use]
    pub fn new(status: u16, kind: ProblemKind, topic: &str, explanation: impl Into<String>) -> Self {
        Self { kind: kind.uri(), status: Some(status), title: Some(kind.title().to_owned()), details: BTreeMap::new() }
            .and(topic, explanation)
    }

    /// The same with one more detail.
    #[must_use]
    pub fn and(mut self, topic: &str, explanation: impl Into<String>) -> Self {
        self.details.insert(topic.to_owned(), explanation.into());
        self
    }

    /// The answer to a transfer that is malformed.
    #[must_use]
    pub fn of_transfer(why: &Malformed) -> Self {
        match why {
            Malformed::Missing(name) => {
                let text = format!("Required parameters are missing from the API call: {name}.");
                Self::new(400, ProblemKind::MissingParameters, "missing_parameters", text)
            }
            why => Self::new(400, ProblemKind::InvalidParameter, "malformed_property", why.to_string()),
        }
    }

    /// The answer to an acknowledgement that is malformed.
    #[must_use]
    pub fn of_ack(why: &Malformed) -> Self {
        Self::new(400, ProblemKind::AckNotUnderstood, "ack_not_understood", why.to_string())
    }

    /// The answer to a void request that is malformed.
    #[must_use]
    pub fn of_void(why: &Malformed) -> Self {
        Self::new(400, ProblemKind::VoidNotUnderstood, "key_voiding_error", why.to_string())
    }

    /// Reads the problem that a peer's answer describes, if it is one of at most 64 KiB.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > PROBLEM_MAX {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    /// Writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}

const PREFIX: &str = "https://qkd.etsi.org/gs020-interop-kms/";
const PROBLEM_MAX: usize = 64 << 10;
