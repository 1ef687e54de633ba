//! The hash against its definition, against an independent computation, on every backend.

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::fourier::toeplitz_by_fourier;
use super::*;

fn random(len: usize, seed: u64) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).unwrap()
}

proptest! {
    #[test]
    fn equals_the_definition(n in 1_usize..400, l in 1_usize..300, seed in any::<u64>()) {
        let (key, matrix) = (random(n, seed), random(seed_len(n, l), seed ^ 1));
        let expected = toeplitz_naive(&key, &matrix, l);
        prop_assert_eq!(&toeplitz(&key, &matrix, l), &expected);
        prop_assert_eq!(&toeplitz_by_fourier(&key, &matrix, l), &expected);
        for backend in Backend::available() {
            prop_assert_eq!(&Toeplitz::with_backend(backend, &matrix, n, l).hash(&key), &expected);
        }
    }
}

#[test]
fn lengths_around_borders_of_words_and_transforms_are_exact() {
    let around = |middle: usize| [middle - 1, middle, middle + 1];
    for n in [64, 128, 1_024, 8_192].into_iter().flat_map(around) {
        for l in [64, 512, 4_096].into_iter().flat_map(around) {
            let (key, seed) = (random(n, n as u64), random(seed_len(n, l), l as u64));
            assert!(toeplitz(&key, &seed, l) == toeplitz_by_fourier(&key, &seed, l), "{n} to {l}");
        }
    }
}

#[test]
fn blocks_of_real_size_are_exact() {
    for (n, l) in [(100_000, 3_000), (65_536, 65_536), (300_001, 99_999)] {
        let (key, seed) = (random(n, 1), random(seed_len(n, l), 2));
        assert!(toeplitz(&key, &seed, l) == toeplitz_by_fourier(&key, &seed, l), "{n} to {l}");
    }
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
    // More than one transform takes on both sides; a sample of rows against the definition.
    let (n, l) = (3 << 19, (1 << 20) + 3);
    let (key, seed) = (random(n, 5), random(seed_len(n, l), 6));
    let out = toeplitz(&key, &seed, l);
    let reversed: Bits = (0..n).rev().map(|j| key.get(j)).collect();
    for i in [0, 1, 524_287, 524_288, 777_777, (1 << 20) - 1, 1 << 20, (1 << 20) + 2] {
        let window = seed.window(i, n);
        let sum = window.words().iter().zip(reversed.words()).fold(0, |sum, (a, b)| sum ^ (a & b));
        assert_eq!(out.get(i), sum.count_ones() % 2 == 1, "row {i}");
    }
}

#[test]
fn one_matrix_hashes_many_keys() {
    let (n, l) = (5_000, 1_000);
    let seed = random(seed_len(n, l), 7);
    let matrix = Toeplitz::new(&seed, n, l);
    for key in (10..14).map(|number| random(n, number)) {
        assert_eq!(matrix.hash(&key), toeplitz(&key, &seed, l));
    }
}
