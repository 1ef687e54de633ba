//! What both ends say about one block, and the bytes of it.

use crypto::tag::Tag;
use types::codec::{CodecError, Reader, Writer};
use types::quantum::{Basis, Intensity, Slot};

use super::{BLOCK_BITS_MAX, FRAME_DETECTIONS_MAX, Kind, flag, read_flagged, write_option};
use crate::authenticate::PIECE_TAGS;
use crate::bits::Bits;
use crate::code::{gaps_of, positions_of, read_gaps, write_gaps};
use crate::distil::Mode;
use crate::proof::BlockCounts;
use crate::reconcile::Question;
use crate::record::{AbortCause, read_counts, read_key_errors, write_counts, write_key_errors};
use crate::verify::{HASH_LEN, KeyHash};

/// A step of one block; [`Kind`] says who takes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Sift(Announcement),
    SiftAnswer(SiftAnswer),
    Refused { session: Option<u64> },
    TestBits(Bits),
    Estimate(Box<Estimate>),
    Kept(Bits),
    Ask(Question),
    Parities(Bits),
    Corrected { parities: u64 },
    Verify(KeyHash),
    Verified { equal: bool, corrected: u64, key_errors: Option<[u64; Intensity::COUNT]> },
    Finish(Box<Finish>),
    Confirm { counter: u64, tag: Tag },
    Abort { cause: AbortCause },
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

/// What Alice found in the counts of a full block, and how it goes on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) test_errors: [u64; Intensity::COUNT],
    /// What is done before reconciliation.
    pub(crate) mode: Mode,
    /// Seed of the permutations and codes of reconciliation.
    pub(crate) seed: [u8; 32],
    /// Advantage distillation: what Alice says of her groups; empty otherwise.
    pub(crate) differences: Bits,
}

/// What ends a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finish {
    pub(crate) counts: BlockCounts,
    pub(crate) leak: u64,
    pub(crate) secret_bits: u64,
    /// Tags to add to each direction from the block's output, Alice's first.
    pub(crate) refill: [u64; 2],
    /// Counter of the tag.
    pub(crate) counter: u64,
    pub(crate) seed: Bits,
    pub(crate) tag: Tag,
}

impl Step {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Sift(_) => Kind::Sift,
            Self::SiftAnswer(_) => Kind::SiftAnswer,
            Self::Refused { .. } => Kind::Refused,
            Self::TestBits(_) => Kind::TestBits,
            Self::Estimate(_) => Kind::Estimate,
            Self::Kept(_) => Kind::Kept,
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

    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Self::Sift(announcement) => announcement.write(w),
            Self::SiftAnswer(answer) => answer.write(w),
            Self::Refused { session } => write_option(*session, w),
            Self::TestBits(bits) | Self::Kept(bits) | Self::Parities(bits) => bits.write(w),
            Self::Estimate(estimate) => {
                estimate.test_errors.iter().for_each(|count| _ = w.varint(*count));
                estimate.mode.write(w);
                w.put(&estimate.seed);
                estimate.differences.write(w);
            }
            Self::Ask(question) => question.write(w),
            Self::Corrected { parities } => {
                w.varint(*parities);
            }
            Self::Verify(hash) => {
                w.put(&hash.hash_key).bytes16(&hash.value);
            }
            Self::Verified { equal, corrected, key_errors } => {
                w.u8(u8::from(*equal)).varint(*corrected);
                write_key_errors(*key_errors, w);
            }
            Self::Finish(finish) => {
                write_counts(&finish.counts, w);
                w.varint(finish.leak).varint(finish.secret_bits).varint(finish.refill[0]).varint(finish.refill[1]);
                w.u64(finish.counter);
                finish.seed.write(w);
                w.put(&finish.tag.0);
            }
            Self::Confirm { counter, tag } => {
                w.u64(*counter).put(&tag.0);
            }
            Self::Abort { cause } => {
                w.u8(*cause as u8);
            }
        }
    }

    pub(super) fn read(kind: Kind, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match kind {
            Kind::Hello | Kind::Verdict => return Err(CodecError::Value { field: "kind" }),
            Kind::Sift => Self::Sift(Announcement::read(r)?),
            Kind::SiftAnswer => Self::SiftAnswer(SiftAnswer::read(r)?),
            Kind::Refused => Self::Refused { session: read_flagged(r, "session")? },
            Kind::TestBits => Self::TestBits(Bits::read(r, "test bits", FRAME_DETECTIONS_MAX)?),
            Kind::Estimate => Self::Estimate(Box::new(Estimate {
                test_errors: [r.varint("errors")?, r.varint("errors")?, r.varint("errors")?],
                mode: Mode::read(r)?,
                seed: r.array("seed")?,
                differences: Bits::read(r, "differences", BLOCK_BITS_MAX)?,
            })),
            Kind::Kept => Self::Kept(Bits::read(r, "kept groups", BLOCK_BITS_MAX)?),
            Kind::Ask => Self::Ask(Question::read(r)?),
            Kind::Parities => Self::Parities(Bits::read(r, "parities", 2 * BLOCK_BITS_MAX)?),
            Kind::Corrected => Self::Corrected { parities: r.varint("parities")? },
            Kind::Verify => Self::Verify(KeyHash {
                hash_key: r.array("hash key")?,
                value: r.bytes16("hash", *HASH_LEN.end())?.to_vec(),
            }),
            Kind::Verified => {
                let equal = flag(r, "equal")?;
                let corrected = r.varint("corrected")?;
                Self::Verified { equal, corrected, key_errors: read_key_errors(r)? }
            }
            Kind::Finish => Self::Finish(Box::new(Finish::read(r)?)),
            Kind::Confirm => Self::Confirm { counter: r.u64("counter")?, tag: Tag(r.array("tag")?) },
            Kind::Abort => {
                let cause = AbortCause::from_number(r.u8("cause")?).ok_or(CodecError::Value { field: "cause" })?;
                Self::Abort { cause }
            }
        })
    }
}

