//! The replay window: which positions behind the high-water mark were used.
//!
//! Look at it before opening, mark it only after: [`Window::look`] gives a proof that [`Window::mark`] takes.
//! Positions are units; what lies behind the window counts as used.

/// Positions behind the mark that the window remembers: 1,024 units of 16 B are 16 KiB of reordering.
pub const WINDOW_UNITS: u64 = 1024;

const WINDOW_WORDS: usize = (WINDOW_UNITS / 64) as usize;

/// High-water mark and a bitmap of `64 * WORDS` positions behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window<const WORDS: usize = WINDOW_WORDS> {
    mark: u64,
    // Bit `p % SIZE` is set if position `p` of [mark - SIZE, mark) was used.
    seen: [u64; WORDS],
}

/// Why positions are not fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Part of them was used.
    Used,
    /// Part of them lies behind the window.
    Behind,
    /// More positions than the window holds, none, or beyond the end of counting.
    Impossible,
}

/// Proof that positions were fresh when the window was looked at.
#[derive(Debug)]
pub struct Fresh {
    start: u64,
    len: u64,
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = 64 * WORDS as u64;

    /// An empty window at position 0.
    #[must_use]
    pub fn new() -> Self {
        Self { mark: 0, seen: [0; WORDS] }
    }

    /// One past the highest position used.
    #[must_use]
    pub fn mark_at(&self) -> u64 {
        self.mark
    }

    /// The first position that is not behind the window.
    #[must_use]
    pub fn bottom(&self) -> u64 {
        self.mark.saturating_sub(Self::SIZE)
    }

    /// Whether `len` positions from `start` are all fresh.
    ///
    /// # Errors
    /// [`Stale`] says why not.
    pub fn look(&self, start: u64, len: u64) -> Result<Fresh, Stale> {
        let end = start.checked_add(len).ok_or(Stale::Impossible)?;
        if len == 0 || len > Self::SIZE {
            return Err(Stale::Impossible);
        }
        if start < self.bottom() {
            return Err(Stale::Behind);
        }
        if (start..end.min(self.mark)).any(|position| self.is_set(position)) {
            return Err(Stale::Used);
        }
        Ok(Fresh { start, len })
    }

    /// Marks positions as used. Positions that fell behind since they were looked at stay behind.
    pub fn mark(&mut self, fresh: &Fresh) {
        let end = fresh.start + fresh.len;
        self.advance(end);
        for position in fresh.start.max(self.bottom())..end {
            let (word, bit) = Self::place(position);
            self.seen[word] |= bit;
        }
    }

    /// Counts every position below `end` as used.
    pub fn burn_below(&mut self, end: u64) {
        self.advance(end);
        for position in self.bottom()..end {
            let (word, bit) = Self::place(position);
            self.seen[word] |= bit;
        }
    }

    fn advance(&mut self, to: u64) {
        if to <= self.mark {
            return;
        }
        if to - self.mark >= Self::SIZE {
            self.seen = [0; WORDS];
        } else {
            for position in self.mark..to {
                let (word, bit) = Self::place(position);
                self.seen[word] &= !bit;
            }
        }
        self.mark = to;
    }

    fn is_set(&self, position: u64) -> bool {
        let (word, bit) = Self::place(position);
        self.seen[word] & bit != 0
    }

    fn place(position: u64) -> (usize, u64) {
        let index = position % Self::SIZE;
        (usize::try_from(index / 64).expect("below the number of words"), 1 << (index % 64))
    }
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    // A window of 64 positions against a set, over every schedule of three ranges around its edges.
    #[test]
    fn every_small_schedule_agrees_with_a_set() {
        const SIZE: u64 = 64;
        let starts = [0, 1, 2, 62, 63, 64, 65, 66, 127, 128, 129, 200];
        let ranges: Vec<(u64, u64)> = starts.iter().flat_map(|start| [1, 2, 3, 64].map(|len| (*start, len))).collect();
        for a in &ranges {
            for b in &ranges {
                for c in &ranges {
                    let (mut window, mut model, mut mark) = (Window::<1>::new(), BTreeSet::new(), 0_u64);
                    for (start, len) in [*a, *b, *c] {
                        let behind = start + SIZE < mark;
                        let used = (start..start + len).any(|position| model.contains(&position));
                        match window.look(start, len) {
                            Err(Stale::Behind) => assert!(behind, "{a:?} {b:?} {c:?}"),
                            Err(Stale::Used) => assert!(used && !behind, "{a:?} {b:?} {c:?}"),
                            Err(Stale::Impossible) => panic!("{len} positions fit"),
                            Ok(fresh) => {
                                assert!(!behind && !used, "{a:?} {b:?} {c:?}");
                                window.mark(&fresh);
                                model.extend(start..start + len);
                                mark = mark.max(start + len);
                            }
                        }
                        assert_eq!(window.mark_at(), mark);
                    }
                }
            }
        }
    }

    #[test]
    fn burning_leaves_nothing_below_and_everything_above() {
        for (used, burn) in [(0, 5), (3, 5), (90, 80), (90, 200), (90, 10)] {
            let mut window = Window::<1>::new();
            if used > 0 {
                let fresh = window.look(used - 1, 1).unwrap();
                window.mark(&fresh);
            }
            window.burn_below(burn);
            for position in 0..300 {
                let free = window.look(position, 1).is_ok();
                assert_eq!(
                    free,
                    position >= burn && position + 64 >= used && position + 1 != used,
                    "{used} {burn} {position}"
                );
            }
        }
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let window = Window::<1>::new();
        assert_eq!(window.look(0, 0).unwrap_err(), Stale::Impossible);
        assert_eq!(window.look(0, 65).unwrap_err(), Stale::Impossible);
        assert_eq!(window.look(u64::MAX, 1).unwrap_err(), Stale::Impossible);
    }
}
