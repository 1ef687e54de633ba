//! What happens in one gate of the receiver.

use types::quantum::{Basis, ReceiverReading};

use super::physics::Noise;

/// One slot at the receiver.
#[derive(Default)]
pub(super) struct Gate {
    /// Which detectors fired: bit 0 and bit 1.
    fired: u8,
    /// Where each detector's first click was, in parts of the gate.
    parts: [u8; 2],
    pub(super) photon: bool,
    pub(super) dark: bool,
    pub(super) coexistence: bool,
    pub(super) flood: bool,
    /// Fired by an afterpulse.
    pub(super) again: bool,
    pub(super) faked: bool,
    /// A photon of the slot has been looked at, and there is only one.
    pub(super) taken: bool,
    pub(super) basis: Option<Basis>,
}

impl Gate {
    /// A detector fires; what it does while it still recovers is lost.
    #[inline]
    pub(super) fn fire(&mut self, detector: bool, part: u8) {
        let bit = 1 << u8::from(detector);
        let first = &mut self.parts[usize::from(detector)];
        *first = if self.fired & bit == 0 { part } else { *first };
        self.fired |= bit;
    }

    /// Notes what made a noise count.
    #[inline]
    pub(super) fn note(&mut self, noise: Noise) {
        match noise {
            Noise::Dark => self.dark = true,
            Noise::Coexistence => self.coexistence = true,
            Noise::Flood => self.flood = true,
        }
    }

    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.fired == 0
    }

    #[inline]
    pub(super) fn is_double(&self) -> bool {
        self.fired == 3
    }

    /// Whether detector 1 fired.
    #[inline]
    pub(super) fn fired_one(&self) -> bool {
        self.fired & 2 != 0
    }

    /// Whether something else than an afterpulse or a faked state fired: that may be followed by an afterpulse.
    #[inline]
    pub(super) fn is_first_order(&self) -> bool {
        self.photon || self.dark || self.coexistence || self.flood
    }

    /// Adds the clicks to a histogram.
    #[inline]
    pub(super) fn add_to(&self, arrivals: &mut [[u32; ReceiverReading::GATE_PARTS]; 2]) {
        for detector in 0..2 {
            let count = &mut arrivals[detector][usize::from(self.parts[detector])];
            *count = count.saturating_add(u32::from(self.fired >> detector & 1));
        }
    }
}

/// The part of the gate that a place between 0 and 1 lies in.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number of a part")]
pub(super) fn part_of(place: f64) -> u8 {
    (place * ReceiverReading::GATE_PARTS as f64) as u8
}

/// The part that begins at the gate's middle: where light arrives that neither spreads nor drifts.
pub(super) const MIDDLE: u8 = 4;
