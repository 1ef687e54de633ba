//! How fast keys are made and taken, as moving averages; what a forecast needs.

use std::time::Duration;

use types::units::Time;

use crate::quota::as_f64;

/// Keys made per second while keys are lacking. Time in which nothing is lacking does not count.
#[derive(Debug, Default)]
pub(crate) struct Made {
    keys: f64,
    seconds: f64,
    /// Since when keys are lacking and none was made.
    since: Option<Time>,
    total: u64,
}

impl Made {
    /// Says whether keys are lacking from now on.
    pub(crate) fn lacking(&mut self, now: Time, lacking: bool) {
        match (lacking, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.pass(now.since(since), 0);
                self.since = None;
            }
            _ => {}
        }
    }

    /// Keys were made, and are lacking still or not.
    pub(crate) fn made(&mut self, now: Time, keys: usize, lacking: bool) {
        self.pass(self.since.map_or(Duration::ZERO, |since| now.since(since)), keys);
        self.since = lacking.then_some(now);
        self.total += keys as u64;
    }

    /// Keys made since the start.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Keys per second; `None` if nothing is known.
    pub(crate) fn rate(&self, now: Time) -> Option<f64> {
        let idle = self.since.map_or(0.0, |since| now.since(since).as_secs_f64());
        let seconds = self.seconds + idle;
        (self.keys > 0.0 || seconds > KNOWN_AFTER_S).then(|| self.keys / seconds.max(SHORTEST_S))
    }

    fn pass(&mut self, time: Duration, keys: usize) {
        let left = (-time.as_secs_f64() / MEMORY_S).exp();
        self.keys = self.keys * left + as_f64(keys);
        self.seconds = self.seconds * left + time.as_secs_f64();
    }
}

/// Keys taken per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    keys: f64,
    at: Time,
    total: u64,
}

impl Taken {
    /// Keys were taken.
    pub(crate) fn take(&mut self, now: Time, keys: usize) {
        self.keys = self.keys_at(now) + as_f64(keys);
        self.at = now;
        self.total += keys as u64;
    }

    /// Keys taken since the start.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Keys per second.
    pub(crate) fn rate(&self, now: Time) -> f64 {
        self.keys_at(now) / MEMORY_S
    }

    fn keys_at(&self, now: Time) -> f64 {
        self.keys * (-now.since(self.at).as_secs_f64() / MEMORY_S).exp()
    }
}

/// How long a moving average looks back.
const MEMORY_S: f64 = 30.0;
/// A pair that lacked keys for so long and got none makes none.
const KNOWN_AFTER_S: f64 = 10.0;
/// A burst is not taken for a rate.
const SHORTEST_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_rate_is_that_of_the_time_in_which_keys_lacked() {
        let mut made = Made::default();
        assert_eq!(made.rate(at(0)), None);
        made.lacking(at(0), true);
        for second in 1..=100 {
            made.made(at(second), 5, true);
        }
        let rate = made.rate(at(100)).unwrap();
        assert!((4.9..5.1).contains(&rate), "{rate}");
        made.made(at(100), 0, false);
        assert_eq!(made.rate(at(10_000)).unwrap(), made.rate(at(100)).unwrap(), "a full stock says nothing");
        made.lacking(at(10_000), true);
        assert!(made.rate(at(10_100)).unwrap() < 2.0, "but one that is not filled does");
        let mut none = Made::default();
        none.lacking(at(0), true);
        assert_eq!((none.rate(at(5)), none.rate(at(11))), (None, Some(0.0)));
    }

    #[test]
    fn what_was_taken_is_forgotten_slowly() {
        let mut taken = Taken::default();
        (0..300).for_each(|second| taken.take(at(second), 2));
        let rate = taken.rate(at(300));
        assert!((1.9..2.1).contains(&rate), "{rate}");
        assert!(taken.rate(at(600)) < 0.01);
    }
}
