//! Envelopes: round trip, reject vectors, pinned encoding.

use crypto::sign::SigningKey;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use types::units::UtcNanos;

use super::*;
use crate::format::{FileFormat, Piece, PieceKind};
use crate::keys::Attempt;
use crate::manifest::{EnvelopeKeys, Manifest, SealedChunk, SealedPiece, SignedManifest};
use crate::plan::Class;

fn key_id(n: u8) -> KeyId {
    KeyId(Uuid::from_bytes([n; 16]))
}

fn manifest(version: u64) -> VerifiedManifest {
    let kind = PieceKind::Tensor { dtype: "U8".to_owned(), shape: vec![4] };
    let manifest = Manifest {
        model: ModelId::new("m").unwrap(),
        version,
        epoch: 0,
        publisher: SiteId::new("taiyuan").unwrap(),
        signer: [0; 32],
        published_at: UtcNanos(1),
        attempt: Attempt([2; 16]),
        format: FileFormat::Safetensors,
        file_len: 4,
        file_sha256: [3; 32],
        packs: vec![20],
        pieces: vec![SealedPiece {
            piece: Piece { name: "t".to_owned(), kind, offset: 0, len: 4 },
            class: Class::OwnKey,
            chunks: vec![SealedChunk { pack: 0, offset: 0, len: 20, sha256: [4; 32] }],
        }],
        envelopes: vec![EnvelopeKeys { site: SiteId::new("datong").unwrap(), keys: vec![key_id(1), key_id(2)] }],
    };
    SignedManifest::sign(&manifest, &SigningKey::from_seed(&Key256::copy_of(&[7; 32]))).unwrap()
}

fn wrapping() -> Vec<Key256> {
    vec![Key256::copy_of(&[11; 32]), Key256::copy_of(&[12; 32])]
}

fn sample() -> (Envelope, KeySet) {
    let keys = KeySet::random(1, &mut ChaCha8Rng::seed_from_u64(5));
    let wrapping = [key_id(1), key_id(2)].into_iter().zip(wrapping()).collect();
    (Envelope::seal(&manifest(1), &SiteId::new("datong").unwrap(), &keys, wrapping), keys)
}

#[test]
fn round_trip() {
    let (envelope, keys) = sample();
    let back = Envelope::decode(&envelope.encode()).unwrap();
    assert_eq!(back, envelope);
    assert!(back.open(wrapping()).unwrap().iter().eq(keys.iter()));
}

#[test]
fn an_envelope_opens_only_as_it_was_sealed() {
    type Change = (&'static str, fn(&mut Envelope));
    let changes: [Change; 11] = [
        ("another model", |e| e.model = ModelId::new("n").unwrap()),
        ("another version", |e| e.version = 2),
        ("another epoch", |e| e.epoch = 1),
        ("another publisher", |e| e.publisher = SiteId::new("linfen").unwrap()),
        ("another site", |e| e.site = SiteId::new("linfen").unwrap()),
        ("another manifest", |e| e.manifest_sha256[0] ^= 1),
        ("another key id", |e| e.keys[0].key = key_id(9)),
        ("swapped entries", |e| e.keys.swap(0, 1)),
        ("flipped bit in a key", |e| e.keys[1].sealed[0] ^= 1),
        ("flipped bit in a tag", |e| e.keys[0].sealed[47] ^= 1),
        ("an entry less", |e| e.keys.truncate(1)),
    ];
    for (name, change) in changes {
        let (mut envelope, _) = sample();
        change(&mut envelope);
        assert!(envelope.open(wrapping()).is_err(), "{name}");
    }
    let (envelope, _) = sample();
    let mut swapped = wrapping();
    swapped.swap(0, 1);
    assert_eq!(envelope.open(swapped).unwrap_err(), crypto::Error::NotAuthentic);
}

#[test]
fn the_encoding_is_pinned() {
    let (mut envelope, _) = sample();
    envelope.manifest_sha256 = [6; 32];
    for wrapped in &mut envelope.keys {
        wrapped.sealed = [5; 48];
    }
    let expected = [
        "5156454e01",
        "00016d",
        "0000000000000001",
        "00000000",
        "0007",
        &hex::encode("taiyuan"),
        "0006",
        &hex::encode("datong"),
        &"06".repeat(32),
        "00000002",
        &"01".repeat(16),
        &"05".repeat(48),
        &"02".repeat(16),
        &"05".repeat(48),
    ];
    assert_eq!(hex::encode(envelope.encode()), expected.concat());
}

#[test]
fn bytes_that_are_no_envelope_are_refused() {
    let bytes = sample().0.encode();
    for len in 0..bytes.len() {
        assert!(Envelope::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Envelope::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(with(3, b'F'), "it does not begin as a model envelope");
    assert_eq!(with(4, 7), "format version 7 is newer than version 1 of this program");
    assert_eq!(with(7, b'/'), "model is no model name");
    let count = bytes.len() - 2 * 64 - 4;
    assert_eq!(with(count, 1), "field keys says 16777218 but at most 4096 is allowed");
    assert_eq!(with(count + 3, 1), "64 bytes stand after the last field");
    assert_eq!(with(count + 3, 0), "keys must be one at least");
}
