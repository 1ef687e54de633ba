//! Key supply to the SAEs of this site (ETSI GS QKD 014), and the owner's half of an assignment.
//!
//! ```text
//! request -> Requested --ack------------------> consumed, replied
//!               |  `---nack(missing)--> anew with other keys, at most 4 times
//!               `--deadline, peer down--> refused; Parked --same request again--> Requested
//!                                                    `--park_ttl--> void at both sites, burned
//! ```
//! Keys of an assignment are bound to its pair of SAEs until the holder says that it did not assign them.

use std::collections::BTreeSet;

use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::{BitLen, Time};

use super::{Kme, RETRY_SOON, Timer};
use crate::api::{Output, PairStatus, Refusal, SuppliedKey, SupplyReply, SupplyRequest};
use crate::config::{
    ASSIGN_ATTEMPTS_MAX, NUMBER_MAX, PAIR_KEY_BYTES, REQUEST_BYTES_MAX, RUNS_MAX, SIZE_MAX_BITS, SIZE_MIN_BITS,
};
use crate::delivery::NotDelivered;
use crate::message::{Assign, AssignFailure, Message};
use crate::record::{self, DeliveryRecord, Side};

/// What a request must be to be met by a parked assignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ParkKey {
    master: SaeId,
    slave: SaeId,
    size_bits: u32,
    number: usize,
}

impl ParkKey {
    fn of(assign: &Assign) -> Self {
        let (master, slave) = (assign.master.clone(), assign.slave.clone());
        Self { master, slave, size_bits: assign.size_bits, number: assign.ids.len() }
    }
}

/// An assignment that is not done.
#[derive(Debug)]
pub(super) struct Assignment {
    peer: SiteId,
    assign: Assign,
    stream: SecretBytes,
    stage: Stage,
    /// When something is due; its timer is set.
    due: Time,
    attempts: u8,
}

/// Who waits for the assignment.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Requested { id: RequestId, deadline: Time },
    Parked { until: Time, acked: bool },
}

/// A request for keys whose parameters are in range.
struct Wanted {
    master: SaeId,
    slave: SaeId,
    size_bits: u32,
    number: usize,
}

impl Wanted {
    fn bytes(&self) -> usize {
        usize::try_from(self.size_bits / 8).expect("key sizes are small") * self.number
    }
}

impl Kme {
    pub(super) fn request(
        &mut self,
        now: Time,
        id: RequestId,
        sae: SaeId,
        request: SupplyRequest,
        rng: &mut impl CryptoRng,
    ) {
        let outcome = if self.directory.get(&sae) == Some(&self.config.site) {
            match request {
                SupplyRequest::Status { slave } => self.status(id, &sae, slave),
                SupplyRequest::Encrypt { slave, additional, number, size_bits } => self
                    .wanted(&sae, slave, &additional, number, size_bits)
                    .and_then(|(peer, wanted)| self.supply(now, id, peer, wanted, rng)),
                SupplyRequest::Decrypt { master, ids } => self.deliver(id, &master, &sae, &ids),
            }
        } else {
            Err(Refusal::NotAuthorised { reason: "the SAE is not registered at this KME" })
        };
        if let Err(refusal) = outcome {
            if matches!(refusal, Refusal::NotAuthorised { .. } | Refusal::KeysNotFound) {
                self.journal.event(Event::RequestRefused { sae, reason: refusal.to_string() });
            }
            self.refuse(id, refusal);
        }
    }

    fn refuse(&mut self, id: RequestId, refusal: Refusal) {
        self.counters.requests_refused += 1;
        self.journal.effect(Output::Reply { id, result: Err(refusal) });
    }

    fn status(&mut self, id: RequestId, master: &SaeId, slave: SaeId) -> Result<(), Refusal> {
        let Some(target) = self.directory.get(&slave) else { return Err(Refusal::UnknownSae { sae: slave }) };
        let target_keys = self.config.target_keys;
        let stored = if *target == self.config.site {
            target_keys
        } else {
            let bytes = self.peers.get(target).map_or(0, |peer| peer.own.ready() * PAIR_KEY_BYTES);
            let keys = bytes * 8 / usize::try_from(self.config.key_size_bits).unwrap_or(usize::MAX);
            u32::try_from(keys).unwrap_or(u32::MAX).min(target_keys)
        };
        let status = PairStatus {
            source_kme: self.config.site.clone(),
            target_kme: target.clone(),
            master: master.clone(),
            slave,
            key_size: self.config.key_size_bits,
            stored_key_count: stored,
            max_key_count: target_keys,
            max_key_per_request: NUMBER_MAX,
            max_key_size: SIZE_MAX_BITS,
            min_key_size: SIZE_MIN_BITS,
            max_sae_id_count: 0,
        };
        self.journal.direct(Output::Reply { id, result: Ok(SupplyReply::Status(status)) });
        Ok(())
    }

