//! How many connections each address and each caller has, and a log line now and then for those turned away.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections by whom they belong to.
pub(super) struct Counts<K> {
    most: usize,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

/// One counted connection; drop it when the connection ends.
pub(super) struct Counted<K: Eq + Hash> {
    key: K,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Counts<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// Counts a connection; `None` if its owner has too many.
    pub(super) fn take(&self, key: &K) -> Option<Counted<K>> {
        let mut open = lock(&self.open);
        let count = open.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted { key: key.clone(), open: self.open.clone() })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

/// Counts what happens often and says so at most once a second.
#[derive(Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// How often it happened since it was last said, if it is to be said now.
    pub(super) fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        if state.0.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        state.0 = Some(Instant::now());
        Some(std::mem::take(&mut state.1))
    }
}

fn lock<K>(open: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    // A count is right whatever the holder did.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

const SAY_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_owner_has_its_own_count_and_gets_it_back() {
        let counts = Counts::new(2);
        let (one, _two) = (counts.take(&"a").unwrap(), counts.take(&"a").unwrap());
        assert!(counts.take(&"a").is_none());
        assert!(counts.take(&"b").is_some());
        drop(one);
        assert!(counts.take(&"a").is_some());
    }

    #[test]
    fn what_happens_often_is_said_once_with_its_count() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happened(), Some(1));
        assert_eq!((seldom.happened(), seldom.happened()), (None, None));
    }
}
