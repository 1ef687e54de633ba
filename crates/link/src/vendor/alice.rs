//! Alice's half: takes keys from her device, offers them, commits what Bob fetched.

use core::time::Duration;
use std::collections::BTreeSet;

use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagVerified};
use types::id::KeyId;
use types::units::{BitLen, Time};
use zeroize::Zeroizing;

use super::durable::{self, Pending, refill_len};
use super::message::{Answer, Commit, Message, Offer};
use super::shared::{COMMIT_TAGS, Shared, backoff, refill, split};
use super::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCK_KEYS_MAX, DeviceStatus, Output, VendorBlock, VendorCause, VendorRecord,
};
use crate::error::{Error, Misbehaviour};

/// Alice's state beside what both roles have.
pub(super) struct Alice {
    state: State,
    pool: Option<BitLen>,
    /// Offers in a row that made no key.
    setbacks: u32,
    /// That the reserve is used up was reported.
    alarmed: bool,
}

enum State {
    /// Takes keys from the device.
    Gathering(Gathering),
    /// Waits until Bob has fetched the same.
    Offered(Gathering),
    /// Waits for Bob's decision.
    Committed(Pending),
}

/// Keys of the device for one block.
#[derive(Default)]
struct Gathering {
    keys: Vec<(KeyId, SecretBytes)>,
    bytes: usize,
    /// What the device said last, less what was taken since.
    status: Option<DeviceStatus>,
    /// Keys and bits of each that were asked for last.
    asked: (u32, u32),
    /// Most keys in one request.
    per_request: u16,
}

enum Next {
    Take(u32),
    Offer,
    Wait,
}

impl Alice {
    pub(super) fn new(pending: Option<Pending>) -> Self {
        let state = pending.map_or_else(|| State::Gathering(Gathering::default()), State::Committed);
        Self { state, pool: None, setbacks: 0, alarmed: false }
    }

    pub(super) fn has_pending(&self) -> bool {
        matches!(self.state, State::Committed(_))
    }

    pub(super) fn pool_level(&mut self, bits: BitLen) {
        self.pool = Some(bits);
    }

    /// Says again, on a new connection, what was said last.
    pub(super) fn resume(&mut self, shared: &mut Shared) {
        match &self.state {
            State::Gathering(_) => {}
            State::Offered(gathering) => gathering.offer(shared),
            State::Committed(pending) => send_commit(shared, pending),
        }
    }

    /// Asks the device for what is wanted next.
    pub(super) fn advance(&mut self, shared: &mut Shared, now: Time) {
        let wants = self.wants(shared);
        let State::Gathering(gathering) = &mut self.state else { return };
        if !shared.device.free(now) {
            return;
        }
        if !wants {
            gathering.status = None;
            if shared.device.status_due(now) {
                shared.ask_status(now);
            }
            return;
        }
        let Some(status) = gathering.status else { return shared.ask_status(now) };
        let want = if self.setbacks > 0 { BLOCK_BYTES_MIN } else { shared.config.block_bytes };
        match gathering.next(want, status) {
            Next::Take(number) => {
                gathering.asked = (number, status.key_bits);
                shared.fetch_new(number, status.key_bits);
            }
            Next::Offer => {
                gathering.offer(shared);
                self.state = State::Offered(core::mem::take(gathering));
            }
            Next::Wait => {
                gathering.status = None;
                shared.device.pause(now, STOCK_POLL);
                shared.device.wake = Some(now.after(STOCK_POLL));
            }
        }
    }

    fn wants(&mut self, shared: &mut Shared) -> bool {
        let low = self.pool.is_some_and(|bits| bits < shared.config.pool_target);
        if !(low && shared.online()) || shared.backlog() {
            return false;
        }
        let enough = shared.reserve_suffices();
        if !enough && !self.alarmed {
            let suspicion = "authentication key used up";
            let evidence = "too many blocks failed; the link needs a new initial key at both ends".to_owned();
            shared.put(Output::Alarm { suspicion, evidence });
        }
        self.alarmed = !enough;
        enough
    }

    pub(super) fn status(&mut self, shared: &mut Shared, now: Time, status: DeviceStatus) {
        let State::Gathering(gathering) = &mut self.state else { return };
        let sound =
            status.key_bits.is_multiple_of(8) && KEY_BITS.contains(&status.key_bits) && status.keys_per_request_max > 0;
        if sound {
            gathering.status = Some(status);
        } else {
            shared.device.pause(now, STOCK_POLL);
        }
    }

    pub(super) fn device_failed(&mut self) {
        if let State::Gathering(gathering) = &mut self.state {
            gathering.status = None;
        }
    }

