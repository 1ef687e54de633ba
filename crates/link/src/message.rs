//! Messages of the classical channel and their bytes; `docs/formats/link.md` is the specification.
//!
//! A message is one byte of kind and its fields. The channel frames messages and keeps their order; nothing here
//! is secret. Every count is checked against its maximum before memory is taken for it.

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, LinkId};
use types::quantum::{Basis, Intensity, Role, Slot};

use crate::authenticate::{PIECE_TAGS, role_number};
use crate::bits::Bits;
use crate::proof::BlockCounts;
use crate::reconcile::cascade::Question;
use crate::record::{AbortCause, read_counts, write_counts};
use crate::verify::{HASH_LEN, KeyHash};

/// Version of the protocol.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest message in bytes; the shell refuses a longer frame before it reads it.
pub const MESSAGE_MAX: usize = 8 << 20;
/// Most detections in one announcement.
pub const FRAME_DETECTIONS_MAX: usize = 8192;
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
    /// Bob: begins a block.
    Open = 3,
    /// Alice: agrees to begin.
    Opened = 4,
    /// Bob: slots and bases of detections.
    Sift = 5,
    /// Alice: which of them match, and their intensities.
    SiftAnswer = 6,
    /// Alice: the announced session is not hers.
    Refused = 7,
    /// Bob: his test-basis bits.
    TestBits = 8,
    /// Alice: test-basis errors and the seed of reconciliation.
    Estimate = 9,
    /// Bob: a round of questions.
    Ask = 10,
    /// Alice: parities.
    Parities = 11,
    /// Bob: all questions are asked.
    Corrected = 12,
    /// Alice: hash of her key.
    Verify = 13,
    /// Bob: whether his key has the same.
    Verified = 14,
    /// Alice: counts, key length, seed, tag over the transcript.
    Finish = 15,
    /// Bob: his tag over the transcript.
    Confirm = 16,
    /// Alice: gives the block up.
    Abort = 17,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Hello(Hello),
    /// A greeting in a version that this build does not read.
    OtherVersion(u16),
    Verdict(Verdict),
    Open {
        block: BlockSeq,
        counter: u64,
    },
    Opened {
        block: BlockSeq,
        counter: u64,
    },
    Sift(Announcement),
    SiftAnswer(SiftAnswer),
    Refused {
        session: Option<u64>,
    },
    TestBits(Bits),
    Estimate {
        test_errors: [u64; Intensity::COUNT],
        seed: [u8; 32],
    },
    Ask(Question),
    Parities(Bits),
    Corrected {
        parities: u64,
    },
    Verify(KeyHash),
    Verified {
        equal: bool,
        corrected: u64,
    },
    Finish(Box<Finish>),
    Confirm {
        tag: Tag,
    },
    Abort {
        cause: AbortCause,
    },
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

/// Slots and bases, ascending; never a time within the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) session: u64,
    pub(crate) detections: Vec<(Slot, Basis)>,
}

/// Alice's answer to the first `taken` detections of an announcement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SiftAnswer {
    /// Which bases match; its length is the number of detections taken.
    pub(crate) matched: Bits,
    /// Of the matched.
    pub(crate) intensities: Vec<Intensity>,
}

/// What ends a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finish {
    pub(crate) counts: BlockCounts,
    pub(crate) leak: u64,
    pub(crate) secret_bits: u64,
    /// Tags to add to each direction from the block's output, Alice's first.
    pub(crate) refill: [u64; 2],
    pub(crate) seed: Bits,
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
            Self::Open { .. } => Kind::Open,
            Self::Opened { .. } => Kind::Opened,
            Self::Sift(_) => Kind::Sift,
            Self::SiftAnswer(_) => Kind::SiftAnswer,
            Self::Refused { .. } => Kind::Refused,
            Self::TestBits(_) => Kind::TestBits,
            Self::Estimate { .. } => Kind::Estimate,
            Self::Ask(_) => Kind::Ask,
            Self::Parities(_) => Kind::Parities,
            Self::Corrected { .. } => Kind::Corrected,
            Self::Verify(_) => Kind::Verify,
            Self::Verified { .. } => Kind::Verified,
            Self::Finish(_) => Kind::Finish,
            Self::Confirm { .. } => Kind::Confirm,
            Self::Abort { .. } => Kind::Abort,
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
            Self::Open { block, counter } | Self::Opened { block, counter } => {
                w.u64(block.0).u64(*counter);
            }
            Self::Sift(announcement) => announcement.write(&mut w),
            Self::SiftAnswer(answer) => answer.write(&mut w),
            Self::Refused { session } => write_option(*session, &mut w),
            Self::TestBits(bits) | Self::Parities(bits) => bits.write(&mut w),
            Self::Estimate { test_errors, seed } => {
                test_errors.iter().for_each(|count| _ = w.varint(*count));
                w.put(seed);
            }
            Self::Ask(question) => question.write(&mut w),
            Self::Corrected { parities } => {
                w.varint(*parities);
            }
            Self::Verify(hash) => {
                w.put(&hash.hash_key).bytes16(&hash.value);
            }
            Self::Verified { equal, corrected } => {
                w.u8(u8::from(*equal)).varint(*corrected);
            }
            Self::Finish(finish) => {
                write_counts(&finish.counts, &mut w);
                w.varint(finish.leak).varint(finish.secret_bits).varint(finish.refill[0]).varint(finish.refill[1]);
                finish.seed.write(&mut w);
                w.put(&finish.tag.0);
            }
            Self::Confirm { tag } => {
                w.put(&tag.0);
            }
            Self::Abort { cause } => {
                w.u8(*cause as u8);
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
            Kind::Open => Self::Open { block: BlockSeq(r.u64("block")?), counter: r.u64("counter")? },
            Kind::Opened => Self::Opened { block: BlockSeq(r.u64("block")?), counter: r.u64("counter")? },
            Kind::Sift => Self::Sift(Announcement::read(&mut r)?),
            Kind::SiftAnswer => Self::SiftAnswer(SiftAnswer::read(&mut r)?),
            Kind::Refused => Self::Refused { session: read_flagged(&mut r, "session")? },
            Kind::TestBits => Self::TestBits(Bits::read(&mut r, "test bits", FRAME_DETECTIONS_MAX)?),
            Kind::Estimate => Self::Estimate {
                test_errors: [r.varint("errors")?, r.varint("errors")?, r.varint("errors")?],
                seed: r.array("seed")?,
            },
            Kind::Ask => Self::Ask(Question::read(&mut r)?),
            Kind::Parities => Self::Parities(Bits::read(&mut r, "parities", 2 * BLOCK_BITS_MAX)?),
            Kind::Corrected => Self::Corrected { parities: r.varint("parities")? },
            Kind::Verify => Self::Verify(KeyHash {
                hash_key: r.array("hash key")?,
                value: r.bytes16("hash", *HASH_LEN.end())?.to_vec(),
            }),
            Kind::Verified => {
                let equal = flag(&mut r, "equal")?;
                Self::Verified { equal, corrected: r.varint("corrected")? }
            }
            Kind::Finish => Self::Finish(Box::new(Finish::read(&mut r)?)),
            Kind::Confirm => Self::Confirm { tag: Tag(r.array("tag")?) },
            Kind::Abort => {
                let cause = AbortCause::from_number(r.u8("cause")?).ok_or(CodecError::Value { field: "cause" })?;
                Self::Abort { cause }
            }
        };
        r.end()?;
        Ok(message)
    }
}

