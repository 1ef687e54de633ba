//! Numbers as people read them: three digits and a unit, groups of three, shares in percent, times in UTC.

use jiff::Timestamp;
use types::units::UtcNanos;

/// A quantity with a decimal prefix and three digits, as `4.49 kbit/s`.
pub(super) fn scaled(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return ABSENT.to_owned();
    }
    let mut scaled = value;
    let mut prefixes = PREFIXES.iter().peekable();
    let mut prefix = "";
    // 999.5 would be printed as 1000.
    while scaled.abs() >= 999.5 && prefixes.peek().is_some() {
        scaled /= 1000.0;
        prefix = prefixes.next().copied().unwrap_or_default();
    }
    format!("{}{NBSP}{prefix}{unit}", three_digits(scaled))
}

/// A whole number with a decimal prefix, as `1.05 Mbit`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn scaled_count(value: u64, unit: &str) -> String {
    scaled(value as f64, unit)
}

/// A share as percent, as `3.24 %`.
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{}{NBSP}%", three_digits(share * 100.0)) } else { ABSENT.to_owned() }
}

/// A count in groups of three digits.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(NARROW_NBSP);
        }
        text.push(digit);
    }
    text
}

/// A length of time in its largest whole unit.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}{NBSP}s"),
        120..7_200 => format!("{}{NBSP}min", seconds / 60),
        7_200..172_800 => format!("{}{NBSP}h", seconds / 3_600),
        _ => format!("{}{NBSP}d", seconds / 86_400),
    }
}

/// A wall-clock time, as `2026-03-01 12:00:00`.
pub(super) fn utc(time: UtcNanos) -> String {
    in_utc(time, "%Y-%m-%d %H:%M:%S")
}

/// A wall-clock time as RFC 3339, for the `datetime` attribute.
pub(super) fn rfc3339(time: UtcNanos) -> String {
    in_utc(time, "%Y-%m-%dT%H:%M:%SZ")
}

/// The first `most` characters; an ellipsis says that more was cut.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What stands where there is no figure.
pub(super) const ABSENT: &str = "–";

fn in_utc(time: UtcNanos, format: &str) -> String {
    Timestamp::from_nanosecond(i128::from(time.0))
        .map_or_else(|_| ABSENT.to_owned(), |stamp| stamp.strftime(format).to_string())
}

fn three_digits(value: f64) -> String {
    let value = value + 0.0; // No minus before a zero.
    match value.abs() {
        size if size >= 99.95 || value == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

const PREFIXES: [&str; 4] = ["k", "M", "G", "T"];
const NBSP: char = '\u{a0}';
const NARROW_NBSP: char = '\u{202f}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_prefix() {
        let table = [
            (0.0, "0 bit/s"),
            (-0.0, "0 bit/s"),
            (0.523, "0.52 bit/s"),
            (520.4, "520 bit/s"),
            (999.4, "999 bit/s"),
            (999.6, "1.00 kbit/s"),
            (4_487.0, "4.49 kbit/s"),
            (99_960.0, "100 kbit/s"),
            (1.234e9, "1.23 Gbit/s"),
            (5e18, "5000000 Tbit/s"),
            (f64::NAN, "–"),
        ];
        for (value, text) in table {
            assert_eq!(scaled(value, "bit/s").replace(NBSP, " "), text);
        }
        assert_eq!(scaled_count(1_048_576, "bit").replace(NBSP, " "), "1.05 Mbit");
        assert_eq!(percent(0.0324).replace(NBSP, " "), "3.24 %");
        assert_eq!(percent(f64::INFINITY), "–");
    }

    #[test]
    fn counts_in_groups() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (u64::MAX, "18 446 744 073 709 551 615")] {
            assert_eq!(grouped(count).replace(NARROW_NBSP, " "), text);
        }
    }

    #[test]
    fn times() {
        assert_eq!(utc(UtcNanos(1_772_366_400_000_000_000)), "2026-03-01 12:00:00");
        assert_eq!(rfc3339(UtcNanos(1_772_366_400_000_000_000)), "2026-03-01T12:00:00Z");
        assert_eq!(utc(UtcNanos(u64::MAX)), "2554-07-21 23:34:33");
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 d")] {
            assert_eq!(span(seconds).replace(NBSP, " "), text);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äöü…");
    }
}
