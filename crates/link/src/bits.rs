//! Bit strings in 64-bit words, wiped on drop, silent in `Debug`.
//!
//! Bit `i` is bit `i % 64` of word `i / 64`; on the wire it is bit `i % 8` of byte `i / 8`. Bits beyond the length
//! are zero in memory and must be zero on the wire.

use core::fmt;

use types::codec::{CodecError, Reader, Writer};
use zeroize::Zeroizing;

/// A bit string; secret by default.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bits {
    words: Zeroizing<Vec<u64>>,
    len: usize,
}

impl Bits {
    /// An empty string that takes up to `capacity` bits without moving (a move would leave a copy behind).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { words: Zeroizing::new(Vec::with_capacity(capacity.div_ceil(64))), len: 0 }
    }

    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { words: Zeroizing::new(vec![0; len.div_ceil(64)]), len }
    }

    /// The first `len` bits of these bytes; `None` if there are fewer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        let bytes = bytes.get(..len.div_ceil(8))?;
        let mut bits = Self::zeros(len);
        for (word, chunk) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(padded);
        }
        bits.mask_last();
        Some(bits)
    }

    /// `len` bits from words that have zeros beyond them.
    pub(crate) fn from_words(words: impl ExactSizeIterator<Item = u64>, len: usize) -> Self {
        assert_eq!(words.len(), len.div_ceil(64), "as many words as the bits need");
        let mut all = Zeroizing::new(Vec::with_capacity(words.len()));
        all.extend(words);
        Self { words: all, len }
    }

    /// The first `len` bits of exactly as many words as they need.
    pub(crate) fn from_words_masked(words: Zeroizing<Vec<u64>>, len: usize) -> Self {
        assert_eq!(words.len(), len.div_ceil(64), "as many words as the bits need");
        let mut bits = Self { words, len };
        bits.mask_last();
        bits
    }

    /// Zeroes what lies beyond the length.
    fn mask_last(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= u64::MAX >> (64 - self.len % 64);
        }
    }

    /// The bits as bytes; the last byte is filled up with zeros.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.words.len() * 8));
        self.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.truncate(self.len.div_ceil(8));
        out
    }

    /// Number of bits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no bit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit `index`.
    ///
    /// # Panics
    /// If it is not inside.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit index inside");
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets bit `index`.
    ///
    /// # Panics
    /// If it is not inside.
    #[inline]
    pub fn set(&mut self, index: usize, bit: bool) {
        assert!(index < self.len, "bit index inside");
        let word = &mut self.words[index / 64];
        *word = *word & !(1 << (index % 64)) | u64::from(bit) << (index % 64);
    }

    /// Turns bit `index` over.
    ///
    /// # Panics
    /// If it is not inside.
    #[inline]
    pub fn flip(&mut self, index: usize) {
        assert!(index < self.len, "bit index inside");
        self.words[index / 64] ^= 1 << (index % 64);
    }

    /// Appends a bit.
    #[inline]
    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    /// The words, 64 bits each.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Parity of the bits from `start` to before `end`.
    ///
    /// # Panics
    /// If the range is empty or not inside.
    #[must_use]
    #[inline]
    pub fn parity(&self, start: usize, end: usize) -> bool {
        assert!(start < end && end <= self.len, "range inside");
        let (first, last) = (start / 64, (end - 1) / 64);
        let head = u64::MAX << (start % 64);
        let tail = u64::MAX >> (63 - (end - 1) % 64);
        let folded = if first == last {
            self.words[first] & head & tail
        } else {
            let middle = self.words[first + 1..last].iter().fold(0, |sum, word| sum ^ word);
            middle ^ (self.words[first] & head) ^ (self.words[last] & tail)
        };
        folded.count_ones() & 1 == 1
    }

    /// Parity of the bits from `start` to before `end` whose bit in `subset` is `member`.
    ///
    /// # Panics
    /// If the range is empty or not inside both.
    #[must_use]
    #[inline]
    pub(crate) fn parity_where(&self, subset: &Self, member: bool, start: usize, end: usize) -> bool {
        assert!(start < end && end <= self.len && end <= subset.len, "range inside");
        let (first, last) = (start / 64, (end - 1) / 64);
        let (head, tail) = (u64::MAX << (start % 64), u64::MAX >> (63 - (end - 1) % 64));
        let flipped = if member { 0 } else { u64::MAX };
        let chosen = |at: usize| self.words[at] & (subset.words[at] ^ flipped);
        let folded = if first == last {
            chosen(first) & head & tail
        } else {
            let middle = self.words[first + 1..last].iter().zip(&subset.words[first + 1..last]);
            let middle = middle.fold(0, |sum, (word, subset)| sum ^ (word & (subset ^ flipped)));
            middle ^ (chosen(first) & head) ^ (chosen(last) & tail)
        };
        folded.count_ones() & 1 == 1
    }

    /// The 64 bits from `start`; bits beyond the end are zero.
    #[must_use]
    #[inline]
    pub(crate) fn word_at(&self, start: usize) -> u64 {
        let (at, shift) = (start / 64, start % 64);
        let low = self.words.get(at).copied().unwrap_or(0) >> shift;
        let high = self.words.get(at + 1).copied().unwrap_or(0);
        if shift == 0 { low } else { low | high << (64 - shift) }
    }

    /// Appends the first `count` bits of another string.
    pub(crate) fn append(&mut self, other: &Self, count: usize) {
        for (index, word) in other.words[..count.div_ceil(64)].iter().enumerate() {
            let taken = (count - 64 * index).min(64);
            let word = word & (u64::MAX >> (64 - taken));
            let shift = self.len % 64;
            if shift == 0 {
                self.words.push(word);
            } else {
                let last = self.words.len() - 1;
                self.words[last] |= word << shift;
                if shift + taken > 64 {
                    self.words.push(word >> (64 - shift));
                }
            }
            self.len += taken;
        }
    }

    /// Copies `len` bits from `start`; bits beyond the end are zero.
    #[must_use]
    pub fn window(&self, start: usize, len: usize) -> Self {
        let mut out = Self::zeros(len);
        for (index, word) in out.words.iter_mut().enumerate() {
            *word = self.word_at(start + 64 * index);
        }
        out.mask_last();
        out
    }

    /// The largest marked index at or before `index`.
    pub(crate) fn previous_one(&self, index: usize) -> Option<usize> {
        let mut at = index / 64;
        let mut word = self.words.get(at)? & (u64::MAX >> (63 - index % 64));
        loop {
            if word != 0 {
                return Some(at * 64 + 63 - word.leading_zeros() as usize);
            }
            at = at.checked_sub(1)?;
            word = *self.words.get(at)?;
        }
    }

    /// The smallest marked index at or after `index`.
    pub(crate) fn next_one(&self, index: usize) -> Option<usize> {
        let mut at = index / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (index % 64));
        loop {
            if word != 0 {
                return Some(at * 64 + word.trailing_zeros() as usize);
            }
            at += 1;
            word = *self.words.get(at)?;
        }
    }

    /// Writes a count and the bits; for bits that are public.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.count(self.len).put(&self.to_bytes());
    }

    /// Reads a count of at most `max` and the bits.
    pub(crate) fn read(r: &mut Reader<'_>, field: &'static str, max: usize) -> Result<Self, CodecError> {
        let len = r.count(field, max)?;
        let bytes = r.take(field, len.div_ceil(8))?;
        if !len.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (len % 8) != 0) {
            return Err(CodecError::Value { field });
        }
        Ok(Self::from_bytes(bytes, len).expect("the bytes were just taken for this length"))
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(iter: I) -> Self {
        let iter = iter.into_iter();
        let mut bits = Self::with_capacity(iter.size_hint().0);
        iter.for_each(|bit| bits.push(bit));
        bits
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bits({}, [REDACTED])", self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_agree_with_a_vector_of_bools(model in proptest::collection::vec(any::<bool>(), 1..300), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let mut bits: Bits = model.iter().copied().collect();
            let (a, b) = (a.index(model.len()), b.index(model.len()));
            let (start, end) = (a.min(b), a.max(b) + 1);
            prop_assert_eq!(bits.parity(start, end), model[start..end].iter().filter(|bit| **bit).count() % 2 == 1);
            prop_assert_eq!(bits.previous_one(a), (0..=a).rev().find(|i| model[*i]));
            prop_assert_eq!(bits.next_one(a), (a..model.len()).find(|i| model[*i]));
            let window = bits.window(start, end - start + 70);
            for i in 0..window.len() {
                prop_assert_eq!(window.get(i), model.get(start + i).copied().unwrap_or(false));
            }
            prop_assert_eq!(bits.word_at(start) & 1 == 1, model[start]);
            for member in [true, false] {
                let subset = bits.window(1, bits.len());
                let ones = (start..end).filter(|i| model[*i] && subset.get(*i) == member).count();
                prop_assert_eq!(bits.parity_where(&subset, member, start, end), ones % 2 == 1);
            }
            let mut joined = bits.window(0, b);
            joined.append(&bits, end);
            joined.append(&bits, a);
            let parts = model[..b].iter().chain(&model[..end]).chain(&model[..a]);
            prop_assert_eq!(&joined, &parts.copied().collect());
            let mut w = Writer::new();
            bits.write(&mut w);
            let wire = w.finish();
            prop_assert_eq!(&Bits::read(&mut Reader::new(&wire), "bits", 300).unwrap(), &bits);
            bits.flip(a);
            prop_assert_eq!(bits.get(a), !model[a]);
        }
    }

    #[test]
    fn filling_bits_must_be_zero() {
        assert!(Bits::read(&mut Reader::new(&[0, 0, 0, 3, 0b0000_0111]), "bits", 8).is_ok());
        let bent = Bits::read(&mut Reader::new(&[0, 0, 0, 3, 0b0000_1111]), "bits", 8);
        assert_eq!(bent, Err(CodecError::Value { field: "bits" }));
        assert!(Bits::read(&mut Reader::new(&[0, 0, 0, 9, 1, 1]), "bits", 8).is_err());
    }
}
