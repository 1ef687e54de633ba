//! What a site grants of a quality of service (ETSI GS QKD 004 V2.1.1, table 2).

use std::time::Duration;

use etsi::etsi004::{Mimetype, Qos};
use types::units::Time;

use super::StreamConfig;
use crate::config::{REQUEST_BYTES_MAX, SIZE_MAX_BITS, SIZE_MIN_BITS};
use crate::{Priority, Wishes};

/// What is granted, or a counter-proposal that would be.
pub(super) fn settle(mut asked: Qos, config: &StreamConfig, forecast_bps: Option<u64>) -> Result<Qos, Qos> {
    let mut met = true;
    let chunk_max = u32::try_from(REQUEST_BYTES_MAX).unwrap_or(u32::MAX);
    match asked.key_chunk_size {
        0 => asked.key_chunk_size = config.chunk_default,
        size if size > chunk_max => (met, asked.key_chunk_size) = (false, chunk_max),
        _ => {}
    }
    if let Some(forecast) = forecast_bps
        && u64::from(asked.min_bps) > forecast
    {
        (met, asked.min_bps) = (false, u32::try_from(forecast).unwrap_or(u32::MAX));
    }
    if asked.max_bps != 0 && asked.max_bps < asked.min_bps {
        (met, asked.max_bps) = (false, asked.min_bps);
    }
    let kind = asked.mimetype.as_str();
    if kind.eq_ignore_ascii_case(Mimetype::json().as_str()) {
        asked.mimetype = Mimetype::json();
    } else if !kind.is_empty() {
        (met, asked.mimetype) = (false, Mimetype::json());
    }
    // 0 leaves the value to us; it never means a call that is late before it began.
    asked.timeout_ms = in_millis(within(asked.timeout_ms.into(), 1, config.timeout_default, config.timeout_max));
    let ttl = within(asked.ttl_s.into(), 1_000, config.ttl_default, config.ttl_max);
    asked.ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    if met { Ok(asked) } else { Err(asked) }
}

fn within(asked: u64, millis: u64, default: Duration, max: Duration) -> Duration {
    if asked == 0 { default } else { Duration::from_millis(asked * millis).min(max) }
}

fn in_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// How long a call of a stream may take.
pub(super) fn timeout(qos: &Qos) -> Duration {
    Duration::from_millis(qos.timeout_ms.into())
}

/// How long unused key of a stream is kept.
pub(super) fn ttl(qos: &Qos) -> Duration {
    Duration::from_secs(qos.ttl_s.into())
}

/// How one chunk is made of supplied keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes of a chunk.
    pub(super) chunk: usize,
    /// Keys of a chunk.
    pub(super) per: u8,
    /// Bytes of each key; what they have more than the chunk is destroyed.
    pub(super) key: usize,
}

impl Cut {
    pub(super) fn of(qos: &Qos) -> Self {
        let (min, max) = (bytes(SIZE_MIN_BITS), bytes(SIZE_MAX_BITS));
        let chunk = usize::try_from(qos.key_chunk_size).unwrap_or(usize::MAX).clamp(1, REQUEST_BYTES_MAX);
        let per = chunk.div_ceil(max);
        let key = chunk.div_ceil(per).max(min);
        Self { chunk, per: u8::try_from(per).expect("a chunk has few keys"), key }
    }

    pub(super) fn size_bits(self) -> u32 {
        u32::try_from(self.key * 8).expect("key sizes are small")
    }
}

fn bytes(bits: u32) -> usize {
    usize::try_from(bits / 8).expect("key sizes are small")
}

/// What is wished of the keys of some chunks. The priority of a stream is a class of the supply: 0 is what the
/// application has, more is lower. One chunk may wait for its turn; many are taken only if they are there.
pub(super) fn wishes(qos: &Qos, chunks: u32) -> Wishes {
    let wait = if chunks == 1 { (timeout(qos) / 2).min(WAIT_MAX) } else { Duration::ZERO };
    let priority = match qos.priority {
        0 => None,
        n => Some(Priority::ALL[usize::try_from(n).unwrap_or(usize::MAX).min(Priority::ALL.len() - 1)]),
    };
    Wishes { priority, wait: Some(wait), ..Wishes::default() }
}

