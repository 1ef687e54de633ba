//! The next few points of the process, drawn together because the states of several slots cost little more than one.
//! Points of pulses that were too dim are sorted out at once, without a branch for each.

use rand_core::Rng;
use types::quantum::{Basis, Intensity, Preparation};

use super::Physics;
use crate::emission::Emission;
use crate::ziggurat::{Ziggurat, unit};

/// A point of the process that can make a detector click.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) slot: u64,
    /// What it is, see the head of `channel.rs`.
    pub(super) x: f64,
    /// The light in its slot.
    pub(super) state: Preparation,
    /// Its number among all points drawn with it.
    number: usize,
}

/// The next few points: first only where they are, then, if a dead time does not swallow them, what they are.
pub(super) struct Ahead {
    slots: [u64; MANY],
    xs: [f64; MANY],
    /// Points drawn, and how many of them are done with.
    drawn: usize,
    seen: usize,
    /// Those of them that can make a detector click, once they are sorted out.
    points: [Point; MANY],
    at: usize,
    len: usize,
    sorted: bool,
    /// Where the process was drawn to.
    slot: u64,
    phase: f64,
    /// Stands where the light does not matter.
    darkness: Preparation,
    ziggurat: &'static Ziggurat,
}

/// What the process is drawn from.
pub(super) struct Drawn<'a, R> {
    pub(super) physics: &'a Physics,
    pub(super) light: &'a Emission,
    pub(super) rng: &'a mut R,
}

impl Ahead {
    /// No point yet; the process begins at slot 0.
    pub(super) fn new() -> Self {
        let dimmest = Intensity::new(2).expect("there are three intensities");
        let darkness = Preparation { basis: Basis::Key, bit: false, intensity: dimmest };
        Self {
            darkness,
            slots: [0; MANY],
            xs: [0.0; MANY],
            drawn: 0,
            seen: 0,
            points: [Point { slot: 0, x: 0.0, state: darkness, number: 0 }; MANY],
            at: 0,
            len: 0,
            sorted: true,
            slot: 0,
            phase: 0.0,
            ziggurat: Ziggurat::shared(),
        }
    }

    /// Forgets what was drawn; the process begins anew at this slot.
    pub(super) fn restart(&mut self, slot: u64) {
        (self.slot, self.phase) = (slot, 0.0);
        (self.drawn, self.seen, self.at, self.len, self.sorted) = (0, 0, 0, 0, true);
    }

    /// Goes on at the end of a dead time. The process has no memory, so there are two ways, each exact: to keep the
    /// points known behind the dead time, or to move all points known behind it. The second draws nothing in vain where
    /// a dead time would swallow all; no decision was made by what the moved points are.
    #[inline]
    pub(super) fn resume(&mut self, click: u64, live_from: u64, physics: &Physics) {
        if physics.saturated {
            self.move_on(click, live_from.saturating_sub(click.saturating_add(1)));
        } else {
            self.drop_before(live_from);
        }
    }

    #[inline]
    fn move_on(&mut self, click: u64, by: u64) {
        // What else was in the slot of the click was too dim.
        while self.seen < self.drawn && self.slots[self.seen] <= click {
            self.seen += 1;
        }
        if self.seen == self.drawn {
            return self.restart(click.saturating_add(1).saturating_add(by));
        }
        for slot in &mut self.slots[self.seen..self.drawn] {
            *slot = slot.saturating_add(by);
        }
        self.slot = self.slot.saturating_add(by);
        (self.at, self.len, self.sorted) = (0, 0, false);
    }

    #[inline]
    fn drop_before(&mut self, slot: u64) {
        while self.at < self.len && self.points[self.at].slot < slot {
            self.at += 1;
        }
        while self.seen < self.drawn && self.slots[self.seen] < slot {
            self.seen += 1;
        }
        if self.seen == self.drawn {
            self.restart(slot.max(self.slot));
        }
    }

    /// Slot of the first point that can make a detector click, and how many points were looked at to find it.
    #[inline]
    pub(super) fn first(&mut self, from: &mut Drawn<'_, impl Rng>) -> (u64, u64) {
        let mut looked = 0;
        loop {
            if !self.sorted {
                if self.begins_with_noise(from.physics) {
                    return (self.slots[self.seen], looked);
                }
                self.sort(from);
            }
            if self.at < self.len {
                return (self.points[self.at].slot, looked);
            }
            looked += (self.drawn - self.seen) as u64;
            self.draw(from);
        }
    }

