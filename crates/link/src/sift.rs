//! Sifting: Bob's detections against Alice's preparations.
//!
//! A frame holds detections that were announced together. Alice takes detections until the block is full to the
//! bit; what she does not take, Bob announces again in the next block. Key-basis bits are never sampled; test-basis
//! bits are disclosed whole.

use std::collections::VecDeque;

use types::quantum::{Basis, Detection, Intensity, Preparation, Slot};

use crate::bits::Bits;
use crate::error::Misbehaviour;
use crate::message::{Announcement, FRAME_DETECTIONS_MAX, SiftAnswer};
use crate::proof::BlockCounts;

/// Detections that wait at Bob while a block is in post-processing; later ones are dropped and counted.
pub const QUEUE_MAX: usize = 1 << 20;

/// Alice's record of what she prepared.
pub trait Preparations: Send {
    /// What was prepared in each of these slots, in their order.
    fn prepare(&self, slots: &[Slot]) -> Vec<Preparation>;
}

impl<F: Fn(&[Slot]) -> Vec<Preparation> + Send> Preparations for F {
    fn prepare(&self, slots: &[Slot]) -> Vec<Preparation> {
        self(slots)
    }
}

/// A block that fills with sifted bits: the same at both ends, each with its own bits.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) key: Bits,
    /// Intensity of each bit of the key.
    pub(crate) intensities: Vec<Intensity>,
    pub(crate) counts: BlockCounts,
    pub(crate) slots: Span,
    target: usize,
}

/// First and last slot that a block took. A new session starts a new count, so spans are added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    total: u64,
    current: Option<(u64, u64)>,
}

impl Filling {
    pub(crate) fn new(block_bits: u32) -> Self {
        let target = usize::try_from(block_bits).expect("32 bits fit a usize");
        let key = Bits::with_capacity(target);
        Self {
            key,
            intensities: Vec::with_capacity(target),
            counts: BlockCounts::default(),
            slots: Span::default(),
            target,
        }
    }

    pub(crate) fn full(&self) -> bool {
        self.key.len() == self.target
    }

    /// Alice: answers an announcement. Also gives her test bits, which Bob's will be compared with.
    pub(crate) fn answer(
        &mut self,
        announcement: &Announcement,
        source: &dyn Preparations,
    ) -> (SiftAnswer, Vec<(bool, Intensity)>) {
        let mut answer = SiftAnswer { matched: Bits::with_capacity(FRAME_DETECTIONS_MAX), intensities: Vec::new() };
        let mut test = Vec::new();
        let slots: Vec<Slot> = announcement.detections.iter().map(|(slot, _)| *slot).collect();
        for ((slot, basis), prepared) in announcement.detections.iter().zip(source.prepare(&slots)) {
            if self.full() {
                break;
            }
            self.slots.reach(*slot);
            answer.matched.push(prepared.basis == *basis);
            if prepared.basis == *basis {
                answer.intensities.push(prepared.intensity);
                self.take(*basis, prepared.bit, prepared.intensity);
                if *basis == Basis::Test {
                    test.push((prepared.bit, prepared.intensity));
                }
            }
        }
        (answer, test)
    }

    /// Alice: counts the errors of Bob's test bits.
    pub(crate) fn count_errors(&mut self, ours: &[(bool, Intensity)], theirs: &Bits) -> Result<(), Misbehaviour> {
        if theirs.len() != ours.len() {
            return Err(Misbehaviour::Contradiction { field: "number of test bits" });
        }
        for (index, (bit, intensity)) in ours.iter().enumerate() {
            self.counts.test_errors[intensity.index()] += u64::from(theirs.get(index) != *bit);
        }
        Ok(())
    }

    /// Bob: takes what Alice matched off the announced frame and gives his test bits.
    pub(crate) fn learn(&mut self, frame: &[Detection], answer: &SiftAnswer) -> Result<Bits, Misbehaviour> {
        let wrong = |field| Err(Misbehaviour::Contradiction { field });
        if answer.matched.len() > frame.len() {
            return wrong("detections taken");
        }
        let mut intensities = answer.intensities.iter();
        let mut test = Bits::with_capacity(FRAME_DETECTIONS_MAX);
        for (index, detection) in frame.iter().take(answer.matched.len()).enumerate() {
            if self.full() {
                return wrong("detections taken");
            }
            self.slots.reach(detection.slot);
            if answer.matched.get(index) {
                let intensity = intensities.next().expect("the decoder gave one for each match");
                self.take(detection.basis, detection.bit, *intensity);
                if detection.basis == Basis::Test {
                    test.push(detection.bit);
                }
            }
        }
        if answer.matched.len() < frame.len() && !self.full() { wrong("detections taken") } else { Ok(test) }
    }

    fn take(&mut self, basis: Basis, bit: bool, intensity: Intensity) {
        match basis {
            Basis::Key => {
                self.key.push(bit);
                self.intensities.push(intensity);
                self.counts.key[intensity.index()] += 1;
            }
            Basis::Test => self.counts.test[intensity.index()] += 1,
        }
    }
}

impl Span {
    fn reach(&mut self, slot: Slot) {
        match &mut self.current {
            Some((_, last)) if *last <= slot.0 => *last = slot.0,
            _ => {
                self.total = self.len();
                self.current = Some((slot.0, slot.0));
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.total + self.current.map_or(0, |(first, last)| last - first + 1)
    }
}

/// Bob's detections that wait to be announced.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Detection>,
    last: Option<Slot>,
    pub(crate) dropped: u64,
}

impl Queue {
    /// Appends detections; `false` if their slots do not ascend. Beyond the maximum they are dropped.
    pub(crate) fn push(&mut self, detections: Vec<Detection>) -> bool {
        for detection in detections {
            if self.last.is_some_and(|last| detection.slot <= last) {
                return false;
            }
            self.last = Some(detection.slot);
            if self.waiting.len() < QUEUE_MAX {
                self.waiting.push_back(detection);
            } else {
                self.dropped += 1;
            }
        }
        true
    }

    /// Takes the next frame off.
    pub(crate) fn frame(&mut self) -> Vec<Detection> {
        self.waiting.drain(..self.waiting.len().min(FRAME_DETECTIONS_MAX)).collect()
    }

    /// Puts what was not taken back in front.
    pub(crate) fn give_back(&mut self, rest: &[Detection]) {
        rest.iter().rev().for_each(|detection| self.waiting.push_front(*detection));
    }

    /// Drops what waits; the session goes on.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// A new session: what waited belongs to an older one.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.last = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
