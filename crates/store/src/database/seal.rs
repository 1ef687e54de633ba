//! Sealing of values and secrets before they leave the process.
//!
//! | length | field of a piece | rule |
//! |---|---|---|
//! | 8 | counter | the nonce; each value once under a KEK |
//! | n | ciphertext | AES-256-GCM |
//! | 16 | tag | |
//!
//! A piece is bound to its site, its row, its KEK and whether it is a value or a secret.

use crypto::aead::{AeadKey, TAG_LEN, nonce_of};
use crypto::domain::Domain;
use crypto::secret::{Key256, SecretBytes};
use types::id::SiteId;

use super::{Batch, Database, PIECES_MAX};
use crate::RootKey;
use crate::kek::Class;

/// Number of a KEK in the database.
pub(crate) type KekId = i64;

/// Which part of a record a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Value = 0,
    Secret = 1,
}

/// A sealed value or secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kek: KekId,
    pub(crate) sealed: Vec<u8>,
}

/// A key-encryption key and what is sealed under it.
#[derive(Debug)]
pub(super) struct Kek {
    key: AeadKey,
    class: Class,
    /// The next nonce; [`PIECES_MAX`] for one of an earlier process.
    next: u64,
    /// Pieces in the database.
    pub(super) pieces: u64,
}

impl Kek {
    /// One of an earlier process, which seals nothing any more.
    pub(super) fn restored(key: &Key256, class: Class, pieces: u64) -> Self {
        Self { key: AeadKey::new(key), class, next: PIECES_MAX, pieces }
    }

    pub(super) fn is_full(&self) -> bool {
        self.next >= PIECES_MAX
    }

    pub(super) fn class(&self) -> Class {
        self.class
    }
}

impl Database {
    /// Seals one piece, under a fresh KEK if need be.
    pub(super) fn seal(&mut self, class: Class, row: &[u8], part: Part, bytes: &[u8], batch: &mut Batch) -> Piece {
        let id = match self.active[class.index()] {
            Some(id) if self.keks.get(&id).is_some_and(|kek| !kek.is_full()) => id,
            _ => self.make_kek(class, batch),
        };
        let kek = self.keks.get_mut(&id).expect("it was just found or made");
        let counter = kek.next;
        kek.next += 1;
        kek.pieces += 1;
        let mut sealed = Vec::with_capacity(COUNTER_LEN + bytes.len() + TAG_LEN);
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.extend_from_slice(bytes);
        let aad = binding(&self.site, id, counter, part, row);
        let tag = kek.key.seal(nonce_of(counter), &aad, &mut sealed[COUNTER_LEN..]);
        sealed.extend_from_slice(&tag);
        Piece { kek: id, sealed }
    }

    fn make_kek(&mut self, class: Class, batch: &mut Batch) -> KekId {
        let id = self.next_kek;
        self.next_kek += 1;
        let kek = Key256::random(&mut self.rng);
        let sealed = seal_kek(&self.root, &self.site, id, class, &kek, &mut *self.rng);
        batch.new_keks.push((id, class as u8, sealed));
        self.keks.insert(id, Kek { key: AeadKey::new(&kek), class, next: 0, pieces: 0 });
        self.active[class.index()] = Some(id);
        id
    }

    /// Opens one piece.
    pub(super) fn unseal(&self, row: &[u8], part: Part, piece: &Piece) -> Result<SecretBytes, &'static str> {
        let kek = self.keks.get(&piece.kek).ok_or("its key is not there")?;
        let (counter, body, tag) = split(&piece.sealed).ok_or("it is cut short")?;
        let aad = binding(&self.site, piece.kek, counter, part, row);
        let mut bytes = SecretBytes::copy_of(body);
        bytes
            .expose_mut(|body| kek.key.open(nonce_of(counter), &aad, body, *tag))
            .map_err(|_| "the sealed bytes do not open")?;
        Ok(bytes)
    }
}

