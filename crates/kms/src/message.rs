//! What key management entities say to each other (interface Kx), byte by byte in `docs/formats/kx.md`.
//!
//! Provided: bounded encoding, decoding that accepts exactly what encoding makes.
//! Not provided: authentication of the sender (the connection's), of relayed key (the tag in [`Relay`]).

use crypto::manipulation::{self, Proof};
use crypto::tag::{OneTimeTagKey, Tag};
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId};

pub use self::assign::{Assign, AssignFailure, Carried, WithdrawState, WithdrawStep};
use self::assign::{put_ids, put_runs, runs, withdrawn_ids};
use crate::config::{BATCH_MAX, BLOCKS_MAX, PAIR_KEY_BYTES, PATH_MAX, RANGES_MAX, SETS_MAX, SHARES_MAX, WAITS_MAX};
pub use crate::pool::{PadRange, PoolState};
use crate::record;
use crate::stock::DIGEST_PARTS;
pub use crate::stock::{Digest, KeyRange, KeySet, Run};

pub(crate) mod assign;

/// Version of the format.
pub const VERSION: u8 = 3;
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
        /// Shown for a batch that is combined from several shares: that the sender had all of them.
        proof: Option<[u8; Proof::LEN]>,
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
    /// All keys of the receiver in a range of relays that the sender holds; answers [`Message::HeldAsk`].
    Held {
        /// The range that the answer covers; from the start of what was asked.
        range: KeyRange,
        /// The last relay that was asked for: if it lies behind the range, the owner asks on.
        end: KeyId,
        /// Which keys, ascending.
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
    /// The keys are stored and another network is asked to take them; to the owner, who waits on.
    AssignPending {
        /// Which assignment.
        assign: KeyId,
    },
    /// Destroy imported keys that the sender carried to the receiver.
    Withdraw {
        /// Random id of the withdrawal.
        withdraw: KeyId,
        /// What is to be done.
        step: WithdrawStep,
        /// The master SAE, of another network.
        initiator: SaeId,
        /// Which keys; one or more.
        ids: Vec<KeyId>,
    },
    /// Answer to a step of a withdrawal.
    Withdrawn {
        /// Which withdrawal.
        withdraw: KeyId,
        /// Which step.
        step: WithdrawStep,
        /// What became of it.
        state: WithdrawState,
    },
    /// Shares of the receiver's batches wait here: for key of the next hop, or at the holder for the other shares.
    RelayWait {
        /// Relay and number of the share.
        waits: Vec<(KeyId, u8)>,
    },
    /// Digest of all keys of the receiver that the sender holds.
    HeldDigest(Box<Digest>),
    /// Which keys of a range does the receiver hold? To the holder.
    HeldAsk {
        /// Which relays.
        range: KeyRange,
    },
    /// How old the sender's records are, and what it remembers of the receiver's.
    Standing(Standing),
}

/// A number that grows with every spending of key which is made durable, and the run of the process that says so. A
/// site whose records were set back comes with a new run that began at a lower number than it had said before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Random number of the run.
    pub run: u64,
    /// The number at which the run began.
    pub began: u64,
    /// The number now.
    pub at: u64,
    /// The run that the receiver last told of; 0 with `heard` 0 if it never did.
    pub heard_run: u64,
    /// The highest number that the receiver told.
    pub heard: u64,
}

/// Which of the shares that make up a batch by XOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareOf {
    /// Its number.
    pub index: u8,
    /// How many there are, at least 1.
    pub count: u8,
}

impl ShareOf {
    /// The batch in one piece.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Bytes of the check that follows the keys: only what is combined has one.
    #[must_use]
    pub fn check_bytes(self) -> usize {
        if self.count > 1 { manipulation::CHECK_LEN } else { 0 }
    }

    /// Keys in so many bytes of a share.
    #[must_use]
    pub fn keys(self, bytes: usize) -> usize {
        bytes.saturating_sub(self.check_bytes()) / PAIR_KEY_BYTES
    }
}

/// A batch of keys over one hop: padded and tagged with key of the hop's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Random id of the batch.
    pub relay: KeyId,
    /// Which share of the batch the keys are; a batch in one piece is one share.
    pub share: ShareOf,
    /// The way from the owner to the holder, both included; no site twice.
    pub path: Vec<SiteId>,
    /// Which hop this is: from `path[hop]` to `path[hop + 1]`.
    pub hop: u8,
    /// The link of this hop.
    pub link: LinkId,
    /// Where the key of this hop was drawn: 32 bytes for the tag, the rest is the pad.
    pub ranges: Vec<PadRange>,
    /// The keys, or a share of them and their check, under the pad.
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
    /// The shares do not fit together.
    Unconfirmed,
}

