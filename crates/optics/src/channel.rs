//! Fibre and receiver up to the click: an event-skipping Monte Carlo of the photons.
//!
//! Phase-randomised weak coherent light is Poissonian, so are dark counts, and thinning, loss and routing keep a
//! Poisson process a Poisson process. All that could make a detector click is therefore one process with a mean of
//!
//! ```text
//! hazard = eta mu1 (brightest light) + 2 d (dark counts of two detectors), d = -ln(1 - rate gate)
//! ```
//!
//! points per slot, and the distance to its next point is exponential: empty slots cost nothing. One uniform
//! number `x` in `[0, hazard)` then says what the point is:
//!
//! ```text
//! 0 ------- eta mu_k ------- eta mu1 ------- +d ------- +2d
//! |  photon    | no photon: the |  dark 0   |  dark 1  |
//! |            | pulse was dimmer|          |          |
//! ```
//!
//! where k is the intensity that the pulse has. A photon in the right basis goes to the wrong detector if `x` is
//! below the misalignment's share of `eta mu_k`; in the wrong basis it goes to either with one half. All points
//! of one slot are put together: a detector clicks if it got one or more; a double click gets a random bit and is
//! marked, never discarded (squashing, Lim et al. 2014, section II). After a click both detectors are blanked for
//! the dead time, which is skipped at once (non-paralysable). With the afterpulse probability the detector that
//! clicked fires again in the first slot after the dead time; an afterpulse causes no further one, so that the
//! click rate is D (1 + p_ap) as in Lim et al. 2014, section IV.
//!
//! The receiver's basis choice, the double-click bits and nature's chances come from one fast generator seeded by
//! the caller. It is not cryptographic: it decides what is noise, and Alice's bits never depend on it.

mod counts;
#[cfg(test)]
mod tests;

use core::fmt;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use types::network::{DecoySettings, Hardware};
use types::quantum::{Basis, Detection, Intensity, Preparation, Slot};
use types::units::Kilometres;

pub use self::counts::ChannelCounts;
use crate::emission::Emission;
use crate::model;

/// The fibre and the receiver's front end. One call of [`run_until`](Self::run_until) after the other yields the
/// same records as one call to the last end.
pub struct Channel {
    light: Emission,
    physics: Physics,
    rng: Xoshiro256PlusPlus,
    /// The next points of the process; never empty.
    ahead: Ahead,
    /// A detector that fires by itself in this slot.
    afterpulse: Option<(u64, bool)>,
    /// First slot after the last dead time.
    live_from: u64,
    /// First slot not simulated yet.
    end: u64,
    counts: ChannelCounts,
}

impl Channel {
    /// The channel of a link with this hardware and length. Hardware and settings come checked from the network
    /// file; of the settings only the receiver's basis probability counts, the light has its own intensities.
    #[must_use]
    pub fn new(
        hardware: &Hardware,
        length: Kilometres,
        settings: &DecoySettings,
        light: Emission,
        rng_seed: [u8; 32],
    ) -> Self {
        let physics = Physics::new(hardware, length, settings, light.intensities());
        let mut channel = Self {
            light,
            physics,
            rng: Xoshiro256PlusPlus::from_seed(rng_seed),
            ahead: Ahead::empty(),
            afterpulse: None,
            live_from: 0,
            end: 0,
            counts: ChannelCounts::default(),
        };
        channel.look_ahead(0, 0.0);
        channel
    }

    /// Simulates all slots before `end` and appends what the receiver's time tagger recorded in them.
    /// An `end` that was already reached does nothing.
    pub fn run_until(&mut self, end: Slot, out: &mut Vec<Detection>) {
        loop {
            let next = self.ahead.first().slot;
            let slot = self.afterpulse.map_or(next, |(slot, _)| slot.min(next));
            if slot >= end.0 {
                break;
            }
            out.extend(self.receive(slot));
        }
        self.end = self.end.max(end.0);
    }

