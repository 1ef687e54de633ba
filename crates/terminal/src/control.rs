//! Messages inside control records: streams, batches, protection levels, liveness.
//!
//! Bytes: `docs/formats/record.md`, "Control messages". A payload record's plaintext is `stream u16 | bytes`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BatchId, KeyId, Uuid};

/// Key ids in one offer, at most.
pub const OFFER_IDS_MAX: usize = 512;
/// Bytes of a reason, at most.
pub const REASON_MAX: usize = 120;

/// One plain connection inside a session; even numbers are opened by the control center, odd ones by the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u16);

/// What the keys of an offer are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BatchUse {
    /// Pad and epoch seeds of records.
    Records = 0,
    /// Slots for opening sessions.
    Openings = 1,
}

/// A message between the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// A plain connection was accepted; the other end is to dial.
    Open(StreamId),
    /// No more bytes will come (FIN).
    Finish(StreamId),
    /// The connection is gone (RST).
    Reset(StreamId),
    /// That many bytes were delivered and may be sent anew.
    Credit {
        /// Which stream.
        stream: StreamId,
        /// How many bytes.
        bytes: u32,
    },
    /// The sender changed its protection level.
    Level {
        /// Number of the level left.
        from: u8,
        /// Number of the level taken.
        to: u8,
        /// Why.
        reason: String,
    },
    /// Keys for a batch: the terminal is to collect them by id.
    Offer {
        /// The new batch.
        batch: BatchId,
        /// What it is for.
        purpose: BatchUse,
        /// Its check value.
        check: Tag,
        /// The keys, in the order in which their bytes make the batch.
        ids: Vec<KeyId>,
    },
    /// The batch is installed durably.
    Installed(BatchId),
    /// The batch could not be installed; both ends forget it.
    Declined {
        /// Which batch.
        batch: BatchId,
        /// Why.
        reason: String,
    },
    /// A sign of life.
    Ping,
    /// The session ends.
    Close {
        /// Why.
        reason: String,
    },
}

impl Control {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Open(stream) => w.u8(1).u16(stream.0),
            Self::Finish(stream) => w.u8(2).u16(stream.0),
            Self::Reset(stream) => w.u8(3).u16(stream.0),
            Self::Credit { stream, bytes } => w.u8(4).u16(stream.0).u32(*bytes),
            Self::Level { from, to, reason } => w.u8(5).u8(*from).u8(*to).bytes16(short(reason).as_bytes()),
            Self::Offer { batch, purpose, check, ids } => {
                w.u8(6).u32(batch.0).u8(*purpose as u8).put(&check.0).count(ids.len());
                for id in ids {
                    w.put(id.0.as_bytes());
                }
                &mut w
            }
            Self::Installed(batch) => w.u8(7).u32(batch.0),
            Self::Declined { batch, reason } => w.u8(8).u32(batch.0).bytes16(short(reason).as_bytes()),
            Self::Ping => w.u8(9),
            Self::Close { reason } => w.u8(10).bytes16(short(reason).as_bytes()),
        };
        w.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let message = match r.u8("message")? {
            1 => Self::Open(StreamId(r.u16("stream")?)),
            2 => Self::Finish(StreamId(r.u16("stream")?)),
            3 => Self::Reset(StreamId(r.u16("stream")?)),
            4 => Self::Credit { stream: StreamId(r.u16("stream")?), bytes: r.u32("credit")? },
            5 => Self::Level { from: r.u8("from")?, to: r.u8("to")?, reason: reason(&mut r)? },
            6 => {
                let batch = BatchId(r.u32("batch")?);
                let purpose = match r.u8("use")? {
                    0 => BatchUse::Records,
                    1 => BatchUse::Openings,
                    _ => return Err(CodecError::Value { field: "use" }),
                };
                let check = Tag(r.array("check")?);
                let count = r.count("key ids", OFFER_IDS_MAX)?;
                let ids = (0..count).map(|_| Ok(KeyId(Uuid::from_bytes(r.array("key id")?))));
                Self::Offer { batch, purpose, check, ids: ids.collect::<Result<_, CodecError>>()? }
            }
            7 => Self::Installed(BatchId(r.u32("batch")?)),
            8 => Self::Declined { batch: BatchId(r.u32("batch")?), reason: reason(&mut r)? },
            9 => Self::Ping,
            10 => Self::Close { reason: reason(&mut r)? },
            _ => return Err(CodecError::Value { field: "message" }),
        };
        r.end()?;
        Ok(message)
    }
}

fn reason(r: &mut Reader<'_>) -> Result<String, CodecError> {
    Ok(r.text16("reason", REASON_MAX)?.to_string())
}

fn short(reason: &str) -> &str {
    let end = (0..=REASON_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    &reason[..end]
}
