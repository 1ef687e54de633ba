//! The outbox: what a foreign KME must get, sent again with growing waits until it is answered.
//!
//! ```text
//! post ─► call ─► 2xx ─► transfer and void wait for their acknowledgement, which ends them; an ack is done
//!   ▲      │
//!   └ wait ┴ anything else
//! ```

use std::collections::{BTreeSet, VecDeque};

use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use etsi::etsi020::{AckContainer, AckContainers, AckStatus, CallbackUrl, KeyEntry, VOID_PATH, VoidContainer};
use types::id::KeyId;
use types::units::Time;

use super::api::{Answer, CallId, Output, backoff};
use super::record::{self, Kind, Parties};
use super::{Interwork, Timer, random_id};

/// What is to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PostId {
    /// An export.
    Transfer(KeyId),
    /// Acknowledgements.
    Ack(KeyId),
    /// A request to void.
    Void(KeyId),
}

/// One entry of the outbox.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) peer: String,
    body: Body,
    attempts: u32,
    due: Option<Time>,
    give_up: Time,
}

#[derive(Debug)]
enum Body {
    /// Made from the export when it is sent.
    Transfer,
    Ack {
        path: String,
        acks: AckContainers,
    },
    Void {
        parties: Parties,
        open: BTreeSet<KeyId>,
    },
}

/// Calls to one foreign KME.
#[derive(Debug, Default)]
pub(super) struct Queue {
    busy: usize,
    ready: VecDeque<PostId>,
}

impl Interwork {
    /// Sends an export.
    pub(super) fn post_transfer(&mut self, now: Time, export: KeyId, peer: &str) {
        self.post(now, PostId::Transfer(export), peer, Body::Transfer);
    }

    /// Acknowledges durably.
    pub(super) fn post_acks(
        &mut self,
        now: Time,
        peer: &str,
        url: &CallbackUrl,
        acks: AckContainers,
        rng: &mut impl CryptoRng,
    ) {
        let id = random_id(rng);
        self.journal.change(record::put_ack_post(id, peer, &url.path(), &acks));
        self.restore_acks(now, id, peer, url.path(), acks);
    }

    /// An acknowledgement that is durable already.
    pub(super) fn restore_acks(&mut self, now: Time, id: KeyId, peer: &str, path: String, acks: AckContainers) {
        self.post(now, PostId::Ack(id), peer, Body::Ack { path, acks });
    }

    /// Asks the foreign KME durably to void keys.
    pub(super) fn post_void(&mut self, now: Time, id: KeyId, parties: Parties, mut ids: Vec<KeyId>) {
        ids.retain(|key| !self.voids.contains_key(key));
        if ids.is_empty() {
            return;
        }
        self.journal.change(record::put_void_post(id, &parties, &ids));
        self.restore_void(now, id, parties, ids);
    }

    /// A request to void that is durable already.
    pub(super) fn restore_void(&mut self, now: Time, id: KeyId, parties: Parties, ids: Vec<KeyId>) {
        let post = PostId::Void(id);
        self.voids.extend(ids.iter().map(|key| (*key, post)));
        let peer = parties.peer.clone();
        self.post(now, post, &peer, Body::Void { parties, open: ids.into_iter().collect() });
    }

    fn post(&mut self, now: Time, id: PostId, peer: &str, body: Body) {
        let give_up = now.after(self.config.post_give_up);
        self.unpost(id);
        self.posts.insert(id, Post { peer: peer.to_owned(), body, attempts: 0, due: None, give_up });
        self.call(id);
    }

    /// Drops an entry; a call of it that is under way counts for nothing any more.
    pub(super) fn unpost(&mut self, id: PostId) {
        if let Some(due) = self.posts.remove(&id).and_then(|post| post.due) {
            self.timers.remove(&(due, Timer::Post(id)));
        }
    }

    /// Whether a call of this entry is under way.
    fn is_called(&self, id: PostId) -> bool {
        self.calls.values().any(|(post, _)| *post == id)
    }

    fn call(&mut self, id: PostId) {
        let Some(post) = self.posts.get(&id) else { return };
        let peer = post.peer.clone();
        if self.is_called(id) {
            // Its answer decides.
            return;
        }
        let queue = self.queues.entry(peer.clone()).or_default();
        if queue.busy >= self.config.calls_max {
            if !queue.ready.contains(&id) {
                queue.ready.push_back(id);
            }
            return;
        }
        let Some((path, body)) = self.request_of(id) else { return };
        self.queues.entry(peer.clone()).or_default().busy += 1;
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.calls.insert(call, (id, peer.clone()));
        self.journal.effect(Output::Call { call, peer, path, body });
    }

    fn request_of(&self, id: PostId) -> Option<(String, SecretBytes)> {
        let post = self.posts.get(&id)?;
        match (&post.body, id) {
            (Body::Transfer, PostId::Transfer(export)) => self.transfer_request(export),
            (Body::Ack { path, acks }, _) => Some((path.clone(), SecretBytes::from_vec(acks.to_json()))),
            (Body::Void { parties, open }, _) => {
                let container = VoidContainer {
                    key_ids: open.iter().copied().collect(),
                    initiator: parties.initiator.clone(),
                    targets: parties.targets.clone(),
                    ack_callback_url: Some(self.config.peers.get(&post.peer)?.callback.clone()),
                    extension: None,
                    all_confirmation: None,
                };
                Some((VOID_PATH.to_owned(), SecretBytes::from_vec(container.to_json())))
            }
            (Body::Transfer, _) => None,
        }
    }

