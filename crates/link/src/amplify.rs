//! Privacy amplification: a Toeplitz matrix over GF(2), a universal-2 family of hashes.
//!
//! `output[i] = XOR over j of seed[i + n - 1 - j] AND key[j]` for a key of `n` bits, an output of `l` bits and a
//! seed of `n + l - 1` bits of true randomness, drawn after the key was fixed. The sums are coefficients
//! `n - 1 .. n + l - 1` of the product of seed and key as polynomials over GF(2), which
//! [`kernels::gf2x`] computes exactly, without branches or addresses that depend on them.

use kernels::gf2x::{Backend, Matrix};
use zeroize::Zeroizing;

use crate::bits::Bits;

/// Bits of seed for a key and an output of these lengths.
#[must_use]
pub fn seed_len(key_len: usize, out_len: usize) -> usize {
    (key_len + out_len).saturating_sub(1)
}

/// Hashes `key` to `out_len` bits.
///
/// # Panics
/// If the seed has not [`seed_len`] bits, or the key or the output is empty.
#[must_use]
pub fn toeplitz(key: &Bits, seed: &Bits, out_len: usize) -> Bits {
    Toeplitz::new(seed, key.len(), out_len).hash(key)
}

/// A matrix for any number of keys of one length. Reusing one seed adds up the epsilons of its keys and is safe only
/// while the seed stays unknown to Eve until the last key is fixed.
#[derive(Debug)]
pub struct Toeplitz {
    matrix: Matrix,
    key_len: usize,
    out_len: usize,
}

impl Toeplitz {
    /// The matrix that the seed spells.
    ///
    /// # Panics
    /// If the seed has not [`seed_len`] bits, or the key or the output is empty.
    #[must_use]
    pub fn new(seed: &Bits, key_len: usize, out_len: usize) -> Self {
        Self::with_backend(Backend::best(), seed, key_len, out_len)
    }

    fn with_backend(backend: Backend, seed: &Bits, key_len: usize, out_len: usize) -> Self {
        assert!(key_len > 0 && out_len > 0, "privacy amplification has something to do");
        assert_eq!(seed.len(), seed_len(key_len, out_len), "the seed fits key and output");
        let (key_words, out_words) = (key_len.div_ceil(64), out_len.div_ceil(64));
        // Coefficient n - 1 is moved to the start of word `key_words`.
        let diagonals = shifted(seed.words(), 64 * key_words - (key_len - 1), key_words + out_words);
        Self { matrix: Matrix::new(backend, &diagonals, key_words, out_words), key_len, out_len }
    }

    /// Hashes one key.
    ///
    /// # Panics
    /// If the key has another length than the matrix was made for.
    #[must_use]
    pub fn hash(&self, key: &Bits) -> Bits {
        assert_eq!(key.len(), self.key_len, "the key fits the matrix");
        let mut out = Zeroizing::new(vec![0; self.out_len.div_ceil(64)]);
        self.matrix.multiply(key.words(), &mut out);
        Bits::from_words_masked(out, self.out_len)
    }
}

/// The words moved up by 1 to 64 bits, `len` of them.
fn shifted(words: &[u64], by: usize, len: usize) -> Vec<u64> {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    let joined = |index: usize| u128::from(word(index)) << 64 | index.checked_sub(1).map_or(0, |i| u128::from(word(i)));
    (0..len).map(|index| low(joined(index) >> (64 - by))).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low(joined: u128) -> u64 {
    joined as u64
}

/// The same by definition: the oracle of the tests.
#[must_use]
pub fn toeplitz_naive(key: &Bits, seed: &Bits, out_len: usize) -> Bits {
    let n = key.len();
    (0..out_len).map(|i| (0..n).filter(|j| seed.get(i + n - 1 - j) && key.get(*j)).count() % 2 == 1).collect()
}

#[cfg(test)]
mod fourier;
#[cfg(test)]
mod tests;
