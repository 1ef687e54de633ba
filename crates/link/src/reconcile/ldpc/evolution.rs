//! Density evolution on the binary symmetric channel: what belief propagation does to an endless code of a design.
//!
//! A density is kept on a grid of log-likelihood ratios. At a check the densities' sums and differences over the sign
//! combine apart, magnitude with magnitude; at a variable densities are convolved. A result between two grid points
//! is split so that its mean of `tanh(x/2)` stays. Checked against the threshold of the regular (3, 6) code,
//! 0.084 (Richardson and Urbanke 2001, IEEE Trans. Inf. Theory 47, 599).
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places on a grid of 181 points")]

use super::design::{COLUMNS, Design};

/// Largest magnitude, in steps.
const TOP: usize = 180;
const STEP: f64 = 0.11;

/// Masses of values from `-TOP` to `TOP` steps.
type Density = Vec<f64>;

/// Grid point below and share above it of every combination of two magnitudes.
struct Checks(Vec<(usize, f64)>);

impl Checks {
    fn new() -> Self {
        let tanh = |step: usize| (step as f64 * STEP / 2.0).tanh();
        let place = |a: usize, b: usize| {
            let (x, y) = (a as f64 * STEP, b as f64 * STEP);
            let exact = x.min(y) + (-(x + y)).exp().ln_1p() - (-(x - y).abs()).exp().ln_1p();
            let below = ((exact / STEP).max(0.0) as usize).min(TOP - 1);
            let gap = tanh(below + 1) - tanh(below);
            let share =
                if gap > 1e-9 { ((exact / 2.0).tanh() - tanh(below)) / gap } else { exact / STEP - below as f64 };
            (below, share.clamp(0.0, 1.0))
        };
        Self((0..=TOP).flat_map(|a| (0..=TOP).map(move |b| place(a, b))).collect())
    }

    fn combine(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; TOP + 1];
        for (a, row) in a.iter().zip(self.0.chunks(TOP + 1)) {
            for (b, (below, share)) in b.iter().zip(row) {
                out[*below] += a * b * (1.0 - share);
                out[below + 1] += a * b * share;
            }
        }
        out
    }

    /// What a check with `others` more edges says, for sums or differences.
    fn power(&self, one: &[f64], others: usize) -> Vec<f64> {
        if others == 1 {
            return one.to_vec();
        }
        let half = self.power(one, others / 2);
        let even = self.combine(&half, &half);
        if others.is_multiple_of(2) { even } else { self.combine(&even, one) }
    }
}

fn channel(qber: f64) -> Density {
    let mut density = vec![0.0; 2 * TOP + 1];
    let at = ((1.0 - qber) / qber).ln() / STEP;
    let (below, share) = (at as usize, at.fract());
    for (mass, sign) in [(1.0 - qber, 1), (qber, -1)] {
        let place = |steps: usize| (TOP as isize + sign * steps as isize) as usize;
        density[place(below)] += mass * (1.0 - share);
        density[place(below + 1)] += mass * share;
    }
    density
}

/// The sum of two independent values; what passes the grid stays at its end.
fn add(a: &[f64], b: &[f64]) -> Density {
    let mut wide = vec![0.0; 4 * TOP + 1];
    for (at, a) in a.iter().enumerate() {
        wide[at..at + b.len()].iter_mut().zip(b).for_each(|(out, b)| *out += a * b);
    }
    let mut out = wide[TOP..=3 * TOP].to_vec();
    out[0] += wide[..TOP].iter().sum::<f64>();
    out[2 * TOP] += wide[3 * TOP + 1..].iter().sum::<f64>();
    // Rounding would grow tenfold a round.
    let mass: f64 = out.iter().sum();
    out.iter_mut().for_each(|part| *part /= mass);
    out
}

/// Bits that remain unknown.
fn entropy(density: &[f64]) -> f64 {
    let unknown = |at: usize| (-(at as f64 - TOP as f64) * STEP).exp().ln_1p() / core::f64::consts::LN_2;
    density.iter().enumerate().map(|(at, mass)| mass * unknown(at)).sum()
}

/// Rounds until the errors are gone, if that is at most `rounds_max`. Degrees and numbers of columns, rows.
fn rounds(columns: &[(usize, usize)], rows: usize, qber: f64, rounds_max: usize) -> Option<usize> {
    let checks = Checks::new();
    let edges: usize = columns.iter().map(|(degree, count)| degree * count).sum();
    let low = edges / rows;
    let high_edges = (edges - low * rows) * (low + 1);
    let high_share = high_edges as f64 / edges as f64;
    let channel = channel(qber);
    let mut said = channel.clone();
    for round in 0..rounds_max {
        let fold = |sign: f64| -> Vec<f64> {
            let pair = |at: usize| said[TOP + at] + sign * said[TOP - at];
            (0..=TOP).map(|at| if at == 0 { 0.5 * pair(0) } else { pair(at) }).collect()
        };
        let through = |one: Vec<f64>| -> Vec<f64> {
            let low = checks.power(&one, low - 1);
            let high = checks.combine(&low, &one);
            low.iter().zip(high).map(|(low, high)| low * (1.0 - high_share) + high * high_share).collect()
        };
        let (sums, differences) = (through(fold(1.0)), through(fold(-1.0)));
        let mut heard = vec![0.0; 2 * TOP + 1];
        for at in 0..=TOP {
            heard[TOP + at] += 0.5 * (sums[at] + differences[at]);
            heard[TOP - at] += 0.5 * (sums[at] - differences[at]);
        }
        let mut value = channel.clone();
        said = vec![0.0; 2 * TOP + 1];
        for degree in 2..=columns.last().expect("a design has columns").0 {
            value = add(&value, &heard);
            let of = columns.iter().find(|(of, _)| *of == degree).map_or(0, |(_, count)| degree * count);
            said.iter_mut().zip(&value).for_each(|(out, mass)| *out += mass * of as f64 / edges as f64);
        }
        if entropy(&said) < 1e-4 {
            return Some(round);
        }
    }
    None
}

#[test]
fn threshold_of_the_regular_code_is_the_published_one() {
    assert!(rounds(&[(3, 2)], 1, 0.083, 400).is_some());
    assert!(rounds(&[(3, 2)], 1, 0.085, 400).is_none());
}

/// Rounding to 400 columns costs up to 2 % of the error rate that a design was made for.
#[test]
fn every_design_converges_where_it_was_made_for() {
    for (rows_of_base, qber, rounds_max) in [
        (30, 0.008, 200),
        (38, 0.0105, 200),
        (47, 0.0135, 200),
        (57, 0.0175, 200),
        (68, 0.0225, 200),
        (82, 0.029, 200),
        (99, 0.037, 200),
        (118, 0.047, 200),
        (139, 0.059, 200),
        (167, 0.074, 110),
        (195, 0.092, 110),
        (222, 0.113, 110),
        (255, 0.14, 110),
    ] {
        let design = Design::with_rows(rows_of_base);
        assert_eq!(design.columns.iter().map(|(_, count)| count).sum::<usize>(), COLUMNS);
        let needed = rounds(&design.columns, design.rows, 0.98 * qber, rounds_max);
        assert!(needed.is_some(), "{rows_of_base} rows at {qber}");
    }
}
