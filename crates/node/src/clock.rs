//! The process's clock, for the cores that are handed their time.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use types::units::{Time, UtcNanos};

/// Monotonic time since the process first asked.
#[must_use]
pub fn now() -> Time {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Time::from_nanos(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Wall-clock time, for records that people read.
#[must_use]
pub fn utc_now() -> UtcNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UtcNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A wall-clock time as RFC 3339 writes it, in UTC, to the second.
#[must_use]
pub fn rfc3339(time: UtcNanos) -> String {
    let seconds = i64::try_from(time.0 / 1_000_000_000).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
