//! Peers compare what they hold: after they meet, and every now and then because messages get lost.

use std::collections::BTreeMap;

use types::id::{KeyId, SiteId};
use types::units::Time;

use super::{Kme, Timer};
use crate::message::{Message, PoolState};
use crate::record::{self, Side};
use crate::stock::KeySet;

impl Kme {
    pub(super) fn peer_up(&mut self, now: Time, site: &SiteId) {
        let peer = self.peer(site);
        peer.up = true;
        peer.silent = false;
        peer.failures = 0;
        peer.next_relay = now;
        self.fill_due = true;
        self.sync_with(site);
        self.resend_assignments(now, site);
    }

    pub(super) fn peer_down(&mut self, now: Time, site: &SiteId) {
        self.peer(site).up = false;
        self.refuse_waiting(now, site);
        self.relays_cut_off(now, site);
    }

    pub(super) fn sync_all(&mut self, now: Time) {
        self.timers.insert((now.after(self.config.sync_interval), Timer::Sync));
        let up: Vec<SiteId> = self.peers.iter().filter(|(_, peer)| peer.up).map(|(site, _)| site.clone()).collect();
        up.iter().for_each(|site| self.sync_with(site));
        self.fill_due = true;
    }

    fn sync_with(&mut self, site: &SiteId) {
        let pools = self.pools.values().filter(|pool| pool.peer == *site);
        let mut messages: Vec<Message> = pools.map(|pool| Message::Pool(pool.state())).collect();
        messages.push(Message::Held { sets: self.peer(site).held.sets().collect() });
        messages.iter().for_each(|message| self.send(site, message));
    }

    pub(super) fn pool_state(&mut self, from: &SiteId, state: &PoolState) {
        let Some(pool) = self.pools.get_mut(&state.link) else {
            // The other end was faster; it will hear of ours when a block is filed here.
            return;
        };
        if pool.peer != *from {
            return self.misbehaved(from, "the pool of a link that ends elsewhere");
        }
        let burned = pool.learn(state, &mut self.journal);
        self.burned(burned);
        self.fill_due = true;
    }

    /// The holder lists all keys of ours that it holds. What only one side has is of no use to either.
    pub(super) fn held(&mut self, from: &SiteId, sets: &[KeySet]) {
        let own = &mut self.peer(from).own;
        let held: BTreeMap<KeyId, u64> = sets.iter().map(|set| (set.relay, set.keys)).collect();
        let dropped = own.drop_unheld(|relay| held.get(&relay).copied().unwrap_or_default());
        let unknown = held.into_iter().map(|(relay, keys)| KeySet { relay, keys: keys & !own.known(relay) });
        let unknown: Vec<KeySet> = unknown.filter(|set| set.keys != 0).collect();
        let void = unknown.into_iter().filter(|set| !self.outgoing.contains_key(&set.relay));
        let void: Vec<KeySet> = void.collect();
        record::delete_pair_keys(Side::Own, from, &dropped).for_each(|change| self.journal.change(change));
        self.burned_keys("the other site does not hold it", dropped.iter().map(|run| run.bytes()).sum());
        if !void.is_empty() {
            self.send(from, &Message::RelayVoid { sets: void });
        }
        self.fill_due = true;
    }
}
