//! Key relay: end-to-end keys carried hop by hop under one-time pad and one-time tag.
//!
//! ```text
//! owner   draws pad, seals, sends          keeps the keys in memory only
//! transit takes pad, checks, opens,        marks durable before the next hop sees anything
//!         waits its turn for key,          tells the owner that it waits
//!         draws pad, seals, sends
//! holder  takes pad, checks, opens,        keys durable before it acknowledges
//!         waits for all shares, confirms them,
//!         acknowledges to the owner
//! owner   stores                           keys durable before one is assigned
//! ```
//! A relay that is neither acknowledged nor said to wait in time is given up by the owner; its keys are never used.

use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::domain::Domain;
use crypto::manipulation::Proof;
use crypto::pad::OneTimePad;
use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use types::event::Event;
use types::id::{KeyId, LinkId, SiteId};
use types::units::{BitLen, ByteLen, Time};

use super::{Kme, Timer, confirm, fill};
use crate::config::{BATCH_MIN, PAIR_KEY_BYTES, PARTS_MAX, WAITS_INTERVAL, WAITS_MAX};
use crate::message::{Message, Relay, RelayFailure};
use crate::origin::Origin;
use crate::pool::{Class, Pad};
use crate::queue::Waiting;
use crate::record::{self, Side};
use crate::stock::{KeySet, Run};

/// A batch of which some shares have come; in memory only.
#[derive(Debug)]
pub(super) struct Parts {
    shares: BTreeMap<u8, (Vec<SiteId>, SecretBytes)>,
    count: u8,
    until: Time,
}

impl Kme {
    /// Key of the links to a neighbour that one message may draw, and whether one of them makes key. `None` if no
    /// link goes there.
    pub(super) fn room_to(&self, site: &SiteId) -> Option<(usize, bool)> {
        let pools = self.pools.values().filter(|pool| pool.peer == *site);
        pools.map(|pool| (pool.available(), pool.up)).reduce(|(room, up), (more, also)| (room.max(more), up || also))
    }

    fn best_link_to(&self, site: &SiteId) -> Option<LinkId> {
        let pools = self.pools.iter().filter(|(_, pool)| pool.peer == *site);
        pools.max_by_key(|(_, pool)| pool.available()).map(|(link, _)| link.clone())
    }

    /// Puts a batch in line for key of its next hop, and sends what can be sent.
    pub(super) fn queue_hop(&mut self, now: Time, waiting: Waiting) {
        let next = waiting.path[usize::from(waiting.hop) + 1].clone();
        let Some(pool) = self.best_link_to(&next).and_then(|link| self.pools.get_mut(&link)) else {
            return self.turned_away(now, &waiting, RelayFailure::NoHop);
        };
        pool.ask(waiting.bytes());
        let (flow, relay, class) = (waiting.flow(), waiting.relay, waiting.class);
        let index = waiting.share.index;
        if let Err(waiting) = self.outlets.entry(next.clone()).or_default().push(waiting) {
            return self.turned_away(now, &waiting, RelayFailure::NoKey);
        }
        self.serve(now, &next);
        if self.outlets.get(&next).is_some_and(|outlet| outlet.has(&flow, relay)) {
            if class == Class::Transit {
                self.send(&flow.owner, &Message::RelayWait { waits: vec![(relay, index)] });
            }
            self.watch_waits(now);
        }
    }

