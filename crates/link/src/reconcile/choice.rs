//! Which method reconciles a block.
//!
//! Cascade discloses least but takes some 200 round trips. LDPC codes disclose more and take three or four:
//!
//! | method | leak over entropy at 1 / 3 / 5 / 11 % | round trips | work at Bob |
//! |---|---|---|---|
//! | Cascade | 1.05 / 1.04 / 1.04 / 1.04 | 250 at most | 10 Mbit/s and more |
//! | LDPC, long frames | 1.16 / 1.11 / 1.10 / 1.08 | 3 | 2 Mbit/s |
//! | LDPC, short frames | 1.27 / 1.17 / 1.15 / 1.13 | 3 | 5 Mbit/s |
//!
//! A block gathers for a minute or more at the rates of a long link, and later blocks gather while it is corrected, so
//! that a second or two of waiting costs nothing while every percent of leak is key lost. The rule is therefore:
//! **the method with the least leak that is done within [`TIME_MAX`]**; if none is, the one that is done first.
//! Below [`LDPC_BITS_MIN`] bits and beyond [`LDPC_QBER_PPM_MAX`] codes lose too much, and Cascade is taken whatever
//! the round trip.

use core::time::Duration;

use types::network::Reconciliation;

/// A way to reconcile a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// [`cascade`](super::cascade).
    Cascade,
    /// [`ldpc`](super::ldpc) in frames of up to 819,200 bits.
    LdpcLong,
    /// [`ldpc`](super::ldpc) in frames of up to 25,600 bits.
    LdpcShort,
}

/// The method for a block of this many bits with this error rate in errors per million; `round_trip` is that of the
/// classical channel.
///
/// A configured method is kept to; for LDPC only the frames are chosen.
#[must_use]
pub fn choose(reconciliation: Reconciliation, round_trip: Duration, qber_ppm: u32, block_bits: usize) -> Method {
    let done = |method: Method| method.time(round_trip, block_bits);
    let frames = if done(Method::LdpcLong) <= TIME_MAX { Method::LdpcLong } else { Method::LdpcShort };
    let cascade_needed = block_bits < LDPC_BITS_MIN || qber_ppm > LDPC_QBER_PPM_MAX;
    match reconciliation {
        Reconciliation::Cascade => Method::Cascade,
        Reconciliation::Ldpc => frames,
        Reconciliation::Auto if cascade_needed || done(Method::Cascade) <= TIME_MAX.max(done(frames)) => {
            Method::Cascade
        }
        Reconciliation::Auto => frames,
    }
}

impl Method {
    /// Expected time for a block.
    fn time(self, round_trip: Duration, block_bits: usize) -> Duration {
        let (round_trips, bits_per_second) = match self {
            Self::Cascade => (250, 10_000_000),
            Self::LdpcLong => (3, 2_000_000),
            Self::LdpcShort => (4, 5_000_000),
        };
        let work_us = block_bits as u64 * 1_000_000 / bits_per_second;
        round_trip.saturating_mul(round_trips).saturating_add(Duration::from_micros(work_us))
    }
}

/// What a block may take before leak is traded for time.
pub const TIME_MAX: Duration = Duration::from_secs(2);

/// Fewest bits for which a code is taken unasked: below, frames are mostly filling.
pub const LDPC_BITS_MIN: usize = 10_000;

/// Highest error rate for which a code is taken unasked: the designs end there.
pub const LDPC_QBER_PPM_MAX: u32 = 140_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_choices() {
        use Method::{Cascade, LdpcLong, LdpcShort};
        use Reconciliation::{Auto, Cascade as OnlyCascade, Ldpc};
        let ms = Duration::from_millis;
        for (configured, round_trip, qber_ppm, block_bits, expected, why) in [
            (Auto, ms(1), 30_000, 100_000, Cascade, "0.25 s of round trips"),
            (Auto, ms(6), 30_000, 100_000, Cascade, "580 km: 1.5 s of round trips"),
            (Auto, ms(10), 30_000, 100_000, LdpcLong, "2.5 s of round trips against 0.08"),
            (Auto, ms(600), 30_000, 1_000_000, LdpcShort, "by satellite: long codes take over 2 s too"),
            (Auto, ms(300), 30_000, 1_000_000, LdpcLong, "1.4 s"),
            (Auto, ms(600), 30_000, 9_999, Cascade, "too few bits for a code"),
            (Auto, ms(600), 150_000, 1_000_000, Cascade, "beyond the designs"),
            (Auto, ms(1), 30_000, 10_000_000, Cascade, "1.25 s, and the least leak"),
            (Auto, ms(20), 30_000, 10_000_000, LdpcShort, "long codes take 5 s, short ones 2.1"),
            (OnlyCascade, ms(600), 30_000, 1_000_000, Cascade, "configured"),
            (Ldpc, ms(0), 30_000, 1_000_000, LdpcLong, "configured"),
            (Ldpc, ms(0), 30_000, 10_000_000, LdpcShort, "configured, long codes take 5 s"),
            (Ldpc, ms(0), 200_000, 1_000, LdpcLong, "configured, however bad"),
        ] {
            assert_eq!(choose(configured, round_trip, qber_ppm, block_bits), expected, "{why}");
        }
        assert_eq!(choose(Auto, Duration::MAX, 30_000, 100_000), Cascade, "nothing is done in time");
    }
}
