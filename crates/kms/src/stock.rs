//! End-to-end keys of one ordered pair of sites.
//!
//! The owner made them and takes them from the front; the holder keeps the same keys until the owner assigns them.
//! A key is named by the relay that carried it and its index there. The holder is the arbiter: a key that it gave
//! up once is gone, so no two assignments can have it, whatever the owner remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crypto::secret::SecretBytes;
use types::id::{KeyId, Uuid};

use crate::config::{BATCH_MAX, PAIR_KEY_BYTES};
use crate::origin::Origin;
use crate::wish::Fit;

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

/// Consecutive relay ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first.
    pub from: KeyId,
    /// The last.
    pub upto: KeyId,
}

impl KeyRange {
    /// Whether a relay lies inside.
    #[must_use]
    pub fn has(self, relay: KeyId) -> bool {
        (self.from..=self.upto).contains(&relay)
    }

    /// The relays of one part of a [`Digest`].
    pub(crate) fn of_part(part: usize) -> Self {
        let first = u8::try_from(part * PART_WIDTH).expect("there are as many parts as the first byte has room for");
        let (mut from, mut upto) = ([0; 16], [u8::MAX; 16]);
        (from[0], upto[0]) = (first, first + (u8::try_from(PART_WIDTH).unwrap_or(u8::MAX) - 1));
        Self { from: KeyId(Uuid::from_bytes(from)), upto: KeyId(Uuid::from_bytes(upto)) }
    }

    /// What is left of a larger range, up to `end`, behind this one.
    pub(crate) fn rest(self, end: KeyId) -> Option<Self> {
        let next = u128::from_be_bytes(*self.upto.0.as_bytes()).checked_add(1)?;
        let from = KeyId(Uuid::from_bytes(next.to_be_bytes()));
        (from <= end).then_some(Self { from, upto: end })
    }
}

/// Digest of a set of keys in parts by the first byte of the relay: two sides compare it before they list keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u64; DIGEST_PARTS]);

impl Default for Digest {
    fn default() -> Self {
        Self([0; DIGEST_PARTS])
    }
}

impl Digest {
    /// The parts in which two digests differ.
    pub(crate) fn differs(&self, other: &Self) -> impl Iterator<Item = usize> {
        let (ours, theirs) = (self.0, other.0);
        (0..DIGEST_PARTS).filter(move |part| ours[*part] != theirs[*part])
    }

    /// The keys of a relay change.
    fn change(&mut self, relay: KeyId, before: u64, after: u64) {
        let part = &mut self.0[usize::from(relay.0.as_bytes()[0]) / PART_WIDTH];
        *part ^= mixed(relay, before) ^ mixed(relay, after);
    }
}

/// A 64-bit mix of a relay and its keys; 0 if there are none. Relay ids are random, nobody gains by a collision.
fn mixed(relay: KeyId, keys: u64) -> u64 {
    if keys == 0 {
        return 0;
    }
    let id = u128::from_be_bytes(*relay.0.as_bytes()).to_be_bytes();
    let words = id.chunks_exact(8).map(|word| word.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    words.chain([keys]).fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        // The finalizer of SplitMix64.
        let mut x = state ^ word;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    })
}

/// Parts of a digest.
pub(crate) const DIGEST_PARTS: usize = 64;
/// Values of the first byte in one part.
const PART_WIDTH: usize = 256 / DIGEST_PARTS;

#[derive(Debug)]
struct Segment {
    relay: KeyId,
    first: u16,
    /// Bytes at the front that were taken and wiped.
    taken: usize,
    origin: Arc<Origin>,
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
        Self { relay: self.relay, first: run.first, taken: 0, origin: Arc::clone(&self.origin), keys }
    }
}

/// Keys that this site made for one peer, in lanes: one for each way or combination of ways that keys came over.
#[derive(Debug, Default)]
pub(crate) struct OwnStock {
    lanes: Vec<Lane>,
    ready: usize,
    /// Keys ready or bound, by relay.
    known: BTreeMap<KeyId, Known>,
    digest: Digest,
}

