//! What both halves derive alike: the code, the frames, the place of every key bit.

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::code::{Code, Columns, below};
use super::design::COLUMNS;
use super::question::FrameSize;
use crate::bits::Bits;

/// Frames of a key in the places of a code.
pub(super) struct Plan {
    pub(super) code: Arc<Code>,
    pub(super) frames: usize,
    pub(super) frame_len: usize,
    key_len: usize,
    /// Place in the frame to position in its stretch of the key; column by column.
    positions: Vec<u32>,
}

impl Plan {
    /// For a key of this length; all frames share one permutation.
    pub(super) fn new(key_len: usize, size: FrameSize, rows: usize, seed: [u8; 32]) -> Self {
        let frames = frames(key_len, size);
        let frame_len = key_len.div_ceil(frames).max(1);
        let code = Code::shared(rows, lanes(frame_len));
        let mut positions: Vec<u32> =
            (0..frame_len).map(|index| u32::try_from(index).expect("a frame is below 2^20 bits")).collect();
        let mut rng = ChaCha20Rng::from_seed(seed);
        for last in (1..frame_len).rev() {
            positions.swap(last, below(&mut rng, last + 1));
        }
        Self { code, frames, frame_len, key_len, positions }
    }

    /// Bits of the key that frame `frame` holds; the places beyond are zeros known to both.
    pub(super) fn held(&self, frame: usize) -> usize {
        self.frame_len.min(self.key_len - (frame * self.frame_len).min(self.key_len))
    }

    /// The bits of a frame in their places.
    pub(super) fn columns(&self, key: &Bits, frame: usize) -> Columns {
        let stretch = key.window(frame * self.frame_len, self.frame_len);
        let mut columns = Columns::zeros(self.code.lanes);
        for (column, places) in self.by_column().enumerate() {
            for (lane, position) in places.iter().enumerate() {
                if stretch.get(*position as usize) {
                    columns.flip(column, lane);
                }
            }
        }
        columns
    }

    /// For each column the key positions of its first lanes; its other lanes are filled up.
    pub(super) fn by_column(&self) -> impl Iterator<Item = &[u32]> {
        (0..COLUMNS).map(|column| {
            let start = |column| column * self.frame_len / COLUMNS;
            &self.positions[start(column)..start(column + 1)]
        })
    }
}

/// Frames that a key is cut into.
pub(super) fn frames(key_len: usize, size: FrameSize) -> usize {
    key_len.div_ceil(size.bits_max()).max(1)
}

/// Lanes that hold a frame, rounded up to whole tiles of the decoder where that fills up little.
pub(super) fn lanes(frame_len: usize) -> usize {
    match frame_len.div_ceil(COLUMNS).max(1) {
        few @ ..=56 => few,
        57..=64 => 64,
        some @ 65..=1_024 => some.next_multiple_of(8),
        many => many.next_multiple_of(64),
    }
}
