//! Keys of this network on their way to a foreign KME.
//!
//! ```text
//! Export ─► durable ─► POST ext_keys ─► 202 ─► relayed for every key ──────────────► Exported(Ok)
//!                        │   ▲           │
//!                        │   └─ again ◄──┴─ 408, 503, lost, no acknowledgement
//!                        ├─ 400, 401 to the first sending ────────────────────────► NotTaken
//!                        └─ failed, time over, refused later, ExportVoid ─► void ─► InDoubt, Voided
//! ```
//! The bits are destroyed in the same commit that ends an export.

use std::collections::BTreeSet;

use crypto::secret::SecretBytes;
use etsi::etsi020::{
    AckContainers, AckStatus, EXT_KEYS_PATH, ExtKeyContainer, Extension, KEY_BYTES_MAX, KEYS_MAX, Key, Problem,
    ProblemKind, TRANSFER_BYTES_MAX, TransferSae,
};
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId};
use types::units::Time;

use super::api::{Answer, Output, Reply};
use super::posting::PostId;
use super::record::{self, Keys, Kind, Parties};
use super::{Interwork, Timer};
use crate::{ExportFailure, PassedOn};

/// An export that is not decided yet.
#[derive(Debug)]
pub(super) struct Export {
    parties: Parties,
    keys: Keys,
    /// No sending of it can have reached the foreign KME but one that is under way.
    clean: bool,
    relayed: BTreeSet<KeyId>,
    refused: BTreeSet<KeyId>,
    give_up: Time,
    /// Passed on for the SAE that asked; not kept over a restart.
    optional: Option<Extension>,
}

/// An export that is decided.
#[derive(Debug)]
pub(super) struct Sent {
    parties: Parties,
    fate: Fate,
    ids: Vec<KeyId>,
}

/// How an export was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    /// The foreign KME has the keys for its SAE.
    Relayed = 1,
    /// The foreign KME surely kept nothing.
    NotTaken = 2,
    /// The foreign KME said of every key that it failed or is void.
    Voided = 3,
    /// The foreign KME is being asked to void them.
    InDoubt = 4,
}

impl Fate {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Relayed, Self::NotTaken, Self::Voided, Self::InDoubt].into_iter().find(|fate| *fate as u8 == number)
    }

    fn result(self) -> Result<(), ExportFailure> {
        match self {
            Self::Relayed => Ok(()),
            Self::NotTaken => Err(ExportFailure::NotTaken),
            Self::Voided => Err(ExportFailure::Voided),
            Self::InDoubt => Err(ExportFailure::InDoubt),
        }
    }
}

impl Interwork {
    pub(super) fn export(
        &mut self,
        now: Time,
        id: KeyId,
        peer: &str,
        (master, slave): (&SaeId, &SaeId),
        keys: Keys,
        passed_on: Option<&PassedOn>,
    ) {
        if self.exports.contains_key(&id) {
            return;
        }
        if let Some(sent) = self.sent.get(&id) {
            let result = sent.fate.result();
            return self.journal.effect(Output::Exported { export: id, result });
        }
        let Some(parties) = self.export_parties(peer, master, slave).filter(|_| self.is_sendable(peer, &keys)) else {
            self.counters.exports_failed += 1;
            return self.journal.effect(Output::Exported { export: id, result: Err(ExportFailure::NotTaken) });
        };
        self.journal.change(record::put_export(id, &parties, &keys));
        self.begin_export(now, id, parties, keys, passed_on);
    }

    /// An export that is durable already, and may have been sent before.
    pub(super) fn restore_export(&mut self, now: Time, id: KeyId, parties: Parties, keys: Keys) {
        self.begin_export(now, id, parties, keys, None);
        if let Some(export) = self.exports.get_mut(&id) {
            export.clean = false;
        }
    }

    fn begin_export(&mut self, now: Time, id: KeyId, parties: Parties, keys: Keys, passed_on: Option<&PassedOn>) {
        let give_up = now.after(self.config.export_give_up);
        let peer = parties.peer.clone();
        self.exported_keys.extend(keys.iter().map(|(key, _)| (*key, id)));
        let (relayed, refused) = Default::default();
        let optional = passed_on.and_then(PassedOn::extension);
        self.exports.insert(id, Export { parties, keys, clean: true, relayed, refused, give_up, optional });
        self.timers.insert((give_up, Timer::GiveUpExport(id)));
        self.post_transfer(now, id, &peer);
    }

    /// A decided export that is durable already.
    pub(super) fn restore_sent(&mut self, now: Time, id: KeyId, parties: Parties, fate: Fate, ids: Vec<KeyId>) {
        self.exported_keys.extend(ids.iter().map(|key| (*key, id)));
        self.sent.insert(id, Sent { parties, fate, ids });
        self.timers.insert((now.after(self.config.resolved_ttl), Timer::ForgetSent(id)));
    }

