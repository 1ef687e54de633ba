//! How much of a link's key the network itself consumes, measured from the pool's stock.
//!
//! What the stock gains between two looks was filed, what it loses was spent on relays; what is filed and spent between
//! the same two looks is not told apart. Key kept for authentication never reaches the pool and is known from the last
//! block. A simulated link may run faster or slower than the clock, so the share of filed key that is spent counts, not
//! the rates.

use std::collections::VecDeque;

use types::units::Time;

/// Figures of one link.
#[derive(Debug, Default)]
pub(super) struct Meter {
    looks: VecDeque<Look>,
    stock: Option<u64>,
    filed: u64,
    spent: u64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Time,
    filed: u64,
    spent: u64,
}

impl Meter {
    /// Looks at the stock, in bits.
    pub(super) fn look(&mut self, now: Time, stock: u64) {
        let before = self.stock.replace(stock).unwrap_or(stock);
        self.filed += stock.saturating_sub(before);
        self.spent += before.saturating_sub(stock);
        self.looks.push_back(Look { at: now, filed: self.filed, spent: self.spent });
        if self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
    }

    /// Bit per second that relays consume of a link that makes `rate` bit per second for its pool.
    pub(super) fn consumption(&self, rate: f64) -> f64 {
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else { return 0.0 };
        let (filed, spent) = (as_f64(last.filed - first.filed), as_f64(last.spent - first.spent));
        let seconds = last.at.since(first.at).as_secs_f64();
        if filed > 0.0 {
            rate * spent / filed
        } else if seconds > 0.0 {
            spent / seconds
        } else {
            0.0
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, far from 53 bits")]
fn as_f64(bits: u64) -> f64 {
    bits as f64
}

/// Five minutes of looks, one a second.
const LOOKS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meter(stocks: &[u64]) -> Meter {
        let mut meter = Meter::default();
        for (second, stock) in stocks.iter().enumerate() {
            meter.look(Time::ZERO.after(Duration::from_secs(second as u64)), *stock);
        }
        meter
    }

    #[test]
    fn the_spent_share_of_what_is_filed_counts() {
        assert_eq!(meter(&[]).consumption(100.0), 0.0);
        assert_eq!(meter(&[500]).consumption(100.0), 0.0);
        // 1,000 bits filed, 250 of them spent.
        assert_eq!(meter(&[0, 1_000, 900, 750]).consumption(100.0), 25.0);
        // Nothing filed: what is left shrinks by 50 a second.
        assert_eq!(meter(&[1_000, 950, 900]).consumption(0.0), 50.0);
    }

    #[test]
    fn old_looks_are_forgotten() {
        let mut meter = meter(&[0, 1_000, 0]);
        for second in 3..400 {
            meter.look(Time::ZERO.after(Duration::from_secs(second)), 0);
        }
        assert_eq!((meter.looks.len(), meter.consumption(100.0)), (LOOKS_MAX, 0.0));
    }
}
