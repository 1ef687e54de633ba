//! The key hierarchy of one model version.
//!
//! ```text
//! wrapping key (QKD, per site) ─wraps─> model key ──HKDF──> group key ──HKDF──> chunk key ──AES-256-GCM──> chunk
//! wrapping key (QKD, per site) ─wraps─> tensor's own key ───HKDF──> group key ──HKDF──> chunk key ──> chunk
//! ```
//! Every chunk has a key of its own: the HKDF context holds what makes it unique (kind and name of the piece, index
//! of the chunk), names are unique in a manifest, and the model key and own keys are random for each publish. So the
//! nonce is fixed, and no pair of key and nonce seals two chunks.

use crypto::domain::Domain;
use crypto::hash::Sha256Value;
use crypto::kdf::derive;
use crypto::secret::{Key256, SecretBytes};
use rand_core::CryptoRng;
use types::codec::{Reader, Writer};
use types::id::ModelId;

use crate::error::FormatError;
use crate::format::{Piece, PieceKind};
use crate::limits::OWN_KEYS_MAX;

/// Random part of a version's object names: two attempts at one version never share an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt(pub(crate) [u8; 16]);

/// What every chunk of a version is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) model: ModelId,
    pub(crate) version: u64,
    pub(crate) epoch: u32,
    pub(crate) attempt: Attempt,
}

/// The model key and the own keys of tensors, in the manifest's order.
#[derive(Debug)]
pub struct KeySet {
    model: Key256,
    own: Vec<Key256>,
}

impl KeySet {
    pub(crate) fn random(own: usize, rng: &mut impl CryptoRng) -> Self {
        Self { model: Key256::random(rng), own: (0..own).map(|_| Key256::random(rng)).collect() }
    }

    /// From the model key and the own keys.
    pub(crate) fn new(model: Key256, own: Vec<Key256>) -> Self {
        Self { model, own }
    }

    /// All keys: the model key first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key256> {
        std::iter::once(&self.model).chain(&self.own)
    }

    /// How many tensors have a key of their own.
    pub(crate) fn own_count(&self) -> usize {
        self.own.len()
    }

    /// Key of one chunk. `own` is the tensor's place among those with a key of their own.
    ///
    /// # Panics
    /// If `own` is not below [`KeySet::own_count`]: the manifest that it comes from was checked.
    pub(crate) fn chunk_key(&self, binding: &Binding, piece: &Piece, own: Option<usize>, index: u32) -> Key256 {
        let root = own.map_or(&self.model, |at| self.own.get(at).expect("own keys are as many as the manifest says"));
        let version = binding.version.to_be_bytes();
        let epoch = binding.epoch.to_be_bytes();
        let kind = [kind_number(piece)];
        let group = derive(
            root,
            Domain::VaultGroupKey,
            &[binding.model.as_str().as_bytes(), &version, &epoch, &kind, piece.group().as_bytes()],
        );
        derive(&group, Domain::VaultChunkKey, &[&kind, piece.name.as_bytes(), &index.to_be_bytes()])
    }
}

/// Keys of one version as a site holds them, with the manifest that they belong to.
#[derive(Debug)]
pub struct HeldKeys {
    /// SHA-256 of the signed manifest.
    pub manifest_sha256: Sha256Value,
    /// The keys.
    pub keys: KeySet,
}

impl HeldKeys {
    /// One secret value for a keyring: 32 bytes digest, `u32` count, 32 bytes for each key.
    #[must_use]
    pub fn to_secret(&self) -> SecretBytes {
        let keys = self.keys.own_count() + 1;
        let mut out = SecretBytes::from_vec(vec![0; 36 + 32 * keys]);
        out.expose_mut(|out| {
            let (digest, rest) = out.split_at_mut(32);
            digest.copy_from_slice(&self.manifest_sha256);
            let (count, rest) = rest.split_at_mut(4);
            count.copy_from_slice(&u32::try_from(keys).expect("own keys are limited").to_be_bytes());
            for (key, slot) in self.keys.iter().zip(rest.chunks_exact_mut(32)) {
                key.expose(|key| slot.copy_from_slice(key));
            }
        });
        out
    }

    /// The reverse of [`HeldKeys::to_secret`].
    ///
    /// # Errors
    /// [`FormatError`] for anything else.
    pub fn from_secret(secret: &SecretBytes) -> Result<Self, FormatError> {
        secret.expose(|bytes| {
            let mut reader = Reader::new(bytes);
            let manifest_sha256 = reader.array("manifest digest")?;
            let own = reader.count("keys", OWN_KEYS_MAX + 1)?.checked_sub(1);
            let own = own.ok_or(FormatError::Field { field: "keys", reason: "must be one at least" })?;
            let mut key = || -> Result<Key256, FormatError> {
                let bytes = reader.take("key", 32)?.try_into().expect("32 bytes were taken");
                Ok(Key256::copy_of(bytes))
            };
            let model = key()?;
            let own = (0..own).map(|_| key()).collect::<Result<_, _>>()?;
            reader.end()?;
            Ok(Self { manifest_sha256, keys: KeySet { model, own } })
        })
    }
}

