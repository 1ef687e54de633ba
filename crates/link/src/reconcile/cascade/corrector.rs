//! Bob's half: asks, halves odd leaves, corrects.

use super::plan::{PASSES, Plan};
use super::question::{Question, Section, Work};
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Corrects Bob's sifted key, round by round.
pub struct Corrector {
    plan: Plan,
    frames: Vec<Frame>,
    key_len: usize,
    first_blocks: [usize; 3],
    disclosed: usize,
    corrected: usize,
}

impl Corrector {
    /// For this key; the seed comes from Alice, the error rate in errors per million from parameter estimation.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32], qber_ppm: u32) -> Self {
        let mut plan = Plan::new(key.len(), seed);
        plan.shuffle(0);
        let frames = plan.cut(key).into_iter().map(Frame::new).collect();
        let ppm = usize::try_from(qber_ppm).expect("32 bits fit a usize").clamp(QBER_PPM_MIN, QBER_PPM_MAX);
        // Yan et al. 2008: 0.80/q and five times that; then sixteenths, which find many errors at once, and halves.
        let first = (800_000 / ppm).clamp(2, plan.frame_len.max(2));
        let first_blocks = [first, first * 5, plan.frame_len / 16];
        Self { plan, frames, key_len: key.len(), first_blocks, disclosed: 0, corrected: 0 }
    }

    /// The next question, or `None` when all passes are over.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if parities contradict each other, so that a bit would turn twice.
    pub fn question(&mut self) -> Result<Option<Question>, Misbehaviour> {
        let mut question = Question::default();
        let mut ranges = 0;
        for (index, frame) in self.frames.iter_mut().enumerate() {
            if ranges > RANGES_PER_ROUND {
                break;
            }
            let (asked, corrected) = frame.ask(&mut self.plan, self.first_blocks)?;
            self.corrected += corrected;
            ranges += frame.awaited(self.plan.frame_len);
            question.sections.extend(asked.into_iter().map(|(pass, work)| Section { frame: index, pass, work }));
        }
        Ok((!question.sections.is_empty()).then_some(question))
    }

    /// Takes Alice's parities for the last question.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if their number is not what was asked for.
    pub fn take(&mut self, parities: &Bits) -> Result<(), Misbehaviour> {
        let expected: usize = self.frames.iter().map(|frame| frame.awaited(self.plan.frame_len)).sum();
        if parities.len() != expected {
            return Err(Misbehaviour::Contradiction { field: "number of parities" });
        }
        self.disclosed += expected;
        let mut next = 0;
        for frame in &mut self.frames {
            let count = frame.awaited(self.plan.frame_len);
            frame.take(&mut self.plan, |index| parities.get(next + index));
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
        self.plan.join(self.frames.iter().map(|frame| &frame.passes[0].ours), self.key_len)
    }
}

/// One frame: independent of the others but for the rounds they share.
struct Frame {
    passes: Vec<Pass>,
    /// Bits that were corrected: they are Alice's now.
    settled: Bits,
    asked: Asked,
}

/// What this frame waits for.
enum Asked {
    Nothing,
    Begin {
        block_len: usize,
    },
    /// The leaves being halved: start, middle.
    Halves(Vec<(usize, Vec<(usize, usize)>)>),
}

/// One pass of one frame. Leaves: a bit in `starts` marks where one begins, the same bit in `theirs` is Alice's parity.
struct Pass {
    ours: Bits,
    starts: Bits,
    theirs: Bits,
    /// Starts of leaves that may be odd.
    suspects: Vec<u16>,
}

impl Frame {
    fn new(ours: Bits) -> Self {
        Self { settled: Bits::zeros(ours.len()), passes: vec![Pass::new(ours)], asked: Asked::Nothing }
    }

