//! Bob's half: collects from his device what Alice offers, compares, decides.

use crypto::secret::SecretBytes;
use crypto::tag::TagVerified;
use types::id::KeyId;
use types::units::{BitLen, Time};

use super::alice::{DIFFERENT, evidence, join};
use super::durable::{self, Decision, refill_len};
use super::message::{Commit, Message, Offer};
use super::shared::{COMMIT_TAGS, Shared, backoff, split};
use super::{DeviceFault, Output, VendorBlock, VendorCause, VendorRecord};
use crate::error::{Error, Misbehaviour};

/// Bob's state beside what both roles have.
pub(super) struct Bob {
    state: State,
    /// Whether Alice has offered on this connection what he fetches or holds: after a restart she offers other keys, and
    /// must not hear of the old ones.
    awaited: bool,
    /// A commit whose tag holds, on which he cannot decide before the device has answered.
    commit: Option<(Commit, TagVerified)>,
    /// His last decision, durable.
    decision: Option<Decision>,
}

enum State {
    Idle,
    Fetching(Fetching),
    /// The device delivered all of it.
    Held {
        offer: Offer,
        key: SecretBytes,
    },
}

struct Fetching {
    offer: Offer,
    /// Keys of the first ids, in their order.
    got: Vec<SecretBytes>,
    /// How often the device did not know the ids.
    tries: u32,
}

impl Bob {
    pub(super) fn new(decision: Option<Decision>) -> Self {
        Self { state: State::Idle, awaited: false, commit: None, decision }
    }

    /// What was fetched is kept: Alice offers the same again.
    pub(super) fn disconnect(&mut self) {
        self.awaited = false;
        self.commit = None;
    }

    /// Asks the device for what is wanted next.
    pub(super) fn advance(&mut self, shared: &mut Shared, now: Time) {
        if !shared.device.free(now) {
            return;
        }
        if let State::Fetching(fetching) = &self.state {
            shared.fetch_by_id(fetching.asked().to_vec());
        } else if shared.device.status_due(now) {
            shared.ask_status(now);
        }
    }

    pub(super) fn handle(&mut self, shared: &mut Shared, now: Time, message: Message) -> Result<(), Error> {
        match message {
            Message::Offer(offer) if offer.block == shared.next_block && self.commit.is_none() => {
                self.offered(shared, offer);
                Ok(())
            }
            Message::Commit(commit) if commit.block == shared.next_block && self.commit.is_none() => {
                self.committed(shared, now, commit)
            }
            Message::Commit(commit) => match self.decision {
                Some(decision) if decision.block == commit.block => {
                    shared.send_when_durable(&Message::Answer(shared.tag_answer(decision)));
                    Ok(())
                }
                _ => Err(Misbehaviour::Contradiction { field: "block number" }.into()),
            },
            Message::Offer(_) => Err(Misbehaviour::Contradiction { field: "block number" }.into()),
            message => Err(Misbehaviour::OutOfOrder { got: message.name(), state: "waiting for an offer" }.into()),
        }
    }

    fn offered(&mut self, shared: &mut Shared, offer: Offer) {
        let block = offer.block;
        self.awaited = true;
        match &self.state {
            State::Held { offer: known, .. } if *known == offer => return shared.send(&Message::Fetched { block }),
            State::Fetching(fetching) if fetching.offer == offer => return,
            _ => {}
        }
        self.drop_keys(shared, VendorCause::Superseded);
        shared.device.forget();
        if shared.backlog() {
            shared.send(&Message::Missing { block, cause: VendorCause::Backlog });
        } else {
            self.state = State::Fetching(Fetching { offer, got: Vec::new(), tries: 0 });
        }
    }

    /// Takes what the device delivered, if it is what was asked for.
    pub(super) fn fetched(&mut self, shared: &mut Shared, now: Time, keys: Vec<(KeyId, SecretBytes)>) {
        let State::Fetching(fetching) = &mut self.state else { return };
        let asked = fetching.asked().to_vec();
        let mut keys: std::collections::BTreeMap<_, _> = keys.into_iter().collect();
        let complete = keys.len() == asked.len();
        fetching.got.extend(asked.iter().filter_map(|id| keys.remove(id)));
        let (got, bytes) = (fetching.got.len(), fetching.got.iter().map(SecretBytes::len).sum::<usize>());
        let wanted = usize::try_from(fetching.offer.bytes).unwrap_or(usize::MAX);
        if !(complete && keys.is_empty()) || bytes > wanted {
            return self.missing(shared, now, VendorCause::WrongKeys);
        }
        if got < fetching.offer.ids.len() {
            return;
        }
        if bytes != wanted {
            return self.missing(shared, now, VendorCause::WrongKeys);
        }
        let key = join(fetching.got.iter(), bytes);
        let block = fetching.offer.block;
        self.state = State::Held { offer: fetching.offer.clone(), key };
        if self.commit.is_some() {
            self.decide(shared, now, VendorCause::Lost);
        } else if self.awaited {
            shared.send(&Message::Fetched { block });
        }
    }

