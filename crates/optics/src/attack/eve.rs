//! Eve at work between source and receiver.

use rand_core::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;
use types::quantum::Basis;

use super::notes::{Evidence, Note};
use super::pulse::Pulse;
use super::{Attack, blinding, denial, intercept_resend, photon_number, time_shift};
use crate::terms::Terms;

/// Eve with her apparatus, her own chances and her notebook.
pub(crate) struct Eve {
    attack: Attack,
    rng: Xoshiro256PlusPlus,
    /// The last slot whose pulse she had.
    slot: Option<u64>,
    /// What she knows of it.
    evidence: Option<Evidence>,
    /// Which way its pulse went.
    shift: Option<time_shift::Shift>,
    notes: Vec<Note>,
}

/// What reaches the receiver instead of a pulse.
pub(crate) enum Incoming {
    /// A pulse.
    Pulse(Pulse),
    /// A pulse that arrives elsewhere in the gate, where the detectors have other efficiencies.
    Shifted(Pulse, time_shift::Shift),
    /// Bright light that makes a blinded receiver click if it measures in this basis.
    Faked(blinding::FakedState),
}

/// How light reaches the receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delivery {
    /// Mean detectable photons of each intensity, for the better detector.
    pub(crate) light: [f64; 3],
    /// Eve's photons that each detector finds per gate.
    pub(crate) flood: [f64; 2],
    /// At most one photon per slot.
    pub(crate) single: bool,
    /// The light takes a line of hers, which the weather does not touch.
    pub(crate) own_line: bool,
    /// The detectors are blinded: no noise, no afterpulses, no single photons.
    pub(crate) blinded: bool,
}

impl Eve {
    pub(crate) fn new(attack: Attack, rng: Xoshiro256PlusPlus) -> Self {
        Self { attack, rng, slot: None, evidence: None, shift: None, notes: Vec::new() }
    }

    /// What she keeps when the attack ends: her chances and her notes.
    pub(crate) fn retire(self) -> (Xoshiro256PlusPlus, Vec<Note>) {
        (self.rng, self.notes)
    }

    pub(crate) fn attack(&self) -> Attack {
        self.attack
    }

    /// Takes the light of a slot and lets something go on to the receiver. Of more than one photon in a slot each is
    /// treated like the first: they came as one pulse.
    pub(crate) fn take(&mut self, slot: u64, pulse: Pulse) -> Incoming {
        let fresh = self.slot.replace(slot) != Some(slot);
        if fresh {
            (self.evidence, self.shift) = (None, None);
        }
        match self.attack {
            Attack::InterceptResend { fraction } => {
                if fresh {
                    self.evidence = intercept_resend::measure(fraction, pulse.twin(), &mut self.rng);
                }
                match self.evidence {
                    Some(Evidence::Outcome { basis, bit }) => Incoming::Pulse(Pulse::prepared(basis, bit)),
                    _ => Incoming::Pulse(pulse),
                }
            }
            Attack::Blinding { .. } => {
                let state = blinding::fake(pulse, &mut self.rng);
                self.evidence = Some(Evidence::Outcome { basis: state.basis, bit: state.bit });
                Incoming::Faked(state)
            }
            Attack::TimeShift { shift_ps, opposite, efficiency_ratio } => {
                let (late_ps, ratio) = (shift_ps.value(), efficiency_ratio.value());
                let shift =
                    *self.shift.get_or_insert_with(|| time_shift::choose(late_ps, opposite, ratio, &mut self.rng));
                self.evidence = shift.likely().map(Evidence::Likely);
                Incoming::Shifted(pulse, shift)
            }
            Attack::PhotonNumberSplitting {} | Attack::TrojanLight { .. } => {
                self.evidence = Some(Evidence::Light(pulse.twin()));
                Incoming::Pulse(pulse)
            }
            Attack::Cut {} | Attack::Flood { .. } => Incoming::Pulse(pulse),
        }
    }

    /// Bob announces a slot that he detected.
    pub(crate) fn hear(&mut self, slot: u64) {
        if self.slot == Some(slot)
            && self.notes.len() < NOTES_MAX
            && let Some(evidence) = self.evidence.take()
        {
            self.notes.push(Note::new(slot, evidence));
        }
    }

    /// Her notes since they were last taken.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        core::mem::take(&mut self.notes)
    }
}

impl Delivery {
    /// Light of these mean photon numbers over a line in this state, whatever Eve does to it.
    pub(crate) fn of(attack: Option<Attack>, intensities: [f64; 3], terms: &Terms) -> Self {
        let plain = Self {
            light: intensities.map(|mu| terms.transmittance() * mu),
            flood: [0.0; 2],
            single: false,
            own_line: false,
            blinded: false,
        };
        match attack {
            None | Some(Attack::InterceptResend { .. } | Attack::TimeShift { .. } | Attack::TrojanLight { .. }) => {
                plain
            }
            Some(Attack::PhotonNumberSplitting {}) => photon_number::split(plain, intensities, terms),
            Some(Attack::Blinding { compensated, .. }) => blinding::steer(plain, compensated, intensities, terms),
            Some(Attack::Cut {}) => denial::cut(plain),
            Some(Attack::Flood { photons_per_gate }) => denial::flood(plain, photons_per_gate.value(), terms),
        }
    }
}

/// One of the two bases with equal chances.
pub(super) fn random_basis(rng: &mut impl Rng) -> Basis {
    if rng.next_u64() >> 63 == 0 { Basis::Key } else { Basis::Test }
}

/// Eve stops writing when she has so many notes that nobody took.
const NOTES_MAX: usize = 1 << 16;
