//! Secret memory, one-time pad, Wegman-Carter tags, AEAD, key derivation, signatures.
//!
//! | module | holds | security |
//! |---|---|---|
//! | [`secret`] | the only types that hold key bits | |
//! | [`pad`] | one-time pad, taken by value | information-theoretic |
//! | [`tag`] | Wegman-Carter tags: one-time key, or reused hash key with one-time pad | information-theoretic |
//! | [`manipulation`] | code that notices what is added to a sum of shares | information-theoretic |
//! | [`aead`] | AES-256-GCM with a counter that never wraps | computational |
//! | [`kdf`] | HKDF-SHA256 under labels | computational |
//! | [`sign`] | Ed25519 and ML-DSA-65, both or nothing (feature `aws-lc`) | computational, post-quantum |
//! | [`record`] | what a core asks the store to keep | |
//! | [`domain`] | the one list of labels | |
//!
//! Without the feature `aws-lc` the crate is `no_std` and pure Rust, for the core inside a terminal.
#![cfg_attr(not(feature = "aws-lc"), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

extern crate alloc;

pub mod aead;
pub mod domain;
pub mod hash;
pub mod kdf;
pub mod manipulation;
pub mod pad;
pub mod record;
pub mod secret;
#[cfg(feature = "aws-lc")]
pub mod sign;
pub mod tag;

pub use rand_core;

/// Why a cryptographic operation did not happen. Says nothing about secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tag, a signature or a sealed value is not what was made with this key.
    #[error("not authentic")]
    NotAuthentic,
    /// Bytes from outside have the wrong length or shape.
    #[error("{what} is malformed")]
    Malformed {
        /// What it was to be.
        what: &'static str,
    },
    /// A counter reached its end; the key must be replaced.
    #[error("the key's nonces are used up")]
    Exhausted,
}
