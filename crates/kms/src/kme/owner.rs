//! The owner's half of an assignment.
//!
//! ```text
//! request -> Requested --ack------------------> consumed, replied
//!               |  `---nack(missing)--> anew with other keys, at most 4 times
//!               `--deadline, peer down--> refused; Parked --same request again--> Requested
//!                                                    `--park_ttl--> void at both sites, burned
//! group   -> Grouped ---ack of all------------> consumed, replied
//!               `--one fails, deadline--> all void at all sites, burned
//! ```
//! Keys of an assignment are bound to its SAEs until the holder says that it did not assign them. Key that carried
//! other key as its pad is never bound anew.

use std::sync::Arc;

use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::Time;

use super::supply::{NO_SHARING_ABROAD, Wanted, random_id};
use super::{Kme, RETRY_SOON, Timer};
use crate::api::{Priority, Refusal, Wishes};
use crate::config::{ASSIGN_ATTEMPTS_MAX, PAIR_KEY_BYTES, RUNS_MAX};
use crate::message::{Assign, AssignFailure, Message};
use crate::origin::Origin;
use crate::record::{self, Side};
use crate::stock::Run;
use crate::wish::Fit;

/// What a request must be to be met by a parked assignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ParkKey {
    master: SaeId,
    slaves: Vec<SaeId>,
    size_bits: u32,
    number: usize,
    wishes: Wishes,
}

impl ParkKey {
    fn new(master: &SaeId, slaves: &[SaeId], size_bits: u32, number: usize, wishes: &Wishes) -> Self {
        let wishes = Wishes { wait: None, priority: None, ..wishes.clone() };
        Self { master: master.clone(), slaves: slaves.to_vec(), size_bits, number, wishes }
    }

    fn of(assignment: &Assignment) -> Self {
        let Assign { master, slaves, size_bits, ids, .. } = &assignment.assign;
        Self::new(master, slaves, *size_bits, ids.len(), &assignment.wishes)
    }
}

/// An assignment that is not done.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) peer: SiteId,
    pub(super) assign: Assign,
    /// The keys; of a group none, its pad is spent.
    pub(super) stream: Option<SecretBytes>,
    pub(super) stage: Stage,
    /// When something is due; its timer is set.
    pub(super) due: Time,
    pub(super) attempts: u8,
    /// The holder has the keys and asks another network to take them.
    abroad: bool,
    wishes: Wishes,
    class: Priority,
}

/// Who waits for the assignment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// A request.
    Requested { id: RequestId, deadline: Time },
    /// Nobody.
    Parked { until: Time, acked: bool },
    /// A group.
    Grouped { group: u64, acked: bool },
}

impl Kme {
    /// Takes keys from the stock and asks the holder to assign them. All or nothing.
    pub(super) fn start_assignment(
        &mut self,
        now: Time,
        peer: SiteId,
        wanted: Wanted,
        stage: Stage,
        attempts: u8,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        let keys = wanted.bytes().div_ceil(PAIR_KEY_BYTES);
        let (runs, stream) = self.take_keys(&peer, keys, &wanted)?;
        let ids = (0..wanted.number).map(|_| random_id(rng)).collect();
        let Wanted { master, slaves, size_bits, wishes, class, .. } = wanted;
        let passed_on = wishes.passed_on.clone();
        let assign = Assign { assign: random_id(rng), master, slaves, size_bits, ids, runs, carried: None, passed_on };
        let (stream, abroad) = (Some(stream), false);
        self.assigned(now, Assignment { peer, assign, stream, stage, due: now, attempts, abroad, wishes, class });
        Ok(())
    }

    /// Takes pair keys for a request, if its class and its wishes leave it that many. All or nothing.
    pub(super) fn take_keys(
        &mut self,
        peer: &SiteId,
        keys: usize,
        wanted: &Wanted,
    ) -> Result<(Vec<Run>, SecretBytes), Refusal> {
        self.check_keys(peer, keys, wanted)?;
        let fit = Fit::new(&wanted.wishes, self.utc());
        let own = &mut self.peer(peer).own;
        let (runs, stream) = own.take(keys, &fit).expect("it was checked above");
        if runs.len() > RUNS_MAX {
            own.put_back(&runs, &stream);
            return Err(Refusal::NotEnoughKey { retry_after: RETRY_SOON });
        }
        self.keys_taken(peer, wanted.class, keys);
        self.fill_due = true;
        Ok((runs, stream))
    }

