//! Noise counts by classical channels on the same fibre.
//!
//! Spontaneous Raman scattering (Eraerds, Walenta, Legre, Gisin, Zbinden, New J. Phys. 12, 063027 (2010)) of a
//! channel with power `P` where it leaves the fibre, into a receiver's filter of width `dl` at length `L`, with
//! `a = alpha ln(10) / 10`:
//!
//! ```text
//! forward    P beta dl L                  the noise travels with the quantum light
//! backward   P beta dl sinh(a L) / a      it was scattered back towards the receiver
//! ```
//!
//! A channel that goes with the quantum light also leaks through the receiver's filter: `P 10^(-isolation/10)`.
//! Noise of power `N` is `N lambda / (h c)` photons per second of no polarisation; each detector finds half of those
//! in a gate that the receiver does not lose.
//!
//! Not provided: four-wave mixing, Rayleigh scattering of channels that go against the quantum light.

use types::network::{Coexistence, Direction, Link};

/// Power of classical channels' noise in the receiver's filter, in watts.
#[must_use]
pub fn coexistence_noise_watt(coexistence: &Coexistence, attenuation_db_per_km: f64, length_km: f64) -> f64 {
    let a = attenuation_db_per_km * core::f64::consts::LN_10 / 10.0;
    let x = a * length_km;
    // Without loss both directions scatter alike.
    let backward_km = if x < 1e-9 { length_km } else { libm::sinh(x) / a };
    let scattered = coexistence.raman_per_km_nm * coexistence.filter_nm;
    let leaking = libm::pow(10.0, -coexistence.isolation_db / 10.0);
    let noise = coexistence.channels.iter().map(|channel| {
        let watt = 1e-3 * libm::pow(10.0, channel.received_dbm / 10.0);
        match channel.direction {
            Direction::Forward => watt * (scattered * length_km + leaking),
            Direction::Backward => watt * scattered * backward_km,
        }
    });
    noise.sum()
}

/// Mean noise counts of one detector per gate by the classical channels on a link's fibre.
#[must_use]
pub fn coexistence_noise(link: &Link) -> f64 {
    let Some(coexistence) = &link.coexistence else { return 0.0 };
    let hardware = &link.hardware;
    let watt = coexistence_noise_watt(coexistence, hardware.attenuation_db_per_km, link.length.0);
    watt / photon_joule(hardware.wavelength_nm) * hardware.gate_ns * 1e-9 * hardware.efficiency / 2.0
}

/// Energy of a photon in joule.
pub(crate) fn photon_joule(wavelength_nm: f64) -> f64 {
    PLANCK_JOULE_S * LIGHT_M_PER_S / (wavelength_nm * 1e-9)
}

/// Exact by the definition of the SI.
const PLANCK_JOULE_S: f64 = 6.626_070_15e-34;
const LIGHT_M_PER_S: f64 = 299_792_458.0;

#[cfg(test)]
mod tests {
    use types::network::{ClassicalChannel, Network};
    use types::units::Kilometres;

    use super::*;

    fn link(km: f64, direction: Direction, received_dbm: f64) -> Link {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
        let mut link = Network::parse(text).unwrap().links().values().next().unwrap().clone();
        link.length = Kilometres(km);
        link.hardware.efficiency = 0.1;
        link.coexistence = Some(Coexistence {
            channels: vec![ClassicalChannel { direction, received_dbm }],
            raman_per_km_nm: 2e-9,
            filter_nm: 0.6,
            isolation_db: 300.0,
        });
        link
    }

    /// Counts per gate of 1 ns at 0.2 dB/km: a channel that leaves the fibre with -34 dBm, as in figure 2 of Lim et
    /// al., PRA 89, 022307 (2014).
    #[test]
    fn raman_of_a_weak_channel() {
        for (km, forward, backward) in [
            (25.0, "4.66e-6", "5.76e-6"),
            (50.0, "9.32e-6", "2.00e-5"),
            (80.0, "1.49e-5", "8.05e-5"),
            (100.0, "1.86e-5", "2.02e-4"),
        ] {
            for (direction, counts) in [(Direction::Forward, forward), (Direction::Backward, backward)] {
                assert_eq!(format!("{:.2e}", coexistence_noise(&link(km, direction, -34.0))), counts, "{km} km");
            }
        }
    }

    /// A channel launched with 0 dBm, so received with -10 dBm after 50 km.
    #[test]
    fn raman_of_a_strong_channel() {
        assert_eq!(format!("{:.1e}", coexistence_noise(&link(50.0, Direction::Forward, -10.0))), "2.3e-3");
    }

    #[test]
    fn noise_of_channels_adds_and_leaks() {
        let mut both = link(50.0, Direction::Forward, -34.0);
        let alone = coexistence_noise(&both);
        let coexistence = both.coexistence.as_mut().unwrap();
        coexistence.channels.push(coexistence.channels[0]);
        assert!((coexistence_noise(&both) / alone - 2.0).abs() < 1e-12);
        // -34 dBm through 100 dB: 4e-17 W, 310 photons per second, 1.55e-8 per gate and detector.
        let mut leaky = link(50.0, Direction::Forward, -34.0);
        leaky.coexistence.as_mut().unwrap().isolation_db = 100.0;
        assert!(((coexistence_noise(&leaky) - alone) / 1.553e-8 - 1.0).abs() < 1e-3);
        both.coexistence = None;
        assert!(coexistence_noise(&both).abs() < 1e-300);
    }
}
