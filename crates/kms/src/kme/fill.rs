//! The owner's half of key relay: fills stocks, splits keys over several ways, gives up what does not arrive.
//!
//! ```text
//! plain      batch ----------------------------------- way --> holder
//! combined   share 1 = random ------------------------ way 1 --.
//!            share 2 = random ------------------------ way 2 ---+--> holder: batch = XOR of all shares
//!            share k = batch XOR all other shares ---- way k --'
//! ```
//! All but one of the shares of a batch are independent of it and of each other, so who knows fewer than all of them
//! knows nothing: an attacker needs a relay on each way. What is split is the keys with their check (`confirm`). A batch
//! counts only when all its shares arrived and fit together; one that is lost takes the batch with it. What is given up
//! was never in stock: fresh keys take another way.

use std::sync::Arc;
use std::time::Duration;

use crypto::manipulation::{CHECK_LEN, Proof};
use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use types::event::Event;
use types::id::{KeyId, SiteId};
use types::units::{ByteLen, Time};

use super::{Kme, Peer, Timer, confirm};
use crate::config::{
    BATCH_FIRST, BATCH_MAX, BATCH_MIN, BATCH_SLOW, DEMAND_FOR, DEMANDS_MAX, PAIR_KEY_BYTES, RELAYS_PER_STEP_MAX,
    SHARES_MAX, WAITS_INTERVAL,
};
use crate::message::{Message, RelayFailure, ShareOf};
use crate::origin::Origin;
use crate::pool::Class;
use crate::queue::Waiting;
use crate::record::{self, Side};
use crate::stock::KeySet;
use crate::wish::Fit;

/// A relay from here that is on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    shares: Vec<Share>,
    keys: SecretBytes,
    /// What the holder must show of keys that are combined.
    proof: Option<Proof>,
    made: Time,
    /// When its timer is set to.
    due: Option<Time>,
    waited: bool,
    kind: Kind,
}

/// What stock a batch is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What is filled all the time.
    Background,
    /// Keys that came over certain ways, because they were asked for.
    Demanded,
}

/// One share on its way.
#[derive(Debug)]
struct Share {
    path: Vec<SiteId>,
    sent: Option<Time>,
    /// When it counts as lost, once it was sent.
    deadline: Option<Time>,
}

/// Keys that were asked for and must be combined from several ways, or come over certain ones.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// What is asked of the ways.
    fit: Fit,
    /// Keys of the largest request.
    asked: usize,
    /// Keys that are kept in stock.
    keys: usize,
    until: Time,
}

/// What a stock lacks.
struct Lack {
    /// Keys that are there or on their way.
    have: usize,
    /// Keys that are missing.
    keys: usize,
    /// Fewer are not worth a batch.
    least: usize,
    /// Ways to combine, at least and at best.
    paths: (u8, u8),
    fit: Fit,
    kind: Kind,
}

/// A batch to be made.
struct Need {
    ways: Vec<Vec<SiteId>>,
    count: usize,
    kind: Kind,
}

impl Outgoing {
    pub(super) fn holder(&self) -> &SiteId {
        self.shares[0].path.last().expect("a path has two sites or more")
    }

    fn count(&self) -> usize {
        self.keys.len() / PAIR_KEY_BYTES
    }

    /// Whether its keys will be right for those who ask this of them.
    fn fits(&self, fit: &Fit) -> bool {
        let ways: Vec<&[SiteId]> = self.shares.iter().map(|share| share.path.as_slice()).collect();
        ways.len() >= usize::from(fit.paths()) && fit.is_right(&ways)
    }

    fn ways(&self) -> Vec<Vec<SiteId>> {
        self.shares.iter().map(|share| share.path.clone()).collect()
    }
}

impl Kme {
    /// Keys are asked for that came over ways which the background does not choose: from now on some are kept in stock.
    pub(super) fn demand_keys(&mut self, now: Time, peer: &SiteId, fit: &Fit, keys: usize) {
        let (target, least) = (self.target(), usize::from(BATCH_MAX));
        let keep = (2 * keys).max(least).min(target).max(keys);
        let fit = fit.of_any_age();
        let peer = self.peer(peer);
        peer.demands.retain(|demand| now < demand.until);
        let before = peer.demands.iter().position(|demand| demand.fit == fit).map(|at| peer.demands.remove(at));
        if peer.demands.len() >= DEMANDS_MAX {
            // The one that was not asked for the longest.
            peer.demands.remove(0);
        }
        let (asked, keep) = before.map_or((keys, keep), |before| (keys.max(before.asked), keep.max(before.keys)));
        peer.demands.push(Demand { fit, asked, keys: keep, until: now.after(DEMAND_FOR) });
        self.fill_due = true;
    }

