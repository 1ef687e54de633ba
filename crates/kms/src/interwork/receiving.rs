//! Keys of a foreign network on their way to SAEs of this one.
//!
//! ```text
//! POST ext_keys ─► checks ─► durable ─► 202 ─► Import ─► Imported(Ok) ─► relayed ─► POST ack
//!                    │                            ▲          │ Err: again, or failed
//!                    │                            └──────────┘
//!                    └─ 400 nothing kept, 503 something known is kept or cannot be met now
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::domain::Domain;
use crypto::kdf::derive;
use crypto::rand_core::CryptoRng;
use crypto::secret::{Key256, SecretBytes};
use etsi::etsi020::{AckStatus, CallbackUrl, ExtKeyContainer, Problem, ProblemKind, TransferSae};
use types::event::Event;
use types::id::{KeyId, RequestId};
use types::units::Time;

use super::api::{Output, PeerConfig, PeerRequest, Reply};
use super::posting::acks_of;
use super::record::{self, Keys, Kind, Parties};
use super::{Interwork, Timer, random_id};
use crate::Refusal;

/// Keys that the own KME was or will be told to bring to their targets.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) parties: Parties,
    callback: Option<CallbackUrl>,
    keys: Keys,
    due: Option<Time>,
    give_up: Time,
}

/// A foreign key whose fate is decided.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) parties: Parties,
    pub(super) state: KnownState,
    check: Option<SecretBytes>,
    until: Time,
}

/// The fate of a foreign key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum KnownState {
    /// Its targets' KMEs have it, or gave it out.
    Relayed = 1,
    /// It could not be brought to its targets; nobody has it.
    Failed = 2,
    /// It was voided; nobody has it, and nobody gets it.
    Voided = 3,
}

/// A synchronous transfer that waits for the fate of its keys.
#[derive(Debug)]
pub(super) struct SyncWait {
    parties: Parties,
    ids: Vec<KeyId>,
    due: Time,
}

impl KnownState {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Relayed, Self::Failed, Self::Voided].into_iter().find(|state| *state as u8 == number)
    }

    fn status(self) -> AckStatus {
        match self {
            Self::Relayed => AckStatus::Relayed,
            Self::Failed => AckStatus::Failed,
            Self::Voided => AckStatus::Voided,
        }
    }
}

/// The keys of a transfer, by what is known of them.
#[derive(Default)]
struct Sorted {
    new: Keys,
    pending: Vec<KeyId>,
    resolved: Vec<(KeyId, AckStatus)>,
}

impl Interwork {
    /// A foreign KME asks.
    pub(super) fn request(
        &mut self,
        now: Time,
        id: RequestId,
        peer: &str,
        request: PeerRequest,
        rng: &mut impl CryptoRng,
    ) {
        let answered = if self.config.peers.contains_key(peer) {
            match request {
                PeerRequest::Transfer(transfer) => self.transfer(now, id, peer, transfer, rng),
                PeerRequest::Ack(acks) => self.acknowledged(now, id, peer, &acks),
                PeerRequest::Void(void) => self.void(now, id, peer, void, rng),
            }
        } else {
            Err(Problem::new(401, ProblemKind::Unauthorized, "unauthorized", "This KME is not known here."))
        };
        if let Err(problem) = answered {
            self.counters.requests_refused += 1;
            self.journal.effect(Output::Reply { id, reply: Reply::Refused(problem) });
        }
    }

