//! Where each chunk of a file goes: which pack object, which bytes of it. Chunks never cross a tensor's end.

use std::ops::Range;

use crypto::aead::TAG_LEN;

use crate::error::{Error, Result};
use crate::format::Piece;
use crate::limits::{CHUNK_LEN, CHUNKS_MAX, PACK_CHUNKS, PACK_PLAIN};

/// Bytes that sealing adds to a chunk.
#[expect(clippy::cast_possible_truncation, reason = "a tag has 16 bytes")]
pub(crate) const TAG_BYTES: u32 = TAG_LEN as u32;

/// Where one chunk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which piece of the file.
    pub(crate) piece: usize,
    /// Which chunk of the piece.
    pub(crate) index: u32,
    /// Its first byte in the file.
    pub(crate) file_offset: u64,
    /// Its plaintext bytes.
    pub(crate) len: u32,
    /// Which pack object.
    pub(crate) pack: u32,
    /// First byte of the sealed chunk in the pack.
    pub(crate) pack_offset: u32,
}

impl Place {
    /// Bytes of the sealed chunk.
    pub(crate) fn sealed_len(&self) -> u32 {
        self.len + TAG_BYTES
    }

    /// The sealed chunk's bytes in its pack.
    pub(crate) fn pack_range(&self) -> Range<u64> {
        u64::from(self.pack_offset)..u64::from(self.pack_offset) + u64::from(self.sealed_len())
    }
}

/// Places of all chunks, in the file's order, and the length of each pack.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    pub(crate) packs: Vec<u32>,
}

impl Layout {
    /// The layout that a publisher gives to a row of pieces.
    pub(crate) fn of(pieces: &[Piece]) -> Result<Self> {
        let chunks: u64 = pieces.iter().map(Piece::chunk_count).sum();
        if chunks > CHUNKS_MAX as u64 {
            return Err(Error::Limit { what: "the number of chunks", found: chunks, max: CHUNKS_MAX as u64 });
        }
        let mut layout = Self { places: Vec::new(), packs: Vec::new() };
        let (mut plain, mut in_pack) = (0_u32, 0);
        for (at, piece) in pieces.iter().enumerate() {
            for (index, (file_offset, len)) in cut(piece).enumerate() {
                if layout.packs.is_empty() || plain + len > PACK_PLAIN || in_pack == PACK_CHUNKS {
                    layout.packs.push(0);
                    (plain, in_pack) = (0, 0);
                }
                let pack = layout.packs.len() - 1;
                let filled = layout.packs.last_mut().expect("a pack was just pushed");
                let place = Place {
                    piece: at,
                    index: u32::try_from(index).expect("chunks are limited"),
                    file_offset,
                    len,
                    pack: u32::try_from(pack).expect("chunks are limited, and so packs"),
                    pack_offset: *filled,
                };
                *filled += place.sealed_len();
                plain += len;
                in_pack += 1;
                layout.places.push(place);
            }
        }
        Ok(layout)
    }

    /// The chunks of each pack, in order.
    pub(crate) fn by_pack(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = vec![0..0; self.packs.len()];
        let mut start = 0;
        for (pack, range) in ranges.iter_mut().enumerate() {
            let rest = self.places.get(start..).unwrap_or_default();
            let count = rest.iter().take_while(|place| place.pack as usize == pack).count();
            *range = start..start + count;
            start += count;
        }
        ranges
    }
}

/// Offsets in the file and lengths of a piece's chunks.
pub(crate) fn cut(piece: &Piece) -> impl Iterator<Item = (u64, u32)> + use<> {
    let (start, end) = (piece.offset, piece.offset + piece.len);
    (0..piece.chunk_count()).map(move |index| {
        let offset = start + index * u64::from(CHUNK_LEN);
        (offset, u32::try_from((end - offset).min(u64::from(CHUNK_LEN))).expect("a chunk's length fits 32 bits"))
    })
}
