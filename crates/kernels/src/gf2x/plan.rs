//! How a product is cut into transforms.
//!
//! A transform of `size` words takes a piece of `p` words of the vector and gives up to `size - p` words of the
//! product. With several pieces on both sides the two are equal, so that pieces at the same distance share one
//! transform of the matrix.

/// Lengths of a product and its pieces, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) n: usize,
    pub(super) l: usize,
    pub(super) vector_piece: usize,
    pub(super) product_piece: usize,
    log_size: u32,
}

impl Plan {
    /// The cheapest for a vector of `n` and a product of `l` words.
    pub(super) fn new(n: usize, l: usize) -> Self {
        (LOG_SIZE_MIN..=LOG_SIZE_MAX)
            .map(|log_size| Self::of_size(n, l, log_size))
            .min_by_key(Self::cost)
            .expect("there are sizes to choose from")
    }

    pub(super) fn of_size(n: usize, l: usize, log_size: u32) -> Self {
        let (size, half) = (1 << log_size, 1 << (log_size - 1));
        let (vector_piece, product_piece) = if n <= half {
            (n, l.min(size - n))
        } else if l <= half {
            (n.min(size - l), l)
        } else {
            (half, half)
        };
        Self { n, l, vector_piece, product_piece, log_size }
    }

    /// Elements of one transform.
    pub(super) fn size(&self) -> usize {
        1 << self.log_size
    }

    pub(super) fn vector_pieces(&self) -> usize {
        self.n.div_ceil(self.vector_piece)
    }

    pub(super) fn product_pieces(&self) -> usize {
        self.l.div_ceil(self.product_piece)
    }

    /// Windows of the matrix that are transformed.
    pub(super) fn windows(&self) -> usize {
        self.vector_pieces() + self.product_pieces() - 1
    }

    /// Words from one window to the next.
    pub(super) fn step(&self) -> usize {
        if self.vector_pieces() == 1 { self.product_piece } else { self.vector_piece }
    }

    /// Butterflies, roughly: a transform of every piece and window, a multiplication for every pair.
    fn cost(&self) -> usize {
        let (pieces, products) = (self.vector_pieces(), self.product_pieces());
        let transforms = (pieces + products + self.windows()) * (self.log_size as usize + PACKING_LEVELS);
        (transforms + 2 * pieces * products) << self.log_size
    }
}

/// Largest transform, as a power of two: with 2^15 elements of 16 bytes it still fits most second-level caches.
pub(super) const LOG_SIZE_MAX: u32 = 15;
/// Smallest transform, as a power of two.
pub(super) const LOG_SIZE_MIN: u32 = 4;
/// What a transform costs besides its butterflies, in levels of butterflies.
const PACKING_LEVELS: usize = 6;