    /// Corrects what needs no question, then asks. Gives the questions and the number of bits corrected.
    fn ask(&mut self, plan: &mut Plan, first_blocks: [usize; 3]) -> Result<(Vec<(usize, Work)>, usize), Misbehaviour> {
        let corrected = self.correct_singles(plan)?;
        let begun = self.passes.iter().filter(|pass| pass.begun()).count();
        let mut asked = Vec::new();
        let mut works = Vec::new();
        for pass in 0..begun {
            let leaves = self.passes[pass].odd_leaves().1;
            if !leaves.is_empty() {
                works.push((
                    pass,
                    Work::Ranges(leaves.iter().map(|(start, middle)| (*start, middle - start)).collect()),
                ));
                asked.push((pass, leaves));
            }
        }
        if !asked.is_empty() {
            self.asked = Asked::Halves(asked);
            return Ok((works, corrected));
        }
        if begun == PASSES {
            self.asked = Asked::Nothing;
            return Ok((Vec::new(), corrected));
        }
        if begun > 0 {
            let shuffled = plan.shuffle(begun).apply(&self.passes[0].ours);
            self.passes.push(Pass::new(shuffled));
        }
        let half = plan.frame_len.div_ceil(2);
        let block_len = first_blocks.get(begun).map_or(half, |len| (*len).min(half)).max(1);
        self.asked = Asked::Begin { block_len };
        Ok((vec![(begun, Work::Begin { block_len })], corrected))
    }

    /// Corrects every leaf of one bit that is odd: it is the error itself.
    fn correct_singles(&mut self, plan: &Plan) -> Result<usize, Misbehaviour> {
        let mut corrected = 0;
        let mut pass = 0;
        while pass < self.passes.len() && self.passes[pass].begun() {
            let (singles, leaves) = self.passes[pass].odd_leaves();
            self.passes[pass].suspect(&leaves);
            for position in &singles {
                self.correct(plan, plan.begun(pass).to_frame(*position))?;
            }
            corrected += singles.len();
            pass = if singles.is_empty() { pass + 1 } else { 0 };
        }
        Ok(corrected)
    }

    /// Turns one bit over in all passes and suspects the leaves that hold it.
    fn correct(&mut self, plan: &Plan, index: usize) -> Result<(), Misbehaviour> {
        if self.settled.get(index) {
            return Err(Misbehaviour::Contradiction { field: "parities" });
        }
        self.settled.set(index, true);
        for (number, pass) in self.passes.iter_mut().enumerate() {
            let position = plan.begun(number).to_pass(index);
            pass.ours.flip(position);
            let start = pass.starts.previous_one(position).expect("the first leaf starts at 0");
            pass.suspects.push(u16::try_from(start).expect("a frame has at most 2^16 positions"));
        }
        Ok(())
    }

    fn awaited(&self, frame_len: usize) -> usize {
        match &self.asked {
            Asked::Nothing => 0,
            Asked::Begin { block_len } => frame_len.div_ceil(*block_len) - usize::from(self.passes.len() > 1),
            Asked::Halves(passes) => passes.iter().map(|(_, leaves)| leaves.len()).sum(),
        }
    }

    fn take(&mut self, plan: &mut Plan, parity: impl Fn(usize) -> bool) {
        match core::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => {}
            Asked::Begin { block_len } => {
                let whole = (self.passes.len() > 1).then(|| self.passes[0].known_parity());
                let last = self.passes.last_mut().expect("a frame has a pass");
                last.begin(plan.frame_len, block_len, whole, parity);
            }
            Asked::Halves(passes) => {
                let leaves =
                    passes.into_iter().flat_map(|(pass, leaves)| leaves.into_iter().map(move |leaf| (pass, leaf)));
                for (index, (pass, (start, middle))) in leaves.enumerate() {
                    self.passes[pass].halve(start, middle, parity(index));
                }
            }
        }
    }
}

impl Pass {
    fn new(ours: Bits) -> Self {
        let len = ours.len();
        Self { ours, starts: Bits::zeros(len), theirs: Bits::zeros(len), suspects: Vec::new() }
    }

    fn begun(&self) -> bool {
        self.starts.get(0)
    }

