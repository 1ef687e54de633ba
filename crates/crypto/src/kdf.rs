//! Key derivation: HKDF-SHA256 (RFC 5869) under a label and framed context. The result is computational,
//! whatever the input was.

use alloc::vec::Vec;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::Domain;
use crate::secret::Key256;

/// Derives a 256-bit key from `key` for `domain`; every part of `context` is framed by its length.
///
/// ```
/// use crypto::{domain::Domain, kdf::derive, secret::Key256};
/// let root = Key256::copy_of(&[1; 32]);
/// assert_ne!(
///     derive(&root, Domain::VaultGroupKey, &[b"a", b"bc"]),
///     derive(&root, Domain::VaultGroupKey, &[b"ab", b"c"]),
/// );
/// ```
#[must_use]
pub fn derive(key: &Key256, domain: Domain, context: &[&[u8]]) -> Key256 {
    let mut info = Vec::with_capacity(64);
    info.extend_from_slice(domain.label());
    for part in context {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    let mut out = Zeroizing::new([0; 32]);
    key.expose(|key| {
        Hkdf::<Sha256>::new(None, key).expand(&info, &mut *out).expect("32 bytes are within HKDF's limit");
    });
    Key256::copy_of(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hkdf_of_rfc_5869_a_1() {
        let mut okm = [0; 42];
        Hkdf::<Sha256>::new(Some(&hex::decode("000102030405060708090a0b0c").unwrap()), &[0x0b; 22])
            .expand(&hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap(), &mut okm)
            .unwrap();
        assert_eq!(
            hex::encode(okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }
}