    /// POST `ext_keys`.
    fn transfer(
        &mut self,
        now: Time,
        id: RequestId,
        peer: &str,
        transfer: ExtKeyContainer,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Problem> {
        // 400 promises that nothing of the request is kept; what an earlier request left is kept.
        let is_kept = transfer.keys.iter().any(|key| self.keeps(peer, key.id));
        let (parties, callback, sorted) = self.sort(peer, transfer).map_err(|mut problem| {
            if is_kept && problem.status == Some(400) {
                problem.status = Some(503);
            }
            problem
        })?;
        if !sorted.new.is_empty() {
            self.room_for(peer, sorted.new.len())?;
        }
        let known: Vec<_> = sorted.new.iter().map(|(key, _)| *key).chain(sorted.pending.iter().copied()).collect();
        for key in sorted.pending {
            self.call_back(key, callback.as_ref());
        }
        if !sorted.new.is_empty() {
            let import = random_id(rng);
            self.journal.change(record::put_import(import, &parties, callback.as_ref(), &sorted.new));
            self.restore_import(now, import, parties.clone(), callback.clone(), sorted.new);
        }
        match callback {
            Some(url) => {
                self.journal.effect(Output::Reply { id, reply: Reply::Accepted });
                if !sorted.resolved.is_empty() {
                    self.post_acks(now, peer, &url, acks_of(&parties, sorted.resolved.into_iter()), rng);
                }
            }
            None => {
                let due = now.after(self.config.sync_max);
                let ids = known.into_iter().chain(sorted.resolved.into_iter().map(|(key, _)| key)).collect();
                self.timers.insert((due, Timer::Sync(id)));
                self.sync_waits.insert(id, SyncWait { parties, ids, due });
                self.answer_sync();
            }
        }
        Ok(())
    }

    /// Checks a transfer and sorts its keys; changes nothing.
    fn sort(&self, peer: &str, transfer: ExtKeyContainer) -> Result<(Parties, Option<CallbackUrl>, Sorted), Problem> {
        let config = &self.config.peers[peer];
        check_callback(config, transfer.ack_callback_url.as_ref())?;
        if let Some(extension) = &transfer.extension_mandatory {
            let text = format!("Mandatory extensions {} cannot be supported.", extension.names().join(", "));
            let text = text.chars().take(DETAIL_MAX).collect::<String>();
            let kind = ProblemKind::UnsupportedMandatoryExtension;
            return Err(Problem::new(503, kind, "unsupported_mandatory_extension", text));
        }
        self.check_route(config, &transfer.initiator, &transfer.targets)?;
        let parties = Parties { peer: peer.to_owned(), initiator: transfer.initiator, targets: transfer.targets };
        let mut sorted = Sorted::default();
        for key in transfer.keys {
            if let Some(pending) = self.pending.get(&key.id).and_then(|import| self.imports.get(import)) {
                let bits = pending.keys.iter().find(|(id, _)| *id == key.id);
                let same = pending.parties == parties && bits.is_some_and(|(_, bits)| *bits == key.value);
                same.then(|| sorted.pending.push(key.id)).ok_or_else(|| conflict(&pending.parties, peer))?;
            } else if let Some(known) = self.known.get(&key.id) {
                let same_bits = known.check.as_ref().is_none_or(|check| fits(check, &key.value));
                // What was voided before it came has neither bits nor the order of its SAEs to compare with.
                let same = (known.parties == parties || known.check.is_none()) && known.parties.peer == peer;
                let entry = (key.id, known.state.status());
                (same && same_bits)
                    .then(|| sorted.resolved.push(entry))
                    .ok_or_else(|| conflict(&known.parties, peer))?;
            } else if self.exported_keys.contains_key(&key.id) {
                return Err(routing(400, "invalid_routing", "A key of this network came back to it."));
            } else {
                sorted.new.push((key.id, key.value));
            }
        }
        let voided = |(_, status): &(KeyId, AckStatus)| *status == AckStatus::Voided;
        let nothing_kept = sorted.pending.is_empty() && sorted.resolved.iter().all(voided);
        if nothing_kept && !sorted.resolved.is_empty() {
            let text = "A key ID of the request was voided.";
            return Err(Problem::new(400, ProblemKind::InvalidParameter, "key_id_voided", text));
        }
        Ok((parties, transfer.ack_callback_url, sorted))
    }

    fn check_route(&self, peer: &PeerConfig, initiator: &TransferSae, targets: &[TransferSae]) -> Result<(), Problem> {
        if self.config.saes.contains(initiator.id()) {
            return Err(routing(
                400,
                "invalid_routing",
                "The initiator is an SAE of the network that the keys come to.",
            ));
        }
        if !peer.saes.contains(initiator.id()) {
            let text = "The initiator SAE ID is not known to lie behind the calling KME.";
            return Err(routing(400, "initiator_sae_id_not_recognized", text));
        }
        let elsewhere = |target: &TransferSae| self.config.peers.values().any(|p| p.saes.contains(target.id()));
        if let Some(target) = targets.iter().find(|target| !self.config.saes.contains(target.id())) {
            return Err(if peer.saes.contains(target.id()) {
                let text = "Routing this key to target SAE ID requires directly passing it back to the calling KME.";
                routing(400, "invalid_routing", text)
            } else if elsewhere(target) {
                routing(503, "no_known_route", "KME does not know a route to deliver to a target SAE ID.")
            } else {
                let text = "KME associated with a target SAE ID is not known.";
                routing(400, "target_sae_id_not_recognized", text)
            });
        }
        if targets.len() > self.config.targets_max {
            let text = "Routes not available to support these multiple target SAEs.";
            return Err(routing(503, "no_route_multiple_targets", text));
        }
        Ok(())
    }

    /// Whether an earlier request left something of a key with its targets, or on its way.
    fn keeps(&self, peer: &str, key: KeyId) -> bool {
        let known = self.known.get(&key);
        let is_relayed = known.is_some_and(|known| known.state == KnownState::Relayed && known.parties.peer == peer);
        let import = self.pending.get(&key).and_then(|import| self.imports.get(import));
        is_relayed || import.is_some_and(|import| import.parties.peer == peer)
    }

    /// Whether this site knows a key id as one that a foreign KME sent.
    pub(super) fn is_known(&self, key: KeyId) -> bool {
        self.known.contains_key(&key) || self.pending.contains_key(&key)
    }

    /// Refuses what would break a limit of one foreign KME.
    pub(super) fn room_for(&self, peer: &str, keys: usize) -> Result<(), Problem> {
        let imports = self.imports.values().filter(|import| import.parties.peer == peer).count();
        let jobs = self.void_jobs.values().filter(|job| job.parties.peer == peer).count();
        let fates = self.known_count.get(peer).copied().unwrap_or_default();
        let is_free = imports.max(jobs) < self.config.transfers_max && fates + keys <= self.config.tombstones_max;
        let text = "This KME has too many unresolved or remembered keys of the calling KME; try later.";
        let busy = || Problem::new(503, ProblemKind::ServerSide, "server_side_general_error", text);
        is_free.then_some(()).ok_or_else(busy)
    }

    /// The same transfer came again: its acknowledgement goes where the latest one says.
    fn call_back(&mut self, key: KeyId, callback: Option<&CallbackUrl>) {
        let Some(import) = self.pending.get(&key).copied() else { return };
        let Some(pending) = self.imports.get_mut(&import) else { return };
        if callback.is_some() && pending.callback.as_ref() != callback {
            pending.callback = callback.cloned();
            let change = record::update_import(import, &pending.parties, callback, &pending.keys);
            self.journal.change(change);
        }
    }

    /// An import that is durable already.
    pub(super) fn restore_import(
        &mut self,
        now: Time,
        id: KeyId,
        parties: Parties,
        callback: Option<CallbackUrl>,
        keys: Keys,
    ) {
        self.pending.extend(keys.iter().map(|(key, _)| (*key, id)));
        let give_up = now.after(self.config.import_give_up);
        self.imports.insert(id, Import { parties, callback, keys, due: None, give_up });
        self.import_due(now, id);
    }

    /// Tells the own KME to bring keys to their targets.
    pub(super) fn import_due(&mut self, _now: Time, id: KeyId) {
        let request = self.next_request();
        let Some(import) = self.imports.get_mut(&id) else { return };
        import.due = None;
        self.import_requests.insert(request, id);
        self.journal.effect(Output::Import {
            id: request,
            initiator: import.parties.initiator.id().clone(),
            targets: import.parties.targets.iter().map(|target| target.id().clone()).collect(),
            keys: import.keys.iter().map(|(key, bits)| (*key, bits.duplicate())).collect(),
        });
    }

    /// The own KME says what became of an import.
    pub(super) fn imported(
        &mut self,
        now: Time,
        request: RequestId,
        result: Result<(), Refusal>,
        rng: &mut impl CryptoRng,
    ) {
        let Some(id) = self.import_requests.remove(&request) else { return };
        let Some(import) = self.imports.get(&id) else { return };
        let may_wait = now < import.give_up && !self.is_to_be_void(import);
        match result {
            Ok(()) => self.resolve(now, id, KnownState::Relayed, rng),
            Err(refusal) => match retry_after(&refusal).filter(|_| may_wait) {
                Some(wait) => {
                    let due = now.after(wait.max(RETRY_MIN));
                    self.timers.insert((due, Timer::Import(id)));
                    self.imports.get_mut(&id).expect("it was found above").due = Some(due);
                }
                None => self.resolve(now, id, KnownState::Failed, rng),
            },
        }
    }

    /// The fate of an import's keys is decided: remember it, acknowledge it.
    fn resolve(&mut self, now: Time, id: KeyId, state: KnownState, rng: &mut impl CryptoRng) {
        let Some(import) = self.imports.remove(&id) else { return };
        if let Some(due) = import.due {
            self.timers.remove(&(due, Timer::Import(id)));
        }
        self.journal.change(record::delete(Kind::Import, id));
        let ids: Vec<_> = import.keys.iter().map(|(key, _)| *key).collect();
        for (key, bits) in import.keys {
            self.pending.remove(&key);
            let check = check_value(&bits, rng);
            self.set_known(now, key, import.parties.clone(), state, Some(check));
        }
        if state == KnownState::Relayed {
            self.counters.imported_keys += ids.len() as u64;
            self.journal.event(Event::KeysImported {
                peer: import.parties.peer.clone(),
                master: import.parties.initiator.id().clone(),
                slave: import.parties.targets[0].id().clone(),
                first: ids[0],
                keys: ids.len() as u64,
            });
        }
        // What is asked to be void is acknowledged as that only.
        let is_open = |key: &KeyId| self.void_jobs.values().any(|job| job.has_open(*key));
        let told: Vec<_> = ids.iter().filter(|key| !is_open(key)).map(|key| (*key, state.status())).collect();
        if let Some(url) = import.callback.filter(|_| !told.is_empty()) {
            let acks = acks_of(&import.parties, told.into_iter());
            self.post_acks(now, &import.parties.peer, &url, acks, rng);
        }
        self.step_void_jobs(now, &ids.into_iter().collect(), rng);
        self.answer_sync();
    }

    pub(super) fn set_known(
        &mut self,
        now: Time,
        key: KeyId,
        parties: Parties,
        state: KnownState,
        check: Option<SecretBytes>,
    ) {
        self.journal.change(record::put_known(key, &parties, state, check.as_ref()));
        self.restore_known(now, key, parties, state, check);
    }

    /// A decided key that is durable already.
    pub(super) fn restore_known(
        &mut self,
        now: Time,
        key: KeyId,
        parties: Parties,
        state: KnownState,
        check: Option<SecretBytes>,
    ) {
        let ttl = if state == KnownState::Voided { self.config.void_ttl } else { self.config.resolved_ttl };
        let until = now.after(ttl);
        let peer = parties.peer.clone();
        if self.known.insert(key, Known { parties, state, check, until }).is_none() {
            *self.known_count.entry(peer).or_default() += 1;
        }
        self.timers.insert((until, Timer::ForgetKnown(key)));
    }

    pub(super) fn forget_known(&mut self, now: Time, key: KeyId) {
        if self.known.get(&key).is_none_or(|known| known.until > now) {
            return;
        }
        if let Some(known) = self.known.remove(&key)
            && let Some(count) = self.known_count.get_mut(&known.parties.peer)
        {
            *count = count.saturating_sub(1);
        }
        self.journal.change(record::delete(Kind::Known, key));
    }

    fn is_to_be_void(&self, import: &Import) -> bool {
        import.keys.iter().any(|(key, _)| self.void_jobs.values().any(|job| job.has_open(*key)))
    }

    /// Answers the synchronous transfers whose keys are all decided.
    pub(super) fn answer_sync(&mut self) {
        let is_done = |wait: &SyncWait| wait.ids.iter().all(|key| !self.pending.contains_key(key));
        let done: Vec<_> = self.sync_waits.iter().filter(|(_, wait)| is_done(wait)).map(|(id, _)| *id).collect();
        for id in done {
            let Some(wait) = self.sync_waits.remove(&id) else { continue };
            self.timers.remove(&(wait.due, Timer::Sync(id)));
            let status =
                |key: &KeyId| self.known.get(key).map_or(AckStatus::KeyNotPresent, |known| known.state.status());
            let fates: BTreeMap<_, _> = wait.ids.iter().map(|key| (*key, status(key))).collect();
            let acks = acks_of(&wait.parties, fates.into_iter());
            self.journal.effect(Output::Reply { id, reply: Reply::Resolved(acks) });
        }
    }

    /// A synchronous request waited too long; its keys go on.
    pub(super) fn sync_late(&mut self, id: RequestId) {
        if self.sync_waits.remove(&id).is_none() && !self.forget_sync_void(id) {
            return;
        }
        let text = "The keys are not resolved yet; ask again.";
        let problem = Problem::new(503, ProblemKind::ServerSide, "server_side_general_error", text);
        self.journal.effect(Output::Reply { id, reply: Reply::Refused(problem) });
    }

    /// All keys of these parties that are pending or with their targets.
    pub(super) fn keys_of(&self, parties: &Parties) -> BTreeSet<KeyId> {
        let relayed = self.known.iter().filter(|(_, known)| known.state == KnownState::Relayed);
        let relayed = relayed.filter(|(_, known)| known.parties == *parties).map(|(key, _)| *key);
        let imports = self.imports.values().filter(|import| import.parties == *parties);
        relayed.chain(imports.flat_map(|import| import.keys.iter().map(|(key, _)| *key))).collect()
    }
}

/// A callback must lead to the KME that asks: nobody else is ever called on its word.
pub(super) fn check_callback(peer: &PeerConfig, url: Option<&CallbackUrl>) -> Result<(), Problem> {
    if url.is_none_or(|url| url.authority() == peer.authority) {
        return Ok(());
    }
    let text = "ack_callback_url does not lead to the calling KME as it is configured here.";
    Err(Problem::new(400, ProblemKind::InvalidParameter, "ack_callback_url", text))
}

/// 400 only if nothing of the key is kept for the caller.
fn conflict(known: &Parties, peer: &str) -> Problem {
    let status = if known.peer == peer { 503 } else { 400 };
    let text = "A key ID of the request is in use for other key bits or other SAEs.";
    Problem::new(status, ProblemKind::InvalidParameter, "key_id_in_use", text)
}

fn routing(status: u16, topic: &str, text: &str) -> Problem {
    Problem::new(status, ProblemKind::KeyRouting, topic, text)
}

/// When a refused import may be met, if ever.
fn retry_after(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::NotEnoughKey { retry_after }
        | Refusal::PeerDown { retry_after }
        | Refusal::OverQuota { retry_after }
        | Refusal::NotExported { retry_after }
        | Refusal::Busy { retry_after } => Some(*retry_after),
        _ => None,
    }
}

