//! What a backend must be able to do: four elements of GF(2^128) at a time.

use zeroize::DefaultIsZeroes;

use super::field::{self, Factor};

/// Four elements of GF(2^128), lane `i` in words `2i` (low) and `2i + 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Quad(pub(super) [u64; 8]);

impl DefaultIsZeroes for Quad {}

impl Quad {
    pub(super) const ZERO: Self = Self([0; 8]);

    /// One element in each lane.
    pub(super) const fn of(lanes: [u128; 4]) -> Self {
        let mut words = [0; 8];
        let mut lane = 0;
        while lane < 4 {
            words[2 * lane] = field::low(lanes[lane]);
            words[2 * lane + 1] = field::low(lanes[lane] >> 64);
            lane += 1;
        }
        Self(words)
    }

    fn lanes(&self) -> [u128; 4] {
        core::array::from_fn(|lane| u128::from(self.0[2 * lane]) | u128::from(self.0[2 * lane + 1]) << 64)
    }
}

/// A vector unit. A value of the type is the proof that the processor has it, so the methods are safe to call. They
/// are fast only where they are inlined into a function that was compiled for the unit.
pub(super) trait Engine: Copy {
    /// Four elements in registers.
    type V: Copy;

    fn load(self, from: &Quad) -> Self::V;
    fn store(self, v: Self::V, to: &mut Quad);
    /// The same element in all lanes.
    fn splat(self, element: u128) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Words as the low halves of lanes.
    fn expand(self, words: &[u64; 4]) -> Self::V;
    /// The low and the high halves of lanes.
    fn compress(self, v: Self::V, low: &mut [u64; 4], high: &mut [u64; 4]);
    /// Lane `j` of vector `i` to lane `i` of vector `j`.
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4];
    /// Every lane times `x^64`.
    fn times_x64(self, v: Self::V) -> Self::V;
    /// Lane by lane `a * b[0]` plus `sum`, where `b[1]` is `b[0] * x^64`.
    fn multiply_add(self, sum: Self::V, a: Self::V, b: [Self::V; 2]) -> Self::V;
}

/// Plain Rust on 64-bit integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Engine for Portable {
    type V = [u128; 4];

    #[inline(always)]
    fn load(self, from: &Quad) -> Self::V {
        from.lanes()
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Quad) {
        *to = Quad::of(v);
    }

    #[inline(always)]
    fn splat(self, element: u128) -> Self::V {
        [element; 4]
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        core::array::from_fn(|lane| a[lane] ^ b[lane])
    }

    #[inline(always)]
    fn expand(self, words: &[u64; 4]) -> Self::V {
        words.map(u128::from)
    }

    #[inline(always)]
    fn compress(self, v: Self::V, low: &mut [u64; 4], high: &mut [u64; 4]) {
        *low = v.map(field::low);
        *high = v.map(|lane| field::low(lane >> 64));
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4] {
        core::array::from_fn(|lane| core::array::from_fn(|row| rows[row][lane]))
    }

    #[inline(always)]
    fn times_x64(self, v: Self::V) -> Self::V {
        v.map(field::times_x64)
    }

    fn multiply_add(self, sum: Self::V, a: Self::V, b: [Self::V; 2]) -> Self::V {
        core::array::from_fn(|lane| {
            let factor: Factor = [b[0][lane], b[1][lane]];
            sum[lane] ^ field::multiply(a[lane], factor)
        })
    }
}
