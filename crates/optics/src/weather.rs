//! What the line's surroundings do to the light: slow drift, and lightning.
//!
//! - Temperature follows a sinusoidal day. It changes the fibre's loss and its propagation delay; a tracking loop
//!   puts the gate back over the light at fixed times, with a normal error.
//! - Polarisation makes a random walk of rotations of the Poincare sphere while a controller turns it back:
//!   rotation by rotation in fixed steps of simulated time. A state of polarisation whose axis is turned by `theta`
//!   goes to the wrong detector with probability `sin^2(theta / 2)`. The two bases are two axes at right angles.
//! - Lightning is a Poisson process of transients. The current's magnetic field turns the polarisation as it grows
//!   and turns it back as it fades (Faraday rotation): an angle `A sin^2(pi t / T)` about a random axis, with peak
//!   speeds from 0.1 Mrad/s, the fastest seen without lightning, to the 5.1 Mrad/s of Charlton et al., Opt. Express
//!   25, 9689 (2017).
//!
//! All is evaluated when a photon arrives, so idle time costs only the walk's steps, and of a long idle time only
//! those that are not yet forgotten. The weather draws from a generator of its own: it does not depend on the light.
//!
//! Not provided: polarisation mode dispersion, wind other than as a faster walk, sudden steps of loss.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use types::network::{Environment, Link};
use types::quantum::Basis;

use crate::terms::Fibre;
use crate::ziggurat::{Ziggurat, unit};

/// What a photon meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conditions {
    /// Fibre transmission over its best.
    pub(crate) transmission: f64,
    /// Mean arrival after the gate's middle, in picoseconds.
    pub(crate) late_ps: f64,
    /// Probability of the wrong detector by polarisation, in the key and in the test basis.
    error: [f64; 2],
}

impl Conditions {
    /// Best transmission, centred gate, aligned polarisation.
    pub(crate) const STILL: Self = Self { transmission: 1.0, late_ps: 0.0, error: [0.0, 0.0] };

    /// Probability of the wrong detector by polarisation.
    #[inline]
    pub(crate) fn error(&self, basis: Basis) -> f64 {
        match basis {
            Basis::Key => self.error[0],
            Basis::Test => self.error[1],
        }
    }
}

/// The surroundings of one link over time.
pub(crate) struct Weather {
    air: Environment,
    clock_hz: f64,
    /// Change of the delay per kelvin in picoseconds.
    delay_ps_per_k: f64,
    fibre: Fibre,
    /// Transmission of the fibre at its best.
    best: f64,
    step_s: f64,
    /// Steps done.
    step: u64,
    /// First slot after the present step.
    settled_until: u64,
    /// What they led to; the walk is in there too.
    now: Conditions,
    walk: Option<Walk>,
    lightning: Option<Lightning>,
    tracking_seed: u64,
}

impl Weather {
    /// The weather of a link, if it has any.
    pub(crate) fn of(link: &Link, rng: &mut Xoshiro256PlusPlus) -> Option<Self> {
        let air = link.environment.clone()?;
        let walk = Walk::of(&air, rng);
        let step_s = walk.as_ref().map_or(STEP_MAX_S, |walk| walk.step_s);
        let lightning = Lightning::of(&air, rng);
        let fibre = Fibre::of(link);
        let mut weather = Self {
            clock_hz: link.hardware.clock_hz,
            delay_ps_per_k: air.delay_ps_per_km_k * link.length.0,
            fibre,
            best: fibre.transmission(best_temperature(&air)),
            air,
            step_s,
            step: 0,
            settled_until: 0,
            now: Conditions::STILL,
            walk,
            lightning,
            tracking_seed: rng.next_u64(),
        };
        weather.settle();
        Some(weather)
    }

    /// What a photon of this slot meets. Slots never go back.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
    pub(crate) fn at(&mut self, slot: u64) -> Conditions {
        if slot >= self.settled_until {
            let step = whole(slot as f64 / self.clock_hz / self.step_s).max(self.step);
            if let Some(walk) = &mut self.walk {
                walk.advance(step - self.step);
            }
            self.step = step;
            self.settle();
        }
        match (&mut self.lightning, &self.walk) {
            (Some(lightning), Some(walk)) => match lightning.rotation(slot as f64 / self.clock_hz) {
                Some(turn) => Conditions { error: turn.after(walk.rotation).errors(), ..self.now },
                None => self.now,
            },
            _ => self.now,
        }
    }

