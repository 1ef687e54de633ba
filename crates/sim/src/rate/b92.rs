//! B92 with single photons, endless blocks, collective attacks: Bennett, PRL 68 3121 (1992). The key rate is the
//! convex optimisation of Matsumoto, "Improved asymptotic key rate of the B92 protocol", arXiv:1301.5083, with loss
//! added.
//!
//! **Sifting.** Alice sends |0> for bit 0 and |+> for bit 1. Bob measures Z or X at random. The result 1 in Z cannot
//! come from |0> and the result - in X cannot come from |+>, so these two are conclusive: a quarter of what arrives.
//! All other results are disclosed; they and the errors tell what the channel did.
//!
//! **Rate.** `r = p_conc [ min H(X|E) - f h(QBER) ]`, the minimum over all channels that agree with what was seen.
//! A channel takes a Bloch vector r with trace a to
//!
//! ```text
//! trace  eta0 (a + v (r_z + r_x))                  v: losing some states more often than others
//! z      R r_z + S r_x + t a
//! x      S r_z + R r_x + t a
//! y      Y r_y
//! ```
//!
//! after averaging with its mirror images (|0> and |+> exchanged, complex conjugate), which changes nothing that was
//! seen and, the entropy being convex, only lowers the minimum's value. What is seen fixes eta0, R and S for given v
//! and t; v, t and Y are searched. Without loss the search ends at a depolarising rate of 6.65 %; Matsumoto reports key
//! at 6.5 %.
//!
//! **Unambiguous state discrimination.** Two states that are not orthogonal can be told apart without error, with
//! probability 1 - |<0|+>| = 29 %. Eve does so, sends vacuum when she fails and the right state when she does not:
//! beyond that loss there is no key, whatever the error rate. The search finds this by itself (v makes the channel
//! such a measurement); [`loss_limit`] says it in advance. BB84's formula with the error rate of B92 put in is no
//! bound at all.

use link::proof::binary_entropy;
use types::units::Decibels;

use super::search::hill_top;

/// What B92 gives over a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct B92Rate {
    /// Secret bits per pulse; negative by what is missing. Zero beyond the loss limit.
    pub bits_per_pulse: f64,
    /// Share of the pulses that give a conclusive result.
    pub conclusive: f64,
    /// Error rate of these.
    pub qber: f64,
    /// H(X|E) of a conclusive bit.
    pub entropy: f64,
}

/// Loss from which on two states with this overlap `|<a|b>|` can be told apart by an eavesdropper who hides behind
/// the loss.
#[must_use]
pub fn loss_limit(overlap: f64) -> Decibels {
    Decibels(-10.0 * libm::log10(1.0 - overlap))
}

/// |<alpha|-alpha>| of coherent states with mean photon number `mu`.
#[must_use]
pub fn coherent_overlap(mu: f64) -> f64 {
    libm::exp(-2.0 * mu)
}

/// The rate over a channel that lets a share `passed` of the pulses through and replaces a share `q` of these by
/// noise (rho to (1-q) rho + q/2), with reconciliation at `f_ec` times the Shannon limit.
#[must_use]
pub fn rate(passed: f64, q: f64, f_ec: f64) -> B92Rate {
    let conclusive = passed * (1.0 + q) / 4.0;
    let qber = q / (1.0 + q);
    let seen = Seen { passed, kept: passed * (1.0 - q) };
    // 1e-9: at the limit itself rounding decides.
    let refused = passed <= 1.0 - core::f64::consts::FRAC_1_SQRT_2 + 1e-9;
    let entropy = if refused { 0.0 } else { (seen.least_entropy() / conclusive).clamp(0.0, 1.0) };
    let bits_per_pulse = if refused { 0.0 } else { conclusive * (entropy - f_ec * binary_entropy(qber)) };
    B92Rate { bits_per_pulse, conclusive, qber, entropy }
}

/// What Bob's results show of the channel.
struct Seen {
    /// Share of the pulses that arrive, for either state.
    passed: f64,
    /// Expectation of Z for |0> and of X for |+>; X for |0> and Z for |+> are 0.
    kept: f64,
}

impl Seen {
    /// The least of p_conc H(X|E). Three searches inside one another; each function searched has one valley,
    /// because the entropy is convex in the channel and so is the set of channels.
    fn least_entropy(&self) -> f64 {
        let p = self.passed;
        let least_v = -(1.0 - p) / (1.0 + core::f64::consts::SQRT_2 * p);
        let most_v = if core::f64::consts::SQRT_2 * p > 1.0 {
            ((1.0 - p) / (core::f64::consts::SQRT_2 * p - 1.0)).min(core::f64::consts::FRAC_1_SQRT_2)
        } else {
            core::f64::consts::FRAC_1_SQRT_2
        };
        let over_y = |v: f64, t: f64| hill_top(|y| -self.entropy(v, t, y), -p, p).1;
        let over_t = |v: f64| hill_top(|t| over_y(v, t), -p, p).1;
        if most_v - least_v < 1e-12 { -over_t(0.0) } else { -hill_top(over_t, least_v, most_v).1 }
    }