    /// First slot not simulated yet.
    #[must_use]
    pub fn position(&self) -> Slot {
        Slot(self.end)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> ChannelCounts {
        // The dead time of the last click may reach beyond what was simulated.
        let ahead = self.live_from.saturating_sub(self.end);
        ChannelCounts { slots: self.end, blanked: self.counts.blanked.saturating_sub(ahead), ..self.counts }
    }

    /// Puts together what reaches the detectors in one slot.
    #[inline]
    fn receive(&mut self, slot: u64) -> Option<Detection> {
        let mut gate = Gate::default();
        if let Some((_, detector)) = self.afterpulse.take_if(|(at, _)| *at == slot) {
            gate.fired[usize::from(detector)] = true;
            gate.again = true;
        }
        while self.ahead.first().slot == slot {
            let point = *self.ahead.first();
            self.counts.points += 1;
            self.hit(&point, &mut gate);
            if self.ahead.skip() {
                self.look_ahead(point.slot, point.phase);
            }
        }
        if gate.fired == [false, false] {
            return None;
        }
        let basis = self.measured_basis(&mut gate);
        let double = gate.fired == [true, true];
        let bit = if double { self.rng.next_u64() >> 63 == 1 } else { gate.fired[1] };
        self.counts.add_click(double, &gate);
        self.blank(slot, bit, &gate);
        Some(Detection { slot: Slot(slot), basis, bit, double })
    }

    /// What one point of the process does.
    #[inline]
    fn hit(&mut self, point: &Point, gate: &mut Gate) {
        let (x, state) = (point.x, point.state);
        let [bright, ..] = self.physics.light;
        if x >= bright {
            gate.fired[usize::from(x >= bright + self.physics.dark)] = true;
            gate.dark = true;
            return;
        }
        let mean = self.physics.light[state.intensity.index()];
        if x >= mean {
            return;
        }
        let detector = if self.measured_basis(gate) == state.basis {
            state.bit ^ (x < mean * self.physics.misalignment)
        } else {
            x < mean * 0.5
        };
        gate.fired[usize::from(detector)] = true;
        gate.photon = true;
    }

    /// The receiver's basis in this slot, chosen when first needed.
    #[inline]
    fn measured_basis(&mut self, gate: &mut Gate) -> Basis {
        if let Some(basis) = gate.basis {
            return basis;
        }
        let key = unit(self.rng.next_u64()) < self.physics.key_basis;
        *gate.basis.insert(if key { Basis::Key } else { Basis::Test })
    }

    /// Dead time and afterpulse of a click.
    #[inline]
    fn blank(&mut self, slot: u64, detector: bool, gate: &Gate) {
        self.live_from = slot.saturating_add(1).saturating_add(self.physics.dead_slots);
        self.counts.blanked = self.counts.blanked.saturating_add(self.physics.dead_slots);
        // The process has no memory: once all known points fell into the dead time, it starts anew at its end.
        while self.ahead.first().slot < self.live_from {
            if self.ahead.skip() {
                self.look_ahead(self.live_from, 0.0);
            }
        }
        let first_order = gate.photon || gate.dark;
        if first_order && self.physics.afterpulse > 0.0 && unit(self.rng.next_u64()) < self.physics.afterpulse {
            self.afterpulse = Some((self.live_from, detector));
        }
    }

    /// Draws the next points of the process after this place by exponential distances, with the state of light that
    /// each would meet. `libm` gives every platform the same logarithm.
    #[inline]
    fn look_ahead(&mut self, mut slot: u64, mut phase: f64) {
        for point in &mut self.ahead.points {
            let position = phase - libm::log(1.0 - unit(self.rng.next_u64())) * self.physics.gap;
            let whole = slots(position);
            phase = position - whole as f64;
            slot = slot.saturating_add(whole);
            (point.slot, point.phase) = (slot, phase);
            point.x = unit(self.rng.next_u64()) * self.physics.hazard;
        }
        let states = self.light.states::<LOOK_AHEAD>(&core::array::from_fn(|at| self.ahead.points[at].slot));
        for (point, state) in self.ahead.points.iter_mut().zip(states) {
            point.state = state;
        }
        self.ahead.at = 0;
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("position", &self.end).field("light", &self.light).finish_non_exhaustive()
    }
}

/// Numbers of the link in the units of the simulation: points per slot, slots.
#[derive(Clone, Debug)]
struct Physics {
    /// Mean detectable photons of the three intensities.
    light: [f64; 3],
    /// Dark counts of one detector.
    dark: f64,
    /// All that can happen in a slot.
    hazard: f64,
    /// Mean distance between them, in slots.
    gap: f64,
    misalignment: f64,
    key_basis: f64,
    afterpulse: f64,
    dead_slots: u64,
}

impl Physics {
    fn new(hardware: &Hardware, length: Kilometres, settings: &DecoySettings, intensities: [f64; 3]) -> Self {
        let eta = model::transmittance(hardware, length);
        let light = intensities.map(|mu| eta * mu);
        let dark = -libm::log1p(-model::dark_probability(hardware));
        Self {
            light,
            dark,
            hazard: light[0] + 2.0 * dark,
            gap: (1.0 / (light[0] + 2.0 * dark)).min(1e300),
            misalignment: hardware.misalignment,
            key_basis: settings.key_basis,
            afterpulse: hardware.afterpulse,
            dead_slots: slots(model::dead_slots(hardware)),
        }
    }
}

/// A point of the process.
#[derive(Clone, Copy)]
struct Point {
    slot: u64,
    /// Where in the slot.
    phase: f64,
    /// What it is, see the head of this file.
    x: f64,
    /// The light in its slot.
    state: Preparation,
}

/// The next few points, drawn together because the states of several slots cost little more than one.
struct Ahead {
    points: [Point; LOOK_AHEAD],
    at: usize,
}

impl Ahead {
    fn empty() -> Self {
        let dimmest = Intensity::new(2).expect("a two-decoy source has three intensities");
        let state = Preparation { basis: Basis::Key, bit: false, intensity: dimmest };
        Self { points: [Point { slot: 0, phase: 0.0, x: 0.0, state }; LOOK_AHEAD], at: 0 }
    }

    #[inline]
    fn first(&self) -> &Point {
        &self.points[self.at]
    }

    /// Drops the first point; true if it was the last known and more must be drawn at once.
    #[inline]
    fn skip(&mut self) -> bool {
        self.at = (self.at + 1) % LOOK_AHEAD;
        self.at == 0
    }
}

/// What happens in one slot at the receiver.
#[derive(Default)]
struct Gate {
    fired: [bool; 2],
    photon: bool,
    dark: bool,
    /// Fired by an afterpulse.
    again: bool,
    basis: Option<Basis>,
}

/// A uniform number in `[0, 1)` of 53 bits.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// A whole number of slots; beyond the last slot means never.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn slots(number: f64) -> u64 {
    number as u64
}

/// As many blocks of the pseudorandom function as a vector register of every processor has lanes.
const LOOK_AHEAD: usize = 4;
