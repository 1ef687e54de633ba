//! Which suite a class gets at which stock: graded, with hysteresis, with a floor per class.
//!
//! | level | from stock | supervisory | telemetry | interrogation | command |
//! |---|---|---|---|---|---|
//! | [`Level::Otp`] | above 25 % | AEAD | OTP | OTP | OTP |
//! | [`Level::Economy`] | 10 to 25 % | AEAD | AEAD | OTP | OTP |
//! | [`Level::Commands`] | reserve to 10 % | AEAD | AEAD | AEAD | OTP |
//! | [`Level::Aead`] | below the reserve | AEAD | AEAD | AEAD | AEAD, if the floor allows |
//!
//! AEAD is AES-256-GCM under an epoch key of 32 bytes from the same pool, or from the opening of the session.

use terminal::{Class, Floor, Strength, Suite};

/// How well a sender protects now, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// One-time pad for everything but keep-alive frames.
    Otp = 0,
    /// One-time pad for interrogation and commands.
    Economy = 1,
    /// One-time pad for commands.
    Commands = 2,
    /// Epoch keys for everything.
    Aead = 3,
}

impl Level {
    /// All levels, by number.
    pub const ALL: [Self; 4] = [Self::Otp, Self::Economy, Self::Commands, Self::Aead];

    /// The level of a number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Name for logs, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Otp => "otp",
            Self::Economy => "otp-economy",
            Self::Commands => "otp-commands",
            Self::Aead => "aead",
        }
    }
}

/// What decides about protection. Percentages are of [`Policy::capacity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of pad per direction that the pools are filled up to.
    pub capacity: u64,
    /// Below this, telemetry goes to AEAD.
    pub economy_percent: u64,
    /// Below this, everything but commands goes to AEAD.
    pub commands_percent: u64,
    /// So much more stock is needed to go back up than to stay.
    pub hysteresis_percent: u64,
    /// Bytes that one-time pads leave for epoch seeds.
    pub epoch_reserve: u64,
    /// The suite of keep-alive frames; they are most of a quiet line's bytes.
    pub supervisory: Suite,
    /// The least strength of each class; binds senders and receivers.
    pub floor: Floor,
}

impl Policy {
    /// The usual policy for pools of `capacity` bytes per direction.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            economy_percent: 25,
            commands_percent: 10,
            hysteresis_percent: 10,
            epoch_reserve: 256,
            supervisory: Suite::Aes256Gcm,
            floor: Floor::default(),
        }
    }

    /// The level for a stock, coming from `current`.
    #[must_use]
    pub fn level(&self, current: Level, stock: u64) -> Level {
        let down = self.level_at(stock, 0);
        if down >= current {
            return down;
        }
        // Upwards only as far as the stock carries with the hysteresis on top.
        self.level_at(stock, self.hysteresis_percent).min(current)
    }

    /// The suite for a class at a level. The floor wins over the level.
    #[must_use]
    pub fn suite(&self, level: Level, class: Class) -> Suite {
        let by_level = match class {
            Class::Supervisory => level == Level::Otp && self.supervisory == Suite::OtpWc128,
            Class::Telemetry => level <= Level::Otp,
            Class::Interrogation => level <= Level::Economy,
            Class::Command => level <= Level::Commands,
            _ => false,
        };
        let by_floor = self.floor.of(class) == Strength::InformationTheoretic;
        if by_level || by_floor { Suite::OtpWc128 } else { Suite::Aes256Gcm }
    }

    fn level_at(&self, stock: u64, extra_percent: u64) -> Level {
        let needs = |percent: u64| self.capacity.saturating_mul(percent + extra_percent) / 100;
        let reserve = if extra_percent == 0 { self.epoch_reserve } else { self.epoch_reserve.saturating_mul(4) };
        match stock {
            _ if stock < reserve => Level::Aead,
            _ if stock < needs(self.commands_percent) => Level::Commands,
            _ if stock < needs(self.economy_percent) => Level::Economy,
            _ => Level::Otp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_go_down_at_once_and_up_with_hysteresis() {
        let policy = Policy::new(100_000);
        let steps = [
            (100_000, Level::Otp),
            (25_000, Level::Otp),
            (24_999, Level::Economy),
            (30_000, Level::Economy),
            (34_999, Level::Economy),
            (35_000, Level::Otp),
            (9_999, Level::Commands),
            (19_999, Level::Commands),
            (20_000, Level::Economy),
            (255, Level::Aead),
            (1_023, Level::Aead),
            (1_024, Level::Commands),
            (0, Level::Aead),
            (100_000, Level::Otp),
        ];
        let mut level = Level::Otp;
        for (stock, expected) in steps {
            level = policy.level(level, stock);
            assert_eq!(level, expected, "at {stock}");
        }
    }

    #[test]
    fn commands_keep_the_pad_longest_and_the_floor_wins() {
        let policy = Policy::new(1000);
        for class in Class::ALL {
            let otp: Vec<bool> =
                Level::ALL.iter().map(|level| policy.suite(*level, class) == Suite::OtpWc128).collect();
            let expected: [bool; 4] = match class {
                Class::Telemetry => [true, false, false, false],
                Class::Interrogation => [true, true, false, false],
                Class::Command => [true, true, true, false],
                _ => [false; 4],
            };
            assert_eq!(otp, expected, "{class:?}");
        }
        let mut strict = policy;
        strict.floor = strict.floor.with(Class::Command, Strength::InformationTheoretic);
        assert_eq!(strict.suite(Level::Aead, Class::Command), Suite::OtpWc128);
    }
}
