//! Messages about keys for SAEs: assignments, and the withdrawal of imported keys.

use crypto::tag::{OneTimeTagKey, Tag};
use types::codec::{CodecError, Reader, Writer};
use types::id::{KeyId, SaeId};

use crate::api::PassedOn;
use crate::config::{
    BATCH_MAX, NUMBER_MAX, PAIR_KEY_BYTES, REQUEST_BYTES_MAX, RUNS_MAX, SIZE_MAX_BITS, SIZE_MIN_BITS, SLAVES_MAX,
    WITHDRAW_MAX,
};
use crate::record;
use crate::stock::Run;

/// Keys for a master and its slaves. Plain keys are cut from the stream of the pair keys named; carried keys come
/// along under a one-time pad and a one-time tag that the stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Random id of the assignment; the same when it is repeated.
    pub assign: KeyId,
    /// The master SAE, served by the sender.
    pub master: SaeId,
    /// The slave SAEs, all served by the receiver; none twice.
    pub slaves: Vec<SaeId>,
    /// Bits of each key; a multiple of 8.
    pub size_bits: u32,
    /// Ids of the keys.
    pub ids: Vec<KeyId>,
    /// The pair keys, in the order of the stream.
    pub runs: Vec<Run>,
    /// The keys, if they are carried.
    pub carried: Option<Carried>,
    /// What the master said besides, for another network; only with keys that are not carried.
    pub passed_on: Option<PassedOn>,
}

/// Keys under a pad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Whether they come from another network, and the ids from there too.
    pub imported: bool,
    /// The keys, one after the other, under the stream after its first 32 bytes.
    pub sealed: Vec<u8>,
    /// One-time tag with the first 32 bytes of the stream, over everything before the keys and the keys.
    pub tag: Tag,
}

/// Why keys were not assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignFailure {
    /// A pair key is not held.
    Missing,
    /// The SAEs, the size or the ids were refused, or too much waits for delivery.
    Refused,
    /// A key id is in use for another key.
    InUse,
    /// A slave of another network cannot share keys with others.
    Foreign,
    /// The other network did not take the keys.
    NotExported,
}

/// What a withdrawal wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawStep {
    /// Say whether the keys can be destroyed and give none away for a while.
    Hold,
    /// Destroy them all, or none if an SAE has one.
    Destroy,
    /// Go on as if nothing had been said.
    Release,
}

/// Answer to a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawState {
    /// Done.
    Done,
    /// None of the keys is known.
    NotKnown,
    /// An SAE has one.
    Delivered,
}

impl Assign {
    /// Bytes of one key.
    pub(crate) fn key_bytes(&self) -> usize {
        usize::try_from(self.size_bits / 8).expect("key sizes are small")
    }

    /// Bytes of the stream that are needed.
    pub(crate) fn stream_bytes(&self) -> usize {
        let keys = self.key_bytes() * self.ids.len();
        if self.carried.is_some() { keys + OneTimeTagKey::LEN } else { keys }
    }

    /// Whether the runs hold as much as is needed and not a key more.
    pub(crate) fn fits(&self) -> bool {
        let held: usize = self.runs.iter().map(|run| run.bytes()).sum();
        let needed = self.stream_bytes();
        held >= needed && held < needed + PAIR_KEY_BYTES
    }

