//! Models: manifest, key-data mapping, sealed chunks, publish, fetch.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@format`] | a model file as a row of pieces; safetensors headers read with bounds |
//! | [`plan`] | which tensor gets how much quantum key, before any is spent |
//! | [`keys`] | wrapping key → model key → group key → chunk key |
//! | [`manifest`] | the signed description of a version |
//! | [`envelope`] | the model key for one site, under quantum keys |
//! | [`store`] | the vault in an object store: layout, manifests, sweeping |
//! | [`publish`], [`fetch`], [`inspect`] | what a user does with it |
//! | [`keyring`], [`supply`], [`observer`] | what the shell gives: kept keys, wrapping keys, someone to tell |
//! | [`limits`] | every maximum |
//!
//! Formats: `docs/formats/vault.md`. What is claimed: chunks are sealed with AES-256-GCM under keys that HKDF derives,
//! so a model's secrecy is computational whatever key wraps it; integrity rests on SHA-256 and the publisher's
//! signature (Ed25519 and ML-DSA-65). The store is trusted with nothing. Not hidden: names, shapes and sizes of
//! tensors and the SHA-256 of the file, which the manifest shows to whoever reads the store.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod chunk;
pub mod envelope;
pub mod error;
pub mod fetch;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod keyring;
pub mod keys;
mod layout;
pub mod limits;
pub mod manifest;
pub mod observer;
pub mod plan;
pub mod publish;
pub mod store;
pub mod supply;

pub use error::{Error, Result};
pub use fetch::{FetchRequest, Fetched, OpenModel};
pub use format::{FileFormat, ModelFile, Piece};
pub use inspect::{Listed, Verified};
pub use keyring::{FileKeyring, KeyringError, ModelKeys};
pub use keys::{HeldKeys, KeySet};
pub use manifest::{Manifest, Publishers, SignedManifest, VerifiedManifest};
pub use observer::{AuditError, Observer, Progress, Stage, Unobserved};
pub use plan::{Class, Glob, Plan, Rule, Rules};
pub use publish::{PublishRequest, Published};
pub use store::{Swept, Vault};
pub use supply::{KeyError, WrappingKeys};