/// Segments that came over the same ways, the oldest first.
#[derive(Debug)]
struct Lane {
    segments: VecDeque<Segment>,
    ready: usize,
}

#[derive(Debug)]
struct Known {
    /// Bit `i` stands for key `i`; not 0.
    keys: u64,
    origin: Arc<Origin>,
}

impl Lane {
    /// How its keys came; a lane is never empty.
    fn origin(&self) -> &Origin {
        &self.segments.front().expect("a lane is never empty").origin
    }

    /// Where a request takes from: the oldest, or the youngest if age matters.
    fn end(&mut self, fit: &Fit) -> Option<&mut Segment> {
        match fit.not_before() {
            None => self.segments.front_mut(),
            Some(least) => self.segments.back_mut().filter(|segment| segment.origin.made >= least),
        }
    }

    /// Keys that are right, counted up to `enough`.
    fn count(&self, fit: &Fit, enough: usize) -> usize {
        let Some(least) = fit.not_before() else { return self.ready };
        let mut count = 0;
        for segment in self.segments.iter().rev().take_while(|segment| segment.origin.made >= least) {
            count += segment.left();
            if count >= enough {
                break;
            }
        }
        count
    }
}

impl OwnStock {
    /// Keys that can be taken.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Keys that can be taken by one who asks this of them, counted up to `enough`.
    pub(crate) fn ready_for(&self, fit: &Fit, enough: usize) -> usize {
        if fit.is_any() {
            return self.ready;
        }
        self.lanes.iter().filter(|lane| fit.ways(lane.origin())).map(|lane| lane.count(fit, enough)).sum()
    }

    /// Keys that can be taken and are combined from at least so many ways.
    pub(crate) fn ready_of(&self, paths: u8) -> usize {
        self.lanes.iter().filter(|lane| lane.origin().combined >= paths).map(|lane| lane.ready).sum()
    }

    /// Digest of all keys that are ready or bound.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How all keys that are ready or bound came.
    #[cfg(test)]
    pub(crate) fn known_origins(&self) -> Vec<Arc<Origin>> {
        self.known.values().map(|known| Arc::clone(&known.origin)).collect()
    }

    /// The keys of a relay that are ready or bound, as bits.
    pub(crate) fn known(&self, relay: KeyId) -> u64 {
        self.known.get(&relay).map_or(0, |known| known.keys)
    }

    /// How the keys of a relay came, while any of them is ready or bound.
    pub(crate) fn origin(&self, relay: KeyId) -> Option<&Arc<Origin>> {
        self.known.get(&relay).map(|known| &known.origin)
    }

    /// Adds keys of a relay, behind those that are as old.
    pub(crate) fn add(&mut self, relay: KeyId, first: u16, origin: Arc<Origin>, keys: SecretBytes) {
        assert!(!keys.is_empty() && keys.len().is_multiple_of(PAIR_KEY_BYTES), "stock holds whole keys");
        let segment = Segment { relay, first, taken: 0, origin, keys };
        let mask = mask(segment.run()).expect("a batch has at most 64 keys");
        let new = || Known { keys: 0, origin: Arc::clone(&segment.origin) };
        let known = self.known.entry(relay).or_insert_with(new);
        assert!(known.keys & mask == 0, "a key is added once");
        self.digest.change(relay, known.keys, known.keys | mask);
        known.keys |= mask;
        let made = segment.origin.made;
        self.insert(segment, |other| other.origin.made <= made);
    }

    fn insert(&mut self, segment: Segment, before: impl Fn(&Segment) -> bool) {
        let left = segment.left();
        self.ready += left;
        let same = |lane: &&mut Lane| {
            let origin = lane.origin();
            origin.paths == segment.origin.paths && origin.combined == segment.origin.combined
        };
        if let Some(lane) = self.lanes.iter_mut().find(same) {
            lane.ready += left;
            lane.segments.insert(lane.segments.partition_point(before), segment);
        } else {
            self.lanes.push(Lane { segments: VecDeque::from([segment]), ready: left });
        }
    }

