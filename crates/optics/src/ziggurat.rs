//! Exponential and normal deviates by the ziggurat method (Marsaglia, Tsang, J. Stat. Softw. 5(8), 2000).
//!
//! A density is covered by 256 layers of equal area. Nearly always one random word, a table look-up, a product and a
//! comparison make a deviate; about one in a hundred needs the density itself. Tables and density come from `libm`,
//! products and comparisons are exact by IEEE 754, so deviates are the same on every platform.

use std::sync::LazyLock;

use rand_core::Rng;

/// Tables of both densities.
pub(crate) struct Ziggurat {
    exponential: Layers,
    normal: Layers,
}

/// Right edges of the layers and the density there; layer 0 is the base with the tail, drawn as wide as its area asks.
struct Layers {
    x: [f64; 257],
    f: [f64; 257],
}

impl Ziggurat {
    /// The tables, made when first asked for.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Ziggurat> = LazyLock::new(Ziggurat::new);
        &SHARED
    }

    fn new() -> Self {
        let density = |x: f64| libm::exp(-x);
        let area = density(EXPONENTIAL_EDGE) * (EXPONENTIAL_EDGE + 1.0);
        let exponential = Layers::new(EXPONENTIAL_EDGE, area, density, |f| -libm::log(f));
        let density = |x: f64| libm::exp(-0.5 * x * x);
        let tail =
            libm::sqrt(core::f64::consts::FRAC_PI_2) * libm::erfc(NORMAL_EDGE * core::f64::consts::FRAC_1_SQRT_2);
        let area = NORMAL_EDGE * density(NORMAL_EDGE) + tail;
        let normal = Layers::new(NORMAL_EDGE, area, density, |f| libm::sqrt(-2.0 * libm::log(f)));
        Self { exponential, normal }
    }

    /// A deviate of the density `e^-x`.
    #[inline]
    pub(crate) fn exponential(&self, rng: &mut impl Rng) -> f64 {
        let word = rng.next_u64();
        let layer = usize::from(word.to_le_bytes()[0]);
        let x = unit(word) * self.exponential.x[layer];
        if x < self.exponential.x[layer + 1] { x } else { self.exponential_at_edge(layer, x, rng) }
    }

    #[cold]
    fn exponential_at_edge(&self, layer: usize, x: f64, rng: &mut impl Rng) -> f64 {
        if layer == 0 {
            // Without memory: beyond the edge it begins anew.
            return EXPONENTIAL_EDGE - libm::log(1.0 - unit(rng.next_u64()));
        }
        let f = self.exponential.height(layer, unit(rng.next_u64()));
        if f < libm::exp(-x) { x } else { self.exponential(rng) }
    }

    /// A deviate of the standard normal density.
    #[inline]
    pub(crate) fn normal(&self, rng: &mut impl Rng) -> f64 {
        let word = rng.next_u64();
        let layer = usize::from(word.to_le_bytes()[0]);
        let x = (2.0 * unit(word) - 1.0) * self.normal.x[layer];
        if x.abs() < self.normal.x[layer + 1] { x } else { self.normal_at_edge(layer, x, rng) }
    }

    #[cold]
    fn normal_at_edge(&self, layer: usize, x: f64, rng: &mut impl Rng) -> f64 {
        if layer == 0 {
            // Marsaglia 1964: the tail.
            loop {
                let beyond = -libm::log(1.0 - unit(rng.next_u64())) / NORMAL_EDGE;
                let y = -libm::log(1.0 - unit(rng.next_u64()));
                if 2.0 * y >= beyond * beyond {
                    return if x < 0.0 { -NORMAL_EDGE - beyond } else { NORMAL_EDGE + beyond };
                }
            }
        }
        let f = self.normal.height(layer, unit(rng.next_u64()));
        if f < libm::exp(-0.5 * x * x) { x } else { self.normal(rng) }
    }
}

impl Layers {
    fn new(edge: f64, area: f64, density: impl Fn(f64) -> f64, inverse: impl Fn(f64) -> f64) -> Self {
        let mut x = [0.0; 257];
        x[0] = area / density(edge);
        x[1] = edge;
        for layer in 2..256 {
            x[layer] = inverse(area / x[layer - 1] + density(x[layer - 1]));
        }
        Self { x, f: x.map(density) }
    }

    /// A height within the layer.
    fn height(&self, layer: usize, share: f64) -> f64 {
        self.f[layer] + (self.f[layer + 1] - self.f[layer]) * share
    }
}

/// A uniform number in `[0, 1)` of the highest 53 bits.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// Edge of the lowest of 256 layers (Marsaglia, Tsang 2000).
const EXPONENTIAL_EDGE: f64 = 7.697_117_470_131_05;
const NORMAL_EDGE: f64 = 3.654_152_885_361_009;

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// Counts in cells against the distribution function: chi-squared of 50 cells below its 99.99 % quantile.
    fn cells(draw: impl Fn(&mut Xoshiro256PlusPlus) -> f64, cdf: impl Fn(f64) -> f64, from: f64, to: f64) {
        const DRAWS: u32 = 2_000_000;
        const CELLS: u32 = 50;
        let width = (to - from) / f64::from(CELLS - 2);
        let mut counts = [0_u32; CELLS as usize];
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        for _ in 0..DRAWS {
            let cell = ((draw(&mut rng) - from) / width + 1.0).clamp(0.0, f64::from(CELLS - 1));
            counts[slot(cell)] += 1;
        }
        let mut chi2 = 0.0;
        let mut below = 0.0;
        for (cell, count) in (0_u32..).zip(counts) {
            let upper = if cell == CELLS - 1 { 1.0 } else { cdf(from + width * f64::from(cell)) };
            let mean = (upper - below) * f64::from(DRAWS);
            if mean > 0.0 {
                chi2 += (f64::from(count) - mean).powi(2) / mean;
            }
            below = upper;
        }
        assert!(chi2 < 95.0, "{chi2}");
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cell's number")]
    fn slot(cell: f64) -> usize {
        cell as usize
    }

    #[test]
    fn deviates_follow_their_distributions() {
        let both = Ziggurat::shared();
        cells(|rng| both.exponential(rng), |x| if x < 0.0 { 0.0 } else { 1.0 - libm::exp(-x) }, 0.0, 9.0);
        cells(|rng| both.normal(rng), |x| 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2), -4.2, 4.2);
    }

    #[test]
    fn top_layer_closes() {
        // The published edges are those for which the last layer ends at the density's top.
        for layers in [&Ziggurat::shared().exponential, &Ziggurat::shared().normal] {
            let area = layers.x[0] * layers.f[1];
            assert!((area / layers.x[255] + layers.f[255] - 1.0).abs() < 1e-9);
        }
    }
}
