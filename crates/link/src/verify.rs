//! Verification: do both ends hold the same bits after reconciliation?
//!
//! Alice draws a hash key after Bob says that he is done, and sends it with the hash of her key; Bob compares. The
//! hash is a polynomial over GF(2^128) (POLYVAL), cut to as few bytes as keep the probability that two different
//! keys agree, `blocks * 2^-bits`, below epsilon_correctness, and to at least 64 bits. Hash and outcome are public.
//! The key-length proof pays for `log2(2/epsilon_correctness)` bits; [`excess_bits`] says what goes beyond.

use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use crypto::tag::{TagHashKey, TagPad};
use rand_core::CryptoRng;

use crate::bits::Bits;

/// Bytes of the public hash key.
pub const HASH_KEY_LEN: usize = 16;
/// Bounds on the bytes of the hash.
pub const HASH_LEN: core::ops::RangeInclusive<usize> = 8..=16;

/// Proof that the two keys were compared and agree. Only [`compare`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct KeysAgree(());

impl KeysAgree {
    /// What Alice knows from Bob's authenticated word. The word is checked by the tag over the transcript before
    /// any key leaves.
    pub(crate) fn by_word_of_bob(equal: bool) -> Option<Self> {
        equal.then_some(Self(()))
    }
}

/// A public hash of a key under a public hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHash {
    /// The hash key, drawn after reconciliation.
    pub hash_key: [u8; HASH_KEY_LEN],
    /// The hash, cut to [`hash_len`] bytes.
    pub value: Vec<u8>,
}

impl KeyHash {
    /// Hashes a key under a fresh hash key.
    pub fn draw(key: &Bits, epsilon_correctness: f64, rng: &mut impl CryptoRng) -> Self {
        let mut hash_key = [0; HASH_KEY_LEN];
        rng.fill_bytes(&mut hash_key);
        Self { hash_key, value: hash(key, &hash_key, hash_len(key.len(), epsilon_correctness)) }
    }
}

/// Bob's comparison. `None` if the keys differ or the hash has not the agreed length.
#[must_use]
pub fn compare(key: &Bits, theirs: &KeyHash, epsilon_correctness: f64) -> Option<KeysAgree> {
    let len = hash_len(key.len(), epsilon_correctness);
    // The hash is public from here on, so the comparison need not take constant time.
    (hash(key, &theirs.hash_key, len) == theirs.value).then_some(KeysAgree(()))
}

/// Bytes of the hash for a key of this many bits.
#[must_use]
pub fn hash_len(key_len: usize, epsilon_correctness: f64) -> usize {
    let needed = libm::log2(real(blocks(key_len))) - libm::log2(epsilon_correctness);
    let needed_bytes = HASH_LEN.clone().find(|bytes| real(8 * bytes) >= needed);
    needed_bytes.unwrap_or(*HASH_LEN.end())
}

/// Bits that the hash discloses beyond what the key-length proof pays for.
#[must_use]
pub fn excess_bits(key_len: usize, epsilon_correctness: f64) -> u64 {
    let paid = libm::floor(libm::log2(2.0 / epsilon_correctness));
    let disclosed = 8 * hash_len(key_len, epsilon_correctness);
    (0..=128_u64).find(|excess| real(disclosed) - paid <= real(usize::try_from(*excess).unwrap_or(0))).unwrap_or(128)
}

fn hash(key: &Bits, hash_key: &[u8; HASH_KEY_LEN], len: usize) -> Vec<u8> {
    let hash_key = TagHashKey::new(SecretBytes::copy_of(hash_key)).expect("16 bytes are a hash key");
    // No pad: the hash itself is what is made public and paid for.
    let no_pad = TagPad::new(SecretBytes::copy_of(&[0; TagPad::LEN])).expect("16 bytes are a pad");
    let mut hasher = hash_key.hasher(Domain::LinkVerification);
    hasher.update(&key.to_bytes());
    let mut value = hasher.tag(no_pad).0.to_vec();
    value.truncate(len);
    value
}

/// Blocks of the polynomial: label, key, length.
fn blocks(key_len: usize) -> usize {
    (Domain::LinkVerification.label().len() + key_len.div_ceil(8)).div_ceil(16) + 1
}

#[expect(clippy::cast_precision_loss, reason = "lengths are below 2^53")]
fn real(len: usize) -> f64 {
    len as f64
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn one_wrong_bit_is_seen() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key: Bits = (0..5_000).map(|i| i % 3 == 0).collect();
        let hash = KeyHash::draw(&key, 1e-15, &mut rng);
        assert!(compare(&key, &hash, 1e-15).is_some());
        for at in [0, 1, 63, 64, 4_999] {
            let mut other = key.clone();
            other.flip(at);
            assert!(compare(&other, &hash, 1e-15).is_none(), "bit {at}");
        }
        let short = KeyHash { value: hash.value[..4].to_vec(), ..hash };
        assert!(compare(&key, &short, 1e-15).is_none());
    }

    #[test]
    fn hash_lengths_meet_epsilon() {
        // 7,815 blocks at 10^6 bits: 50 + 12.9 bits fit 64. At 10^7 bits 66.1 bits are needed.
        assert_eq!(hash_len(1_000_000, 1e-15), 8);
        assert_eq!(hash_len(10_000_000, 1e-15), 9);
        assert_eq!(excess_bits(1_000_000, 1e-15), 14);
        assert!(hash_len(10_000_000, 1e-30) <= 16);
    }
}