    /// Sends what waits for key of the links to a neighbour, the first in line first, as far as the key goes.
    pub(super) fn serve(&mut self, now: Time, next: &SiteId) {
        loop {
            let (reached, room) = (self.is_up(next), self.room_to(next));
            let Some(first) = self.outlets.get_mut(next).and_then(|outlet| outlet.first()) else { return };
            let (room, makes_key) = room.unwrap_or_default();
            if reached && first.bytes() > room {
                if makes_key {
                    return;
                }
                let fits = room.saturating_sub(OneTimeTagKey::LEN) / PAIR_KEY_BYTES;
                let plain = first.class == Class::Own && first.share.count == 1;
                if plain && fits >= usize::from(BATCH_MIN) {
                    let relay = first.relay;
                    first.keys = first.keys.part(0, fits * PAIR_KEY_BYTES).expect("it fits less than there is");
                    self.cut_relay(relay, fits);
                    continue;
                }
            }
            let Some(outlet) = self.outlets.get_mut(next) else { return };
            if reached && outlet.first().is_some_and(|first| first.bytes() <= room) {
                let served = outlet.serve().expect("there is a first in line");
                self.seal_hop(now, next, &served);
            } else if let Some(left) = outlet.drop_first() {
                let reason = if reached { RelayFailure::NoKey } else { RelayFailure::NoHop };
                self.turned_away(now, &left, reason);
            }
        }
    }

    /// A batch cannot go on from here.
    fn turned_away(&mut self, now: Time, waiting: &Waiting, reason: RelayFailure) {
        match (waiting.class, reason) {
            (Class::Own, RelayFailure::NoHop) => self.relay_failed(now, waiting.relay, "the first hop is not reached"),
            (Class::Own, _) => self.relay_failed(now, waiting.relay, "no key on the first hop"),
            (Class::Transit, _) => {
                self.send(&waiting.path[0], &Message::RelayNack { relay: waiting.relay, reason });
            }
        }
    }

    /// Draws key of a link to `next`, seals the keys with it and sends them.
    fn seal_hop(&mut self, now: Time, next: &SiteId, batch: &Waiting) {
        let link = self.best_link_to(next).expect("there is room on one");
        let pool = self.pools.get_mut(&link).expect("it was found above");
        let (len, tag_len) = (batch.bytes(), OneTimeTagKey::LEN);
        let pad = pool.draw(len, tag_len, batch.class, &mut self.journal);
        let Pad { ranges, mut bytes } = pad.expect("the caller looked for room");
        let header = Relay::header(batch.relay, batch.share, &batch.path, batch.hop, &link, &ranges);
        let tag_key = bytes.split_front(tag_len).and_then(OneTimeTagKey::new).expect("the pad begins with it");
        let mut sealed = batch.keys.duplicate();
        sealed.expose_mut(|keys| OneTimePad::new(bytes).apply(keys)).expect("the pad is as long as the keys");
        let sealed = sealed.into_public("under a one-time pad");
        let tag = tag_key.tag(Domain::RelayHop, &[&header, &sealed]);
        let Waiting { relay, share, path, hop, keys, class, .. } = batch;
        let count = share.keys(keys.len()) as u64;
        self.journal.event(Event::RelayHop {
            relay: *relay,
            from: path[0].clone(),
            to: path[path.len() - 1].clone(),
            hop: u64::from(*hop),
            keys: count,
            spent: BitLen::from(ByteLen(len as u64)),
        });
        let message = Relay { relay: *relay, share: *share, path: path.clone(), hop: *hop, link, ranges, sealed, tag };
        self.send(next, &Message::Relay(message));
        match class {
            Class::Own => self.share_sent(now, *relay, *share),
            Class::Transit => self.counters.transit_keys += count,
        }
    }

    pub(super) fn relay_arrived(&mut self, now: Time, from: &SiteId, relay: Relay) {
        let hop = usize::from(relay.hop);
        if relay.path[hop] != *from || relay.path[hop + 1] != self.config.site {
            return self.misbehaved(from, "a relay on another way");
        }
        let (id, owner) = (relay.relay, relay.path[0].clone());
        let outcome = self.open_hop(from, &relay).and_then(|keys| {
            if hop + 2 == relay.path.len() {
                return self.share_arrived(now, relay, keys);
            }
            if !self.is_up(&relay.path[hop + 2]) {
                return Err(RelayFailure::NoHop);
            }
            let Relay { share, path, hop, .. } = relay;
            let class = Class::Transit;
            self.queue_hop(now, Waiting { relay: id, share, path, hop: hop + 1, keys, class, since: now });
            Ok(())
        });
        if let Err(reason) = outcome {
            self.send(&owner, &Message::RelayNack { relay: id, reason });
        }
    }

