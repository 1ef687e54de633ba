//! Void requests of a foreign KME: destroy what no SAE has, remember the ids, tell the fate of each.

use std::collections::{BTreeMap, BTreeSet};

use crypto::rand_core::CryptoRng;
use etsi::etsi020::{AckStatus, CallbackUrl, KEYS_MAX, Problem, ProblemKind, VoidContainer};
use types::event::Event;
use types::id::{KeyId, RequestId};
use types::units::Time;

use super::api::{Output, Reply, backoff};
use super::posting::acks_of;
use super::receiving::{KnownState, check_callback};
use super::record::{self, Kind, Parties};
use super::{Interwork, Timer, random_id};
use crate::Refusal;

/// Keys that a foreign KME wants to be void.
#[derive(Debug)]
pub(super) struct VoidJob {
    pub(super) parties: Parties,
    callback: Option<CallbackUrl>,
    /// The synchronous request and its time limit.
    sync: Option<(RequestId, Time)>,
    open: BTreeSet<KeyId>,
    /// Open keys of which the own KME was asked.
    asked: BTreeSet<KeyId>,
    fates: BTreeMap<KeyId, AckStatus>,
    attempts: u32,
    due: Option<Time>,
    give_up: Time,
}

impl VoidJob {
    pub(super) fn has_open(&self, key: KeyId) -> bool {
        self.open.contains(&key)
    }

    fn keys(&self) -> BTreeSet<KeyId> {
        self.open.iter().chain(self.fates.keys()).copied().collect()
    }

    fn settle(&mut self, key: KeyId, status: AckStatus) {
        self.open.remove(&key);
        self.fates.insert(key, status);
    }
}

/// Keys that the own KME was asked to destroy.
#[derive(Debug)]
pub(super) struct Withdrawal {
    job: KeyId,
    ids: Vec<KeyId>,
}

