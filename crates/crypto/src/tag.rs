//! Wegman-Carter tags: information-theoretic authentication.
//!
//! Two forms, both taken by value where a key is used once:
//!
//! | type | hash | key spent per tag | forgery bound for `L` bytes |
//! |---|---|---|---|
//! | [`OneTimeTagKey`] | Poly1305, fresh r and s | 32 B | 8 ceil(L/16) / 2^106 |
//! | [`TagHasher`] + [`TagPad`] | POLYVAL over GF(2^128), reused h | 16 B | (ceil(L/16) + 1) / 2^128 |
//!
//! Both put a [`Domain`] label in front of the message and its length behind it, so that messages of different
//! purpose or length never collide by padding.

use alloc::vec::Vec;
use core::fmt;

use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use polyval::Polyval;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Error;
use crate::domain::Domain;
use crate::secret::SecretBytes;

/// A tag as it goes over the wire; public.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub [u8; Tag::LEN]);

impl Tag {
    /// Bytes of a tag.
    pub const LEN: usize = 16;
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(..)")
    }
}

/// Proof that a tag was checked and holds. Only the checks in this module make one.
#[derive(Clone, Copy, Debug)]
pub struct TagVerified(());

/// 32 bytes of key for one tag over one message.
#[derive(Debug)]
pub struct OneTimeTagKey(SecretBytes);

impl OneTimeTagKey {
    /// Key bytes that one tag spends.
    pub const LEN: usize = 32;

    /// Marks 32 secret bytes as a one-time tag key. `None` for any other length.
    #[must_use]
    pub fn new(bits: SecretBytes) -> Option<Self> {
        (bits.len() == Self::LEN).then_some(Self(bits))
    }

    /// The tag over the concatenation of `parts`, each bound with its length.
    #[must_use]
    pub fn tag(self, domain: Domain, parts: &[&[u8]]) -> Tag {
        self.0.expose(|key| {
            let mut padded = [0; 32];
            padded.copy_from_slice(key);
            let key = Zeroizing::new(padded);
            let mut mac = Poly1305::new((&*key).into());
            let mut lengths = Vec::with_capacity(8 * (parts.len() + 1));
            mac.update_padded(domain.label());
            for part in parts {
                mac.update_padded(part);
                lengths.extend_from_slice(&(part.len() as u64).to_le_bytes());
            }
            mac.update_padded(&lengths);
            Tag(mac.finalize().into())
        })
    }

    /// Checks a tag; the key is spent either way.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn verify(self, domain: Domain, parts: &[&[u8]], tag: &Tag) -> Result<TagVerified, Error> {
        check(&self.tag(domain, parts), tag)
    }
}

/// 16 bytes of key that hide one hash value of a [`TagHasher`].
#[derive(Debug)]
pub struct TagPad(SecretBytes);

impl TagPad {
    /// Key bytes that one tag spends.
    pub const LEN: usize = 16;

    /// Marks 16 secret bytes as a tag pad. `None` for any other length.
    #[must_use]
    pub fn new(bits: SecretBytes) -> Option<Self> {
        (bits.len() == Self::LEN).then_some(Self(bits))
    }
}

/// The reusable hash key of a stream of tags. Refresh it every 2^10 tags (Abidin and Larsson 2011).
#[derive(Debug)]
pub struct TagHashKey(SecretBytes);

impl TagHashKey {
    /// Bytes of a hash key.
    pub const LEN: usize = 16;

    /// Marks 16 secret bytes as a hash key. `None` for any other length.
    #[must_use]
    pub fn new(bits: SecretBytes) -> Option<Self> {
        (bits.len() == Self::LEN).then_some(Self(bits))
    }

    /// A fresh random hash key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(SecretBytes::random(Self::LEN, rng))
    }

    /// Starts hashing a message.
    #[must_use]
    pub fn hasher(&self, domain: Domain) -> TagHasher {
        self.0.expose(|key| {
            let mut h = Zeroizing::new([0; 16]);
            h.copy_from_slice(key);
            let mut hasher = TagHasher { poly: Polyval::new((&*h).into()), partial: Zeroizing::new([0; 16]), len: 0 };
            hasher.update(domain.label());
            hasher
        })
    }
}

/// Hashes a message that comes in pieces; piece boundaries do not matter.
pub struct TagHasher {
    poly: Polyval,
    /// The block that is not full yet: `len % 16` bytes of message.
    partial: Zeroizing<[u8; 16]>,
    len: u64,
}