    /// Takes the first point if it lies in this slot, and how many points were looked at to find it.
    #[inline]
    pub(super) fn take_in(&mut self, slot: u64, from: &mut Drawn<'_, impl Rng>) -> (Option<Point>, u64) {
        let mut looked = 0;
        loop {
            if self.at < self.len {
                let point = self.points[self.at];
                if point.slot != slot {
                    return (None, looked);
                }
                looked += (point.number + 1 - self.seen) as u64;
                self.seen = point.number + 1;
                self.at += 1;
                return (Some(point), looked);
            }
            if self.sorted {
                if self.slot > slot {
                    return (None, looked);
                }
                looked += (self.drawn - self.seen) as u64;
                self.draw(from);
            }
            if self.slots[self.seen] != slot {
                return (None, looked);
            }
            if self.begins_with_noise(from.physics) {
                return (Some(self.take_noise()), looked + 1);
            }
            self.sort(from);
        }
    }

    /// Whether the first point that is not sorted yet is noise: then nobody needs to know what the light there was.
    #[inline]
    fn begins_with_noise(&self, physics: &Physics) -> bool {
        self.xs[self.seen] >= physics.delivery.light[0]
    }

    fn take_noise(&mut self) -> Point {
        let number = self.seen;
        self.seen += 1;
        self.sorted = self.seen == self.drawn;
        Point { slot: self.slots[number], x: self.xs[number], state: self.darkness, number }
    }

    /// Draws points by exponential distances.
    #[inline]
    fn draw(&mut self, from: &mut Drawn<'_, impl Rng>) {
        (self.drawn, self.seen, self.at, self.len, self.sorted) = (0, 0, 0, 0, false);
        self.fill(from);
    }

    /// Draws more points until there are as many as are sorted together.
    #[inline]
    fn fill(&mut self, from: &mut Drawn<'_, impl Rng>) {
        let many = if from.physics.saturated { FEW } else { MANY };
        let mut way = self.phase;
        let mut whole = 0;
        for (slot, x) in self.slots.iter_mut().zip(&mut self.xs).take(many).skip(self.drawn) {
            way += self.ziggurat.exponential(from.rng) * from.physics.gap;
            whole = whole_slots(way);
            *slot = self.slot.saturating_add(whole);
            *x = unit(from.rng.next_u64()) * from.physics.hazard;
        }
        self.drawn = many;
        self.slot = self.slot.saturating_add(whole);
        self.phase = way - whole as f64;
    }

    /// Finds out what the points are, with the state of light that each meets.
    #[inline]
    fn sort(&mut self, from: &mut Drawn<'_, impl Rng>) {
        if self.seen > 0 {
            self.slots.copy_within(self.seen..self.drawn, 0);
            self.xs.copy_within(self.seen..self.drawn, 0);
            self.drawn -= self.seen;
            self.seen = 0;
            self.fill(from);
        }
        self.sorted = true;
        if self.drawn == FEW {
            self.sort_each::<FEW>(from);
        } else {
            self.sort_each::<MANY>(from);
        }
    }

    #[inline]
    fn sort_each<const N: usize>(&mut self, from: &mut Drawn<'_, impl Rng>) {
        let slots: [u64; N] = core::array::from_fn(|at| self.slots[at]);
        let states = from.light.states(&slots);
        let mut len = 0;
        for number in 0..N {
            let (slot, x, state) = (slots[number], self.xs[number], states[number]);
            // Written in any case and kept if it can click: no branch.
            self.points[len.min(MANY - 1)] = Point { slot, x, state, number };
            let clicks = from.physics.may_click(x, state.intensity) | (slot == u64::MAX);
            len += usize::from(clicks);
        }
        self.len = len;
    }
}

/// The whole slots of a way; what is longer than half of all slots ends behind all of them.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a way is not negative, and saturates")]
fn whole_slots(way: f64) -> u64 {
    let whole = way as i64;
    if whole == i64::MAX { u64::MAX } else { whole as u64 }
}

/// As many blocks of the pseudorandom function as fill the vector unit of any processor.
const FEW: usize = 4;
/// As many as fill the widest. Where dead times follow each other closely, most would be thrown away.
const MANY: usize = 16;
