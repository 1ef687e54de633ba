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
//! does the latter, published curves and parameter sets use the former. L14 also adds up errors by their causes;
//! [`Afterpulses::Later`] has the exact probability instead, which differs where both detectors click.
//!
//! Beyond L14, with the same meaning as in the Monte Carlo: noise of classical channels besides dark counts, detectors
//! of unequal efficiency, the share of light that arrives within the gate, the mean error of a calm polarisation, the
//! fibre's loss at its mean temperature. Where the detectors differ, `D_k` and `e_k` are means over the two bits.
//!
//! Not in the model: the day's swing, what the gate loses by drift between two corrections, lightning, attacks.

mod coexistence;

use types::network::{DecoySettings, Environment, Hardware, Link};
use types::quantum::Intensity;
use types::units::Kilometres;

pub(crate) use self::coexistence::photon_joule;
pub use self::coexistence::{coexistence_noise, coexistence_noise_watt};
use crate::terms::Terms;

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
    /// Expected values of a link with these decoy settings, which may be other than its own.
    #[must_use]
    pub fn of(link: &Link, decoy: &DecoySettings, afterpulses: Afterpulses) -> Self {
        let optics = Optics::of(link);
        let p_ap = link.hardware.afterpulse;
        let [key, test] = [decoy.key_basis, 1.0 - decoy.key_basis];
        let matching = key * key + test * test;
        let gates = decoy.intensities.map(|mu| optics.gates(mu));
        let clicks = gates.map(|[matched, unlike]| matching * matched.any + (1.0 - matching) * unlike.any);
        let mean = dot(&decoy.probabilities, &clicks);
        // Non-paralysable dead time: a click costs the live slots that it takes to come and the dead slots after it.
        let rate = mean * (1.0 + p_ap);
        let live_fraction = 1.0 / (1.0 + rate * dead_slots(&link.hardware));
        let live_per_s = link.hardware.clock_hz * live_fraction;

        let mut detected = [0.0; Intensity::COUNT];
        let mut wrong = [0.0; Intensity::COUNT];
        let mut doubles = 0.0;
        for k in 0..Intensity::COUNT {
            let p_k = decoy.probabilities[k] * live_per_s;
            let [matched, unlike] = gates[k];
            let (again, errors) = match afterpulses {
                Afterpulses::Lumped => (p_ap * matched.any, matched.errors_by_cause),
                Afterpulses::Later => (p_ap * mean, matched.wrong),
            };
            detected[k] = p_k * (matched.any + again); // L14 section IV: R_k
            wrong[k] = p_k * (errors + again / 2.0); // L14 section IV: e_k
            let both = matching * matched.both + (1.0 - matching) * unlike.both;
            let one = matching * matched.one + (1.0 - matching) * unlike.one;
            doubles += p_k * (both + p_ap * mean * one);
        }
        Self {
            pulses_per_s: link.hardware.clock_hz,
            clicks_per_s: rate * live_per_s,
            live_fraction,
            doubles_per_s: doubles,
            key_per_s: detected.map(|n| n * key * key),
            key_errors_per_s: wrong.map(|n| n * key * key),
            test_per_s: detected.map(|n| n * test * test),
            test_errors_per_s: wrong.map(|n| n * test * test),
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

/// What the constant terms of a link do to light.
struct Optics {
    /// Probability that a photon of the source would be detected by the better detector, within the gate.
    transmittance: f64,
    /// Probability of the wrong detector.
    error: f64,
    /// Efficiency of each detector over that of the better.
    relative: [f64; 2],
    /// Mean noise counts of each detector per gate.
    noise: [f64; 2],
}

/// Probabilities in a live slot.
#[derive(Clone, Copy, Default)]
struct Gate {
    /// A click.
    any: f64,
    /// A click with the wrong bit, after a double click got its random bit.
    wrong: f64,
    /// The same as L14 adds it up: noise of the wrong detector, and the misaligned share of what light does.
    errors_by_cause: f64,
    /// Clicks of both detectors.
    both: f64,
    /// Mean over the detectors of the probability that it clicks.
    one: f64,
}

impl Optics {
    fn of(link: &Link) -> Self {
        let hardware = &link.hardware;
        let terms = Terms::of(link, link.environment.as_ref().map_or(20.0, |air| air.temperature_c));
        let turned = link.environment.as_ref().map_or(0.0, calm_polarisation_error);
        Self {
            transmittance: terms.transmittance() * gate_acceptance(link),
            error: hardware.misalignment * (1.0 - turned) + turned * (1.0 - hardware.misalignment),
            relative: terms.relative,
            noise: terms.coexistence.map(|noise| noise + terms.dark),
        }
    }

    /// Slots of a mean photon number, with matching bases and with unlike ones.
    fn gates(&self, mu: f64) -> [Gate; 2] {
        let light = self.transmittance * mu;
        let mut matched = Gate::default();
        for bit in [0, 1] {
            let mut shares = [self.error; 2];
            shares[bit] = 1.0 - self.error;
            let gate = self.gate(shares.map(|share| share * light), 1 - bit);
            matched.any += gate.any / 2.0;
            matched.wrong += gate.wrong / 2.0;
            matched.errors_by_cause += gate.errors_by_cause / 2.0;
            matched.both += gate.both / 2.0;
            matched.one += gate.one / 2.0;
        }
        [matched, self.gate([light / 2.0; 2], 0)]
    }

    /// A slot whose light goes to the detectors like this, one of which is the wrong one.
    fn gate(&self, light: [f64; 2], wrong: usize) -> Gate {
        let mean = |at: usize| light[at] * self.relative[at] + self.noise[at];
        let fires = [-libm::expm1(-mean(0)), -libm::expm1(-mean(1))];
        let both = fires[0] * fires[1];
        let seen = [light[0] * self.relative[0], light[1] * self.relative[1]];
        let misaligned = seen[wrong] / (seen[0] + seen[1]).max(f64::MIN_POSITIVE);
        Gate {
            any: -libm::expm1(-mean(0) - mean(1)),
            wrong: fires[wrong] - both / 2.0,
            errors_by_cause: -libm::expm1(-self.noise[wrong]) - misaligned * libm::expm1(-seen[0] - seen[1]),
            both,
            one: (fires[0] + fires[1]) / 2.0,
        }
    }
}

/// Probability that light is detected within the gate. Its place has the detector's jitter and, if a tracking loop
/// follows the weather, the error of the loop's corrections; what the light moves between two corrections is left out.
#[must_use]
pub fn gate_acceptance(link: &Link) -> f64 {
    let correction_ps = match &link.environment {
        Some(air) if air.tracking_s > 0.0 => air.tracking_error_ps,
        _ => 0.0,
    };
    let spread_ps = libm::hypot(link.hardware.jitter_ps, correction_ps);
    if spread_ps <= 0.0 {
        return 1.0;
    }
    libm::erf(link.hardware.gate_ns * 1e3 / (2.0 * core::f64::consts::SQRT_2 * spread_ps))
}

/// Mean probability of the wrong detector by a polarisation that walks a little and is turned back: the walk adds
/// `D` square radians per second, the controller takes `2 / tau` of the square away, so the square of the angle is
/// `D tau / 2` in the mean, and `sin^2(theta / 2)` is `1/4` of it. Holds while that is small; it saturates at 1/2.
#[must_use]
pub fn calm_polarisation_error(air: &Environment) -> f64 {
    (air.polarisation_rad2_per_s * air.polarisation_control_s / 8.0).min(0.5)
}

fn dot(a: &[f64; Intensity::COUNT], b: &[f64; Intensity::COUNT]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use types::network::Network;
    use types::units::Kilometres;

    use super::*;

    fn link(km: f64, hardware: Hardware) -> Link {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
        let any = Network::parse(text).unwrap().links().values().next().unwrap().clone();
        Link { length: Kilometres(km), hardware, ..any }
    }

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
            efficiency_ratio: 1.0,
            jitter_ps: 0.0,
            wavelength_nm: 1550.0,
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
                let expected = Expected::of(&link(km, s1()), &decoy, afterpulses);
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
            efficiency_ratio: 1.0,
            jitter_ps: 0.0,
            wavelength_nm: 1550.0,
        };
        let decoy = DecoySettings {
            key_basis: 0.9,
            intensities: [0.45, 0.2, 2e-4],
            probabilities: [0.5, 0.35, 0.15],
            block_bits: 10_000_000,
        };
        let expected = Expected::of(&link(50.0, hardware), &decoy, Afterpulses::Lumped);
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
        let at = |km| Expected::of(&link(km, s1()), &decoy, Afterpulses::Lumped);
        for km in 0..30 {
            let (near, far) = (at(f64::from(km) * 10.0), at(f64::from(km + 1) * 10.0));
            assert!(far.clicks_per_s < near.clicks_per_s);
            assert!(far.qber() > near.qber());
            assert!(far.live_fraction > near.live_fraction);
            assert!(far.doubles_per_s < near.doubles_per_s || near.live_fraction < 0.5);
        }
    }
}
