//! Alice's half: parities of her key, counted and bounded.

use super::plan::Plan;
use super::question::{Question, Section, Work};
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Answers questions about Alice's sifted key.
pub struct Answerer {
    plan: Plan,
    frames: Vec<Vec<Bits>>,
    disclosed: usize,
    limit: usize,
}

impl Answerer {
    /// For this key, with a public seed drawn by Alice after the key was fixed.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32]) -> Self {
        let mut plan = Plan::new(key.len(), seed);
        let original = plan.cut(key);
        plan.shuffle(0);
        // Pass 0 keeps the order, so the first element is both the frame and its pass 0.
        let frames = original.into_iter().map(|frame| vec![frame]).collect();
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
        let len = self.plan.frame_len;
        let Some(passes) = self.frames.get_mut(section.frame) else { return wrong("frame") };
        match &section.work {
            Work::Begin { block_len } => {
                if section.pass > 0 {
                    if section.pass != passes.len() {
                        return wrong("pass");
                    }
                    let shuffled = self.plan.shuffle(section.pass).apply(&passes[0]);
                    passes.push(shuffled);
                }
                let bits = &passes[section.pass];
                let known_last = usize::from(section.pass > 0);
                let blocks = len.div_ceil(*block_len) - known_last;
                (0..blocks).for_each(|b| out.push(bits.parity(b * block_len, ((b + 1) * block_len).min(len))));
            }
            Work::Ranges(ranges) => {
                let Some(bits) = passes.get(section.pass) else { return wrong("pass") };
                for (start, range_len) in ranges {
                    if start + range_len > len {
                        return wrong("range");
                    }
                    out.push(bits.parity(*start, start + range_len));
                }
            }
        }
        Ok(())
    }
}

/// No key is left long before this many parities per bit.
const DISCLOSED_PER_BIT_MAX: usize = 2;