/// Tokens in bits: as many as `Max_bps` gives in a second, and at least one chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    bps: u64,
    full: u64,
    level: u64,
    at: Time,
}

impl Bucket {
    pub(super) fn new(qos: &Qos, now: Time) -> Self {
        let full = u64::from(qos.max_bps).max(u64::from(qos.key_chunk_size) * 8);
        Self { bps: qos.max_bps.into(), full, level: full, at: now }
    }

    /// Takes tokens, or says when there are enough.
    pub(super) fn take(&mut self, bits: u64, now: Time) -> Result<(), Time> {
        if self.bps == 0 {
            return Ok(());
        }
        let came = u128::from(self.bps) * now.since(self.at).as_nanos() / NANOS;
        if came > 0 {
            self.level = u64::try_from(u128::from(self.level) + came).unwrap_or(u64::MAX).min(self.full);
            self.at = now;
        }
        if self.level >= bits {
            self.level -= bits;
            return Ok(());
        }
        let wait = (u128::from(bits - self.level) * NANOS).div_ceil(u128::from(self.bps));
        Err(self.at.after(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))))
    }
}

/// Longest time that the KME lets a request wait for key; then it is made again.
const WAIT_MAX: Duration = Duration::from_millis(500);
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use types::id::SiteId;

    use super::*;

    fn config() -> StreamConfig {
        StreamConfig::new(SiteId::new("a").unwrap())
    }

    #[test]
    fn zeros_get_defaults_and_too_long_is_cut() {
        let granted = settle(Qos::default(), &config(), Some(0)).unwrap();
        assert_eq!((granted.key_chunk_size, granted.timeout_ms, granted.ttl_s), (32, 5_000, 3_600));
        assert_eq!((granted.max_bps, granted.mimetype.as_str()), (0, ""));
        let long = Qos { timeout_ms: u32::MAX, ttl_s: u32::MAX, mimetype: Mimetype::json(), ..Qos::default() };
        let granted = settle(long, &config(), None).unwrap();
        assert_eq!((granted.timeout_ms, granted.ttl_s), (60_000, 86_400));
    }

    #[test]
    fn what_cannot_be_met_gets_a_counter_proposal_that_can() {
        let wrong = [
            (Qos { key_chunk_size: 65_537, ..Qos::default() }, "chunk"),
            (Qos { min_bps: 1_001, ..Qos::default() }, "rate"),
            (Qos { min_bps: 10, max_bps: 9, ..Qos::default() }, "contradiction"),
            (Qos { mimetype: Mimetype::new("text/xml").unwrap(), ..Qos::default() }, "mimetype"),
        ];
        for (qos, name) in wrong {
            let counter = settle(qos, &config(), Some(1_000)).expect_err(name);
            assert!(settle(counter, &config(), Some(1_000)).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_chunk_size_is_cut_from_keys_that_the_kme_supplies() {
        for chunk in (1..300).chain([8_191, 8_192, 8_193, 65_521, 65_535, 65_536]) {
            let cut = Cut::of(&Qos { key_chunk_size: chunk, ..Qos::default() });
            let whole = cut.key * usize::from(cut.per);
            assert!(whole >= cut.chunk && whole < cut.chunk + 8, "{cut:?}");
            assert!((SIZE_MIN_BITS..=SIZE_MAX_BITS).contains(&cut.size_bits()), "{cut:?}");
            assert!(whole <= REQUEST_BYTES_MAX, "{cut:?}");
        }
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let qos = Qos { key_chunk_size: 32, max_bps: 1_000, ..Qos::default() };
        let mut bucket = Bucket::new(&qos, Time::ZERO);
        let (mut now, mut taken) = (Time::ZERO, 0);
        while now < Time::from_nanos(10_000_000_000) {
            match bucket.take(256, now) {
                Ok(()) => taken += 256,
                Err(at) => now = at,
            }
        }
        assert!((10_500..=11_256).contains(&taken), "{taken}");
    }
}