    pub(super) fn post_due(&mut self, now: Time, id: PostId, rng: &mut impl CryptoRng) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        post.due = None;
        if now < post.give_up {
            return self.call(id);
        }
        match id {
            PostId::Transfer(export) => self.give_up_export(now, export),
            PostId::Ack(_) => self.ack_refused(now, id, rng),
            PostId::Void(_) => self.void_ended(id),
        }
    }

    pub(super) fn answered(&mut self, now: Time, call: CallId, answer: Answer, rng: &mut impl CryptoRng) {
        let Some((id, peer)) = self.calls.remove(&call) else { return };
        let queue = self.queues.entry(peer.clone()).or_default();
        queue.busy = queue.busy.saturating_sub(1);
        if !matches!(answer, Answer::Status(200..=299, _)) {
            self.counters.calls_failed += 1;
        }
        if self.posts.contains_key(&id) {
            match id {
                PostId::Transfer(export) => self.transfer_answered(now, export, &answer),
                PostId::Ack(post) => self.ack_answered(now, post, &answer, rng),
                PostId::Void(_) => self.void_answered(now, id, &answer),
            }
        }
        while let Some(queue) = self.queues.get_mut(&peer)
            && queue.busy < self.config.calls_max
            && let Some(next) = queue.ready.pop_front()
        {
            self.call(next);
        }
    }

    /// Sends an entry again later.
    pub(super) fn post_again(&mut self, now: Time, id: PostId) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        let wait = backoff(&self.config, post.attempts);
        post.attempts += 1;
        Self::schedule(&mut self.timers, post, id, now.after(wait));
    }

    /// Sends an entry again if no acknowledgement comes.
    pub(super) fn post_waits(&mut self, now: Time, id: PostId) {
        let at = now.after(self.config.ack_wait);
        if let Some(post) = self.posts.get_mut(&id) {
            Self::schedule(&mut self.timers, post, id, at);
        }
    }

    fn schedule(timers: &mut BTreeSet<(Time, Timer)>, post: &mut Post, id: PostId, at: Time) {
        if let Some(due) = post.due.replace(at) {
            timers.remove(&(due, Timer::Post(id)));
        }
        timers.insert((at, Timer::Post(id)));
    }

    fn ack_answered(&mut self, now: Time, post: KeyId, answer: &Answer, rng: &mut impl CryptoRng) {
        match answer {
            Answer::Status(200..=299, _) => {
                self.journal.change(record::delete(Kind::AckPost, post));
                self.unpost(PostId::Ack(post));
            }
            Answer::Status(400, _) => self.ack_refused(now, PostId::Ack(post), rng),
            _ => self.post_again(now, PostId::Ack(post)),
        }
    }

    /// The foreign KME does not take an acknowledgement: what it says was relayed is voided here and there.
    fn ack_refused(&mut self, now: Time, id: PostId, rng: &mut impl CryptoRng) {
        let Some(Post { peer, body: Body::Ack { acks, .. }, .. }) = self.posts.get(&id) else { return };
        let (peer, acks) = (peer.clone(), acks.clone());
        let PostId::Ack(post) = id else { return };
        self.journal.change(record::delete(Kind::AckPost, post));
        self.unpost(id);
        for ack in acks.0.into_iter().filter(|ack| ack.status == AckStatus::Relayed) {
            let parties = Parties { peer: peer.clone(), initiator: ack.initiator, targets: ack.targets };
            let ids: Vec<_> = ack.keys.iter().map(|key| key.id).collect();
            self.post_void(now, random_id(rng), parties.clone(), ids.clone());
            self.start_void_job(now, parties, None, None, ids, rng);
        }
    }

    fn void_answered(&mut self, now: Time, id: PostId, answer: &Answer) {
        match answer {
            Answer::Status(200, body) => {
                let acks = AckContainers::parse(body).unwrap_or_default();
                for ack in &acks.0 {
                    ack.keys.iter().for_each(|key| self.void_acked(key.id, id, ack.status));
                }
                self.post_again(now, id);
            }
            Answer::Status(201..=299, _) => self.post_waits(now, id),
            _ => self.post_again(now, id),
        }
    }

    /// The foreign KME told the fate of a key that it was asked to void.
    pub(super) fn void_acked(&mut self, key: KeyId, id: PostId, status: AckStatus) {
        let is_final = matches!(status, AckStatus::Voided | AckStatus::FailedToVoid | AckStatus::KeyNotPresent);
        let Some(Post { body: Body::Void { open, .. }, .. }) = self.posts.get_mut(&id) else { return };
        if !is_final || !open.remove(&key) {
            return;
        }
        self.voids.remove(&key);
        if open.is_empty() {
            self.void_ended(id);
        }
    }

    fn void_ended(&mut self, id: PostId) {
        let PostId::Void(post) = id else { return };
        if let Some(Post { body: Body::Void { open, .. }, .. }) = self.posts.get(&id) {
            open.iter().for_each(|key| _ = self.voids.remove(key));
        }
        self.journal.change(record::delete(Kind::VoidPost, post));
        self.unpost(id);
    }

    /// Whether this entry goes to that foreign KME.
    pub(super) fn is_posted_to(&self, id: PostId, peer: &str) -> bool {
        self.posts.get(&id).is_some_and(|post| post.peer == peer)
    }
}

/// One container per status.
pub(super) fn acks_of(parties: &Parties, fates: impl Iterator<Item = (KeyId, AckStatus)>) -> AckContainers {
    let mut by_status: std::collections::BTreeMap<AckStatus, Vec<KeyEntry>> = std::collections::BTreeMap::new();
    for (id, status) in fates {
        by_status.entry(status).or_default().push(KeyEntry { id, extension: None });
    }
    let container = |(status, keys)| AckContainer {
        keys,
        status,
        initiator: parties.initiator.clone(),
        targets: parties.targets.clone(),
        message: None,
        extension: None,
    };
    AckContainers(by_status.into_iter().map(container).collect())
}
