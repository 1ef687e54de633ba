//! What key management entities say to each other (interface Kx), byte by byte in `docs/formats/kx.md`.
//!
//! Provided: bounded encoding, decoding that accepts exactly what encoding makes.
//! Not provided: authentication of the sender (the connection's), of relayed key (the tag in [`Relay`]).

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId};

use crate::config::{
    BATCH_MAX, BLOCKS_MAX, HELD_BATCHES_MAX, NUMBER_MAX, PAIR_KEY_BYTES, PATH_MAX, RANGES_MAX, RUNS_MAX, SIZE_MAX_BITS,
    SIZE_MIN_BITS,
};
pub use crate::pool::{PadRange, PoolState};
use crate::record;
pub use crate::stock::{KeySet, Run};

/// Version of the format.
pub const VERSION: u8 = 1;
/// Largest message in bytes.
pub const MESSAGE_MAX: usize = 128 * 1024;

/// A message between two key management entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What is left in the pool of a link between the two.
    Pool(PoolState),
    /// Keys on their way, over one hop.
    Relay(Relay),
    /// The keys of a relay are stored at the last site; to the first site.
    RelayAck {
        /// Which relay.
        relay: KeyId,
    },
    /// A relay ended before the last site; to the first site.
    RelayNack {
        /// Which relay.
        relay: KeyId,
        /// Why.
        reason: RelayFailure,
    },
    /// These keys are void; to the holder.
    RelayVoid {
        /// Which keys.
        sets: Vec<KeySet>,
    },
    /// All keys of the receiver that the sender holds.
    Held {
        /// Which keys.
        sets: Vec<KeySet>,
    },
    /// Assign keys to two SAEs; to the holder.
    Assign(Assign),
    /// The keys are assigned and wait for the slave; to the owner.
    AssignAck {
        /// Which assignment.
        assign: KeyId,
    },
    /// The keys are not assigned; to the owner.
    AssignNack {
        /// Which assignment.
        assign: KeyId,
        /// Why.
        reason: AssignFailure,
    },
    /// An assignment is void and its keys are burned; to the holder.
    AssignVoid {
        /// Which assignment.
        assign: KeyId,
        /// Its pair keys.
        runs: Vec<Run>,
    },
}

/// A batch of keys over one hop: padded and tagged with key of the hop's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Random id of the batch.
    pub relay: KeyId,
    /// The way from the owner to the holder, both included; no site twice.
    pub path: Vec<SiteId>,
    /// Which hop this is: from `path[hop]` to `path[hop + 1]`.
    pub hop: u8,
    /// The link of this hop.
    pub link: LinkId,
    /// Where the key of this hop was drawn: 32 bytes for the tag, the rest is the pad.
    pub ranges: Vec<PadRange>,
    /// The keys under the pad.
    pub sealed: Vec<u8>,
    /// One-time tag over everything above.
    pub tag: Tag,
}

/// Why a relay ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayFailure {
    /// Not enough key on the next link.
    NoKey,
    /// The next site is not reached.
    NoHop,
    /// The ranges or the tag were refused.
    Refused,
    /// The last site holds enough.
    Full,
}

/// Keys for a master and a slave, cut from the stream of the pair keys named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Random id of the assignment; the same when it is repeated.
    pub assign: KeyId,
    /// The master SAE, served by the sender.
    pub master: SaeId,
    /// The slave SAE, served by the receiver.
    pub slave: SaeId,
    /// Bits of each key; a multiple of 8.
    pub size_bits: u32,
    /// Random ids of the keys supplied.
    pub ids: Vec<KeyId>,
    /// The pair keys, in the order of the stream.
    pub runs: Vec<Run>,
}

/// Why keys were not assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignFailure {
    /// A pair key is not held.
    Missing,
    /// The SAEs, the size or the ids were refused, or too much waits for delivery.
    Refused,
}

impl Assign {
    /// Bytes of one key.
    pub(crate) fn key_bytes(&self) -> usize {
        usize::try_from(self.size_bits / 8).expect("key sizes are small")
    }

    /// Whether the runs hold as much as the keys need and not a key more.
    pub(crate) fn fits(&self) -> bool {
        let held: usize = self.runs.iter().map(|run| run.bytes()).sum();
        let needed = self.key_bytes() * self.ids.len();
        held >= needed && held < needed + PAIR_KEY_BYTES
    }
}

