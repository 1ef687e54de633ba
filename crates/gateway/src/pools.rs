//! The batches of one terminal at one end: pad to send with, pad to receive with, slots to open sessions with.
//!
//! What must be durable leaves as [`Change`]s. A sender's pieces are deleted from the store *before* they are used
//! (that is the reservation: a crash loses at most what was reserved), a receiver's pieces after. Keys of the
//! records: `docs/formats/terminal-pool.md`.

use std::collections::{BTreeMap, VecDeque};

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use terminal::access::{Agreed, Inventory, InventoryLine, OPENING_LEN};
use terminal::control::BatchUse;
use terminal::receiver::{BATCH_MAX, PIECE_LEN, cut_pieces};
use terminal::record::batch_number;
use terminal::suite::UNIT;
use terminal::{Direction, Floor, PadChunk, PadReceiver, PadSource};
use types::codec::{Reader, Writer};
use types::id::{BatchId, TerminalId};

use crate::Error;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Before the control center's master: orders keys and opens sessions.
    Gateway,
    /// Before or inside the terminal.
    Terminal,
}

impl Role {
    /// The direction in which this end sends.
    #[must_use]
    pub const fn sends(self) -> Direction {
        match self {
            Self::Gateway => Direction::Down,
            Self::Terminal => Direction::Up,
        }
    }
}

/// Everything that one end holds for one terminal.
#[derive(Debug)]
pub struct Pools {
    role: Role,
    terminal: TerminalId,
    /// Pad to send with.
    pub(crate) send: SendPool,
    /// Pad to receive with.
    pub(crate) receive: PadReceiver,
    openings: BTreeMap<(BatchId, u32), SecretBytes>,
    highest: u32,
}

impl Pools {
    /// Empty pools.
    #[must_use]
    pub fn new(role: Role, terminal: TerminalId) -> Self {
        Self {
            role,
            terminal,
            send: SendPool::default(),
            receive: PadReceiver::new(role.sends().reverse(), Floor::default()),
            openings: BTreeMap::new(),
            highest: 0,
        }
    }

    /// Pools as they were left in the store. Records of other terminals are passed over.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn load(role: Role, terminal: TerminalId, records: Vec<Record>) -> Result<Self, Error> {
        let mut pools = Self::new(role, terminal);
        let mut batches: BTreeMap<u32, Stored> = BTreeMap::new();
        for record in records {
            if record.table != Table::TerminalBatch {
                continue;
            }
            let Some(place) = pools.place_of(&record.key)? else { continue };
            let mut value = Reader::new(&record.value);
            let corrupt = |_| Error::Corrupt { what: "a record's value" };
            match place {
                Place::Mark => pools.highest = value.u32("highest").map_err(corrupt)?,
                Place::Batch(batch) => {
                    let stored = batches.entry(batch.0).or_default();
                    stored.openings = value.u8("use").map_err(corrupt)? == BatchUse::Openings as u8;
                    stored.len = usize::try_from(value.u32("length").map_err(corrupt)?).unwrap_or(usize::MAX);
                }
                Place::Piece(batch, index) => {
                    let secret = record.secret.ok_or(Error::Corrupt { what: "a piece without its key" })?;
                    batches.entry(batch.0).or_default().pieces.insert(index, secret);
                }
            }
        }
        for (batch, stored) in batches {
            pools.restore(BatchId(batch), stored)?;
        }
        Ok(pools)
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The terminal.
    #[must_use]
    pub fn terminal(&self) -> &TerminalId {
        &self.terminal
    }

    /// Bytes of pad to send with, without what a sender took already.
    #[must_use]
    pub fn send_stock(&self) -> u64 {
        self.send.stock()
    }

    /// Bytes of pad to receive with.
    #[must_use]
    pub fn receive_stock(&self) -> u64 {
        self.receive.stock()
    }

    /// Slots to open sessions with.
    #[must_use]
    pub fn opening_slots(&self) -> usize {
        self.openings.len()
    }

    /// The highest batch number ever used here.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Raises the highest batch number; returns what must become durable.
    pub(crate) fn raise_highest(&mut self, number: u32) -> Change {
        self.highest = self.highest.max(number);
        let mut value = Writer::new();
        value.u32(self.highest);
        Change::Put(self.record(Place::Mark, value.finish(), None))
    }

