//! AES-256-GCM. Computationally secure; marked so wherever it protects anything.
//!
//! [`AeadKey`] seals under a nonce that the caller proves unique by construction (chunk index under a chunk
//! key); [`Sealer`] owns a counter and never repeats or wraps. The backend is AWS-LC with the feature `aws-lc`
//! and RustCrypto without; a test holds one against the other.

use alloc::vec::Vec;
use core::fmt;

use crate::Error;
use crate::secret::{Key256, SecretBytes};

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// An AES-256-GCM key, expanded.
pub struct AeadKey(backend::Key);

impl AeadKey {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &Key256) -> Self {
        Self(backend::Key::new(key))
    }

    /// Encrypts `buffer` in place and returns the tag. `nonce` must never repeat under this key.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal(nonce, aad, buffer)
    }

    /// Decrypts `buffer` in place after checking `tag`.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`]; the buffer's content is then unspecified and must be dropped.
    pub fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8], tag: [u8; TAG_LEN]) -> Result<(), Error> {
        self.0.open(nonce, aad, buffer, tag)
    }

    /// Seals a small secret: nonce-less form for keys that seal exactly one value.
    #[must_use]
    pub fn seal_once(self, aad: &[u8], secret: &SecretBytes) -> Vec<u8> {
        let mut sealed = secret.expose(<[u8]>::to_vec);
        let tag = self.seal([0; NONCE_LEN], aad, &mut sealed);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens what [`AeadKey::seal_once`] made.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is shorter than a tag, [`Error::NotAuthentic`].
    pub fn open_once(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, Error> {
        let Some((body, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return Err(Error::Malformed { what: "sealed value" });
        };
        let mut secret = SecretBytes::copy_of(body);
        secret.expose_mut(|body| self.open([0; NONCE_LEN], aad, body, *tag))?;
        Ok(secret)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey([REDACTED])")
    }
}

/// Seals a sequence of messages under one key with nonces 0, 1, 2, …; the last nonce is an error, never a wrap.
#[derive(Debug)]
pub struct Sealer {
    key: AeadKey,
    next: Option<u64>,
}

impl Sealer {
    /// Starts at nonce 0.
    #[must_use]
    pub fn new(key: &Key256) -> Self {
        Self { key: AeadKey::new(key), next: Some(0) }
    }

    /// Encrypts in place; returns the nonce's counter and the tag.
    ///
    /// # Errors
    /// [`Error::Exhausted`] after 2^64 messages.
    pub fn seal(&mut self, aad: &[u8], buffer: &mut [u8]) -> Result<(u64, [u8; TAG_LEN]), Error> {
        let counter = self.next.ok_or(Error::Exhausted)?;
        self.next = counter.checked_add(1);
        Ok((counter, self.key.seal(nonce_of(counter), aad, buffer)))
    }
}

/// The nonce of a counter: four zero bytes and the counter, big endian.
#[must_use]
pub fn nonce_of(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(feature = "aws-lc")]
use aws_lc as backend;
#[cfg(not(feature = "aws-lc"))]
use rust_crypto as backend;

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{Error, Key256, NONCE_LEN, TAG_LEN};

    pub(super) struct Key(LessSafeKey);

    impl Key {
        pub(super) fn new(key: &Key256) -> Self {
            key.expose(|key| {
                Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key")))
            })
        }

        pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
            let tag = self
                .0
                .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buffer)
                .expect("AES-256-GCM seals any buffer below 64 GiB");
            let mut out = [0; TAG_LEN];
            out.copy_from_slice(tag.as_ref());
            out
        }

        pub(super) fn open(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
            tag: [u8; TAG_LEN],
        ) -> Result<(), Error> {
            self.0
                .open_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &tag, buffer)
                .map(|_| ())
                .map_err(|_| Error::NotAuthentic)
        }
    }
}

#[cfg(any(test, not(feature = "aws-lc")))]
mod rust_crypto {
    use aes_gcm::aead::{AeadInOut, KeyInit};
    use aes_gcm::{Aes256Gcm, Nonce, Tag};

    use super::{Error, Key256, NONCE_LEN, TAG_LEN};

    pub(super) struct Key(Aes256Gcm);

    impl Key {
        pub(super) fn new(key: &Key256) -> Self {
            key.expose(|key| Self(Aes256Gcm::new(key.into())))
        }

        pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
            self.0
                .encrypt_inout_detached(&Nonce::from(nonce), aad, buffer.into())
                .expect("AES-256-GCM seals any buffer below 64 GiB")
                .into()
        }

        pub(super) fn open(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
            tag: [u8; TAG_LEN],
        ) -> Result<(), Error> {
            self.0
                .decrypt_inout_detached(&Nonce::from(nonce), aad, buffer.into(), &Tag::from(tag))
                .map_err(|_| Error::NotAuthentic)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_backends_agree_and_notice_change(
            key in any::<[u8; 32]>(), nonce in any::<[u8; 12]>(), aad in proptest::collection::vec(any::<u8>(), 0..40),
            message in proptest::collection::vec(any::<u8>(), 1..300),
        ) {
            let key = Key256::copy_of(&key);
            let (bulk, pure) = (AeadKey::new(&key), rust_crypto::Key::new(&key));
            let (mut a, mut b) = (message.clone(), message.clone());
            let (tag_a, tag_b) = (bulk.seal(nonce, &aad, &mut a), pure.seal(nonce, &aad, &mut b));
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(tag_a, tag_b);
            prop_assert!(pure.open(nonce, &aad, &mut b, tag_a).is_ok());
            prop_assert_eq!(&b, &message);
            a[0] ^= 1;
            prop_assert!(bulk.open(nonce, &aad, &mut a, tag_a).is_err());
        }
    }

    #[test]
    fn gcm_specification_test_case_14() {
        // McGrew and Viega, test case 14: zero key, zero nonce, one zero block.
        let key = AeadKey::new(&Key256::copy_of(&[0; 32]));
        let mut block = [0; 16];
        let tag = key.seal([0; 12], &[], &mut block);
        assert_eq!(hex::encode(block), "cea7403d4d606b6e074ec5d3baf39d18");
        assert_eq!(hex::encode(tag), "d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn a_sealer_ends_instead_of_wrapping() {
        let mut sealer = Sealer { key: AeadKey::new(&Key256::copy_of(&[1; 32])), next: Some(u64::MAX) };
        assert_eq!(sealer.seal(&[], &mut [0; 4]).unwrap().0, u64::MAX);
        assert_eq!(sealer.seal(&[], &mut [0; 4]), Err(Error::Exhausted));
    }
}
