//! Time shift (Qi, Fung, Lo, Ma, Quantum Inf. Comput. 7, 73 (2007)): two detectors never open alike, so near the
//! gate's ends one is better than the other. Eve lets a pulse come earlier or later and has a good guess of the bit
//! if it is detected.
//!
//! She learns: which way she moved the pulse. She never measures it.

use rand_core::Rng;

use super::Share;
use crate::terms::relative_efficiencies;
use crate::ziggurat::unit;

/// Where a pulse went in the gate.
#[derive(Clone, Copy)]
pub(crate) struct Shift {
    pub(crate) late_ps: f64,
    /// Efficiencies there, relative to the better detector's at the gate's middle.
    pub(crate) relative: [f64; 2],
}

impl Shift {
    /// The bit whose detector is better there.
    pub(super) fn likely(&self) -> Option<bool> {
        let [zero, one] = self.relative;
        if one > zero {
            Some(true)
        } else if zero > one {
            Some(false)
        } else {
            None
        }
    }
}

/// Which way a pulse goes.
pub(super) fn choose(late_ps: f64, opposite: Share, ratio: f64, rng: &mut impl Rng) -> Shift {
    let [zero, one] = relative_efficiencies(ratio);
    if unit(rng.next_u64()) < opposite.value() {
        Shift { late_ps: -late_ps, relative: [one, zero] }
    } else {
        Shift { late_ps, relative: [zero, one] }
    }
}
