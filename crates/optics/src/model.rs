//! Expected values of the physics of [`Channel`](crate::Channel) in closed form.
//!
//! Lim, Curty, Walenta, Xu, Zbinden, PRA 89 022307 (2014), section IV (below: L14), with a dead time:
//!
//! ```text
//! D_k = 1 - (1 - 2 p_dc) e^(-eta mu_k)                         light or dark count in a live slot
//! R_k = D_k (1 + p_ap)                                         with afterpulses
//! e_k = p_dc + e_mis (1 - e^(-eta mu_k)) + p_ap D_k / 2        error in a live slot of matching bases
//! R = sum_k p_k R_k,  live = 1 / (1 + R f tau)                 non-paralysable dead time
//! n_X,k per s = f live q_X^2 p_k R_k,  m_Z,k per s = f live (1 - q_X)^2 p_k e_k
//! ```
//!
//! L14 counts an afterpulse with the intensity of the pulse that caused it ([`Afterpulses::Lumped`]). In a
//! detector it comes later, in a slot whose intensity has nothing to do with its cause: `p_ap D_k` becomes
//! `p_ap sum_j p_j D_j` for every k ([`Afterpulses::Later`]). Sums over k are the same. [`Channel`](crate::Channel)
//! does the latter, published curves and parameter sets use the former.

use types::network::{DecoySettings, Hardware};
use types::quantum::Intensity;
use types::units::Kilometres;

/// Where the model counts an afterpulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterpulses {
    /// At the intensity that caused it, as in L14.
    Lumped,
    /// At an intensity independent of its cause, as in a detector.
    Later,
}

/// Expected values per second of running time. Arrays are by intensity, brightest first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Pulses sent.
    pub pulses_per_s: f64,
    /// Clicks of any kind, in any basis.
    pub clicks_per_s: f64,
    /// Share of the time in which the detectors are not blanked.
    pub live_fraction: f64,
    /// Clicks of both detectors.
    pub doubles_per_s: f64,
    /// n_X,k: detections with both ends in the key basis.
    pub key_per_s: [f64; Intensity::COUNT],
    /// Errors among them. No protocol end learns these before reconciliation.
    pub key_errors_per_s: [f64; Intensity::COUNT],
    /// n_Z,k: detections with both ends in the test basis.
    pub test_per_s: [f64; Intensity::COUNT],
    /// m_Z,k: errors among them.
    pub test_errors_per_s: [f64; Intensity::COUNT],
}

impl Expected {
    /// Expected values of a link.
    #[must_use]
    pub fn of(hardware: &Hardware, length: Kilometres, decoy: &DecoySettings, afterpulses: Afterpulses) -> Self {
        let eta = transmittance(hardware, length);
        let p_dc = dark_probability(hardware);
        let p_ap = hardware.afterpulse;
        // L14 section IV: D_k.
        let clicks = decoy.intensities.map(|mu| 1.0 - (1.0 - 2.0 * p_dc) * libm::exp(-eta * mu));
        let mean = dot(&decoy.probabilities, &clicks);
        let again = match afterpulses {
            Afterpulses::Lumped => clicks.map(|d| p_ap * d),
            Afterpulses::Later => [p_ap * mean; Intensity::COUNT],
        };
        // Non-paralysable dead time: a click costs the live slots that it takes to come and the dead slots after it.
        let rate = mean * (1.0 + p_ap);
        let live_fraction = 1.0 / (1.0 + rate * dead_slots(hardware));
        let live_per_s = hardware.clock_hz * live_fraction;

        let mut detected = [0.0; Intensity::COUNT];
        let mut wrong = [0.0; Intensity::COUNT];
        for k in 0..Intensity::COUNT {
            let p_k = decoy.probabilities[k] * live_per_s;
            let light = 1.0 - libm::exp(-eta * decoy.intensities[k]);
            detected[k] = p_k * (clicks[k] + again[k]); // L14 section IV: R_k
            wrong[k] = p_k * (p_dc + hardware.misalignment * light + again[k] / 2.0); // L14 section IV: e_k
        }
        let key = decoy.key_basis * decoy.key_basis;
        let test = (1.0 - decoy.key_basis) * (1.0 - decoy.key_basis);
        Self {
            pulses_per_s: hardware.clock_hz,
            clicks_per_s: rate * live_per_s,
            live_fraction,
            doubles_per_s: live_per_s * doubles(hardware, eta, decoy),
            key_per_s: detected.map(|n| n * key),
            key_errors_per_s: wrong.map(|n| n * key),
            test_per_s: detected.map(|n| n * test),
            test_errors_per_s: wrong.map(|n| n * test),
        }
    }

    /// Sifted key-basis bits per second: what fills a block.
    #[must_use]
    pub fn sifted_per_s(&self) -> f64 {
        self.key_per_s.iter().sum()
    }

    /// Error rate of the key basis.
    #[must_use]
    pub fn qber(&self) -> f64 {
        self.key_errors_per_s.iter().sum::<f64>() / self.sifted_per_s()
    }

    /// Error rate of the test basis.
    #[must_use]
    pub fn test_qber(&self) -> f64 {
        self.test_errors_per_s.iter().sum::<f64>() / self.test_per_s.iter().sum::<f64>()
    }
}

/// Probability that a photon of the source would be detected: fibre, receiver and detector.
#[must_use]
pub fn transmittance(hardware: &Hardware, length: Kilometres) -> f64 {
    libm::pow(10.0, -hardware.attenuation_db_per_km * length.0 / 10.0) * hardware.efficiency
}