impl Relay {
    /// The header as the tag covers it and as the message begins.
    pub(crate) fn header(relay: KeyId, path: &[SiteId], hop: u8, link: &LinkId, ranges: &[PadRange]) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(2).put(relay.0.as_bytes());
        w.u8(byte(path.len()));
        path.iter().for_each(|site| _ = w.bytes16(site.as_str().as_bytes()));
        w.u8(hop).bytes16(link.as_str().as_bytes()).u8(byte(ranges.len()));
        ranges.iter().for_each(|range| _ = w.u64(range.seq.0).u32(range.offset).u32(range.len));
        w.finish()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let relay = record::key_id(r, "relay")?;
        let sites = usize::from(r.u8("path")?);
        if !(2..=PATH_MAX).contains(&sites) {
            return Err(CodecError::Value { field: "path" });
        }
        let mut path = Vec::with_capacity(sites);
        for _ in 0..sites {
            let site = record::site(r, "path")?;
            if path.contains(&site) {
                return Err(CodecError::Value { field: "path" });
            }
            path.push(site);
        }
        let hop = r.u8("hop")?;
        if usize::from(hop) + 1 >= sites {
            return Err(CodecError::Value { field: "hop" });
        }
        let link = record::link(r)?;
        let count = usize::from(r.u8("ranges")?);
        if !(1..=RANGES_MAX).contains(&count) {
            return Err(CodecError::Value { field: "ranges" });
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let range = PadRange { seq: BlockSeq(r.u64("block")?), offset: r.u32("offset")?, len: r.u32("length")? };
            if range.len == 0 {
                return Err(CodecError::Value { field: "length" });
            }
            ranges.push(range);
        }
        let sealed = r.bytes16("keys", usize::from(BATCH_MAX) * PAIR_KEY_BYTES)?.to_vec();
        let drawn: u64 = ranges.iter().map(|range| u64::from(range.len)).sum();
        let whole = !sealed.is_empty() && sealed.len() % PAIR_KEY_BYTES == 0;
        if !whole || drawn != (sealed.len() + crypto::tag::OneTimeTagKey::LEN) as u64 {
            return Err(CodecError::Value { field: "keys" });
        }
        Ok(Self { relay, path, hop, link, ranges, sealed, tag: Tag(r.array("tag")?) })
    }
}

