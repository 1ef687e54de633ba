//! Opens records of one direction.
//!
//! In this order: header, floor, batch, range, forgery count, window, tag; only then are positions marked and key
//! destroyed. A forger burns nothing, a replay finds no key.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crypto::domain::Domain;
use crypto::pad::OneTimePad;
use crypto::secret::SecretBytes;
use crypto::tag::{OneTimeTagKey, Tag};
use types::id::BatchId;

use crate::epoch::{ReceiveEpoch, SEED_LEN};
use crate::error::{Error, Refusal};
use crate::record::{Class, Direction, HEADER_LEN, Header, Kind, RECORD_MAX, TAG_LEN, split_epoch};
use crate::suite::{Strength, Suite, UNIT};
use crate::window::{Fresh, Stale, Window};

/// Bytes of a piece: a batch is kept, stored and destroyed in pieces of this size.
pub const PIECE_LEN: usize = 1024;
/// Failed attempts on one range of 256 bytes before it is blocked and an alarm is due.
pub const FORGERIES_MAX: u8 = 8;
/// Largest batch in bytes: 8 Mbit, the largest pool of paper 2.
pub const BATCH_MAX: usize = 1 << 20;
/// Batches held at once.
pub const BATCHES_MAX: usize = 4096;
/// Epochs held at once; the oldest goes first.
pub const EPOCHS_MAX: usize = 4;

const FORGERY_RANGE: u64 = 256;
// An epoch has no ranges; many records share its key, so it bears more before it is blocked.
const EPOCH_FORGERIES_MAX: u32 = 1024;

/// The least strength of each class; the receiver enforces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor([Strength; Class::ALL.len()]);

impl Floor {
    /// The same floor for every class.
    #[must_use]
    pub const fn uniform(strength: Strength) -> Self {
        Self([strength; Class::ALL.len()])
    }

    /// This floor with another strength for one class.
    #[must_use]
    pub const fn with(mut self, class: Class, strength: Strength) -> Self {
        self.0[class as usize] = strength;
        self
    }

    /// The floor of a class.
    #[must_use]
    pub const fn of(&self, class: Class) -> Strength {
        self.0[class as usize]
    }
}

impl Default for Floor {
    /// Everything at least sealed under an epoch key.
    fn default() -> Self {
        Self::uniform(Strength::Computational)
    }
}

/// An opened record.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it carries.
    pub kind: Kind,
    /// Its class.
    pub class: Class,
    /// How it was sealed.
    pub suite: Suite,
    /// The content.
    pub plain: Vec<u8>,
}

/// What a receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Records opened under suite 0.
    pub otp: u64,
    /// Records opened under suite 4.
    pub aead: u64,
    /// Records refused, for any reason.
    pub refused: u64,
    /// Records refused because the tag did not hold.
    pub forged: u64,
    /// Ranges that were blocked after too many forgeries. Each is an alarm.
    pub blocked: u64,
}

/// The receiving end of one direction.
#[derive(Debug)]
pub struct PadReceiver {
    direction: Direction,
    floor: Floor,
    batches: BTreeMap<BatchId, ReceiveBatch>,
    epochs: VecDeque<ReceiveEpoch>,
    destroyed: Vec<(BatchId, u32)>,
    counts: ReceiverCounts,
}

impl PadReceiver {
    /// A receiver without batches.
    #[must_use]
    pub fn new(direction: Direction, floor: Floor) -> Self {
        Self {
            direction,
            floor,
            batches: BTreeMap::new(),
            epochs: VecDeque::new(),
            destroyed: Vec::new(),
            counts: ReceiverCounts::default(),
        }
    }

    /// Installs a whole batch.
    ///
    /// # Errors
    /// As [`PadReceiver::install_pieces`].
    pub fn install(&mut self, batch: BatchId, key: &SecretBytes) -> Result<(), Error> {
        self.install_pieces(batch, key.len(), cut_pieces(key))
    }

