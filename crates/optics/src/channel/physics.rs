//! The hazards of a link in the units of the simulation: points per slot, slots.

use types::network::Link;
use types::quantum::{Basis, Intensity};

use super::slots;
use crate::attack::{Attack, Delivery};
use crate::model;
use crate::terms::Terms;
use crate::weather::best_temperature;

/// Who or what made a noise count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noise {
    Dark,
    Coexistence,
    Flood,
}

/// Numbers of the link while the same attack goes on.
#[derive(Clone, Debug)]
pub(super) struct Physics {
    /// How light comes.
    pub(super) delivery: Delivery,
    /// Efficiency of each detector over that of the better.
    pub(super) relative: [f64; 2],
    /// Ends of the ranges of `x` for noise: dark, coexistence and flood, of detector 0 and 1 each.
    noise_ends: [f64; 6],
    /// All that can happen in a slot.
    pub(super) hazard: f64,
    /// Mean distance between them, in slots.
    pub(super) gap: f64,
    pub(super) misalignment: f64,
    pub(super) key_basis: f64,
    pub(super) afterpulse: f64,
    pub(super) dead_slots: u64,
    /// Whether a dead time swallows many points.
    pub(super) saturated: bool,
    pub(super) gate_ps: f64,
    pub(super) jitter_ps: f64,
    /// Whether photons come at other times than the gate's middle, or to detectors of other efficiencies.
    pub(super) uneven: bool,
}

impl Physics {
    pub(super) fn new(link: &Link, attack: Option<Attack>, intensities: [f64; 3]) -> Self {
        let hardware = &link.hardware;
        let terms = Terms::of(link, link.environment.as_ref().map_or(20.0, best_temperature));
        let delivery = Delivery::of(attack, intensities, &terms);
        let noise = [[terms.dark; 2], terms.coexistence, delivery.flood];
        let mut end = delivery.light[0];
        let mut noise_ends = [end; 6];
        if !delivery.blinded {
            for (range, mean) in noise_ends.iter_mut().zip(noise.as_flattened()) {
                end += mean;
                *range = end;
            }
        }
        Self {
            delivery,
            relative: terms.relative,
            noise_ends,
            hazard: end,
            gap: (1.0 / end).min(1e300),
            misalignment: hardware.misalignment,
            key_basis: link.decoy.key_basis,
            afterpulse: if delivery.blinded { 0.0 } else { hardware.afterpulse },
            dead_slots: slots(model::dead_slots(hardware)),
            saturated: model::dead_slots(hardware) * end > 2.0,
            gate_ps: hardware.gate_ns * 1e3,
            jitter_ps: hardware.jitter_ps,
            uneven: terms.relative != [1.0; 2]
                || hardware.jitter_ps > 0.0
                || link.environment.is_some()
                || attack.is_some(),
        }
    }

    /// Whether a point is noise, or light of a pulse of this intensity.
    #[inline]
    pub(super) fn may_click(&self, x: f64, intensity: Intensity) -> bool {
        x < self.delivery.light[intensity.index()] || x >= self.delivery.light[0]
    }

    /// Which detector and what made the noise of a point beyond the light.
    #[inline]
    pub(super) fn noise(&self, x: f64) -> (bool, Noise) {
        let range = self.noise_ends.iter().filter(|end| x >= **end).count();
        let noise = match range / 2 {
            0 => Noise::Dark,
            1 => Noise::Coexistence,
            _ => Noise::Flood,
        };
        (range % 2 == 1, noise)
    }

    /// Whether this number below 1 makes the receiver's basis the key basis.
    #[inline]
    pub(super) fn basis(&self, share: f64) -> Basis {
        if share < self.key_basis { Basis::Key } else { Basis::Test }
    }
}