    /// Checks the parameters of get key.
    fn wanted(
        &self,
        master: &SaeId,
        slave: SaeId,
        additional: &[SaeId],
        number: u32,
        size_bits: Option<u32>,
    ) -> Result<(SiteId, Wanted), Refusal> {
        let bad = |message: String| Err(Refusal::BadParameter { message });
        let size_bits = size_bits.unwrap_or(self.config.key_size_bits);
        if !(1..=NUMBER_MAX).contains(&number) {
            return bad(format!("number shall be between 1 and {NUMBER_MAX}"));
        }
        // ETSI GS QKD 014, 6.2.
        if !size_bits.is_multiple_of(8) {
            return bad("size shall be a multiple of 8".to_owned());
        }
        if !(SIZE_MIN_BITS..=SIZE_MAX_BITS).contains(&size_bits) {
            return bad(format!("size shall be between {SIZE_MIN_BITS} and {SIZE_MAX_BITS}"));
        }
        if !additional.is_empty() {
            return bad("additional_slave_SAE_IDs shall name at most 0 SAEs".to_owned());
        }
        if slave == *master && !self.config.allow_self_pair {
            return bad("master and slave SAE shall differ".to_owned());
        }
        let Some(peer) = self.directory.get(&slave).cloned() else {
            return Err(Refusal::UnknownSae { sae: slave });
        };
        let number = usize::try_from(number).expect("it was checked to be small");
        let wanted = Wanted { master: master.clone(), slave, size_bits, number };
        if wanted.bytes() > REQUEST_BYTES_MAX {
            return bad(format!("number times size shall be at most {} bits", REQUEST_BYTES_MAX * 8));
        }
        Ok((peer, wanted))
    }

    fn supply(
        &mut self,
        now: Time,
        id: RequestId,
        peer: SiteId,
        wanted: Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        if peer == self.config.site {
            return self.supply_here(now, id, wanted, rng);
        }
        if self.peers.get(&peer).is_none_or(|peer| !peer.up || peer.silent) {
            return Err(Refusal::PeerDown { retry_after: RETRY_SOON });
        }
        let deadline = now.after(self.config.supply_deadline);
        if self.revive(now, id, &wanted, deadline) {
            return Ok(());
        }
        if self.assignments.len() >= self.config.requests_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        self.start_assignment(now, peer, wanted, Stage::Requested { id, deadline }, 1, rng)
    }

    /// Both SAEs are of this site: fresh keys that wait for the slave here.
    fn supply_here(
        &mut self,
        now: Time,
        request: RequestId,
        wanted: Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        if self.deliveries.len() + wanted.number > self.config.deliveries_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        let stream = SecretBytes::random(wanted.bytes(), rng);
        let ids = random_ids(wanted.number, rng);
        let Wanted { master, slave, size_bits, .. } = wanted;
        let assign = Assign { assign: random_id(rng), master, slave, size_bits, ids, runs: Vec::new() };
        let delivery = DeliveryRecord {
            assign: assign.assign,
            origin: self.config.site.clone(),
            master: assign.master.clone(),
            slave: assign.slave.clone(),
        };
        let expires = now.after(self.config.delivery_ttl);
        for supplied in cut(&assign, &stream) {
            self.journal.change(record::put_delivery(supplied.id, &delivery, supplied.key.duplicate()));
            self.deliveries.add(supplied.id, delivery.clone(), supplied.key, expires);
        }
        self.supplied(request, &assign, &stream);
        Ok(())
    }

    /// Takes keys from the stock and asks the holder to assign them. All or nothing.
    fn start_assignment(
        &mut self,
        now: Time,
        peer: SiteId,
        wanted: Wanted,
        stage: Stage,
        attempts: u8,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        let keys = wanted.bytes().div_ceil(PAIR_KEY_BYTES);
        let own = &mut self.peer(&peer).own;
        let refusal = Refusal::NotEnoughKey { retry_after: RETRY_SOON };
        let (runs, stream) = own.take(keys).ok_or(refusal.clone())?;
        if runs.len() > RUNS_MAX {
            own.put_back(&runs, &stream);
            return Err(refusal);
        }
        self.fill_due = true;
        let ids = random_ids(wanted.number, rng);
        let Wanted { master, slave, size_bits, .. } = wanted;
        let assign = Assign { assign: random_id(rng), master, slave, size_bits, ids, runs };
        let id = assign.assign;
        self.assignments.insert(id, Assignment { peer, assign, stream, stage, due: now, attempts });
        self.assign_due(now, id);
        Ok(())
    }

