//! Admission: which request gets key now, which waits for it and in which order, which is refused with a forecast.
//!
//! More urgent classes come first, within a class who came first. A stock is never drawn below what is reserved for
//! more urgent classes, and nobody overtakes a request that waits for the same stock unless it is more urgent.

use std::collections::BTreeSet;
use std::time::Duration;

use crypto::rand_core::CryptoRng;
use crypto::tag::OneTimeTagKey;
use types::id::{RequestId, SiteId};
use types::units::Time;

use super::supply::Wanted;
use super::{Kme, RETRY_SOON, Timer};
use crate::api::{PairFlow, Priority, Refusal};
use crate::config::{BATCH_MIN, PAIR_KEY_BYTES, WAIT_MAX};
use crate::flow::Taken;
use crate::quota::{Draw, as_f64, bounded};
use crate::wish::Fit;

/// A request that waits for key.
#[derive(Debug)]
pub(super) struct Waiter {
    request: RequestId,
    wanted: Wanted,
    draws: Vec<Draw>,
    deadline: Time,
}

/// The order in which requests are met.
pub(super) type Turn = (Priority, u64);

impl Kme {
    /// Meets a request, lets it wait, or refuses it.
    pub(super) fn admit(
        &mut self,
        now: Time,
        id: RequestId,
        wanted: Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        let draws = self.draws(&wanted)?;
        let keys = wanted.bytes().div_ceil(PAIR_KEY_BYTES);
        let total = draws.iter().map(|draw| draw.keys).sum::<usize>().max(keys);
        self.quotas.charge(now, id, &wanted.master, total, &draws)?;
        let fit = Fit::new(&wanted.wishes, self.utc());
        if !fit.is_any_way() {
            draws.iter().for_each(|draw| self.demand_if_meetable(now, &fit, draw));
        }
        let plain = fit.is_any();
        let behind = |draw: &Draw| self.peers.get(&draw.peer).is_some_and(|peer| peer.waits_before(wanted.class));
        if plain && draws.iter().any(behind) {
            return self.wait_for_key(now, id, wanted, draws);
        }
        match self.supply(now, id, &wanted, rng) {
            Err(Refusal::NotEnoughKey { .. }) => self.wait_for_key(now, id, wanted, draws),
            outcome => outcome,
        }
    }

    /// Keys that are asked something of their ways are made only if somebody asks.
    fn demand_if_meetable(&mut self, now: Time, fit: &Fit, draw: &Draw) {
        if self.ways.can_meet(&draw.peer, fit) {
            self.demand_keys(now, &draw.peer, fit, draw.keys);
        }
    }

    /// What a request draws from which stock.
    fn draws(&self, wanted: &Wanted) -> Result<Vec<Draw>, Refusal> {
        let places = self.places(&wanted.slaves)?;
        let carried = places.len() > 1;
        let bytes = wanted.bytes() + if carried { OneTimeTagKey::LEN } else { 0 };
        let sites = places.into_keys().filter(|site| *site != self.config.site);
        let draw = |peer: SiteId| {
            let made_per_second = self.peers.get(&peer).and_then(|peer| peer.made.rate(self.now)).unwrap_or_default();
            Draw { peer, keys: bytes.div_ceil(PAIR_KEY_BYTES), target: self.config.target_keys, made_per_second }
        };
        Ok(sites.map(draw).collect())
    }

    /// Whether a stock has key that a request may take now.
    pub(super) fn check_keys(&self, site: &SiteId, keys: usize, wanted: &Wanted) -> Result<(), Refusal> {
        let fit = Fit::new(&wanted.wishes, self.utc());
        let own = self.peers.get(site).map(|peer| &peer.own);
        let right = own.map_or(0, |own| own.ready_for(&fit, keys));
        if right < keys && !fit.is_any() && !self.ways.can_meet(site, &fit) {
            return Err(Refusal::WishUnmeetable);
        }
        let spare = own.map_or(0, |own| own.ready()).saturating_sub(self.floor(wanted.class));
        if right < keys || spare < keys {
            let seconds = self.forecast(site, keys, wanted.class);
            return Err(Refusal::NotEnoughKey { retry_after: seconds.map_or(RETRY_SOON, bounded) });
        }
        Ok(())
    }

