//! Durable records of an end: counters, blocks that wait, authentication key. Layout in `docs/formats/link.md`.

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, LinkId};
use types::quantum::Role;

use super::{LinkConfig, SecretBlock};
use crate::authenticate::{self, Marks, PIECE_TAGS, Stream, piece_len};
use crate::error::Error;
use crate::record::BlockRecord;

/// Counters and numbers; one record per link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) next_block: BlockSeq,
    /// Of Alice's stream and Bob's.
    pub(super) marks: [Marks; 2],
    /// Alice: the last block whose `Finish` may have left, and the counter of its verdict.
    pub(super) finished: Option<(BlockSeq, u64)>,
    /// Alice: the last block committed.
    pub(super) committed: Option<BlockSeq>,
}

/// A block that Bob holds until he hears Alice's verdict.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: BlockRecord,
    /// Tags to add to each stream from its output.
    pub(super) refill: [u64; 2],
    /// The whole output of privacy amplification.
    pub(super) output: SecretBytes,
}

/// All that was durable.
pub(super) struct Restored {
    pub(super) state: State,
    pub(super) streams: [Stream; 2],
    pub(super) committed: Vec<SecretBlock>,
    pub(super) pending: Option<Pending>,
}

impl State {
    pub(super) fn to_change(self, link: &LinkId) -> Change {
        let mut w = Writer::new();
        w.u8(STATE_VERSION).u64(self.next_block.0);
        self.marks.iter().for_each(|marks| marks.write(&mut w));
        let (block, counter) = self.finished.unwrap_or_default();
        w.u8(u8::from(self.finished.is_some())).u64(block.0).u64(counter);
        w.u8(u8::from(self.committed.is_some())).u64(self.committed.unwrap_or_default().0);
        Change::Put(Record { table: Table::LinkState, key: prefix(link), value: w.finish(), secret: None })
    }

    fn read(value: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(value);
        if r.u8("version")? != STATE_VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let next_block = BlockSeq(r.u64("next block")?);
        let marks = [Marks::read(&mut r)?, Marks::read(&mut r)?];
        let flag = |r: &mut Reader<'_>| match r.u8("flag")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Value { field: "flag" }),
        };
        let finished = flag(&mut r)?;
        let finished_at = (BlockSeq(r.u64("finished")?), r.u64("verdict counter")?);
        let committed = flag(&mut r)?;
        let committed_block = BlockSeq(r.u64("committed")?);
        r.end()?;
        Ok(Self {
            next_block,
            marks,
            finished: finished.then_some(finished_at),
            committed: committed.then_some(committed_block),
        })
    }
}

/// Writes a block that waits for Alice's verdict.
pub(super) fn put_pending(link: &LinkId, pending: &Pending) -> Change {
    put_block(link, STAGE_PENDING, pending.refill, &pending.record, pending.output.duplicate())
}

/// Writes a committed block that waits to be filed; replaces a pending one.
pub(super) fn put_committed(link: &LinkId, block: &SecretBlock) -> Change {
    put_block(link, STAGE_COMMITTED, [0; 2], &block.record, block.key.duplicate())
}

/// Forgets a block.
pub(super) fn delete_block(link: &LinkId, block: BlockSeq) -> Change {
    Change::Delete { table: Table::LinkPending, key: block_key(link, block) }
}

fn put_block(link: &LinkId, stage: u8, refill: [u64; 2], record: &BlockRecord, secret: SecretBytes) -> Change {
    let mut w = Writer::new();
    w.u8(BLOCK_VERSION).u8(stage).u64(refill[0]).u64(refill[1]);
    record.write(&mut w);
    Change::Put(Record {
        table: Table::LinkPending,
        key: block_key(link, record.block),
        value: w.finish(),
        secret: Some(secret),
    })
}

/// Reads an end's records back; those of other links are passed over.
pub(super) fn restore(config: &LinkConfig, records: Vec<Record>) -> Result<Restored, Error> {
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
                match read_block(&record.value).map_err(|_| corrupt.clone())? {
                    (STAGE_COMMITTED, _, block) => {
                        committed.push(SecretBlock { seq: block.block, key: secret, record: block });
                    }
                    (STAGE_PENDING, refill, block) if config.role == Role::Bob && pending.is_none() => {
                        if refill_len(refill) >= secret.len() {
                            return Err(corrupt);
                        }
                        pending = Some(Pending { record: block, refill, output: secret });
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
    committed.sort_by_key(|block| block.seq);
    Ok(Restored { state, streams, committed, pending })
}

/// Bytes that a refill of both streams takes.
pub(super) fn refill_len(refill: [u64; 2]) -> usize {
    refill.iter().map(|tags| piece_len(*tags)).sum()
}

fn read_block(value: &[u8]) -> Result<(u8, [u64; 2], BlockRecord), CodecError> {
    let mut r = Reader::new(value);
    let version = r.u8("version")?;
    if !(1..=BLOCK_VERSION).contains(&version) {
        return Err(CodecError::Value { field: "version" });
    }
    let stage = r.u8("stage")?;
    let refill = [r.u64("refill")?, r.u64("refill")?];
    if refill.iter().any(|tags| *tags > PIECE_TAGS) {
        return Err(CodecError::Value { field: "refill" });
    }
    let record = BlockRecord::read(&mut r, version)?;
    r.end()?;
    Ok((stage, refill, record))
}

/// Link id and a zero, which no id contains.
pub(super) fn prefix(link: &LinkId) -> Vec<u8> {
    let mut key = link.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn block_key(link: &LinkId, block: BlockSeq) -> Vec<u8> {
    let mut key = prefix(link);
    key.extend_from_slice(&block.0.to_be_bytes());
    key
}

const STATE_VERSION: u8 = 1;
/// Version 1 had no mode of distillation; its blocks are read as one-way.
const BLOCK_VERSION: u8 = 2;
const STAGE_PENDING: u8 = 1;
const STAGE_COMMITTED: u8 = 2;
