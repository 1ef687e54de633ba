//! Durable records of an end: counters, Bob's last decision, blocks that wait. Layout in `docs/formats/vendor.md`.

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, LinkId};
use types::quantum::Role;
use types::units::BitLen;

use super::message::cause;
use super::{VendorBlock, VendorCause, VendorConfig, VendorRecord};
use crate::authenticate::{self, Marks, PIECE_TAGS, Stream, piece_len};
use crate::error::Error;

/// Counters and numbers; one record per link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) next_block: BlockSeq,
    /// Of Alice's stream and Bob's.
    pub(super) marks: [Marks; 2],
    /// Bob: his last decision.
    pub(super) answer: Option<Decision>,
}

/// What Bob decided on a block, and the counter of the answer's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) block: BlockSeq,
    pub(super) counter: u64,
    pub(super) refused: Option<VendorCause>,
}

/// A block that Alice holds until she hears Bob's answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) block: BlockSeq,
    /// Of the outer tag of its commit.
    pub(super) counter: u64,
    /// Tags to add to each stream.
    pub(super) refill: [u64; 2],
    /// Keys of the device that it is made of.
    pub(super) keys: u32,
    /// The whole key.
    pub(super) key: SecretBytes,
}

/// All that was durable.
pub(super) struct Restored {
    pub(super) state: State,
    pub(super) streams: [Stream; 2],
    pub(super) committed: Vec<VendorBlock>,
    pub(super) pending: Option<Pending>,
}

/// Public fields of a block that waits.
struct Waiting {
    stage: u8,
    block: BlockSeq,
    counter: u64,
    refill: [u64; 2],
    keys: u32,
    secret: u64,
}

impl State {
    pub(super) fn to_change(self, link: &LinkId) -> Change {
        let mut w = Writer::new();
        w.u8(STATE_VERSION).u64(self.next_block.0);
        self.marks.iter().for_each(|marks| marks.write(&mut w));
        w.u8(u8::from(self.answer.is_some()));
        if let Some(answer) = self.answer {
            w.u64(answer.block.0).u64(answer.counter).u8(answer.refused.map_or(0, |cause| cause as u8));
        }
        Change::Put(Record { table: Table::LinkState, key: prefix(link), value: w.finish(), secret: None })
    }

    fn read(value: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(value);
        if r.u8("version")? != STATE_VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let next_block = BlockSeq(r.u64("next block")?);
        let marks = [Marks::read(&mut r)?, Marks::read(&mut r)?];
        let answer = match r.u8("answered")? {
            0 => None,
            1 => {
                let (block, counter) = (BlockSeq(r.u64("answered block")?), r.u64("counter of the answer")?);
                let refused = match r.u8("decision")? {
                    0 => None,
                    number => Some(cause(number)?),
                };
                Some(Decision { block, counter, refused })
            }
            _ => return Err(CodecError::Value { field: "answered" }),
        };
        r.end()?;
        Ok(Self { next_block, marks, answer })
    }
}

impl Waiting {
    fn to_change(&self, link: &LinkId, secret: SecretBytes) -> Change {
        let mut w = Writer::new();
        w.u8(BLOCK_VERSION).u8(self.stage).u64(self.counter).u64(self.refill[0]).u64(self.refill[1]);
        w.u32(self.keys).u64(self.secret);
        let key = block_key(link, self.block);
        Change::Put(Record { table: Table::LinkPending, key, value: w.finish(), secret: Some(secret) })
    }

    fn read(block: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut key = Reader::new(block);
        let block = BlockSeq(key.u64("block")?);
        key.end()?;
        let mut r = Reader::new(value);
        if r.u8("version")? != BLOCK_VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let (stage, counter) = (r.u8("stage")?, r.u64("counter")?);
        let refill = [r.u64("refill")?, r.u64("refill")?];
        if refill.iter().any(|tags| *tags > PIECE_TAGS) {
            return Err(CodecError::Value { field: "refill" });
        }
        let (keys, secret) = (r.u32("keys")?, r.u64("secret bits")?);
        r.end()?;
        Ok(Self { stage, block, counter, refill, keys, secret })
    }
}

/// Whether a record is an end's state, and of which kind of link.
pub(super) fn made(record: &Record) -> Option<bool> {
    (record.table == Table::LinkState).then(|| record.value.first() == Some(&STATE_VERSION))
}

/// Alice: writes a block that waits for the answer.
pub(super) fn put_pending(link: &LinkId, pending: &Pending) -> Change {
    let waiting = Waiting {
        stage: STAGE_PENDING,
        block: pending.block,
        counter: pending.counter,
        refill: pending.refill,
        keys: pending.keys,
        secret: 8 * pending.key.len() as u64,
    };
    waiting.to_change(link, pending.key.duplicate())
}

