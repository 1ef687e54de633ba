//! The constant numbers of a link, shared by the Monte Carlo and the closed form.

use types::network::{Hardware, Link};

use crate::model;

/// Probabilities per photon and mean noise counts per gate.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Probability that a photon passes the fibre.
    pub(crate) fibre: f64,
    /// Probability that a photon which reached the receiver clicks in the better detector.
    pub(crate) efficiency: f64,
    /// Efficiency of each detector over that of the better.
    pub(crate) relative: [f64; 2],
    /// Mean dark counts of one detector per gate.
    pub(crate) dark: f64,
    /// Mean noise counts of each detector per gate by light of classical channels.
    pub(crate) coexistence: [f64; 2],
}

impl Terms {
    /// Terms of a link whose fibre has this temperature; without an environment the temperature does not matter.
    pub(crate) fn of(link: &Link, temperature_c: f64) -> Self {
        let relative = relative_efficiencies(link.hardware.efficiency_ratio);
        let noise = model::coexistence_noise(link);
        Self {
            fibre: Fibre::of(link).transmission(temperature_c),
            efficiency: link.hardware.efficiency,
            relative,
            dark: dark_mean(&link.hardware),
            coexistence: relative.map(|efficiency| noise * efficiency),
        }
    }

    /// Probability that a photon of the source would be detected by the better detector.
    pub(crate) fn transmittance(&self) -> f64 {
        self.fibre * self.efficiency
    }
}

/// Efficiencies relative to the better detector's, from that of detector 1 over that of detector 0.
pub(crate) fn relative_efficiencies(ratio: f64) -> [f64; 2] {
    if ratio > 1.0 { [1.0 / ratio, 1.0] } else { [1.0, ratio] }
}

/// Loss of a fibre and how it follows the temperature: in proportion to the distance from 20 degrees, and never so far
/// that it becomes a gain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fibre {
    loss_db_per_km: f64,
    change_db_per_km_k: f64,
    km: f64,
}

impl Fibre {
    pub(crate) fn of(link: &Link) -> Self {
        Self {
            loss_db_per_km: link.hardware.attenuation_db_per_km,
            change_db_per_km_k: link.environment.as_ref().map_or(0.0, |air| air.loss_db_per_km_k),
            km: link.length.0,
        }
    }

    /// Probability that a photon passes.
    pub(crate) fn transmission(&self, temperature_c: f64) -> f64 {
        let loss_db_per_km = self.loss_db_per_km + self.change_db_per_km_k * (temperature_c - 20.0);
        libm::pow(10.0, -loss_db_per_km.max(0.0) * self.km / 10.0)
    }
}

/// Mean dark counts of one detector per gate: a Poisson process makes one or more with the stated probability.
fn dark_mean(hardware: &Hardware) -> f64 {
    -libm::log1p(-model::dark_probability(hardware))
}
