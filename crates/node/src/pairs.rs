//! Which pairs of SAEs took keys at this site since its process started: who holds which key id, and how much was
//! taken when. Ids and counts, never key.
//!
//! The keeper notes here whatever it hands out, whichever interface asked. Key-id notifications ask who holds a key;
//! the view of ETSI GS QKD 015 lists the pairs as applications.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms::{SuppliedKey, SupplyRequest};
use types::id::{KeyId, SaeId};
use types::units::UtcNanos;

/// The pairs.
#[derive(Default)]
pub struct Pairs {
    state: Mutex<BTreeMap<Pair, PairUse>>,
}

/// Master and slave.
pub type Pair = (SaeId, SaeId);

/// What a pair of SAEs took.
#[derive(Clone, Debug)]
pub struct PairUse {
    /// First use.
    pub first: UtcNanos,
    /// Last use.
    pub last: UtcNanos,
    /// Intervals in which it took keys, oldest first.
    pub intervals: VecDeque<Interval>,
    ids: VecDeque<KeyId>,
}

/// What a pair took in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// When it began; it lasts [`INTERVAL`].
    pub start: UtcNanos,
    /// Key bits taken.
    pub bits: u64,
}

/// Who will hold the keys that a request asks for.
pub(crate) struct Holders {
    master: SaeId,
    slaves: Vec<SaeId>,
}

impl Holders {
    /// Reads a request; `None` when it asks for no keys.
    pub(crate) fn of(caller: &SaeId, request: &SupplyRequest) -> Option<Self> {
        match request {
            SupplyRequest::Encrypt { slave, additional, .. } => {
                let slaves = std::iter::once(slave).chain(additional).cloned().collect();
                Some(Self { master: caller.clone(), slaves })
            }
            SupplyRequest::Decrypt { master, .. } => {
                Some(Self { master: master.clone(), slaves: vec![caller.clone()] })
            }
            SupplyRequest::Status { .. } => None,
        }
    }
}

impl Pairs {
    /// Notes keys that were handed out.
    pub(crate) fn note(&self, holders: &Holders, keys: &[SuppliedKey], now: UtcNanos) {
        let bits = keys.iter().map(|key| key.key.len() as u64 * 8).sum();
        let mut state = self.state();
        for slave in &holders.slaves {
            let pair = (holders.master.clone(), slave.clone());
            if !state.contains_key(&pair) && state.len() >= PAIRS_MAX {
                let oldest = state.iter().min_by_key(|(_, used)| used.last).map(|(pair, _)| pair.clone());
                oldest.map(|pair| state.remove(&pair));
            }
            state.entry(pair).or_insert_with(|| PairUse::new(now)).add(keys, bits, now);
        }
    }

    /// Whether two SAEs hold a key with this id together, as far as this site handed it out.
    #[must_use]
    pub fn hold(&self, id: KeyId, one: &SaeId, other: &SaeId) -> bool {
        let state = self.state();
        let holds = |pair: Pair| state.get(&pair).is_some_and(|used| used.ids.contains(&id));
        holds((one.clone(), other.clone())) || holds((other.clone(), one.clone()))
    }

    /// All pairs and what they took.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Pair, PairUse> {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<Pair, PairUse>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PairUse {
    fn new(now: UtcNanos) -> Self {
        Self { first: now, last: now, intervals: VecDeque::new(), ids: VecDeque::new() }
    }

    fn add(&mut self, keys: &[SuppliedKey], bits: u64, now: UtcNanos) {
        self.last = now;
        // Both SAEs of a pair may be of this site; their one key is counted once.
        if keys.first().is_some_and(|key| self.ids.contains(&key.id)) {
            return;
        }
        self.ids.extend(keys.iter().map(|key| key.id));
        let surplus = self.ids.len().saturating_sub(IDS_MAX);
        self.ids.drain(..surplus);
        let start = UtcNanos(now.0 - now.0 % INTERVAL_NANOS);
        match self.intervals.back_mut() {
            Some(interval) if interval.start == start => interval.bits += bits,
            _ => self.intervals.push_back(Interval { start, bits }),
        }
        if self.intervals.len() > INTERVALS_MAX {
            self.intervals.pop_front();
        }
    }
}

/// Length of an interval of use.
pub const INTERVAL: Duration = Duration::from_secs(15 * 60);
const INTERVAL_NANOS: u64 = 15 * 60 * 1_000_000_000;
const INTERVALS_MAX: usize = 8;
const PAIRS_MAX: usize = 1_024;
const IDS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use crypto::secret::SecretBytes;

    use super::*;

    fn sae(name: &str) -> SaeId {
        SaeId::new(name).unwrap()
    }

    fn keys(ids: std::ops::Range<u16>) -> Vec<SuppliedKey> {
        let site = types::id::SiteId::new("east").unwrap();
        let origin =
            kms::KeyOrigin { source: site.clone(), target: site, paths: Vec::new(), combined: 0, age: Duration::ZERO };
        let key = |n| SuppliedKey { id: id(n), key: SecretBytes::copy_of(&[1; 32]), origin: origin.clone() };
        ids.map(key).collect()
    }

    fn id(n: u16) -> KeyId {
        let [high, low] = n.to_be_bytes();
        KeyId::from_random([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    fn note(pairs: &Pairs, master: &str, slave: &str, keys: &[SuppliedKey], seconds: u64) {
        let holders = Holders { master: sae(master), slaves: vec![sae(slave)] };
        pairs.note(&holders, keys, UtcNanos(seconds * 1_000_000_000));
    }

    #[test]
    fn only_the_two_that_were_handed_a_key_hold_it() {
        let pairs = Pairs::default();
        note(&pairs, "a", "b", &keys(0..2), 0);
        assert!(pairs.hold(id(1), &sae("a"), &sae("b")) && pairs.hold(id(1), &sae("b"), &sae("a")));
        assert!(!pairs.hold(id(2), &sae("a"), &sae("b")));
        assert!(!pairs.hold(id(1), &sae("a"), &sae("c")) && !pairs.hold(id(1), &sae("a"), &sae("a")));
    }

    #[test]
    fn use_is_counted_once_by_interval() {
        let pairs = Pairs::default();
        note(&pairs, "a", "b", &keys(0..1), 10);
        note(&pairs, "a", "b", &keys(0..1), 20);
        note(&pairs, "a", "b", &keys(1..3), 899);
        note(&pairs, "a", "b", &keys(3..4), 900);
        let all = pairs.all();
        let used = &all[&(sae("a"), sae("b"))];
        assert_eq!((used.first.0, used.last.0), (10_000_000_000, 900_000_000_000));
        let bits: Vec<_> = used.intervals.iter().map(|interval| interval.bits).collect();
        assert_eq!(bits, [768, 256]);
    }

    #[test]
    fn ids_and_pairs_are_bounded() {
        let pairs = Pairs::default();
        for n in 0..6 {
            note(&pairs, "a", "b", &keys(n * 100..(n + 1) * 100), 0);
        }
        assert!(!pairs.hold(id(0), &sae("a"), &sae("b")) && pairs.hold(id(599), &sae("a"), &sae("b")));
        for n in 0..1_100 {
            note(&pairs, "m", &format!("s{n}"), &keys(n..n + 1), 1 + u64::from(n));
        }
        assert_eq!(pairs.all().len(), PAIRS_MAX);
        assert!(pairs.hold(id(1_099), &sae("m"), &sae("s1099")) && !pairs.hold(id(0), &sae("m"), &sae("s0")));
    }
}