    /// Alice's parity of the whole frame.
    fn known_parity(&self) -> bool {
        self.theirs.parity(0, self.theirs.len())
    }

    /// Marks the blocks; `whole` is the frame's parity if the last block's was not sent.
    fn begin(&mut self, frame_len: usize, block_len: usize, whole: Option<bool>, parity: impl Fn(usize) -> bool) {
        let blocks = frame_len.div_ceil(block_len);
        let mut sum = false;
        for block in 0..blocks {
            let theirs = match whole {
                Some(whole) if block + 1 == blocks => whole ^ sum,
                _ => parity(block),
            };
            sum ^= theirs;
            let start = block * block_len;
            self.starts.set(start, true);
            self.theirs.set(start, theirs);
            self.suspects.push(u16::try_from(start).expect("a frame has at most 2^16 positions"));
        }
    }

    /// Cuts the leaf at `start` in two; `left` is Alice's parity of the left half.
    fn halve(&mut self, start: usize, middle: usize, left: bool) {
        let right = self.theirs.get(start) ^ left;
        self.theirs.set(start, left);
        self.starts.set(middle, true);
        self.theirs.set(middle, right);
        self.suspect(&[(start, middle), (middle, middle)]);
    }

    fn suspect(&mut self, leaves: &[(usize, usize)]) {
        let start = |(start, _): &(usize, usize)| u16::try_from(*start).expect("a frame has at most 2^16 positions");
        self.suspects.extend(leaves.iter().map(start));
    }

    /// Takes the suspects that are odd: single bits, and leaves with their middles.
    fn odd_leaves(&mut self) -> (Vec<usize>, Vec<(usize, usize)>) {
        let mut suspects = core::mem::take(&mut self.suspects);
        suspects.sort_unstable();
        suspects.dedup();
        let (mut single, mut leaves) = (Vec::new(), Vec::new());
        for start in suspects.into_iter().map(usize::from) {
            let end = if start + 1 < self.ours.len() { self.starts.next_one(start + 1) } else { None };
            let end = end.unwrap_or(self.ours.len());
            if self.ours.parity(start, end) != self.theirs.get(start) {
                if end - start == 1 {
                    single.push(start)
                } else {
                    leaves.push((start, start + (end - start).div_ceil(2)))
                }
            }
        }
        (single, leaves)
    }
}