    /// Takes the key of the hop, checks the tag, opens. The key is spent whatever the outcome.
    fn open_hop(&mut self, from: &SiteId, relay: &Relay) -> Result<SecretBytes, RelayFailure> {
        let pool = self.pools.get_mut(&relay.link).filter(|pool| pool.peer == *from).ok_or(RelayFailure::NoHop)?;
        let Ok((bytes, holes)) = pool.take(&relay.ranges, &mut self.journal) else {
            self.counters.messages_refused += 1;
            return Err(RelayFailure::Refused);
        };
        self.burned(holes);
        let spent = bytes.len();
        open_sealed(relay, bytes).ok_or_else(|| {
            self.burned_keys("the tag of a relayed batch is wrong", spent);
            self.misbehaved(from, "a relay with a wrong tag");
            RelayFailure::Refused
        })
    }

    /// Keeps a share until all of its batch have come, then stores the batch.
    fn share_arrived(&mut self, now: Time, relay: Relay, keys: SecretBytes) -> Result<(), RelayFailure> {
        let Relay { relay, share, path, .. } = relay;
        if share.count == 1 {
            return self.store_held(vec![path], relay, keys, None);
        }
        let owner = path[0].clone();
        let place = (owner.clone(), relay);
        if !self.parts.contains_key(&place) {
            let of_owner = self.parts.keys().filter(|(of, _)| *of == owner).count();
            if of_owner >= PARTS_MAX || self.peer(&owner).held.has(relay) {
                return Err(RelayFailure::Full);
            }
            let until = now.after(self.config.relay_wait_max);
            self.parts.insert(place.clone(), Parts { shares: BTreeMap::new(), count: share.count, until });
        }
        let parts = self.parts.get_mut(&place).expect("the lines above made it");
        let alike = parts.shares.values().all(|(_, other)| other.len() == keys.len());
        if parts.count != share.count || !alike || parts.shares.contains_key(&share.index) {
            self.parts.remove(&place);
            return Err(RelayFailure::Refused);
        }
        parts.shares.insert(share.index, (path, keys));
        if parts.shares.len() < usize::from(parts.count) {
            self.send(&owner, &Message::RelayWait { waits: vec![(relay, share.index)] });
            self.watch_waits(now);
            return Ok(());
        }
        let parts = self.parts.remove(&place).expect("it was found above");
        let (paths, shares): (Vec<_>, Vec<_>) = parts.shares.into_values().unzip();
        let whole = shares.into_iter().reduce(|mut sum, share| {
            fill::add_share(&mut sum, &share);
            sum
        });
        let word = whole.expect("a batch has a share");
        let len = word.len();
        let Some((keys, proof)) = confirm::decode(relay, &paths, word) else {
            self.unconfirmed(now, relay, &owner, &paths, share.keys(len));
            self.burned_keys("the shares of a batch do not fit together", len);
            return Err(RelayFailure::Unconfirmed);
        };
        self.store_held(paths, relay, keys, Some(proof))
    }

    fn store_held(
        &mut self,
        paths: Vec<Vec<SiteId>>,
        relay: KeyId,
        keys: SecretBytes,
        proof: Option<Proof>,
    ) -> Result<(), RelayFailure> {
        let (owner, shares) = (paths[0][0].clone(), paths.len());
        let max = usize::try_from(self.config.held_keys_max).unwrap_or(usize::MAX);
        let held = &self.peer(&owner).held;
        if held.count() + keys.len() / PAIR_KEY_BYTES > max || held.has(relay) {
            return Err(RelayFailure::Full);
        }
        let origin = Arc::new(Origin::new(paths, self.utc()));
        if usize::from(origin.combined) != shares {
            // The ways that the shares name cross: whoever sits there would know the keys.
            return Err(RelayFailure::Refused);
        }
        for (index, key) in pair_keys(&keys) {
            self.journal.change(record::put_pair_key(Side::Held, &owner, relay, index, &origin, key));
        }
        self.keys_stored(&owner, relay, &keys);
        let stored = u64::MAX >> (64 - keys.len() / PAIR_KEY_BYTES);
        self.peer(&owner).held.add(relay, stored, origin, keys);
        self.send(&owner, &Message::RelayAck { relay, proof: proof.map(Proof::show) });
        Ok(())
    }