    /// Installs what is left of a batch: its whole length and its pieces by number.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the batch is of the other direction, known already, too long, not a multiple of
    /// 16 bytes, or a piece has the wrong number or length; also if too many batches are held.
    pub fn install_pieces(
        &mut self,
        batch: BatchId,
        len: usize,
        pieces: impl IntoIterator<Item = (u32, SecretBytes)>,
    ) -> Result<(), Error> {
        if Direction::of(batch) != self.direction || self.batches.contains_key(&batch) {
            return Err(Error::ApiMisuse { what: "a batch of the other direction or one that is installed" });
        }
        if len == 0 || len > BATCH_MAX || !(len as u64).is_multiple_of(UNIT) || self.batches.len() >= BATCHES_MAX {
            return Err(Error::ApiMisuse { what: "a batch of this length, or one batch more" });
        }
        let mut held: Vec<Option<SecretBytes>> = Vec::new();
        held.resize_with(len.div_ceil(PIECE_LEN), || None);
        for (index, piece) in pieces {
            let slot = usize::try_from(index).ok().and_then(|index| Some((index, held.get_mut(index)?)));
            match slot {
                Some((index, slot)) if piece.len() == piece_len(len, index) && slot.is_none() => *slot = Some(piece),
                _ => return Err(Error::ApiMisuse { what: "a piece that the batch cannot have" }),
            }
        }
        let gone = held.iter().take_while(|piece| piece.is_none()).count() * PIECE_LEN;
        let mut window = Window::new();
        window.burn_below((gone.min(len)) as u64 / UNIT);
        self.batches.insert(batch, ReceiveBatch { len: len as u64, pieces: held, window, failures: BTreeMap::new() });
        Ok(())
    }

    /// Installs the epoch that came with the opening of a session.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the batch is of the other direction or the seed has not 32 bytes.
    pub fn start_epoch(&mut self, batch: BatchId, offset: u64, seed: &SecretBytes) -> Result<(), Error> {
        if Direction::of(batch) != self.direction {
            return Err(Error::ApiMisuse { what: "an epoch of the other direction" });
        }
        let epoch =
            ReceiveEpoch::new(batch, offset, seed).ok_or(Error::ApiMisuse { what: "not the seed of an epoch" })?;
        self.keep_epoch(epoch);
        Ok(())
    }

    /// Forgets all epochs: their session ended.
    pub fn end_epochs(&mut self) {
        self.epochs.clear();
    }

