//! Messages of the classical channel and their bytes; `docs/formats/link.md` is the specification.
//!
//! A message is one byte of kind and its fields; that of a [`Step`] of a block has the block's number first. The
//! channel frames messages and keeps their order; nothing here is secret. Every count is checked against its maximum
//! before memory is taken for it.

mod step;
#[cfg(test)]
pub(crate) mod tests;

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, LinkId};
use types::quantum::Role;

pub(crate) use self::step::{Announcement, Estimate, Finish, SiftAnswer, Step};
use crate::authenticate::role_number;

/// Version of the protocol.
pub const PROTOCOL_VERSION: u16 = 2;
/// Largest message in bytes; the shell refuses a longer frame before it reads it.
pub const MESSAGE_MAX: usize = 8 << 20;
/// Most detections in one announcement.
pub const FRAME_DETECTIONS_MAX: usize = 1 << 16;
/// Most sifted bits in a block.
pub const BLOCK_BITS_MAX: usize = 10_000_000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// What a message is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number),* }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// First message of both ends: version and configuration.
    Hello = 1,
    /// Alice: which block is committed, tagged.
    Verdict = 2,
    /// Bob: slots and bases of detections; the first of a block begins it.
    Sift = 3,
    /// Alice: which of them match, and their intensities.
    SiftAnswer = 4,
    /// Alice: the announced session is not hers.
    Refused = 5,
    /// Bob: his test-basis bits.
    TestBits = 6,
    /// Alice: test-basis errors, mode of distillation, seed of reconciliation.
    Estimate = 7,
    /// Bob: which groups of advantage distillation he keeps.
    Kept = 8,
    /// Bob: a round of questions.
    Ask = 9,
    /// Alice: parities.
    Parities = 10,
    /// Bob: all questions are asked.
    Corrected = 11,
    /// Alice: hash of her key.
    Verify = 12,
    /// Bob: whether his key has the same.
    Verified = 13,
    /// Alice: counts, key length, seed, tag over the transcript.
    Finish = 14,
    /// Bob: his tag over the transcript.
    Confirm = 15,
    /// Either: gives the block up.
    Abort = 16,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Hello(Hello),
    /// A greeting in a version that this build does not read.
    OtherVersion(u16),
    Verdict(Verdict),
    /// A step of one block.
    Block(BlockSeq, Step),
}

/// Version and configuration of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) link: String,
    pub(crate) role: Role,
    pub(crate) block_bits: u32,
    pub(crate) decoy: [u8; 32],
    pub(crate) security: [u8; 32],
    pub(crate) proof: String,
    pub(crate) beyond_one_way: String,
    pub(crate) next_block: BlockSeq,
    /// Bob: a block that he holds without knowing whether Alice committed it.
    pub(crate) pending: Option<BlockSeq>,
}

/// Alice's last word on all blocks up to one: of those that Bob may still hold, only `committed` is key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) up_to: BlockSeq,
    pub(crate) committed: Option<BlockSeq>,
    pub(crate) counter: u64,
    pub(crate) tag: Tag,
}

impl Verdict {
    /// What its tag covers besides the link and the direction.
    pub(crate) fn write_fields(&self, w: &mut Writer) {
        w.u64(self.up_to.0).u8(u8::from(self.committed.is_some())).u64(self.committed.map_or(0, |block| block.0));
        w.u64(self.counter);
    }
}

impl Message {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) | Self::OtherVersion(_) => Kind::Hello,
            Self::Verdict(_) => Kind::Verdict,
            Self::Block(_, step) => step.kind(),
        }
    }

    /// The bytes. A tag always stands last, so that what it covers is all before it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.kind() as u8);
        match self {
            Self::OtherVersion(version) => {
                w.u16(*version);
            }
            Self::Hello(hello) => hello.write(&mut w),
            Self::Verdict(verdict) => {
                verdict.write_fields(&mut w);
                w.put(&verdict.tag.0);
            }
            Self::Block(block, step) => {
                w.u64(block.0);
                step.write(&mut w);
            }
        }
        let wire = w.finish();
        assert!(wire.len() <= MESSAGE_MAX, "our own messages keep to the maximum");
        wire
    }

    pub(crate) fn decode(wire: &[u8]) -> Result<Self, CodecError> {
        if wire.len() > MESSAGE_MAX {
            return Err(CodecError::TooLong { field: "message", len: wire.len(), max: MESSAGE_MAX });
        }
        let mut r = Reader::new(wire);
        let number = r.u8("kind")?;
        let kind = Kind::ALL.iter().find(|kind| **kind as u8 == number).ok_or(CodecError::Value { field: "kind" })?;
        let message = match kind {
            Kind::Hello => match r.u16("version")? {
                PROTOCOL_VERSION => Self::Hello(Hello::read(&mut r)?),
                version => return Ok(Self::OtherVersion(version)),
            },
            Kind::Verdict => Self::Verdict(Verdict {
                up_to: BlockSeq(r.u64("up to")?),
                committed: read_flagged(&mut r, "committed")?.map(BlockSeq),
                counter: r.u64("counter")?,
                tag: Tag(r.array("tag")?),
            }),
            step => {
                let block = BlockSeq(r.u64("block")?);
                Self::Block(block, Step::read(*step, &mut r)?)
            }
        };
        r.end()?;
        Ok(message)
    }
}

impl Hello {
    fn write(&self, w: &mut Writer) {
        w.u16(PROTOCOL_VERSION).bytes16(self.link.as_bytes()).u8(role_number(self.role)).u32(self.block_bits);
        w.put(&self.decoy).put(&self.security).bytes16(self.proof.as_bytes()).bytes16(self.beyond_one_way.as_bytes());
        w.u64(self.next_block.0);
        write_option(self.pending.map(|block| block.0), w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let link = r.text16("link id", 32)?;
        LinkId::new(link).map_err(|_| CodecError::Value { field: "link id" })?;
        Ok(Self {
            link: link.to_owned(),
            role: if flag(r, "role")? { Role::Bob } else { Role::Alice },
            block_bits: r.u32("block bits")?,
            decoy: r.array("decoy settings")?,
            security: r.array("security parameters")?,
            proof: r.text16("proof", 64)?.to_owned(),
            beyond_one_way: r.text16("mode beyond one-way", 64)?.to_owned(),
            next_block: BlockSeq(r.u64("next block")?),
            pending: read_flagged(r, "pending")?.map(BlockSeq),
        })
    }
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, CodecError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Value { field }),
    }
}

fn write_option(value: Option<u64>, w: &mut Writer) {
    w.u8(u8::from(value.is_some())).u64(value.unwrap_or(0));
}

/// A flag and a number that is zero without it.
fn read_flagged(r: &mut Reader<'_>, field: &'static str) -> Result<Option<u64>, CodecError> {
    match (flag(r, field)?, r.u64(field)?) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        (false, _) => Err(CodecError::Value { field }),
    }
}
