//! End-to-end keys of one ordered pair of sites.
//!
//! The owner made them and takes them from the front; the holder keeps the same keys until the owner assigns them.
//! A key is named by the relay that carried it and its index there. The holder is the arbiter: a key that it gave
//! up once is gone, so no two assignments can have it, whatever the owner remembers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crypto::secret::SecretBytes;
use types::id::KeyId;

use crate::config::{BATCH_MAX, PAIR_KEY_BYTES};

/// Consecutive keys of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The relay that carried them.
    pub relay: KeyId,
    /// Index of the first.
    pub first: u16,
    /// How many, at least 1.
    pub count: u16,
}

impl Run {
    /// The indexes of the keys.
    pub(crate) fn indexes(self) -> Range<u16> {
        self.first..self.first.saturating_add(self.count)
    }

    /// Bytes of all keys.
    pub(crate) fn bytes(self) -> usize {
        usize::from(self.count) * PAIR_KEY_BYTES
    }
}

/// Some keys of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySet {
    /// The relay that carried them.
    pub relay: KeyId,
    /// Bit `i` stands for key `i`; not 0.
    pub keys: u64,
}

impl KeySet {
    /// All keys that a relay may have carried.
    #[must_use]
    pub fn whole(relay: KeyId) -> Self {
        Self { relay, keys: u64::MAX }
    }

    /// The keys as runs.
    pub(crate) fn runs(self) -> impl Iterator<Item = Run> {
        let mut left = self.keys;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            let count = (left.checked_shr(first)?).trailing_ones();
            let ones = u64::MAX >> (64 - count);
            left &= !(ones << first);
            let run = |n: u32| u16::try_from(n).expect("a set has 64 bits");
            Some(Run { relay: self.relay, first: run(first), count: run(count) })
        })
    }
}

#[derive(Debug)]
struct Segment {
    relay: KeyId,
    first: u16,
    /// Bytes at the front that were taken and wiped.
    taken: usize,
    keys: SecretBytes,
}

impl Segment {
    fn left(&self) -> usize {
        (self.keys.len() - self.taken) / PAIR_KEY_BYTES
    }

    fn run(&self) -> Run {
        let first = self.first + as_keys(self.taken);
        Run { relay: self.relay, first, count: as_keys(self.left() * PAIR_KEY_BYTES) }
    }

    /// The part of what is left that a run names.
    fn part(&self, run: Run) -> Self {
        let start = usize::from(run.first - self.first) * PAIR_KEY_BYTES;
        let keys = self.keys.part(start, run.bytes()).expect("the run lies inside the segment");
        Self { relay: self.relay, first: run.first, taken: 0, keys }
    }
}

/// Keys that this site made for one peer.
#[derive(Debug, Default)]
pub(crate) struct OwnStock {
    segments: VecDeque<Segment>,
    ready: usize,
    /// Keys ready or bound, by relay, as bits.
    known: BTreeMap<KeyId, u64>,
}

impl OwnStock {
    /// Keys that can be taken.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// The keys of a relay that are ready or bound, as bits.
    pub(crate) fn known(&self, relay: KeyId) -> u64 {
        self.known.get(&relay).copied().unwrap_or_default()
    }

    /// Adds keys of a relay at the back.
    pub(crate) fn add(&mut self, relay: KeyId, first: u16, keys: SecretBytes) {
        assert!(!keys.is_empty() && keys.len().is_multiple_of(PAIR_KEY_BYTES), "stock holds whole keys");
        let segment = Segment { relay, first, taken: 0, keys };
        let mask = mask(segment.run()).expect("a batch has at most 64 keys");
        let known = self.known.entry(relay).or_default();
        assert!(*known & mask == 0, "a key is added once");
        *known |= mask;
        self.ready += segment.left();
        self.segments.push_back(segment);
    }

    /// Takes keys from the front; they stay known until [`Self::forget`]. All or nothing.
    pub(crate) fn take(&mut self, count: usize) -> Option<(Vec<Run>, SecretBytes)> {
        if count > self.ready {
            return None;
        }
        let mut runs = Vec::new();
        let mut stream = SecretBytes::from_vec(vec![0; count * PAIR_KEY_BYTES]);
        let mut filled = 0;
        while filled < stream.len() {
            let segment = self.segments.front_mut().expect("ready counts what the segments hold");
            let len = (stream.len() - filled).min(segment.left() * PAIR_KEY_BYTES);
            let start = segment.taken;
            segment.keys.expose_mut(|keys| {
                stream.expose_mut(|stream| stream[filled..filled + len].copy_from_slice(&keys[start..start + len]));
                keys[start..start + len].fill(0);
            });
            runs.push(Run { relay: segment.relay, first: segment.first + as_keys(start), count: as_keys(len) });
            segment.taken += len;
            filled += len;
            if segment.left() == 0 {
                self.segments.pop_front();
            }
        }
        self.ready -= count;
        Some((runs, stream))
    }

