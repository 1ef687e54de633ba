//! Privacy amplification: a Toeplitz matrix over GF(2), a universal-2 family of hashes.
//!
//! `output[i] = XOR over j of seed[i + n - 1 - j] AND key[j]` for a key of `n` bits, an output of `l` bits and a
//! seed of `n + l - 1` bits of true randomness, drawn after the key was fixed. The sums are a convolution, done
//! by real FFT over f64: entries are 0 or 1, so every sum is an integer of at most `n`. With the largest transform
//! of 2^22 points and sums up to 10^7 the rounding error stays below 1e-6; a sum that is farther than 1/4 from an
//! integer is a bug and stops the program.
//!
//! Keys and outputs beyond [`PIECE`] bits are cut into pieces; spectra of one output piece are added before the
//! inverse transform.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use zeroize::{Zeroize, Zeroizing};

use crate::bits::Bits;

/// Most bits of the key, and of the output, that one transform takes.
pub const PIECE: usize = 1 << 20;

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
    assert!(!key.is_empty() && out_len > 0, "privacy amplification has something to do");
    assert_eq!(seed.len(), seed_len(key.len(), out_len), "the seed fits key and output");
    let pieces = key.len().div_ceil(PIECE);
    let (key_piece, out_piece) = (key.len().div_ceil(pieces), out_len.min(PIECE));
    let transform = Transform::new(key_piece + out_piece - 1);
    // Zeros in front make the pieces equal; they meet zeros beyond the seed's end.
    let padding = pieces * key_piece - key.len();
    let key_spectra: Vec<Spectrum> = (0..pieces)
        .map(|index| match index {
            0 => transform.forward(&key.window(0, key_piece - padding), padding),
            _ => transform.forward(&key.window(index * key_piece - padding, key_piece), 0),
        })
        .collect();
    let mut out = Bits::with_capacity(out_len);
    for first in (0..out_len).step_by(out_piece) {
        let len = out_piece.min(out_len - first);
        let mut sum = transform.zero();
        for (index, spectrum) in key_spectra.iter().enumerate() {
            let window = seed.window(first + (pieces - 1 - index) * key_piece, key_piece + len - 1);
            sum.add_product(spectrum, &transform.forward(&window, 0));
        }
        let values = transform.inverse(sum);
        for value in values.iter().skip(key_piece - 1).take(len) {
            out.push(odd(*value));
        }
    }
    out
}

/// The same by definition: the oracle of the tests.
#[must_use]
pub fn toeplitz_naive(key: &Bits, seed: &Bits, out_len: usize) -> Bits {
    let n = key.len();
    (0..out_len).map(|i| (0..n).filter(|j| seed.get(i + n - 1 - j) && key.get(*j)).count() % 2 == 1).collect()
}

/// A spectrum of secret values, wiped on drop.
struct Spectrum(Vec<Complex<f64>>);

impl Spectrum {
    /// Adds `a * b`.
    fn add_product(&mut self, a: &Self, b: &Self) {
        self.0.iter_mut().zip(&a.0).zip(&b.0).for_each(|((sum, a), b)| *sum += a * b);
    }
}

impl Drop for Spectrum {
    fn drop(&mut self) {
        for point in &mut self.0 {
            point.re.zeroize();
            point.im.zeroize();
        }
    }
}

/// A pair of planned transforms of one length.
struct Transform {
    len: usize,
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

impl Transform {
    fn new(at_least: usize) -> Self {
        let len = smooth_length(at_least);
        let mut planner = RealFftPlanner::new();
        Self { len, forward: planner.plan_fft_forward(len), inverse: planner.plan_fft_inverse(len) }
    }

    fn zero(&self) -> Spectrum {
        Spectrum(vec![Complex::new(0.0, 0.0); self.forward.complex_len()])
    }

    /// Spectrum of the bits, the first of them at point `offset`.
    fn forward(&self, bits: &Bits, offset: usize) -> Spectrum {
        let mut values = Zeroizing::new(vec![0.0; self.len]);
        for (word, chunk) in bits.words().iter().zip(values[offset..].chunks_mut(64)) {
            for (index, value) in chunk.iter_mut().enumerate() {
                *value = if word >> index & 1 == 1 { 1.0 } else { 0.0 };
            }
        }
        let mut out = self.zero();
        let mut scratch = Spectrum(self.forward.make_scratch_vec());
        self.forward
            .process_with_scratch(&mut values, &mut out.0, &mut scratch.0)
            .expect("the buffers were made for this transform");
        out
    }