    /// Takes what the device delivered, if it is what was asked for.
    pub(super) fn fetched(&mut self, shared: &mut Shared, now: Time, keys: Vec<(KeyId, SecretBytes)>) {
        let State::Gathering(gathering) = &mut self.state else { return };
        let bytes: usize = keys.iter().map(|(_, key)| key.len()).sum();
        if gathering.accepts(&keys) && gathering.bytes + bytes <= BLOCK_BYTES_MAX {
            let taken = keys.len() as u64;
            gathering.per_request = gathering.per_request.max(u16::try_from(gathering.asked.0).unwrap_or(u16::MAX));
            gathering.bytes += bytes;
            gathering.keys.extend(keys);
            if let Some(status) = &mut gathering.status {
                status.stored_keys = status.stored_keys.saturating_sub(taken);
            }
        } else {
            let lost = bytes + gathering.bytes;
            self.give_up(shared, now, VendorCause::WrongKeys, lost);
        }
    }

    pub(super) fn handle(&mut self, shared: &mut Shared, now: Time, message: Message) -> Result<(), Error> {
        let next = shared.next_block;
        match (&mut self.state, message) {
            (State::Offered(gathering), Message::Fetched { block }) if block == next => {
                let gathering = core::mem::take(gathering);
                self.commit(shared, gathering)
            }
            (State::Offered(gathering), Message::Missing { block, cause }) if block == next => {
                let lost = gathering.bytes;
                self.give_up(shared, now, cause, lost);
                Ok(())
            }
            // Without a tag, and Bob's answer will follow; somebody may have feigned that he had fetched.
            (State::Committed(_), Message::Fetched { .. } | Message::Missing { .. }) => Ok(()),
            (State::Committed(pending), Message::Answer(answer)) if answer.block == pending.block => {
                self.answered(shared, now, &answer)
            }
            (State::Gathering(_), message) => {
                Err(Misbehaviour::OutOfOrder { got: message.name(), state: "gathering keys" }.into())
            }
            (State::Offered(_), message) => {
                Err(Misbehaviour::OutOfOrder { got: message.name(), state: "waiting for Bob's fetch" }.into())
            }
            (State::Committed(_), message) => {
                Err(Misbehaviour::OutOfOrder { got: message.name(), state: "waiting for Bob's decision" }.into())
            }
        }
    }

    /// Gives the block its number, makes it durable, and says so.
    fn commit(&mut self, shared: &mut Shared, gathering: Gathering) -> Result<(), Error> {
        if !shared.reserve_suffices() {
            self.state = State::Offered(gathering);
            return Err(Error::Exhausted { what: "authentication key" });
        }
        let block = shared.next_block;
        shared.count_block()?;
        let counter = shared.sending.marks().next;
        shared.sending.spend(counter + COMMIT_TAGS);
        let keys = u32::try_from(gathering.keys.len()).expect("a block has few keys");
        let key = gathering.join();
        let refill = refill([shared.sending.left(), shared.receiving.left() - 1], key.len());
        let pending = Pending { block, counter, refill, keys, key };
        let changes = vec![shared.state_change(None), durable::put_pending(&shared.config.link, &pending)];
        shared.persist(changes);
        send_commit(shared, &pending);
        self.state = State::Committed(pending);
        Ok(())
    }

    /// Does what Bob decided.
    fn answered(&mut self, shared: &mut Shared, now: Time, answer: &Answer) -> Result<(), Error> {
        let _verified: TagVerified = shared.check_answer(answer)?;
        let gathering = State::Gathering(Gathering::default());
        let State::Committed(pending) = core::mem::replace(&mut self.state, gathering) else { return Ok(()) };
        let link = shared.config.link.clone();
        let Pending { block, refill, keys, key, .. } = pending;
        let mut record = VendorRecord {
            block,
            keys,
            secret: BitLen(8 * key.len() as u64),
            kept: BitLen(8 * refill_len(refill) as u64),
            given_up: answer.refused,
        };
        shared.receiving.spend(answer.counter + 1);
        let mut changes = Vec::new();
        match answer.refused {
            None => {
                let ([ours, theirs], key) = split(key, refill).expect("a refill is at most half of its block");
                changes.extend(shared.sending.append(&link, ours));
                changes.extend(shared.receiving.append(&link, theirs));
                let block = VendorBlock { seq: block, key, record };
                changes.push(durable::put_committed(&link, &block));
                self.finish(shared, changes);
                shared.hand_over(block);
                self.setbacks = 0;
            }
            Some(cause) => {
                record.kept = BitLen(0);
                changes.push(durable::delete_block(&link, block));
                self.finish(shared, changes);
                shared.put(Output::Aborted(record));
                if cause == VendorCause::DifferentBits {
                    shared.put(Output::Alarm { suspicion: DIFFERENT, evidence: evidence(&record) });
                }
                self.set_back(shared, now);
            }
        }
        Ok(())
    }

