//! Measurement-device-independent QKD with decoys, endless blocks: Lo, Curty, Qi, PRL 108 130503 (2012); rates of
//! weak coherent pulses from Ma, Razavi, PRA 86 062319 (2012).
//!
//! **Sifting.** Alice and Bob both send; an untrusted relay in the middle announces which pairs its Bell measurement
//! projected. Pairs prepared in the same basis are kept, Z makes key, X bounds the phase error. Choosing Z nearly
//! always, the sifted share goes to one; rates here are per pair of pulses in Z.
//!
//! ```text
//! R = Q11 [1 - h(e11_X)] - f Q_Z h(E_Z)
//! mu' = ea mu + eb nu, x = sqrt(ea mu eb nu) / 2, y = (1 - pd) e^(-mu'/4)
//! Q_C = 2 (1-pd)^2 e^(-mu'/2) [1 - (1-pd) e^(-ea mu/2)] [1 - (1-pd) e^(-eb nu/2)]
//! Q_E = 2 pd (1-pd)^2 e^(-mu'/2) [I0(2x) - (1-pd) e^(-mu'/2)]
//! Q_Z = Q_C + Q_E,  E_Z Q_Z = e_d Q_C + (1 - e_d) Q_E
//! Q_X = 2 y^2 [1 + 2 y^2 - 4 y I0(x) + I0(2x)],  E_X Q_X = Q_X/2 - 2 (1/2 - e_d) y^2 [I0(2x) - 1]
//! Y11 = (1-pd)^2 [ea eb/2 + (2 ea + 2 eb - 3 ea eb) pd + 4 (1-ea)(1-eb) pd^2]
//! e11_X Y11 = Y11/2 - (1/2 - e_d)(1 - pd^2) ea eb/2,  Q11 = mu nu e^(-mu-nu) Y11
//! ```
//!
//! E_X of weak pulses is about 25 % by construction: two-photon interference has a visibility of one half. It is no
//! alarm and makes no key.

use link::proof::binary_entropy;
use types::network::Hardware;
use types::units::Kilometres;

use super::search::highest;

/// Two arms and a relay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relay {
    /// Probability that a photon of Alice's is detected at the relay, and of Bob's.
    pub eta: [f64; 2],
    /// Dark counts of one detector per gate.
    pub dark: f64,
    /// e_d.
    pub misalignment: f64,
    /// Slots that the relay's detectors rest after a click. It counts where an intensity is chosen.
    pub dead_slots: f64,
}

/// Gains, error rates and key of a pair of intensities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MdiRate {
    /// Secret bits per pair of pulses; negative by what is missing.
    pub bits_per_pulse: f64,
    /// Gain and error rate of the Z basis.
    pub q_z: f64,
    /// Error rate of the Z basis.
    pub e_z: f64,
    /// Gain of the X basis.
    pub q_x: f64,
    /// Error rate of the X basis.
    pub e_x: f64,
    /// Yield of two single photons.
    pub y11: f64,
    /// Their error rate in the X basis: the phase error rate of the key.
    pub e11_x: f64,
    /// Gain of two single photons.
    pub q11: f64,
}

impl Relay {
    /// The relay half way along a fibre.
    #[must_use]
    pub fn half_way(hardware: &Hardware, length: Kilometres) -> Self {
        let arm = optics::model::transmittance(hardware, Kilometres(0.5 * length.0));
        Self {
            eta: [arm, arm],
            dark: optics::model::dark_probability(hardware),
            misalignment: hardware.misalignment,
            dead_slots: optics::model::dead_slots(hardware),
        }
    }

    /// Share of the slots in which the relay does not rest after a click of any of its four detectors.
    #[must_use]
    pub fn live(&self, [mu, nu]: [f64; 2]) -> f64 {
        let [ea, eb] = self.eta;
        let clicks = -libm::expm1(-(ea * mu + eb * nu)) + 4.0 * self.dark;
        1.0 / (1.0 + clicks * self.dead_slots)
    }

    /// The key rate of signal intensities `mu` and `nu`, everything known of pairs of single photons.
    #[must_use]
    pub fn rate(&self, [mu, nu]: [f64; 2], f_ec: f64) -> MdiRate {
        let ([ea, eb], pd, e_d) = (self.eta, self.dark, self.misalignment);
        let keep = 1.0 - pd;
        let light = ea * mu + eb * nu;
        let x = 0.5 * (ea * mu * eb * nu).sqrt();
        let y = keep * libm::exp(-0.25 * light);
        let half = libm::exp(-0.5 * light);
        // 1 - (1-pd) e^-z without cancellation.
        let click = |z: f64| -libm::expm1(-z) * keep + pd;
        let q_c = 2.0 * keep * keep * half * click(0.5 * ea * mu) * click(0.5 * eb * nu);
        let q_e = 2.0 * pd * keep * keep * half * (bessel_less_one(2.0 * x) + click(0.5 * light));
        let q_z = q_c + q_e;
        let e_z = (e_d * q_c + (1.0 - e_d) * q_e) / q_z;
        // 1 + 2 y^2 - 4 y I0(x) + I0(2x), the ones collected: 2 (1-y)^2 - 4 y (I0(x)-1) + (I0(2x)-1).
        let less = click(0.25 * light);
        let q_x = 2.0 * y * y * (2.0 * less * less - 4.0 * y * bessel_less_one(x) + bessel_less_one(2.0 * x));
        let e_x = 0.5 - 2.0 * (0.5 - e_d) * y * y * bessel_less_one(2.0 * x) / q_x;
        let both = 0.5 * ea * eb;
        let one = (2.0 * ea + 2.0 * eb - 3.0 * ea * eb) * pd;
        let y11 = keep * keep * (both + one + 4.0 * (1.0 - ea) * (1.0 - eb) * pd * pd);
        let e11_x = 0.5 - (0.5 - e_d) * (1.0 - pd * pd) * both / y11;
        let q11 = mu * nu * libm::exp(-mu - nu) * y11;
        let bits_per_pulse = q11 * (1.0 - binary_entropy(e11_x.clamp(0.0, 0.5))) - f_ec * q_z * binary_entropy(e_z);
        MdiRate { bits_per_pulse, q_z, e_z, q_x, e_x, y11, e11_x, q11 }
    }

    /// The best intensity, the same at both ends and dead time included, and its rate per live slot.
    #[must_use]
    pub fn best(&self, f_ec: f64) -> (f64, MdiRate) {
        let (mu, _) = highest(|mu| self.rate([mu, mu], f_ec).bits_per_pulse * self.live([mu, mu]), 1e-3, 1.5);
        (mu, self.rate([mu, mu], f_ec))
    }
}

/// I0(z) - 1, by its series: the difference loses all digits below z of about 1e-4.
#[must_use]
pub fn bessel_less_one(z: f64) -> f64 {
    let quarter = 0.25 * z * z;
    let (mut term, mut sum, mut k) = (1.0, 0.0, 1.0);
    while k < 200.0 {
        term *= quarter / (k * k);
        sum += term;
        if term <= sum * f64::EPSILON {
            break;
        }
        k += 1.0;
    }
    sum
}
