//! A code that notices changes by somebody who cannot read: algebraic manipulation detection (AMD).
//!
//! Whoever holds one share of a sum can add any offset to the sum without knowing it. A systematic AMD code notices
//! that with no key that the ends share beforehand (Cramer, Dodis, Fehr, Padró and Wichs, Eurocrypt 2008, 5):
//!
//! ```text
//! code word   message | x | f         x random, 16 bytes; f = c_n x^n + c_(n-1) x^(n-1) + ... + c_1 x  in GF(2^128)
//! c_n ...     label, padded with zeros to 32 bytes or more | length of each known part and of the message, 8 bytes
//!             each | known parts | message, each padded to 16 bytes | 16 zero bytes if n would be even
//! ```
//! The field and its coding are POLYVAL's (RFC 8452), whose hash key x times a fixed element is the x above. Known
//! parts are not in the word: both ends have them, and whoever changes them at one end is noticed likewise.
//!
//! **Noticed.** An attacker who chooses offsets to message, x and f, and other known parts, independently of x (the
//! message he may know) passes with another message or other known parts with probability n / 2^128 at most. To pass,
//! x must be a root of `p'(x + dx) - p(x) + df`, where p and p' are the polynomials of both ends. This is not the zero
//! polynomial: if the degrees differ, the label, which is not zero, leads it; if they are equal and dx is not 0, the
//! coefficient of `x^(n-1)` is `n c_n dx`, and n is odd (the paper's condition on the exponent in characteristic 2; the
//! second block is constant); if dx is 0, a changed block stands behind some power of x. A polynomial of degree n has n
//! roots at most.
//!
//! **Hidden.** The word hides nothing by itself: shares do. x says nothing about message, so the receiver may show it
//! after the check: who shows it had the whole word ([`Proof`]).

use alloc::vec::Vec;
use core::fmt;

use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Error;
use crate::domain::Domain;
use crate::secret::SecretBytes;

/// Bytes by which a code word is longer than its message.
pub const CHECK_LEN: usize = 2 * BLOCK;

/// The random part of one code word: who shows it had the word. Shown once, by the receiver, after the check.
pub struct Proof(SecretBytes);

impl Proof {
    /// Bytes of a proof.
    pub const LEN: usize = BLOCK;

    /// Gives the proof up to whoever made the word; it says nothing about the message.
    #[must_use]
    pub fn show(self) -> [u8; Self::LEN] {
        let shown = self.0.into_public("independent of the message, and the word was checked");
        shown.try_into().expect("a proof is made with this length")
    }

    /// Whether this is what was shown; compared in constant time.
    #[must_use]
    pub fn is(&self, shown: &[u8; Self::LEN]) -> bool {
        self.0.expose(|proof| proof.ct_eq(shown)).into()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof([REDACTED])")
    }
}

/// The code word of a message, and what its receiver will show.
pub fn encode(
    domain: Domain,
    known: &[&[u8]],
    message: &SecretBytes,
    rng: &mut impl CryptoRng,
) -> (SecretBytes, Proof) {
    let proof = SecretBytes::random(Proof::LEN, rng);
    let word = message.expose(|message| {
        proof.expose(|x| {
            let mut word = Zeroizing::new(Vec::with_capacity(message.len() + CHECK_LEN));
            word.extend_from_slice(message);
            word.extend_from_slice(x);
            word.extend_from_slice(&*check_value(domain, known, message, x));
            SecretBytes::copy_of(&word)
        })
    });
    (word, Proof(proof))
}

/// The message of a code word, and what proves that the word came whole.
///
/// # Errors
/// [`Error::NotAuthentic`] if the word or the known parts are not what was encoded, [`Error::Malformed`] if the word
/// is too short.
pub fn decode(domain: Domain, known: &[&[u8]], mut word: SecretBytes) -> Result<(SecretBytes, Proof), Error> {
    let malformed = Error::Malformed { what: "a code word" };
    let len = word.len().checked_sub(CHECK_LEN).ok_or(malformed)?;
    let message = word.split_front(len).ok_or(malformed)?;
    let proof = word.split_front(Proof::LEN).ok_or(malformed)?;
    let expected = message.expose(|message| proof.expose(|x| check_value(domain, known, message, x)));
    if bool::from(word.expose(|check| check.ct_eq(&*expected))) {
        Ok((message, Proof(proof)))
    } else {
        Err(Error::NotAuthentic)
    }
}

