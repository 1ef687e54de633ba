//! Photon-number splitting: Eve counts the photons of a pulse without touching their state, stops pulses of one,
//! and of the others keeps one photon until the bases are announced and sends one on through a line without loss.
//!
//! A pulse of mean photon number mu has two or more with probability `1 - (1 + mu) e^-mu`; that many detections it
//! gives, instead of about `eta mu`. Eve sends on a share such that the brightest pulses are detected as before. If
//! even all are too few, the count rate falls. The error rate stays: her photon's state is never touched.
//!
//! She learns: whether a pulse has two photons or more, and later the bit of those. The intensity of a pulse she does not
//! learn, and so cannot treat decoys otherwise.

use super::eve::Delivery;
use crate::terms::Terms;

/// Light as it arrives.
pub(super) fn split(plain: Delivery, intensities: [f64; 3], terms: &Terms) -> Delivery {
    let many = intensities.map(|mu| -libm::expm1(-mu) - mu * libm::exp(-mu));
    let wanted = -libm::expm1(-plain.light[0]);
    let share = (wanted / (many[0] * terms.efficiency)).min(1.0);
    // One point or more of a Poisson process with this mean is one detection with the right probability.
    let light = many.map(|p| -libm::log1p(-(p * share * terms.efficiency).min(CERTAIN)));
    Delivery { light, single: true, own_line: true, ..plain }
}

/// No process makes a point with certainty.
const CERTAIN: f64 = 1.0 - 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratio of decoy to signal of 0.0519 for mean photon numbers 0.1 and 0.5, where an honest line gives 0.2.
    #[test]
    fn decoys_fall_behind() {
        let terms = Terms { fibre: 0.01, efficiency: 0.2, relative: [1.0; 2], dark: 0.0, coexistence: [0.0; 2] };
        let mus = [0.5, 0.1, 0.0];
        let plain = Delivery::of(None, mus, &terms);
        let split = split(plain, mus, &terms);
        let rates = split.light.map(|mean| -libm::expm1(-mean));
        assert!((rates[1] / rates[0] - 0.0519).abs() < 5e-5, "{rates:?}");
        assert!((rates[0] / -libm::expm1(-plain.light[0]) - 1.0).abs() < 1e-9);
        assert!(rates[2].abs() < 1e-15);
    }
}
