//! Binary entropy, and the error rate at which it uses up all key.

/// h(p) = -p log2 p - (1-p) log2(1-p), with h = 0 at and beyond the ends of `[0, 1]`.
#[must_use]
pub fn binary_entropy(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return 0.0;
    }
    -p * libm::log2(p) - (1.0 - p) * libm::log2(1.0 - p)
}

/// The error rate at which one-way BB84 with single photons and reconciliation efficiency `f_ec` gives no key
/// even from an endless block: the root of 1 - (1 + f) h(Q). For display; a block is judged by its length.
#[must_use]
pub fn one_way_threshold(f_ec: f64) -> f64 {
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if (1.0 + f_ec) * binary_entropy(middle) < 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Enough for all bits of a number below one half.
const BISECTIONS: usize = 60;
