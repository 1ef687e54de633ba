//! Error bodies of RESTCONF (RFC 8040, 7 and 8).

use serde_json::{Value, json};

/// What went wrong, in RESTCONF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorTag {
    /// The request is wrong in itself.
    InvalidValue,
    /// The caller is no controller.
    AccessDenied,
    /// There is no such resource.
    UnknownElement,
    /// Writing is not provided.
    OperationNotSupported,
    /// The node is stopping or has too many listeners.
    ResourceDenied,
}

impl ErrorTag {
    /// The HTTP status that belongs to it (RFC 8040, 7).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidValue => 400,
            Self::AccessDenied => 403,
            Self::UnknownElement => 404,
            Self::OperationNotSupported => 405,
            Self::ResourceDenied => 503,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InvalidValue | Self::UnknownElement => "invalid-value",
            Self::AccessDenied => "access-denied",
            Self::OperationNotSupported => "operation-not-supported",
            Self::ResourceDenied => "resource-denied",
        }
    }
}

/// `ietf-restconf:errors` with one error.
#[must_use]
pub fn error_body(tag: ErrorTag, message: &str) -> Value {
    let error = json!({ "error-type": "application", "error-tag": tag.name(), "error-message": message });
    json!({ "ietf-restconf:errors": { "error": [error] } })
}
