//! Sealing and opening one chunk.

use crypto::aead::{AeadKey, NONCE_LEN, TAG_LEN};
use crypto::hash::{Sha256Value, sha256};

use crate::format::Piece;
use crate::keys::{Binding, KeySet, chunk_aad};

/// Every chunk has its own key, so one nonce serves all of them.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Which chunk it is, and what it needs to be sealed or opened.
#[derive(Clone, Copy)]
pub(crate) struct ChunkContext<'a> {
    pub(crate) keys: &'a KeySet,
    pub(crate) binding: &'a Binding,
    pub(crate) piece: &'a Piece,
    /// The piece's place among those with a key of their own.
    pub(crate) own: Option<usize>,
    pub(crate) index: u32,
}

impl ChunkContext<'_> {
    /// Seals in place and appends the tag; returns the digest of the sealed chunk.
    pub(crate) fn seal(&self, chunk: &mut Vec<u8>) -> Sha256Value {
        let tag = self.key().seal(NONCE, &chunk_aad(self.binding, self.piece, self.index), chunk);
        chunk.extend_from_slice(&tag);
        sha256(chunk)
    }

    /// Opens in place; the plaintext is the returned part. `None` if it is not the chunk that was published.
    ///
    /// The digest is checked too: every receiver knows the chunk key and could seal another chunk with it, but only
    /// the publisher signs digests.
    pub(crate) fn open<'b>(&self, sealed: &'b mut [u8], digest: &Sha256Value) -> Option<&'b mut [u8]> {
        if sha256(sealed) != *digest {
            return None;
        }
        let (body, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
        self.key().open(NONCE, &chunk_aad(self.binding, self.piece, self.index), body, *tag).ok()?;
        Some(body)
    }

    fn key(&self) -> AeadKey {
        AeadKey::new(&self.keys.chunk_key(self.binding, self.piece, self.own, self.index))
    }
}