    /// Keys of a stock that a class leaves to more urgent ones.
    pub(super) fn floor(&self, class: Priority) -> usize {
        if !self.quotas.are_set() {
            return 0;
        }
        let before = Priority::ALL.iter().zip(self.config.reserve_percent).filter(|(other, _)| **other < class);
        let percent: usize = before.map(|(_, percent)| usize::from(percent)).sum();
        usize::try_from(self.config.target_keys).unwrap_or(usize::MAX).saturating_mul(percent.min(100)) / 100
    }

    /// Seconds until a stock has so many keys for a class, after all who wait before; `None` if nothing is known.
    fn forecast(&self, site: &SiteId, keys: usize, class: Priority) -> Option<f64> {
        let peer = self.peers.get(site)?;
        let before: usize = Priority::ALL.iter().zip(peer.awaited).filter(|(c, _)| **c <= class).map(|(_, d)| d).sum();
        let missing = (keys + before + self.floor(class)).saturating_sub(peer.own.ready());
        peer.made.rate(self.now).map(|rate| if rate > 0.0 { as_f64(missing) / rate } else { f64::INFINITY })
    }

    fn wait_for_key(&mut self, now: Time, id: RequestId, wanted: Wanted, draws: Vec<Draw>) -> Result<(), Refusal> {
        let wait = wanted.wishes.wait.unwrap_or(self.quotas.policy(&wanted.master).wait).min(WAIT_MAX);
        let forecast = |draw: &Draw| self.forecast(&draw.peer, draw.keys, wanted.class);
        let seconds = draws.iter().filter_map(forecast).reduce(f64::max);
        if draws.iter().any(|draw| !self.answers(&draw.peer)) {
            return Err(Refusal::PeerDown { retry_after: RETRY_SOON });
        }
        if wait.is_zero() || seconds.is_some_and(|seconds| seconds > wait.as_secs_f64()) {
            return Err(Refusal::NotEnoughKey { retry_after: seconds.map_or(RETRY_SOON, bounded) });
        }
        if self.waiters.len() >= self.config.waiters_max {
            // The least urgent who came last makes room.
            let last = self.waiters.last_key_value().map(|(turn, _)| *turn);
            let Some(turn) = last.filter(|(class, _)| *class > wanted.class) else {
                return Err(Refusal::Busy { retry_after: RETRY_SOON });
            };
            self.stop_waiting(turn, Some(Refusal::Busy { retry_after: RETRY_SOON }));
        }
        self.waiters_begun += 1;
        let (turn, deadline) = ((wanted.class, self.waiters_begun), now.after(wait));
        let fit = Fit::new(&wanted.wishes, self.utc());
        let (plain, any_way) = (fit.is_any(), fit.is_any_way());
        for draw in &draws {
            let peer = self.peer(&draw.peer);
            peer.awaited[place(turn.0)] += if any_way { draw.keys } else { 0 };
            peer.waiting[place(turn.0)] += usize::from(plain);
            peer.made.lacking(now, true);
        }
        self.timers.insert((deadline, Timer::Wait(turn.0, turn.1)));
        self.waiters.insert(turn, Waiter { request: id, wanted, draws, deadline });
        self.fill_due = true;
        Ok(())
    }

    /// Takes a request off the list, and refuses it if it was not met.
    fn stop_waiting(&mut self, turn: Turn, refusal: Option<Refusal>) {
        let Some(waiter) = self.waiters.remove(&turn) else { return };
        self.timers.remove(&(waiter.deadline, Timer::Wait(turn.0, turn.1)));
        let fit = Fit::new(&waiter.wanted.wishes, self.utc());
        let (plain, any_way) = (fit.is_any(), fit.is_any_way());
        for draw in &waiter.draws {
            let peer = self.peer(&draw.peer);
            peer.awaited[place(turn.0)] -= if any_way { draw.keys } else { 0 };
            peer.waiting[place(turn.0)] -= usize::from(plain);
        }
        if let Some(refusal) = refusal {
            self.refuse(waiter.request, refusal);
        }
    }

