//! The gateway to another network: keys for an SAE that another maker's KME beside this site serves.
//!
//! ```text
//! assignment, own request -> Export, stored, given out ---ok---> Exported: key wiped, owner acknowledged
//!                               |      `---not taken, voided---> deleted, owner refused
//!                               `--owner voids, late--> ExportVoid: key wiped, void given out; kept for restarts
//! ```
//! What is given out is given out again after a restart until it is answered.

use std::collections::BTreeMap;

use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId};
use types::units::Time;

use super::supply::Wanted;
use super::{Kme, RETRY_SOON, Timer};
use crate::api::{ExportFailure, Output, PassedOn, Refusal};
use crate::delivery::Gone;
use crate::message::{AssignFailure, Message};
use crate::record::{self, DeliveryRecord, Kind, Parties};

/// A request of an SAE of this site that waits for another network.
#[derive(Debug)]
pub(super) struct LocalExport {
    request: RequestId,
    deadline: Time,
}

impl Kme {
    /// The slave of a request of this site is in another network.
    pub(super) fn export_here(
        &mut self,
        now: Time,
        request: RequestId,
        wanted: &Wanted,
        keys: Vec<(KeyId, SecretBytes)>,
        peer: String,
        rng: &mut impl CryptoRng,
    ) {
        let export = self.store_here(now, wanted, Kind::Export { peer: peer.clone() }, &keys, rng);
        let deadline = now.after(self.config.export_deadline);
        self.local_exports.insert(export, LocalExport { request, deadline });
        self.timers.insert((deadline, Timer::Export(export)));
        let parties = (wanted.master.clone(), wanted.slaves[0].clone());
        self.export(export, peer, parties, keys, wanted.wishes.passed_on.clone());
    }

    /// Gives keys out, after they are durable.
    pub(super) fn export(
        &mut self,
        export: KeyId,
        peer: String,
        (master, slave): (SaeId, SaeId),
        keys: Vec<(KeyId, SecretBytes)>,
        passed_on: Option<PassedOn>,
    ) {
        self.journal.effect(Output::Export { export, peer, master, slave, keys, passed_on });
    }

    /// After a restart: what is not answered is given out again. Nobody waits any longer for what this site asked.
    pub(super) fn resume_exports(&mut self) {
        for export in self.deliveries.exports() {
            let Some(parties) = self.deliveries.parties_of(export).cloned() else { continue };
            let (master, slave) = (parties.master.clone(), parties.slaves[0].clone());
            match &parties.kind {
                Kind::Export { peer } if parties.owner == self.config.site => {
                    self.void_export(export, peer, "nobody waits for the export any longer");
                }
                Kind::Export { peer } => {
                    let keys = self.deliveries.copies(export);
                    self.export(export, peer.clone(), (master, slave), keys, None);
                }
                Kind::ExportVoid { peer } => self.put_out_void(export, peer),
                Kind::Supplied | Kind::Imported | Kind::Exported { .. } => {}
            }
        }
    }

    pub(super) fn exported(&mut self, export: KeyId, result: Result<(), ExportFailure>) {
        let Some(parties) = self.deliveries.parties_of(export).cloned() else { return };
        match (&parties.kind, result) {
            (Kind::Export { peer }, Ok(())) => {
                let turned = self.deliveries.turn(export, &Kind::Exported { peer: peer.clone() });
                let mut keys = Vec::new();
                for (id, record, key) in turned {
                    self.journal.change(record::put_delivery(id, &record, None));
                    keys.extend(key.map(|key| (id, key)));
                }
                let (master, slave) = (parties.master.clone(), parties.slaves[0].clone());
                if let Some((first, _)) = keys.first() {
                    let (first, keys) = (*first, keys.len() as u64);
                    self.counters.delivered_keys += keys;
                    self.journal.event(Event::KeysDelivered { master, slave, first, keys });
                }
                if parties.owner != self.config.site {
                    self.send(&parties.owner, &Message::AssignAck { assign: export });
                } else if let Some(local) = self.local_export_ended(export) {
                    let site = &self.config.site;
                    let origin = keys.first().and_then(|(id, _)| self.deliveries.record(*id));
                    let told = origin.map(|record| record.origin.told(site, site, self.utc()));
                    let told = told.expect("the keys were turned, not removed");
                    self.supplied(local.request, &parties.master, &parties.slaves, keys, &told);
                }
            }
            (Kind::Export { .. }, Err(failure)) => {
                let gone = self.deliveries.void(export);
                let reason = match failure {
                    ExportFailure::NotTaken => "the other network did not take it",
                    ExportFailure::Voided => "the other network destroyed it",
                    ExportFailure::InDoubt => "the other network does not say whether it has it",
                };
                self.destroyed(&gone, reason);
                if parties.owner != self.config.site {
                    let reason = AssignFailure::NotExported;
                    self.send(&parties.owner, &Message::AssignNack { assign: export, reason });
                } else if let Some(local) = self.local_export_ended(export) {
                    self.refuse(local.request, Refusal::NotExported { retry_after: RETRY_SOON });
                }
            }
            // It was voided in between.
            (Kind::ExportVoid { peer }, Ok(())) => self.put_out_void(export, peer),
            (Kind::ExportVoid { .. }, Err(_)) => {
                let gone = self.deliveries.void(export);
                self.destroyed(&gone, "voided");
            }
            (Kind::Exported { .. } | Kind::Supplied | Kind::Imported, _) => {}
        }
    }

    /// The other network took too long for a request of this site.
    pub(super) fn export_due(&mut self, export: KeyId) {
        let Some(local) = self.local_exports.remove(&export) else { return };
        self.refuse(local.request, Refusal::NotExported { retry_after: RETRY_SOON });
        self.void_deliveries(export, "the other network took too long");
    }

    /// Destroys an export here and says so to whoever gave it out.
    pub(super) fn void_export(&mut self, export: KeyId, peer: &str, reason: &str) {
        let turned = self.deliveries.turn(export, &Kind::ExportVoid { peer: peer.to_owned() });
        let mut bytes = 0;
        for (id, record, key) in turned {
            self.journal.change(record::put_delivery(id, &record, None));
            bytes += key.map_or(0, |key| key.len());
        }
        self.burned_keys(reason, bytes);
        self.put_out_void(export, peer);
    }

    /// Keys on their way into another network waited too long for an answer.
    pub(super) fn exports_expired(&mut self, gone: &[Gone]) {
        let mut exports: BTreeMap<KeyId, (&DeliveryRecord, Vec<KeyId>)> = BTreeMap::new();
        for Gone { id, record, .. } in gone {
            exports.entry(record.assign).or_insert((record, Vec::new())).1.push(*id);
        }
        for (export, (record, ids)) in exports {
            let Parties { master, slaves, kind, .. } = &*record.parties;
            let Kind::Export { peer } = kind else { continue };
            let (peer, master, slave) = (peer.clone(), master.clone(), slaves[0].clone());
            self.journal.effect(Output::ExportVoid { export, peer, master, slave, ids });
        }
    }

    fn put_out_void(&mut self, export: KeyId, peer: &str) {
        let Some(parties) = self.deliveries.parties_of(export) else { return };
        let (master, slave) = (parties.master.clone(), parties.slaves[0].clone());
        let (peer, ids) = (peer.to_owned(), self.deliveries.ids(export));
        self.journal.effect(Output::ExportVoid { export, peer, master, slave, ids });
    }

    fn local_export_ended(&mut self, export: KeyId) -> Option<LocalExport> {
        let local = self.local_exports.remove(&export)?;
        self.timers.remove(&(local.deadline, Timer::Export(export)));
        Some(local)
    }
}
