//! Fair sharing of scarce link key: who may draw next on the way to one neighbour.
//!
//! A *flow* is all keys of one ordered pair of sites, its owner's own ones and those in transit alike. Each flow queues
//! batches here; the batch that starts first in virtual time is served (start-time fair queueing, Goyal, Vin and
//! Cheng 1996):
//!
//! ```text
//! start(batch)  = max(finish of the flow's batch before, virtual time when it came)
//! finish(batch) = start(batch) + key bytes that it spends
//! virtual time  = start of the batch served last
//! ```
//! So all flows that have something waiting get the same number of key bytes, however many pairs a site owns and
//! however large their batches are; a flow that was idle gets no credit for it. Nobody overtakes the first in line,
//! else large batches would starve. Queues are in memory: what a crash takes was never stored at either end.

use std::collections::{BTreeMap, VecDeque};

use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use types::id::{KeyId, SiteId};
use types::units::Time;

use crate::config::{FLOW_QUEUE_MAX, OUTLET_QUEUE_MAX};
use crate::message::ShareOf;
use crate::pool::Class;

/// The keys of one ordered pair of sites.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) owner: SiteId,
    pub(crate) holder: SiteId,
}

/// A batch, or one share of it, that waits for key of the next hop.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) relay: KeyId,
    pub(crate) share: ShareOf,
    pub(crate) path: Vec<SiteId>,
    pub(crate) hop: u8,
    pub(crate) keys: SecretBytes,
    pub(crate) class: Class,
    pub(crate) since: Time,
}

impl Waiting {
    pub(crate) fn flow(&self) -> Flow {
        Flow { owner: self.path[0].clone(), holder: self.path[self.path.len() - 1].clone() }
    }

    /// Key bytes that the hop spends.
    pub(crate) fn bytes(&self) -> usize {
        OneTimeTagKey::LEN + self.keys.len()
    }
}

#[derive(Debug, Default)]
struct Line {
    /// Virtual start of the first in line; of the next to come if there is none.
    start: u64,
    waiting: VecDeque<Waiting>,
}

/// All that waits for key of the links to one neighbour.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    lines: BTreeMap<Flow, Line>,
    clock: u64,
    len: usize,
}

impl Outlet {
    /// Batches that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts a batch at the end of its flow's line, or gives it back if there is no room.
    pub(crate) fn push(&mut self, batch: Waiting) -> Result<(), Box<Waiting>> {
        let flow = batch.flow();
        if self.len >= OUTLET_QUEUE_MAX || self.lines.get(&flow).is_some_and(|l| l.waiting.len() >= FLOW_QUEUE_MAX) {
            return Err(Box::new(batch));
        }
        if self.lines.len() > 2 * self.len + LINES_KEPT {
            let clock = self.clock;
            self.lines.retain(|_, line| !line.waiting.is_empty() || line.start > clock);
        }
        let line = self.lines.entry(flow).or_default();
        if line.waiting.is_empty() {
            line.start = line.start.max(self.clock);
        }
        line.waiting.push_back(batch);
        self.len += 1;
        Ok(())
    }

    /// The batch to be served next.
    pub(crate) fn first(&mut self) -> Option<&mut Waiting> {
        let flow = self.first_flow()?;
        self.lines.get_mut(&flow)?.waiting.front_mut()
    }

    /// Takes the first out because it is served.
    pub(crate) fn serve(&mut self) -> Option<Waiting> {
        let flow = self.first_flow()?;
        let line = self.lines.get_mut(&flow)?;
        let batch = line.waiting.pop_front()?;
        self.clock = line.start;
        line.start += batch.bytes() as u64;
        self.len -= 1;
        Some(batch)
    }

    /// Takes the first out because it cannot be served.
    pub(crate) fn drop_first(&mut self) -> Option<Waiting> {
        let flow = self.first_flow()?;
        self.len -= 1;
        self.lines.get_mut(&flow)?.waiting.pop_front()
    }