    /// Conditions at the present step.
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
    fn settle(&mut self) {
        let time_s = self.step as f64 * self.step_s;
        self.settled_until = whole((time_s + self.step_s) * self.clock_hz);
        let temperature_c = self.temperature_c(time_s);
        let (tracked_s, error_ps) = if self.air.tracking_s > 0.0 {
            let round = whole(time_s / self.air.tracking_s);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.tracking_seed ^ round);
            let error = self.air.tracking_error_ps * Ziggurat::shared().normal(&mut rng);
            (round as f64 * self.air.tracking_s, error)
        } else {
            (0.0, 0.0)
        };
        self.now = Conditions {
            transmission: self.fibre.transmission(temperature_c) / self.best,
            late_ps: self.delay_ps_per_k * (temperature_c - self.temperature_c(tracked_s)) + error_ps,
            error: self.walk.as_ref().map_or([0.0; 2], |walk| walk.rotation.errors()),
        };
    }

    /// A sinusoidal day whose coldest hour is 4.
    fn temperature_c(&self, time_s: f64) -> f64 {
        let day = (self.air.start_h - 4.0 + time_s / 3_600.0) / 24.0;
        self.air.temperature_c - self.air.swing_k * libm::cos(core::f64::consts::TAU * (day - libm::floor(day)))
    }
}

/// The temperature at which the fibre loses least: the coldest, because loss grows with temperature.
pub(crate) fn best_temperature(air: &Environment) -> f64 {
    air.temperature_c - air.swing_k
}

/// A rotation of the Poincare sphere as a unit quaternion; the key basis is the x axis, the test basis the y axis.
#[derive(Clone, Copy)]
struct Rotation([f64; 4]);

impl Rotation {
    const NONE: Self = Self([1.0, 0.0, 0.0, 0.0]);

    /// By `angle` about this axis of length 1.
    fn about(axis: [f64; 3], angle: f64) -> Self {
        let (sin, cos) = libm::sincos(angle / 2.0);
        Self([cos, axis[0] * sin, axis[1] * sin, axis[2] * sin])
    }

    /// This rotation after the other.
    fn after(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ])
    }

    /// sin^2(theta / 2) for the x and the y axis.
    fn errors(self) -> [f64; 2] {
        let [_, x, y, z] = self.0;
        [(y * y + z * z).min(1.0), (x * x + z * z).min(1.0)]
    }

    /// The same axis, the angle times `share`; also makes up for rounding of the length.
    fn scaled(self, share: f64) -> Self {
        let [w, x, y, z] = if self.0[0] < 0.0 { self.0.map(|part| -part) } else { self.0 };
        let sin = libm::sqrt(x * x + y * y + z * z);
        if sin < 1e-12 {
            return Self::NONE;
        }
        Self::about([x / sin, y / sin, z / sin], 2.0 * share * libm::atan2(sin, w))
    }
}

/// Random walk of the polarisation with a controller that turns it back.
struct Walk {
    rotation: Rotation,
    step_s: f64,
    /// Standard deviation of one step's rotation about one axis.
    spread: f64,
    /// What the controller leaves of an excursion in one step.
    kept: f64,
    /// Steps after which nothing of the past is left.
    memory: u64,
    rng: Xoshiro256PlusPlus,
}

impl Walk {
    fn of(air: &Environment, rng: &mut Xoshiro256PlusPlus) -> Option<Self> {
        if air.polarisation_control_s <= 0.0 {
            return None;
        }
        let diffusion = air.polarisation_rad2_per_s;
        // No step turns far, and none is long for the controller.
        let step_s = STEP_MAX_S.min(air.polarisation_control_s / 20.0).min(0.01 / diffusion.max(1e-9)).max(1e-6);
        let mut walk = Self {
            rotation: Rotation::NONE,
            step_s,
            // A rotation about either of two axes moves a state, so each gives half of its mean square way. What the
            // step adds has itself been pulled back a little.
            spread: libm::sqrt(
                diffusion / 4.0 * air.polarisation_control_s * -libm::expm1(-2.0 * step_s / air.polarisation_control_s),
            ),
            kept: libm::exp(-step_s / air.polarisation_control_s),
            memory: whole(20.0 * air.polarisation_control_s / step_s).clamp(1, STEPS_MAX),
            rng: Xoshiro256PlusPlus::from_rng(rng),
        };
        walk.advance(walk.memory.min(WARM_UP_STEPS));
        Some(walk)
    }

