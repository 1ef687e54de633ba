//! Peers compare what they hold: after they meet, and every now and then because messages get lost.
//!
//! ```text
//! holder  HeldDigest  --> owner     in 64 parts; nothing more if they agree
//! owner   HeldAsk     --> holder    for each part that differs
//! holder  Held        --> owner     at most 1,024 batches; asked on until the part is through
//! owner   RelayVoid   --> holder    what only the holder has
//! ```
//! A page is true of its range when it is sent, and messages keep their order, so pages need not fit together.

use std::collections::BTreeMap;

use types::id::{KeyId, SiteId};
use types::units::Time;

use super::{Kme, Timer};
use crate::config::SETS_MAX;
use crate::message::{Message, PoolState};
use crate::record::{self, Side};
use crate::stock::{Digest, KeyRange, KeySet};

impl Kme {
    pub(super) fn peer_up(&mut self, now: Time, site: &SiteId) {
        let peer = self.peer(site);
        peer.up = true;
        peer.silent = false;
        peer.failures = 0;
        peer.next_relay = now;
        self.ways.clear(site);
        self.fill_due = true;
        self.sync_with(site);
        self.resend_assignments(now, site);
        self.serve(now, site);
    }

    pub(super) fn peer_down(&mut self, now: Time, site: &SiteId) {
        self.peer(site).up = false;
        self.parts.retain(|(owner, _), _| owner != site);
        self.refuse_waiting(now, site);
        self.relays_cut_off(now, site);
        self.serve(now, site);
    }

    pub(super) fn sync_all(&mut self, now: Time) {
        self.timers.insert((now.after(self.config.sync_interval), Timer::Sync));
        let up: Vec<SiteId> = self.peers.iter().filter(|(_, peer)| peer.up).map(|(site, _)| site.clone()).collect();
        up.iter().for_each(|site| self.sync_with(site));
        self.fill_due = true;
    }

    fn sync_with(&mut self, site: &SiteId) {
        self.tell_standing(site);
        let pools = self.pools.values().filter(|pool| pool.peer == *site);
        let mut messages: Vec<Message> = pools.map(|pool| Message::Pool(pool.state())).collect();
        messages.push(Message::HeldDigest(Box::new(*self.peer(site).held.digest())));
        messages.iter().for_each(|message| self.send(site, message));
    }

    pub(super) fn pool_state(&mut self, now: Time, from: &SiteId, state: &PoolState) {
        let Some(pool) = self.pools.get_mut(&state.link) else {
            // The other end was faster; it will hear of ours when a block is filed here.
            return;
        };
        if pool.peer != *from {
            return self.misbehaved(from, "the pool of a link that ends elsewhere");
        }
        let burned = pool.learn(state, &mut self.journal);
        self.burned(burned);
        self.set_back_learned(from);
        self.fill_due = true;
        self.serve(now, from);
    }

    /// What of ours the holder has, in short.
    pub(super) fn held_digest(&mut self, from: &SiteId, theirs: &Digest) {
        let parts: Vec<usize> = self.peer(from).own.digest().differs(theirs).collect();
        for part in parts {
            self.send(from, &Message::HeldAsk { range: KeyRange::of_part(part) });
        }
    }

    /// The owner wants to know what of its keys we hold.
    pub(super) fn held_asked(&mut self, from: &SiteId, asked: KeyRange) {
        let (range, sets) = self.peer(from).held.page(asked, SETS_MAX);
        self.send(from, &Message::Held { range, end: asked.upto, sets });
    }

    /// The holder lists all keys of ours in a range that it holds. What only one side has is of no use to either.
    pub(super) fn held(&mut self, from: &SiteId, range: KeyRange, end: KeyId, sets: &[KeySet]) {
        let own = &mut self.peer(from).own;
        let held: BTreeMap<KeyId, u64> = sets.iter().map(|set| (set.relay, set.keys)).collect();
        let dropped = own.drop_unheld(range, |relay| held.get(&relay).copied().unwrap_or_default());
        let unknown = held.into_iter().map(|(relay, keys)| KeySet { relay, keys: keys & !own.known(relay) });
        let unknown: Vec<KeySet> = unknown.filter(|set| set.keys != 0).collect();
        let void = unknown.into_iter().filter(|set| !self.outgoing.contains_key(&set.relay));
        let void: Vec<KeySet> = void.collect();
        record::delete_pair_keys(Side::Own, from, &dropped).for_each(|change| self.journal.change(change));
        self.burned_keys("the other site does not hold it", dropped.iter().map(|run| run.bytes()).sum());
        if !void.is_empty() {
            self.send(from, &Message::RelayVoid { sets: void });
        }
        if let Some(range) = range.rest(end) {
            self.send(from, &Message::HeldAsk { range });
        }
        self.fill_due = true;
    }
}
