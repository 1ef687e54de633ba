//! SHA-256 of public data, under a label or plain where a standard says so.

use sha2::{Digest, Sha256};

use crate::domain::Domain;

/// A SHA-256 value.
pub type Sha256Value = [u8; 32];

/// SHA-256 of the bytes as they are (file digests that other tools must agree with).
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Value {
    Sha256::digest(bytes).into()
}

/// SHA-256 over a label and framed parts.
#[must_use]
pub fn labelled(domain: Domain, parts: &[&[u8]]) -> Sha256Value {
    let mut hasher = Sha256::new();
    hasher.update(domain.label());
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// SHA-256 of a stream that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The value.
    #[must_use]
    pub fn finish(self) -> Sha256Value {
        self.0.finalize().into()
    }
}
