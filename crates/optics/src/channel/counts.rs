//! What happened in a channel. For tests, benches and the operator of the simulation; no protocol end sees it.

use super::gate::Gate;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounts {
    /// Slots simulated.
    pub slots: u64,
    /// Points of the process that were looked at: possible detections, most of them by pulses dimmer than the
    /// brightest.
    pub points: u64,
    /// Slots with a click of one or both detectors.
    pub clicks: u64,
    /// Clicks of both detectors.
    pub doubles: u64,
    /// Clicks that had dark counts only.
    pub dark: u64,
    /// Clicks that had light of classical channels only, or that and dark counts.
    pub coexistence: u64,
    /// Clicks by Eve's flood of light without a photon of Alice's.
    pub flood: u64,
    /// Clicks that had an afterpulse.
    pub afterpulse: u64,
    /// Clicks by faked states.
    pub faked: u64,
    /// Photons that the better detector would have found and the other did not.
    pub lost_to_mismatch: u64,
    /// Photons that came before the gate opened or after it closed.
    pub lost_to_gate: u64,
    /// Slots in which the detectors were blanked.
    pub blanked: u64,
}

impl ChannelCounts {
    /// Share of the slots in which the detectors were not blanked.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn live_fraction(&self) -> f64 {
        if self.slots == 0 { 1.0 } else { 1.0 - self.blanked as f64 / self.slots as f64 }
    }

    #[inline]
    pub(super) fn add_click(&mut self, gate: &Gate) {
        self.clicks += 1;
        self.doubles += u64::from(gate.is_double());
        self.afterpulse += u64::from(gate.again);
        self.faked += u64::from(gate.faked);
        if !gate.photon && !gate.again {
            self.flood += u64::from(gate.flood);
            self.coexistence += u64::from(gate.coexistence && !gate.flood);
            self.dark += u64::from(gate.dark && !gate.coexistence && !gate.flood);
        }
    }
}
