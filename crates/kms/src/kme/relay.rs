//! Key relay: fresh end-to-end keys carried hop by hop under one-time pad and one-time tag.
//!
//! ```text
//! owner   draws pad, seals, sends          keeps the keys in memory only
//! transit takes pad, checks, opens,        marks durable before the next hop sees anything
//!         draws pad, seals, sends
//! holder  takes pad, checks, opens,        keys durable before it acknowledges
//!         acknowledges to the owner
//! owner   stores                           keys durable before one is assigned
//! ```
//! A relay that is not acknowledged in time is given up by the owner; its keys are never used.

use crypto::domain::Domain;
use crypto::pad::OneTimePad;
use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use types::event::Event;
use types::id::{KeyId, SiteId};
use types::units::{BitLen, ByteLen, Time};

use super::{Kme, Timer};
use crate::config::{BATCH_FIRST, BATCH_MAX, BATCH_MIN, HELD_BATCHES_MAX, PAIR_KEY_BYTES, RELAYS_PER_STEP_MAX};
use crate::message::{Message, Relay, RelayFailure};
use crate::pool::{Class, LinkPool, Pad};
use crate::record::{self, Side};
use crate::stock::{KeySet, Run};

/// A relay from here that is on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    path: Vec<SiteId>,
    keys: SecretBytes,
    deadline: Time,
}

impl Outgoing {
    fn holder(&self) -> &SiteId {
        self.path.last().expect("a path has two sites or more")
    }

    fn count(&self) -> usize {
        self.keys.len() / PAIR_KEY_BYTES
    }
}

impl Kme {
    /// Starts relays to the peers that lack most, as far as link key allows.
    pub(super) fn fill(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if !std::mem::take(&mut self.fill_due) {
            return;
        }
        for _ in 0..RELAYS_PER_STEP_MAX {
            let Some((path, count)) = self.neediest(now) else { return };
            self.start_relay(now, path, count, rng);
        }
        self.timers.insert((now, Timer::Fill));
    }

    /// The way to the peer with the smallest stock that can be helped, and how many keys.
    fn neediest(&self, now: Time) -> Option<(Vec<SiteId>, usize)> {
        let target = usize::try_from(self.config.target_keys).unwrap_or(usize::MAX);
        let least = usize::from(BATCH_MIN).min(target);
        let mut best: Option<(usize, &[SiteId], usize)> = None;
        for (site, peer) in self.peers.iter().filter(|(_, peer)| peer.up) {
            let have = peer.own.ready() + peer.keys_in_flight;
            let lack = target.saturating_sub(have);
            let waits = peer.batches_in_flight >= self.config.batches_in_flight || now < peer.next_relay;
            if waits || lack < least || best.is_some_and(|(smallest, ..)| smallest <= have) {
                continue;
            }
            let Some(path) = self.routes.get(site) else { continue };
            let Some(pool) = self.pool_to(&path[1]) else { continue };
            let room = pool.available(Class::Own).saturating_sub(OneTimeTagKey::LEN) / PAIR_KEY_BYTES;
            let count = lack.min(room).min(usize::from(peer.batch));
            if count >= least && self.is_up(&path[1]) {
                best = Some((have, path, count));
            }
        }
        best.map(|(_, path, count)| (path.to_vec(), count))
    }

    fn start_relay(&mut self, now: Time, path: Vec<SiteId>, count: usize, rng: &mut impl CryptoRng) {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let relay = KeyId::from_random(id);
        let keys = SecretBytes::random(count * PAIR_KEY_BYTES, rng);
        let holder = path.last().expect("a path has two sites or more").clone();
        let deadline = now.after(self.config.relay_timeout);
        let sent = self.seal_hop(relay, &path, 0, &keys, Class::Own);
        let peer = self.peer(&holder);
        if sent.is_err() {
            // The pool is in too many small pieces for one message; transit or more key will change that.
            peer.next_relay = deadline;
            self.timers.insert((deadline, Timer::Fill));
            return;
        }
        peer.batches_in_flight += 1;
        peer.keys_in_flight += count;
        self.timers.insert((deadline, Timer::Relay(relay)));
        self.outgoing.insert(relay, Outgoing { path, keys, deadline });
    }

