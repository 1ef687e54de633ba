//! Site signatures: Ed25519 and ML-DSA-65 together. A signature holds only if both hold, so that forging needs
//! a break of both.
//!
//! Layout of a signature: Ed25519 (64 B), then ML-DSA-65 (3,309 B). Layout of a verifying key: Ed25519 (32 B),
//! then ML-DSA-65 (1,952 B).

use alloc::vec::Vec;
use core::fmt;

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use rand_core::CryptoRng;

use crate::Error;
use crate::domain::Domain;
use crate::hash::{Sha256Value, sha256};
use crate::kdf::derive;
use crate::secret::Key256;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64 + 3309;
/// Bytes of a verifying key.
pub const VERIFYING_KEY_LEN: usize = 32 + 1952;

/// A signing key, made from one 32-byte seed.
pub struct SigningKey {
    classic: Ed25519KeyPair,
    post_quantum: PqdsaKeyPair,
    verifying: VerifyingKey,
}

impl SigningKey {
    /// A fresh seed; keep it and make the key from it with [`SigningKey::from_seed`].
    pub fn fresh_seed(rng: &mut impl CryptoRng) -> Key256 {
        Key256::random(rng)
    }

    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: &Key256) -> Self {
        let classic = derive(seed, Domain::SiteKeyring, &[b"ed25519"])
            .expose(|seed| Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are an Ed25519 seed"));
        let post_quantum = derive(seed, Domain::SiteKeyring, &[b"ml-dsa-65"])
            .expose(|seed| PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).expect("32 bytes are an ML-DSA seed"));
        let mut bytes = Vec::with_capacity(VERIFYING_KEY_LEN);
        bytes.extend_from_slice(classic.public_key().as_ref());
        bytes.extend_from_slice(post_quantum.public_key().as_ref());
        Self { classic, post_quantum, verifying: VerifyingKey(bytes) }
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs a labelled message.
    #[must_use]
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Vec<u8> {
        let input = labelled(domain, message);
        let mut signature = self.classic.sign(&input).as_ref().to_vec();
        signature.resize(SIGNATURE_LEN, 0);
        let tail = signature.get_mut(64..).expect("the signature was just made this long");
        self.post_quantum.sign(&input, tail).expect("the buffer has the length of an ML-DSA-65 signature");
        signature
    }

    /// Signs a C2SP note's text with the Ed25519 half alone and without a label, as that format asks, so that
    /// tools that are not ours can check it. Our own checks ask for [`SigningKey::sign`] beside it.
    #[must_use]
    pub fn sign_note(&self, text: &[u8]) -> Vec<u8> {
        self.classic.sign(text).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([REDACTED])")
    }
}

/// A public key that checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey(Vec<u8>);

impl VerifyingKey {
    /// From its bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a wrong length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() == VERIFYING_KEY_LEN {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(Error::Malformed { what: "verifying key" })
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Checks a signature over a labelled message: both halves must hold.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`], or [`Error::Malformed`] for a wrong length.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        if signature.len() != SIGNATURE_LEN {
            return Err(Error::Malformed { what: "signature" });
        }
        let input = labelled(domain, message);
        let (classic_key, pq_key) = self.0.split_at(32);
        let (classic, pq) = signature.split_at(64);
        let classic_holds = UnparsedPublicKey::new(&ED25519, classic_key).verify(&input, classic).is_ok();
        let pq_holds = UnparsedPublicKey::new(&ML_DSA_65, pq_key).verify(&input, pq).is_ok();
        if classic_holds && pq_holds { Ok(()) } else { Err(Error::NotAuthentic) }
    }

    /// The Ed25519 half.
    #[must_use]
    pub fn ed25519(&self) -> &[u8] {
        self.0.split_at(32).0
    }

    /// SHA-256 of the key's bytes, by which people and trust files know it.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256Value {
        sha256(&self.0)
    }

    /// Checks what [`SigningKey::sign_note`] made.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn verify_note(&self, text: &[u8], signature: &[u8]) -> Result<(), Error> {
        UnparsedPublicKey::new(&ED25519, self.ed25519()).verify(text, signature).map_err(|_| Error::NotAuthentic)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

fn labelled(domain: Domain, message: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(domain.label().len() + message.len());
    input.extend_from_slice(domain.label());
    input.extend_from_slice(message);
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_are_needed() {
        let key = SigningKey::from_seed(&Key256::copy_of(&[4; 32]));
        let signature = key.sign(Domain::VaultManifest, b"m");
        let verifying = VerifyingKey::from_bytes(key.verifying_key().as_bytes()).unwrap();
        verifying.verify(Domain::VaultManifest, b"m", &signature).unwrap();
        assert!(verifying.verify(Domain::LedgerCheckpoint, b"m", &signature).is_err());
        assert!(verifying.verify(Domain::VaultManifest, b"n", &signature).is_err());
        for at in [0, 63, 64, SIGNATURE_LEN - 1] {
            let mut bent = signature.clone();
            bent[at] ^= 1;
            assert!(verifying.verify(Domain::VaultManifest, b"m", &bent).is_err(), "byte {at}");
        }
        assert!(verifying.verify(Domain::VaultManifest, b"m", &signature[1..]).is_err());
    }

    #[test]
    fn a_note_signature_is_plain_ed25519_and_no_labelled_one() {
        let key = SigningKey::from_seed(&Key256::copy_of(&[4; 32]));
        let signature = key.sign_note(b"text\n");
        let verifying = key.verifying_key();
        verifying.verify_note(b"text\n", &signature).unwrap();
        assert!(verifying.verify_note(b"text", &signature).is_err());
        assert!(verifying.verify_note(b"text\n", &signature[1..]).is_err());
        let labelled = key.sign(Domain::LedgerCheckpoint, b"text\n");
        assert!(verifying.verify_note(b"text\n", labelled.split_at(64).0).is_err());
        assert_eq!(verifying.fingerprint(), crate::hash::sha256(verifying.as_bytes()));
    }
}
