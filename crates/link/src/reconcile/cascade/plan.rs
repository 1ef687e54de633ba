//! What both halves derive alike: frames, and the order of every pass.

use rand_chacha::{ChaCha8Rng, ChaCha20Rng};
use rand_core::{Rng, SeedableRng};

use crate::bits::Bits;

/// Most bits in a frame, so that a position in a shuffle fits 16 bits.
pub const FRAME_MAX: usize = 1 << 16;

/// Passes over every frame. A pair of errors that the first passes miss survives each later pass with probability
/// 1/2, and a pass that finds nothing costs one bit per frame.
pub const PASSES: usize = 20;

/// The first passes are shuffles cut into blocks (pass 0 is not shuffled); the others are subsets.
pub(super) const BLOCK_PASSES: usize = 3;

/// Frames of a key and the orders of the passes, from a public seed.
pub(super) struct Plan {
    pub(super) frames: usize,
    pub(super) frame_len: usize,
    seed: [u8; 32],
    orders: Vec<Order>,
}

/// What a position in a pass stands for.
pub(super) enum Order {
    /// The bit at that place of the frame.
    Natural,
    /// A bit by permutation.
    Shuffled(Shuffle),
    /// Positions from 0 are the frame's bits inside a random subset, from the frame's length those outside; a
    /// position whose bit is on the other side stands for nothing.
    Subset(Bits),
}

/// A permutation and its inverse.
pub(super) struct Shuffle {
    /// Position in the pass to position in the frame.
    pub(super) to_frame: Vec<u16>,
    /// Position in the frame to position in the pass.
    to_pass: Vec<u16>,
}

impl Plan {
    pub(super) fn new(key_len: usize, seed: [u8; 32]) -> Self {
        let frames = key_len.div_ceil(FRAME_MAX);
        Self { frames, frame_len: key_len.div_ceil(frames), seed, orders: Vec::new() }
    }

    /// The key cut into frames.
    pub(super) fn cut(&self, key: &Bits) -> Vec<Bits> {
        (0..self.frames).map(|frame| key.window(frame * self.frame_len, self.frame_len)).collect()
    }

    /// The frames put together to a key of `len` bits.
    pub(super) fn join<'a>(&self, frames: impl Iterator<Item = &'a Bits>, len: usize) -> Bits {
        let mut key = Bits::with_capacity(len);
        for frame in frames {
            key.append(frame, self.frame_len.min(len - key.len()));
        }
        key
    }

    /// The order of a pass, made on first use.
    pub(super) fn begin(&mut self, pass: usize) -> &Order {
        while self.orders.len() <= pass {
            self.orders.push(Order::new(self.orders.len(), self.frame_len, self.seed));
        }
        &self.orders[pass]
    }

    /// The order of a pass that was begun.
    pub(super) fn order(&self, pass: usize) -> &Order {
        &self.orders[pass]
    }

    /// Positions in a pass: those of a subset and of its complement are apart.
    pub(super) fn positions(&self, pass: usize) -> usize {
        if pass < BLOCK_PASSES { self.frame_len } else { 2 * self.frame_len }
    }

    /// Parities that Alice sends when a pass begins: of all blocks but one that follows from the frame's parity.
    pub(super) fn first_parities(&self, pass: usize, block_len: usize) -> usize {
        self.positions(pass).div_ceil(block_len) - usize::from(pass > 0)
    }
}

impl Order {
    fn new(pass: usize, len: usize, seed: [u8; 32]) -> Self {
        match pass {
            0 => Self::Natural,
            1..BLOCK_PASSES => Self::Shuffled(Shuffle::new(pass, len, seed)),
            _ => {
                let mut rng = ChaCha20Rng::from_seed(seed);
                rng.set_stream(pass as u64);
                let mut bytes = vec![0; len.div_ceil(8)];
                rng.fill_bytes(&mut bytes);
                Self::Subset(Bits::from_bytes(&bytes, len).expect("as many bytes as the bits need"))
            }
        }
    }

    /// The frame in this order, for a pass that needs a copy.
    pub(super) fn arrange(&self, frame: &Bits) -> Option<Bits> {
        match self {
            Self::Shuffled(shuffle) => Some(shuffle.apply(frame)),
            Self::Natural | Self::Subset(_) => None,
        }
    }

    /// Parity of positions `start` to before `end`, of the frame or its copy in this order.
    #[inline]
    pub(super) fn parity(&self, frame: &Bits, copy: Option<&Bits>, start: usize, end: usize) -> bool {
        match self {
            Self::Natural => frame.parity(start, end),
            Self::Shuffled(_) => copy.expect("a shuffled pass has its copy").parity(start, end),
            Self::Subset(subset) if start < frame.len() => frame.parity_where(subset, true, start, end),
            Self::Subset(subset) => frame.parity_where(subset, false, start - frame.len(), end - frame.len()),
        }
    }

    /// The position that stands for bit `index` of the frame.
    #[inline]
    pub(super) fn to_pass(&self, index: usize) -> usize {
        match self {
            Self::Natural => index,
            Self::Shuffled(shuffle) => usize::from(shuffle.to_pass[index]),
            Self::Subset(subset) => {
                if subset.get(index) {
                    index
                } else {
                    subset.len() + index
                }
            }
        }
    }
}

impl Shuffle {
    /// Fisher-Yates with ChaCha8, the pass number as its stream.
    fn new(pass: usize, len: usize, seed: [u8; 32]) -> Self {
        assert!(len <= FRAME_MAX, "positions fit 16 bits");
        let mut to_frame: Vec<u16> = (0..len).map(narrow).collect();
        let mut rng = ChaCha8Rng::from_seed(seed);
        rng.set_stream(pass as u64);
        for last in (1..len).rev() {
            to_frame.swap(last, below(&mut rng, last + 1));
        }
        let mut to_pass = vec![0; len];
        to_frame.iter().enumerate().for_each(|(at, index)| to_pass[usize::from(*index)] = narrow(at));
        Self { to_frame, to_pass }
    }

    fn apply(&self, frame: &Bits) -> Bits {
        let words = frame.words();
        let gather = |chunk: &[u16]| {
            chunk.iter().rev().fold(0, |word, index| word << 1 | (words[usize::from(*index >> 6)] >> (index & 63) & 1))
        };
        Bits::from_words(self.to_frame.chunks(64).map(gather), self.to_frame.len())
    }
}

/// A number below `bound`, by multiplication. The bias of below 2^-16 has no weight: permutations are public.
#[inline]
fn below(rng: &mut impl Rng, bound: usize) -> usize {
    let product = u64::from(rng.next_u32()) * bound as u64;
    usize::try_from(product >> 32).expect("below the bound")
}

#[inline]
fn narrow(position: usize) -> u16 {
    u16::try_from(position).expect("a frame has at most 2^16 positions")
}
