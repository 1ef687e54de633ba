//! Manifests: round trip, reject vectors, pinned encoding.

use crypto::secret::Key256;
use proptest::prelude::*;
use types::id::Uuid;

use super::*;
use crate::error::FormatError;
use crate::format::PieceKind;

fn tensor(name: &str, shape: &[u64], offset: u64) -> Piece {
    let kind = PieceKind::Tensor { dtype: "U8".to_owned(), shape: shape.to_vec() };
    Piece { name: name.to_owned(), kind, offset, len: shape.iter().product() }
}

fn key(n: u8) -> KeyId {
    KeyId(Uuid::from_bytes([n; 16]))
}

/// Header, an empty tensor, a tensor of two chunks with its own key, a small tensor; two packs, two sites.
fn sample() -> Manifest {
    let sealed = |piece: Piece, class, chunks: &[(u32, u32, u32)]| SealedPiece {
        piece,
        class,
        chunks: chunks
            .iter()
            .map(|&(pack, offset, len)| SealedChunk { pack, offset, len, sha256: [u8::try_from(pack).unwrap(); 32] })
            .collect(),
    };
    let big = 4 * 1024 * 1024 + 100;
    Manifest {
        model: ModelId::new("grid-model").unwrap(),
        version: 3,
        epoch: 0,
        publisher: SiteId::new("taiyuan").unwrap(),
        signer: [9; 32],
        published_at: UtcNanos(1_700_000_000_000_000_000),
        attempt: Attempt([1; 16]),
        format: FileFormat::Safetensors,
        file_len: 10 + big + 7,
        file_sha256: [8; 32],
        packs: vec![26 + 4 * 1024 * 1024 + 16, 116 + 23],
        pieces: vec![
            sealed(Piece::bytes("#header".to_owned(), 0, 10), Class::Derived, &[(0, 0, 26)]),
            sealed(tensor("empty", &[0, 4], 10), Class::Derived, &[]),
            sealed(tensor("a.embed", &[big], 10), Class::OwnKey, &[(0, 26, 4 * 1024 * 1024 + 16), (1, 0, 116)]),
            sealed(tensor("a.b", &[7], 10 + big), Class::Derived, &[(1, 116, 23)]),
        ],
        envelopes: vec![
            EnvelopeKeys { site: SiteId::new("datong").unwrap(), keys: vec![key(1), key(2)] },
            EnvelopeKeys { site: SiteId::new("linfen").unwrap(), keys: vec![key(3), key(4)] },
        ],
    }
}

fn refusal(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = sample();
    change(&mut manifest);
    codec::decode(&codec::encode(&manifest)).unwrap_err().to_string()
}

#[test]
fn the_encoding_is_pinned() {
    let bytes = codec::encode(&sample());
    assert_eq!(codec::decode(&bytes).unwrap(), sample());
    assert_eq!(bytes.len(), 593);
    assert_eq!(hex::encode(sha256(&bytes)), "d6c8535d4a41120f2d760621767931772f2c72653f404636222efa8cff5196e6");
}

#[test]
fn every_contradiction_is_refused_by_name() {
    for (refused, expected) in [
        (refusal(|m| m.version = 0), "version counts from 1"),
        (refusal(|m| m.file_len += 1), "pieces do not add up to the file's length"),
        (refusal(|m| m.pieces[1].piece.offset = 9), "piece offset leaves a hole or overlaps the piece before"),
        (refusal(|m| m.pieces[3].piece.offset += 1), "piece offset leaves a hole or overlaps the piece before"),
        (refusal(|m| m.pieces[3].piece.len = u64::MAX), "piece length passes 64 bits"),
        (refusal(|m| m.pieces[3].piece.name = "a.embed".to_owned()), "piece name stands there twice"),
        (refusal(|m| m.pieces[0].class = Class::OwnKey), "class gives bytes that are no tensor a key of their own"),
        (refusal(|m| m.pieces[2].class = Class::Derived), "key ids are not one for the model and one for each own key"),
        (refusal(|m| m.pieces.swap(2, 3)), "piece offset leaves a hole or overlaps the piece before"),
        (refusal(|m| m.pieces[2].chunks.truncate(1)), "chunks are not as many as the piece has"),
        (refusal(|m| m.pieces[2].chunks.swap(0, 1)), "chunk length is not that of its plaintext and a tag"),
        (refusal(|m| m.pieces[3].chunks[0].len -= 1), "chunk length is not that of its plaintext and a tag"),
        (refusal(|m| m.pieces[3].chunks[0].offset = 100), "chunk offset is not where the chunk before it ends"),
        (refusal(|m| m.pieces[3].chunks[0].pack = 0), "chunk offset is not where the chunk before it ends"),
        (refusal(|m| m.pieces[3].chunks[0].pack = 2), "chunk offset is not where the chunk before it ends"),
        (refusal(|m| m.packs.truncate(1)), "chunk pack is not among the packs"),
        (refusal(|m| m.packs.push(5)), "pack length is more than its chunks fill"),
        (refusal(|m| m.packs[1] += 1), "pack length is more than its chunks fill"),
        (refusal(|m| m.packs[1] -= 1), "chunk length passes the end of its pack"),
        (refusal(|m| m.packs[1] = 0), "pack length is not between 1 and 64 MiB"),
        (refusal(|m| m.packs[1] = u32::MAX), "pack length is not between 1 and 64 MiB"),
        (refusal(|m| m.envelopes.swap(0, 1)), "site is not after the site before it"),
        (refusal(|m| m.envelopes[1].site = m.envelopes[0].site.clone()), "site is not after the site before it"),
        (refusal(|m| m.envelopes[0].keys.truncate(1)), "key ids are not one for the model and one for each own key"),
        (refusal(|m| m.envelopes[1].keys[0] = key(2)), "key id wraps two things"),
    ] {
        assert_eq!(refused, expected);
    }
}