    /// Sets the floor.
    pub fn set_floor(&mut self, floor: Floor) {
        self.floor = floor;
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> ReceiverCounts {
        self.counts
    }

    /// Batches held, each with its high-water mark and its length in bytes.
    pub fn batches(&self) -> impl Iterator<Item = (BatchId, u64, u64)> {
        self.batches.iter().map(|(id, batch)| (*id, (batch.window.mark_at() * UNIT).min(batch.len), batch.len))
    }

    /// Bytes ahead of the high-water marks.
    #[must_use]
    pub fn stock(&self) -> u64 {
        self.batches().map(|(_, mark, len)| len - mark).sum()
    }

    /// Destroys everything below `offset` of a batch: the sender said, authentically, that it will not use it.
    pub fn burn_below(&mut self, batch: BatchId, offset: u64) {
        if let Some(held) = self.batches.get_mut(&batch) {
            let end = offset.min(held.len).div_ceil(UNIT);
            held.window.burn_below(end);
            held.destroy_below(end * UNIT, batch, &mut self.destroyed);
            if end * UNIT >= held.len {
                self.batches.remove(&batch);
            }
        }
    }

    /// Destroys what lies below the high-water marks. Right where records come in order, as on TCP.
    pub fn settle(&mut self) {
        let marks: Vec<_> = self.batches().map(|(id, mark, _)| (id, mark)).collect();
        for (batch, mark) in marks {
            self.burn_below(batch, mark);
        }
    }

    /// Forgets a batch and destroys its key.
    pub fn remove(&mut self, batch: BatchId) {
        self.burn_below(batch, u64::MAX);
    }

    /// Pieces destroyed since the last call; the store is to destroy them too.
    pub fn take_destroyed(&mut self) -> Vec<(BatchId, u32)> {
        core::mem::take(&mut self.destroyed)
    }

    /// Opens one record. `context` is what the sender put under the tag without sending it.
    ///
    /// # Errors
    /// [`Refusal`]; no key was consumed then.
    pub fn open(&mut self, record: &[u8], context: &[u8]) -> Result<Opened, Refusal> {
        let result = self.try_open(record, context);
        match &result {
            Ok(opened) => match opened.suite {
                Suite::OtpWc128 => self.counts.otp += 1,
                Suite::Aes256Gcm => self.counts.aead += 1,
            },
            Err(refusal) => {
                self.counts.refused += 1;
                self.counts.forged += u64::from(matches!(refusal, Refusal::Forged { .. }));
            }
        }
        result
    }

    fn try_open(&mut self, record: &[u8], context: &[u8]) -> Result<Opened, Refusal> {
        let wrong = Refusal::Length { len: record.len() };
        let (head, rest) = record.split_first_chunk::<HEADER_LEN>().ok_or(wrong)?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(wrong)?;
        let header = Header::decode(head)?;
        if record.len() > RECORD_MAX || body.len() > header.suite.plain_max() {
            return Err(wrong);
        }
        if Direction::of(header.batch) != self.direction {
            return Err(Refusal::Direction { batch: header.batch });
        }
        if header.suite.strength() < self.floor.of(header.class) {
            return Err(Refusal::BelowFloor { class: header.class, suite: header.suite });
        }
        let sealed = Sealed { head, header, context, body, tag: *tag };
        let plain = match header.suite {
            Suite::OtpWc128 => self.open_otp(&sealed)?,
            Suite::Aes256Gcm => self.open_epoch(&sealed)?,
        };
        Ok(Opened { kind: header.kind, class: header.class, suite: header.suite, plain })
    }

    fn open_otp(&mut self, sealed: &Sealed<'_>) -> Result<Vec<u8>, Refusal> {
        let (batch, offset) = (sealed.header.batch, sealed.header.offset);
        let held = self.batches.get_mut(&batch).ok_or(Refusal::Batch { batch })?;
        let consumed = Suite::OtpWc128.consumption(sealed.body.len());
        let fresh = held.look(batch, offset, consumed)?;
        let mut key = held.copy(offset, consumed).ok_or(Refusal::Replayed { offset })?;
        let (Some(tag_key), Some(pad)) = (key.split_front(OneTimeTagKey::LEN), key.split_front(sealed.body.len()))
        else {
            return Err(Refusal::Range { batch, offset });
        };
        let tag_key = OneTimeTagKey::new(tag_key).expect("32 bytes were cut");
        let parts = [sealed.head.as_slice(), sealed.context, sealed.body];
        if tag_key.verify(Domain::TerminalRecord, &parts, &Tag(sealed.tag)).is_err() {
            self.counts.blocked += u64::from(held.failed(offset));
            return Err(Refusal::Forged { offset });
        }
        held.consume(&fresh, offset, consumed, batch, &mut self.destroyed);
        let mut plain = sealed.body.to_vec();
        OneTimePad::new(pad).apply(&mut plain).expect("the pad has the body's length");
        Ok(plain)
    }

    fn open_epoch(&mut self, sealed: &Sealed<'_>) -> Result<Vec<u8>, Refusal> {
        let (batch, field) = (sealed.header.batch, sealed.header.offset);
        let (start, counter) = split_epoch(field);
        let aad = [sealed.head.as_slice(), sealed.context].concat();
        let mut plain = sealed.body.to_vec();
        let forged = Refusal::Forged { offset: field };
        if let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.batch == batch && epoch.offset == start) {
            let fresh = epoch.window.look(counter, 1).map_err(|stale| stale_at(stale, batch, field))?;
            if epoch.failures >= EPOCH_FORGERIES_MAX {
                return Err(Refusal::Blocked { offset: field });
            }
            if !epoch.open(field, &aad, &mut plain, sealed.tag) {
                epoch.failures += 1;
                self.counts.blocked += u64::from(epoch.failures == EPOCH_FORGERIES_MAX);
                return Err(forged);
            }
            epoch.window.mark(&fresh);
            return Ok(plain);
        }
        let held = self.batches.get_mut(&batch).ok_or(Refusal::Batch { batch })?;
        let fresh = held.look(batch, start, SEED_LEN as u64)?;
        let seed = held.copy(start, SEED_LEN as u64).ok_or(Refusal::Replayed { offset: field })?;
        let mut epoch = ReceiveEpoch::new(batch, start, &seed).ok_or(Refusal::Range { batch, offset: start })?;
        let first = epoch.window.look(counter, 1).map_err(|stale| stale_at(stale, batch, field))?;
        if !epoch.open(field, &aad, &mut plain, sealed.tag) {
            self.counts.blocked += u64::from(held.failed(start));
            return Err(forged);
        }
        epoch.window.mark(&first);
        held.consume(&fresh, start, SEED_LEN as u64, batch, &mut self.destroyed);
        self.keep_epoch(epoch);
        Ok(plain)
    }

    fn keep_epoch(&mut self, epoch: ReceiveEpoch) {
        if self.epochs.len() >= EPOCHS_MAX {
            self.epochs.pop_front();
        }
        self.epochs.push_back(epoch);
    }
}

/// Cuts a batch into its pieces, by number.
#[must_use]
pub fn cut_pieces(key: &SecretBytes) -> Vec<(u32, SecretBytes)> {
    (0_u32..)
        .zip((0..key.len()).step_by(PIECE_LEN))
        .filter_map(|(index, start)| Some((index, key.part(start, PIECE_LEN.min(key.len() - start))?)))
        .collect()
}