    pub(super) fn keys_voided(&mut self, from: &SiteId, sets: &[KeySet]) {
        let held = &mut self.peer(from).held;
        let gone: Vec<Run> = sets.iter().flat_map(|set| held.burn(*set)).collect();
        sets.iter().for_each(|set| _ = self.parts.remove(&(from.clone(), set.relay)));
        record::delete_pair_keys(Side::Held, from, &gone).for_each(|change| self.journal.change(change));
        self.burned_keys("voided by the owner", gone.iter().map(|run| run.bytes()).sum());
    }

    /// Something waits: its owner is told so from time to time.
    fn watch_waits(&mut self, now: Time) {
        if !std::mem::replace(&mut self.waits_watched, true) {
            self.timers.insert((now.after(WAITS_INTERVAL), Timer::Waits));
        }
    }

    /// Tells owners what of theirs waits here, and gives up what waited too long.
    pub(super) fn waits_due(&mut self, now: Time) {
        self.waits_watched = false;
        let longest = self.config.relay_wait_max;
        let mut late = Vec::new();
        for outlet in self.outlets.values_mut() {
            late.extend(outlet.drop_if(|waiting| now.since(waiting.since) >= longest));
        }
        late.iter().for_each(|waiting| self.turned_away(now, waiting, RelayFailure::NoKey));
        self.parts.retain(|_, parts| now < parts.until);
        let mut waits: BTreeMap<&SiteId, Vec<(KeyId, u8)>> = BTreeMap::new();
        let transit = self.outlets.values().flat_map(|outlet| outlet.waiting()).filter(|w| w.class == Class::Transit);
        transit.for_each(|w| waits.entry(&w.path[0]).or_default().push((w.relay, w.share.index)));
        for ((owner, relay), parts) in &self.parts {
            waits.entry(owner).or_default().extend(parts.shares.keys().map(|index| (*relay, *index)));
        }
        let waits: Vec<(SiteId, Vec<(KeyId, u8)>)> = waits.into_iter().map(|(to, w)| (to.clone(), w)).collect();
        for (owner, waits) in waits {
            waits.chunks(WAITS_MAX).for_each(|some| self.send(&owner, &Message::RelayWait { waits: some.to_vec() }));
        }
        if !self.parts.is_empty() || self.outlets.values().any(|outlet| outlet.len() > 0) {
            self.watch_waits(now);
        }
    }

    pub(super) fn keys_stored(&mut self, peer: &SiteId, relay: KeyId, keys: &SecretBytes) {
        let keys = (keys.len() / PAIR_KEY_BYTES) as u64;
        self.journal.event(Event::KeysStored { relay, peer: peer.clone(), keys });
    }
}

/// Checks the tag of a hop with the key that its ranges name, and opens it.
pub(super) fn open_sealed(relay: &Relay, mut key: SecretBytes) -> Option<SecretBytes> {
    let header = Relay::header(relay.relay, relay.share, &relay.path, relay.hop, &relay.link, &relay.ranges);
    let tag_key = key.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new)?;
    tag_key.verify(Domain::RelayHop, &[&header, &relay.sealed], &relay.tag).ok()?;
    let mut keys = SecretBytes::copy_of(&relay.sealed);
    keys.expose_mut(|keys| OneTimePad::new(key).apply(keys)).ok()?;
    Some(keys)
}

pub(super) fn pair_keys(keys: &SecretBytes) -> impl Iterator<Item = (u16, SecretBytes)> {
    let count = u16::try_from(keys.len() / PAIR_KEY_BYTES).expect("a batch holds at most 64 keys");
    (0..count).map_while(|index| Some((index, keys.part(usize::from(index) * PAIR_KEY_BYTES, PAIR_KEY_BYTES)?)))
}