impl Relay {
    /// The header as the tag covers it and as the message begins.
    pub(crate) fn header(
        relay: KeyId,
        share: ShareOf,
        path: &[SiteId],
        hop: u8,
        link: &LinkId,
        ranges: &[PadRange],
    ) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(2).put(relay.0.as_bytes()).u8(share.index).u8(share.count);
        w.u8(byte(path.len()));
        path.iter().for_each(|site| _ = w.bytes16(site.as_str().as_bytes()));
        w.u8(hop).bytes16(link.as_str().as_bytes()).u8(byte(ranges.len()));
        ranges.iter().for_each(|range| _ = w.u64(range.seq.0).u32(range.offset).u32(range.len));
        w.finish()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let relay = record::key_id(r, "relay")?;
        let share = ShareOf { index: r.u8("share")?, count: r.u8("shares")? };
        if share.index >= share.count || share.count > SHARES_MAX {
            return Err(CodecError::Value { field: "shares" });
        }
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
        let sealed = r.bytes16("keys", usize::from(BATCH_MAX) * PAIR_KEY_BYTES + share.check_bytes())?.to_vec();
        let drawn: u64 = ranges.iter().map(|range| u64::from(range.len)).sum();
        let keys = share.keys(sealed.len());
        let whole = keys > 0 && sealed.len() == keys * PAIR_KEY_BYTES + share.check_bytes();
        if !whole || drawn != (sealed.len() + OneTimeTagKey::LEN) as u64 {
            return Err(CodecError::Value { field: "keys" });
        }
        Ok(Self { relay, share, path, hop, link, ranges, sealed, tag: Tag(r.array("tag")?) })
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
                    blocks.iter().for_each(|(seq, from)| _ = w.u64(seq.0).u32(*from));
                }
            }
            Self::Relay(relay) => {
                w.put(&Relay::header(relay.relay, relay.share, &relay.path, relay.hop, &relay.link, &relay.ranges));
                w.bytes16(&relay.sealed).put(&relay.tag.0);
            }
            Self::RelayAck { relay, proof } => {
                w.u8(VERSION).u8(3).put(relay.0.as_bytes()).u8(u8::from(proof.is_some()));
                proof.iter().for_each(|proof| _ = w.put(proof));
            }
            Self::RelayNack { relay, reason } => {
                let reason = match reason {
                    RelayFailure::NoKey => 0,
                    RelayFailure::NoHop => 1,
                    RelayFailure::Refused => 2,
                    RelayFailure::Full => 3,
                    RelayFailure::Unconfirmed => 4,
                };
                w.u8(VERSION).u8(4).put(relay.0.as_bytes()).u8(reason);
            }
            Self::RelayVoid { sets } => put_sets(w.u8(VERSION).u8(5), sets),
            Self::Held { range, end, sets } => {
                put_range(w.u8(VERSION).u8(6), *range);
                put_sets(w.put(end.0.as_bytes()), sets);
            }
            Self::Assign(assign) => assign.put(w.u8(VERSION).u8(7)),
            Self::AssignAck { assign } => _ = w.u8(VERSION).u8(8).put(assign.0.as_bytes()),
            Self::AssignNack { assign, reason } => {
                w.u8(VERSION).u8(9).put(assign.0.as_bytes()).u8(reason.number());
            }
            Self::AssignVoid { assign, runs } => {
                w.u8(VERSION).u8(10).put(assign.0.as_bytes());
                put_runs(&mut w, runs);
            }
            Self::AssignPending { assign } => _ = w.u8(VERSION).u8(16).put(assign.0.as_bytes()),
            Self::Withdraw { withdraw, step, initiator, ids } => {
                w.u8(VERSION).u8(17).put(withdraw.0.as_bytes()).u8(step.number());
                put_ids(w.bytes16(initiator.as_str().as_bytes()), ids);
            }
            Self::Withdrawn { withdraw, step, state } => {
                w.u8(VERSION).u8(18).put(withdraw.0.as_bytes()).u8(step.number()).u8(state.number());
            }
            Self::RelayWait { waits } => {
                w.u8(VERSION).u8(32).count(waits.len());
                waits.iter().for_each(|(relay, share)| _ = w.put(relay.0.as_bytes()).u8(*share));
            }
            Self::HeldDigest(digest) => {
                w.u8(VERSION).u8(33);
                digest.0.iter().for_each(|part| _ = w.u64(*part));
            }
            Self::HeldAsk { range } => put_range(w.u8(VERSION).u8(34), *range),
            Self::Standing(standing) => {
                w.u8(VERSION).u8(35).u64(standing.run).u64(standing.began).u64(standing.at);
                w.u64(standing.heard_run).u64(standing.heard);
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
            3 => {
                let relay = record::key_id(&mut r, "relay")?;
                let proof = match r.u8("proof")? {
                    0 => None,
                    1 => Some(r.array("proof")?),
                    _ => return Err(CodecError::Value { field: "proof" }),
                };
                Self::RelayAck { relay, proof }
            }
            4 => {
                let relay = record::key_id(&mut r, "relay")?;
                let reason = match r.u8("reason")? {
                    0 => RelayFailure::NoKey,
                    1 => RelayFailure::NoHop,
                    2 => RelayFailure::Refused,
                    3 => RelayFailure::Full,
                    4 => RelayFailure::Unconfirmed,
                    _ => return Err(CodecError::Value { field: "reason" }),
                };
                Self::RelayNack { relay, reason }
            }
            5 => Self::RelayVoid { sets: sets(&mut r)? },
            6 => {
                let (range, end) = (key_range(&mut r)?, record::key_id(&mut r, "end")?);
                let sets = sets(&mut r)?;
                let ascend = sets.windows(2).all(|pair| pair[0].relay < pair[1].relay);
                if !ascend || end < range.upto || !sets.iter().all(|set| range.has(set.relay)) {
                    return Err(CodecError::Value { field: "sets" });
                }
                Self::Held { range, end, sets }
            }
            7 => Self::Assign(Assign::decode(&mut r)?),
            8 => Self::AssignAck { assign: record::key_id(&mut r, "assignment")? },
            9 => {
                let assign = record::key_id(&mut r, "assignment")?;
                Self::AssignNack { assign, reason: AssignFailure::decode(&mut r)? }
            }
            10 => Self::AssignVoid { assign: record::key_id(&mut r, "assignment")?, runs: runs(&mut r)? },
            16 => Self::AssignPending { assign: record::key_id(&mut r, "assignment")? },
            17 => Self::Withdraw {
                withdraw: record::key_id(&mut r, "withdrawal")?,
                step: WithdrawStep::decode(&mut r)?,
                initiator: record::sae(&mut r, "initiator")?,
                ids: withdrawn_ids(&mut r)?,
            },
            18 => Self::Withdrawn {
                withdraw: record::key_id(&mut r, "withdrawal")?,
                step: WithdrawStep::decode(&mut r)?,
                state: WithdrawState::decode(&mut r)?,
            },
            32 => {
                let count = r.count("waits", WAITS_MAX)?;
                let wait = |r: &mut Reader<'_>| Ok((record::key_id(r, "relay")?, r.u8("share")?));
                Self::RelayWait { waits: (0..count).map(|_| wait(&mut r)).collect::<Result<_, CodecError>>()? }
            }
            33 => {
                let mut digest = Digest([0; DIGEST_PARTS]);
                for part in &mut digest.0 {
                    *part = r.u64("digest")?;
                }
                Self::HeldDigest(Box::new(digest))
            }
            34 => Self::HeldAsk { range: key_range(&mut r)? },
            35 => {
                let (run, began, at) = (r.u64("run")?, r.u64("began")?, r.u64("at")?);
                if at < began {
                    return Err(CodecError::Value { field: "at" });
                }
                Self::Standing(Standing { run, began, at, heard_run: r.u64("heard run")?, heard: r.u64("heard")? })
            }
            _ => return Err(CodecError::Value { field: "type" }),
        };
        r.end()?;
        Ok(message)
    }
}