/// Bytes of a piece of a batch of `len` bytes.
#[must_use]
pub fn piece_len(len: usize, index: usize) -> usize {
    len.saturating_sub(index.saturating_mul(PIECE_LEN)).min(PIECE_LEN)
}

struct Sealed<'a> {
    head: &'a [u8; HEADER_LEN],
    header: Header,
    context: &'a [u8],
    body: &'a [u8],
    tag: [u8; TAG_LEN],
}

#[derive(Debug)]
struct ReceiveBatch {
    len: u64,
    pieces: Vec<Option<SecretBytes>>,
    window: Window,
    failures: BTreeMap<u64, u8>,
}

impl ReceiveBatch {
    fn look(&self, batch: BatchId, offset: u64, len: u64) -> Result<Fresh, Refusal> {
        if !offset.is_multiple_of(UNIT) || offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Refusal::Range { batch, offset });
        }
        if self.failures.get(&(offset / FORGERY_RANGE)).is_some_and(|failures| *failures >= FORGERIES_MAX) {
            return Err(Refusal::Blocked { offset });
        }
        self.window.look(offset / UNIT, len / UNIT).map_err(|stale| stale_at(stale, batch, offset))
    }

    /// Counts a forgery; true when it blocked the range.
    fn failed(&mut self, offset: u64) -> bool {
        let failures = self.failures.entry(offset / FORGERY_RANGE).or_default();
        *failures = failures.saturating_add(1);
        *failures == FORGERIES_MAX
    }

    /// A copy of key bytes for one attempt. `None` if part of them is gone.
    fn copy(&self, offset: u64, len: u64) -> Option<SecretBytes> {
        let mut out = SecretBytes::from_vec(alloc::vec![0; usize::try_from(len).ok()?]);
        let mut done = 0;
        for (index, start, count) in spans(offset, len) {
            let piece = self.pieces.get(index)?.as_ref()?;
            piece.expose(|piece| {
                let from = piece.get(start..start + count)?;
                out.expose_mut(|out| out.get_mut(done..done + count).map(|to| to.copy_from_slice(from)))
            })?;
            done += count;
        }
        Some(out)
    }

    fn consume(&mut self, fresh: &Fresh, offset: u64, len: u64, id: BatchId, destroyed: &mut Vec<(BatchId, u32)>) {
        self.window.mark(fresh);
        for (index, start, count) in spans(offset, len) {
            if let Some(piece) = self.pieces.get_mut(index).and_then(Option::as_mut) {
                piece.expose_mut(|piece| piece[start..start + count].fill(0));
            }
        }
        self.failures.retain(|range, _| (range + 1) * FORGERY_RANGE > self.window.bottom() * UNIT);
        self.destroy_below(self.window.bottom() * UNIT, id, destroyed);
    }

    fn destroy_below(&mut self, offset: u64, id: BatchId, destroyed: &mut Vec<(BatchId, u32)>) {
        let whole = if offset >= self.len { self.pieces.len() as u64 } else { offset / PIECE_LEN as u64 };
        for (index, piece) in self.pieces.iter_mut().enumerate() {
            if (index as u64) < whole {
                if piece.take().is_some() {
                    destroyed.push((id, u32::try_from(index).expect("a batch has at most 1,024 pieces")));
                }
            } else {
                let below = usize::try_from(offset).unwrap_or(usize::MAX).saturating_sub(index * PIECE_LEN);
                if let Some(piece) = piece.as_mut().filter(|_| below > 0) {
                    piece.expose_mut(|piece| {
                        let below = below.min(piece.len());
                        piece[..below].fill(0);
                    });
                }
                break;
            }
        }
    }
}

/// The pieces that a range touches: number, start within the piece, length within the piece.
fn spans(offset: u64, len: u64) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = offset + len;
    let mut at = offset;
    core::iter::from_fn(move || {
        (at < end).then(|| {
            let within = at % PIECE_LEN as u64;
            let count = (PIECE_LEN as u64 - within).min(end - at);
            let span = (at / PIECE_LEN as u64, within, count);
            at += count;
            let size = |value: u64| usize::try_from(value).expect("inside a batch, which fits memory");
            (size(span.0), size(span.1), size(span.2))
        })
    })
}

fn stale_at(stale: Stale, batch: BatchId, offset: u64) -> Refusal {
    match stale {
        Stale::Used => Refusal::Replayed { offset },
        Stale::Behind => Refusal::TooOld { offset },
        Stale::Impossible => Refusal::Range { batch, offset },
    }
}