    /// Puts an assignment on the books and sends it.
    pub(super) fn assigned(&mut self, now: Time, assignment: Assignment) {
        let id = assignment.assign.assign;
        self.assignments.insert(id, assignment);
        self.assign_due(now, id);
    }

    /// One part of a group.
    pub(super) fn grouped(
        &mut self,
        now: Time,
        peer: SiteId,
        assign: Assign,
        group: u64,
        attempts: u8,
        wanted: &Wanted,
    ) {
        let stage = Stage::Grouped { group, acked: false };
        let (wishes, class) = (wanted.wishes.clone(), wanted.class);
        let (stream, abroad) = (None, false);
        self.assigned(now, Assignment { peer, assign, stream, stage, due: now, attempts, abroad, wishes, class });
    }

    /// Gives a parked assignment to a request that is the same. Says whether there was one.
    pub(super) fn revive(&mut self, now: Time, request: RequestId, wanted: &Wanted, deadline: Time) -> bool {
        // What is parked grows older than a wish may allow.
        if self.parked.is_empty() || wanted.wishes.max_age.is_some() {
            return false;
        }
        let Wanted { master, slaves, size_bits, number, wishes, .. } = wanted;
        let key = ParkKey::new(master, slaves, *size_bits, *number, wishes);
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
        let Some(assignment) = self.assignments.get(&id) else { return };
        let resend = self.config.assign_resend * if assignment.abroad { 8 } else { 1 };
        let next = match assignment.stage {
            Stage::Requested { id: request, deadline } if now >= deadline => {
                let refusal = if assignment.abroad {
                    Refusal::NotExported { retry_after: RETRY_SOON }
                } else {
                    let peer = assignment.peer.clone();
                    self.peer(&peer).silent = true;
                    Refusal::PeerDown { retry_after: RETRY_SOON }
                };
                self.refuse(request, refusal);
                return self.park(now, id);
            }
            Stage::Requested { deadline, .. } => now.after(resend).min(deadline),
            Stage::Parked { until, .. } if now >= until => return self.void(id),
            Stage::Parked { until, acked: true } => until,
            Stage::Parked { until, acked: false } => now.after(resend * 8).min(until),
            Stage::Grouped { .. } => now.after(resend),
        };
        let answered =
            matches!(assignment.stage, Stage::Parked { acked: true, .. } | Stage::Grouped { acked: true, .. });
        if !answered {
            let (peer, assign) = (assignment.peer.clone(), assignment.assign.clone());
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
            match self.assignments.get(&id).map(|assignment| assignment.stage) {
                Some(Stage::Requested { id: request, .. }) => {
                    self.refuse(request, Refusal::PeerDown { retry_after: RETRY_SOON });
                    self.park(now, id);
                }
                Some(Stage::Grouped { group, .. }) => {
                    self.void_group(group, Refusal::PeerDown { retry_after: RETRY_SOON });
                }
                Some(Stage::Parked { .. }) | None => {}
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
        let key = ParkKey::of(assignment);
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
    pub(super) fn assignment_ended(&mut self, id: KeyId) -> Option<Assignment> {
        let assignment = self.assignments.remove(&id)?;
        self.timers.remove(&(assignment.due, Timer::Assign(id)));
        if !self.parked.is_empty() {
            self.unpark(&ParkKey::of(&assignment), id);
        }
        Some(assignment)
    }

    pub(super) fn assign_acked(&mut self, now: Time, from: &SiteId, id: KeyId, rng: &mut impl CryptoRng) {
        let Some(assignment) = self.assignments.get_mut(&id).filter(|assignment| assignment.peer == *from) else {
            return;
        };
        match &mut assignment.stage {
            Stage::Parked { acked, .. } => *acked = true,
            Stage::Requested { .. } => self.consume(id),
            Stage::Grouped { group, acked } => {
                *acked = true;
                let group = *group;
                self.member_acked(now, group, rng);
            }
        }
    }

    /// The holder has the keys and asks another network to take them: that may last.
    pub(super) fn assign_pending(&mut self, now: Time, from: &SiteId, id: KeyId) {
        let deadline = now.after(self.config.export_deadline);
        let Some(assignment) = self.assignments.get_mut(&id).filter(|assignment| assignment.peer == *from) else {
            return;
        };
        if std::mem::replace(&mut assignment.abroad, true) {
            return;
        }
        match &mut assignment.stage {
            Stage::Requested { deadline: until, .. } => *until = deadline,
            Stage::Grouped { group, .. } => {
                let group = *group;
                self.extend_group(group, deadline);
            }
            Stage::Parked { .. } => {}
        }
    }

    /// The holder has durably assigned the keys: consume them here too and reply.
    fn consume(&mut self, id: KeyId) {
        let Some(assignment) = self.assignment_ended(id) else { return };
        let Stage::Requested { id: request, .. } = assignment.stage else {
            unreachable!("the callers consume only what is requested")
        };
        let origin = self.spend(&assignment.peer, &assignment.assign.runs);
        let told = origin.told(&self.config.site, &assignment.peer, self.utc());
        let stream = assignment.stream.as_ref().expect("only parts of a group have none");
        let keys = cut(&assignment.assign, stream);
        self.supplied(request, &assignment.assign.master, &assignment.assign.slaves, keys, &told);
    }

    /// Destroys own pair keys that are used; says how they came.
    pub(super) fn spend(&mut self, peer: &SiteId, runs: &[Run]) -> Arc<Origin> {
        record::delete_pair_keys(Side::Own, peer, runs).for_each(|change| self.journal.change(change));
        let own = &mut self.peer(peer).own;
        let parts: Vec<Arc<Origin>> = runs.iter().filter_map(|run| own.origin(run.relay).cloned()).collect();
        own.forget(runs);
        Origin::of_parts(&parts)
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
        let Some(assignment) = self.assignment_ended(id) else { return };
        if let Stage::Grouped { group, .. } = assignment.stage {
            return self.member_refused(now, group, assignment, reason, rng);
        }
        let Assignment { peer, assign, stream, stage, attempts, wishes, class, .. } = assignment;
        let request = match stage {
            Stage::Requested { id, deadline } => Some((id, deadline)),
            Stage::Parked { .. } | Stage::Grouped { .. } => None,
        };
        if matches!(reason, AssignFailure::Refused | AssignFailure::Foreign) {
            // The holder says that it still holds the keys: they are free again.
            let stream = stream.expect("only parts of a group have none");
            self.peer(&peer).own.put_back(&assign.runs, &stream);
            self.serve_due = true;
            if let Some((request, _)) = request {
                self.refuse(request, refusal_of(reason));
            }
            return;
        }
        self.burn_assigned(&peer, &assign);
        let Some((request, deadline)) = request else { return };
        let again = if reason == AssignFailure::Missing && attempts < ASSIGN_ATTEMPTS_MAX {
            let (number, Assign { master, slaves, size_bits, .. }) = (assign.ids.len(), assign);
            let wanted = Wanted { master, slaves, size_bits, number, wishes, class };
            self.start_assignment(now, peer, wanted, Stage::Requested { id: request, deadline }, attempts + 1, rng)
        } else {
            Err(refusal_of(reason))
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
    pub(super) fn burn_assigned(&mut self, peer: &SiteId, assign: &Assign) {
        record::delete_pair_keys(Side::Own, peer, &assign.runs).for_each(|change| self.journal.change(change));
        self.peer(peer).own.forget(&assign.runs);
        self.burned_keys("assignment without effect", assign.runs.iter().map(|run| run.bytes()).sum());
        self.send(peer, &Message::AssignVoid { assign: assign.assign, runs: assign.runs.clone() });
        self.fill_due = true;
    }
}

/// What an SAE is told when a holder does not assign.
pub(super) fn refusal_of(reason: AssignFailure) -> Refusal {
    match reason {
        AssignFailure::Missing => Refusal::NotEnoughKey { retry_after: RETRY_SOON },
        AssignFailure::Refused => Refusal::Busy { retry_after: RETRY_SOON },
        AssignFailure::InUse => Refusal::BadParameter { message: "a key id is in use".to_owned() },
        AssignFailure::Foreign => Refusal::BadParameter { message: NO_SHARING_ABROAD.to_owned() },
        AssignFailure::NotExported => Refusal::NotExported { retry_after: RETRY_SOON },
    }
}

/// Cuts the stream into the keys of an assignment.
pub(super) fn cut(assign: &Assign, stream: &SecretBytes) -> Vec<(KeyId, SecretBytes)> {
    let size = assign.key_bytes();
    let key = |index: usize| stream.part(index * size, size).expect("the stream holds all keys");
    assign.ids.iter().enumerate().map(|(index, id)| (*id, key(index))).collect()
}
