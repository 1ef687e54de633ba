//! One-dimensional searches.

/// Where a function is highest between two ends, and its value there: a grid, and the hill around its best point.
pub(super) fn highest(f: impl Fn(f64) -> f64, low: f64, high: f64) -> (f64, f64) {
    let step = (high - low) / f64::from(GRID);
    let grid = (0..=GRID).map(|i| low + f64::from(i) * step);
    let best = grid.map(|at| (at, f(at))).fold((low, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
    let top = hill_top(f, (best.0 - step).max(low), (best.0 + step).min(high));
    if top.1 > best.1 { top } else { best }
}

/// The same of a function with a single hill between the two ends, without a grid.
pub(super) fn hill_top(f: impl Fn(f64) -> f64, low: f64, high: f64) -> (f64, f64) {
    let (mut a, mut d) = (low, high);
    let mut best = (low, f(low));
    let mut keep = |at: f64, value: f64| {
        if value > best.1 {
            best = (at, value);
        }
        value
    };
    keep(high, f(high));
    let (mut b, mut c) = (d - GOLDEN * (d - a), a + GOLDEN * (d - a));
    let (mut at_b, mut at_c) = (keep(b, f(b)), keep(c, f(c)));
    for _ in 0..SECTIONS {
        if at_b > at_c {
            (d, c, at_c) = (c, b, at_b);
            b = d - GOLDEN * (d - a);
            at_b = keep(b, f(b));
        } else {
            (a, b, at_b) = (b, c, at_c);
            c = a + GOLDEN * (d - a);
            at_c = keep(c, f(c));
        }
    }
    best
}

/// The last point between two ends at which a function is above zero, if it falls through zero once; the first if
/// it is nowhere above zero.
#[must_use]
pub fn last_above_zero(f: impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

const GRID: u32 = 48;
const SECTIONS: u32 = 32;
const BISECTIONS: u32 = 50;
/// (sqrt(5) - 1) / 2
const GOLDEN: f64 = 0.618_033_988_749_894_9;