    /// Puts taken keys back to the front.
    pub(crate) fn put_back(&mut self, runs: &[Run], stream: &SecretBytes) {
        let mut end = stream.len();
        for run in runs.iter().rev() {
            let start = end - run.bytes();
            let keys = stream.part(start, run.bytes()).expect("the stream is as long as its runs");
            self.segments.push_front(Segment { relay: run.relay, first: run.first, taken: 0, keys });
            self.ready += usize::from(run.count);
            end = start;
        }
    }

    /// Forgets keys that were taken and are consumed or burned.
    pub(crate) fn forget(&mut self, runs: &[Run]) {
        for run in runs {
            let mask = mask(*run).expect("runs of our own lie within a batch");
            let known = self.known.get_mut(&run.relay).expect("taken keys are known until forgotten");
            assert!(*known & mask == mask, "taken keys are known until forgotten");
            *known &= !mask;
            if *known == 0 {
                self.known.remove(&run.relay);
            }
        }
    }

    /// Drops ready keys that the holder does not hold; `held` says which it holds of a relay, as bits.
    pub(crate) fn drop_unheld(&mut self, held: impl Fn(KeyId) -> u64) -> Vec<Run> {
        let mut dropped = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            let run = segment.run();
            let left = mask(run).expect("a batch has at most 64 keys");
            let held = held(run.relay);
            if left & !held == 0 {
                self.segments.push_back(segment);
                continue;
            }
            dropped.extend(KeySet { relay: run.relay, keys: left & !held }.runs());
            let kept = KeySet { relay: run.relay, keys: left & held }.runs();
            self.segments.extend(kept.map(|run| segment.part(run)));
        }
        self.ready -= dropped.iter().map(|run| usize::from(run.count)).sum::<usize>();
        self.forget(&dropped);
        dropped
    }
}

#[derive(Debug)]
struct HeldBatch {
    keys: SecretBytes,
    /// Bit `i` says that key `i` is still here.
    present: u64,
}

/// Keys that a peer made and this site holds.
#[derive(Debug, Default)]
pub(crate) struct HeldStock {
    batches: BTreeMap<KeyId, HeldBatch>,
    count: usize,
}

impl HeldStock {
    /// Keys held.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// All keys that are held.
    pub(crate) fn sets(&self) -> impl ExactSizeIterator<Item = KeySet> {
        self.batches.iter().map(|(relay, batch)| KeySet { relay: *relay, keys: batch.present })
    }

    /// Whether any key of the relay is held.
    pub(crate) fn has(&self, relay: KeyId) -> bool {
        self.batches.contains_key(&relay)
    }

    /// Adds one key.
    pub(crate) fn add(&mut self, relay: KeyId, index: u16, key: &SecretBytes) {
        assert!(index < BATCH_MAX && key.len() == PAIR_KEY_BYTES, "a batch is small and holds whole keys");
        let batch = self.batches.entry(relay).or_insert_with(|| HeldBatch {
            keys: SecretBytes::from_vec(vec![0; usize::from(BATCH_MAX) * PAIR_KEY_BYTES]),
            present: 0,
        });
        let at = usize::from(index) * PAIR_KEY_BYTES;
        assert!(batch.present >> index & 1 == 0, "a key is added once");
        batch.present |= 1 << index;
        batch.keys.expose_mut(|keys| key.expose(|key| keys[at..at + PAIR_KEY_BYTES].copy_from_slice(key)));
        self.count += 1;
    }

    /// Takes keys out for good. All or nothing.
    pub(crate) fn take(&mut self, runs: &[Run]) -> Option<SecretBytes> {
        let mut claimed: BTreeMap<KeyId, u64> = BTreeMap::new();
        for run in runs {
            let wanted = mask(*run)?;
            let claimed = claimed.entry(run.relay).or_default();
            if self.batches.get(&run.relay)?.present & wanted != wanted || *claimed & wanted != 0 {
                return None;
            }
            *claimed |= wanted;
        }
        let mut stream = SecretBytes::from_vec(vec![0; runs.iter().map(|run| run.bytes()).sum()]);
        let mut filled = 0;
        for run in runs {
            let batch = self.batches.get_mut(&run.relay)?;
            let (start, len) = (usize::from(run.first) * PAIR_KEY_BYTES, run.bytes());
            batch.keys.expose_mut(|keys| {
                stream.expose_mut(|stream| stream[filled..filled + len].copy_from_slice(&keys[start..start + len]));
                keys[start..start + len].fill(0);
            });
            filled += len;
            self.remove(*run);
        }
        Some(stream)
    }

    /// Destroys what is here of some keys; says what that was.
    pub(crate) fn burn(&mut self, set: KeySet) -> Vec<Run> {
        let present = self.batches.get(&set.relay).map_or(0, |batch| batch.present);
        let runs = KeySet { relay: set.relay, keys: set.keys & present }.runs();
        runs.filter(|run| self.take(&[*run]).is_some()).collect()
    }

    fn remove(&mut self, run: Run) {
        let batch = self.batches.get_mut(&run.relay).expect("the caller found the batch");
        batch.present &= !mask(run).expect("the caller checked the run");
        self.count -= usize::from(run.count);
        if batch.present == 0 {
            self.batches.remove(&run.relay);
        }
    }
}