/// Frames beyond this many parities wait for the next round, so that a message stays within its bound.
const RANGES_PER_ROUND: usize = 1 << 20;
/// Smallest and largest error rate that block sizes are made for.
const QBER_PPM_MIN: usize = 100;
const QBER_PPM_MAX: usize = 300_000;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "probabilities as 32-bit thresholds")]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::super::Answerer;
    use super::*;

    struct Outcome {
        equal: bool,
        rounds: usize,
        efficiency: f64,
    }

    fn run(n: usize, q: f64, estimate: f64, seed: u64) -> Outcome {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let alice: Bits = (0..n).map(|_| rng.next_u32() & 1 == 1).collect();
        let bound = (q * 4_294_967_296.0) as u64;
        let mut errors = 0;
        let bob: Bits = (0..n)
            .map(|i| {
                let error = u64::from(rng.next_u32()) < bound;
                errors += usize::from(error);
                alice.get(i) ^ error
            })
            .collect();
        let mut answerer = Answerer::new(&alice, [7; 32]);
        let mut corrector = Corrector::new(&bob, [7; 32], (estimate * 1e6) as u32);
        let (mut rounds, mut on_wire) = (0, 0);
        while let Some(question) = corrector.question().unwrap() {
            let mut w = types::codec::Writer::new();
            question.write(&mut w);
            let wire = w.finish();
            let question = Question::read(&mut types::codec::Reader::new(&wire)).unwrap();
            let answer = answerer.answer(&question).unwrap();
            on_wire += answer.len();
            corrector.take(&answer).unwrap();
            rounds += 1;
        }
        assert_eq!(on_wire, corrector.disclosed());
        assert_eq!(on_wire, answerer.disclosed());
        let q_real = errors as f64 / n as f64;
        let h = -q_real * q_real.log2() - (1.0 - q_real) * (1.0 - q_real).log2();
        let corrected = corrector.corrected();
        let equal = corrector.finish() == alice;
        assert!(!equal || corrected == errors);
        Outcome { equal, rounds, efficiency: on_wire as f64 / (n as f64 * h) }
    }

    #[test]
    fn efficiency_at_100_000_bits_is_that_of_the_literature() {
        for (q, limit) in [(0.01, 1.08), (0.03, 1.08), (0.05, 1.08)] {
            let outcomes: Vec<Outcome> = (0..4).map(|seed| run(100_000, q, q, seed)).collect();
            let mean = outcomes.iter().map(|outcome| outcome.efficiency).sum::<f64>() / 4.0;
            assert!(outcomes.iter().all(|outcome| outcome.equal));
            assert!(mean < limit, "q {q}: f {mean:.4}");
            assert!(outcomes.iter().all(|outcome| outcome.rounds < 350), "q {q}: {} rounds", outcomes[0].rounds);
        }
    }

    #[test]
    fn odd_lengths_wrong_estimates_and_no_errors_work() {
        for (n, q, estimate) in [
            (1, 0.0, 0.02),
            (2, 0.5, 0.02),
            (3, 0.4, 0.3),
            (130, 0.1, 0.01),
            (10_007, 0.0, 0.0),
            (70_001, 0.08, 0.03),
            (10_000, 0.02, 0.2),
        ] {
            assert!(run(n, q, estimate, n as u64).equal || n < 200, "{n} {q} {estimate}");
        }
    }

    #[test]
    fn blocks_of_many_seeds_come_out_equal() {
        assert_eq!((0..60).filter(|seed| !run(10_000, 0.04, 0.04, *seed).equal).count(), 0);
    }

    #[test]
    fn a_wrong_number_of_parities_is_refused() {
        let mut corrector = Corrector::new(&Bits::zeros(1000), [0; 32], 10_000);
        let asked = corrector.question().unwrap().unwrap();
        let parities = Answerer::new(&Bits::zeros(1000), [0; 32]).answer(&asked).unwrap();
        assert!(corrector.take(&parities.window(0, parities.len() - 1)).is_err());
    }

    #[test]
    fn lying_parities_end_in_a_wrong_key_or_an_error_but_end() {
        for seed in 0..40 {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut corrector = Corrector::new(&Bits::zeros(2_000), [1; 32], 50_000);
            let mut answerer = Answerer::new(&Bits::zeros(2_000), [1; 32]);
            while let Ok(Some(question)) = corrector.question() {
                let Ok(honest) = answerer.answer(&question) else { break };
                let lie = (0..honest.len()).map(|_| rng.next_u32().is_multiple_of(8)).collect();
                corrector.take(&lie).unwrap();
            }
        }
    }

    #[test]
    fn a_question_beyond_the_frame_or_the_limit_is_refused() {
        let mut answerer = Answerer::new(&Bits::zeros(1000), [0; 32]);
        let ask = |frame, pass, work| Question { sections: vec![Section { frame, pass, work }] };
        assert!(answerer.answer(&ask(1, 0, Work::Begin { block_len: 8 })).is_err());
        assert!(answerer.answer(&ask(0, 1, Work::Ranges(vec![(0, 8)]))).is_err());
        assert!(answerer.answer(&ask(0, 2, Work::Begin { block_len: 8 })).is_err());
        assert!(answerer.answer(&ask(0, 0, Work::Ranges(vec![(993, 8)]))).is_err());
        let everything = ask(0, 0, Work::Begin { block_len: 1 });
        let refused = (0..4).map(|_| answerer.answer(&everything)).find(Result::is_err);
        assert!(matches!(refused, Some(Err(Misbehaviour::Limit { .. }))));
    }
}
