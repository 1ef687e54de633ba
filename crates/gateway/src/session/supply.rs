//! Top-up: the gateway orders keys and offers their ids, the terminal collects, both install.

use std::time::Duration;

use crypto::record::Change;
use crypto::secret::SecretBytes;
use crypto::tag::Tag;
use terminal::access::{OPENING_LEN, batch_check};
use terminal::control::{BatchUse, Control, OFFER_IDS_MAX};
use terminal::record::batch_number;
use terminal::suite::UNIT;
use terminal::{Direction, Strength};
use types::event::Event;
use types::id::{BatchId, KeyId, RequestId};
use types::units::{BitLen, ByteLen, Time};

use super::{Output, RequestPurpose, Session, State};
use crate::pools::Role;

/// Batches held for one direction, at most; an inventory must fit into one access frame.
const BATCHES_MAX: usize = 400;
/// The least that is worth an order: a batch spends 32 B on its check value.
const ORDER_LEN_MIN: u64 = 256;
/// Bytes of a batch that its check value spends.
const CHECK_LEN: u64 = 32;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// State of the top-up at one end. One batch is under way at a time.
#[derive(Debug)]
pub(super) struct Supply {
    now: Stage,
    not_before: Time,
    retry: Duration,
    keys_max: Option<u32>,
    installed: u64,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// Gateway: keys are ordered.
    Ordering {
        request: RequestId,
        purpose: BatchUse,
        direction: Direction,
    },
    /// Gateway: the terminal was told.
    Offered {
        batch: BatchId,
        purpose: BatchUse,
        key: SecretBytes,
        until: Time,
    },
    /// Terminal: keys are being collected.
    Collecting {
        request: RequestId,
        batch: BatchId,
        purpose: BatchUse,
        check: Tag,
    },
    /// Terminal: the batch is being written.
    Writing {
        seq: u64,
        batch: BatchId,
        purpose: BatchUse,
        key: SecretBytes,
    },
}

impl Supply {
    pub(super) fn new(now: Time) -> Self {
        Self { now: Stage::Idle, not_before: now, retry: RETRY_MIN, keys_max: None, installed: 0 }
    }

    pub(super) fn installed(&self) -> u64 {
        self.installed
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        match &self.now {
            Stage::Idle => Some(self.not_before),
            Stage::Offered { until, .. } => Some(*until),
            _ => None,
        }
    }