impl TagHasher {
    /// The next piece of the message.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let filled = self.filled();
        self.len += bytes.len() as u64;
        if filled > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(16 - filled));
            self.partial[filled..filled + head.len()].copy_from_slice(head);
            if filled + head.len() < 16 {
                return;
            }
            self.poly.update_padded(&*self.partial);
            bytes = tail;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % 16);
        self.poly.update_padded(whole);
        self.partial[..rest.len()].copy_from_slice(rest);
    }

    /// The tag: the hash hidden by the pad. The hasher and the pad are spent.
    #[must_use]
    pub fn tag(mut self, pad: TagPad) -> Tag {
        let filled = self.filled();
        self.poly.update_padded(&self.partial[..filled]);
        let mut last = [0; 16];
        last[..8].copy_from_slice(&self.len.to_le_bytes());
        self.poly.update_padded(&last);
        let mut tag: [u8; 16] = self.poly.finalize().into();
        pad.0.expose(|pad| tag.iter_mut().zip(pad).for_each(|(byte, key)| *byte ^= key));
        Tag(tag)
    }

    fn filled(&self) -> usize {
        usize::try_from(self.len % 16).expect("below 16")
    }

    /// Checks a tag; the hasher and the pad are spent either way.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn verify(self, pad: TagPad, tag: &Tag) -> Result<TagVerified, Error> {
        check(&self.tag(pad), tag)
    }
}

impl fmt::Debug for TagHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagHasher({} B hashed)", self.len)
    }
}

fn check(ours: &Tag, theirs: &Tag) -> Result<TagVerified, Error> {
    if bool::from(ours.0.ct_eq(&theirs.0)) { Ok(TagVerified(())) } else { Err(Error::NotAuthentic) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn polyval_of_rfc_8452_appendix_a() {
        // H, X_1, X_2 and POLYVAL(H, X_1, X_2) of RFC 8452, appendix A; without our label and length.
        let h: [u8; 16] = hex::decode("25629347589242761d31f826ba4b757b").unwrap().try_into().unwrap();
        let mut poly = Polyval::new((&h).into());
        poly.update_padded(&hex::decode("4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362").unwrap());
        assert_eq!(hex::encode(poly.finalize()), "f7a3b47b846119fae5b7866cf5e5b77e");
    }

    #[test]
    fn poly1305_of_rfc_8439_section_2_5_2() {
        let key: [u8; 32] = hex::decode("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
            .unwrap()
            .try_into()
            .unwrap();
        let tag = Poly1305::new((&key).into()).compute_unpadded(b"Cryptographic Forum Research Group");
        assert_eq!(hex::encode(tag), "a8061dc1305136c6c22b8baf0c0127a9");
    }

    proptest! {
        #[test]
        fn any_change_of_message_or_tag_is_noticed(
            message in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let key = || OneTimeTagKey::new(SecretBytes::copy_of(&[9; 32])).unwrap();
            let tag = key().tag(Domain::RelayHop, &[&message]);
            prop_assert!(key().verify(Domain::RelayHop, &[&message], &tag).is_ok());
            prop_assert!(key().verify(Domain::TerminalRecord, &[&message], &tag).is_err());
            let mut flipped = message.clone();
            flipped[at.index(message.len())] ^= 1 << bit;
            prop_assert!(key().verify(Domain::RelayHop, &[&flipped], &tag).is_err());
            let mut longer = message.clone();
            longer.push(0);
            prop_assert!(key().verify(Domain::RelayHop, &[&longer], &tag).is_err());
        }

        #[test]
        fn pieces_do_not_matter(message in proptest::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let key = TagHashKey::new(SecretBytes::copy_of(&[3; 16])).unwrap();
            let pad = || TagPad::new(SecretBytes::copy_of(&[5; 16])).unwrap();
            let mut whole = key.hasher(Domain::LinkTranscript);
            whole.update(&message);
            let tag = whole.tag(pad());
            let (a, b) = message.split_at(cut.index(message.len() + 1));
            let mut pieces = key.hasher(Domain::LinkTranscript);
            pieces.update(a);
            pieces.update(b);
            prop_assert!(pieces.verify(pad(), &tag).is_ok());
            let mut many = key.hasher(Domain::LinkTranscript);
            message.chunks(1 + a.len() % 19).for_each(|piece| many.update(piece));
            prop_assert!(many.verify(pad(), &tag).is_ok());
            let mut longer = key.hasher(Domain::LinkTranscript);
            longer.update(&message);
            longer.update(&[0]);
            prop_assert!(longer.verify(pad(), &tag).is_err());
        }
    }
}