    /// Gives a parked assignment to a request that is the same. Says whether there was one.
    fn revive(&mut self, now: Time, request: RequestId, wanted: &Wanted, deadline: Time) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        let (master, slave) = (wanted.master.clone(), wanted.slave.clone());
        let key = ParkKey { master, slave, size_bits: wanted.size_bits, number: wanted.number };
        let Some(id) = self.parked.get(&key).and_then(|ids| ids.first().copied()) else { return false };
        self.unpark(&key, id);
        let assignment = self.assignments.get_mut(&id).expect("what is parked is an assignment");
        let acked = matches!(assignment.stage, Stage::Parked { acked: true, .. });
        assignment.stage = Stage::Requested { id: request, deadline };
        if acked {
            self.consume(id);
        } else {
            self.assign_due(now, id);
        }
        true
    }

    /// Repeats an assignment, or parks it, or voids it, whatever is due.
    pub(super) fn assign_due(&mut self, now: Time, id: KeyId) {
        let resend = self.config.assign_resend;
        let Some(assignment) = self.assignments.get(&id) else { return };
        let next = match assignment.stage {
            Stage::Requested { id: request, deadline } if now >= deadline => {
                let peer = assignment.peer.clone();
                self.peer(&peer).silent = true;
                self.refuse(request, Refusal::PeerDown { retry_after: RETRY_SOON });
                return self.park(now, id);
            }
            Stage::Requested { deadline, .. } => now.after(resend).min(deadline),
            Stage::Parked { until, .. } if now >= until => return self.void(id),
            Stage::Parked { until, acked: true } => until,
            Stage::Parked { until, acked: false } => now.after(resend * 8).min(until),
        };
        let (peer, assign) = (assignment.peer.clone(), assignment.assign.clone());
        if !matches!(assignment.stage, Stage::Parked { acked: true, .. }) {
            self.send(&peer, &Message::Assign(assign));
        }
        self.reschedule(id, next);
    }

    pub(super) fn resend_assignments(&mut self, now: Time, peer: &SiteId) {
        for id in self.assignments_to(peer) {
            self.assign_due(now, id);
        }
    }

    /// The peer is down: nobody waits for it any longer.
    pub(super) fn refuse_waiting(&mut self, now: Time, peer: &SiteId) {
        for id in self.assignments_to(peer) {
            if let Some(Assignment { stage: Stage::Requested { id: request, .. }, .. }) = self.assignments.get(&id) {
                self.refuse(*request, Refusal::PeerDown { retry_after: RETRY_SOON });
                self.park(now, id);
            }
        }
    }

    fn assignments_to(&self, peer: &SiteId) -> Vec<KeyId> {
        self.assignments.iter().filter(|(_, assignment)| assignment.peer == *peer).map(|(id, _)| *id).collect()
    }

    fn park(&mut self, now: Time, id: KeyId) {
        let until = now.after(self.config.park_ttl);
        let next = now.after(self.config.assign_resend);
        let Some(assignment) = self.assignments.get_mut(&id) else { return };
        assignment.stage = Stage::Parked { until, acked: false };
        let key = ParkKey::of(&assignment.assign);
        self.parked.entry(key).or_default().push(id);
        self.reschedule(id, next);
    }

    fn unpark(&mut self, key: &ParkKey, id: KeyId) {
        if let Some(ids) = self.parked.get_mut(key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.parked.remove(key);
            }
        }
    }

    fn reschedule(&mut self, id: KeyId, due: Time) {
        if let Some(assignment) = self.assignments.get_mut(&id) {
            self.timers.remove(&(assignment.due, Timer::Assign(id)));
            assignment.due = due;
            self.timers.insert((due, Timer::Assign(id)));
        }
    }

    /// Takes an assignment off the books.
    fn assignment_ended(&mut self, id: KeyId) -> Option<Assignment> {
        let assignment = self.assignments.remove(&id)?;
        self.timers.remove(&(assignment.due, Timer::Assign(id)));
        self.unpark(&ParkKey::of(&assignment.assign), id);
        Some(assignment)
    }

    pub(super) fn assign_acked(&mut self, from: &SiteId, id: KeyId) {
        let Some(assignment) = self.assignments.get_mut(&id).filter(|assignment| assignment.peer == *from) else {
            return;
        };
        match &mut assignment.stage {
            Stage::Parked { acked, .. } => *acked = true,
            Stage::Requested { .. } => self.consume(id),
        }
    }

    /// The holder has durably assigned the keys: consume them here too and reply.
    fn consume(&mut self, id: KeyId) {
        let Some(assignment) = self.assignment_ended(id) else { return };
        let Stage::Requested { id: request, .. } = assignment.stage else {
            unreachable!("the callers consume only what is requested")
        };
        let runs = &assignment.assign.runs;
        record::delete_pair_keys(Side::Own, &assignment.peer, runs).for_each(|change| self.journal.change(change));
        self.peer(&assignment.peer).own.forget(runs);
        self.supplied(request, &assignment.assign, &assignment.stream);
    }

    fn supplied(&mut self, request: RequestId, assign: &Assign, stream: &SecretBytes) {
        self.counters.supplied_keys += assign.ids.len() as u64;
        self.journal.event(Event::KeysSupplied {
            master: assign.master.clone(),
            slave: assign.slave.clone(),
            first: assign.ids[0],
            keys: assign.ids.len() as u64,
            size: BitLen(u64::from(assign.size_bits)),
        });
        let keys = cut(assign, stream);
        self.journal.effect(Output::Reply { id: request, result: Ok(SupplyReply::Keys(keys)) });
    }

    pub(super) fn assign_refused(
        &mut self,
        now: Time,
        from: &SiteId,
        id: KeyId,
        reason: AssignFailure,
        rng: &mut impl CryptoRng,
    ) {
        if self.assignments.get(&id).is_none_or(|assignment| assignment.peer != *from) {
            return;
        }
        let Some(Assignment { peer, assign, stream, stage, attempts, .. }) = self.assignment_ended(id) else { return };
        if reason == AssignFailure::Refused {
            // The holder says that it still holds the keys: they are free again.
            self.peer(&peer).own.put_back(&assign.runs, &stream);
            if let Stage::Requested { id: request, .. } = stage {
                self.refuse(request, Refusal::Busy { retry_after: RETRY_SOON });
            }
            return;
        }
        self.burn_assigned(&peer, &assign);
        let Stage::Requested { id: request, deadline } = stage else { return };
        let number = assign.ids.len();
        let wanted = Wanted { master: assign.master, slave: assign.slave, size_bits: assign.size_bits, number };
        let stage = Stage::Requested { id: request, deadline };
        let again = if attempts < ASSIGN_ATTEMPTS_MAX {
            self.start_assignment(now, peer, wanted, stage, attempts + 1, rng)
        } else {
            Err(Refusal::NotEnoughKey { retry_after: RETRY_SOON })
        };
        if let Err(refusal) = again {
            self.refuse(request, refusal);
        }
    }

    fn void(&mut self, id: KeyId) {
        if let Some(assignment) = self.assignment_ended(id) {
            self.burn_assigned(&assignment.peer, &assignment.assign);
        }
    }

    /// Burns the keys of an assignment at both sites.
    fn burn_assigned(&mut self, peer: &SiteId, assign: &Assign) {
        record::delete_pair_keys(Side::Own, peer, &assign.runs).for_each(|change| self.journal.change(change));
        self.peer(peer).own.forget(&assign.runs);
        self.burned_keys("assignment without effect", assign.runs.iter().map(|run| run.bytes()).sum());
        self.send(peer, &Message::AssignVoid { assign: assign.assign, runs: assign.runs.clone() });
        self.fill_due = true;
    }

    /// Get key with key IDs.
    fn deliver(&mut self, id: RequestId, master: &SaeId, slave: &SaeId, ids: &[KeyId]) -> Result<(), Refusal> {
        let distinct: BTreeSet<&KeyId> = ids.iter().collect();
        if ids.is_empty() || ids.len() > usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX) {
            return Err(Refusal::BadParameter { message: format!("key_IDs shall name 1 to {NUMBER_MAX} keys") });
        }
        if distinct.len() != ids.len() {
            return Err(Refusal::BadParameter { message: "key_IDs shall name each key once".to_owned() });
        }
        let keys = self.deliveries.take(master, slave, ids).map_err(|why| match why {
            NotDelivered::Missing => Refusal::KeysNotFound,
            NotDelivered::NotTheSlave => Refusal::NotAuthorised { reason: "a key asked for is for another SAE" },
        })?;
        ids.iter().for_each(|id| self.journal.change(record::delete_delivery(*id)));
        self.counters.delivered_keys += ids.len() as u64;
        self.journal.event(Event::KeysDelivered {
            master: master.clone(),
            slave: slave.clone(),
            first: ids[0],
            keys: ids.len() as u64,
        });
        let keys = keys.into_iter().map(|(id, key)| SuppliedKey { id, key }).collect();
        self.journal.effect(Output::Reply { id, result: Ok(SupplyReply::Keys(keys)) });
        Ok(())
    }
}

/// Cuts the stream into the keys of an assignment.
fn cut(assign: &Assign, stream: &SecretBytes) -> Vec<SuppliedKey> {
    let size = assign.key_bytes();
    let key = |index: usize| stream.part(index * size, size).expect("the stream holds all keys");
    assign.ids.iter().enumerate().map(|(index, id)| SuppliedKey { id: *id, key: key(index) }).collect()
}

fn random_id(rng: &mut impl CryptoRng) -> KeyId {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    KeyId::from_random(bytes)
}

fn random_ids(count: usize, rng: &mut impl CryptoRng) -> Vec<KeyId> {
    (0..count).map(|_| random_id(rng)).collect()
}
