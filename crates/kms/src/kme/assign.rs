//! The holder's half of an assignment: pair keys become keys that wait for their slaves, or open keys that were
//! carried here, or go on into another network.

use std::collections::BTreeSet;
use std::sync::Arc;

use crypto::secret::SecretBytes;
use types::id::{KeyId, SiteId};
use types::units::Time;

use super::Kme;
use super::group::open;
use super::owner::cut;
use crate::delivery::Gone;
use crate::message::{Assign, AssignFailure, Message};
use crate::origin::Origin;
use crate::record::{self, DeliveryRecord, Kind, Parties, Side};
use crate::stock::{KeySet, Run, mask};

/// What became of an assignment.
enum Outcome {
    /// The keys are here, or were before.
    Stored,
    /// Another network is asked.
    Abroad,
}

impl Kme {
    pub(super) fn assign_arrived(&mut self, now: Time, from: &SiteId, assign: Assign) {
        let id = assign.assign;
        let answer = match self.accept_assign(now, from, assign) {
            Ok(Outcome::Stored) => Message::AssignAck { assign: id },
            Ok(Outcome::Abroad) => Message::AssignPending { assign: id },
            Err(reason) => Message::AssignNack { assign: id, reason },
        };
        self.send(from, &answer);
    }

    fn accept_assign(&mut self, now: Time, from: &SiteId, assign: Assign) -> Result<Outcome, AssignFailure> {
        if let Some(parties) = self.deliveries.parties_of(assign.assign).filter(|parties| parties.owner == *from) {
            // Repeated because our answer was late or lost.
            return match parties.kind {
                Kind::Supplied | Kind::Imported | Kind::Exported { .. } => Ok(Outcome::Stored),
                Kind::Export { .. } => Ok(Outcome::Abroad),
                Kind::ExportVoid { .. } => Err(AssignFailure::Missing),
            };
        }
        let imported = assign.carried.as_ref().is_some_and(|carried| carried.imported);
        let kind = self.acceptable(from, &assign, imported)?;
        let held = &mut self.peer(from).held;
        let parts: Vec<Arc<Origin>> = assign.runs.iter().filter_map(|run| held.origin(run.relay).cloned()).collect();
        let stream = held.take(&assign.runs).ok_or(AssignFailure::Missing)?;
        record::delete_pair_keys(Side::Held, from, &assign.runs).for_each(|change| self.journal.change(change));
        let stream = match &assign.carried {
            None => stream,
            Some(carried) => {
                let spent = stream.len();
                let Some(keys) = open(&assign, carried, stream) else {
                    self.burned_keys("the tag of carried keys is wrong", spent);
                    self.misbehaved(from, "carried keys with a wrong tag");
                    return Err(AssignFailure::Missing);
                };
                keys
            }
        };
        let keys = cut(&assign, &stream);
        if self.known_ids(&assign.ids) > 0 {
            // Only an import that comes again may use ids again.
            let same = imported && self.is_known_import(from, &assign, &keys);
            return if same { Ok(Outcome::Stored) } else { Err(AssignFailure::InUse) };
        }
        let abroad = match &kind {
            Kind::Export { peer } => Some(peer.clone()),
            _ => None,
        };
        let Assign { assign: id, master, slaves, passed_on, .. } = assign;
        let slave = slaves[0].clone();
        let parties = Parties { owner: from.clone(), master: master.clone(), slaves, kind };
        let parties = self.deliveries.shared(parties);
        let (since, pending) = (self.utc(), parties.all());
        let record = DeliveryRecord { assign: id, since, parties, pending, origin: Origin::of_parts(&parts) };
        self.store_deliveries(now, &record, &keys);
        match abroad {
            None => Ok(Outcome::Stored),
            Some(peer) => {
                self.export(id, peer, (master, slave), keys, passed_on);
                Ok(Outcome::Abroad)
            }
        }
    }

    /// Checks everything but the keys; says what is to be done with them.
    fn acceptable(&self, from: &SiteId, assign: &Assign, imported: bool) -> Result<Kind, AssignFailure> {
        let here = |sae| self.directory.get(sae) == Some(&self.config.site);
        let master = match self.directory.get(&assign.master) {
            Some(site) => site == from,
            // Other networks may have more SAEs than the directory lists.
            None => imported,
        };
        let distinct: BTreeSet<&KeyId> = assign.ids.iter().collect();
        let ids = !assign.ids.is_empty() && distinct.len() == assign.ids.len();
        let known = self.known_ids(&assign.ids);
        let room = self.deliveries.len() + assign.ids.len() - known <= self.config.deliveries_max;
        let elsewhere = self.deliveries.parties_of(assign.assign).is_some();
        if !master || !assign.slaves.iter().all(here) || !ids || !room || elsewhere || !assign.fits() {
            return Err(AssignFailure::Refused);
        }
        if known > 0 && !imported {
            return Err(AssignFailure::Refused);
        }
        match assign.slaves.iter().find_map(|slave| self.foreign.get(slave)) {
            Some(_) if assign.slaves.len() > 1 => Err(AssignFailure::Foreign),
            Some(peer) => Ok(Kind::Export { peer: peer.clone() }),
            None if imported => Ok(Kind::Imported),
            None => Ok(Kind::Supplied),
        }
    }

    fn known_ids(&self, ids: &[KeyId]) -> usize {
        ids.iter().filter(|id| self.deliveries.record(**id).is_some()).count()
    }

    /// Whether all keys are here already, from the same import.
    fn is_known_import(&self, from: &SiteId, assign: &Assign, keys: &[(KeyId, SecretBytes)]) -> bool {
        keys.iter().all(|(id, key)| {
            let same = |record: &DeliveryRecord| {
                let Parties { owner, master, slaves, kind } = &*record.parties;
                owner == from && *master == assign.master && *slaves == assign.slaves && *kind == Kind::Imported
            };
            self.deliveries.record(*id).is_some_and(same) && self.deliveries.is_same(*id, key)
        })
    }

    pub(super) fn assign_voided(&mut self, from: &SiteId, assign: KeyId, runs: &[Run]) {
        if self.deliveries.parties_of(assign).is_some_and(|parties| parties.owner == *from) {
            self.void_deliveries(assign, "assignment voided by the owner");
        }
        let held = &mut self.peer(from).held;
        let sets = runs.iter().filter_map(|run| Some(KeySet { relay: run.relay, keys: mask(*run)? }));
        let gone: Vec<Run> = sets.flat_map(|set| held.burn(set)).collect();
        record::delete_pair_keys(Side::Held, from, &gone).for_each(|change| self.journal.change(change));
        self.burned_keys("assignment voided by the owner", gone.iter().map(|run| run.bytes()).sum());
    }

    /// Destroys the keys of an assignment, here and in the network that has them.
    pub(super) fn void_deliveries(&mut self, assign: KeyId, reason: &str) {
        let kind = self.deliveries.parties_of(assign).map(|parties| parties.kind.clone());
        match kind {
            Some(Kind::Export { peer } | Kind::Exported { peer }) => self.void_export(assign, &peer, reason),
            Some(Kind::ExportVoid { .. }) | None => {}
            Some(Kind::Supplied | Kind::Imported) => {
                let gone = self.deliveries.void(assign);
                self.destroyed(&gone, reason);
            }
        }
    }

    /// Notes that keys which waited here are gone.
    pub(super) fn destroyed(&mut self, gone: &[Gone], reason: &str) {
        gone.iter().for_each(|gone| self.journal.change(record::delete_delivery(gone.id)));
        self.burned_keys(reason, gone.iter().map(|gone| gone.bytes).sum());
    }
}