    /// Starts relays to the peers that lack most.
    pub(super) fn fill(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if !std::mem::take(&mut self.fill_due) {
            return;
        }
        for _ in 0..RELAYS_PER_STEP_MAX {
            let Some(need) = self.neediest(now) else { return };
            self.start_relay(now, need, rng);
        }
        self.timers.insert((now, Timer::Fill));
    }

    fn target(&self) -> usize {
        usize::try_from(self.config.target_keys).unwrap_or(usize::MAX).min(TARGET_MAX)
    }

    /// The batch for the smallest stock that can be helped.
    fn neediest(&self, now: Time) -> Option<Need> {
        let target = self.target();
        let mut best: Option<(usize, Need)> = None;
        for (site, peer) in self.peers.iter().filter(|(_, peer)| peer.up && now >= peer.next_relay) {
            for Lack { have, keys, least, paths, fit, kind } in self.lacks(now, site, peer, target) {
                if keys < least || best.as_ref().is_some_and(|(smallest, _)| *smallest <= have) {
                    continue;
                }
                let Some(ways) = self.choose_ways(now, site, paths, &fit, usize::from(BATCH_MIN).min(target)) else {
                    continue;
                };
                let hops = ways.iter().map(|way| way.len() - 1).max().unwrap_or(1);
                let window = usize::try_from(self.config.batches_in_flight).unwrap_or(usize::MAX).saturating_mul(hops);
                if peer.batches_in_flight < window {
                    best = Some((have, Need { ways, count: keys.min(peer.batch.into()), kind }));
                }
            }
        }
        best.map(|(_, need)| need)
    }

    /// What the stocks for a peer lack: the plain one, and those that were asked for.
    fn lacks(&self, now: Time, site: &SiteId, peer: &Peer, target: usize) -> Vec<Lack> {
        let least = usize::from(BATCH_MIN).min(target).max(1);
        let demanded: Vec<&Demand> = peer.demands.iter().filter(|demand| now < demand.until).collect();
        let combined = demanded.iter().map(|demand| demand.fit.paths()).filter(|paths| *paths > 1).min();
        let combined = combined.map_or(0, |paths| peer.own.ready_of(paths));
        let have = peer.own.ready() - combined + peer.keys_in_flight;
        let wanted = self.config.paths_wanted_for.get(site).copied().unwrap_or(self.config.paths_wanted);
        let paths = (1, wanted.clamp(1, SHARES_MAX));
        // Requests that wait are filled for beyond the target, and at once.
        let keys = target.saturating_add(peer.wanted()).saturating_sub(have);
        let least_now = if peer.wanted() > 0 { 1 } else { least };
        let mut lacks = vec![Lack { have, keys, least: least_now, paths, fit: Fit::default(), kind: Kind::Background }];
        for Demand { fit, asked, keys, .. } in demanded {
            let on_way = self.outgoing.values().filter(|outgoing| outgoing.holder() == site);
            let on_way: usize = on_way.filter(|outgoing| outgoing.fits(fit)).map(Outgoing::count).sum();
            let have = peer.own.ready_for(fit, usize::MAX) + on_way;
            let least = if have < *asked { 1 } else { least };
            let (keys, paths) = (keys.saturating_sub(have), fit.paths());
            lacks.push(Lack { have, keys, least, paths: (paths, paths), fit: fit.clone(), kind: Kind::Demanded });
        }
        lacks
    }

    /// Ways that are right and whose first hop has key for at least a small batch or makes key.
    fn choose_ways(
        &self,
        now: Time,
        to: &SiteId,
        paths: (u8, u8),
        fit: &Fit,
        least: usize,
    ) -> Option<Vec<Vec<SiteId>>> {
        let needed = OneTimeTagKey::LEN + CHECK_LEN + least * PAIR_KEY_BYTES;
        let usable = |path: &[SiteId]| {
            let room = self.room_to(&path[1]);
            self.is_up(&path[1]) && room.is_some_and(|(room, makes_key)| makes_key || room >= needed)
        };
        self.ways.choose(now, to, paths, fit, usable)
    }