    pub(super) fn forget_sent(&mut self, now: Time, id: KeyId) {
        let is_open = |sent: &Sent| sent.ids.iter().any(|key| self.voids.contains_key(key));
        if self.sent.get(&id).is_some_and(is_open) {
            self.timers.insert((now.after(self.config.resolved_ttl), Timer::ForgetSent(id)));
            return;
        }
        let Some(sent) = self.sent.remove(&id) else { return };
        sent.ids.iter().for_each(|key| _ = self.exported_keys.remove(key));
        self.journal.change(record::delete(Kind::Sent, id));
    }

    fn export_parties(&self, peer: &str, master: &SaeId, slave: &SaeId) -> Option<Parties> {
        let known = self.config.peers.get(peer)?.saes.contains(slave) && self.config.saes.contains(master);
        let initiator = TransferSae::new(master.clone()).ok().filter(|_| known)?;
        Some(Parties { peer: peer.to_owned(), initiator, targets: vec![TransferSae::new(slave.clone()).ok()?] })
    }

    /// Whether keys fit into one transfer, are new, and there is room for one more.
    fn is_sendable(&self, peer: &str, keys: &Keys) -> bool {
        let distinct: BTreeSet<_> = keys.iter().map(|(key, _)| key).collect();
        let is_new = |key: &KeyId| !self.exported_keys.contains_key(key) && !self.is_known(*key);
        let is_key = |bits: &SecretBytes| (1..=KEY_BYTES_MAX).contains(&bits.len());
        (1..=KEYS_MAX).contains(&keys.len())
            && distinct.len() == keys.len()
            && keys.iter().all(|(key, bits)| is_new(key) && is_key(bits))
            && keys.iter().map(|(_, bits)| bits.len()).sum::<usize>() <= TRANSFER_BYTES_MAX
            && self.exports.values().filter(|export| export.parties.peer == peer).count() < self.config.transfers_max
    }

    /// The transfer as it is sent.
    pub(super) fn transfer_request(&self, id: KeyId) -> Option<(String, SecretBytes)> {
        let export = self.exports.get(&id)?;
        let peer = self.config.peers.get(&export.parties.peer)?;
        let key = |(id, bits): &(KeyId, SecretBytes)| Key { id: *id, value: bits.duplicate(), extension: None };
        let container = ExtKeyContainer {
            keys: export.keys.iter().map(key).collect(),
            initiator: export.parties.initiator.clone(),
            targets: export.parties.targets.clone(),
            ack_callback_url: Some(peer.callback.clone()),
            extension_mandatory: None,
            extension_optional: export.optional.clone(),
        };
        Some((EXT_KEYS_PATH.to_owned(), container.to_json()))
    }

    pub(super) fn transfer_answered(&mut self, now: Time, id: KeyId, answer: &Answer) {
        let Some(export) = self.exports.get_mut(&id) else { return };
        let was_clean = std::mem::replace(&mut export.clean, false);
        match answer {
            Answer::Status(200, body) => {
                let peer = export.parties.peer.clone();
                let acks = AckContainers::parse(body).unwrap_or_default();
                self.take_acks(now, &peer, &acks);
                self.post_again(now, PostId::Transfer(id));
            }
            Answer::Status(201..=299, _) => self.post_waits(now, PostId::Transfer(id)),
            // Only this says that nothing is kept, and only of this one sending.
            Answer::Status(400 | 401, _) if was_clean => self.decide(now, id, Fate::NotTaken),
            Answer::Status(400 | 401, _) => self.decide(now, id, Fate::InDoubt),
            Answer::Status(503, body) if Problem::parse(body).is_some_and(|problem| is_lasting(&problem)) => {
                self.decide(now, id, Fate::InDoubt);
            }
            _ => self.post_again(now, PostId::Transfer(id)),
        }
    }

    pub(super) fn give_up_export(&mut self, now: Time, id: KeyId) {
        self.decide(now, id, Fate::InDoubt);
    }

    pub(super) fn export_void(
        &mut self,
        now: Time,
        id: KeyId,
        peer: &str,
        master: &SaeId,
        slave: &SaeId,
        ids: Vec<KeyId>,
    ) {
        if self.exports.contains_key(&id) {
            return self.decide(now, id, Fate::InDoubt);
        }
        let fate = self.sent.get(&id).map(|sent| sent.fate);
        match (fate, self.export_parties(peer, master, slave)) {
            (Some(Fate::Relayed) | None, Some(parties)) => self.put_sent(now, id, parties, Fate::InDoubt, ids),
            (Some(fate), _) => self.journal.effect(Output::Exported { export: id, result: fate.result() }),
            // Nothing was ever sent to a KME that is not there.
            (None, None) => {
                self.journal.effect(Output::Exported { export: id, result: Err(ExportFailure::NotTaken) });
            }
        }
    }