fn check_value(domain: Domain, known: &[&[u8]], message: &[u8], x: &[u8]) -> Zeroizing<[u8; BLOCK]> {
    let mut key = Zeroizing::new([0; BLOCK]);
    key.copy_from_slice(x);
    let mut poly = Polyval::new((&*key).into());
    let mut lengths = Vec::with_capacity(8 * (known.len() + 1));
    let parts = || known.iter().copied().chain([message]);
    parts().for_each(|part| lengths.extend_from_slice(&(part.len() as u64).to_le_bytes()));
    let (label, zeros) = (domain.label(), [0; BLOCK]);
    let second = if label.len() > BLOCK { &[][..] } else { &zeros[..] };
    let head = [label, second, &lengths];
    let blocks: usize = head.into_iter().chain(parts()).map(|part| part.len().div_ceil(BLOCK)).sum();
    let odd = if blocks.is_multiple_of(2) { &zeros[..] } else { &[][..] };
    head.into_iter().chain(parts()).chain([odd]).for_each(|part| poly.update_padded(part));
    Zeroizing::new(poly.finalize().into())
}

const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    const DOMAIN: Domain = Domain::RelayCombined;

    fn rng() -> ChaCha12Rng {
        ChaCha12Rng::from_seed([3; 32])
    }

    fn with(word: &SecretBytes, offset: &[u8]) -> SecretBytes {
        SecretBytes::from_vec(word.expose(|word| word.iter().zip(offset).map(|(bits, more)| bits ^ more).collect()))
    }

    #[test]
    fn a_word_comes_back_and_its_proof_is_the_same_at_both_ends() {
        let message = SecretBytes::from_vec((0..64).collect());
        let (word, proof) = encode(DOMAIN, &[b"way", b""], &message, &mut rng());
        assert_eq!(word.len(), message.len() + CHECK_LEN);
        let (came, shown) = decode(DOMAIN, &[b"way", b""], word.duplicate()).unwrap();
        assert!(came == message && proof.is(&shown.show()));
        assert!(!proof.is(&[0; 16]) && alloc::format!("{proof:?}").contains("REDACTED"));
        assert!(decode(DOMAIN, &[b"way ", b""], word.duplicate()).is_err(), "another known part");
        assert!(decode(DOMAIN, &[b"way"], word.duplicate()).is_err(), "a part less");
        assert!(decode(DOMAIN, &[b"", b"way"], word.duplicate()).is_err(), "the parts in another order");
        assert!(decode(Domain::RelayHop, &[b"way", b""], word).is_err(), "another purpose");
        assert!(decode(DOMAIN, &[], SecretBytes::from_vec(alloc::vec![0; CHECK_LEN - 1])).is_err(), "too short");
    }

    #[test]
    fn every_one_of_a_hundred_thousand_offsets_is_noticed() {
        let mut rng = rng();
        let message = SecretBytes::random(256, &mut rng);
        let mut offset = alloc::vec![0; message.len() + CHECK_LEN];
        for turn in 0..100_000_u32 {
            let (word, _) = encode(DOMAIN, &[b"ways"], &message, &mut rng);
            // One bit, one place of message, x or f, or all of it.
            offset.fill(0);
            let at = rng.next_u32() as usize % offset.len();
            match turn % 4 {
                0 => offset[at] = 1 << (turn % 8),
                1 => rng.fill_bytes(&mut offset[at..]),
                2 => rng.fill_bytes(&mut offset[..=at]),
                _ => rng.fill_bytes(&mut offset),
            }
            let touched = offset.iter().any(|byte| *byte != 0);
            assert_eq!(decode(DOMAIN, &[b"ways"], with(&word, &offset)).is_err(), touched, "turn {turn}");
        }
    }

    /// `p(x + dx)` for known p: what an attacker who knows the message would make of it without the leading label.
    #[test]
    fn who_knows_the_message_and_shifts_x_gains_nothing() {
        let mut rng = rng();
        // A message whose blocks are equal, or zero, and an offset to x alone.
        for message in [alloc::vec![0; 64], alloc::vec![7; 64], Vec::new()] {
            let message = SecretBytes::from_vec(message);
            for _ in 0..1_000 {
                let (word, _) = encode(DOMAIN, &[], &message, &mut rng);
                let mut offset = alloc::vec![0; word.len()];
                rng.fill_bytes(&mut offset[message.len()..message.len() + 16]);
                assert!(decode(DOMAIN, &[], with(&word, &offset)).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn other_known_parts_of_any_length_are_noticed(
            one in proptest::collection::vec(any::<u8>(), 0..80),
            other in proptest::collection::vec(any::<u8>(), 0..80),
            message in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let message = SecretBytes::from_vec(message);
            let (word, _) = encode(DOMAIN, &[&one], &message, &mut rng());
            prop_assert_eq!(decode(DOMAIN, &[&other], word).is_ok(), one == other);
        }
    }
}
