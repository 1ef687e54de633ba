//! What the stream cores of two sites say to each other, byte by byte in `docs/formats/kx-stream.md`.
//!
//! A message names a stream by its id and its run, a random number of its owner: a stream that is opened anew under the
//! same id is another one. All messages may come twice, late, out of order or not at all.

use etsi::etsi004::{Ksid, Mimetype, Qos};
use types::codec::{CodecError, Reader, Writer};
use types::id::{KeyId, SaeId};

use crate::config::NUMBER_MAX;
use crate::record::{self, sae};

/// Version of the format.
pub const VERSION: u8 = 1;

/// Which of a stream's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Where it was opened first; allots key.
    Owner,
    /// The other end.
    Guest,
}

impl Role {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Owner => Self::Guest,
            Self::Guest => Self::Owner,
        }
    }
}

/// What an end's application did. It only goes on, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// It did not open the stream yet.
    Absent,
    /// It opened the stream.
    Open,
    /// It closed the stream.
    Closed,
}

/// Why the other site does not take a new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The id is used by others there.
    InUse,
    /// The application is not served there, or a limit is reached.
    NotServed,
}

/// Why the owner has no chunk for the guest now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Not enough key.
    Key,
    /// The KME does not reach the other one.
    Connection,
}

/// A message between two stream cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which stream.
    pub ksid: Ksid,
    /// Which run of it.
    pub run: u64,
    /// What is said.
    pub body: Body,
}

/// What is said of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The sender owns a new stream.
    Announce {
        /// Whether the receiver acknowledged it before.
        known: bool,
        /// The owner's application.
        owner: SaeId,
        /// The guest's application.
        guest: SaeId,
        /// What was granted.
        qos: Qos,
    },
    /// The guest's site knows the stream.
    Announced,
    /// The guest's site does not take the stream.
    Refused {
        /// Why.
        reason: Objection,
    },
    /// What the application of the sender's end did.
    Presence {
        /// The end that it is said to.
        to: Role,
        /// What it did.
        party: Party,
    },
    /// [`Body::Presence`] is noted.
    Noted {
        /// The end that said it.
        to: Role,
        /// What was noted.
        party: Party,
    },
    /// The guest's application waits for a chunk.
    Want {
        /// Which one.
        index: u32,
    },
    /// There is no chunk to give now.
    Unmet {
        /// Why.
        lack: Lack,
    },
    /// Keys that the KME supplied for chunks, `per` for each, from the owner.
    Chunks {
        /// The owner's application, master of the keys.
        owner: SaeId,
        /// The guest's application, their slave.
        guest: SaeId,
        /// Index of the first chunk.
        first: u32,
        /// Keys of one chunk.
        per: u8,
        /// The keys in order.
        ids: Vec<KeyId>,
    },
    /// The guest's site noted the keys, or has no room for them now.
    Accepted {
        /// Index of the first chunk.
        first: u32,
        /// Whether they are noted.
        taken: bool,
    },
    /// The sender has no such end, or not any more.
    Gone {
        /// The end that it is said to.
        to: Role,
    },
}

impl Message {
    /// The message as it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self.body.number()).put(&self.ksid.0).u64(self.run);
        match &self.body {
            Body::Announce { known, owner, guest, qos } => {
                w.u8(u8::from(*known)).bytes16(owner.as_str().as_bytes()).bytes16(guest.as_str().as_bytes());
                w.u32(qos.key_chunk_size).u32(qos.max_bps).u32(qos.min_bps).u32(qos.jitter);
                w.u32(qos.priority).u32(qos.timeout_ms).u32(qos.ttl_s).bytes16(qos.mimetype.as_str().as_bytes());
            }
            Body::Announced => {}
            Body::Refused { reason } => _ = w.u8(position(&OBJECTIONS, reason)),
            Body::Presence { to, party } | Body::Noted { to, party } => {
                w.u8(position(&ROLES, to)).u8(position(&PARTIES, party));
            }
            Body::Want { index } => _ = w.u32(*index),
            Body::Unmet { lack } => _ = w.u8(position(&LACKS, lack)),
            Body::Chunks { owner, guest, first, per, ids } => {
                w.bytes16(owner.as_str().as_bytes()).bytes16(guest.as_str().as_bytes());
                w.u32(*first).u8(*per).count(ids.len());
                ids.iter().for_each(|id| _ = w.put(id.0.as_bytes()));
            }
            Body::Accepted { first, taken } => _ = w.u32(*first).u8(u8::from(*taken)),
            Body::Gone { to } => _ = w.u8(position(&ROLES, to)),
        }
        w.finish()
    }

    /// Reads a message; accepts exactly what [`Self::encode`] makes.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let number = r.u8("type")?;
        let (ksid, run) = (Ksid(r.array("stream")?), r.u64("run")?);
        if ksid.is_null() {
            return Err(CodecError::Value { field: "stream" });
        }
        let body = Body::decode(number, &mut r)?;
        r.end()?;
        Ok(Self { ksid, run, body })
    }
}