    /// A request waited as long as it may.
    pub(super) fn wait_due(&mut self, turn: Turn) {
        let Some(waiter) = self.waiters.get(&turn) else { return };
        let forecast = |draw: &Draw| self.forecast(&draw.peer, 0, waiter.wanted.class);
        let seconds = waiter.draws.iter().filter_map(forecast).reduce(f64::max);
        let retry_after = seconds.map_or(RETRY_SOON, bounded);
        self.stop_waiting(turn, Some(Refusal::NotEnoughKey { retry_after }));
    }

    /// There may be key for those who wait.
    pub(super) fn serve_waiters(&mut self, now: Time, rng: &mut impl CryptoRng) {
        let mut blocked: BTreeSet<SiteId> = BTreeSet::new();
        let turns: Vec<Turn> = self.waiters.keys().copied().collect();
        for turn in turns {
            let Some(Waiter { request, wanted, draws, .. }) = self.waiters.get(&turn) else { continue };
            let peers: Vec<SiteId> = draws.iter().map(|draw| draw.peer.clone()).collect();
            let plain = Fit::new(&wanted.wishes, self.utc()).is_any();
            if plain && peers.iter().any(|peer| blocked.contains(peer)) {
                blocked.extend(peers);
                continue;
            }
            let (request, wanted) = (*request, wanted.clone());
            match self.supply(now, request, &wanted, rng) {
                Ok(()) => self.stop_waiting(turn, None),
                // One who waits for keys of a kind does not keep others from keys of another.
                Err(Refusal::NotEnoughKey { .. }) if plain => blocked.extend(peers),
                Err(Refusal::NotEnoughKey { .. }) => {}
                Err(refusal) => self.stop_waiting(turn, Some(refusal)),
            }
        }
    }

    /// Keys were made for a pair.
    pub(super) fn keys_made(&mut self, site: &SiteId, keys: usize) {
        let (now, target) = (self.now, self.config.target_keys);
        let peer = self.peer(site);
        let lacking = peer.lacks(target);
        peer.made.made(now, keys, lacking);
        self.serve_due = true;
    }

    /// Keys were taken from a stock.
    pub(super) fn keys_taken(&mut self, site: &SiteId, class: Priority, keys: usize) {
        let (now, target) = (self.now, self.config.target_keys);
        let peer = self.peer(site);
        peer.taken[place(class)].take(now, keys);
        if peer.lacks(target) {
            peer.made.lacking(now, true);
        }
    }

    /// What each pair's stock does.
    #[must_use]
    pub fn pairs(&self) -> Vec<PairFlow> {
        let count = |keys: usize| u32::try_from(keys).unwrap_or(u32::MAX);
        let flow = |(site, peer): (&SiteId, &super::Peer)| {
            let made_per_second = peer.made.rate(self.now).unwrap_or_default();
            let taken_per_second = peer.taken.map(|taken: Taken| taken.rate(self.now));
            let shrinks = taken_per_second.iter().sum::<f64>() - made_per_second;
            let empty = as_f64(peer.own.ready()) / shrinks;
            PairFlow {
                peer: site.clone(),
                ready: count(peer.own.ready()),
                held: count(peer.held.count()),
                made: peer.made.total(),
                made_per_second,
                taken: peer.taken.map(|taken| taken.total()),
                taken_per_second,
                waiting: count(self.waiters.values().filter(|w| w.draws.iter().any(|d| d.peer == *site)).count()),
                time_to_empty: Duration::try_from_secs_f64(empty).ok().filter(|_| shrinks > 0.0),
            }
        };
        self.peers.iter().map(flow).collect()
    }
}

impl super::Peer {
    /// Whether the stock is to be filled.
    fn lacks(&self, target: u32) -> bool {
        let wanted = usize::try_from(target).unwrap_or(usize::MAX).saturating_add(self.wanted());
        self.own.ready().saturating_add(usize::from(BATCH_MIN)) <= wanted
    }

    /// Keys of any way that requests wait for.
    pub(super) fn wanted(&self) -> usize {
        self.awaited.iter().sum()
    }

    /// Whether a request of a class would overtake one that waits.
    fn waits_before(&self, class: Priority) -> bool {
        self.waiting[..=place(class)].iter().any(|waiting| *waiting > 0)
    }
}

fn place(class: Priority) -> usize {
    match class {
        Priority::Telecontrol => 0,
        Priority::Telemetry => 1,
        Priority::Model => 2,
        Priority::Other => 3,
    }
}