impl Message {
    /// The message as it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Pool(state) => {
                w.u8(VERSION).u8(1).bytes16(state.link.as_str().as_bytes()).u64(state.next).u64(state.bits);
                for blocks in [&state.receive, &state.send] {
                    w.count(blocks.len());
                    blocks.iter().for_each(|seq| _ = w.u64(seq.0));
                }
            }
            Self::Relay(relay) => {
                w.put(&Relay::header(relay.relay, &relay.path, relay.hop, &relay.link, &relay.ranges));
                w.bytes16(&relay.sealed).put(&relay.tag.0);
            }
            Self::RelayAck { relay } => _ = w.u8(VERSION).u8(3).put(relay.0.as_bytes()),
            Self::RelayNack { relay, reason } => {
                let reason = match reason {
                    RelayFailure::NoKey => 0,
                    RelayFailure::NoHop => 1,
                    RelayFailure::Refused => 2,
                    RelayFailure::Full => 3,
                };
                w.u8(VERSION).u8(4).put(relay.0.as_bytes()).u8(reason);
            }
            Self::RelayVoid { sets } => put_sets(w.u8(VERSION).u8(5), sets),
            Self::Held { sets } => put_sets(w.u8(VERSION).u8(6), sets),
            Self::Assign(assign) => {
                w.u8(VERSION).u8(7).put(assign.assign.0.as_bytes());
                w.bytes16(assign.master.as_str().as_bytes()).bytes16(assign.slave.as_str().as_bytes());
                put_ids(w.u32(assign.size_bits), &assign.ids);
                put_runs(&mut w, &assign.runs);
            }
            Self::AssignAck { assign } => _ = w.u8(VERSION).u8(8).put(assign.0.as_bytes()),
            Self::AssignNack { assign, reason } => {
                let reason = match reason {
                    AssignFailure::Missing => 0,
                    AssignFailure::Refused => 1,
                };
                w.u8(VERSION).u8(9).put(assign.0.as_bytes()).u8(reason);
            }
            Self::AssignVoid { assign, runs } => {
                w.u8(VERSION).u8(10).put(assign.0.as_bytes());
                put_runs(&mut w, runs);
            }
        }
        w.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`CodecError`] for anything that [`Message::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(CodecError::TooLong { field: "message", len: bytes.len(), max: MESSAGE_MAX });
        }
        let mut r = Reader::new(bytes);
        if r.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let message = match r.u8("type")? {
            1 => {
                let (link, next, bits) = (record::link(&mut r)?, r.u64("next")?, r.u64("bits")?);
                let (receive, send) = (blocks(&mut r, "receive")?, blocks(&mut r, "send")?);
                Self::Pool(PoolState { link, next, bits, receive, send })
            }
            2 => Self::Relay(Relay::decode(&mut r)?),
            3 => Self::RelayAck { relay: record::key_id(&mut r, "relay")? },
            4 => {
                let relay = record::key_id(&mut r, "relay")?;
                let reason = match r.u8("reason")? {
                    0 => RelayFailure::NoKey,
                    1 => RelayFailure::NoHop,
                    2 => RelayFailure::Refused,
                    3 => RelayFailure::Full,
                    _ => return Err(CodecError::Value { field: "reason" }),
                };
                Self::RelayNack { relay, reason }
            }
            5 => Self::RelayVoid { sets: sets(&mut r)? },
            6 => Self::Held { sets: sets(&mut r)? },
            7 => {
                let assign = record::key_id(&mut r, "assignment")?;
                let (master, slave) = (record::sae(&mut r, "master")?, record::sae(&mut r, "slave")?);
                let size_bits = r.u32("size")?;
                if size_bits % 8 != 0 || !(SIZE_MIN_BITS..=SIZE_MAX_BITS).contains(&size_bits) {
                    return Err(CodecError::Value { field: "size" });
                }
                let ids = ids(&mut r)?;
                Self::Assign(Assign { assign, master, slave, size_bits, ids, runs: runs(&mut r)? })
            }
            8 => Self::AssignAck { assign: record::key_id(&mut r, "assignment")? },
            9 => {
                let assign = record::key_id(&mut r, "assignment")?;
                let reason = match r.u8("reason")? {
                    0 => AssignFailure::Missing,
                    1 => AssignFailure::Refused,
                    _ => return Err(CodecError::Value { field: "reason" }),
                };
                Self::AssignNack { assign, reason }
            }
            10 => Self::AssignVoid { assign: record::key_id(&mut r, "assignment")?, runs: runs(&mut r)? },
            _ => return Err(CodecError::Value { field: "type" }),
        };
        r.end()?;
        Ok(message)
    }
}

fn byte(count: usize) -> u8 {
    u8::try_from(count).expect("paths and ranges are bounded far below 256")
}

fn put_ids(w: &mut Writer, ids: &[KeyId]) {
    w.count(ids.len());
    ids.iter().for_each(|id| _ = w.put(id.0.as_bytes()));
}

fn put_sets(w: &mut Writer, sets: &[KeySet]) {
    w.count(sets.len());
    sets.iter().for_each(|set| _ = w.put(set.relay.0.as_bytes()).u64(set.keys));
}

fn put_runs(w: &mut Writer, runs: &[Run]) {
    w.count(runs.len());
    runs.iter().for_each(|run| _ = w.put(run.relay.0.as_bytes()).u16(run.first).u16(run.count));
}

fn blocks(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<BlockSeq>, CodecError> {
    let count = r.count(field, BLOCKS_MAX)?;
    (0..count).map(|_| r.u64(field).map(BlockSeq)).collect()
}

fn ids(r: &mut Reader<'_>) -> Result<Vec<KeyId>, CodecError> {
    let count = r.count("ids", usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX))?;
    (0..count).map(|_| record::key_id(r, "ids")).collect()
}

fn sets(r: &mut Reader<'_>) -> Result<Vec<KeySet>, CodecError> {
    let count = r.count("sets", HELD_BATCHES_MAX)?;
    let set = |r: &mut Reader<'_>| {
        let set = KeySet { relay: record::key_id(r, "sets")?, keys: r.u64("keys")? };
        if set.keys != 0 { Ok(set) } else { Err(CodecError::Value { field: "keys" }) }
    };
    (0..count).map(|_| set(r)).collect()
}

fn runs(r: &mut Reader<'_>) -> Result<Vec<Run>, CodecError> {
    let count = r.count("runs", RUNS_MAX)?;
    let run = |r: &mut Reader<'_>| {
        let run = Run { relay: record::key_id(r, "runs")?, first: r.u16("first")?, count: r.u16("count")? };
        let inside = run.first.checked_add(run.count).is_some_and(|end| end <= BATCH_MAX);
        if run.count > 0 && inside { Ok(run) } else { Err(CodecError::Value { field: "runs" }) }
    };
    (0..count).map(|_| run(r)).collect()
}

#[cfg(test)]
mod tests;