    /// What must become durable for a new batch, before it is used or confirmed.
    pub(crate) fn stage(&mut self, batch: BatchId, purpose: BatchUse, key: &SecretBytes) -> Result<Vec<Change>, Error> {
        if key.is_empty() || key.len() > BATCH_MAX || !(key.len() as u64).is_multiple_of(UNIT) {
            return Err(Error::ApiMisuse { what: "a batch of the wrong length" });
        }
        let mut value = Writer::new();
        value.u8(purpose as u8).count(key.len());
        let mut changes = vec![self.raise_highest(batch_number(batch))];
        changes.push(Change::Put(self.record(Place::Batch(batch), value.finish(), None)));
        for (index, piece) in pieces_of(purpose, key) {
            changes.push(Change::Put(self.record(Place::Piece(batch, index), Vec::new(), Some(piece))));
        }
        Ok(changes)
    }

    /// Puts a staged batch into its place.
    pub(crate) fn install(&mut self, batch: BatchId, purpose: BatchUse, key: &SecretBytes) -> Result<(), Error> {
        let pieces = pieces_of(purpose, key);
        match purpose {
            BatchUse::Openings => {
                self.openings.extend(pieces.into_iter().map(|(index, slot)| ((batch, index), slot)));
            }
            BatchUse::Records if Direction::of(batch) == self.role.sends() => self.send.add(batch, key.len(), pieces),
            BatchUse::Records => self
                .receive
                .install_pieces(batch, key.len(), pieces)
                .map_err(|_| Error::ApiMisuse { what: "a batch that is installed already" })?,
        }
        Ok(())
    }

    /// How many batches are held for one direction.
    pub(crate) fn batch_count(&self, direction: Direction) -> usize {
        if direction == self.role.sends() { self.send.batches.len() } else { self.receive.batches().count() }
    }

    /// Takes an opening slot: the one named, or the lowest. It must be durably gone before it is used.
    pub(crate) fn take_slot(
        &mut self,
        named: Option<(BatchId, u32)>,
    ) -> Option<(BatchId, u32, SecretBytes, Vec<Change>)> {
        let place = named.or_else(|| self.openings.keys().next().copied())?;
        let key = self.openings.remove(&place)?;
        let mut changes = vec![self.delete(Place::Piece(place.0, place.1))];
        if !self.openings.keys().any(|(batch, _)| *batch == place.0) {
            changes.push(self.delete(Place::Batch(place.0)));
        }
        Some((place.0, place.1, key, changes))
    }

    /// A copy of a slot, to check an opening with before the slot is given up.
    pub(crate) fn look_at_slot(&self, batch: BatchId, slot: u32) -> Option<SecretBytes> {
        self.openings.get(&(batch, slot)).map(SecretBytes::duplicate)
    }

    /// Forgets all opening slots: the other end does not hold them.
    pub(crate) fn drop_slots(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((_, _, _, more)) = self.take_slot(None) {
            changes.extend(more);
        }
        changes
    }

    /// Moves pieces from the pool to the reserve of the sender; the changes must be durable before
    /// [`Pools::reserved`] is called.
    pub(crate) fn reserve(&mut self, pieces: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..pieces {
            let Some(front) = self.send.batches.front_mut() else { break };
            if let Some((index, key)) = front.pieces.pop_front() {
                let (batch, offset) = (front.batch, u64::from(index) * PIECE_LEN as u64);
                self.send.pooled -= key.len() as u64;
                self.send.reserving.push_back(PadChunk::new(batch, offset, key));
                changes.push(self.delete(Place::Piece(batch, index)));
            }
            if let Some(empty) = self.send.batches.pop_front_if(|front| front.pieces.is_empty()) {
                changes.push(self.delete(Place::Batch(empty.batch)));
            }
        }
        changes
    }

    /// What was being reserved is durably gone from the store: it may be used.
    pub(crate) fn reserved(&mut self) {
        self.send.ready.append(&mut self.send.reserving);
    }

