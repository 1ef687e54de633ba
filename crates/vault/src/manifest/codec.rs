//! The manifest's bytes. One manifest has one encoding: what decodes encodes to the same bytes again.

use std::collections::HashSet;

use types::codec::{CodecError, Reader, Writer};
use types::id::{KeyId, ModelId, SiteId, Uuid};
use types::units::UtcNanos;

use super::{EnvelopeKeys, Manifest, SealedChunk, SealedPiece};
use crate::error::FormatError;
use crate::format::{FileFormat, Piece, PieceKind};
use crate::keys::{Attempt, kind_number};
use crate::layout::{TAG_BYTES, cut};
use crate::limits::{
    CHUNK_LEN, CHUNKS_MAX, KEY_IDS_MAX, MANIFEST_MAX, NAME_MAX, OWN_KEYS_MAX, PACK_MAX, PIECES_MAX, RANK_MAX, SITES_MAX,
};
use crate::plan::Class;

const MAGIC: &[u8; 4] = b"QVMF";
const VERSION: u8 = 1;
/// AES-256-GCM with a key for each chunk.
const CIPHER: u8 = 1;
/// Every class of version 1 is computationally secure.
const COMPUTATIONAL: u8 = 1;

const fn wrong(field: &'static str, reason: &'static str) -> FormatError {
    FormatError::Field { field, reason }
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(MAGIC).u8(VERSION).u8(CIPHER).u8(manifest.format as u8);
    w.bytes16(manifest.model.as_str().as_bytes()).u64(manifest.version).u32(manifest.epoch);
    w.bytes16(manifest.publisher.as_str().as_bytes()).put(&manifest.signer).u64(manifest.published_at.0);
    w.put(&manifest.attempt.0).u64(manifest.file_len).put(&manifest.file_sha256).u32(CHUNK_LEN);
    w.count(manifest.packs.len());
    for pack in &manifest.packs {
        w.u32(*pack);
    }
    w.count(manifest.pieces.len());
    for sealed in &manifest.pieces {
        let piece = &sealed.piece;
        w.u8(kind_number(piece)).bytes16(piece.name.as_bytes());
        if let PieceKind::Tensor { dtype, shape } = &piece.kind {
            w.bytes16(dtype.as_bytes()).u8(u8::try_from(shape.len()).expect("the rank is limited"));
            for dimension in shape {
                w.u64(*dimension);
            }
        }
        w.u64(piece.offset).u64(piece.len).u8(sealed.class as u8).u8(COMPUTATIONAL).count(sealed.chunks.len());
        for chunk in &sealed.chunks {
            w.u32(chunk.pack).u32(chunk.offset).u32(chunk.len).put(&chunk.sha256);
        }
    }
    w.count(manifest.envelopes.len());
    for envelope in &manifest.envelopes {
        w.bytes16(envelope.site.as_str().as_bytes()).count(envelope.keys.len());
        for key in &envelope.keys {
            w.put(key.0.as_bytes());
        }
    }
    w.finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
    if bytes.len() > MANIFEST_MAX {
        return Err(CodecError::TooLong { field: "manifest", len: bytes.len(), max: MANIFEST_MAX }.into());
    }
    let mut r = Reader::new(bytes);
    if r.take("magic", 4)? != MAGIC {
        return Err(FormatError::Magic { what: "model manifest" });
    }
    let version = r.u8("format version")?;
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    if r.u8("cipher")? != CIPHER {
        return Err(wrong("cipher", "is not known"));
    }
    let format = match r.u8("file format")? {
        0 => FileFormat::Opaque,
        1 => FileFormat::Safetensors,
        _ => return Err(wrong("file format", "is not known")),
    };
    let model = ModelId::new(r.text16("model", 64)?).map_err(|_| wrong("model", "is no model name"))?;
    let version = r.u64("version")?;
    if version == 0 {
        return Err(wrong("version", "counts from 1"));
    }
    let epoch = r.u32("epoch")?;
    let publisher = site(&mut r, "publisher")?;
    let signer = r.array("signer")?;
    let published_at = UtcNanos(r.u64("published at")?);
    let attempt = Attempt(r.array("attempt")?);
    let file_len = r.u64("file length")?;
    let file_sha256 = r.array("file digest")?;
    if r.u32("chunk length")? != CHUNK_LEN {
        return Err(wrong("chunk length", "is not that of this format version"));
    }
    let packs = packs(&mut r)?;
    let pieces = pieces(&mut r, file_len)?;
    check_tiling(&packs, &pieces)?;
    let own = pieces.iter().filter(|sealed| sealed.class == Class::OwnKey).count();
    if own > OWN_KEYS_MAX {
        return Err(wrong("class", "gives more tensors a key of their own than allowed"));
    }
    let envelopes = envelopes(&mut r, own + 1)?;
    r.end()?;
    Ok(Manifest {
        model,
        version,
        epoch,
        publisher,
        signer,
        published_at,
        attempt,
        format,
        file_len,
        file_sha256,
        packs,
        pieces,
        envelopes,
    })
}

fn site(r: &mut Reader<'_>, field: &'static str) -> Result<SiteId, FormatError> {
    SiteId::new(r.text16(field, 32)?).map_err(|_| wrong(field, "is no site id"))
}

fn packs(r: &mut Reader<'_>) -> Result<Vec<u32>, FormatError> {
    let count = r.count("packs", CHUNKS_MAX)?;
    let mut packs = Vec::with_capacity(count.min(r.left() / 4));
    for _ in 0..count {
        let len = r.u32("pack length")?;
        if !(1..=PACK_MAX).contains(&len) {
            return Err(wrong("pack length", "is not between 1 and 64 MiB"));
        }
        packs.push(len);
    }
    Ok(packs)
}