impl Hello {
    fn write(&self, w: &mut Writer) {
        w.u16(PROTOCOL_VERSION).bytes16(self.link.as_bytes()).u8(role_number(self.role)).u32(self.block_bits);
        w.put(&self.decoy).put(&self.security).bytes16(self.proof.as_bytes()).u64(self.next_block.0);
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
            next_block: BlockSeq(r.u64("next block")?),
            pending: read_flagged(r, "pending")?.map(BlockSeq),
        })
    }
}

impl Announcement {
    /// Count, session, first slot, gaps to the next slots, bases.
    fn write(&self, w: &mut Writer) {
        w.count(self.detections.len()).u64(self.session);
        let mut before = None;
        for (slot, _) in &self.detections {
            w.varint(before.map_or(slot.0, |before| slot.0 - before - 1));
            before = Some(slot.0);
        }
        let bases: Bits = self.detections.iter().map(|(_, basis)| *basis == Basis::Test).collect();
        w.put(&bases.to_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = r.count("detections", FRAME_DETECTIONS_MAX)?;
        let session = r.u64("session")?;
        let mut slots = Vec::with_capacity(count.min(r.left()));
        let mut next = Some(0_u64);
        for _ in 0..count {
            let gap = r.varint("slot")?;
            let slot = next.and_then(|next| next.checked_add(gap)).ok_or(CodecError::Value { field: "slot" })?;
            slots.push(Slot(slot));
            next = slot.checked_add(1);
        }
        let bases = packed(r, "bases", count)?;
        let basis = |test| if test { Basis::Test } else { Basis::Key };
        let detections = slots.into_iter().enumerate().map(|(at, slot)| (slot, basis(bases.get(at)))).collect();
        Ok(Self { session, detections })
    }
}

impl SiftAnswer {
    /// Count and mask, then two bits of intensity for each match.
    fn write(&self, w: &mut Writer) {
        self.matched.write(w);
        let mut packed = Bits::with_capacity(2 * self.intensities.len());
        for intensity in &self.intensities {
            packed.push(intensity.index() & 1 == 1);
            packed.push(intensity.index() & 2 == 2);
        }
        w.put(&packed.to_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let matched = Bits::read(r, "matched", FRAME_DETECTIONS_MAX)?;
        let count = (0..matched.len()).filter(|at| matched.get(*at)).count();
        let bits = packed(r, "intensities", 2 * count)?;
        let wrong = CodecError::Value { field: "intensities" };
        let intensities = (0..count)
            .map(|at| Intensity::new(u8::from(bits.get(2 * at)) | u8::from(bits.get(2 * at + 1)) << 1).ok_or(wrong))
            .collect::<Result<_, _>>()?;
        Ok(Self { matched, intensities })
    }
}

impl Finish {
    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let counts = read_counts(r)?;
        let (leak, secret_bits) = (r.varint("leak")?, r.varint("secret bits")?);
        let refill = [r.varint("refill")?, r.varint("refill")?];
        if refill.iter().any(|tags| *tags > PIECE_TAGS) {
            return Err(CodecError::Value { field: "refill" });
        }
        let seed = Bits::read(r, "seed", 2 * BLOCK_BITS_MAX)?;
        Ok(Self { counts, leak, secret_bits, refill, seed, tag: Tag(r.array("tag")?) })
    }
}

/// `len` bits without a count of their own.
fn packed(r: &mut Reader<'_>, field: &'static str, len: usize) -> Result<Bits, CodecError> {
    let bytes = r.take(field, len.div_ceil(8))?;
    if !len.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (len % 8) != 0) {
        return Err(CodecError::Value { field });
    }
    Ok(Bits::from_bytes(bytes, len).expect("the bytes were just taken for this length"))
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

#[cfg(test)]
mod tests;
