//! Notices that a site's records were set back to an older state, from a backup or by an attacker with its disk.
//!
//! ```text
//! at     grows whenever a commit spends key: pad, a pair key, a delivery
//! began  what the records said when the process started
//! run    random number of the process
//! ```
//! Sites tell each other these when they meet and every now and then, and remember durably what they heard. A site
//! that comes with another run which began below what was heard of it has forgotten spendings. Both see it: it itself
//! because its peer tells what it remembers, before it draws any key that the two share. Then all that the two share
//! and that may have been spent is destroyed: at the site that was set back all pad that it would send with, up to
//! the highest block that the other knows, the keys that it holds and the deliveries that wait; at both sites their
//! stocks for each other.
//!
//! Exact for pad and for keys between SAEs of one site: the number moves with each. Of the last 16 takings of pair keys before a backup and after it
//! some may go unnoticed; there the holder's word (`sync`) decides. Nothing is noticed if nobody heard of what was
//! spent, or if all who heard were set back too.

use types::event::Event;
use types::id::{KeyId, SiteId, Uuid};
use types::units::{ByteLen, Time};

use super::Kme;
use crate::message::{Message, Standing};
use crate::record::{self, Side};
use crate::spending::Spending;
use crate::stock::{KeyRange, KeySet, Run};

/// What a peer told of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) run: u64,
    pub(super) at: u64,
}

impl Kme {
    pub(super) fn tell_standing(&mut self, site: &SiteId) {
        let Heard { run: heard_run, at: heard } = self.peer(site).heard;
        let Spending { began, at, .. } = self.spending;
        self.send(site, &Message::Standing(Standing { run: self.run, began, at, heard_run, heard }));
    }

    pub(super) fn standing_heard(&mut self, now: Time, from: &SiteId, standing: Standing) {
        let Standing { run, began, at, heard_run, heard } = standing;
        if heard_run != self.run && heard > self.spending.began && self.peer(from).set_back.is_none() {
            self.we_are_set_back(now, from, heard);
        }
        let before = self.peer(from).heard;
        if run != before.run && began < before.at {
            self.journal.event(Event::StoreSetBack { site: from.clone(), told: began, known: before.at });
            self.drop_shared_stock(now, from);
        }
        let after = Heard { run, at };
        if before != after {
            self.peer(from).heard = after;
            self.journal.change(record::put_heard(from, run, at));
        }
    }

    fn we_are_set_back(&mut self, now: Time, from: &SiteId, known: u64) {
        let told = self.spending.began;
        self.journal.event(Event::StoreSetBack { site: self.config.site.clone(), told, known });
        let mut burned = ByteLen(0);
        for pool in self.pools.values_mut().filter(|pool| pool.peer == *from) {
            burned += pool.set_back(&mut self.journal);
        }
        self.burned_keys("may have been spent before the records were set back", as_len(burned));
        // Also what this site assigned itself: its slaves may have fetched it.
        let (theirs, ours) = (self.deliveries.assigned_by(from), self.deliveries.assigned_by(&self.config.site));
        for assign in theirs.into_iter().chain(ours) {
            self.void_deliveries(assign, "may have been delivered before the records were set back");
        }
        self.drop_shared_stock(now, from);
        self.peer(from).set_back = Some(known);
        self.set_back_learned(from);
    }

    /// After the other end named the blocks that it knows: only now it is safe to forget that we were set back.
    pub(super) fn set_back_learned(&mut self, from: &SiteId) {
        let waits = self.pools.values().any(|pool| pool.peer == *from && pool.is_set_back());
        if let Some(known) = self.peer(from).set_back.filter(|_| !waits) {
            self.spending.move_beyond(known, &mut self.journal);
            self.peer(from).set_back = None;
        }
    }

    /// Burns the keys that this site has for another and holds for it.
    fn drop_shared_stock(&mut self, now: Time, site: &SiteId) {
        let relays: Vec<KeyId> =
            self.outgoing.iter().filter(|(_, relay)| relay.holder() == site).map(|(id, _)| *id).collect();
        relays.into_iter().for_each(|relay| self.relay_failed(now, relay, "records of an end were set back"));
        self.parts.retain(|(owner, _), _| owner != site);
        let own = self.peer(site).own.drop_unheld(EVERYTHING, |_| 0);
        let held = &mut self.peer(site).held;
        let sets: Vec<KeySet> = held.sets().collect();
        let held: Vec<Run> = sets.into_iter().flat_map(|set| held.burn(set)).collect();
        let mut bytes = 0;
        for (side, runs) in [(Side::Own, own), (Side::Held, held)] {
            record::delete_pair_keys(side, site, &runs).for_each(|change| self.journal.change(change));
            bytes += runs.iter().map(|run| run.bytes()).sum::<usize>();
        }
        self.burned_keys("records of an end were set back", bytes);
        self.fill_due = true;
    }
}

fn as_len(bytes: ByteLen) -> usize {
    usize::try_from(bytes.0).unwrap_or(usize::MAX)
}

const EVERYTHING: KeyRange =
    KeyRange { from: KeyId(Uuid::from_bytes([0; 16])), upto: KeyId(Uuid::from_bytes([u8::MAX; 16])) };