    /// Takes keys, the plainest and oldest first; they stay known until [`Self::forget`]. All or nothing.
    pub(crate) fn take(&mut self, count: usize, fit: &Fit) -> Option<(Vec<Run>, SecretBytes)> {
        if count > self.ready_for(fit, count) {
            return None;
        }
        let mut runs = Vec::new();
        let mut stream = SecretBytes::from_vec(vec![0; count * PAIR_KEY_BYTES]);
        let mut filled = 0;
        while filled < stream.len() {
            let right = |lane: &Lane| fit.ways(lane.origin());
            let ends = self.lanes.iter_mut().enumerate().filter(|(_, lane)| right(lane));
            let ends = ends.filter_map(|(at, lane)| lane.end(fit).map(|segment| (at, segment)));
            let best = ends.min_by_key(|(_, segment)| (segment.origin.combined, segment.origin.made));
            let (at, segment) = best.expect("the keys were counted above");
            let len = (stream.len() - filled).min(segment.left() * PAIR_KEY_BYTES);
            let start = segment.taken;
            segment.keys.expose_mut(|keys| {
                stream.expose_mut(|stream| stream[filled..filled + len].copy_from_slice(&keys[start..start + len]));
                keys[start..start + len].fill(0);
            });
            runs.push(Run { relay: segment.relay, first: segment.first + as_keys(start), count: as_keys(len) });
            segment.taken += len;
            filled += len;
            let empty = segment.left() == 0;
            let lane = &mut self.lanes[at];
            lane.ready -= len / PAIR_KEY_BYTES;
            if empty {
                let _spent =
                    if fit.not_before().is_some() { lane.segments.pop_back() } else { lane.segments.pop_front() };
            }
            if lane.segments.is_empty() {
                self.lanes.remove(at);
            }
        }
        self.ready -= count;
        Some((runs, stream))
    }

    /// Puts taken keys back, before those that are as old.
    pub(crate) fn put_back(&mut self, runs: &[Run], stream: &SecretBytes) {
        let mut end = stream.len();
        for run in runs.iter().rev() {
            let start = end - run.bytes();
            let keys = stream.part(start, run.bytes()).expect("the stream is as long as its runs");
            let origin = Arc::clone(self.origin(run.relay).expect("taken keys are known until forgotten"));
            let made = origin.made;
            let segment = Segment { relay: run.relay, first: run.first, taken: 0, origin, keys };
            self.insert(segment, |other| other.origin.made < made);
            end = start;
        }
    }

    /// Forgets keys that were taken and are consumed or burned.
    pub(crate) fn forget(&mut self, runs: &[Run]) {
        for run in runs {
            let mask = mask(*run).expect("runs of our own lie within a batch");
            let known = self.known.get_mut(&run.relay).expect("taken keys are known until forgotten");
            assert!(known.keys & mask == mask, "taken keys are known until forgotten");
            self.digest.change(run.relay, known.keys, known.keys & !mask);
            known.keys &= !mask;
            if known.keys == 0 {
                self.known.remove(&run.relay);
            }
        }
    }

    /// Drops ready keys of a range that the holder does not hold; `held` says which it holds of a relay, as bits.
    pub(crate) fn drop_unheld(&mut self, range: KeyRange, held: impl Fn(KeyId) -> u64) -> Vec<Run> {
        let known = self.known.range(range.from..=range.upto);
        let lacks: BTreeSet<KeyId> =
            known.filter(|(relay, known)| known.keys & !held(**relay) != 0).map(|(relay, _)| *relay).collect();
        let mut dropped = Vec::new();
        if lacks.is_empty() {
            return dropped;
        }
        for lane in &mut self.lanes {
            for segment in std::mem::take(&mut lane.segments) {
                let run = segment.run();
                let left = mask(run).expect("a batch has at most 64 keys");
                let held = if lacks.contains(&run.relay) { held(run.relay) } else { u64::MAX };
                if left & !held == 0 {
                    lane.segments.push_back(segment);
                    continue;
                }
                dropped.extend(KeySet { relay: run.relay, keys: left & !held }.runs());
                let kept = KeySet { relay: run.relay, keys: left & held }.runs();
                lane.segments.extend(kept.map(|run| segment.part(run)));
            }
            lane.ready = lane.segments.iter().map(Segment::left).sum();
        }
        self.lanes.retain(|lane| !lane.segments.is_empty());
        self.ready -= dropped.iter().map(|run: &Run| usize::from(run.count)).sum::<usize>();
        self.forget(&dropped);
        dropped
    }
}