/// Salt and 64 bits that tell whether other bits come under the same id. An attacker who opens the sealed record
/// learns no more than these 64 bits of the key.
fn check_value(bits: &SecretBytes, rng: &mut impl CryptoRng) -> SecretBytes {
    let salt = Key256::random(rng);
    let mut value = SecretBytes::from_vec(vec![0; SALT_BYTES + CHECK_BYTES]);
    value.expose_mut(|value| {
        salt.expose(|salt| value[..SALT_BYTES].copy_from_slice(salt));
        checked(&salt, bits).expose(|check| value[SALT_BYTES..].copy_from_slice(&check[..CHECK_BYTES]));
    });
    value
}

/// Whether bits are those that a check value was made of.
fn fits(check: &SecretBytes, bits: &SecretBytes) -> bool {
    let salt = check.part(0, SALT_BYTES).and_then(|salt| Key256::from_secret(&salt));
    let value = check.part(SALT_BYTES, CHECK_BYTES);
    salt.is_some_and(|salt| checked(&salt, bits).to_secret().part(0, CHECK_BYTES) == value)
}

fn checked(salt: &Key256, bits: &SecretBytes) -> Key256 {
    bits.expose(|bits| derive(salt, Domain::InterworkKeyCheck, &[bits]))
}

const SALT_BYTES: usize = 32;
const CHECK_BYTES: usize = 8;
const DETAIL_MAX: usize = 1_024;
/// Shortest wait before an import is tried again.
const RETRY_MIN: Duration = Duration::from_millis(100);