    /// Ends an export: its bits go, its fate stays for a while, the KME is told.
    fn decide(&mut self, now: Time, id: KeyId, fate: Fate) {
        let Some(export) = self.exports.remove(&id) else { return };
        self.unpost(PostId::Transfer(id));
        self.timers.remove(&(export.give_up, Timer::GiveUpExport(id)));
        self.journal.change(record::delete(Kind::Export, id));
        let ids: Vec<_> = export.keys.iter().map(|(key, _)| *key).collect();
        if fate == Fate::Relayed {
            self.counters.exported_keys += ids.len() as u64;
        } else {
            self.counters.exports_failed += 1;
        }
        self.put_sent(now, id, export.parties, fate, ids);
    }

    fn put_sent(&mut self, now: Time, id: KeyId, parties: Parties, fate: Fate, ids: Vec<KeyId>) {
        self.journal.change(record::put_sent(id, &parties, fate, &ids));
        if let Some(first) = ids.first().copied() {
            let (peer, keys) = (parties.peer.clone(), ids.len() as u64);
            self.journal.event(match fate {
                Fate::Relayed => Event::KeysExported {
                    peer,
                    master: parties.initiator.id().clone(),
                    slave: parties.targets[0].id().clone(),
                    first,
                    keys,
                },
                _ => Event::KeysVoided { peer, reason: "they did not reach the other network".to_owned(), first, keys },
            });
        }
        if fate == Fate::InDoubt {
            self.post_void(now, id, parties.clone(), ids.clone());
        }
        self.restore_sent(now, id, parties, fate, ids);
        self.journal.effect(Output::Exported { export: id, result: fate.result() });
    }

    /// POST `ext_keys/ack`.
    pub(super) fn acknowledged(
        &mut self,
        now: Time,
        id: RequestId,
        peer: &str,
        acks: &AckContainers,
    ) -> Result<(), Problem> {
        let keys = acks.0.iter().map(|ack| ack.keys.len()).sum::<usize>();
        if self.take_acks(now, peer, acks) == 0 && keys > 0 {
            let text = "The acknowledged key ID(s) are not known to this KME.";
            return Err(Problem::new(400, ProblemKind::KeyNotPresent, "key_not_present", text));
        }
        self.journal.effect(Output::Reply { id, reply: Reply::Taken });
        Ok(())
    }

    /// Takes what a foreign KME says of keys; gives how many of them are known.
    fn take_acks(&mut self, now: Time, peer: &str, acks: &AckContainers) -> usize {
        let mut known = 0;
        let mut touched = BTreeSet::new();
        for ack in &acks.0 {
            for key in ack.keys.iter().map(|key| key.id) {
                let mut is_known = false;
                if let Some(post) = self.voids.get(&key).copied().filter(|post| self.is_posted_to(*post, peer)) {
                    self.void_acked(key, post, ack.status);
                    is_known = true;
                }
                if let Some(id) = self.exported_keys.get(&key).copied() {
                    if let Some(export) = self.exports.get_mut(&id) {
                        let same = is_of(&export.parties, peer, &ack.initiator, &ack.targets);
                        is_known |= same;
                        if same && ack.status == AckStatus::Relayed {
                            export.relayed.insert(key);
                        } else if same {
                            export.refused.insert(key);
                        }
                        touched.insert(id);
                    } else if let Some(sent) = self.sent.get(&id) {
                        is_known |= is_of(&sent.parties, peer, &ack.initiator, &ack.targets);
                    }
                }
                known += usize::from(is_known);
            }
        }
        for id in touched {
            self.decide_by_acks(now, id);
        }
        known
    }

    fn decide_by_acks(&mut self, now: Time, id: KeyId) {
        let Some(export) = self.exports.get(&id) else { return };
        let all = export.keys.len();
        if export.refused.len() == all {
            self.decide(now, id, Fate::Voided);
        } else if !export.refused.is_empty() {
            // All or nothing for the SAE that asked.
            self.decide(now, id, Fate::InDoubt);
        } else if export.relayed.len() == all {
            self.decide(now, id, Fate::Relayed);
        }
    }

    /// A foreign KME asks to void a key that came from here.
    pub(super) fn void_own(&mut self, now: Time, key: KeyId, parties: &Parties) -> Option<AckStatus> {
        let id = self.exported_keys.get(&key).copied()?;
        if self.exports.get(&id).is_some_and(|export| export.parties == *parties) {
            self.decide(now, id, Fate::InDoubt);
            return Some(AckStatus::Voided);
        }
        let sent = self.sent.get(&id).filter(|sent| sent.parties == *parties)?;
        // After "relayed" the master SAE has it, or may have.
        Some(if sent.fate == Fate::Relayed { AckStatus::FailedToVoid } else { AckStatus::Voided })
    }
}

fn is_of(parties: &Parties, peer: &str, initiator: &TransferSae, targets: &[TransferSae]) -> bool {
    parties.peer == peer && parties.initiator == *initiator && parties.targets.iter().all(|to| targets.contains(to))
}

/// Whether sending the same again cannot help.
fn is_lasting(problem: &Problem) -> bool {
    let kinds = [ProblemKind::KeyRouting, ProblemKind::UnsupportedMandatoryExtension];
    kinds.into_iter().any(|kind| kind.uri() == problem.kind)
}