    /// Takes out what is not to wait any longer.
    pub(crate) fn drop_if(&mut self, leaves: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut left = Vec::new();
        for line in self.lines.values_mut() {
            let (out, stay): (Vec<Waiting>, Vec<Waiting>) = line.waiting.drain(..).partition(&leaves);
            line.waiting.extend(stay);
            left.extend(out);
        }
        self.len -= left.len();
        left
    }

    /// Whether a batch of a flow waits.
    pub(crate) fn has(&self, flow: &Flow, relay: KeyId) -> bool {
        self.lines.get(flow).is_some_and(|line| line.waiting.iter().any(|waiting| waiting.relay == relay))
    }

    /// All that waits.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.lines.values().flat_map(|line| &line.waiting)
    }

    fn first_flow(&self) -> Option<Flow> {
        let lines = self.lines.iter().filter(|(_, line)| !line.waiting.is_empty());
        lines.min_by_key(|(flow, line)| (line.start, *flow)).map(|(flow, _)| flow.clone())
    }
}

/// Empty lines that are kept for the virtual time at which their flows go on.
const LINES_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteId {
        SiteId::new(name).unwrap()
    }

    fn batch(n: u8, owner: &str, keys: usize) -> Waiting {
        Waiting {
            relay: KeyId::from_random([n; 16]),
            share: ShareOf::WHOLE,
            path: vec![site(owner), site("m"), site("z")],
            hop: 1,
            keys: SecretBytes::from_vec(vec![0; keys * 32]),
            class: Class::Transit,
            since: Time::ZERO,
        }
    }

    /// Serves so many key bytes; what each flow got.
    fn served(outlet: &mut Outlet, bytes: usize) -> BTreeMap<String, usize> {
        let mut got: BTreeMap<String, usize> = BTreeMap::new();
        let mut left = bytes;
        while let Some(first) = outlet.first().filter(|first| first.bytes() <= left) {
            left -= first.bytes();
            let batch = outlet.serve().unwrap();
            *got.entry(batch.path[0].as_str().to_owned()).or_default() += batch.bytes();
        }
        got
    }

    #[test]
    fn flows_share_evenly_whatever_their_batches() {
        let mut outlet = Outlet::default();
        for n in 0..60 {
            outlet.push(batch(n, "a", 64)).unwrap();
            outlet.push(batch(n, "b", 8)).unwrap();
            outlet.push(batch(n, "c", 20)).unwrap();
        }
        let got = served(&mut outlet, 45_000);
        let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
        assert!(most - least <= 2 * (32 + 64 * 32), "{got:?}");
    }

    #[test]
    fn a_flow_that_was_idle_gets_no_credit_and_is_not_starved() {
        let mut outlet = Outlet::default();
        for n in 0..40 {
            outlet.push(batch(n, "a", 8)).unwrap();
        }
        served(&mut outlet, 20 * 288);
        for n in 0..40 {
            outlet.push(batch(n, "b", 8)).unwrap();
        }
        let got = served(&mut outlet, 20 * 288);
        assert!(got["a"].abs_diff(got["b"]) <= 2 * 288, "{got:?}");
    }

    #[test]
    fn lines_are_bounded_and_what_leaves_is_counted() {
        let mut outlet = Outlet::default();
        let room = (0..).take_while(|n| outlet.push(batch(u8::try_from(*n).unwrap(), "a", 8)).is_ok()).count();
        assert_eq!(room, FLOW_QUEUE_MAX);
        outlet.push(batch(1, "b", 8)).unwrap();
        assert_eq!(outlet.drop_if(|batch| batch.path[0] == site("a")).len(), FLOW_QUEUE_MAX);
        assert_eq!((outlet.len(), outlet.waiting().count()), (1, 1));
        assert!(outlet.drop_first().is_some() && outlet.first().is_none() && outlet.serve().is_none());
    }
}