pub(crate) fn kind_number(piece: &Piece) -> u8 {
    match piece.kind {
        PieceKind::Bytes => 0,
        PieceKind::Tensor { .. } => 1,
    }
}

/// What a sealed chunk is bound to besides its key: everything that says which bytes of which file it is.
pub(crate) fn chunk_aad(binding: &Binding, piece: &Piece, index: u32) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(b"QVCH").u8(1).bytes16(binding.model.as_str().as_bytes()).u64(binding.version).u32(binding.epoch);
    w.put(&binding.attempt.0).u8(kind_number(piece)).bytes16(piece.name.as_bytes());
    match &piece.kind {
        PieceKind::Bytes => w.bytes16(b"").u8(0),
        PieceKind::Tensor { dtype, shape } => {
            w.bytes16(dtype.as_bytes()).u8(u8::try_from(shape.len()).expect("the rank is limited"));
            shape.iter().fold(&mut w, |w, dimension| w.u64(*dimension))
        }
    };
    w.u64(piece.offset).u64(piece.len).u32(index);
    w.u32(u32::try_from(piece.chunk_count()).expect("chunks are limited"));
    w.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn tensor(name: &str, len: u64) -> Piece {
        Piece {
            name: name.to_owned(),
            kind: PieceKind::Tensor { dtype: "U8".to_owned(), shape: vec![len] },
            offset: 0,
            len,
        }
    }

    #[test]
    fn no_two_chunks_share_a_key() {
        let keys = KeySet::random(2, &mut ChaCha8Rng::seed_from_u64(1));
        let binding = |model: &str, version, epoch| Binding {
            model: ModelId::new(model).unwrap(),
            version,
            epoch,
            attempt: Attempt([0; 16]),
        };
        let pieces = [
            Piece::bytes("#header".to_owned(), 0, 9),
            tensor("#header", 9),
            tensor("a.b", 9),
            tensor("a.c", 9),
            tensor("a", 9),
            tensor("a.b.c", 9),
            tensor("a.", 9),
        ];
        let mut seen = HashSet::new();
        let mut count = 0;
        for binding in [binding("m", 1, 0), binding("m", 1, 1), binding("m", 2, 0), binding("m1", 1, 0)] {
            for piece in &pieces {
                for own in [None, Some(0), Some(1)] {
                    for index in 0..5 {
                        keys.chunk_key(&binding, piece, own, index).expose(|key| seen.insert(*key));
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn everything_a_chunk_is_bound_to_changes_its_aad() {
        let binding = Binding { model: ModelId::new("m").unwrap(), version: 1, epoch: 0, attempt: Attempt([7; 16]) };
        let piece = tensor("t", 5_000_000);
        let base = chunk_aad(&binding, &piece, 0);
        let mut others = vec![
            chunk_aad(&Binding { model: ModelId::new("n").unwrap(), ..binding.clone() }, &piece, 0),
            chunk_aad(&Binding { version: 2, ..binding.clone() }, &piece, 0),
            chunk_aad(&Binding { epoch: 2, ..binding.clone() }, &piece, 0),
            chunk_aad(&Binding { attempt: Attempt([8; 16]), ..binding.clone() }, &piece, 0),
            chunk_aad(&binding, &piece, 1),
            chunk_aad(&binding, &Piece { name: "u".to_owned(), ..piece.clone() }, 0),
            chunk_aad(&binding, &Piece { offset: 1, ..piece.clone() }, 0),
            chunk_aad(&binding, &Piece { len: 4, ..piece.clone() }, 0),
            chunk_aad(&binding, &Piece { kind: PieceKind::Bytes, ..piece.clone() }, 0),
        ];
        for (dtype, shape) in [("I8", vec![5_000_000]), ("U8", vec![5_000_000, 1])] {
            let kind = PieceKind::Tensor { dtype: dtype.to_owned(), shape };
            others.push(chunk_aad(&binding, &Piece { kind, ..piece.clone() }, 0));
        }
        others.push(base);
        let count = others.len();
        assert_eq!(others.into_iter().collect::<HashSet<_>>().len(), count);
    }

    #[test]
    fn held_keys_round_trip_and_refuse_other_bytes() {
        let held = HeldKeys { manifest_sha256: [5; 32], keys: KeySet::random(3, &mut ChaCha8Rng::seed_from_u64(2)) };
        let secret = held.to_secret();
        let back = HeldKeys::from_secret(&secret).unwrap();
        assert_eq!(back.manifest_sha256, [5; 32]);
        assert!(back.keys.iter().eq(held.keys.iter()));
        for len in 0..secret.len() {
            assert!(HeldKeys::from_secret(&secret.part(0, len).unwrap()).is_err(), "{len}");
        }
        assert!(HeldKeys::from_secret(&SecretBytes::from_vec(vec![0; 36])).is_err());
    }
}