impl Body {
    fn number(&self) -> u8 {
        match self {
            Self::Announce { .. } => 1,
            Self::Announced => 2,
            Self::Refused { .. } => 3,
            Self::Presence { .. } => 4,
            Self::Noted { .. } => 5,
            Self::Want { .. } => 6,
            Self::Unmet { .. } => 7,
            Self::Chunks { .. } => 8,
            Self::Accepted { .. } => 9,
            Self::Gone { .. } => 10,
        }
    }

    fn decode(number: u8, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match number {
            1 => Self::Announce {
                known: flag(r, "known")?,
                owner: sae(r, "owner")?,
                guest: sae(r, "guest")?,
                qos: Qos {
                    key_chunk_size: r.u32("chunk size")?,
                    max_bps: r.u32("most")?,
                    min_bps: r.u32("fewest")?,
                    jitter: r.u32("jitter")?,
                    priority: r.u32("priority")?,
                    timeout_ms: r.u32("timeout")?,
                    ttl_s: r.u32("ttl")?,
                    mimetype: Mimetype::new(r.text16("mimetype", 255)?)
                        .ok_or(CodecError::Value { field: "mimetype" })?,
                },
            },
            2 => Self::Announced,
            3 => Self::Refused { reason: one_of(r, "reason", &OBJECTIONS)? },
            4 => Self::Presence { to: one_of(r, "to", &ROLES)?, party: one_of(r, "party", &PARTIES)? },
            5 => Self::Noted { to: one_of(r, "to", &ROLES)?, party: one_of(r, "party", &PARTIES)? },
            6 => Self::Want { index: r.u32("index")? },
            7 => Self::Unmet { lack: one_of(r, "lack", &LACKS)? },
            8 => decode_chunks(r)?,
            9 => Self::Accepted { first: r.u32("first")?, taken: flag(r, "taken")? },
            10 => Self::Gone { to: one_of(r, "to", &ROLES)? },
            _ => return Err(CodecError::Value { field: "type" }),
        })
    }
}

fn decode_chunks(r: &mut Reader<'_>) -> Result<Body, CodecError> {
    let (owner, guest) = (sae(r, "owner")?, sae(r, "guest")?);
    let (first, per) = (r.u32("first")?, r.u8("per")?);
    let count = r.count("keys", usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX))?;
    if per == 0 || count == 0 || count % usize::from(per) != 0 {
        return Err(CodecError::Value { field: "keys" });
    }
    let chunks = u32::try_from(count / usize::from(per)).expect("it was checked to be small");
    if first.checked_add(chunks - 1).is_none() {
        return Err(CodecError::Value { field: "first" });
    }
    let ids = (0..count).map(|_| record::key_id(r, "keys")).collect::<Result<Vec<_>, _>>()?;
    Ok(Body::Chunks { owner, guest, first, per, ids })
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, CodecError> {
    one_of(r, field, &[false, true])
}

fn one_of<T: Copy>(r: &mut Reader<'_>, field: &'static str, values: &[T]) -> Result<T, CodecError> {
    values.get(usize::from(r.u8(field)?)).copied().ok_or(CodecError::Value { field })
}

fn position<T: PartialEq>(values: &[T], value: &T) -> u8 {
    let found = values.iter().position(|one| one == value).expect("the lists hold every value");
    u8::try_from(found).expect("the lists are short")
}

const ROLES: [Role; 2] = [Role::Owner, Role::Guest];
const PARTIES: [Party; 3] = [Party::Absent, Party::Open, Party::Closed];
const OBJECTIONS: [Objection; 2] = [Objection::InUse, Objection::NotServed];
const LACKS: [Lack; 2] = [Lack::Key, Lack::Connection];
