//! Rice coding of gaps: how sifting says slots, bases, matches and intensities in few bits.
//!
//! All that sifting says is a set of rare positions in a long row: slots with a click, detections in the rarer basis,
//! those that do not match. Independent rare events have geometric gaps, and for those a Rice code (Golomb 1966;
//! Rice and Plaunt 1971) with the right parameter is within 4 % of the entropy `h(p)/p` bits for each.
//!
//! ```text
//! gap g, parameter k:  g >> k ones, a zero, the low k bits of g   (low bit first)
//! g >> k >= 40:        40 ones, then g in 64 bits
//! ```
//!
//! The parameter is a function of the gaps, and the decoder refuses another one: one set has one encoding.

use types::codec::{CodecError, Reader, Writer};

/// Writes gaps: parameter u8, then the codes as whole bytes. Their number is known to the reader.
pub(crate) fn write_gaps(gaps: &[u64], w: &mut Writer) {
    let k = parameter(gaps);
    w.u8(u8::try_from(k).expect("a parameter is below 64"));
    let mut out = BitWriter::default();
    for gap in gaps {
        let ones = gap >> k;
        if ones >= ESCAPE {
            out.put(u64::MAX, u32::try_from(ESCAPE).expect("small"));
            out.put(*gap & u64::from(u32::MAX), 32);
            out.put(*gap >> 32, 32);
        } else {
            let ones = u32::try_from(ones).expect("below the escape");
            out.put((1 << ones) - 1, ones + 1);
            out.put(gap & ((1 << k) - 1), k);
        }
    }
    w.put(&out.finish());
}