    fn failed(&mut self, now: Time) {
        self.now = Stage::Idle;
        self.not_before = now.after(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

impl Session {
    /// Gateway: orders keys if a pool wants them.
    pub(super) fn order_keys(&mut self, now: Time) {
        if self.role != Role::Gateway {
            return;
        }
        if let Stage::Offered { until, .. } = &self.supply.now
            && now >= *until
        {
            self.supply.failed(now);
        }
        if !matches!(self.supply.now, Stage::Idle) || now < self.supply.not_before {
            return;
        }
        let Some((purpose, direction, number)) = self.wish() else {
            self.supply.not_before = now.after(RETRY_MIN);
            return;
        };
        let request = self.next_request();
        let size = BitLen::from(self.config.supply.key_len);
        self.supply.now = Stage::Ordering { request, purpose, direction };
        self.outputs.push_back(Output::OrderKeys { request, purpose: RequestPurpose::TopUp, number, size });
    }

    /// What to order next: a nearly empty direction, then slots for openings, then the lower direction.
    fn wish(&self) -> Option<(BatchUse, Direction, u32)> {
        let ByteLen(key_len) = self.config.supply.key_len;
        let capacity = self.config.policy.capacity;
        let keys_max = self.supply.keys_max.unwrap_or(u32::MAX).min(self.config.supply.keys_max);
        let keys_max = u64::from(keys_max).min(OFFER_IDS_MAX as u64);
        let stocks = [(Direction::Down, self.send_stock()), (Direction::Up, self.pools.receive_stock())];
        // Small batches waste key on check values: wait until a good one fits.
        let least = (keys_max * key_len).min(capacity / 8).max(ORDER_LEN_MIN);
        let room = |direction: &(Direction, u64)| {
            let keys = (capacity.saturating_sub(direction.1) / key_len).min(keys_max);
            (keys * key_len >= least && self.pools.batch_count(direction.0) < BATCHES_MAX).then_some(keys)
        };
        let lowest = stocks.iter().filter(|stock| room(stock).is_some()).min_by_key(|(_, stock)| *stock);
        let slots = u64::from(self.config.supply.opening_slots);
        let low = lowest.is_some_and(|(_, stock)| *stock < capacity / 4);
        if !low && (self.pools.opening_slots() as u64) * 2 < slots.max(1) && slots > 0 {
            let keys = (slots * OPENING_LEN as u64 + CHECK_LEN).div_ceil(key_len).min(keys_max);
            if keys * key_len >= OPENING_LEN as u64 + CHECK_LEN {
                return Some((BatchUse::Openings, Direction::Down, u32::try_from(keys).ok()?));
            }
        }
        let stock = lowest?;
        Some((BatchUse::Records, stock.0, u32::try_from(room(stock)?).ok()?))
    }

    /// Gateway: keys came, or not.
    pub(super) fn handle_ordered(
        &mut self,
        now: Time,
        request: RequestId,
        mut keys: Result<Vec<(KeyId, SecretBytes)>, String>,
    ) {
        if self.opening_ordered(request, &mut keys) {
            return;
        }
        let Stage::Ordering { request: ours, purpose, direction } = self.supply.now else { return };
        if ours != request || !matches!(self.state, State::Open(_)) {
            return;
        }
        let Ok(keys) = keys else {
            // A short stock may still give fewer keys.
            let asked = self.supply.keys_max.unwrap_or(self.config.supply.keys_max);
            self.supply.keys_max = Some((asked / 2).max(8));
            return self.supply.failed(now);
        };
        let (ids, bytes): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        let Some((key, check)) = make_batch(&bytes, purpose) else { return self.supply.failed(now) };
        let number = self.pools.highest() + 1;
        let batch = direction.batch(number);
        let change = self.pools.raise_highest(number);
        self.commit(vec![change]);
        self.supply.now = Stage::Offered { batch, purpose, key, until: now.after(ANSWER_TIMEOUT) };
        self.send_control(now, &Control::Offer { batch, purpose, check, ids });
    }

    /// Terminal: the gateway named keys.
    pub(super) fn handle_offer(&mut self, now: Time, batch: BatchId, purpose: BatchUse, check: Tag, ids: Vec<KeyId>) {
        let reason = if self.role != Role::Terminal {
            "only the gateway offers keys"
        } else if !matches!(self.supply.now, Stage::Idle) {
            "another batch is under way"
        } else if batch_number(batch) <= self.pools.highest() {
            "the batch number was used before"
        } else {
            let request = self.next_request();
            self.supply.now = Stage::Collecting { request, batch, purpose, check };
            self.outputs.push_back(Output::CollectKeys { request, ids });
            return;
        };
        self.send_control(now, &Control::Declined { batch, reason: reason.to_owned() });
    }

    /// Terminal: keys were collected, or not.
    pub(super) fn handle_collected(
        &mut self,
        now: Time,
        request: RequestId,
        mut keys: Result<Vec<SecretBytes>, String>,
    ) {
        if self.opening_collected(request, &mut keys) {
            return;
        }
        let Stage::Collecting { request: ours, batch, purpose, check } = self.supply.now else { return };
        if ours != request || !matches!(self.state, State::Open(_)) {
            return;
        }
        self.supply.now = Stage::Idle;
        let staged = keys.and_then(|keys| {
            let (key, ours) = make_batch(&keys, purpose).ok_or("the keys do not make a batch")?;
            if ours != check {
                return Err("the keys are not those of the gateway".to_owned());
            }
            let changes = self.pools.stage(batch, purpose, &key).map_err(|error| error.to_string())?;
            Ok((key, changes))
        });
        match staged {
            Ok((key, changes)) => {
                let seq = self.commit(changes).expect("a batch has records");
                self.supply.now = Stage::Writing { seq, batch, purpose, key };
            }
            Err(reason) => self.send_control(now, &Control::Declined { batch, reason }),
        }
    }

    /// Terminal: the batch is written.
    pub(super) fn staged_durable(&mut self, now: Time, seq: u64) {
        if !matches!(&self.supply.now, Stage::Writing { seq: ours, .. } if *ours <= seq) {
            return;
        }
        let Stage::Writing { batch, purpose, key, .. } = std::mem::replace(&mut self.supply.now, Stage::Idle) else {
            return;
        };
        match self.pools.install(batch, purpose, &key) {
            Ok(()) => {
                // First the word, then the use: the gateway can open nothing of a batch it does not know.
                self.send_control(now, &Control::Installed(batch));
                self.installed(batch, &key);
            }
            Err(error) => self.send_control(now, &Control::Declined { batch, reason: error.to_string() }),
        }
    }

    /// Gateway: the terminal installed the batch.
    pub(super) fn handle_installed(&mut self, now: Time, batch: BatchId) {
        match std::mem::replace(&mut self.supply.now, Stage::Idle) {
            Stage::Offered { batch: ours, purpose, key, .. } if ours == batch => {
                let changes: Result<Vec<Change>, _> = self.pools.stage(batch, purpose, &key);
                let installed = changes.and_then(|changes| {
                    self.commit(changes);
                    self.pools.install(batch, purpose, &key)
                });
                if installed.is_err() {
                    return self.close("a batch could not be installed");
                }
                self.installed(batch, &key);
                self.supply.not_before = now;
                self.supply.retry = RETRY_MIN;
                self.supply.keys_max = None;
            }
            stage => {
                self.supply.now = stage;
                // Too late: the offer was given up. The terminal may send under it, so the session cannot go on.
                self.close("the terminal installed a batch that is not on offer");
            }
        }
    }

    /// Gateway: the terminal did not install the batch.
    pub(super) fn handle_declined(&mut self, now: Time, batch: BatchId, reason: &str) {
        if matches!(&self.supply.now, Stage::Offered { batch: ours, .. } if *ours == batch) {
            let Stage::Offered { key, .. } = std::mem::replace(&mut self.supply.now, Stage::Idle) else { return };
            self.supply.failed(now);
            self.outputs.push_back(Output::Event(Event::KeyBurned {
                reason: format!("terminal {} declined batch {batch}: {reason}", self.config.terminal),
                bits: BitLen::from(ByteLen(key.len() as u64)),
            }));
        }
    }

    fn installed(&mut self, batch: BatchId, key: &SecretBytes) {
        self.supply.installed += 1;
        self.pad_late = false;
        self.outputs.push_back(Output::Event(Event::BatchCut {
            terminal: self.config.terminal.clone(),
            batch,
            bits: BitLen::from(ByteLen(key.len() as u64)),
        }));
    }

    /// Whether a class must wait for pad rather than go under an epoch key.
    pub(super) fn must_be_otp(&self, class: terminal::Class) -> bool {
        self.config.policy.floor.of(class) == Strength::InformationTheoretic
    }
}

/// The batch that keys make, without what its check value spends, and the check value.
fn make_batch(keys: &[SecretBytes], purpose: BatchUse) -> Option<(SecretBytes, Tag)> {
    let total: usize = keys.iter().map(SecretBytes::len).sum();
    let unit = match purpose {
        BatchUse::Records => usize::try_from(UNIT).ok()?,
        BatchUse::Openings => OPENING_LEN,
    };
    let check = usize::try_from(CHECK_LEN).ok()?;
    let len = total.checked_sub(check)? / unit * unit;
    let mut key = join(keys, check + len)?;
    let tag = batch_check(&mut key)?;
    Some((key, tag))
}

/// The first `len` bytes of keys one after another. `None` if there are fewer.
pub(super) fn join(keys: &[SecretBytes], len: usize) -> Option<SecretBytes> {
    let mut joined = SecretBytes::from_vec(vec![0; len]);
    let mut at = 0;
    for key in keys {
        let count = key.len().min(len - at);
        joined.expose_mut(|joined| key.expose(|key| joined[at..at + count].copy_from_slice(&key[..count])));
        at += count;
    }
    (at == len && len > 0).then_some(joined)
}