    fn start_relay(&mut self, now: Time, need: Need, rng: &mut impl CryptoRng) {
        let Need { ways, count, kind } = need;
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let relay = KeyId::from_random(id);
        let keys = SecretBytes::random(count * PAIR_KEY_BYTES, rng);
        let (shares, proof) = if ways.len() > 1 {
            let (word, proof) = confirm::encode(relay, &ways, &keys, rng);
            (split(&word, ways.len(), rng), Some(proof))
        } else {
            (vec![keys.duplicate()], None)
        };
        let holder = ways[0].last().expect("a path has two sites or more").clone();
        let peer = self.peer(&holder);
        peer.batches_in_flight += 1;
        peer.keys_in_flight += kind.in_background(count);
        let on_way = ways.iter().map(|path| Share { path: path.clone(), sent: None, deadline: None }).collect();
        self.outgoing
            .insert(relay, Outgoing { shares: on_way, keys, proof, made: now, due: None, waited: false, kind });
        let total = u8::try_from(ways.len()).expect("the number of ways is bounded");
        for (index, (path, keys)) in (0..total).zip(ways.into_iter().zip(shares)) {
            let (share, class) = (ShareOf { index, count: total }, Class::Own);
            if self.outgoing.contains_key(&relay) {
                self.queue_hop(now, Waiting { relay, share, path, hop: 0, keys, class, since: now });
            }
        }
    }

    /// A share of ours left for its first hop.
    pub(super) fn share_sent(&mut self, now: Time, relay: KeyId, share: ShareOf) {
        let Some(outgoing) = self.outgoing.get(&relay) else { return };
        let timeout = self
            .peers
            .get(outgoing.holder())
            .map_or(self.config.relay_timeout, |peer| peer.ack_time.timeout(&self.config));
        self.expect_share(relay, share.index, Some(now), now.after(timeout));
    }

    /// A share counts as lost at `deadline`.
    fn expect_share(&mut self, relay: KeyId, index: u8, sent: Option<Time>, deadline: Time) {
        let Some(outgoing) = self.outgoing.get_mut(&relay) else { return };
        let Some(share) = outgoing.shares.get_mut(usize::from(index)) else { return };
        share.sent = sent.or(share.sent);
        share.deadline = Some(deadline);
        let due = outgoing.shares.iter().filter_map(|share| share.deadline).min();
        if let Some(before) = std::mem::replace(&mut outgoing.due, due) {
            self.timers.remove(&(before, Timer::Relay(relay)));
        }
        self.timers.extend(due.map(|due| (due, Timer::Relay(relay))));
    }

    /// A batch of ours that waits for key of a link that makes none is cut to what the link has left.
    pub(super) fn cut_relay(&mut self, relay: KeyId, count: usize) {
        let Some(outgoing) = self.outgoing.get_mut(&relay) else { return };
        let (before, kind) = (outgoing.count(), outgoing.kind);
        outgoing.keys = outgoing.keys.part(0, count * PAIR_KEY_BYTES).expect("a batch is only cut shorter");
        let holder = outgoing.holder().clone();
        self.peer(&holder).keys_in_flight -= kind.in_background(before - count);
    }

    /// Shares of ours wait at a site: they are not lost.
    pub(super) fn relays_wait(&mut self, now: Time, from: &SiteId, waits: &[(KeyId, u8)]) {
        for (relay, index) in waits {
            let Some(outgoing) = self.outgoing.get_mut(relay) else { continue };
            let Some(share) = outgoing.shares.get(usize::from(*index)) else { continue };
            let at = share.path.iter().position(|site| site == from).filter(|at| *at > 0 && share.sent.is_some());
            let Some(at) = at else { continue };
            let sent = share.sent.filter(|_| !std::mem::replace(&mut outgoing.waited, true));
            self.ways.came_through(now, &share.path[..=at]);
            let holder = outgoing.holder().clone();
            // The first sign of life is what a time-out waits for.
            let ack_time = &mut self.peer(&holder).ack_time;
            sent.into_iter().for_each(|sent| ack_time.measured(now.since(sent)));
            let ack_time = *ack_time;
            let timeout = ack_time.timeout(&self.config) + WAITS_INTERVAL;
            self.expect_share(*relay, *index, None, now.after(timeout));
        }
    }

