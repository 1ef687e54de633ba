//! A pulse in the hands of whoever holds it: Eve, or Bob's receiver.

use types::quantum::{Basis, Preparation};

/// Light of one slot with at least one photon. Its state is known only by measuring, which uses it up.
pub(crate) struct Pulse {
    basis: Basis,
    bit: bool,
}

impl Pulse {
    /// The pulse that a source prepared.
    #[inline]
    pub(crate) fn of(state: Preparation) -> Self {
        Self { basis: state.basis, bit: state.bit }
    }

    /// A pulse prepared by Eve.
    #[inline]
    pub(super) fn prepared(basis: Basis, bit: bool) -> Self {
        Self { basis, bit }
    }

    /// Other light of the same state: the second photon of a pulse that has two, or an echo from the modulator.
    #[inline]
    pub(super) fn twin(&self) -> Self {
        Self { ..*self }
    }

    /// What a measurement of one photon gives: its bit in the basis of its preparation, turned over if the apparatus
    /// errs, and a coin's side in the other basis.
    #[inline]
    pub(crate) fn measure(self, basis: Basis, errs: bool, coin: bool) -> bool {
        // Coins cannot be foretold: no branch.
        let right = basis == self.basis;
        (right & (self.bit ^ errs)) | (!right & coin)
    }
}