/// Writes a block that waits to be filed; replaces a pending one.
pub(super) fn put_committed(link: &LinkId, block: &VendorBlock) -> Change {
    let record = &block.record;
    let waiting = Waiting {
        stage: STAGE_COMMITTED,
        block: block.seq,
        counter: 0,
        refill: [0; 2],
        keys: record.keys,
        secret: record.secret.0,
    };
    waiting.to_change(link, block.key.duplicate())
}

/// Forgets a block.
pub(super) fn delete_block(link: &LinkId, block: BlockSeq) -> Change {
    Change::Delete { table: Table::LinkPending, key: block_key(link, block) }
}

/// Reads an end's records back; those of other links are passed over.
pub(super) fn restore(config: &VendorConfig, records: Vec<Record>) -> Result<Restored, Error> {
    let prefix = prefix(&config.link);
    let mut state = None;
    let mut streams = [Stream::empty(Role::Alice), Stream::empty(Role::Bob)];
    let (mut committed, mut pending) = (Vec::new(), None);
    for record in records {
        let Some(rest) = record.key.strip_prefix(prefix.as_slice()) else { continue };
        match record.table {
            Table::LinkState => {
                state = Some(State::read(&record.value).map_err(|_| Error::Corrupt { what: "link state" })?);
            }
            Table::LinkAuthentication => {
                let corrupt = Error::Corrupt { what: "authentication key" };
                let (from, number) = authenticate::parse_key(rest).map_err(|_| corrupt.clone())?;
                let stream = &mut streams[usize::from(from == Role::Bob)];
                stream.restore_piece(number, &record.value, record.secret.ok_or(corrupt)?)?;
            }
            Table::LinkPending => {
                let corrupt = Error::Corrupt { what: "block in waiting" };
                let secret = record.secret.ok_or(corrupt.clone())?;
                let waiting = Waiting::read(rest, &record.value).map_err(|_| corrupt.clone())?;
                match waiting.stage {
                    STAGE_COMMITTED if waiting.secret >= 8 * secret.len() as u64 => {
                        committed.push(waiting.committed(secret));
                    }
                    STAGE_PENDING
                        if config.role == Role::Alice
                            && pending.is_none()
                            && waiting.secret == 8 * secret.len() as u64
                            && refill_len(waiting.refill) < secret.len() =>
                    {
                        pending = Some(waiting.pending(secret));
                    }
                    _ => return Err(corrupt),
                }
            }
            _ => {}
        }
    }
    let state = state.ok_or(Error::Corrupt { what: "link state (was the link provisioned?)" })?;
    for (stream, marks) in streams.iter_mut().zip(state.marks) {
        stream.restore_marks(marks);
        stream.check()?;
    }
    let last = |block: BlockSeq| block.0.checked_add(1) == Some(state.next_block.0);
    let pending_fits = pending.as_ref().is_none_or(|pending| last(pending.block));
    if !pending_fits || !state.answer.is_none_or(|answer| last(answer.block)) {
        return Err(Error::Corrupt { what: "link state" });
    }
    committed.sort_by_key(|block| block.seq);
    Ok(Restored { state, streams, committed, pending })
}

impl Waiting {
    fn committed(self, key: SecretBytes) -> VendorBlock {
        let kept = BitLen(self.secret - 8 * key.len() as u64);
        let (block, keys, secret) = (self.block, self.keys, BitLen(self.secret));
        VendorBlock { seq: block, key, record: VendorRecord { block, keys, secret, kept, given_up: None } }
    }

    fn pending(self, key: SecretBytes) -> Pending {
        Pending { block: self.block, counter: self.counter, refill: self.refill, keys: self.keys, key }
    }
}

/// Bytes that a refill of both streams takes.
pub(super) fn refill_len(refill: [u64; 2]) -> usize {
    refill.iter().map(|tags| piece_len(*tags)).sum()
}

/// Link id and a zero, which no id contains.
fn prefix(link: &LinkId) -> Vec<u8> {
    let mut key = link.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn block_key(link: &LinkId, block: BlockSeq) -> Vec<u8> {
    let mut key = prefix(link);
    key.extend_from_slice(&block.0.to_be_bytes());
    key
}

/// Far from those of the simulated links, so that one is never read as the other.
const STATE_VERSION: u8 = 0x81;
const BLOCK_VERSION: u8 = 0x81;
const STAGE_PENDING: u8 = 1;
const STAGE_COMMITTED: u8 = 2;