    fn advance(&mut self, steps: u64) {
        let both = Ziggurat::shared();
        for _ in 0..steps.min(self.memory) {
            let turn: [f64; 3] = core::array::from_fn(|_| self.spread * both.normal(&mut self.rng) / 2.0);
            let rest = turn.iter().map(|part| part * part).sum::<f64>();
            let w = libm::sqrt((1.0 - rest).max(0.0));
            self.rotation = Rotation([w, turn[0], turn[1], turn[2]]).after(self.rotation.scaled(self.kept));
        }
    }
}

/// Lightning transients, one after the other.
struct Lightning {
    mean_gap_s: f64,
    duration_s: f64,
    /// The transient that is on or comes next.
    start_s: f64,
    axis: [f64; 3],
    angle: f64,
    rng: Xoshiro256PlusPlus,
}

impl Lightning {
    fn of(air: &Environment, rng: &mut Xoshiro256PlusPlus) -> Option<Self> {
        if air.lightning_per_h <= 0.0 || air.lightning_us <= 0.0 {
            return None;
        }
        let mut lightning = Self {
            mean_gap_s: 3_600.0 / air.lightning_per_h,
            duration_s: air.lightning_us * 1e-6,
            start_s: 0.0,
            axis: [1.0, 0.0, 0.0],
            angle: 0.0,
            rng: Xoshiro256PlusPlus::from_rng(rng),
        };
        lightning.next(0.0);
        Some(lightning)
    }

    /// The turn at this time if a transient is on.
    #[inline]
    fn rotation(&mut self, time_s: f64) -> Option<Rotation> {
        while time_s >= self.start_s + self.duration_s {
            // A Poisson process has no memory: after a long idle time it begins anew.
            let idle = time_s - self.start_s > 1e3 * self.mean_gap_s;
            self.next(if idle { time_s } else { self.start_s + self.duration_s });
        }
        let phase = (time_s - self.start_s) / self.duration_s;
        if phase <= 0.0 {
            return None;
        }
        let sin = libm::sin(core::f64::consts::PI * phase);
        Some(Rotation::about(self.axis, self.angle * sin * sin))
    }

    fn next(&mut self, after_s: f64) {
        let both = Ziggurat::shared();
        self.start_s = after_s + self.mean_gap_s * both.exponential(&mut self.rng);
        let axis: [f64; 3] = core::array::from_fn(|_| both.normal(&mut self.rng));
        let length = libm::sqrt(axis.iter().map(|part| part * part).sum::<f64>()).max(1e-12);
        self.axis = axis.map(|part| part / length);
        let share = unit(self.rng.next_u64());
        let speed = SLOWEST_RAD_PER_S * libm::pow(FASTEST_RAD_PER_S / SLOWEST_RAD_PER_S, share);
        self.angle = speed * self.duration_s / core::f64::consts::PI;
    }
}

/// A whole number, saturating.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Longest step of simulated time.
const STEP_MAX_S: f64 = 0.01;
/// Most steps that one photon waits for.
const STEPS_MAX: u64 = 1 << 20;
/// Steps before slot 0, so that the walk starts as it goes on.
const WARM_UP_STEPS: u64 = 10_000;
const SLOWEST_RAD_PER_S: f64 = 1e5;
const FASTEST_RAD_PER_S: f64 = 5.1e6;

#[cfg(test)]
mod tests {
    use types::network::Network;
    use types::units::Kilometres;

    use super::*;
    use crate::model::calm_polarisation_error;

    fn link(air: Environment) -> Link {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
        let mut link = Network::parse(text).unwrap().links().values().next().unwrap().clone();
        link.length = Kilometres(180.0);
        link.hardware.clock_hz = 1e6;
        link.environment = Some(air);
        link
    }

