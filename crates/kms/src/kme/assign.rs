//! The holder's half of an assignment: pair keys become keys that wait for their slave.

use std::collections::BTreeSet;

use types::id::{KeyId, SiteId};
use types::units::Time;

use super::Kme;
use crate::message::{Assign, AssignFailure, Message};
use crate::record::{self, DeliveryRecord, Side};
use crate::stock::{KeySet, Run, mask};

impl Kme {
    pub(super) fn assign_arrived(&mut self, now: Time, from: &SiteId, assign: Assign) {
        let id = assign.assign;
        let answer = if self.deliveries.origin_of(id) == Some(from) {
            // Repeated because our answer was late or lost.
            Message::AssignAck { assign: id }
        } else {
            match self.accept_assign(now, from, assign) {
                Ok(()) => Message::AssignAck { assign: id },
                Err(reason) => Message::AssignNack { assign: id, reason },
            }
        };
        self.send(from, &answer);
    }

    fn accept_assign(&mut self, now: Time, from: &SiteId, assign: Assign) -> Result<(), AssignFailure> {
        let serves = |site: &SiteId, sae| self.directory.get(sae) == Some(site);
        let distinct: BTreeSet<&KeyId> = assign.ids.iter().collect();
        let fresh = distinct.len() == assign.ids.len() && !assign.ids.iter().any(|id| self.deliveries.has(*id));
        let room = self.deliveries.len() + assign.ids.len() <= self.config.deliveries_max;
        let ours = serves(&self.config.site, &assign.slave) && serves(from, &assign.master);
        let known = self.deliveries.origin_of(assign.assign).is_some();
        if !ours || !fresh || !room || known || assign.ids.is_empty() || !assign.fits() {
            return Err(AssignFailure::Refused);
        }
        let stream = self.peer(from).held.take(&assign.runs).ok_or(AssignFailure::Missing)?;
        record::delete_pair_keys(Side::Held, from, &assign.runs).for_each(|change| self.journal.change(change));
        let size = assign.key_bytes();
        let delivery =
            DeliveryRecord { assign: assign.assign, origin: from.clone(), master: assign.master, slave: assign.slave };
        let expires = now.after(self.config.delivery_ttl);
        for (index, id) in assign.ids.into_iter().enumerate() {
            let key = stream.part(index * size, size).expect("the runs hold all keys");
            self.journal.change(record::put_delivery(id, &delivery, key.duplicate()));
            self.deliveries.add(id, delivery.clone(), key, expires);
        }
        Ok(())
    }

    pub(super) fn assign_voided(&mut self, from: &SiteId, assign: KeyId, runs: &[Run]) {
        if self.deliveries.origin_of(assign) == Some(from) {
            let (ids, bytes) = self.deliveries.void(assign);
            ids.into_iter().for_each(|id| self.journal.change(record::delete_delivery(id)));
            self.burned_keys("assignment voided by the owner", bytes);
        }
        let held = &mut self.peer(from).held;
        let sets = runs.iter().filter_map(|run| Some(KeySet { relay: run.relay, keys: mask(*run)? }));
        let gone: Vec<Run> = sets.flat_map(|set| held.burn(set)).collect();
        record::delete_pair_keys(Side::Held, from, &gone).for_each(|change| self.journal.change(change));
        self.burned_keys("assignment voided by the owner", gone.iter().map(|run| run.bytes()).sum());
    }
}