impl Announcement {
    /// Count, session, gaps between slots; which detections are in the test basis.
    fn write(&self, w: &mut Writer) {
        w.count(self.detections.len()).u64(self.session);
        write_gaps(&gaps_of(self.detections.iter().map(|(slot, _)| slot.0)), w);
        write_marks(self.detections.iter().map(|(_, basis)| *basis == Basis::Test), w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = r.count("detections", FRAME_DETECTIONS_MAX)?;
        let session = r.u64("session")?;
        let slots = positions_of(&read_gaps(r, count)?, u64::MAX).ok_or(CodecError::Value { field: "slot" })?;
        let test = read_marks(r, count)?;
        let basis = |test| if test { Basis::Test } else { Basis::Key };
        let detections = slots.into_iter().enumerate().map(|(at, slot)| (Slot(slot), basis(test.get(at)))).collect();
        Ok(Self { session, detections })
    }
}

impl SiftAnswer {
    /// Count; which detections do not match; of those that do, which are not the brightest; of these, which are the
    /// dimmest.
    fn write(&self, w: &mut Writer) {
        w.count(self.matched.len());
        write_marks((0..self.matched.len()).map(|at| !self.matched.get(at)), w);
        write_marks(self.intensities.iter().map(|intensity| intensity.index() != 0), w);
        let dimmer = self.intensities.iter().filter(|intensity| intensity.index() != 0);
        write_marks(dimmer.map(|intensity| intensity.index() == 2), w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let taken = r.count("taken", FRAME_DETECTIONS_MAX)?;
        let missed = read_marks(r, taken)?;
        let matched: Bits = (0..taken).map(|at| !missed.get(at)).collect();
        let count = ones(&matched);
        let dimmer = read_marks(r, count)?;
        let dimmest = read_marks(r, ones(&dimmer))?;
        let mut next = 0;
        let mut intensities = Vec::with_capacity(count);
        for at in 0..count {
            let mut index = 0;
            if dimmer.get(at) {
                index = 1 + u8::from(dimmest.get(next));
                next += 1;
            }
            intensities.push(Intensity::new(index).expect("0, 1 or 2"));
        }
        Ok(Self { matched, intensities })
    }
}

impl Finish {
    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let counts = read_counts(r, COUNTS_VERSION)?;
        let (leak, secret_bits) = (r.varint("leak")?, r.varint("secret bits")?);
        let refill = [r.varint("refill")?, r.varint("refill")?];
        if refill.iter().any(|tags| *tags > PIECE_TAGS) {
            return Err(CodecError::Value { field: "refill" });
        }
        let counter = r.u64("counter")?;
        let seed = Bits::read(r, "seed", 2 * BLOCK_BITS_MAX)?;
        Ok(Self { counts, leak, secret_bits, refill, counter, seed, tag: Tag(r.array("tag")?) })
    }
}

/// Marks in a row of known length: whether the marked or the unmarked are told, their number, their gaps.
fn write_marks(marks: impl Iterator<Item = bool>, w: &mut Writer) {
    let marks: Vec<bool> = marks.collect();
    let set = marks.iter().filter(|mark| **mark).count();
    let inverted = set > marks.len() - set;
    let told = marks.iter().enumerate().filter(|(_, mark)| **mark != inverted).map(|(at, _)| at as u64);
    let gaps = gaps_of(told);
    w.u8(u8::from(inverted)).count(gaps.len());
    write_gaps(&gaps, w);
}

fn read_marks(r: &mut Reader<'_>, len: usize) -> Result<Bits, CodecError> {
    let inverted = flag(r, "inverted")?;
    let count = r.count("marks", len / 2)?;
    let wrong = CodecError::Value { field: "marks" };
    let told = positions_of(&read_gaps(r, count)?, len as u64).ok_or(wrong)?;
    // A tie is told one way only.
    if inverted && 2 * count == len {
        return Err(wrong);
    }
    let mut marks: Bits = (0..len).map(|_| inverted).collect();
    told.into_iter().for_each(|at| marks.flip(usize::try_from(at).expect("below a length")));
    Ok(marks)
}

fn ones(bits: &Bits) -> usize {
    bits.words().iter().map(|word| word.count_ones() as usize).sum()
}

/// Layout of the counts in `Finish`.
const COUNTS_VERSION: u8 = 2;
