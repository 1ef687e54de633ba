//! What the quantum layer's two sides record: slots, bases, intensities, preparations, detections.
//!
//! Preparations and detections are raw records inside one QKD module. They are not key, but key comes from
//! them, so their `Debug` hides the bit.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Index of one clock period of the transmitter since the link's session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// Measurement basis. The key basis makes key; the test basis is disclosed whole and bounds the phase error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Basis {
    /// Makes key (X of Lim et al. 2014).
    Key,
    /// Is disclosed (Z of Lim et al. 2014).
    Test,
}

/// Which of the transmitter's intensities a pulse had: 0 is the brightest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intensity(u8);

impl Intensity {
    /// How many intensities a two-decoy source has.
    pub const COUNT: usize = 3;

    /// The intensity of index 0, 1 or 2.
    #[must_use]
    pub fn new(index: u8) -> Option<Self> {
        (usize::from(index) < Self::COUNT).then_some(Self(index))
    }

    /// Its index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Which end of a link: Alice transmits, Bob receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The transmitter.
    Alice,
    /// The receiver.
    Bob,
}

/// What the transmitter prepared in one slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preparation {
    /// Basis of the state.
    pub basis: Basis,
    /// Bit that the state encodes.
    pub bit: bool,
    /// Mean photon number chosen.
    pub intensity: Intensity,
}

impl fmt::Debug for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Preparation({:?}, [REDACTED])", self.basis)
    }
}

/// One click of the receiver. A double click was already given a random bit (squashing) and is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// When.
    pub slot: Slot,
    /// In which basis.
    pub basis: Basis,
    /// With which result.
    pub bit: bool,
    /// Whether both detectors clicked.
    pub double: bool,
}

impl fmt::Debug for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detection({}, {:?}, [REDACTED])", self.slot.0, self.basis)
    }
}

/// What the watchdogs of a receiver measured since their last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReceiverReading {
    /// Slots that the reading covers.
    pub slots: u64,
    /// Largest photocurrent of a detector in any microsecond, in microampere. Single photons leave well below 1.
    pub photocurrent_ua: f64,
    /// Clicks of the detectors for bit 0 and 1 by their place in the gate, in eighths from its opening.
    pub arrivals: [[u32; Self::GATE_PARTS]; 2],
    /// Clicks of both detectors.
    pub doubles: u32,
}

impl ReceiverReading {
    /// Parts that the gate is divided into.
    pub const GATE_PARTS: usize = 8;
}

/// What the watchdog of a transmitter measured since its last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransmitterReading {
    /// Slots that the reading covers.
    pub slots: u64,
    /// Largest optical power that came in from the fibre, in nanowatt. Backscattered light of the module's own pulses
    /// stays below 1.
    pub incoming_nw: f64,
}
