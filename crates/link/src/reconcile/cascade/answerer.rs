//! Alice's half: parities of her key, counted and bounded.

use super::plan::Plan;
use super::question::{Question, Section, Work};
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Answers questions about Alice's sifted key.
pub struct Answerer {
    plan: Plan,
    frames: Vec<Frame>,
    disclosed: usize,
    limit: usize,
}

struct Frame {
    bits: Bits,
    /// For each pass that was begun, the bits in its order if that needs a copy.
    passes: Vec<Option<Bits>>,
}

impl Answerer {
    /// For this key, with a public seed drawn by Alice after the key was fixed.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32]) -> Self {
        let mut plan = Plan::new(key.len(), seed);
        plan.begin(0);
        let frames = plan.cut(key).into_iter().map(|bits| Frame { bits, passes: vec![None] }).collect();
        Self { plan, frames, disclosed: 0, limit: DISCLOSED_PER_BIT_MAX * key.len() + 1_000 }
    }

    /// The parities, in the order of the question.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] for a frame, pass or range that is not there, [`Misbehaviour::Limit`] when more
    /// is asked for than any key could be worth. The key must be given up then; what was answered counts.
    pub fn answer(&mut self, question: &Question) -> Result<Bits, Misbehaviour> {
        let mut out = Bits::default();
        for section in &question.sections {
            self.section(section, &mut out)?;
            if self.disclosed + out.len() > self.limit {
                return Err(Misbehaviour::Limit { what: "parities", limit: self.limit });
            }
        }
        self.disclosed += out.len();
        Ok(out)
    }

    /// Bits disclosed so far.
    #[must_use]
    pub fn disclosed(&self) -> usize {
        self.disclosed
    }

    fn section(&mut self, section: &Section, out: &mut Bits) -> Result<(), Misbehaviour> {
        let wrong = |field| Err(Misbehaviour::Contradiction { field });
        let pass = section.pass;
        let Some(frame) = self.frames.get_mut(section.frame) else { return wrong("frame") };
        match &section.work {
            Work::Begin { block_len } => {
                if pass > 0 {
                    if pass != frame.passes.len() {
                        return wrong("pass");
                    }
                    frame.passes.push(self.plan.begin(pass).arrange(&frame.bits));
                }
                let (positions, len) = (self.plan.positions(pass), self.plan.frame_len);
                // A block of a subset's pass must not mix the subset with its complement.
                if *block_len == 0 || (positions > len && *block_len != len) {
                    return wrong("block length");
                }
                for block in 0..self.plan.first_parities(pass, *block_len) {
                    let (start, end) = (block * block_len, ((block + 1) * block_len).min(positions));
                    out.push(frame.parity(&self.plan, pass, start, end));
                }
            }
            Work::Ranges(ranges) => {
                if pass >= frame.passes.len() {
                    return wrong("pass");
                }
                let (positions, len) = (self.plan.positions(pass), self.plan.frame_len);
                for (start, range_len) in ranges {
                    let end = start + range_len;
                    if end > positions || (*start < len && end > len) {
                        return wrong("range");
                    }
                    out.push(frame.parity(&self.plan, pass, *start, end));
                }
            }
        }
        Ok(())
    }
}

impl Frame {
    #[inline]
    fn parity(&self, plan: &Plan, pass: usize, start: usize, end: usize) -> bool {
        plan.order(pass).parity(&self.bits, self.passes[pass].as_ref(), start, end)
    }
}

/// No key is left long before this many parities per bit.
const DISCLOSED_PER_BIT_MAX: usize = 2;