#[derive(Debug)]
struct HeldBatch {
    origin: Arc<Origin>,
    /// The keys of `stored`, one behind the other.
    keys: SecretBytes,
    /// Bit `i` says that there is room for key `i`.
    stored: u64,
    /// Bit `i` says that key `i` is still here.
    present: u64,
}

impl HeldBatch {
    /// Where a run of stored keys lies.
    fn place(&self, run: Run) -> Range<usize> {
        let before = self.stored & ((1 << run.first) - 1);
        let start = usize::try_from(before.count_ones()).unwrap_or_default() * PAIR_KEY_BYTES;
        start..start + run.bytes()
    }
}

/// Keys that a peer made and this site holds.
#[derive(Debug, Default)]
pub(crate) struct HeldStock {
    batches: BTreeMap<KeyId, HeldBatch>,
    count: usize,
    digest: Digest,
}

impl HeldStock {
    /// Keys held.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The keys that are held of a range, of at most so many relays, and the range that this covers.
    pub(crate) fn page(&self, range: KeyRange, sets_max: usize) -> (KeyRange, Vec<KeySet>) {
        let held = self.batches.range(range.from..=range.upto);
        let mut sets: Vec<KeySet> =
            held.take(sets_max + 1).map(|(relay, batch)| KeySet { relay: *relay, keys: batch.present }).collect();
        let mut upto = range.upto;
        if sets.len() > sets_max {
            sets.truncate(sets_max);
            upto = sets.last().map_or(upto, |set| set.relay);
        }
        (KeyRange { from: range.from, upto }, sets)
    }

    /// All keys that are held.
    pub(crate) fn sets(&self) -> impl ExactSizeIterator<Item = KeySet> {
        self.batches.iter().map(|(relay, batch)| KeySet { relay: *relay, keys: batch.present })
    }

    /// How all keys that are held came.
    #[cfg(test)]
    pub(crate) fn known_origins(&self) -> Vec<Arc<Origin>> {
        self.batches.values().map(|batch| Arc::clone(&batch.origin)).collect()
    }

    /// Digest of all keys that are held.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether any key of the relay is held.
    pub(crate) fn has(&self, relay: KeyId) -> bool {
        self.batches.contains_key(&relay)
    }

    /// How the keys of a relay came, while any of them is held.
    pub(crate) fn origin(&self, relay: KeyId) -> Option<&Arc<Origin>> {
        self.batches.get(&relay).map(|batch| &batch.origin)
    }

    /// Adds keys of a relay of which none is held; `stored` says which they are, as bits.
    pub(crate) fn add(&mut self, relay: KeyId, stored: u64, origin: Arc<Origin>, keys: SecretBytes) {
        let count = usize::try_from(stored.count_ones()).unwrap_or_default();
        assert!(count > 0 && keys.len() == count * PAIR_KEY_BYTES, "a batch holds whole keys");
        self.digest.change(relay, 0, stored);
        let before = self.batches.insert(relay, HeldBatch { origin, keys, stored, present: stored });
        assert!(before.is_none(), "a batch is added once");
        self.count += count;
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
            let place = batch.place(*run);
            let len = place.len();
            batch.keys.expose_mut(|keys| {
                stream.expose_mut(|stream| stream[filled..filled + len].copy_from_slice(&keys[place.clone()]));
                keys[place].fill(0);
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
        let after = batch.present & !mask(run).expect("the caller checked the run");
        self.digest.change(run.relay, batch.present, after);
        batch.present = after;
        self.count -= usize::from(run.count);
        if after == 0 {
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
mod tests;