    fn inverse(&self, mut spectrum: Spectrum) -> Zeroizing<Vec<f64>> {
        // The first point of a real signal's spectrum is real, the last too if the length is even.
        if let Some(first) = spectrum.0.first_mut() {
            first.im = 0.0;
        }
        if self.len.is_multiple_of(2)
            && let Some(last) = spectrum.0.last_mut()
        {
            last.im = 0.0;
        }
        let mut values = Zeroizing::new(vec![0.0; self.len]);
        let mut scratch = Spectrum(self.inverse.make_scratch_vec());
        self.inverse
            .process_with_scratch(&mut spectrum.0, &mut values, &mut scratch.0)
            .expect("the buffers were made for this transform");
        let scale = 1.0 / real(self.len);
        values.iter_mut().for_each(|value| *value *= scale);
        values
    }
}

/// The smallest even number of at least this whose prime factors are 2, 3 and 5.
fn smooth_length(at_least: usize) -> usize {
    let mut best = at_least.next_power_of_two().max(2);
    let mut fives = 1;
    while fives < best {
        let mut threes = fives;
        while threes < best {
            let twos = at_least.div_ceil(threes).next_power_of_two().max(2);
            best = best.min(threes * twos);
            threes *= 3;
        }
        fives *= 5;
    }
    best
}

/// Whether the integer next to `value` is odd.
fn odd(value: f64) -> bool {
    let nearest = libm::rint(value);
    assert!(libm::fabs(value - nearest) < 0.25, "a sum of bits is close to an integer");
    libm::fmod(nearest, 2.0) != 0.0
}

#[expect(clippy::cast_precision_loss, reason = "lengths are below 2^53")]
fn real(len: usize) -> f64 {
    len as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    fn random(len: usize, seed: u64) -> Bits {
        let mut bytes = vec![0; len.div_ceil(8)];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        Bits::from_bytes(&bytes, len).unwrap()
    }

    /// Word-wise product for lengths where the oracle by definition is slow.
    fn by_words(key: &Bits, seed: &Bits, out_len: usize) -> Bits {
        let reversed: Bits = (0..key.len()).rev().map(|j| key.get(j)).collect();
        let row = |i: usize| {
            let window = seed.window(i, key.len());
            window.words().iter().zip(reversed.words()).fold(0, |sum, (a, b)| sum ^ (a & b)).count_ones() % 2 == 1
        };
        (0..out_len).map(row).collect()
    }

    proptest! {
        #[test]
        fn equals_the_definition(n in 1_usize..400, l in 1_usize..300, seed in any::<u64>()) {
            let (key, matrix) = (random(n, seed), random(seed_len(n, l), seed ^ 1));
            prop_assert_eq!(toeplitz(&key, &matrix, l), toeplitz_naive(&key, &matrix, l));
            prop_assert_eq!(by_words(&key, &matrix, l), toeplitz_naive(&key, &matrix, l));
        }
    }

    #[test]
    fn is_exact_at_the_size_of_a_block() {
        let (n, l) = (100_000, 3_000);
        let (key, seed) = (random(n, 1), random(seed_len(n, l), 2));
        assert_eq!(toeplitz(&key, &seed, l), by_words(&key, &seed, l));
    }

    #[test]
    fn all_ones_give_the_largest_sums() {
        let n = 50_001;
        let ones: Bits = (0..n).map(|_| true).collect();
        let seed: Bits = (0..seed_len(n, 10)).map(|_| true).collect();
        assert!((0..10).all(|i| toeplitz(&ones, &seed, 10).get(i)), "n is odd");
    }

    #[test]
    fn pieces_join_without_a_seam() {
        // One and a half pieces of key, one piece and a bit of output; a sample of rows against the definition.
        let (n, l) = (PIECE + PIECE / 2, PIECE + 3);
        let (key, seed) = (random(n, 5), random(seed_len(n, l), 6));
        let out = toeplitz(&key, &seed, l);
        let reversed: Bits = (0..n).rev().map(|j| key.get(j)).collect();
        for i in [0, 1, 777_777, PIECE - 1, PIECE, PIECE + 2] {
            let window = seed.window(i, n);
            let sum = window.words().iter().zip(reversed.words()).fold(0, |sum, (a, b)| sum ^ (a & b));
            assert_eq!(out.get(i), sum.count_ones() % 2 == 1, "row {i}");
        }
    }

    #[test]
    fn smooth_lengths_are_tight() {
        for n in [1, 2, 3, 100, 1_399_999, 2_097_151] {
            let len = smooth_length(n);
            assert!(len >= n && len.is_multiple_of(2) && (n < 100 || len < n + n / 8), "{n} {len}");
        }
    }
}