impl Interwork {
    /// POST `ext_keys/void`.
    pub(super) fn void(
        &mut self,
        now: Time,
        id: RequestId,
        peer: &str,
        void: VoidContainer,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Problem> {
        check_callback(&self.config.peers[peer], void.ack_callback_url.as_ref())?;
        let parties = Parties { peer: peer.to_owned(), initiator: void.initiator, targets: void.targets };
        let mut ids = void.key_ids;
        if ids.is_empty() {
            if void.all_confirmation != Some(true) {
                let text = "No key_ids are given; to void all keys of the SAEs all_confirmation must be true.";
                let kind = ProblemKind::NoKeyIdsOrConfirmation;
                // The text of the standard names the one detail, its example the other.
                return Err(
                    Problem::new(400, kind, "no_all_confirmation", text).and("no_key_ids_or_confirmation", text)
                );
            }
            ids = self.keys_of(&parties).into_iter().collect();
        }
        let unknown = ids.iter().filter(|key| !self.is_known(**key)).count();
        self.room_for(peer, unknown)?;
        let callback = void.ack_callback_url;
        if let Some(url) = callback {
            let wanted: BTreeSet<_> = ids.iter().copied().collect();
            // Asked again while it is under way: one acknowledgement is enough.
            let is_same =
                |job: &VoidJob| job.parties == parties && job.callback.as_ref() == Some(&url) && job.keys() == wanted;
            if !self.void_jobs.values().any(is_same) {
                for part in ids.chunks(KEYS_MAX) {
                    self.start_void_job(now, parties.clone(), Some(url.clone()), None, part.to_vec(), rng);
                }
            }
            self.journal.effect(Output::Reply { id, reply: Reply::Accepted });
        } else if ids.len() > KEYS_MAX {
            let text = "Too many keys for one synchronous request; use the asynchronous mode.";
            return Err(Problem::new(503, ProblemKind::ServerSide, "server_side_general_error", text));
        } else {
            let due = now.after(self.config.sync_max);
            self.timers.insert((due, Timer::Sync(id)));
            self.start_void_job(now, parties, None, Some((id, due)), ids, rng);
        }
        Ok(())
    }

    /// Voids keys durably; `callback` and `sync` say who is told.
    pub(super) fn start_void_job(
        &mut self,
        now: Time,
        parties: Parties,
        callback: Option<CallbackUrl>,
        sync: Option<(RequestId, Time)>,
        ids: Vec<KeyId>,
        rng: &mut impl CryptoRng,
    ) {
        let job = random_id(rng);
        self.journal.change(record::put_void_job(job, &parties, callback.as_ref(), &ids));
        let job_state = self.new_job(now, parties, callback, sync, ids);
        self.void_jobs.insert(job, job_state);
        self.step_void_job(now, job, rng);
    }

    /// A void request that is durable already; it goes on at once, when all the rest is restored.
    pub(super) fn restore_void_job(
        &mut self,
        now: Time,
        job: KeyId,
        parties: Parties,
        callback: Option<CallbackUrl>,
        ids: Vec<KeyId>,
    ) {
        let mut job_state = self.new_job(now, parties, callback, None, ids);
        job_state.due = Some(now);
        self.void_jobs.insert(job, job_state);
        self.timers.insert((now, Timer::Job(job)));
    }

    fn new_job(
        &self,
        now: Time,
        parties: Parties,
        callback: Option<CallbackUrl>,
        sync: Option<(RequestId, Time)>,
        ids: Vec<KeyId>,
    ) -> VoidJob {
        let give_up = now.after(self.config.import_give_up);
        let open = ids.into_iter().collect();
        let (asked, fates) = Default::default();
        VoidJob { parties, callback, sync, open, asked, fates, attempts: 0, due: None, give_up }
    }

    /// The fate of some keys changed.
    pub(super) fn step_void_jobs(&mut self, now: Time, keys: &BTreeSet<KeyId>, rng: &mut impl CryptoRng) {
        let touched = |job: &VoidJob| keys.iter().any(|key| job.has_open(*key));
        let jobs: Vec<_> = self.void_jobs.iter().filter(|(_, job)| touched(job)).map(|(id, _)| *id).collect();
        for job in jobs {
            self.step_void_job(now, job, rng);
        }
    }

    /// Decides what can be decided of a job's keys, asks the own KME about the rest, ends the job.
    fn step_void_job(&mut self, now: Time, id: KeyId, rng: &mut impl CryptoRng) {
        let Some(job) = self.void_jobs.get(&id) else { return };
        let parties = job.parties.clone();
        let open: Vec<_> = job.open.difference(&job.asked).copied().collect();
        let mut relayed = Vec::new();
        for key in open {
            let status = if self.pending.contains_key(&key) && self.is_pending_of(key, &parties) {
                continue;
            } else if let Some(known) = self.known.get(&key).filter(|known| known.parties == parties) {
                if known.state == KnownState::Relayed {
                    relayed.push(key);
                    continue;
                }
                self.mark_void(now, key, &parties);
                AckStatus::Voided
            } else if let Some(status) = self.void_own(now, key, &parties) {
                status
            } else {
                // A transfer of it that is still on its way must not be taken.
                if self.is_of_here(&parties) && !self.is_known(key) && !self.exported_keys.contains_key(&key) {
                    self.set_known(now, key, parties.clone(), KnownState::Voided, None);
                }
                AckStatus::KeyNotPresent
            };
            self.void_jobs.get_mut(&id).expect("it was found above").settle(key, status);
        }
        self.withdraw(id, relayed);
        self.end_void_job(now, id, rng);
    }

    fn is_pending_of(&self, key: KeyId, parties: &Parties) -> bool {
        let import = self.pending.get(&key).and_then(|import| self.imports.get(import));
        import.is_some_and(|import| import.parties == *parties)
    }

    /// Whether keys of these parties would come from there to here.
    fn is_of_here(&self, parties: &Parties) -> bool {
        let from = self.config.peers.get(&parties.peer).is_some_and(|peer| peer.saes.contains(parties.initiator.id()));
        from && parties.targets.iter().all(|target| self.config.saes.contains(target.id()))
    }

    /// Asks the own KME to destroy keys, all or none.
    fn withdraw(&mut self, job_id: KeyId, ids: Vec<KeyId>) {
        if ids.is_empty() {
            return;
        }
        let request = self.next_request();
        let Some(job) = self.void_jobs.get_mut(&job_id) else { return };
        job.asked.extend(&ids);
        self.journal.effect(Output::Withdraw {
            id: request,
            initiator: job.parties.initiator.id().clone(),
            targets: job.parties.targets.iter().map(|target| target.id().clone()).collect(),
            ids: ids.clone(),
        });
        self.withdrawals.insert(request, Withdrawal { job: job_id, ids });
    }

    /// The own KME says what became of a withdrawal.
    pub(super) fn withdrawn(
        &mut self,
        now: Time,
        request: RequestId,
        result: Result<(), Refusal>,
        rng: &mut impl CryptoRng,
    ) {
        let Some(Withdrawal { job: id, ids }) = self.withdrawals.remove(&request) else { return };
        let Some(job) = self.void_jobs.get_mut(&id) else { return };
        let parties = job.parties.clone();
        ids.iter().for_each(|key| _ = job.asked.remove(key));
        let is_late = now >= job.give_up;
        let status = match result {
            Ok(()) => Some(AckStatus::Voided),
            Err(Refusal::KeyDelivered | Refusal::KeysNotFound) if ids.len() > 1 => {
                // One of them stands in the way of all: ask of each.
                ids.into_iter().for_each(|key| self.withdraw(id, vec![key]));
                return;
            }
            Err(Refusal::KeyDelivered) => Some(AckStatus::FailedToVoid),
            Err(Refusal::KeysNotFound) => Some(AckStatus::KeyNotPresent),
            Err(_) if is_late => Some(AckStatus::FailedToVoid),
            Err(_) => None,
        };
        let Some(status) = status else {
            if job.due.is_none() {
                let due = now.after(backoff(&self.config, job.attempts));
                job.attempts += 1;
                job.due = Some(due);
                self.timers.insert((due, Timer::Job(id)));
            }
            return;
        };
        for key in ids {
            self.void_jobs.get_mut(&id).expect("it was found above").settle(key, status);
            if status != AckStatus::FailedToVoid {
                self.mark_void(now, key, &parties);
            }
        }
        self.end_void_job(now, id, rng);
    }

    pub(super) fn job_due(&mut self, now: Time, id: KeyId, rng: &mut impl CryptoRng) {
        if let Some(job) = self.void_jobs.get_mut(&id) {
            job.due = None;
            self.step_void_job(now, id, rng);
        }
    }

    fn mark_void(&mut self, now: Time, key: KeyId, parties: &Parties) {
        self.counters.voided_keys += 1;
        self.journal.event(Event::KeysVoided {
            peer: parties.peer.clone(),
            reason: "the other network asked for it".to_owned(),
            first: key,
            keys: 1,
        });
        self.set_known(now, key, parties.clone(), KnownState::Voided, None);
    }

    /// Tells the fate of a job's keys when all are decided.
    fn end_void_job(&mut self, now: Time, id: KeyId, rng: &mut impl CryptoRng) {
        if self.void_jobs.get(&id).is_none_or(|job| !job.open.is_empty()) {
            return;
        }
        let Some(job) = self.void_jobs.remove(&id) else { return };
        if let Some(due) = job.due {
            self.timers.remove(&(due, Timer::Job(id)));
        }
        self.journal.change(record::delete(Kind::VoidJob, id));
        let acks = acks_of(&job.parties, job.fates.into_iter());
        if let Some((request, due)) = job.sync {
            self.timers.remove(&(due, Timer::Sync(request)));
            self.journal.effect(Output::Reply { id: request, reply: Reply::Resolved(acks) });
        } else if let Some(url) = job.callback {
            self.post_acks(now, &job.parties.peer, &url, acks, rng);
        }
        self.answer_sync();
    }

    /// A synchronous void waited too long; it goes on untold.
    pub(super) fn forget_sync_void(&mut self, request: RequestId) -> bool {
        let mut jobs = self.void_jobs.values_mut();
        let waiting = jobs.find(|job| job.sync.is_some_and(|(id, _)| id == request));
        waiting.is_some_and(|job| job.sync.take().is_some())
    }
}