    pub(super) fn device_failed(&mut self, shared: &mut Shared, now: Time, fault: DeviceFault) {
        let State::Fetching(fetching) = &mut self.state else { return };
        if fault == DeviceFault::Unknown {
            // Devices may need a moment to tell each other of a key.
            fetching.tries += 1;
            if fetching.tries < UNKNOWN_TRIES {
                shared.device.pause(now, backoff(fetching.tries, UNKNOWN_PAUSE_MAX));
            } else {
                self.missing(shared, now, VendorCause::UnknownIds);
            }
        }
    }

    /// The keys cannot be had. Says so, under a tag if Alice has committed already.
    fn missing(&mut self, shared: &mut Shared, now: Time, cause: VendorCause) {
        self.drop_keys(shared, cause);
        if self.commit.is_some() {
            self.decide(shared, now, cause);
        } else if self.awaited {
            shared.send(&Message::Missing { block: shared.next_block, cause });
        }
    }

    fn committed(&mut self, shared: &mut Shared, now: Time, commit: Commit) -> Result<(), Error> {
        let verified = shared.check_commit(&commit)?;
        if shared.sending.left() == 0 {
            return Err(Error::Exhausted { what: "authentication key" });
        }
        self.commit = Some((commit, verified));
        if !matches!(self.state, State::Fetching(_)) {
            self.decide(shared, now, VendorCause::Lost);
        }
        Ok(())
    }

    /// Decides on the block for good, makes that durable, and answers. `missing` is the cause if there is no key.
    fn decide(&mut self, shared: &mut Shared, now: Time, missing: VendorCause) {
        let Some((commit, verified)) = self.commit.take() else { return };
        let link = shared.config.link.clone();
        let block = commit.block;
        let (keys, key) = match core::mem::replace(&mut self.state, State::Idle) {
            State::Held { offer, key } => (u32::try_from(offer.ids.len()).unwrap_or(u32::MAX), Some(key)),
            _ => (0, None),
        };
        let mut record = VendorRecord { block, keys, secret: BitLen(0), kept: BitLen(0), given_up: Some(missing) };
        let parts = key.and_then(|key| {
            record.secret = BitLen(8 * key.len() as u64);
            record.given_up = Some(VendorCause::DifferentBits);
            if shared.same_key(&commit, &key, verified) { split(key, commit.refill) } else { None }
        });
        if parts.is_some() {
            record.given_up = None;
            record.kept = BitLen(8 * refill_len(commit.refill) as u64);
        }
        let counter = shared.sending.marks().next;
        shared.receiving.spend(commit.counter + COMMIT_TAGS);
        shared.sending.spend(counter + 1);
        let spent = shared.receiving.marks().next;
        let mut changes = shared.receiving.destroy_spent(&link, spent);
        // The pad of this answer stays until the next one.
        changes.extend(shared.sending.destroy_spent(&link, counter));
        if shared.count_block().is_err() {
            return;
        }
        let decision = Decision { block, counter, refused: record.given_up };
        self.decision = Some(decision);
        let filed = parts.map(|([theirs, ours], key)| {
            changes.extend(shared.receiving.append(&link, theirs));
            changes.extend(shared.sending.append(&link, ours));
            let block = VendorBlock { seq: block, key, record };
            changes.push(durable::put_committed(&link, &block));
            block
        });
        changes.push(shared.state_change(Some(decision)));
        shared.persist(changes);
        if shared.online() {
            shared.send_when_durable(&Message::Answer(shared.tag_answer(decision)));
        }
        match filed {
            Some(block) => shared.hand_over(block),
            None => shared.put(Output::Aborted(record)),
        }
        if record.given_up == Some(VendorCause::DifferentBits) {
            shared.put(Output::Alarm { suspicion: DIFFERENT, evidence: evidence(&record) });
        }
        // The device is asked at once for the next.
        shared.device.pause(now, core::time::Duration::ZERO);
    }

    fn drop_keys(&mut self, shared: &mut Shared, cause: VendorCause) {
        let bytes = match core::mem::replace(&mut self.state, State::Idle) {
            State::Idle => 0,
            State::Fetching(fetching) => fetching.got.iter().map(SecretBytes::len).sum(),
            State::Held { key, .. } => key.len(),
        };
        shared.dropped(cause, bytes);
    }
}

impl Fetching {
    /// The ids of the next request.
    fn asked(&self) -> &[KeyId] {
        let rest = &self.offer.ids[self.got.len()..];
        &rest[..rest.len().min(usize::from(self.offer.per_request))]
    }
}

/// How often a device may say that it does not know ids before they are given up.
const UNKNOWN_TRIES: u32 = 4;
const UNKNOWN_PAUSE_MAX: core::time::Duration = core::time::Duration::from_secs(4);