    pub(super) fn relay_acked(&mut self, now: Time, from: &SiteId, relay: KeyId, proof: Option<&[u8; Proof::LEN]>) {
        let all_sent = |outgoing: &Outgoing| outgoing.shares.iter().all(|share| share.sent.is_some());
        if self.outgoing.get(&relay).is_none_or(|outgoing| outgoing.holder() != from || !all_sent(outgoing)) {
            // Given up, or forgotten in a crash: the holder must not keep what the owner does not have.
            if self.peer(from).own.known(relay) == 0 {
                self.send(from, &Message::RelayVoid { sets: vec![KeySet::whole(relay)] });
            }
            return;
        }
        let is_shown = |outgoing: &Outgoing| match (&outgoing.proof, proof) {
            (Some(proof), Some(shown)) => proof.is(shown),
            (expected, shown) => expected.is_none() && shown.is_none(),
        };
        if !self.outgoing.get(&relay).is_some_and(is_shown) {
            return self.relay_unconfirmed(now, relay, "acknowledged by a site that has another batch");
        }
        let Some(outgoing) = self.relay_ended(relay) else { return };
        let origin = Arc::new(Origin::new(outgoing.ways(), self.utc()));
        for (index, key) in super::relay::pair_keys(&outgoing.keys) {
            self.journal.change(record::put_pair_key(Side::Own, from, relay, index, &origin, key));
        }
        self.keys_stored(from, relay, &outgoing.keys);
        self.counters.relayed_keys += outgoing.count() as u64;
        outgoing.shares.iter().for_each(|share| self.ways.came_through(now, &share.path));
        if outgoing.proof.is_some() {
            outgoing.shares.iter().for_each(|share| self.ways.confirmed(&share.path));
        }
        let peer = self.peer(from);
        let sent = outgoing.shares.iter().filter_map(|share| share.sent).max();
        if let Some(sent) = sent.filter(|_| !outgoing.waited) {
            peer.ack_time.measured(now.since(sent));
        }
        peer.failures = 0;
        let slow = now.since(outgoing.made) > BATCH_SLOW;
        peer.batch = if slow { (peer.batch / 2).max(BATCH_MIN) } else { (peer.batch * 2).min(BATCH_MAX) };
        let made = outgoing.count();
        peer.own.add(relay, 0, origin, outgoing.keys);
        self.keys_made(from, made);
        self.fill_due = true;
    }

    pub(super) fn relay_refused(&mut self, now: Time, from: &SiteId, relay: KeyId, reason: RelayFailure) {
        let Some(outgoing) = self.outgoing.get(&relay) else { return };
        let at = |share: &Share| Some((share.path.clone(), share.path.iter().position(|site| site == from)?));
        let Some((path, at)) = outgoing.shares.iter().find_map(at).filter(|(_, at)| *at > 0) else { return };
        let text = match reason {
            RelayFailure::NoKey => "no key on a later hop",
            RelayFailure::NoHop => "a later hop is not reached",
            RelayFailure::Refused => "a later site refused the key or the tag",
            RelayFailure::Full => "the last site is full",
            RelayFailure::Unconfirmed => {
                return self.relay_unconfirmed(now, relay, "the shares do not fit together");
            }
        };
        match (reason, path.get(at + 1)) {
            (RelayFailure::NoKey | RelayFailure::NoHop, Some(next)) => self.ways.refused(now, from, next),
            (RelayFailure::Refused, _) => self.ways.refused(now, &path[at - 1], from),
            _ => {}
        }
        self.relay_failed(now, relay, text);
    }

    /// A batch was changed on one of its ways.
    fn relay_unconfirmed(&mut self, now: Time, relay: KeyId, reason: &str) {
        let Some(outgoing) = self.outgoing.get(&relay) else { return };
        let (holder, ways, count) = (outgoing.holder().clone(), outgoing.ways(), outgoing.count());
        self.unconfirmed(now, relay, &holder, &ways, count);
        self.relay_failed(now, relay, reason);
    }

    pub(super) fn relay_timed_out(&mut self, now: Time, relay: KeyId) {
        let Some(outgoing) = self.outgoing.get(&relay) else { return };
        let late = |share: &&Share| share.deadline.is_some_and(|deadline| deadline <= now);
        let late = outgoing.shares.iter().filter(late).map(|share| (share.path.clone(), share.sent.unwrap_or(now)));
        for (path, sent) in late.collect::<Vec<_>>() {
            self.ways.lost(now, &path, sent);
        }
        self.relay_failed(now, relay, "not acknowledged in time");
    }