/// Reads as many gaps as the caller knows there are; their number was checked against its maximum.
pub(crate) fn read_gaps(r: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, CodecError> {
    let wrong = CodecError::Value { field: "gaps" };
    let k = u32::from(r.u8("parameter")?);
    if k > PARAMETER_MAX {
        return Err(wrong);
    }
    let mut bits = BitReader { reader: r, word: 0, held: 0 };
    // A code has at least one bit, so the bytes that are there justify the memory.
    let mut gaps = Vec::with_capacity(count.min(8 * bits.reader.left()));
    for _ in 0..count {
        let mut ones = 0;
        while ones < ESCAPE && bits.take(1)? == 1 {
            ones += 1;
        }
        gaps.push(if ones == ESCAPE {
            let gap = bits.take(32)? | bits.take(32)? << 32;
            if gap >> k < ESCAPE {
                return Err(wrong);
            }
            gap
        } else {
            ones << k | bits.take(k)?
        });
    }
    bits.finish()?;
    if parameter(&gaps) == k { Ok(gaps) } else { Err(wrong) }
}

/// Gaps between ascending positions: the first counts from 0, each later one from behind the one before.
pub(crate) fn gaps_of(positions: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut next = 0;
    let gap = |position: u64| {
        let gap = position - next;
        next = position.saturating_add(1);
        gap
    };
    positions.map(gap).collect()
}

/// The positions again; `None` if one is at or beyond `end`.
pub(crate) fn positions_of(gaps: &[u64], end: u64) -> Option<Vec<u64>> {
    let mut next = Some(0_u64);
    let position = |gap: &u64| {
        let position = next?.checked_add(*gap).filter(|position| *position < end)?;
        next = position.checked_add(1);
        Some(position)
    };
    gaps.iter().map(position).collect()
}

/// The best parameter for geometric gaps of this mean m: `log2(0.9624 (m + 1/2))`, rounded down (Kiely, IPN Progress
/// Report 42-159, 2004: `1 + log2(ln(phi - 1) / ln(1 - p))`).
fn parameter(gaps: &[u64]) -> u32 {
    let sum: u128 = gaps.iter().map(|gap| u128::from(*gap)).sum();
    let count = u128::try_from(gaps.len().max(1)).expect("a length fits 128 bits");
    let scaled = (2 * sum + count) * KIELY / ((2 * count) << KIELY_BITS);
    scaled.checked_ilog2().unwrap_or(0).min(PARAMETER_MAX)
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    held: u32,
}

impl BitWriter {
    /// Appends the low `count` bits, at most 57, low bit first.
    fn put(&mut self, value: u64, count: u32) {
        let value = value & ((1 << count) - 1);
        self.word |= value << self.held;
        self.held += count;
        while self.held >= 8 {
            let [low, ..] = self.word.to_le_bytes();
            self.bytes.push(low);
            self.word >>= 8;
            self.held -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            let [low, ..] = self.word.to_le_bytes();
            self.bytes.push(low);
        }
        self.bytes
    }
}

struct BitReader<'a, 'b> {
    reader: &'a mut Reader<'b>,
    word: u64,
    held: u32,
}

impl BitReader<'_, '_> {
    /// The next `count` bits, at most 57.
    fn take(&mut self, count: u32) -> Result<u64, CodecError> {
        while self.held < count {
            self.word |= u64::from(self.reader.u8("gaps")?) << self.held;
            self.held += 8;
        }
        let value = self.word & ((1 << count) - 1);
        self.word >>= count;
        self.held -= count;
        Ok(value)
    }

    /// Filling bits are zero.
    fn finish(self) -> Result<(), CodecError> {
        if self.word == 0 { Ok(()) } else { Err(CodecError::Value { field: "gaps" }) }
    }
}

/// Ones that announce a gap in 64 bits. With it a code never has more than 57 bits in one piece.
const ESCAPE: u64 = 40;
/// Larger gaps than this can tell are escaped.
const PARAMETER_MAX: u32 = 48;
/// -2 ln(phi - 1), phi the golden ratio, as a fraction.
const KIELY: u128 = 63_073;
const KIELY_BITS: u32 = 16;

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    fn round_trip(gaps: &[u64]) -> usize {
        let mut w = Writer::new();
        write_gaps(gaps, &mut w);
        let wire = w.finish();
        let mut r = Reader::new(&wire);
        assert_eq!(read_gaps(&mut r, gaps.len()).unwrap(), gaps);
        r.end().unwrap();
        wire.len()
    }

    proptest! {
        #[test]
        fn any_gaps_come_back(gaps in proptest::collection::vec(prop_oneof![0_u64..9, 0_u64..5_000, any::<u64>()], 0..60)) {
            round_trip(&gaps);
        }

        #[test]
        fn what_decodes_has_one_encoding(wire in proptest::collection::vec(any::<u8>(), 1..40), count in 0_usize..30) {
            let mut r = Reader::new(&wire);
            if let Ok(gaps) = read_gaps(&mut r, count) {
                let mut w = Writer::new();
                write_gaps(&gaps, &mut w);
                prop_assert_eq!(&w.finish()[..], &wire[..wire.len() - r.left()]);
            }
        }

        #[test]
        fn positions_and_gaps(mut positions in proptest::collection::vec(any::<u64>(), 0..50)) {
            positions.sort_unstable();
            positions.dedup();
            let end = positions.last().map_or(0, |last| last.saturating_add(1));
            prop_assume!(end < u64::MAX);
            let gaps = gaps_of(positions.iter().copied());
            prop_assert_eq!(positions_of(&gaps, end).unwrap(), positions.clone());
            prop_assert_eq!(positions_of(&gaps, end.saturating_sub(1)).is_none(), !positions.is_empty());
        }
    }

    /// Entropy of a geometric gap is h(p)/p: 11.4 bits at 1e-3, 18.1 at 1e-5.
    #[test]
    fn clicks_cost_little_more_than_their_entropy() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        for (p, entropy) in [(1e-3_f64, 11.41), (1e-5, 18.05), (0.15, 4.066), (0.3, 2.938)] {
            let draw = |rng: &mut ChaCha20Rng| {
                let uniform = (rng.next_u32() as f64 + 0.5) / 4_294_967_296.0;
                (uniform.ln() / (1.0 - p).ln()) as u64
            };
            let gaps: Vec<u64> = (0..50_000).map(|_| draw(&mut rng)).collect();
            let bits = (8 * round_trip(&gaps)) as f64 / 50_000.0;
            assert!(bits < 1.045 * entropy, "p = {p}: {bits} bits each, entropy {entropy}");
        }
    }

    #[test]
    fn wrong_codes_are_refused() {
        let vectors: [(&str, &[u8], usize); 5] = [
            ("a parameter that is not the gaps' own", &[3, 0], 1),
            ("a parameter beyond the largest", &[60, 0], 0),
            ("bits after the last code", &[0, 0b10], 1),
            ("fewer codes than said", &[0, 0], 9),
            ("an escape that was not needed", &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0], 1),
        ];
        for (name, wire, count) in vectors {
            assert!(read_gaps(&mut Reader::new(wire), count).is_err(), "{name}");
        }
    }
}
