//! Which chunks an end holds, and which indices it has ever known.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crypto::secret::SecretBytes;
use types::units::Time;

/// A chunk that waits for its application.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: SecretBytes,
    /// Since when it can be had.
    pub(super) since: Time,
    /// What is known of its keys, as the members of a JSON object.
    pub(super) facts: Arc<str>,
}

/// The chunks of one end. An index that is known and not held is spent, or not here yet.
#[derive(Debug, Default)]
pub(super) struct Book {
    held: BTreeMap<u32, Held>,
    expiry: VecDeque<(Time, u32)>,
    bytes: usize,
    pub(super) known: Spans,
}

impl Book {
    /// Bytes of the chunks held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn held(&self, index: u32) -> Option<&Held> {
        self.held.get(&index)
    }

    pub(super) fn hold(&mut self, index: u32, chunk: Held, expires: Time) {
        self.bytes += chunk.key.len();
        let before = self.held.insert(index, chunk);
        assert!(before.is_none(), "an index is held once");
        self.expiry.push_back((expires, index));
    }

    pub(super) fn take(&mut self, index: u32) -> Option<SecretBytes> {
        let chunk = self.held.remove(&index)?;
        self.bytes -= chunk.key.len();
        while self.expiry.front().is_some_and(|(_, index)| !self.held.contains_key(index)) {
            self.expiry.pop_front();
        }
        Some(chunk.key)
    }

    /// Destroys all chunks held.
    pub(super) fn wipe(&mut self) {
        self.held.clear();
        self.expiry.clear();
        self.bytes = 0;
    }

    /// Destroys the chunks whose time is over.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some((_, index)) = self.expiry.pop_front_if(|(at, _)| *at <= now) {
            if let Some(chunk) = self.held.remove(&index) {
                self.bytes -= chunk.key.len();
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.expiry.front().map(|(at, _)| *at)
    }
}

/// A set of indices as spans, first to last; bounded.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<u32, u32>);

impl Spans {
    pub(super) fn contains(&self, index: u32) -> bool {
        self.0.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    /// Whether one more span fits, wherever it is.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < SPANS_MAX
    }

    /// How many indices from `first` on are not in the set, at most `most`.
    pub(super) fn free(&self, first: u32, most: u32) -> u32 {
        if self.contains(first) {
            return 0;
        }
        let end = self.0.range(first..).next().map_or(u32::MAX - first, |(next, _)| next - first - 1);
        end.saturating_add(1).min(most)
    }

    /// Adds `count` indices from `first` on; none of them may be in the set.
    pub(super) fn add(&mut self, first: u32, count: u32) {
        assert!(count > 0 && self.free(first, count) == count, "the caller checked that they are free");
        let mut last = first + (count - 1);
        let mut start = first;
        if let Some(next) = last.checked_add(1)
            && let Some(end) = self.0.remove(&next)
        {
            last = end;
        }
        if let Some((before, end)) = self.0.range(..first).next_back().map(|(before, end)| (*before, *end))
            && end.checked_add(1) == Some(first)
        {
            start = before;
        }
        self.0.insert(start, last);
    }
}

const SPANS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_are_the_set_of_what_was_added(adds in prop::collection::vec((0_u32..60, 1_u32..6), 0..40)) {
            let (mut spans, mut model) = (Spans::default(), BTreeSet::new());
            let top = u32::MAX - 70;
            for (first, count) in adds {
                let first = top + first;
                let free = (first..first + count).take_while(|index| !model.contains(index)).count();
                prop_assert_eq!(usize::try_from(spans.free(first, count)).unwrap(), free);
                if free == usize::try_from(count).unwrap() {
                    spans.add(first, count);
                    model.extend(first..first + count);
                }
                prop_assert!((top..=u32::MAX).all(|index| spans.contains(index) == model.contains(&index)));
            }
            let gaps = model.iter().filter(|index| !model.contains(&(*index + 1))).count();
            prop_assert_eq!(spans.0.len(), gaps);
        }
    }

    #[test]
    fn the_last_index_of_all_is_an_index() {
        let mut spans = Spans::default();
        assert_eq!(spans.free(u32::MAX, 9), 1);
        spans.add(u32::MAX, 1);
        assert!(spans.contains(u32::MAX) && !spans.contains(0));
        assert_eq!(spans.free(u32::MAX - 3, 9), 3);
    }
}
