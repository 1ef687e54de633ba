//! ETSI GS QKD 014 V1.1.1: REST key delivery between an application (SAE) and the key management entity of its site.
//!
//! ```text
//! GET       /api/v1/keys/{slave_SAE_ID}/status      -> Status
//! GET, POST /api/v1/keys/{slave_SAE_ID}/enc_keys    KeyRequest -> KeyContainer
//! GET, POST /api/v1/keys/{master_SAE_ID}/dec_keys   KeyIds     -> KeyContainer
//! any of them                                       -> ErrorBody
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `path` | resources, percent-encoded SAE ids, query members |
//! | `request` | key request (6.2) and key IDs (6.4) |
//! | `extension` | extensions of a key request, the standard's two lists and our own names |
//! | `status` | status (6.1) |
//! | `container` | key container (6.3), without a copy of a key left in a tree of JSON |
//! | `error` | error (6.5), its texts and our reason codes |
//! | `json` | limits of what is read |
//!
//! Provided: both ends of every message. Unknown members are ignored, so that a client may send back a whole key
//! object where an id is asked for; what is known must be right.
//! Not provided: ranges that depend on the key management entity, which the core checks.

mod container;
mod error;
mod extension;
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod path;
mod request;
mod status;

pub use self::container::{KeyOrigin, SuppliedKey, read_container, write_container};
pub use self::error::{BadRequest, ErrorBody, Reason, text};
pub use self::extension::{Class, Extension, MAX_AGE, MAX_HOPS, MIN_HOPS, PATHS, PRIORITY, ROUTE, Route, WAIT, Wishes};
pub use self::json::{BODY_MAX, DEPTH_MAX};
pub use self::path::{Call, Resource, encode_segment};
pub use self::request::{ADDITIONAL_MAX, KEY_IDS_MAX, KeyIds, KeyRequest};
pub use self::status::{Status, StatusExtension};

#[cfg(test)]
mod tests;
