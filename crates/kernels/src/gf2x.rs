//! Middle products of polynomials over GF(2), which are products of a Toeplitz matrix and a vector.
//!
//! Polynomials are little-endian strings of 64-bit words, bit `i` the coefficient of `x^i`. For `a` of `n` words and
//! `b` of `n + l` words the middle product is words `n .. n + l` of `a * b`, those that all of `a` takes part in.
//!
//! ```text
//!  a ── reverse ── to novel basis ──────────────── FFT ─────────┐
//!                                                               × ── FFT^T ── from novel basis^T ── words n .. n+l
//!  b ───────────── (from novel basis, inverse)^T ─ (FFT^-1)^T ──┘
//! ```
//!
//! Words become elements of GF(2^128), which holds the product of two. The transform is the additive FFT of Lin, Chung
//! and Han (2014, arXiv:1404.3458) over a Cantor basis, as Chen, Cheng, Kuo, Li and Yang (2017, arXiv:1708.09746) use
//! it for polynomials over GF(2); its transpose gives the middle of the product instead of the whole at the price of
//! one product of half the length. Lengths beyond one transform are cut into pieces that share transforms.
//!
//! No branch and no address depends on the value of a word, on any backend.

mod backend;
mod basis;
mod engine;
mod field;
mod plan;
#[cfg(test)]
mod tests;
mod transform;

use zeroize::Zeroizing;

pub use self::backend::Backend;
use self::engine::Quad;
use self::plan::Plan;
use self::transform::Job;

/// A Toeplitz matrix, transformed once for any number of vectors. The matrix is public, the vectors are not.
#[derive(Debug)]
pub struct Matrix {
    backend: Backend,
    plan: Plan,
    /// One transform for each distance between a piece of the vector and a piece of the product.
    windows: Vec<Vec<Quad>>,
}

impl Matrix {
    /// For vectors of `n` words and products of `l` words, from `n + l` words `b`.
    ///
    /// # Panics
    /// If `n` or `l` is zero, or `b` has another length.
    #[must_use]
    pub fn new(backend: Backend, b: &[u64], n: usize, l: usize) -> Self {
        assert!(n > 0 && l > 0, "a product of something");
        Self::planned(backend, b, Plan::new(n, l))
    }

    fn planned(backend: Backend, b: &[u64], plan: Plan) -> Self {
        assert_eq!(b.len(), plan.n + plan.l, "as many words as the matrix has diagonals");
        let mut words = vec![0; plan.size()];
        let windows = (0..plan.windows())
            .map(|index| {
                let start = (index * plan.step()).min(b.len());
                let part = &b[start..b.len().min(start + plan.size())];
                words[..part.len()].copy_from_slice(part);
                words[part.len()..].fill(0);
                let mut window = vec![Quad::ZERO; plan.size() / 4];
                backend.run(Job::Window { words: &mut words, out: &mut window });
                window
            })
            .collect();
        Self { backend, plan, windows }
    }

    /// Words `n .. n + l` of `a * b`.
    ///
    /// # Panics
    /// If `a` has not `n` words or `out` not `l`.
    pub fn multiply(&self, a: &[u64], out: &mut [u64]) {
        assert_eq!((a.len(), out.len()), (self.plan.n, self.plan.l), "the lengths of the matrix");
        let size = self.plan.size();
        let mut words = Zeroizing::new(vec![0; size]);
        let mut pieces: Vec<Zeroizing<Vec<Quad>>> = (0..self.plan.vector_pieces())
            .map(|index| {
                // From the end, since word j of the vector meets word i - j of the matrix.
                let end = a.len() - index * self.plan.vector_piece;
                let part = &a[end.saturating_sub(self.plan.vector_piece)..end];
                words[..part.len()].copy_from_slice(part);
                words[..part.len()].reverse();
                words[part.len()..].fill(0);
                let mut piece = Zeroizing::new(vec![Quad::ZERO; size / 4]);
                self.backend.run(Job::Vector { words: &mut words, out: &mut piece });
                piece
            })
            .collect();
        let mut high = Zeroizing::new(vec![0; size]);
        let mut sum = Zeroizing::new(Vec::new());
        for (first, out) in out.chunks_mut(self.plan.product_piece).enumerate() {
            if let [piece] = pieces.as_mut_slice()
                && self.windows.len() == 1
            {
                self.backend.run(Job::Multiply { a: piece, b: &self.windows[0] });
                self.backend.run(Job::Product { sum: piece, low: &mut words, high: &mut high });
            } else {
                sum.clear();
                sum.resize(size / 4, Quad::ZERO);
                for (a, b) in pieces.iter().zip(&self.windows[first..]) {
                    self.backend.run(Job::Accumulate { sum: &mut sum, a, b });
                }
                self.backend.run(Job::Product { sum: &mut sum, low: &mut words, high: &mut high });
            }
            // Products of words are two words long: each overlaps the next.
            for (out, (low, high)) in out.iter_mut().zip(words[1..].iter().zip(high.iter())) {
                *out = low ^ high;
            }
        }
    }
}

/// Words `n .. n + l` of `a * b`, where `n` is the length of `a` and `l` that of `out`.
///
/// # Panics
/// If `a` or `out` is empty, or `b` has not `n + l` words.
pub fn middle_product(backend: Backend, a: &[u64], b: &[u64], out: &mut [u64]) {
    Matrix::new(backend, b, a.len(), out.len()).multiply(a, out);
}