#[test]
fn bytes_of_another_kind_are_refused_by_name() {
    let bytes = codec::encode(&sample());
    let patched = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        codec::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(patched(0, b'X'), "it does not begin as a model manifest");
    assert_eq!(patched(4, 2), "format version 2 is newer than version 1 of this program");
    assert_eq!(patched(5, 0), "cipher is not known");
    assert_eq!(patched(6, 9), "file format is not known");
    assert_eq!(patched(9, b'/'), "model is no model name");
    for len in 0..bytes.len() {
        assert!(codec::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(codec::decode(&longer).unwrap_err().to_string(), "1 bytes stand after the last field");
    assert!(matches!(SignedManifest::parse(vec![0; 10]), Err(FormatError::Field { field: "signature", .. })));
}

#[test]
fn a_signature_covers_every_byte_and_one_key() {
    let signing = SigningKey::from_seed(&Key256::copy_of(&[1; 32]));
    let other = SigningKey::from_seed(&Key256::copy_of(&[2; 32]));
    let verified = SignedManifest::sign(&sample(), &signing).unwrap();
    let parse = |bytes: &[u8]| SignedManifest::parse(bytes.to_vec());
    assert_eq!(
        parse(verified.as_bytes()).unwrap().verify(signing.verifying_key()).unwrap().sha256(),
        verified.sha256()
    );
    assert!(parse(verified.as_bytes()).unwrap().verify(other.verifying_key()).is_err());
    // Bytes that decode to another manifest: in the signer, the file's digest, a chunk's digest, a key id, the signature.
    let len = verified.as_bytes().len();
    for at in [40, 100, len - SIGNATURE_LEN - 1, len - SIGNATURE_LEN, len - 1] {
        let mut bent = verified.as_bytes().to_vec();
        bent[at] ^= 1;
        if let Ok(signed) = parse(&bent) {
            assert!(signed.verify(signing.verifying_key()).is_err(), "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn one_flipped_bit_is_refused_or_decodes_to_something_else(at in 0_usize..593, bit in 0_u8..8) {
        let mut bytes = codec::encode(&sample());
        bytes[at] ^= 1 << bit;
        if let Ok(manifest) = codec::decode(&bytes) {
            prop_assert_ne!(&manifest, &sample());
            prop_assert_eq!(codec::encode(&manifest), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..593, data_len in 0_u64..64) {
        let mut manifest = codec::encode(&sample());
        manifest.truncate(cut);
        manifest.extend_from_slice(&bytes);
        manifest.extend_from_slice(&[0; SIGNATURE_LEN]);
        crate::fuzzing::manifest(&manifest);
        crate::fuzzing::envelope(&bytes);
        crate::fuzzing::held_keys(&bytes);
        crate::fuzzing::header(&bytes, data_len);
    }

    #[test]
    fn no_json_makes_the_header_parser_panic(
        start in any::<u64>(), end in any::<u64>(), dimension in any::<u64>(), name in ".{0,8}", dtype in "[A-Z0-9]{1,4}", data_len in any::<u32>(),
    ) {
        let name = serde_json::to_string(&name).unwrap();
        let json = format!(r#"{{{name}:{{"dtype":"{dtype}","shape":[{dimension},2],"data_offsets":[{start},{end}]}}}}"#);
        crate::fuzzing::header(json.as_bytes(), u64::from(data_len));
    }
}
