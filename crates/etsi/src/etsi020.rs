//! ETSI GS QKD 020 V1.1.1: what two key management entities of different makers or networks say to each other
//! inside one trusted node.
//!
//! | operation | path | request | answer |
//! |---|---|---|---|
//! | versions | GET [`VERSIONS_PATH`] | | [`VersionContainer`] |
//! | transfer | POST [`EXT_KEYS_PATH`] | [`ExtKeyContainer`] | 202, or 200 with [`AckContainers`] |
//! | acknowledge | POST [`ACK_PATH`] | [`AckContainers`] | 200 |
//! | void | POST [`VOID_PATH`] | [`VoidContainer`] | 202, or 200 with [`AckContainers`] |
//!
//! Every refusal is a [`Problem`]. Member names are the standard's. Key bits go from the text straight into
//! [`SecretBytes`](crypto::secret::SecretBytes) and from there straight into the text; no JSON tree ever holds them.
//!
//! Provided: every object of the OpenAPI document of the standard, in both directions, with bounds on every text,
//! array and extension; unknown members are ignored; extensions are kept as the text they came as.
//! Not provided: keys whose size is no whole number of bytes (optional in the standard).
//!
//! ```
//! use etsi::etsi020::{AckStatus, AckContainers};
//! let body = br#"[{"key_id_container":[{"key_id":"550e8400-e29b-41d4-a716-446655440000"}],
//!     "ack_status":"relayed","initiator_sae_id":"encryptor1","target_sae_ids":["encryptor2"]}]"#;
//! let acks = AckContainers::parse(body)?;
//! assert_eq!(acks.0[0].status, AckStatus::Relayed);
//! assert_eq!(AckContainers::parse(&acks.to_json())?, acks);
//! # Ok::<(), etsi::etsi020::Malformed>(())
//! ```

mod extension;
mod field;
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod problem;
#[cfg(test)]
mod tests;

pub use self::extension::Extension;
pub use self::field::{CallbackUrl, FieldError, TransferSae};
pub use self::message::{
    AckContainer, AckContainers, AckStatus, ExtKeyContainer, Key, KeyEntry, Malformed, VersionContainer, VoidContainer,
};
pub use self::problem::{Problem, ProblemKind};

/// Path of the versions operation.
pub const VERSIONS_PATH: &str = "/kmapi/versions";
/// Path of the transfer operation.
pub const EXT_KEYS_PATH: &str = "/kmapi/v1/ext_keys";
/// Path of the acknowledge operation.
pub const ACK_PATH: &str = "/kmapi/v1/ext_keys/ack";
/// Path of the void operation.
pub const VOID_PATH: &str = "/kmapi/v1/ext_keys/void";
/// Content type of every body with content.
pub const CONTENT_TYPE: &str = "application/json; charset=UTF-8";
/// The version that is spoken here.
pub const VERSION: &str = "v1";
/// The capability of a KME that answers transfers without a callback URL.
pub const SYNCHRONOUS_MODE: &str = "synchronous_mode";

/// Largest body in bytes.
pub const BODY_MAX: usize = 4 << 20;
/// Most keys of one transfer, most key ids of one void and of one acknowledgement.
pub const KEYS_MAX: usize = 1_024;
/// Largest key in bytes.
pub const KEY_BYTES_MAX: usize = 8_192;
/// Most key bytes of one transfer.
pub const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// Most targets of one message.
pub const TARGETS_MAX: usize = 64;
/// Most acknowledgement containers of one message.
pub const ACKS_MAX: usize = 1_024;
/// Most members of one extension object.
pub const EXTENSION_MEMBERS_MAX: usize = 1_024;
/// Largest extension object as text, in bytes.
pub const EXTENSION_BYTES_MAX: usize = 16 << 10;
/// Longest message of an acknowledgement in characters.
pub const MESSAGE_MAX: usize = 4_096;
/// Most versions or capabilities.
pub const VERSIONS_MAX: usize = 1_000;