    /// Deletes what the receiver destroyed.
    pub(crate) fn settle(&mut self) -> Vec<Change> {
        let before: Vec<BatchId> = self.receive.batches().map(|(batch, ..)| batch).collect();
        self.receive.settle();
        let after: Vec<BatchId> = self.receive.batches().map(|(batch, ..)| batch).collect();
        let mut changes = self.destroyed();
        for gone in before.into_iter().filter(|batch| after.binary_search(batch).is_err()) {
            changes.push(self.delete(Place::Batch(gone)));
        }
        changes
    }

    /// What this end holds, in ascending order of batch.
    pub(crate) fn inventory(&self) -> Inventory {
        let mut lines: Inventory =
            self.receive.batches().map(|(batch, mark, len)| InventoryLine { batch, mark, len }).collect();
        lines.extend(self.send.inventory());
        lines.sort_by_key(|line| line.batch);
        lines
    }

    /// Decides which batches both ends keep and where each goes on. A sender behind its receiver was set back (a
    /// restored backup): what it would use next may have been used already, so that batch is given up.
    pub(crate) fn reconcile(&self, theirs: &Inventory) -> Vec<Agreed> {
        let ours = self.inventory();
        let mut agreed = Vec::new();
        for line in &ours {
            let Ok(at) = theirs.binary_search_by_key(&line.batch, |other| other.batch) else { continue };
            let other = theirs[at];
            let (sender, receiver) =
                if Direction::of(line.batch) == self.role.sends() { (line, &other) } else { (&other, line) };
            let start = sender.mark.next_multiple_of(UNIT);
            if line.len == other.len && sender.mark >= receiver.mark && start < line.len {
                agreed.push(Agreed { batch: line.batch, start });
            }
        }
        agreed
    }

    /// Burns everything that was not agreed; returns the changes and the bytes burned.
    pub(crate) fn keep_only(&mut self, agreed: &[Agreed]) -> (Vec<Change>, u64) {
        let stock = self.send.stock() + self.receive.stock();
        let start_of =
            |batch: BatchId| agreed.iter().find(|kept| kept.batch == batch).map_or(u64::MAX, |kept| kept.start);
        let mut changes = Vec::new();
        for (batch, ..) in self.receive.batches().collect::<Vec<_>>() {
            self.receive.burn_below(batch, start_of(batch));
            if start_of(batch) == u64::MAX {
                changes.push(self.delete(Place::Batch(batch)));
            }
        }
        changes.extend(self.destroyed());
        // What a former session took and did not use is not in the agreed part.
        self.send.ready.clear();
        self.send.reserving.clear();
        let mut burned = Vec::new();
        let mut pooled = self.send.pooled;
        self.send.batches.retain_mut(|held| {
            let start = start_of(held.batch);
            while let Some((index, key)) =
                held.pieces.pop_front_if(|(index, _)| u64::from(*index) * (PIECE_LEN as u64) < start)
            {
                pooled -= key.len() as u64;
                burned.push(Place::Piece(held.batch, index));
            }
            if held.pieces.is_empty() {
                burned.push(Place::Batch(held.batch));
            }
            !held.pieces.is_empty()
        });
        self.send.pooled = pooled;
        changes.extend(burned.into_iter().map(|place| self.delete(place)));
        (changes, stock - (self.send.stock() + self.receive.stock()))
    }

    fn destroyed(&mut self) -> Vec<Change> {
        let pieces = self.receive.take_destroyed();
        pieces.into_iter().map(|(batch, index)| self.delete(Place::Piece(batch, index))).collect()
    }

    fn restore(&mut self, batch: BatchId, stored: Stored) -> Result<(), Error> {
        let corrupt = Error::Corrupt { what: "a batch" };
        if stored.len == 0 || stored.len > BATCH_MAX {
            return Err(corrupt);
        }
        self.highest = self.highest.max(batch_number(batch));
        if stored.openings {
            self.openings.extend(stored.pieces.into_iter().map(|(index, slot)| ((batch, index), slot)));
        } else if Direction::of(batch) == self.role.sends() {
            self.send.add(batch, stored.len, stored.pieces);
        } else {
            self.receive.install_pieces(batch, stored.len, stored.pieces).map_err(|_| corrupt)?;
        }
        Ok(())
    }

