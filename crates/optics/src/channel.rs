//! Fibre and receiver up to the click: an event-skipping Monte Carlo of the photons.
//!
//! Phase-randomised weak coherent light is Poissonian, so are dark counts, and thinning, loss and routing keep a
//! Poisson process a Poisson process. All that could make a detector click is therefore one process with a mean of
//!
//! ```text
//! hazard = eta mu1 (brightest light) + 2 d (dark counts of two detectors) + c0 + c1 (light of classical channels)
//! ```
//!
//! points per slot, `d = -ln(1 - rate gate)`, and the distance to its next point is exponential: empty slots cost nothing. One uniform
//! number `x` in `[0, hazard)` then says what the point is:
//!
//! ```text
//! 0 ------- eta mu_k --------- eta mu1 ------ +d ------ +2d ---- +c0 ---- +c1
//! |  photon     | no photon: the  |  dark 0   |  dark 1  |  channels' light |
//! |             | pulse was dimmer|           |          |                  |
//! ```
//!
//! where k is the intensity that the pulse has. A photon in the right basis goes to the wrong detector if `x` is
//! below the misalignment's share of `eta mu_k`; in the wrong basis it goes to either with one half. What
//! weakens the light meanwhile (a warm fibre, a worse detector, an arrival outside the gate) takes photons away one by
//! one, which leaves the process exact; what turns its polarisation adds to the misalignment. All points
//! of one slot are put together: a detector clicks if it got one or more; a double click gets a random bit and is
//! marked, never discarded (squashing, Lim et al. 2014, section II). After a click both detectors are blanked for
//! the dead time, which is skipped at once (non-paralysable). With the afterpulse probability the detector that
//! clicked fires again in the first slot after the dead time; an afterpulse causes no further one, so that the
//! click rate is D (1 + p_ap) as in Lim et al. 2014, section IV.
//!
//! Not provided: light that leaks into the gate of the next slot (what jitter or drift carries out of its gate is
//! lost), a gate whose opening is not sudden, afterpulses of afterpulses and later than the first slot after the dead
//! time, correlations between pulses.
//!
//! The receiver's basis choice, the double-click bits and nature's chances come from one fast generator seeded by
//! the caller; weather and Eve have generators of their own, far away in the same sequence. None is cryptographic:
//! they decide what is noise, and Alice's bits never depend on them.

mod ahead;
mod counts;
mod gate;
mod physics;
#[cfg(test)]
mod tests;
mod watchdogs;

use core::fmt;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use types::network::Link;
use types::quantum::{Basis, Detection, ReceiverReading, Slot, TransmitterReading};

use self::ahead::{Ahead, Drawn, Point};
pub use self::counts::ChannelCounts;
use self::gate::{Gate, MIDDLE, part_of};
use self::physics::Physics;
use self::watchdogs::Watchdogs;
use crate::attack::{Attack, Eve, Incoming, Note, Pulse};
use crate::emission::Emission;
use crate::weather::{Conditions, Weather};
use crate::ziggurat::{Ziggurat, unit};

/// The fibre and the receiver's front end. One call of [`run_until`](Self::run_until) after the other yields the
/// same records as one call to the last end.
pub struct Channel {
    link: Link,
    light: Emission,
    physics: Physics,
    weather: Option<Weather>,
    eve: Option<Eve>,
    eve_rng: Xoshiro256PlusPlus,
    /// Notes of the attack before this one.
    eve_notes: Vec<Note>,
    rng: Xoshiro256PlusPlus,
    /// The next points of the process.
    ahead: Ahead,
    /// A detector that fires by itself in this slot.
    afterpulse: Option<(u64, bool)>,
    /// First slot after the last dead time.
    live_from: u64,
    /// First slot not simulated yet.
    end: u64,
    counts: ChannelCounts,
    watchdogs: Watchdogs,
}

impl Channel {
    /// The channel of a link. It comes checked from the network file; of its decoy settings only the receiver's basis
    /// probability counts, the light has its own intensities.
    #[must_use]
    pub fn new(link: &Link, light: Emission, seed: [u8; 32]) -> Self {
        let rng = Xoshiro256PlusPlus::from_seed(seed);
        let mut eve_rng = rng.clone();
        eve_rng.jump();
        let mut weather_rng = eve_rng.clone();
        weather_rng.jump();
        Self {
            physics: Physics::new(link, None, light.intensities()),
            weather: Weather::of(link, &mut weather_rng),
            eve: None,
            eve_rng,
            eve_notes: Vec::new(),
            rng,
            ahead: Ahead::new(),
            afterpulse: None,
            live_from: 0,
            end: 0,
            counts: ChannelCounts::default(),
            watchdogs: Watchdogs::new(link, light.mean_photons()),
            link: link.clone(),
            light,
        }
    }

