//! One frame at Bob: its passes, and what it asks for.

use super::leaves::Leaves;
use super::plan::{BLOCK_PASSES, Order, PASSES, Plan};
use super::question::Work;
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// A frame is independent of the others but for the rounds they share.
pub(super) struct Frame {
    bits: Bits,
    /// Bits that were corrected: they are Alice's now.
    settled: Bits,
    passes: Vec<Leaves>,
    /// The length of blocks of the pass that was asked for, if one was.
    begins: Option<usize>,
    /// Parities that Alice owes.
    awaited: usize,
}

/// What the error rate decides.
pub(super) struct Tuning {
    /// Lengths of the blocks of the first passes.
    block_lens: [usize; BLOCK_PASSES],
    /// How an even and an odd leaf of this length change the weight of their bits, in units of [`ONE`].
    factors: Box<[[usize; 2]; FACTORS]>,
}

impl Tuning {
    /// For an error rate in errors per million.
    ///
    /// Powers of two, so that halves are equal and their parities carry a whole bit: `k1` up to `1.3/q`, `k2` so that
    /// `k1 k2` is up to `5.6/q^2`, or `7.5/q^2` from 3.5 % on. Longer blocks save parities but lengthen the chains of
    /// corrections; these were best at 100,000 bits within 250 rounds. Then eighths of the frame, which find many
    /// errors at once.
    pub(super) fn new(qber_ppm: u32, frame_len: usize) -> Self {
        let ppm = usize::try_from(qber_ppm).expect("32 bits fit a usize").clamp(QBER_PPM_MIN, QBER_PPM_MAX);
        let half = frame_len.div_ceil(2);
        let power_below = |bound: usize| 1 << bound.max(2).ilog2();
        let first = power_below(1_300_000 / ppm);
        let area = if ppm < 35_000 { 5_600_000_000_000 } else { 7_500_000_000_000 };
        let block_lens = [first, power_below(area / ppm.pow(2) / first), frame_len / 8];
        let factors = core::array::from_fn(|len| {
            // An even leaf with an error has a second one among `len - 1`; an odd leaf has one among `len`.
            let even = (ONE * len.saturating_sub(1) * ppm / 1_000_000).clamp(usize::from(len > 1), ONE);
            [even, (ONE * 1_000_000 / (len.max(1) * ppm)).max(ONE)]
        });
        Self { block_lens: block_lens.map(|len| len.clamp(1, half)), factors: Box::new(factors) }
    }
}

/// What to do with an odd leaf.
enum Split {
    /// Only this bit of the frame can be wrong.
    Single(usize),
    /// The second part begins at this position.
    At(usize),
    /// All its bits are known to be right: Alice's parities contradict each other.
    Impossible,
}

impl Frame {
    pub(super) fn new(bits: Bits) -> Self {
        Self { settled: Bits::zeros(bits.len()), bits, passes: Vec::new(), begins: None, awaited: 0 }
    }

    pub(super) fn bits(&self) -> &Bits {
        &self.bits
    }

    /// Parities that Alice owes.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Corrects errors that are known without a question. Gives their number.
    pub(super) fn correct_known(&mut self, plan: &Plan, tuning: &Tuning) -> Result<usize, Misbehaviour> {
        let mut corrected = 0;
        let mut pass = 0;
        while pass < self.passes.len() {
            let before = corrected;
            while let Some(start) = self.passes[pass].next_fresh() {
                match self.split(plan, plan.order(pass), pass, start, tuning) {
                    Split::Single(index) => {
                        self.correct(plan, index)?;
                        corrected += 1;
                    }
                    Split::At(middle) => self.passes[pass].keep(start, middle),
                    Split::Impossible => return Err(Misbehaviour::Contradiction { field: "parities" }),
                }
            }
            pass = if corrected > before { 0 } else { pass + 1 };
        }
        Ok(corrected)
    }

    /// Turns one bit over, and with it the parity of the leaf that holds it in every pass.
    fn correct(&mut self, plan: &Plan, index: usize) -> Result<(), Misbehaviour> {
        if self.settled.get(index) {
            return Err(Misbehaviour::Contradiction { field: "parities" });
        }
        self.settled.set(index, true);
        self.bits.flip(index);
        for (number, pass) in self.passes.iter_mut().enumerate() {
            pass.flip(plan.order(number).to_pass(index));
        }
        Ok(())
    }

    /// Where the odd leaf that begins at `start` is cut: so that the error is in either part with equal probability.
    fn split(&self, plan: &Plan, order: &Order, pass: usize, start: usize, tuning: &Tuning) -> Split {
        let end = self.passes[pass].end(start);
        match order {
            Order::Subset(subset) => self.split_subset(subset, start, end),
            Order::Natural if end - start <= WEIGHED_MAX => {
                balance(start, end, |position| (position, self.weight(plan, pass, position, tuning)))
            }
            Order::Shuffled(shuffle) if end - start <= WEIGHED_MAX => balance(start, end, |position| {
                let index = usize::from(shuffle.to_frame[position]);
                (index, self.weight(plan, pass, index, tuning))
            }),
            Order::Natural | Order::Shuffled(_) => Split::At(start + (end - start).div_ceil(2)),
        }
    }