/// The bits of a run within a batch. `None` if it is empty or reaches beyond.
pub(crate) fn mask(run: Run) -> Option<u64> {
    let end = run.first.checked_add(run.count)?;
    if run.count == 0 || end > BATCH_MAX {
        return None;
    }
    let ones = if run.count == 64 { u64::MAX } else { (1 << run.count) - 1 };
    Some(ones << run.first)
}

fn as_keys(bytes: usize) -> u16 {
    u16::try_from(bytes / PAIR_KEY_BYTES).expect("a batch holds at most 64 keys")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> KeyId {
        KeyId::from_random([n; 16])
    }

    fn keys(from: u8, count: u8) -> SecretBytes {
        SecretBytes::from_vec((from..from + count).flat_map(|n| [n; PAIR_KEY_BYTES]).collect())
    }

    fn bytes(secret: &SecretBytes) -> Vec<u8> {
        secret.expose(<[u8]>::to_vec)
    }

    fn both(batches: &[(u8, u8, u8)]) -> (OwnStock, HeldStock) {
        let (mut own, mut held) = (OwnStock::default(), HeldStock::default());
        for &(relay, from, count) in batches {
            own.add(id(relay), 0, keys(from, count));
            for index in 0..count {
                held.add(id(relay), u16::from(index), &keys(from + index, 1));
            }
        }
        (own, held)
    }

    #[test]
    fn owner_and_holder_take_the_same_bits_and_only_once() {
        let (mut own, mut held) = both(&[(1, 0, 5), (2, 5, 64)]);
        let (runs, ours) = own.take(7).unwrap();
        assert_eq!(runs, [Run { relay: id(1), first: 0, count: 5 }, Run { relay: id(2), first: 0, count: 2 }]);
        assert_eq!(ours, keys(0, 7));
        assert_eq!(held.take(&runs).unwrap(), keys(0, 7));
        assert!(held.take(&runs).is_none());
        own.forget(&runs);
        assert_eq!((own.known(id(1)), own.known(id(2))), (0, u64::MAX << 2));
        assert_eq!((own.ready(), held.count()), (62, 62));
        assert!(own.take(63).is_none());
        assert_eq!(own.take(62).unwrap().1, keys(7, 62));
    }

    #[test]
    fn a_holder_takes_all_or_nothing_and_no_key_twice_in_one_claim() {
        let (_, mut held) = both(&[(1, 0, 8)]);
        let run = |first, count| Run { relay: id(1), first, count };
        for bad in [run(0, 9), run(8, 1), run(0, 0), run(63, 2), run(u16::MAX, 2)] {
            assert!(held.take(&[run(0, 1), bad]).is_none(), "{bad:?}");
        }
        assert!(held.take(&[run(0, 2), run(1, 1)]).is_none());
        assert_eq!(held.count(), 8);
        assert_eq!(held.burn(KeySet { relay: id(1), keys: 0b1111_0100_0010 }), [run(1, 1), run(6, 1)]);
        assert_eq!(held.burn(KeySet::whole(id(2))), []);
        assert_eq!(held.burn(KeySet::whole(id(1))), [run(0, 1), run(2, 4), run(7, 1)]);
        assert_eq!((held.count(), held.sets().len()), (0, 0));
    }

    #[test]
    fn keys_put_back_come_first_and_unheld_ones_go() {
        let (mut own, _) = both(&[(1, 0, 3), (2, 3, 3)]);
        let (runs, stream) = own.take(4).unwrap();
        own.put_back(&runs, &stream);
        assert_eq!(own.ready(), 6);
        let (runs, stream) = own.take(1).unwrap();
        assert_eq!(stream, keys(0, 1));
        let dropped = own.drop_unheld(|relay| if relay == id(2) { 0b101 } else { 0 });
        let run = |relay, first, count| Run { relay: id(relay), first, count };
        assert_eq!(dropped, [run(1, 1, 2), run(2, 1, 1)]);
        assert_eq!(own.known(id(1)), 1, "one key is bound");
        own.forget(&runs);
        assert_eq!((own.known(id(1)), own.known(id(2)), own.ready()), (0, 0b101, 2));
        let (runs, stream) = own.take(2).unwrap();
        assert_eq!(runs, [run(2, 0, 1), run(2, 2, 1)]);
        assert_eq!(bytes(&stream), [bytes(&keys(3, 1)), bytes(&keys(5, 1))].concat());
    }

    proptest! {
        #[test]
        fn any_order_of_takes_gives_every_key_once(takes in proptest::collection::vec((1..20_usize, any::<bool>()), 1..30)) {
            let (mut own, mut held) = both(&[(1, 0, 40), (2, 40, 64), (3, 104, 50)]);
            let mut next = 0;
            for (count, back) in takes {
                let Some((runs, stream)) = own.take(count) else { break };
                if back {
                    own.put_back(&runs, &stream);
                } else {
                    let expected = keys(next, u8::try_from(count).unwrap());
                    prop_assert_eq!(&stream, &expected);
                    prop_assert_eq!(held.take(&runs).unwrap(), expected);
                    own.forget(&runs);
                    next += u8::try_from(count).unwrap();
                }
                prop_assert_eq!(own.ready(), held.count());
            }
        }
    }
}
