//! The decoy settings that give a link the most key.

use types::network::{DecoySettings, Decoys};

use super::Setting;

/// The settings with the highest expected rate for a link's hardware, length, proof and block, with the dimmest of
/// three intensities as it is. The brightest intensity keeps a probability of at least 5 %, so that its statistics
/// stay usable when the channel is not as expected.
///
/// A compass search: it starts from fixed middling settings, tries a step up and down in each coordinate, takes what
/// is better, and halves the steps when nothing is. Short blocks give no key over most of the space, so the search
/// begins with a long block and shortens it by and by. Deterministic; some ten thousand evaluations.
#[must_use]
pub fn optimise(setting: &Setting<'_>) -> DecoySettings {
    let mut best = START;
    let mut block_bits = LONG_BLOCK;
    while block_bits > setting.decoy.block_bits {
        best = search(best, &DecoySettings { block_bits, ..setting.decoy.clone() }, setting);
        block_bits /= 3;
    }
    best = search(best, setting.decoy, setting);
    settings(&best, setting.decoy, setting.proof.decoys()).unwrap_or_else(|| setting.decoy.clone())
}

/// The best point found for this block length.
fn search(start: [f64; 5], given: &DecoySettings, setting: &Setting<'_>) -> [f64; 5] {
    let decoys = setting.proof.decoys();
    let score = |at: &[f64; 5]| {
        let Some(decoy) = settings(at, given, decoys) else { return f64::NEG_INFINITY };
        let expected = setting.expected(&decoy);
        let (key, block_s) = Setting { decoy: &decoy, ..*setting }.expected_block(&expected);
        // Without key the shortfall itself leads the way to where there is some.
        if key.margin > 0.0 { key.margin / block_s } else { key.margin }
    };
    let axes: &[usize] = match decoys {
        Decoys::Two => &[0, 1, 2, 3, 4],
        Decoys::One => &[0, 1, 3, 4],
    };
    let mut best = start;
    let mut best_score = score(&best);
    let mut step = FIRST_STEP;
    for _ in 0..ROUNDS_MAX {
        let before = best;
        for &axis in axes {
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

/// Settings of a point (log-odds of q_x, p1, p2/(1-p1); logarithms of mu1, mu2/mu1), if they are allowed. With one
/// decoy the third coordinate means nothing.
fn settings(at: &[f64; 5], given: &DecoySettings, decoys: Decoys) -> Option<DecoySettings> {
    let odds = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    let [key_basis, p1, share] = [odds(at[0]), odds(at[1]), odds(at[2])];
    let mu1 = libm::exp(at[3]);
    let mu2 = mu1 * libm::exp(at[4]);
    let (mu3, p2) = match decoys {
        Decoys::Two => (given.intensities[2], (1.0 - p1) * share),
        Decoys::One => (0.0, 1.0 - p1),
    };
    let p3 = match decoys {
        Decoys::Two => 1.0 - p1 - p2,
        Decoys::One => 0.0,
    };
    let allowed = p1 >= BRIGHTEST_MIN && mu1 <= 1.0 && mu1 > mu2 + mu3 && mu2 > mu3 && key_basis < 0.999;
    // Log-odds of what rounds to one leave a decoy that is never sent.
    (allowed && p2 > 0.0).then_some(DecoySettings {
        key_basis,
        intensities: [mu1, mu2, mu3],
        probabilities: [p1, p2, p3],
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