    /// Members of a short leaf are counted; in a long one about every second position is a member.
    fn split_subset(&self, subset: &Bits, start: usize, end: usize) -> Split {
        let len = end - start;
        if len > 64 {
            return Split::At(start + len / 2);
        }
        let (base, flipped) = if start < subset.len() { (0, 0) } else { (subset.len(), u64::MAX) };
        let inside = (subset.word_at(start - base) ^ flipped) & (u64::MAX >> (64 - len));
        let mut open = inside & !self.settled.word_at(start - base);
        match open.count_ones() {
            0 => Split::Impossible,
            1 => Split::Single(start - base + open.trailing_zeros() as usize),
            count => {
                (0..count / 2).for_each(|_| open &= open - 1);
                Split::At(start + open.trailing_zeros() as usize)
            }
        }
    }

    /// How likely this bit is wrong, by its leaves in the other block passes; 0 is never, [`ONE`] is the error rate.
    #[inline]
    fn weight(&self, plan: &Plan, pass: usize, index: usize, tuning: &Tuning) -> usize {
        let mut weight = if self.settled.get(index) { 0 } else { ONE };
        for (other, leaves) in self.passes.iter().enumerate().take(WEIGHING_PASSES) {
            if weight > 0 && other != pass {
                let (len, odd) = leaves.around(plan.order(other).to_pass(index));
                weight = match tuning.factors[len.min(FACTORS - 1)][usize::from(odd)] {
                    0 => 0,
                    factor => (weight * factor / ONE).max(1),
                };
            }
        }
        weight
    }

    /// Asks for the first parts of odd leaves and, when not more than `few` leaves are odd, for the next pass.
    pub(super) fn ask(&mut self, plan: &mut Plan, tuning: &Tuning, few: usize, mut put: impl FnMut(usize, Work)) {
        self.awaited = 0;
        self.begins = None;
        for (number, pass) in self.passes.iter_mut().enumerate() {
            let ranges = pass.ask();
            if !ranges.is_empty() {
                self.awaited += ranges.len();
                put(number, Work::Ranges(ranges));
                // The same errors make subsets odd: one at a time.
                if number >= BLOCK_PASSES {
                    break;
                }
            }
        }
        let next = self.passes.len();
        if self.awaited <= few && next < PASSES {
            let block_len = tuning.block_lens.get(next).copied().unwrap_or(plan.frame_len);
            plan.begin(next);
            self.begins = Some(block_len);
            self.awaited += plan.first_parities(next, block_len);
            put(next, Work::Begin { block_len });
        }
    }

    /// Takes the parities in the order in which they were asked for.
    pub(super) fn take(&mut self, plan: &Plan, parity: impl Fn(usize) -> bool) {
        let mut next = 0;
        for (number, pass) in self.passes.iter_mut().enumerate() {
            next += pass.take(plan.order(number), &self.bits, |index| parity(next + index));
        }
        if let Some(block_len) = self.begins.take() {
            let number = self.passes.len();
            let order = plan.order(number);
            let whole = self.passes.first().map(|first| first.any_odd() ^ self.bits.parity(0, self.bits.len()));
            let mut pass = Leaves::new(order, &self.bits, plan.positions(number));
            pass.begin(order, &self.bits, block_len, whole, |index| parity(next + index));
            self.passes.push(pass);
        }
        self.awaited = 0;
    }
}

/// Cuts positions `start` to before `end` into parts of nearest weight; `bit` gives a position's bit and its weight.
fn balance(start: usize, end: usize, bit: impl Fn(usize) -> (usize, usize)) -> Split {
    let mut weights = [0; WEIGHED_MAX];
    let (mut total, mut open, mut last) = (0, 0, 0);
    for (weight, position) in weights.iter_mut().zip(start..end) {
        let (index, value) = bit(position);
        *weight = value;
        total += value;
        if value > 0 {
            (open, last) = (open + 1, index);
        }
    }
    match open {
        0 => return Split::Impossible,
        1 => return Split::Single(last),
        _ => {}
    }
    let (mut left, mut best, mut middle) = (0, usize::MAX, start + 1);
    for (weight, position) in weights.iter().zip(start..end - 1) {
        left += weight;
        let difference = total.abs_diff(2 * left);
        if difference < best {
            (best, middle) = (difference, position + 1);
        }
    }
    Split::At(middle)
}

/// Longest leaf whose bits are weighed one by one.
const WEIGHED_MAX: usize = 8;
/// Passes whose leaves are short enough to tell bits apart.
const WEIGHING_PASSES: usize = 2;
/// Lengths of leaves that are told apart.
const FACTORS: usize = 256;
/// Unit of weights.
const ONE: usize = 1 << 10;
/// Smallest and largest error rate that block sizes are made for.
const QBER_PPM_MIN: usize = 100;
const QBER_PPM_MAX: usize = 300_000;