    /// A peer is down: what is on its way over it first or to it will not be acknowledged.
    pub(super) fn relays_cut_off(&mut self, now: Time, site: &SiteId) {
        let cut = |outgoing: &Outgoing| {
            outgoing.holder() == site || outgoing.shares.iter().any(|share| share.path[1] == *site)
        };
        let relays: Vec<KeyId> = self.outgoing.iter().filter(|(_, o)| cut(o)).map(|(relay, _)| *relay).collect();
        self.ways.suspect(now, site);
        relays.into_iter().for_each(|relay| self.relay_failed(now, relay, "a site on the way went down"));
    }

    pub(super) fn relay_failed(&mut self, now: Time, relay: KeyId, reason: &str) {
        let Some(outgoing) = self.relay_ended(relay) else { return };
        let holder = outgoing.holder().clone();
        for share in outgoing.shares.iter().filter(|share| share.sent.is_none()) {
            if let Some(outlet) = self.outlets.get_mut(&share.path[1]) {
                outlet.drop_if(|waiting| waiting.relay == relay && waiting.class == Class::Own);
            }
        }
        self.counters.relays_failed += 1;
        self.burned(ByteLen(outgoing.keys.len() as u64));
        self.journal.event(Event::RelayFailed { relay, peer: holder.clone(), reason: reason.to_owned() });
        if outgoing.shares.iter().any(|share| share.sent.is_some()) {
            self.send(&holder, &Message::RelayVoid { sets: vec![KeySet::whole(relay)] });
        }
        // Batches that were lost together count once.
        if outgoing.made >= self.peer(&holder).failed {
            self.back_off(now, &holder);
        }
        self.fill_due = true;
    }

    /// The next batch takes another way at once if there is one, else it waits.
    fn back_off(&mut self, now: Time, holder: &SiteId) {
        let ways = self.choose_ways(now, holder, (1, 1), &Fit::default(), usize::from(BATCH_MIN));
        let another = ways.is_some_and(|ways| !self.ways.is_doubtful(now, &ways[0]));
        let backoff = self.config.relay_backoff;
        let peer = self.peer(holder);
        peer.batch = (peer.batch / 2).clamp(BATCH_MIN, BATCH_FIRST);
        let wait = if another && peer.failures < AT_ONCE_MAX { Duration::ZERO } else { backoff };
        peer.next_relay = now.after(wait * (1 << peer.failures.min(6)));
        peer.failures += 1;
        peer.failed = now;
        let again = peer.next_relay;
        self.timers.insert((again, Timer::Fill));
    }

    /// Takes a relay off the books of what is on its way.
    fn relay_ended(&mut self, relay: KeyId) -> Option<Outgoing> {
        let outgoing = self.outgoing.remove(&relay)?;
        if let Some(due) = outgoing.due {
            self.timers.remove(&(due, Timer::Relay(relay)));
        }
        let peer = self.peer(outgoing.holder());
        peer.batches_in_flight -= 1;
        peer.keys_in_flight -= outgoing.kind.in_background(outgoing.count());
        Some(outgoing)
    }
}

impl Kind {
    /// How many of so many keys are for the stock that is filled all the time.
    fn in_background(self, keys: usize) -> usize {
        match self {
            Self::Background => keys,
            Self::Demanded => 0,
        }
    }
}

/// So many shares whose XOR is the keys; all but the last are drawn at random.
pub(super) fn split(keys: &SecretBytes, count: usize, rng: &mut impl CryptoRng) -> Vec<SecretBytes> {
    let mut shares: Vec<SecretBytes> = (1..count).map(|_| SecretBytes::random(keys.len(), rng)).collect();
    let mut last = keys.duplicate();
    shares.iter().for_each(|share| add_share(&mut last, share));
    shares.push(last);
    shares
}

/// XOR of one share onto a sum.
pub(super) fn add_share(sum: &mut SecretBytes, share: &SecretBytes) {
    assert_eq!(sum.len(), share.len(), "shares of a batch are of one length");
    sum.expose_mut(|sum| share.expose(|share| sum.iter_mut().zip(share).for_each(|(sum, bit)| *sum ^= bit)));
}

/// Most keys that a stock is filled up to.
const TARGET_MAX: usize = 1 << 22;
/// How often a failed relay is followed at once by one over another way.
const AT_ONCE_MAX: u32 = 4;