    /// Draws key of the link to `path[hop + 1]`, seals the keys with it and sends them.
    fn seal_hop(
        &mut self,
        relay: KeyId,
        path: &[SiteId],
        hop: u8,
        keys: &SecretBytes,
        class: Class,
    ) -> Result<(), RelayFailure> {
        let next = &path[usize::from(hop) + 1];
        if !self.is_up(next) {
            return Err(RelayFailure::NoHop);
        }
        let link =
            self.pools.iter().filter(|(_, pool)| pool.peer == *next).max_by_key(|(_, pool)| pool.available(class));
        let Some(link) = link.map(|(link, _)| link.clone()) else { return Err(RelayFailure::NoHop) };
        let pool = self.pools.get_mut(&link).expect("it was found above");
        let len = OneTimeTagKey::LEN + keys.len();
        let Pad { ranges, mut bytes } = pool.draw(len, class, &mut self.journal).ok_or(RelayFailure::NoKey)?;
        let header = Relay::header(relay, path, hop, &link, &ranges);
        let tag_key =
            bytes.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new).expect("the pad begins with it");
        let mut sealed = keys.duplicate();
        sealed.expose_mut(|keys| OneTimePad::new(bytes).apply(keys)).expect("the pad is as long as the keys");
        let sealed = sealed.into_public("under a one-time pad");
        let tag = tag_key.tag(Domain::RelayHop, &[&header, &sealed]);
        self.journal.event(Event::RelayHop {
            relay,
            from: path[0].clone(),
            to: path[path.len() - 1].clone(),
            hop: u64::from(hop),
            keys: (keys.len() / PAIR_KEY_BYTES) as u64,
            spent: BitLen::from(ByteLen(len as u64)),
        });
        self.send(next, &Message::Relay(Relay { relay, path: path.to_vec(), hop, link, ranges, sealed, tag }));
        Ok(())
    }

    pub(super) fn relay_arrived(&mut self, from: &SiteId, relay: Relay) {
        let hop = usize::from(relay.hop);
        if relay.path[hop] != *from || relay.path[hop + 1] != self.config.site {
            return self.misbehaved(from, "a relay on another way");
        }
        let (id, owner) = (relay.relay, relay.path[0].clone());
        let outcome = self.open_hop(from, &relay).and_then(|keys| {
            if hop + 2 < relay.path.len() {
                self.seal_hop(id, &relay.path, relay.hop + 1, &keys, Class::Transit)?;
                self.counters.transit_keys += (keys.len() / PAIR_KEY_BYTES) as u64;
                return Ok(());
            }
            self.store_held(&owner, id, &keys)
        });
        if let Err(reason) = outcome {
            self.send(&owner, &Message::RelayNack { relay: id, reason });
        }
    }

    /// Takes the key of the hop, checks the tag, opens. The key is spent whatever the outcome.
    fn open_hop(&mut self, from: &SiteId, relay: &Relay) -> Result<SecretBytes, RelayFailure> {
        let pool = self.pools.get_mut(&relay.link).filter(|pool| pool.peer == *from).ok_or(RelayFailure::NoHop)?;
        let Ok((mut bytes, holes)) = pool.take(&relay.ranges, &mut self.journal) else {
            self.counters.messages_refused += 1;
            return Err(RelayFailure::Refused);
        };
        self.burned(holes);
        let header = Relay::header(relay.relay, &relay.path, relay.hop, &relay.link, &relay.ranges);
        let spent = bytes.len();
        let tag_key = bytes.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new).expect("decoding checked it");
        if tag_key.verify(Domain::RelayHop, &[&header, &relay.sealed], &relay.tag).is_err() {
            self.burned_keys("the tag of a relayed batch is wrong", spent);
            self.misbehaved(from, "a relay with a wrong tag");
            return Err(RelayFailure::Refused);
        }
        let mut keys = SecretBytes::copy_of(&relay.sealed);
        keys.expose_mut(|keys| OneTimePad::new(bytes).apply(keys)).expect("decoding checked the lengths");
        Ok(keys)
    }

    fn store_held(&mut self, owner: &SiteId, relay: KeyId, keys: &SecretBytes) -> Result<(), RelayFailure> {
        let held = &mut self.peer(owner).held;
        if held.sets().len() >= HELD_BATCHES_MAX || held.has(relay) {
            return Err(RelayFailure::Full);
        }
        for (index, key) in pair_keys(keys) {
            self.peer(owner).held.add(relay, index, &key);
            self.journal.change(record::put_pair_key(Side::Held, owner, relay, index, key));
        }
        self.keys_stored(owner, relay, keys);
        self.send(owner, &Message::RelayAck { relay });
        Ok(())
    }

    pub(super) fn relay_acked(&mut self, from: &SiteId, relay: KeyId) {
        if self.outgoing.get(&relay).is_none_or(|outgoing| outgoing.holder() != from) {
            // Given up, or forgotten in a crash: the holder must not keep what the owner does not have.
            if self.peer(from).own.known(relay) == 0 {
                self.send(from, &Message::RelayVoid { sets: vec![KeySet::whole(relay)] });
            }
            return;
        }
        let Some(outgoing) = self.relay_ended(relay) else { return };
        for (index, key) in pair_keys(&outgoing.keys) {
            self.journal.change(record::put_pair_key(Side::Own, from, relay, index, key));
        }
        self.keys_stored(from, relay, &outgoing.keys);
        self.counters.relayed_keys += outgoing.count() as u64;
        let peer = self.peer(from);
        peer.failures = 0;
        peer.batch = (peer.batch * 2).min(BATCH_MAX);
        peer.own.add(relay, 0, outgoing.keys);
        self.fill_due = true;
    }

    pub(super) fn relay_refused(&mut self, now: Time, from: &SiteId, relay: KeyId, reason: RelayFailure) {
        if self.outgoing.get(&relay).is_some_and(|outgoing| outgoing.path.contains(from)) {
            let reason = match reason {
                RelayFailure::NoKey => "no key on a later hop",
                RelayFailure::NoHop => "a later hop is not reached",
                RelayFailure::Refused => "a later site refused the key or the tag",
                RelayFailure::Full => "the last site is full",
            };
            self.relay_failed(now, relay, reason);
        }
    }

    pub(super) fn relay_timed_out(&mut self, now: Time, relay: KeyId) {
        if self.outgoing.contains_key(&relay) {
            self.relay_failed(now, relay, "not acknowledged in time");
        }
    }

    /// A peer is down: what is on its way through it or to it will not be acknowledged.
    pub(super) fn relays_cut_off(&mut self, now: Time, site: &SiteId) {
        let cut = |outgoing: &Outgoing| outgoing.path[1] == *site || outgoing.holder() == site;
        let relays: Vec<KeyId> = self.outgoing.iter().filter(|(_, o)| cut(o)).map(|(relay, _)| *relay).collect();
        relays.into_iter().for_each(|relay| self.relay_failed(now, relay, "a site on the way went down"));
    }

    fn relay_failed(&mut self, now: Time, relay: KeyId, reason: &str) {
        let Some(outgoing) = self.relay_ended(relay) else { return };
        let holder = outgoing.holder().clone();
        self.counters.relays_failed += 1;
        self.burned(ByteLen(outgoing.keys.len() as u64));
        self.journal.event(Event::RelayFailed { relay, peer: holder.clone(), reason: reason.to_owned() });
        self.send(&holder, &Message::RelayVoid { sets: vec![KeySet::whole(relay)] });
        let backoff = self.config.relay_backoff;
        let peer = self.peer(&holder);
        peer.batch = (peer.batch / 2).clamp(BATCH_MIN, BATCH_FIRST);
        peer.next_relay = now.after(backoff * (1 << peer.failures.min(6)));
        peer.failures += 1;
        let again = peer.next_relay;
        self.timers.insert((again, Timer::Fill));
    }

    pub(super) fn keys_voided(&mut self, from: &SiteId, sets: &[KeySet]) {
        let held = &mut self.peer(from).held;
        let gone: Vec<Run> = sets.iter().flat_map(|set| held.burn(*set)).collect();
        record::delete_pair_keys(Side::Held, from, &gone).for_each(|change| self.journal.change(change));
        self.burned_keys("voided by the owner", gone.iter().map(|run| run.bytes()).sum());
    }

    /// Takes a relay off the books of what is on its way.
    fn relay_ended(&mut self, relay: KeyId) -> Option<Outgoing> {
        let outgoing = self.outgoing.remove(&relay)?;
        self.timers.remove(&(outgoing.deadline, Timer::Relay(relay)));
        let peer = self.peer(outgoing.holder());
        peer.batches_in_flight -= 1;
        peer.keys_in_flight -= outgoing.count();
        Some(outgoing)
    }

    fn keys_stored(&mut self, peer: &SiteId, relay: KeyId, keys: &SecretBytes) {
        let keys = (keys.len() / PAIR_KEY_BYTES) as u64;
        self.journal.event(Event::KeysStored { relay, peer: peer.clone(), keys });
    }

    fn pool_to(&self, site: &SiteId) -> Option<&LinkPool> {
        self.pools.values().filter(|pool| pool.peer == *site).max_by_key(|pool| pool.available(Class::Own))
    }
}

fn pair_keys(keys: &SecretBytes) -> impl Iterator<Item = (u16, SecretBytes)> {
    let count = u16::try_from(keys.len() / PAIR_KEY_BYTES).expect("a batch holds at most 64 keys");
    (0..count).map_while(|index| Some((index, keys.part(usize::from(index) * PAIR_KEY_BYTES, PAIR_KEY_BYTES)?)))
}
