//! Belief propagation on the error pattern of one frame.

use kernels::ldpc::{Beliefs, HALO, UNITS_PER_NAT};

use super::code::{Code, Columns, Row};
use super::design::COLUMNS;
use super::plan::Plan;
use crate::bits::Bits;

/// How Alice's parities of one frame differ from Bob's.
pub(super) struct Syndrome {
    /// Of whole rows.
    pub(super) whole: Bits,
    /// Of the first halves of split rows, in the order of disclosure.
    pub(super) halves: Bits,
}

impl Syndrome {
    /// Odd checks: whole rows, or both halves where a row is split.
    fn odd(&self, code: &Code) -> usize {
        let ones = |bits: &Bits| bits.words().iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let mut odd = ones(&self.whole);
        for at in (0..self.halves.len()).filter(|at| self.halves.get(*at)) {
            let check = code.splits[at / code.lanes] * code.lanes + at % code.lanes;
            // Halves 1 and 0 of an odd row count once, as the row does; 1 and 1 of an even row twice.
            odd += 2 * usize::from(!self.whole.get(check));
        }
        odd
    }
}

/// Room to decode one frame; used for frame after frame.
pub(super) struct Decoder {
    beliefs: Beliefs,
    odd: Odd,
    /// Updates of a whole frame so far.
    pub(super) iterations: u64,
}

/// For each check -1 if its parity is odd, else 0.
struct Odd {
    whole: Vec<i16>,
    first: Vec<i16>,
    second: Vec<i16>,
}

impl Decoder {
    pub(super) fn new(code: &Code) -> Self {
        let odd = || vec![0; code.checks()];
        Self {
            beliefs: Beliefs::new(code.lanes, COLUMNS, code.edges.len()),
            odd: Odd { whole: odd(), first: odd(), second: odd() },
            iterations: 0,
        }
    }

    /// The positions of the errors in the frame, if the parities can be explained.
    ///
    /// `held` places are not filled up. What is found explains every parity known; it is the error pattern but for
    /// words of the code, which verification finds.
    pub(super) fn errors(&mut self, plan: &Plan, held: usize, syndrome: &Syndrome, qber: f64) -> Option<Vec<u32>> {
        let code = &plan.code;
        self.odd.set(code, syndrome);
        self.begin(plan, held, qber);
        let mut best = usize::MAX;
        let mut improved = 0;
        for iteration in 0..ITERATIONS_MAX {
            self.iterations += 1;
            let unsatisfied = self.iterate(code, syndrome.halves.len());
            if unsatisfied == 0
                && let Some(errors) = self.confirm(plan, held, syndrome)
            {
                return Some(errors);
            }
            if unsatisfied < best {
                (best, improved) = (unsatisfied, iteration);
            } else if iteration - improved >= PATIENCE {
                return None;
            }
        }
        None
    }

    fn begin(&mut self, plan: &Plan, held: usize, qber: f64) {
        let prior = f64::from(UNITS_PER_NAT) * libm::log((1.0 - qber) / qber);
        #[expect(clippy::cast_possible_truncation, reason = "bounded right here")]
        let prior = prior.clamp(1.0, f64::from(KNOWN)) as i16;
        let lanes = plan.code.lanes;
        self.beliefs.messages.fill(0);
        for (column, places) in plan.by_column().enumerate() {
            let start = self.beliefs.column(column);
            let totals = &mut self.beliefs.totals[start..start + lanes];
            totals.fill(KNOWN);
            for (total, position) in totals.iter_mut().zip(places) {
                if (*position as usize) < held {
                    *total = prior;
                }
            }
            self.beliefs.repeat(column);
        }
    }