fn byte(count: usize) -> u8 {
    u8::try_from(count).expect("paths and ranges are bounded far below 256")
}

fn put_range(w: &mut Writer, range: KeyRange) {
    w.put(range.from.0.as_bytes()).put(range.upto.0.as_bytes());
}

fn key_range(r: &mut Reader<'_>) -> Result<KeyRange, CodecError> {
    let range = KeyRange { from: record::key_id(r, "from")?, upto: record::key_id(r, "upto")? };
    if range.from <= range.upto { Ok(range) } else { Err(CodecError::Value { field: "range" }) }
}

fn put_sets(w: &mut Writer, sets: &[KeySet]) {
    w.count(sets.len());
    sets.iter().for_each(|set| _ = w.put(set.relay.0.as_bytes()).u64(set.keys));
}

fn blocks(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<(BlockSeq, u32)>, CodecError> {
    let count = r.count(field, BLOCKS_MAX)?;
    (0..count).map(|_| Ok((BlockSeq(r.u64(field)?), r.u32("from")?))).collect()
}

fn sets(r: &mut Reader<'_>) -> Result<Vec<KeySet>, CodecError> {
    let count = r.count("sets", SETS_MAX)?;
    let set = |r: &mut Reader<'_>| {
        let set = KeySet { relay: record::key_id(r, "sets")?, keys: r.u64("keys")? };
        if set.keys != 0 { Ok(set) } else { Err(CodecError::Value { field: "keys" }) }
    };
    (0..count).map(|_| set(r)).collect()
}

#[cfg(test)]
mod tests;