fn pieces(r: &mut Reader<'_>, file_len: u64) -> Result<Vec<SealedPiece>, FormatError> {
    let count = r.count("pieces", PIECES_MAX)?;
    let mut pieces: Vec<SealedPiece> = Vec::with_capacity(count.min(r.left() / 16));
    let (mut end, mut chunks) = (0_u64, 0);
    let mut names = HashSet::new();
    for _ in 0..count {
        let sealed = piece(r)?;
        if sealed.piece.offset != end {
            return Err(wrong("piece offset", "leaves a hole or overlaps the piece before"));
        }
        end = end.checked_add(sealed.piece.len).ok_or(wrong("piece length", "passes 64 bits"))?;
        chunks += sealed.chunks.len();
        if chunks > CHUNKS_MAX {
            return Err(wrong("chunks", "are more than allowed"));
        }
        if !names.insert((sealed.piece.is_tensor(), sealed.piece.name.clone())) {
            return Err(wrong("piece name", "stands there twice"));
        }
        pieces.push(sealed);
    }
    if end != file_len {
        return Err(wrong("pieces", "do not add up to the file's length"));
    }
    Ok(pieces)
}

fn piece(r: &mut Reader<'_>) -> Result<SealedPiece, FormatError> {
    let kind = r.u8("piece kind")?;
    let name = r.text16("piece name", NAME_MAX)?.to_owned();
    let kind = match kind {
        0 => PieceKind::Bytes,
        1 => {
            let dtype = r.text16("dtype", 16)?.to_owned();
            let rank = usize::from(r.u8("rank")?);
            if rank > RANK_MAX {
                return Err(CodecError::TooLong { field: "rank", len: rank, max: RANK_MAX }.into());
            }
            let shape = (0..rank).map(|_| r.u64("dimension")).collect::<Result<_, _>>()?;
            PieceKind::Tensor { dtype, shape }
        }
        _ => return Err(wrong("piece kind", "is not known")),
    };
    let (offset, len) = (r.u64("piece offset")?, r.u64("piece length")?);
    if offset.checked_add(len).is_none() {
        return Err(wrong("piece length", "passes 64 bits"));
    }
    let piece = Piece { name, kind, offset, len };
    let class = Class::from_number(r.u8("class")?).ok_or(wrong("class", "is not known"))?;
    if class == Class::OwnKey && !piece.is_tensor() {
        return Err(wrong("class", "gives bytes that are no tensor a key of their own"));
    }
    if r.u8("security")? != COMPUTATIONAL {
        return Err(wrong("security", "is not what the class gives"));
    }
    let count = r.count("chunks", CHUNKS_MAX)?;
    if count as u64 != piece.chunk_count() {
        return Err(wrong("chunks", "are not as many as the piece has"));
    }
    let mut chunks = Vec::with_capacity(count.min(r.left() / 44));
    for (_, len) in cut(&piece) {
        let chunk = SealedChunk {
            pack: r.u32("chunk pack")?,
            offset: r.u32("chunk offset")?,
            len: r.u32("chunk length")?,
            sha256: r.array("chunk digest")?,
        };
        if chunk.len != len + TAG_BYTES {
            return Err(wrong("chunk length", "is not that of its plaintext and a tag"));
        }
        chunks.push(chunk);
    }
    Ok(SealedPiece { piece, class, chunks })
}

/// The chunks fill the packs one after the other, without hole or overlap.
fn check_tiling(packs: &[u32], pieces: &[SealedPiece]) -> Result<(), FormatError> {
    let mut packs = packs.iter().enumerate();
    let mut current: Option<(usize, u32)> = None;
    let mut filled = 0;
    for chunk in pieces.iter().flat_map(|sealed| &sealed.chunks) {
        if current.is_none_or(|(_, len)| filled == len) {
            current = packs.next().map(|(at, len)| (at, *len));
            filled = 0;
        }
        let (at, len) = current.ok_or(wrong("chunk pack", "is not among the packs"))?;
        if chunk.pack as usize != at || chunk.offset != filled {
            return Err(wrong("chunk offset", "is not where the chunk before it ends"));
        }
        filled = filled
            .checked_add(chunk.len)
            .filter(|filled| *filled <= len)
            .ok_or(wrong("chunk length", "passes the end of its pack"))?;
    }
    if current.is_some_and(|(_, len)| filled != len) || packs.next().is_some() {
        return Err(wrong("pack length", "is more than its chunks fill"));
    }
    Ok(())
}

fn envelopes(r: &mut Reader<'_>, keys_each: usize) -> Result<Vec<EnvelopeKeys>, FormatError> {
    let count = r.count("sites", SITES_MAX)?;
    if count * keys_each > KEY_IDS_MAX {
        return Err(wrong("sites", "have more key ids together than allowed"));
    }
    let mut envelopes: Vec<EnvelopeKeys> = Vec::with_capacity(count.min(r.left() / 8));
    let mut seen = HashSet::new();
    for _ in 0..count {
        let site = site(r, "site")?;
        if envelopes.last().is_some_and(|before| before.site >= site) {
            return Err(wrong("site", "is not after the site before it"));
        }
        if r.count("key ids", OWN_KEYS_MAX + 1)? != keys_each {
            return Err(wrong("key ids", "are not one for the model and one for each own key"));
        }
        let mut keys = Vec::with_capacity(keys_each.min(r.left() / 16));
        for _ in 0..keys_each {
            let key = KeyId(Uuid::from_bytes(r.array("key id")?));
            if !seen.insert(key) {
                return Err(wrong("key id", "wraps two things"));
            }
            keys.push(key);
        }
        envelopes.push(EnvelopeKeys { site, keys });
    }
    Ok(envelopes)
}