/// A KEK as it stands in the database.
pub(super) fn seal_kek(
    root: &RootKey,
    site: &SiteId,
    id: KekId,
    class: Class,
    kek: &Key256,
    mut rng: &mut (dyn rand_core::CryptoRng + Send),
) -> Vec<u8> {
    let (id, class) = (id.to_be_bytes(), [class as u8]);
    root.seal(
        Domain::StoreSegmentKek,
        &[KEK_CONTEXT, site.as_str().as_bytes(), &id, &class],
        &kek.to_secret(),
        &mut rng,
    )
}

/// Opens what [`seal_kek`] made.
pub(super) fn open_kek(root: &RootKey, site: &SiteId, id: KekId, class: Class, sealed: &[u8]) -> Option<Key256> {
    let (id, class) = (id.to_be_bytes(), [class as u8]);
    let context: [&[u8]; 4] = [KEK_CONTEXT, site.as_str().as_bytes(), &id, &class];
    Key256::from_secret(&root.open(Domain::StoreSegmentKek, &context, sealed).ok()?)
}

/// Counter, ciphertext and tag of a piece.
pub(crate) fn split(sealed: &[u8]) -> Option<(u64, &[u8], &[u8; TAG_LEN])> {
    let (counter, rest) = sealed.split_first_chunk::<COUNTER_LEN>()?;
    let (body, tag) = rest.split_last_chunk::<TAG_LEN>()?;
    Some((u64::from_be_bytes(*counter), body, tag))
}

/// Bytes of the secret in a piece of `len` bytes.
pub(super) fn secret_len(len: u64) -> u64 {
    len.saturating_sub(OVERHEAD as u64)
}

/// What a piece is bound to.
fn binding(site: &SiteId, kek: KekId, counter: u64, part: Part, row: &[u8]) -> Vec<u8> {
    let (label, site) = (Domain::StoreRow.label(), site.as_str().as_bytes());
    let mut out = Vec::with_capacity(label.len() + 1 + site.len() + 17 + row.len());
    out.extend_from_slice(label);
    out.push(u8::try_from(site.len()).expect("a site's id has at most 32 bytes"));
    out.extend_from_slice(site);
    out.extend_from_slice(&kek.to_be_bytes());
    out.extend_from_slice(&counter.to_be_bytes());
    out.push(part as u8);
    out.extend_from_slice(row);
    out
}

const COUNTER_LEN: usize = 8;
/// Bytes that sealing adds to a piece.
pub(super) const OVERHEAD: usize = COUNTER_LEN + TAG_LEN;
const KEK_CONTEXT: &[u8] = b"database kek";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_comes_apart_and_every_other_is_refused() {
        let mut piece = vec![0, 0, 0, 0, 0, 0, 1, 2, b'x'];
        piece.extend_from_slice(&[9; 16]);
        assert_eq!(split(&piece), Some((0x0102, &b"x"[..], &[9; 16])));
        assert_eq!(split(&piece[..24]), Some((0x0102, &b""[..], &[b'x', 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])));
        for len in 0..24 {
            assert_eq!(split(&piece[..len]), None, "cut to {len} bytes");
        }
        assert_eq!((secret_len(25), secret_len(3)), (1, 0));
    }

    #[test]
    fn bindings_of_neighbours_differ() {
        let site = |name: &str| SiteId::new(name).unwrap();
        let base = binding(&site("a"), 1, 2, Part::Value, b"row");
        for (name, other) in [
            ("site", binding(&site("b"), 1, 2, Part::Value, b"row")),
            ("KEK", binding(&site("a"), 2, 2, Part::Value, b"row")),
            ("counter", binding(&site("a"), 1, 3, Part::Value, b"row")),
            ("part", binding(&site("a"), 1, 2, Part::Secret, b"row")),
            ("row", binding(&site("a"), 1, 2, Part::Value, b"rov")),
        ] {
            assert_ne!(base, other, "{name}");
        }
    }
}