    fn weather(air: Environment, seed: u64) -> Weather {
        Weather::of(&link(air), &mut Xoshiro256PlusPlus::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn calm_polarisation_has_its_mean_error() {
        for (diffusion, control_s) in [(1e-4, 1.0), (1.0, 0.02), (0.05, 0.3)] {
            let air = Environment {
                polarisation_rad2_per_s: diffusion,
                polarisation_control_s: control_s,
                ..Environment::default()
            };
            let expected = calm_polarisation_error(&air);
            let mut weather = weather(air, 1);
            let mut sums = [0.0; 2];
            // 40,000 values, each forgotten by the next.
            let apart = whole(2.0 * control_s * 1e6);
            for at in 1..=40_000 {
                let now = weather.at(at * apart);
                sums[0] += now.error(Basis::Key);
                sums[1] += now.error(Basis::Test);
            }
            for sum in sums {
                // Exponentially distributed: the mean of 40,000 has 0.5 %.
                let ratio = sum / 40_000.0 / expected;
                assert!((ratio - 1.0).abs() < 4.0 * 0.005 + expected, "{ratio} at {diffusion}, {control_s}");
            }
        }
    }

    /// The walk forgets: after a time constant, e^-2 of the square is left.
    #[test]
    fn controller_turns_back_in_its_time() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let air = Environment { polarisation_rad2_per_s: 0.0, ..Environment::default() };
        let mut walk = Walk::of(&air, &mut rng).unwrap();
        walk.rotation = Rotation::about([0.0, 0.6, 0.8], 0.5);
        walk.advance(whole(1.0 / walk.step_s));
        let angle = 2.0 * libm::acos(walk.rotation.0[0]);
        assert!((angle / (0.5 * libm::exp(-1.0)) - 1.0).abs() < 1e-6, "{angle}");
    }

    #[test]
    fn a_turn_splits_between_the_bases() {
        // About the key axis only the test basis suffers.
        let [key, test] = Rotation::about([1.0, 0.0, 0.0], 1.0).errors();
        assert!(key < 1e-15 && (test - libm::sin(0.5) * libm::sin(0.5)).abs() < 1e-12);
        let there = Rotation::about([0.0, 0.0, 1.0], 0.7);
        let [a, b] = there.after(Rotation::about([0.0, 0.0, 1.0], -0.7)).errors();
        assert!(a < 1e-15 && b < 1e-15);
    }

    #[test]
    fn lightning_turns_and_returns() {
        let air = Environment { lightning_per_h: 60.0, polarisation_rad2_per_s: 0.0, ..Environment::default() };
        let mut weather = weather(air, 3);
        let (mut struck, mut worst) = (0_u32, 0.0_f64);
        // 75 minutes, looked at every 100 microseconds.
        let mut inside = false;
        for at in 0..45_000_000 {
            let now = weather.at(at * 100);
            let turned = now.error(Basis::Key).max(now.error(Basis::Test));
            worst = worst.max(turned);
            struck += u32::from(turned > 1e-6 && !inside);
            inside = turned > 1e-6;
        }
        // One a minute on average.
        assert!((40..=110).contains(&struck), "{struck}");
        assert!(worst > 0.9);
    }

    #[test]
    fn day_is_warmest_at_four_in_the_afternoon() {
        let weather = weather(Environment { start_h: 0.0, ..Environment::default() }, 4);
        for (hour, celsius) in [(4.0, 5.0), (10.0, 15.0), (16.0, 25.0), (28.0, 5.0)] {
            assert!((weather.temperature_c(hour * 3_600.0) - celsius).abs() < 1e-9);
        }
    }

    /// 33 ps per km and kelvin on 180 km: 5.94 ns per kelvin; the steepest 10 minutes of a day of 10 K have 0.44 K.
    #[test]
    fn gate_falls_behind_until_it_is_put_back() {
        let air = Environment { start_h: 10.0, tracking_s: 600.0, tracking_error_ps: 0.0, ..Environment::default() };
        let mut weather = weather(air, 5);
        assert!(weather.at(1_000).late_ps.abs() < 1e-9);
        let late = weather.at(599_990_000).late_ps;
        assert!((late / (5_940.0 * 0.4363) - 1.0).abs() < 1e-3, "{late}");
        assert!(weather.at(600_010_000).late_ps.abs() < 1.0);
    }

    #[test]
    fn correction_errors_have_their_spread() {
        let air = Environment { tracking_s: 1.0, swing_k: 0.0, tracking_error_ps: 25.0, ..Environment::default() };
        let mut weather = weather(air, 6);
        let (mut sum, mut squares) = (0.0, 0.0);
        for second in 0..20_000 {
            let late = weather.at(second * 1_000_000 + 500_000).late_ps;
            sum += late;
            squares += late * late;
        }
        let (mean, spread) = (sum / 20_000.0, libm::sqrt(squares / 20_000.0));
        assert!(mean.abs() < 4.0 * 25.0 / libm::sqrt(20_000.0), "{mean}");
        assert!((spread / 25.0 - 1.0).abs() < 4.0 / libm::sqrt(40_000.0), "{spread}");
    }

    #[test]
    fn weather_does_not_depend_on_who_looks() {
        let air = Environment { lightning_per_h: 1e4, lightning_us: 1e5, ..Environment::default() };
        let mut often = weather(air.clone(), 7);
        let mut seldom = weather(air, 7);
        for at in 0..2_000_000 {
            let now = often.at(at * 10);
            if at % 777 == 0 {
                assert_eq!(now, seldom.at(at * 10));
            }
        }
    }
}
