//! The product against the definition, and every backend against the portable one.

use proptest::prelude::*;

use super::field::{CANTOR, clmul, low, multiply, times_x64, twiddle};
use super::plan::{LOG_SIZE_MAX, LOG_SIZE_MIN, Plan};
use super::*;

/// Words from a seed: a linear congruential generator's high halves.
fn words(len: usize, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    };
    (0..len).map(|_| next() << 32 | next()).collect()
}

fn bit(words: &[u64], index: usize) -> bool {
    words[index / 64] >> (index % 64) & 1 == 1
}

/// Bit by bit: coefficient `64 n + i` of `a * b`.
fn by_definition(a: &[u64], b: &[u64], l: usize) -> Vec<u64> {
    let mut out = vec![0; l];
    for i in 0..64 * l {
        let at = 64 * a.len() + i;
        let ones = (0..64 * a.len()).filter(|j| bit(a, *j) && bit(b, at - j)).count();
        out[i / 64] |= (ones as u64 & 1) << (i % 64);
    }
    out
}

/// Word by word with the portable product of two words.
fn by_words(a: &[u64], b: &[u64], l: usize) -> Vec<u64> {
    let coefficient = |at: usize| a.iter().enumerate().fold(0, |sum, (j, word)| sum ^ clmul(*word, b[at - j]));
    let halves = |at: usize| {
        let value = coefficient(at);
        (low(value), low(value >> 64))
    };
    (a.len()..a.len() + l).map(|at| halves(at).0 ^ halves(at - 1).1).collect()
}

fn check(a: &[u64], b: &[u64], l: usize, expected: &[u64]) {
    for backend in Backend::available() {
        let mut out = vec![0; l];
        middle_product(backend, a, b, &mut out);
        assert!(out == expected, "{} at {} and {l} words", backend.name(), a.len());
    }
}

#[test]
fn the_basis_is_a_cantor_basis() {
    assert_eq!(CANTOR[0], 1);
    for pair in CANTOR.windows(2) {
        let square = multiply(pair[1], [pair[1], times_x64(pair[1])]);
        assert_eq!(square ^ pair[1], pair[0]);
    }
    assert_eq!(twiddle(0b101)[0], CANTOR[1] ^ CANTOR[3]);
}

#[test]
fn products_of_words_are_those_of_the_definition() {
    assert_eq!(clmul(u64::MAX, u64::MAX), 0x5555_5555_5555_5555_5555_5555_5555_5555);
    for pair in words(400, 5).chunks(2) {
        let slow = (0..64).filter(|i| pair[1] >> i & 1 == 1).fold(0, |sum, i| sum ^ u128::from(pair[0]) << i);
        assert_eq!(clmul(pair[0], pair[1]), slow);
    }
}

#[test]
fn the_field_multiplies_as_ghash_does() {
    // x^127 * x = x^128 = x^7 + x^2 + x + 1.
    assert_eq!(multiply(1 << 127, [2, times_x64(2)]), 0x87);
    assert_eq!(times_x64(1 << 64), 0x87);
    // The multiplicative group has 2^128 - 1 elements: a^(2^128) = a.
    let a = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
    assert_eq!((0..128).fold(a, |power, _| multiply(power, [power, times_x64(power)])), a);
}

#[test]
fn every_small_size_and_its_neighbours() {
    for n in (1..=9).chain([15, 16, 17, 31, 32, 33, 63, 64, 65]) {
        for l in (1..=9).chain([15, 16, 17, 31, 32, 33, 63, 64, 65]) {
            let (a, b) = (words(n, n as u64), words(n + l, l as u64));
            let expected = by_words(&a, &b, l);
            if n * l < 40 {
                assert_eq!(by_definition(&a, &b, l), expected);
            }
            check(&a, &b, l, &expected);
        }
    }
}

#[test]
fn ones_in_every_place() {
    let (a, b) = (vec![u64::MAX; 100], vec![u64::MAX; 177]);
    check(&a, &b, 77, &by_words(&a, &b, 77));
}

#[test]
fn backends_agree_on_large_products_and_a_sample_meets_the_definition() {
    for (n, l) in [(1_563, 470), (1_024, 1_024), (300, 5_000), (16_384, 1_000)] {
        let (a, b) = (words(n, 3), words(n + l, 4));
        let mut expected = vec![0; l];
        middle_product(Backend::best(), &a, &b, &mut expected);
        for at in [0, 1, l / 3, l - 2, l - 1] {
            assert_eq!(by_words(&a, &b[at..at + n + 1], 1), expected[at..=at], "word {at} of {n} x {l}");
        }
        check(&a, &b, l, &expected);
    }
}

#[test]
fn a_matrix_serves_many_vectors() {
    let (n, l) = (70, 40);
    let b = words(n + l, 1);
    let matrix = Matrix::new(Backend::best(), &b, n, l);
    for seed in 2..6 {
        let a = words(n, seed);
        let mut out = vec![u64::MAX; l];
        matrix.multiply(&a, &mut out);
        assert_eq!(out, by_words(&a, &b, l));
    }
}

proptest! {
    #[test]
    fn any_lengths(n in 1_usize..200, l in 1_usize..200, seed in any::<u64>()) {
        let (a, b) = (words(n, seed), words(n + l, !seed));
        check(&a, &b, l, &by_words(&a, &b, l));
    }

    #[test]
    fn any_cut(n in 1_usize..150, l in 1_usize..150, log in LOG_SIZE_MIN..8, seed in any::<u64>()) {
        let (a, b) = (words(n, seed), words(n + l, !seed));
        let plan = Plan::of_size(n, l, log);
        for backend in Backend::available() {
            let mut out = vec![0; l];
            Matrix::planned(backend, &b, plan).multiply(&a, &mut out);
            prop_assert!(out == by_words(&a, &b, l), "{} with {plan:?}", backend.name());
        }
    }

    #[test]
    fn plans_fit(n in 1_usize..400_000, l in 1_usize..400_000) {
        for log in LOG_SIZE_MIN..=LOG_SIZE_MAX {
            let plan = Plan::of_size(n, l, log);
            prop_assert!(plan.vector_piece > 0 && plan.product_piece > 0);
            prop_assert!(plan.vector_piece + plan.product_piece <= plan.size());
            let both = plan.vector_pieces() > 1 && plan.product_pieces() > 1;
            prop_assert!(!both || plan.vector_piece == plan.product_piece);
        }
    }
}
