//! Hides record headers on a stream, where framing needs only the length: suite, class and position say when
//! commands are sent and how much key is left.
//!
//! The mask is AES-256 in counter mode over a nonce out of the record's own tag, under a key derived from the
//! session's seed. It is computational and guards nothing else: the header is under the record's tag as ever, so a
//! changed mask is a changed header. Datagrams, which must be readable without a session, go without.

use crypto::aead::{AeadKey, NONCE_LEN};
use crypto::domain::Domain;
use crypto::kdf;
use crypto::secret::{Key256, SecretBytes};

use crate::record::{Direction, HEADER_LEN, OVERHEAD, TAG_LEN};

/// Hides and shows the headers of one direction of a session.
#[derive(Debug)]
pub struct HeaderMask(AeadKey);

impl HeaderMask {
    /// From the epoch seed that came with the opening. `None` if it has not 32 bytes.
    #[must_use]
    pub fn new(direction: Direction, seed: &SecretBytes) -> Option<Self> {
        let seed = Key256::from_secret(seed)?;
        let way: &[u8] = match direction {
            Direction::Down => b"down",
            Direction::Up => b"up",
        };
        Some(Self(AeadKey::new(&kdf::derive(&seed, Domain::TerminalHeader, &[way]))))
    }

    /// Hides the header of a record, or shows a hidden one. What is too short to be a record stays as it is.
    pub fn apply(&self, record: &mut [u8]) {
        if record.len() < OVERHEAD {
            return;
        }
        let (head, rest) = record.split_at_mut(HEADER_LEN);
        let Some(sample) = rest.len().checked_sub(TAG_LEN).and_then(|tag| rest.get(tag..tag + NONCE_LEN)) else {
            return;
        };
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(sample);
        // The keystream of GCM is counter mode; its tag is not used. Equal samples (2^-96 a pair) would show the
        // difference of two headers.
        let mut mask = [0; HEADER_LEN];
        let _ = self.0.seal(nonce, &[], &mut mask);
        head.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_mask_goes_on_and_off_and_differs_by_direction_and_record() {
        let seed = SecretBytes::copy_of(&[9; 32]);
        let mask = HeaderMask::new(Direction::Down, &seed).unwrap();
        let record: Vec<u8> = (0..80).collect();
        let mut hidden = record.clone();
        mask.apply(&mut hidden);
        assert_ne!(hidden[..HEADER_LEN], record[..HEADER_LEN]);
        assert_eq!(hidden[HEADER_LEN..], record[HEADER_LEN..]);
        let mut other = record.clone();
        other[70] ^= 1;
        mask.apply(&mut other);
        assert_ne!(hidden[..HEADER_LEN], other[..HEADER_LEN]);
        let mut up = record.clone();
        HeaderMask::new(Direction::Up, &seed).unwrap().apply(&mut up);
        assert_ne!(hidden, up);
        mask.apply(&mut hidden);
        assert_eq!(hidden, record);
        for len in 0..OVERHEAD {
            let mut short = record[..len].to_vec();
            mask.apply(&mut short);
            assert_eq!(short, record[..len]);
        }
    }
}