    /// p_conc H(X|E) of one channel, or a number above one that grows with the distance from all channels.
    fn entropy(&self, v: f64, t: f64, y: f64) -> f64 {
        let eta0 = self.passed / (1.0 + v);
        let (direct, crossed) = (self.kept - t, -t);
        // E(|0><0|), E(|+><+|), E(|0><+|) from their traces and Bloch vectors.
        let out = |a: f64, z: f64, x: f64, y_imaginary: f64| {
            let trace = eta0 * (a + v * (z + x));
            let (z, x) = (direct * z + crossed * x + t * a, crossed * z + direct * x + t * a);
            let y = y * y_imaginary;
            [[0.5 * (trace + z), 0.5 * (x + y)], [0.5 * (x - y), 0.5 * (trace - z)]]
        };
        let root = core::f64::consts::FRAC_1_SQRT_2;
        let [first, second, cross] =
            [out(1.0, 1.0, 0.0, 0.0), out(1.0, 0.0, 1.0, 0.0), out(root, root, root, root)].map(conclusive);
        let joint = [
            [first[0][0], first[0][1], cross[0][0], cross[0][1]],
            [first[1][0], first[1][1], cross[1][0], cross[1][1]],
            [cross[0][0], cross[1][0], second[0][0], second[0][1]],
            [cross[0][1], cross[1][1], second[1][0], second[1][1]],
        ]
        .map(|row| row.map(|x| 0.5 * x));
        let eigenvalues = eigenvalues(joint);
        let lowest = eigenvalues.iter().copied().fold(f64::INFINITY, f64::min);
        if lowest < -1e-13 {
            return 10.0 - lowest;
        }
        let whole: f64 = eigenvalues.iter().map(|x| shannon(*x)).sum();
        let blocks: f64 = [first, second].map(|block| pair_entropy(block.map(|row| row.map(|x| 0.5 * x)))).iter().sum();
        blocks - whole
    }
}

/// sqrt(F) rho sqrt(F) with F = (|1><1| + |-><-|)/2: what is left where Bob's result is conclusive.
fn conclusive(rho: [[f64; 2]; 2]) -> [[f64; 2]; 2] {
    // F has eigenvalues (1 +- 1/sqrt 2)/2 along the Bloch direction -(z + x).
    let (high, low) = (
        (0.5 * (1.0 + core::f64::consts::FRAC_1_SQRT_2)).sqrt(),
        (0.5 * (1.0 - core::f64::consts::FRAC_1_SQRT_2)).sqrt(),
    );
    let (mean, difference) = (0.5 * (high + low), 0.5 * (high - low) * core::f64::consts::FRAC_1_SQRT_2);
    let k = [[mean - difference, -difference], [-difference, mean + difference]];
    product(product(k, rho), k)
}

fn product(a: [[f64; 2]; 2], b: [[f64; 2]; 2]) -> [[f64; 2]; 2] {
    core::array::from_fn(|i| core::array::from_fn(|j| a[i][0] * b[0][j] + a[i][1] * b[1][j]))
}

/// Sum of -x log2 x over the eigenvalues of a symmetric two by two matrix.
fn pair_entropy(m: [[f64; 2]; 2]) -> f64 {
    let (mean, half) = (0.5 * (m[0][0] + m[1][1]), 0.5 * (m[0][0] - m[1][1]));
    let root = libm::hypot(half, 0.5 * (m[0][1] + m[1][0]));
    shannon(mean + root) + shannon(mean - root)
}

/// -x log2 x
fn shannon(x: f64) -> f64 {
    if x > 0.0 { -x * libm::log2(x) } else { 0.0 }
}

/// Eigenvalues of a symmetric matrix, by Jacobi's rotations.
fn eigenvalues(mut m: [[f64; 4]; 4]) -> [f64; 4] {
    for _ in 0..SWEEPS_MAX {
        let off: f64 = (0..4).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| m[i][j] * m[i][j]).sum();
        if off < 1e-30 {
            break;
        }
        for p in 0..3 {
            for q in p + 1..4 {
                if m[p][q] != 0.0 {
                    rotate(&mut m, p, q);
                }
            }
        }
    }
    core::array::from_fn(|i| m[i][i])
}

/// One rotation, which makes m[p][q] zero.
fn rotate(m: &mut [[f64; 4]; 4], p: usize, q: usize) {
    let theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in m.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    let (a, b) = (m[p], m[q]);
    m[p] = core::array::from_fn(|k| c * a[k] - s * b[k]);
    m[q] = core::array::from_fn(|k| s * a[k] + c * b[k]);
}

const SWEEPS_MAX: u32 = 20;