/// Probability of a dark count of one detector in one gate.
#[must_use]
pub fn dark_probability(hardware: &Hardware) -> f64 {
    hardware.dark_count_hz * hardware.gate_ns * 1e-9
}

/// The dead time in whole slots: the receiver's logic counts clock periods.
#[must_use]
pub fn dead_slots(hardware: &Hardware) -> f64 {
    libm::round(hardware.dead_time_us * 1e-6 * hardware.clock_hz)
}

/// Probability in a live slot that both detectors click. Light splits over them by misalignment in matching bases
/// and in halves otherwise; an afterpulse of one meets light or a dark count in the other.
fn doubles(hardware: &Hardware, eta: f64, decoy: &DecoySettings) -> f64 {
    let dark = -libm::log1p(-dark_probability(hardware));
    let fires = |mean: f64| -libm::expm1(-(mean + dark));
    let matching = decoy.key_basis * decoy.key_basis + (1.0 - decoy.key_basis) * (1.0 - decoy.key_basis);
    let mut sum = 0.0;
    let mut one = 0.0;
    let mut any = 0.0;
    for (mu, p) in decoy.intensities.iter().zip(decoy.probabilities) {
        let light = eta * mu;
        let right = fires(light * (1.0 - hardware.misalignment));
        let wrong = fires(light * hardware.misalignment);
        let half = fires(light / 2.0);
        sum += p * (matching * right * wrong + (1.0 - matching) * half * half);
        one += p * (matching * (right + wrong) / 2.0 + (1.0 - matching) * half);
        any += p * -libm::expm1(-(light + 2.0 * dark));
    }
    sum + hardware.afterpulse * any * one
}

fn dot(a: &[f64; Intensity::COUNT], b: &[f64; Intensity::COUNT]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s1() -> Hardware {
        Hardware {
            clock_hz: 900e6,
            attenuation_db_per_km: 0.2,
            efficiency: 0.2,
            dark_count_hz: 50.0,
            gate_ns: 1.0,
            misalignment: 0.027,
            dead_time_us: 60.0,
            afterpulse: 0.01,
        }
    }

    fn close(value: f64, reference: f64) {
        assert!((value / reference - 1.0).abs() < 1e-5, "{value} is not {reference}");
    }

    /// Hardware set S1 with fixed settings: QBER, clicks per second, live fraction, pulses for a block of 1e6.
    #[test]
    fn fixed_vector_s1() {
        let decoy = DecoySettings {
            key_basis: 0.85,
            intensities: [0.35, 0.12, 2e-4],
            probabilities: [0.10, 0.9 * 0.55, 0.9 * 0.45],
            block_bits: 1_000_000,
        };
        for (km, qber, clicks, live, pulses) in [
            (50.0, 0.031_708, 16_506.2, 0.009_628_87, 7.546_71e10),
            (180.0, 0.041_346_2, 3_484.43, 0.790_934, 3.574_98e11),
        ] {
            for afterpulses in [Afterpulses::Lumped, Afterpulses::Later] {
                let expected = Expected::of(&s1(), Kilometres(km), &decoy, afterpulses);
                close(expected.qber(), qber);
                close(expected.test_qber(), qber);
                close(expected.clicks_per_s, clicks);
                close(expected.live_fraction, live);
                close(expected.pulses_per_s * 1e6 / expected.sifted_per_s(), pulses);
            }
        }
    }

    /// Test model of L14: counts of vector A, without dead time.
    #[test]
    fn counts_of_lim_2014() {
        let hardware = Hardware {
            clock_hz: 1e9,
            attenuation_db_per_km: 0.2,
            efficiency: 0.1,
            dark_count_hz: 600.0,
            gate_ns: 1.0,
            misalignment: 5e-3,
            dead_time_us: 0.0,
            afterpulse: 0.04,
        };
        let decoy = DecoySettings {
            key_basis: 0.9,
            intensities: [0.45, 0.2, 2e-4],
            probabilities: [0.5, 0.35, 0.15],
            block_bits: 10_000_000,
        };
        let expected = Expected::of(&hardware, Kilometres(50.0), &decoy, Afterpulses::Lumped);
        let seconds = 1e7 / expected.sifted_per_s();
        close(seconds * 1e9, 4.029_83e9);
        for (k, (n_x, n_z, m_z)) in
            [(7.623_01e6, 94_111.2, 2_274.26), (2.375_36e6, 29_325.4, 713.316), (1_629.47, 20.116_9, 4.074_16)]
                .into_iter()
                .enumerate()
        {
            close(expected.key_per_s[k] * seconds, n_x);
            close(expected.test_per_s[k] * seconds, n_z);
            close(expected.test_errors_per_s[k] * seconds, m_z);
        }
        close(expected.qber(), 0.024_232_4);
    }

    #[test]
    fn loss_lowers_clicks_and_raises_errors() {
        let decoy = DecoySettings {
            key_basis: 0.85,
            intensities: [0.35, 0.12, 2e-4],
            probabilities: [0.10, 0.495, 0.405],
            block_bits: 1_000_000,
        };
        let at = |km| Expected::of(&s1(), Kilometres(km), &decoy, Afterpulses::Later);
        for km in 0..30 {
            let (near, far) = (at(f64::from(km) * 10.0), at(f64::from(km + 1) * 10.0));
            assert!(far.clicks_per_s < near.clicks_per_s);
            assert!(far.qber() > near.qber());
            assert!(far.live_fraction > near.live_fraction);
            assert!(far.doubles_per_s < near.doubles_per_s || near.live_fraction < 0.5);
        }
    }
}
