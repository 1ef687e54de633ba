//! The decoy settings that give a link the most key.

use optics::model::{Afterpulses, Expected};
use types::network::{DecoySettings, Link, Security};

use super::expected_block;

/// The settings with the highest expected rate for a link's hardware, length and block, with the dimmest intensity
/// as it is. The brightest intensity keeps a probability of at least 5 %, so that its statistics stay usable when
/// the channel is not as expected.
///
/// A compass search: it starts from fixed middling settings, tries a step up and down in each of five coordinates,
/// takes what is better, and halves the steps when nothing is. Short blocks give no key over most of the space, so
/// the search begins with a long block and shortens it by and by. Deterministic; some ten thousand evaluations.
#[must_use]
pub fn optimise(link: &Link, security: &Security, f_ec: f64) -> DecoySettings {
    let mut best = START;
    let mut block_bits = LONG_BLOCK;
    while block_bits > link.decoy.block_bits {
        best = search(best, &DecoySettings { block_bits, ..link.decoy.clone() }, link, security, f_ec);
        block_bits /= 3;
    }
    best = search(best, &link.decoy, link, security, f_ec);
    settings(&best, &link.decoy).unwrap_or_else(|| link.decoy.clone())
}

/// The best point found for this block length.
fn search(start: [f64; 5], given: &DecoySettings, link: &Link, security: &Security, f_ec: f64) -> [f64; 5] {
    let score = |at: &[f64; 5]| {
        let Some(decoy) = settings(at, given) else { return f64::NEG_INFINITY };
        let expected = Expected::of(&link.hardware, link.length, &decoy, Afterpulses::Lumped);
        let (key, block_s) = expected_block(&expected, &decoy, security, f_ec);
        // Without key the shortfall itself leads the way to where there is some.
        if key.margin > 0.0 { key.margin / block_s } else { key.margin }
    };
    let mut best = start;
    let mut best_score = score(&best);
    let mut step = FIRST_STEP;
    for _ in 0..ROUNDS_MAX {
        let before = best;
        for axis in 0..best.len() {
            for sign in [1.0, -1.0] {
                let mut trial = best;
                trial[axis] += sign * step;
                best_score = better(&score, &mut best, best_score, trial);
            }
        }
        // Where one round went, go on: ridges do not run along the axes.
        let onward: [f64; 5] = core::array::from_fn(|axis| 2.0 * best[axis] - before[axis]);
        best_score = better(&score, &mut best, best_score, onward);
        if best == before {
            step *= 0.5;
        }
        if step < LAST_STEP {
            break;
        }
    }
    best
}

/// Takes the trial if it scores higher, and returns the score of what is best now.
fn better(score: &impl Fn(&[f64; 5]) -> f64, best: &mut [f64; 5], best_score: f64, trial: [f64; 5]) -> f64 {
    let trial_score = score(&trial);
    if trial_score > best_score {
        *best = trial;
        return trial_score;
    }
    best_score
}

/// Settings of a point (log-odds of q_x, p1, p2/(1-p1); logarithms of mu1, mu2/mu1), if they are allowed.
fn settings(at: &[f64; 5], given: &DecoySettings) -> Option<DecoySettings> {
    let odds = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    let [key_basis, p1, share] = [odds(at[0]), odds(at[1]), odds(at[2])];
    let mu1 = libm::exp(at[3]);
    let mu2 = mu1 * libm::exp(at[4]);
    let mu3 = given.intensities[2];
    let allowed = p1 >= BRIGHTEST_MIN && mu1 <= 1.0 && mu1 > mu2 + mu3 && mu2 > mu3 && key_basis < 0.999;
    let p2 = (1.0 - p1) * share;
    allowed.then_some(DecoySettings {
        key_basis,
        intensities: [mu1, mu2, mu3],
        probabilities: [p1, p2, 1.0 - p1 - p2],
        block_bits: given.block_bits,
    })
}

/// q_x = 0.85, p1 = 0.25, p2/(1-p1) = 0.55, mu1 = 0.4, mu2 = 0.15.
const START: [f64; 5] = [1.735, -1.099, 0.2, -0.916, -0.981];
/// Bits of the block that the search begins with, if the link's own is shorter.
const LONG_BLOCK: u32 = 100_000_000;
const FIRST_STEP: f64 = 0.25;
const LAST_STEP: f64 = 1e-4;
const ROUNDS_MAX: usize = 2_000;
const BRIGHTEST_MIN: f64 = 0.05;