    fn record(&self, place: Place, value: Vec<u8>, secret: Option<SecretBytes>) -> Record {
        Record { table: Table::TerminalBatch, key: self.key_of(place), value, secret }
    }

    fn delete(&self, place: Place) -> Change {
        Change::Delete { table: Table::TerminalBatch, key: self.key_of(place) }
    }

    fn key_of(&self, place: Place) -> Vec<u8> {
        let mut key = Writer::new();
        key.bytes16(self.terminal.as_str().as_bytes());
        match place {
            Place::Mark => key.u8(0),
            Place::Batch(batch) => key.u8(1).u32(batch.0),
            Place::Piece(batch, index) => key.u8(2).u32(batch.0).u32(index),
        };
        key.finish()
    }

    fn place_of(&self, key: &[u8]) -> Result<Option<Place>, Error> {
        let parse = || {
            let mut reader = Reader::new(key);
            if reader.bytes16("terminal", 32)? != self.terminal.as_str().as_bytes() {
                return Ok(None);
            }
            let place = match reader.u8("kind")? {
                0 => Place::Mark,
                1 => Place::Batch(BatchId(reader.u32("batch")?)),
                2 => Place::Piece(BatchId(reader.u32("batch")?), reader.u32("piece")?),
                _ => return Err(types::codec::CodecError::Value { field: "kind" }),
            };
            reader.end()?;
            Ok(Some(place))
        };
        parse().map_err(|_| Error::Corrupt { what: "a record's key" })
    }
}

/// Pad to send with: pieces in the pool, pieces on their way out of the store, pieces ready for the sender.
#[derive(Debug, Default)]
pub(crate) struct SendPool {
    batches: VecDeque<SendBatch>,
    // Bytes in `batches`: the stock is asked for with every record.
    pooled: u64,
    reserving: VecDeque<PadChunk>,
    ready: VecDeque<PadChunk>,
}

impl SendPool {
    /// Bytes that the sender did not take yet.
    pub(crate) fn stock(&self) -> u64 {
        let out: usize = self.reserving.iter().chain(&self.ready).map(PadChunk::len).sum();
        self.pooled + out as u64
    }

    /// Bytes that the sender may take now.
    pub(crate) fn ready(&self) -> usize {
        self.ready.iter().map(PadChunk::len).sum()
    }

    /// Whether there is anything to reserve.
    pub(crate) fn has_more(&self) -> bool {
        !self.batches.is_empty()
    }

    fn add(&mut self, batch: BatchId, len: usize, pieces: impl IntoIterator<Item = (u32, SecretBytes)>) {
        let pieces: VecDeque<_> = pieces.into_iter().collect();
        self.pooled += pieces.iter().map(|(_, key)| key.len() as u64).sum::<u64>();
        self.batches.push_back(SendBatch { batch, len, pieces });
    }

    fn inventory(&self) -> impl Iterator<Item = InventoryLine> {
        self.batches.iter().filter_map(|held| {
            let (index, _) = held.pieces.front()?;
            Some(InventoryLine { batch: held.batch, mark: u64::from(*index) * PIECE_LEN as u64, len: held.len as u64 })
        })
    }
}

impl PadSource for SendPool {
    fn next_chunk(&mut self) -> Option<PadChunk> {
        self.ready.pop_front()
    }
}

#[derive(Debug)]
struct SendBatch {
    batch: BatchId,
    len: usize,
    pieces: VecDeque<(u32, SecretBytes)>,
}

#[derive(Debug, Default)]
struct Stored {
    openings: bool,
    len: usize,
    pieces: BTreeMap<u32, SecretBytes>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Mark,
    Batch(BatchId),
    Piece(BatchId, u32),
}

fn pieces_of(purpose: BatchUse, key: &SecretBytes) -> Vec<(u32, SecretBytes)> {
    match purpose {
        BatchUse::Records => cut_pieces(key),
        BatchUse::Openings => cut_slots(key),
    }
}

fn cut_slots(key: &SecretBytes) -> Vec<(u32, SecretBytes)> {
    (0_u32..)
        .zip((0..key.len()).step_by(OPENING_LEN))
        .filter_map(|(index, start)| Some((index, key.part(start, OPENING_LEN)?)))
        .collect()
}