    /// Makes the end of a block durable.
    fn finish(&self, shared: &mut Shared, mut changes: Vec<crypto::record::Change>) {
        let link = shared.config.link.clone();
        let spent = [shared.sending.marks().next, shared.receiving.marks().next];
        changes.extend(shared.sending.destroy_spent(&link, spent[0]));
        changes.extend(shared.receiving.destroy_spent(&link, spent[1]));
        changes.push(shared.state_change(None));
        shared.persist(changes);
    }

    /// Drops keys that have no number yet.
    fn give_up(&mut self, shared: &mut Shared, now: Time, cause: VendorCause, lost: usize) {
        self.state = State::Gathering(Gathering::default());
        shared.dropped(cause, lost);
        self.set_back(shared, now);
    }

    fn set_back(&mut self, shared: &mut Shared, now: Time) {
        self.setbacks = self.setbacks.saturating_add(1);
        shared.device.pause(now, backoff(self.setbacks, SETBACK_PAUSE_MAX));
    }
}

impl Gathering {
    /// What to do to have `want` bytes.
    fn next(&self, want: usize, status: DeviceStatus) -> Next {
        let key_bytes = usize::try_from(status.key_bits / 8).unwrap_or(usize::MAX);
        let stored = usize::try_from(status.stored_keys).unwrap_or(usize::MAX);
        let within_reach = self.bytes.saturating_add(stored.saturating_mul(key_bytes));
        let room = ((BLOCK_BYTES_MAX - self.bytes) / key_bytes).min(BLOCK_KEYS_MAX - self.keys.len());
        let number = want.saturating_sub(self.bytes).div_ceil(key_bytes).min(stored).min(room);
        if within_reach < BLOCK_BYTES_MIN {
            return Next::Wait;
        }
        if number == 0 {
            return if self.bytes >= BLOCK_BYTES_MIN { Next::Offer } else { Next::Wait };
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Next::Take(u32::try_from(status.keys_per_request_max).unwrap_or(u32::MAX).min(number))
    }

    /// Whether the device delivered what was asked for, and no id twice.
    fn accepts(&self, keys: &[(KeyId, SecretBytes)]) -> bool {
        let (number, key_bits) = self.asked;
        let ids: BTreeSet<_> = self.keys.iter().chain(keys).map(|(id, _)| *id).collect();
        (1..=number).contains(&u32::try_from(keys.len()).unwrap_or(u32::MAX))
            && keys.iter().all(|(_, key)| u32::try_from(8 * key.len()) == Ok(key_bits))
            && ids.len() == self.keys.len() + keys.len()
    }

    fn offer(&self, shared: &mut Shared) {
        let offer = Offer {
            block: shared.next_block,
            bytes: u32::try_from(self.bytes).expect("a block is small"),
            per_request: self.per_request,
            ids: self.keys.iter().map(|(id, _)| *id).collect(),
        };
        shared.send(&Message::Offer(offer));
    }

    fn join(self) -> SecretBytes {
        join(self.keys.iter().map(|(_, key)| key), self.bytes)
    }
}

/// One key from several.
pub(super) fn join<'a>(keys: impl Iterator<Item = &'a SecretBytes>, bytes: usize) -> SecretBytes {
    // Reserved in full, so that growing leaves no copy behind.
    let mut joined = Zeroizing::new(Vec::with_capacity(bytes));
    keys.for_each(|key| key.expose(|key| joined.extend_from_slice(key)));
    SecretBytes::from_vec(core::mem::take(&mut *joined))
}

/// What an alarm about disagreeing devices says.
pub(super) fn evidence(record: &VendorRecord) -> String {
    format!("block {}: {} keys, {} bits", record.block, record.keys, record.secret.0)
}

fn send_commit(shared: &mut Shared, pending: &Pending) {
    let empty = Tag([0; Tag::LEN]);
    let Pending { block, counter, refill, .. } = *pending;
    let commit = shared.tag_commit(Commit { block, counter, refill, comparison: empty, tag: empty }, &pending.key);
    shared.send_when_durable(&Message::Commit(commit));
}

/// Name of the alarm when the devices disagree.
pub(super) const DIFFERENT: &str = "devices disagree";
/// Sizes of a device's keys that a block can be made of.
const KEY_BITS: core::ops::RangeInclusive<u32> = 64..=65_536;
/// How soon a device that had too little is asked again.
const STOCK_POLL: Duration = Duration::from_secs(2);
/// Longest pause after blocks that failed.
const SETBACK_PAUSE_MAX: Duration = Duration::from_secs(3_600);
