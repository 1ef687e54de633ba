//! What Eve learns, in her own notebook.

use core::fmt;

use types::quantum::{Basis, Slot};

use super::pulse::Pulse;

/// Eve's knowledge of one slot that Bob announced as detected.
pub struct Note {
    /// The slot.
    pub slot: Slot,
    evidence: Evidence,
}

/// What she has of a slot.
pub(super) enum Evidence {
    /// The outcome of a measurement in a basis that she chose.
    Outcome { basis: Basis, bit: bool },
    /// Light of the slot that she has not measured yet: she waits for the basis.
    Light(Pulse),
    /// The bit that is more likely, from where she moved the pulse to.
    Likely(bool),
}

impl Note {
    pub(super) fn new(slot: u64, evidence: Evidence) -> Self {
        Self { slot: Slot(slot), evidence }
    }

    /// Her best guess of the bit once Alice and Bob announce that both had this basis; none if she knows nothing of it.
    #[must_use]
    pub fn guess(self, announced: Basis) -> Option<bool> {
        match self.evidence {
            Evidence::Outcome { basis, bit } => (basis == announced).then_some(bit),
            Evidence::Light(pulse) => Some(pulse.measure(announced, false, false)),
            Evidence::Likely(bit) => Some(bit),
        }
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({}, [REDACTED])", self.slot.0)
    }
}