    /// Starts, changes or ends an attack: from the first slot not simulated yet.
    pub fn set_attack(&mut self, attack: Option<Attack>) {
        if let Some(eve) = self.eve.take() {
            (self.eve_rng, self.eve_notes) = eve.retire();
        }
        self.eve = attack.map(|attack| Eve::new(attack, self.eve_rng.clone()));
        let physics = Physics::new(&self.link, attack, self.light.intensities());
        let before = core::mem::replace(&mut self.physics, physics).delivery;
        if self.physics.delivery.blinded {
            self.afterpulse = None;
        }
        // The process has no memory: what lies ahead is drawn anew, unless it is the same.
        if before != self.physics.delivery {
            self.ahead.restart(self.end.max(self.live_from));
        }
    }

    /// The attack that goes on.
    #[must_use]
    pub fn attack(&self) -> Option<Attack> {
        self.eve.as_ref().map(Eve::attack)
    }

    /// What Eve noted of this and the last attack since her notes were last taken: slots in which the receiver clicked,
    /// in order, at most 65,536 of each attack. For people who judge attacks; no protocol end sees it.
    #[must_use]
    pub fn take_eve_notes(&mut self) -> Vec<Note> {
        let mut notes = core::mem::take(&mut self.eve_notes);
        notes.extend(self.eve.iter_mut().flat_map(Eve::take_notes));
        notes
    }

