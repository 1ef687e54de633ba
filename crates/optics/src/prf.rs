//! Counter-based pseudorandom function: one ChaCha8 block for one slot.
//!
//! Alice's choices must be reachable at any slot without the ones before it, so the block counter is the slot.
//! `rand_chacha` makes four blocks at a time and keeps its key in memory after use; this is one block, `&self`,
//! and the key is wiped. The tests hold it against `rand_chacha`.

use zeroize::Zeroizing;

/// A keyed function from a 64-bit counter to 64 pseudorandom bytes.
#[derive(Clone)]
pub(crate) struct Prf {
    key: Zeroizing<[u32; 8]>,
}

impl Prf {
    /// The function of this key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mut words = Zeroizing::new([0; 8]);
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { key: words }
    }

    /// The key, for the encoding of the light.
    pub(crate) fn key(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        for (word, out) in self.key.iter().zip(bytes.chunks_exact_mut(4)) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The block of this counter.
    #[inline]
    pub(crate) fn block(&self, counter: u64) -> [u32; 16] {
        let [c0, c1] = halves(counter);
        chacha8(self.input(c0, c1))
    }

    /// The first words of the blocks of several counters: word i of counter j is `[i][j]`.
    ///
    /// One straight pass per counter without branches, so that the compiler does several in one vector register.
    #[inline]
    pub(crate) fn first_words<const N: usize>(&self, counters: &[u64; N]) -> [[u32; N]; 5] {
        let (mut low, mut high) = ([0; N], [0; N]);
        for lane in 0..N {
            [low[lane], high[lane]] = halves(counters[lane]);
        }
        let mut words = [[0; N]; 5];
        for lane in 0..N {
            let block = chacha8(self.input(low[lane], high[lane]));
            words[0][lane] = block[0];
            words[1][lane] = block[1];
            words[2][lane] = block[2];
            words[3][lane] = block[3];
            words[4][lane] = block[4];
        }
        words
    }

    /// The matrix that a block starts from.
    #[inline(always)]
    fn input(&self, c0: u32, c1: u32) -> [u32; 16] {
        let [s0, s1, s2, s3] = CONSTANT;
        let [k0, k1, k2, k3, k4, k5, k6, k7] = *self.key;
        let [n0, n1] = halves(NONCE);
        [s0, s1, s2, s3, k0, k1, k2, k3, k4, k5, k6, k7, c0, c1, n0, n1]
    }
}

/// The ChaCha block function with four double rounds (Bernstein 2008, section 3).
#[inline(always)]
fn chacha8(input: [u32; 16]) -> [u32; 16] {
    let mut x = double_round(double_round(double_round(double_round(input))));
    for word in 0..16 {
        x[word] = x[word].wrapping_add(input[word]);
    }
    x
}

/// Four columns, then four diagonals.
#[inline(always)]
fn double_round(x: [u32; 16]) -> [u32; 16] {
    let [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf] = x;
    let (x0, x4, x8, xc) = quarter(x0, x4, x8, xc);
    let (x1, x5, x9, xd) = quarter(x1, x5, x9, xd);
    let (x2, x6, xa, xe) = quarter(x2, x6, xa, xe);
    let (x3, x7, xb, xf) = quarter(x3, x7, xb, xf);
    let (x0, x5, xa, xf) = quarter(x0, x5, xa, xf);
    let (x1, x6, xb, xc) = quarter(x1, x6, xb, xc);
    let (x2, x7, x8, xd) = quarter(x2, x7, x8, xd);
    let (x3, x4, x9, xe) = quarter(x3, x4, x9, xe);
    [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf]
}

#[inline(always)]
fn quarter(a: u32, b: u32, c: u32, d: u32) -> (u32, u32, u32, u32) {
    let a = a.wrapping_add(b);
    let d = (d ^ a).rotate_left(16);
    let c = c.wrapping_add(d);
    let b = (b ^ c).rotate_left(12);
    let a = a.wrapping_add(b);
    let d = (d ^ a).rotate_left(8);
    let c = c.wrapping_add(d);
    let b = (b ^ c).rotate_left(7);
    (a, b, c, d)
}

/// Low and high word.
#[inline(always)]
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// Keeps these blocks apart from any other use of the same key.
const NONCE: u64 = u64::from_le_bytes(*b"modulate");
/// "expand 32-byte k".
const CONSTANT: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    proptest! {
        #[test]
        fn is_chacha8(key: [u8; 32], counter: u64) {
            let mut oracle = ChaCha8Rng::from_seed(key);
            oracle.set_stream(NONCE);
            oracle.set_word_pos(u128::from(counter) * 16);
            let block = Prf::new(&key).block(counter);
            for word in block {
                prop_assert_eq!(word, oracle.next_u32());
            }
            prop_assert_eq!(*Prf::new(&key).key(), key);
            let counters: [u64; 8] = [0, 7, 14, 21, 28, 35, 42, 49].map(|by| counter.rotate_left(by));
            let words = Prf::new(&key).first_words(&counters);
            for (lane, counter) in counters.into_iter().enumerate() {
                prop_assert_eq!(&words.map(|word| word[lane])[..], &Prf::new(&key).block(counter)[..5]);
            }
        }
    }
}