    /// The fields before the keys, as the tag of carried keys covers them.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.put_header(&mut w);
        w.finish()
    }

    fn put_header(&self, w: &mut Writer) {
        w.put(self.assign.0.as_bytes()).bytes16(self.master.as_str().as_bytes());
        w.u8(u8::try_from(self.slaves.len()).expect("slaves are bounded far below 256"));
        self.slaves.iter().for_each(|slave| _ = w.bytes16(slave.as_str().as_bytes()));
        put_ids(w.u32(self.size_bits), &self.ids);
        put_runs(w, &self.runs);
        w.u8(match &self.carried {
            None if self.passed_on.is_some() => 3,
            None => 0,
            Some(Carried { imported: false, .. }) => 1,
            Some(Carried { imported: true, .. }) => 2,
        });
    }

    pub(super) fn put(&self, w: &mut Writer) {
        self.put_header(w);
        if let Some(carried) = &self.carried {
            w.bytes32(&carried.sealed).put(&carried.tag.0);
        } else if let Some(passed_on) = &self.passed_on {
            w.bytes16(passed_on.as_json().as_bytes());
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (assign, master) = (record::key_id(r, "assignment")?, record::sae(r, "master")?);
        let slaves = slaves(r)?;
        let size_bits = r.u32("size")?;
        if !size_bits.is_multiple_of(8) || !(SIZE_MIN_BITS..=SIZE_MAX_BITS).contains(&size_bits) {
            return Err(CodecError::Value { field: "size" });
        }
        let ids = ids(r, usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX))?;
        let mut decoded =
            Self { assign, master, slaves, size_bits, ids, runs: runs(r)?, carried: None, passed_on: None };
        let imported = match r.u8("carried")? {
            0 => return Ok(decoded),
            1 => false,
            2 => true,
            3 => {
                let passed_on = PassedOn::new(r.text16("extension", PassedOn::BYTES_MAX)?);
                decoded.passed_on = Some(passed_on.ok_or(CodecError::Value { field: "extension" })?);
                return Ok(decoded);
            }
            _ => return Err(CodecError::Value { field: "carried" }),
        };
        let sealed = r.bytes32("keys", REQUEST_BYTES_MAX)?.to_vec();
        if sealed.len() != decoded.key_bytes() * decoded.ids.len() {
            return Err(CodecError::Value { field: "keys" });
        }
        decoded.carried = Some(Carried { imported, sealed, tag: Tag(r.array("tag")?) });
        Ok(decoded)
    }
}

impl AssignFailure {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Refused => 1,
            Self::InUse => 2,
            Self::Foreign => 3,
            Self::NotExported => 4,
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("reason")? {
            0 => Self::Missing,
            1 => Self::Refused,
            2 => Self::InUse,
            3 => Self::Foreign,
            4 => Self::NotExported,
            _ => return Err(CodecError::Value { field: "reason" }),
        })
    }
}

impl WithdrawStep {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Hold => 0,
            Self::Destroy => 1,
            Self::Release => 2,
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("step")? {
            0 => Self::Hold,
            1 => Self::Destroy,
            2 => Self::Release,
            _ => return Err(CodecError::Value { field: "step" }),
        })
    }
}

impl WithdrawState {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotKnown => 1,
            Self::Delivered => 2,
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("state")? {
            0 => Self::Done,
            1 => Self::NotKnown,
            2 => Self::Delivered,
            _ => return Err(CodecError::Value { field: "state" }),
        })
    }
}

pub(super) fn put_ids(w: &mut Writer, ids: &[KeyId]) {
    w.count(ids.len());
    ids.iter().for_each(|id| _ = w.put(id.0.as_bytes()));
}

pub(super) fn put_runs(w: &mut Writer, runs: &[Run]) {
    w.count(runs.len());
    runs.iter().for_each(|run| _ = w.put(run.relay.0.as_bytes()).u16(run.first).u16(run.count));
}

fn ids(r: &mut Reader<'_>, max: usize) -> Result<Vec<KeyId>, CodecError> {
    let count = r.count("ids", max)?;
    (0..count).map(|_| record::key_id(r, "ids")).collect()
}

/// The ids of a withdrawal.
pub(super) fn withdrawn_ids(r: &mut Reader<'_>) -> Result<Vec<KeyId>, CodecError> {
    let ids = ids(r, WITHDRAW_MAX)?;
    if ids.is_empty() { Err(CodecError::Value { field: "ids" }) } else { Ok(ids) }
}

/// One slave or more, none twice.
pub(crate) fn slaves(r: &mut Reader<'_>) -> Result<Vec<SaeId>, CodecError> {
    let count = usize::from(r.u8("slaves")?);
    if !(1..=SLAVES_MAX).contains(&count) {
        return Err(CodecError::Value { field: "slaves" });
    }
    let mut slaves = Vec::with_capacity(count);
    for _ in 0..count {
        let slave = record::sae(r, "slave")?;
        if slaves.contains(&slave) {
            return Err(CodecError::Value { field: "slaves" });
        }
        slaves.push(slave);
    }
    Ok(slaves)
}

pub(super) fn runs(r: &mut Reader<'_>) -> Result<Vec<Run>, CodecError> {
    let count = r.count("runs", RUNS_MAX)?;
    let run = |r: &mut Reader<'_>| {
        let run = Run { relay: record::key_id(r, "runs")?, first: r.u16("first")?, count: r.u16("count")? };
        let inside = run.first.checked_add(run.count).is_some_and(|end| end <= BATCH_MAX);
        if run.count > 0 && inside { Ok(run) } else { Err(CodecError::Value { field: "runs" }) }
    };
    (0..count).map(|_| run(r)).collect()
}
