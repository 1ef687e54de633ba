//! Messages between the two ends of a vendor link and their bytes; `docs/formats/vendor.md` is the specification.

use std::collections::BTreeSet;

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, KeyId, LinkId, Uuid};
use types::quantum::Role;

use super::{BLOCK_BYTES_MAX, BLOCK_KEYS_MAX, VendorCause};
use crate::authenticate::{PIECE_TAGS, role_number};

/// Version of the protocol. Far from those of the simulated links, so that ends of different sources notice.
pub(super) const VERSION: u16 = 0x5601;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// Both: who is there and how far.
    Hello(Hello),
    /// A greeting of another version.
    OtherVersion(u16),
    /// Both: nothing to say, still here.
    Alive,
    /// Alice: keys that her device gave her.
    Offer(Offer),
    /// Bob: his device gave him the same ids.
    Fetched {
        /// Which block.
        block: BlockSeq,
    },
    /// Bob: he has not got them.
    Missing {
        /// Which block.
        block: BlockSeq,
        /// Why.
        cause: VendorCause,
    },
    /// Alice: the block is to be key.
    Commit(Commit),
    /// Bob: what he decided.
    Answer(Answer),
}

/// A greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) link: String,
    pub(super) role: Role,
    pub(super) next_block: BlockSeq,
    /// Alice: the block before the next has no answer yet.
    pub(super) pending: bool,
}

/// Keys that Bob is to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) block: BlockSeq,
    /// Bytes of all keys together.
    pub(super) bytes: u32,
    /// Keys that one request to the device may ask for.
    pub(super) per_request: u16,
    pub(super) ids: Vec<KeyId>,
}

/// Alice's word that a block is to be key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Commit {
    pub(super) block: BlockSeq,
    /// Of the outer tag; the inner one has the next.
    pub(super) counter: u64,
    /// Tags to add to Alice's stream and to Bob's.
    pub(super) refill: [u64; 2],
    /// The inner tag: hash of the key.
    pub(super) comparison: Tag,
    pub(super) tag: Tag,
}

/// Bob's decision; the same for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) block: BlockSeq,
    pub(super) counter: u64,
    /// `None`: the block is key.
    pub(super) refused: Option<VendorCause>,
    pub(super) tag: Tag,
}

impl Message {
    /// Its name in errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) | Self::OtherVersion(_) => "Hello",
            Self::Alive => "Alive",
            Self::Offer(_) => "Offer",
            Self::Fetched { .. } => "Fetched",
            Self::Missing { .. } => "Missing",
            Self::Commit(_) => "Commit",
            Self::Answer(_) => "Answer",
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Hello(hello) => {
                w.u8(1).u16(VERSION).bytes16(hello.link.as_bytes()).u8(role_number(hello.role));
                w.u64(hello.next_block.0).u8(u8::from(hello.pending));
            }
            Self::OtherVersion(version) => _ = w.u8(1).u16(*version),
            Self::Alive => _ = w.u8(2),
            Self::Offer(offer) => {
                w.u8(3).u64(offer.block.0).u32(offer.bytes).u16(offer.per_request).count(offer.ids.len());
                offer.ids.iter().for_each(|id| _ = w.put(id.0.as_bytes()));
            }
            Self::Fetched { block } => _ = w.u8(4).u64(block.0),
            Self::Missing { block, cause } => _ = w.u8(5).u64(block.0).u8(*cause as u8),
            Self::Commit(commit) => _ = w.put(&commit.untagged()).put(&commit.tag.0),
            Self::Answer(answer) => _ = w.put(&answer.untagged()).put(&answer.tag.0),
        }
        w.finish()
    }

    pub(super) fn decode(wire: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(wire);
        let message = match r.u8("kind")? {
            1 => {
                let version = r.u16("version")?;
                if version != VERSION {
                    return Ok(Self::OtherVersion(version));
                }
                Self::Hello(Hello::read(&mut r)?)
            }
            2 => Self::Alive,
            3 => Self::Offer(Offer::read(&mut r)?),
            4 => Self::Fetched { block: BlockSeq(r.u64("block")?) },
            5 => Self::Missing { block: BlockSeq(r.u64("block")?), cause: cause(r.u8("cause")?)? },
            6 => Self::Commit(Commit {
                block: BlockSeq(r.u64("block")?),
                counter: r.u64("counter")?,
                refill: [refill(&mut r)?, refill(&mut r)?],
                comparison: Tag(r.array("comparison")?),
                tag: Tag(r.array("tag")?),
            }),
            7 => Self::Answer(Answer {
                block: BlockSeq(r.u64("block")?),
                counter: r.u64("counter")?,
                refused: match r.u8("decision")? {
                    0 => None,
                    number => Some(cause(number)?),
                },
                tag: Tag(r.array("tag")?),
            }),
            _ => return Err(CodecError::Value { field: "kind" }),
        };
        r.end()?;
        Ok(message)
    }
}

impl Hello {
    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let link = r.text16("link", LINK_ID_MAX)?.to_owned();
        LinkId::new(&link).map_err(|_| CodecError::Value { field: "link" })?;
        let role = match r.u8("role")? {
            0 => Role::Alice,
            1 => Role::Bob,
            _ => return Err(CodecError::Value { field: "role" }),
        };
        let next_block = BlockSeq(r.u64("next block")?);
        let pending = match r.u8("pending")? {
            0 => false,
            1 => true,
            _ => return Err(CodecError::Value { field: "pending" }),
        };
        Ok(Self { link, role, next_block, pending })
    }
}

impl Offer {
    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let block = BlockSeq(r.u64("block")?);
        let bytes = r.u32("bytes")?;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > BLOCK_BYTES_MAX) {
            return Err(CodecError::Value { field: "bytes" });
        }
        let per_request = r.u16("keys per request")?;
        let count = r.count("ids", BLOCK_KEYS_MAX)?;
        if count == 0 || per_request == 0 {
            return Err(CodecError::Value { field: "ids" });
        }
        let id = |_| Ok(KeyId(Uuid::from_bytes(r.array("id")?)));
        let ids = (0..count).map(id).collect::<Result<Vec<_>, _>>()?;
        if ids.iter().collect::<BTreeSet<_>>().len() < count {
            return Err(CodecError::Value { field: "ids" });
        }
        Ok(Self { block, bytes, per_request, ids })
    }
}

impl Commit {
    /// The message without its outer tag.
    pub(super) fn untagged(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(6).u64(self.block.0).u64(self.counter).u64(self.refill[0]).u64(self.refill[1]).put(&self.comparison.0);
        w.finish()
    }
}

impl Answer {
    /// The message without its tag.
    pub(super) fn untagged(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(7).u64(self.block.0).u64(self.counter).u8(self.refused.map_or(0, |cause| cause as u8));
        w.finish()
    }
}

/// For fuzzing: decodes and encodes again.
pub(crate) fn reencode(wire: &[u8]) -> Option<Vec<u8>> {
    match Message::decode(wire) {
        Ok(Message::OtherVersion(_)) | Err(_) => None,
        Ok(message) => Some(message.encode()),
    }
}

pub(super) fn cause(number: u8) -> Result<VendorCause, CodecError> {
    VendorCause::from_number(number).ok_or(CodecError::Value { field: "cause" })
}

fn refill(r: &mut Reader<'_>) -> Result<u64, CodecError> {
    let tags = r.u64("refill")?;
    if tags > PIECE_TAGS { Err(CodecError::Value { field: "refill" }) } else { Ok(tags) }
}

const LINK_ID_MAX: usize = 32;
