//! Alice's half: parities of her key, counted and bounded.

use super::plan::Plan;
use super::question::Question;
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Answers questions about Alice's sifted key.
pub struct Answerer {
    key: Bits,
    seed: [u8; 32],
    begun: Option<Begun>,
    disclosed: usize,
}

/// Of each frame the parities of the rows' first halves, in the order of disclosure, and how many are out.
struct Begun {
    frames: Vec<(Bits, usize)>,
}

impl Answerer {
    /// For this key, with a public seed drawn by Alice after the key was fixed.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32]) -> Self {
        Self { key: key.clone(), seed, begun: None, disclosed: 0 }
    }

    /// The parities, in the order of the question.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] for a question that does not fit this key or comes at the wrong time,
    /// [`Misbehaviour::Limit`] when more split parities are asked for than there are. The key must be given up then;
    /// what was answered counts.
    pub fn answer(&mut self, question: &Question) -> Result<Bits, Misbehaviour> {
        let mut out = Bits::default();
        match (question, &mut self.begun) {
            (Question::Begin { size, rows, splits }, None) => {
                if self.key.is_empty() {
                    return Err(Misbehaviour::Contradiction { field: "length of the key" });
                }
                let plan = Plan::new(self.key.len(), *size, *rows, self.seed);
                let checks = plan.code.checks();
                out = Bits::with_capacity(plan.frames * (checks + splits.min(&checks)));
                let mut frames = Vec::with_capacity(plan.frames);
                for frame in 0..plan.frames {
                    let [halves, whole] = plan.code.parities(&plan.columns(&self.key, frame));
                    (0..checks).for_each(|at| out.push(whole.get(at)));
                    let ordered = plan.code.in_order_of_splits(&halves);
                    append(&mut out, &ordered, 0, *splits)?;
                    frames.push((ordered, *splits));
                }
                self.begun = Some(Begun { frames });
                self.key = Bits::default();
            }
            (Question::More(wanted), Some(begun)) => {
                for (frame, more) in wanted {
                    let Some((halves, sent)) = begun.frames.get_mut(*frame) else {
                        return Err(Misbehaviour::Contradiction { field: "frame" });
                    };
                    append(&mut out, halves, *sent, *more)?;
                    *sent += more;
                }
            }
            _ => return Err(Misbehaviour::Contradiction { field: "kind of question" }),
        }
        self.disclosed += out.len();
        Ok(out)
    }

    /// Bits disclosed so far.
    #[must_use]
    pub fn disclosed(&self) -> usize {
        self.disclosed
    }
}

fn append(out: &mut Bits, halves: &Bits, sent: usize, more: usize) -> Result<(), Misbehaviour> {
    if more > halves.len() - sent {
        return Err(Misbehaviour::Limit { what: "split parities", limit: halves.len() });
    }
    (sent..sent + more).for_each(|at| out.push(halves.get(at)));
    Ok(())
}