    /// One update of every check; gives how many were not satisfied when their turn came.
    fn iterate(&mut self, code: &Code, splits: usize) -> usize {
        let mut unsatisfied = 0;
        for (index, row) in code.splits.iter().enumerate() {
            let Row { start, middle, end } = code.rows[*row];
            let split = splits.saturating_sub(index * code.lanes).min(code.lanes);
            let checks = row * code.lanes..(row + 1) * code.lanes;
            let (beliefs, odd) = (&mut self.beliefs, &self.odd);
            let messages = beliefs.messages_of(start);
            let part = |from: usize, to: usize| kernels::ldpc::Row {
                edges: &code.edges[from..to],
                messages,
                before: from - start,
                degree: end - start,
            };
            if split > 0 {
                unsatisfied += beliefs.update(part(start, middle), &odd.first[checks.clone()], 0, split);
                unsatisfied += beliefs.update(part(middle, end), &odd.second[checks.clone()], 0, split);
            }
            if split < code.lanes {
                unsatisfied += beliefs.update(part(start, end), &odd.whole[checks], split, code.lanes);
            }
        }
        unsatisfied
    }

    /// The hard decisions, if they have exactly the parities known.
    fn confirm(&self, plan: &Plan, held: usize, syndrome: &Syndrome) -> Option<Vec<u32>> {
        let code = &plan.code;
        let mut found = Columns::zeros(code.lanes);
        let mut errors = Vec::new();
        for (column, places) in plan.by_column().enumerate() {
            let start = column * (code.lanes + HALO);
            for (lane, total) in self.beliefs.totals[start..start + code.lanes].iter().enumerate() {
                if *total < 0 {
                    let position = places.get(lane).filter(|position| (**position as usize) < held)?;
                    found.flip(column, lane);
                    errors.push(*position);
                }
            }
        }
        let [halves, whole] = code.parities(&found);
        let halves = code.in_order_of_splits(&halves);
        let known = syndrome.halves.len();
        (whole == syndrome.whole && halves.window(0, known) == syndrome.halves).then_some(errors)
    }
}

impl Odd {
    fn set(&mut self, code: &Code, syndrome: &Syndrome) {
        let mask = |bit: bool| -i16::from(bit);
        (0..code.checks()).for_each(|at| self.whole[at] = mask(syndrome.whole.get(at)));
        for at in 0..syndrome.halves.len() {
            let check = code.splits[at / code.lanes] * code.lanes + at % code.lanes;
            self.first[check] = mask(syndrome.halves.get(at));
            self.second[check] = self.first[check] ^ self.whole[check];
        }
    }
}

/// The error rate at which this many parities would be odd.
pub(super) fn estimate_qber(code: &Code, held: usize, syndrome: &Syndrome) -> f64 {
    let share = crate::reconcile::ldpc::share(held, code.len());
    // Checks by their degree.
    let mut checks = [0_usize; kernels::ldpc::DEGREE_MAX + 1];
    let splits = syndrome.halves.len();
    for (index, row) in code.splits.iter().enumerate() {
        let Row { start, middle, end } = code.rows[*row];
        let split = splits.saturating_sub(index * code.lanes).min(code.lanes);
        checks[middle - start] += split;
        checks[end - middle] += split;
        checks[end - start] += code.lanes - split;
    }
    let odd = syndrome.odd(code);
    let kinds: Vec<(f64, f64)> = checks
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(degree, count)| (float(*count), float(degree) * share))
        .collect();
    // A check of degree d is odd with probability (1 - (1 - 2q)^d) / 2.
    let expected = |qber: f64| -> f64 {
        let log = libm::log1p(-2.0 * qber);
        kinds.iter().map(|(count, degree)| -0.5 * count * libm::expm1(degree * log)).sum()
    };
    let (mut low, mut high) = (QBER_MIN, 0.5);
    for _ in 0..24 {
        let middle = 0.5 * (low + high);
        if expected(middle) < float(odd) { low = middle } else { high = middle }
    }
    low
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("counts of a frame fit 32 bits"))
}

/// What is known of a place that is filled up.
const KNOWN: i16 = 30_000;

/// No less is believed of any channel.
const QBER_MIN: f64 = 1e-5;

/// Rounds of belief propagation before a frame is given up.
const ITERATIONS_MAX: usize = 100;

/// Rounds without a new least number of unsatisfied checks before a frame is given up.
const PATIENCE: usize = 10;
