//! What both halves derive alike: frames and permutations.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::bits::Bits;

/// Most bits in a frame, so that a position fits 16 bits.
pub const FRAME_MAX: usize = 1 << 16;

/// Passes over every frame. A pair of errors that passes 1 and 2 miss survives each later pass with probability
/// 1/2, and a pass that finds nothing costs one bit per frame.
pub const PASSES: usize = 20;

/// Frames of a key and the permutations of the passes, from a public seed.
pub(super) struct Plan {
    pub(super) frames: usize,
    pub(super) frame_len: usize,
    seed: [u8; 32],
    shuffles: Vec<Shuffle>,
}

/// The permutation of one pass.
pub(super) struct Shuffle {
    /// Position in the pass to position in the frame.
    to_frame: Vec<u16>,
    /// Position in the frame to position in the pass.
    to_pass: Vec<u16>,
}

impl Plan {
    pub(super) fn new(key_len: usize, seed: [u8; 32]) -> Self {
        let frames = key_len.div_ceil(FRAME_MAX);
        Self { frames, frame_len: key_len.div_ceil(frames), seed, shuffles: Vec::new() }
    }

    /// The key cut into frames.
    pub(super) fn cut(&self, key: &Bits) -> Vec<Bits> {
        (0..self.frames).map(|frame| key.window(frame * self.frame_len, self.frame_len)).collect()
    }

    /// The frames put together to a key of `len` bits.
    pub(super) fn join<'a>(&self, frames: impl Iterator<Item = &'a Bits>, len: usize) -> Bits {
        let mut key = Bits::with_capacity(len);
        for frame in frames {
            (0..self.frame_len.min(len - key.len())).for_each(|index| key.push(frame.get(index)));
        }
        key
    }

    /// The permutation of a pass, made on first use.
    pub(super) fn shuffle(&mut self, pass: usize) -> &Shuffle {
        while self.shuffles.len() <= pass {
            self.shuffles.push(Shuffle::new(self.shuffles.len(), self.frame_len, self.seed));
        }
        &self.shuffles[pass]
    }

    /// The permutation of a pass that was begun.
    pub(super) fn begun(&self, pass: usize) -> &Shuffle {
        &self.shuffles[pass]
    }
}

impl Shuffle {
    /// Fisher-Yates with ChaCha20, the pass number as its stream; pass 0 keeps the order.
    fn new(pass: usize, len: usize, seed: [u8; 32]) -> Self {
        assert!(len <= FRAME_MAX, "positions fit 16 bits");
        let mut to_frame: Vec<u16> = (0..len).map(narrow).collect();
        if pass > 0 {
            let mut rng = ChaCha20Rng::from_seed(seed);
            rng.set_stream(pass as u64);
            for last in (1..len).rev() {
                to_frame.swap(last, below(&mut rng, last + 1));
            }
        }
        let mut to_pass = vec![0; len];
        to_frame.iter().enumerate().for_each(|(at, index)| to_pass[usize::from(*index)] = narrow(at));
        Self { to_frame, to_pass }
    }

    pub(super) fn apply(&self, frame: &Bits) -> Bits {
        let words = frame.words();
        let gather = |chunk: &[u16]| {
            chunk.iter().rev().fold(0, |word, index| word << 1 | (words[usize::from(*index >> 6)] >> (index & 63) & 1))
        };
        Bits::from_words(self.to_frame.chunks(64).map(gather), self.to_frame.len())
    }

    pub(super) fn to_frame(&self, position: usize) -> usize {
        usize::from(self.to_frame[position])
    }

    pub(super) fn to_pass(&self, index: usize) -> usize {
        usize::from(self.to_pass[index])
    }
}

/// A number below `bound`, by multiplication. The bias of below 2^-16 has no weight: permutations are public.
fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    let product = u64::from(rng.next_u32()) * bound as u64;
    usize::try_from(product >> 32).expect("below the bound")
}

fn narrow(position: usize) -> u16 {
    u16::try_from(position).expect("a frame has at most 2^16 positions")
}