    /// Simulates all slots before `end` and appends what the receiver's time tagger recorded in them.
    /// An `end` that was already reached does nothing.
    pub fn run_until(&mut self, end: Slot, out: &mut Vec<Detection>) {
        loop {
            let next = self.next_slot();
            let slot = self.afterpulse.map_or(next, |(slot, _)| slot.min(next));
            if slot >= end.0 {
                break;
            }
            if let Some(click) = self.receive(slot) {
                out.push(click);
            }
        }
        self.watchdogs.watch(self.attack(), self.end, end.0);
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

    /// What the receiver's watchdogs measured since the last reading.
    #[must_use]
    pub fn take_reading(&mut self) -> ReceiverReading {
        self.watchdogs.take_receiver(self.end)
    }

    /// What the transmitter's watchdog measured since the last reading.
    #[must_use]
    pub fn take_transmitter_reading(&mut self) -> TransmitterReading {
        self.watchdogs.take_transmitter(self.end)
    }

    /// Puts together what reaches the detectors in one slot.
    #[inline]
    fn receive(&mut self, slot: u64) -> Option<Detection> {
        let mut gate = Gate::default();
        if let Some((_, detector)) = self.afterpulse.take_if(|(at, _)| *at == slot) {
            let part = self.any_part();
            gate.fire(detector, part);
            gate.again = true;
        }
        while let Some(point) = self.next_in(slot) {
            self.hit(&point, &mut gate);
        }
        if gate.is_silent() {
            return None;
        }
        let basis = self.measured_basis(&mut gate);
        let double = gate.is_double();
        let bit = if double { self.rng.next_u64() >> 63 == 1 } else { gate.fired_one() };
        self.counts.add_click(&gate);
        self.watchdogs.click(slot, &gate);
        if let Some(eve) = &mut self.eve {
            eve.hear(slot);
        }
        self.blank(slot, bit, &gate);
        Some(Detection { slot: Slot(slot), basis, bit, double })
    }

    /// What one point of the process does.
    #[inline]
    fn hit(&mut self, point: &Point, gate: &mut Gate) {
        let [bright, ..] = self.physics.delivery.light;
        if point.x >= bright {
            let (detector, noise) = self.physics.noise(point.x);
            let part = self.any_part();
            gate.fire(detector, part);
            gate.note(noise);
            return;
        }
        let mean = self.physics.delivery.light[point.state.intensity.index()];
        if self.physics.uneven {
            self.photon(point, mean, gate);
            return;
        }
        // Nothing spreads, drifts or listens: the short way.
        let basis = self.measured_basis(gate);
        let errs = point.x < mean * self.physics.misalignment;
        let detector = Pulse::of(point.state).measure(basis, errs, point.x < mean * 0.5);
        gate.fire(detector, MIDDLE);
        gate.photon = true;
    }

    /// A photon that set out for the better detector at its best.
    fn photon(&mut self, point: &Point, mean: f64, gate: &mut Gate) {
        let delivery = &self.physics.delivery;
        if delivery.single && core::mem::replace(&mut gate.taken, true) {
            return;
        }
        let conditions = match &mut self.weather {
            Some(weather) if !delivery.own_line => weather.at(point.slot),
            _ => Conditions::STILL,
        };
        // Below the weakened mean `x` is as uniform as it was below the best.
        let mean = mean * conditions.transmission;
        if point.x >= mean {
            return;
        }
        let pulse = Pulse::of(point.state);
        let (mut late_ps, mut relative) = (conditions.late_ps, self.physics.relative);
        let incoming = match &mut self.eve {
            Some(eve) => eve.take(point.slot, pulse),
            None => Incoming::Pulse(pulse),
        };
        let basis = self.measured_basis(gate);
        let pulse = match incoming {
            Incoming::Pulse(pulse) => pulse,
            Incoming::Shifted(pulse, shift) => {
                late_ps += shift.late_ps;
                relative = shift.relative;
                pulse
            }
            Incoming::Faked(state) => {
                if state.basis == basis {
                    let part = self.arrival(0.0).unwrap_or(MIDDLE);
                    gate.fire(state.bit, part);
                    gate.faked = true;
                }
                return;
            }
        };
        let (still, turned) = (self.physics.misalignment, conditions.error(basis));
        let error = still * (1.0 - turned) + turned * (1.0 - still);
        let detector = pulse.measure(basis, point.x < mean * error, point.x < mean * 0.5);
        let found = relative[usize::from(detector)];
        if found < 1.0 && unit(self.rng.next_u64()) >= found {
            self.counts.lost_to_mismatch += 1;
            return;
        }
        match self.arrival(late_ps) {
            Some(part) => {
                gate.fire(detector, part);
                gate.photon = true;
            }
            None => self.counts.lost_to_gate += 1,
        }
    }

    /// The part of the gate in which a photon arrives, if it does.
    #[inline]
    fn arrival(&mut self, late_ps: f64) -> Option<u8> {
        let mut ps = late_ps;
        if self.physics.jitter_ps > 0.0 {
            ps += self.physics.jitter_ps * Ziggurat::shared().normal(&mut self.rng);
        }
        let place = ps / self.physics.gate_ps + 0.5;
        (0.0..1.0).contains(&place).then(|| part_of(place))
    }

    /// Noise and afterpulses come anywhere in the gate.
    #[inline]
    fn any_part(&mut self) -> u8 {
        part_of(unit(self.rng.next_u64()))
    }

    /// The receiver's basis in this slot, chosen when first needed.
    #[inline]
    fn measured_basis(&mut self, gate: &mut Gate) -> Basis {
        if let Some(basis) = gate.basis {
            return basis;
        }
        *gate.basis.insert(self.physics.basis(unit(self.rng.next_u64())))
    }

    /// Dead time and afterpulse of a click.
    #[inline]
    fn blank(&mut self, slot: u64, detector: bool, gate: &Gate) {
        self.live_from = slot.saturating_add(1).saturating_add(self.physics.dead_slots);
        self.counts.blanked = self.counts.blanked.saturating_add(self.physics.dead_slots);
        self.ahead.resume(slot, self.live_from, &self.physics);
        let afterpulse = self.physics.afterpulse;
        if gate.is_first_order() && afterpulse > 0.0 && unit(self.rng.next_u64()) < afterpulse {
            self.afterpulse = Some((self.live_from, detector));
        }
    }

    /// Slot of the next point.
    #[inline]
    fn next_slot(&mut self) -> u64 {
        let (physics, light, rng) = (&self.physics, &self.light, &mut self.rng);
        let (slot, looked) = self.ahead.first(&mut Drawn { physics, light, rng });
        self.counts.points += looked;
        slot
    }

    /// The next point if it is in this slot.
    #[inline]
    fn next_in(&mut self, slot: u64) -> Option<Point> {
        let (physics, light, rng) = (&self.physics, &self.light, &mut self.rng);
        let (point, looked) = self.ahead.take_in(slot, &mut Drawn { physics, light, rng });
        self.counts.points += looked;
        point
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("position", &self.end).field("light", &self.light).finish_non_exhaustive()
    }
}

/// A whole number of slots; beyond the last slot means never.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn slots(number: f64) -> u64 {
    number as u64
}
