//! Bob's half: asks, halves odd leaves, corrects.

use super::frame::{Frame, Tuning};
use super::plan::Plan;
use super::question::{Question, Section};
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Corrects Bob's sifted key, round by round.
pub struct Corrector {
    plan: Plan,
    frames: Vec<Frame>,
    key_len: usize,
    tuning: Tuning,
    rounds: usize,
    disclosed: usize,
    corrected: usize,
}

impl Corrector {
    /// For this key; the seed comes from Alice, the error rate in errors per million from parameter estimation.
    ///
    /// The rate that was observed, not a bound on it: too low an estimate is cheap (f = 1.05 at 4 % taken for 2 %), too
    /// high a one is not (1.14 at 2 % taken for 5 %).
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32], qber_ppm: u32) -> Self {
        let mut plan = Plan::new(key.len(), seed);
        plan.begin(0);
        let frames = plan.cut(key).into_iter().map(Frame::new).collect();
        let tuning = Tuning::new(qber_ppm, plan.frame_len);
        Self { plan, frames, key_len: key.len(), tuning, rounds: 0, disclosed: 0, corrected: 0 }
    }

    /// The next question, or `None` when all passes are over.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if parities contradict each other, so that a bit would turn twice.
    pub fn question(&mut self) -> Result<Option<Question>, Misbehaviour> {
        let mut question = Question::default();
        let mut ranges = 0;
        let few = self.rounds.saturating_sub(PATIENT_ROUNDS) / ROUNDS_PER_LEAF;
        self.rounds += 1;
        for (index, frame) in self.frames.iter_mut().enumerate() {
            if ranges > RANGES_PER_ROUND {
                break;
            }
            self.corrected += frame.correct_known(&self.plan, &self.tuning)?;
            frame.ask(&mut self.plan, &self.tuning, few, |pass, work| {
                question.sections.push(Section { frame: index, pass, work });
            });
            ranges += frame.awaited();
        }
        Ok((!question.sections.is_empty()).then_some(question))
    }

    /// Takes Alice's parities for the last question.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if their number is not what was asked for.
    pub fn take(&mut self, parities: &Bits) -> Result<(), Misbehaviour> {
        let expected: usize = self.frames.iter().map(Frame::awaited).sum();
        if parities.len() != expected {
            return Err(Misbehaviour::Contradiction { field: "number of parities" });
        }
        self.disclosed += expected;
        let mut next = 0;
        for frame in &mut self.frames {
            let count = frame.awaited();
            frame.take(&self.plan, |index| parities.get(next + index));
            next += count;
        }
        Ok(())
    }

    /// Parities learned so far.
    #[must_use]
    pub fn disclosed(&self) -> usize {
        self.disclosed
    }

    /// Bits corrected so far.
    #[must_use]
    pub fn corrected(&self) -> usize {
        self.corrected
    }

    /// The corrected key.
    #[must_use]
    pub fn finish(self) -> Bits {
        self.plan.join(self.frames.iter().map(Frame::bits), self.key_len)
    }
}

/// Frames beyond this many parities wait for the next round, so that a message stays within its bound.
const RANGES_PER_ROUND: usize = 1 << 20;
/// Rounds in which a frame begins a pass only when no leaf of the passes before is odd, which costs fewest parities.
const PATIENT_ROUNDS: usize = 140;
/// So many rounds later a frame puts up with one more odd leaf. Long chains of corrections are rare, one leaf at the
/// end of most of them; without this some blocks take 400 rounds.
const ROUNDS_PER_LEAF: usize = 7;
