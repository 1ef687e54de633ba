//! What one SAE was told and has not displaced yet: numbered, bounded for each teller, read by cursor.
//!
//! Reading takes nothing away. A cursor is the number of the first notification wanted; numbers begin at the wall clock
//! in microseconds, so that they grow over restarts and a cursor from before one is known to be old. What was displaced
//! or lost with a restart shows as a gap.

use std::collections::VecDeque;

use types::id::SaeId;
use types::units::UtcNanos;

use super::frame::Told;

/// One SAE's notifications.
pub(super) struct Inbox {
    held: VecDeque<Notification>,
    next: u64,
    /// Everything before this number may be missing.
    floor: u64,
}

/// A notification as it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) cursor: u64,
    pub(super) from: SaeId,
    pub(super) told: Told,
    pub(super) received: UtcNanos,
}

/// An answer to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) notifications: Vec<Notification>,
    /// The cursor to ask with next.
    pub(super) next: u64,
    /// Some notifications between the cursor and the first of these may be missing.
    pub(super) gap: bool,
}

impl Inbox {
    /// Nothing yet; numbers begin at `first`.
    pub(super) fn new(first: u64) -> Self {
        Self { held: VecDeque::new(), next: first, floor: first }
    }

    /// Keeps a notification; displaces the teller's oldest when it has told too many, or the oldest of all.
    pub(super) fn push(&mut self, from: SaeId, told: Told, received: UtcNanos) {
        let of_teller = self.held.iter().filter(|held| held.from == from).count();
        let displaced = if of_teller >= PAIR_MAX {
            self.held.iter().position(|held| held.from == from)
        } else if self.held.len() >= INBOX_MAX {
            Some(0)
        } else {
            None
        };
        if let Some(gone) = displaced.and_then(|at| self.held.remove(at)) {
            self.floor = self.floor.max(gone.cursor + 1);
        }
        self.held.push_back(Notification { cursor: self.next, from, told, received });
        self.next += 1;
    }

    /// What is there from a cursor on; without a cursor, all that is held.
    pub(super) fn read(&self, cursor: Option<u64>) -> Page {
        let unknown = cursor.is_some_and(|cursor| cursor > self.next);
        let from = cursor.filter(|_| !unknown).unwrap_or_default();
        let wanted = self.held.iter().filter(|held| held.cursor >= from);
        let notifications: Vec<_> = wanted.take(PAGE_MAX).cloned().collect();
        let next = match notifications.last() {
            Some(last) if notifications.len() == PAGE_MAX => last.cursor + 1,
            _ => self.next,
        };
        Page { notifications, next, gap: unknown || cursor.is_some_and(|cursor| cursor < self.floor) }
    }
}

/// Notifications kept for each teller.
pub(super) const PAIR_MAX: usize = 256;
const INBOX_MAX: usize = 4_096;
/// Notifications of one answer.
pub(super) const PAGE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn push(inbox: &mut Inbox, from: &str, sequence: u64) {
        let told = Told { sequence, ids: Vec::new(), note: String::new() };
        inbox.push(SaeId::new(from).unwrap(), told, UtcNanos(0));
    }

    fn sequences(page: &Page) -> Vec<u64> {
        page.notifications.iter().map(|held| held.told.sequence).collect()
    }

    #[test]
    fn a_reader_with_a_cursor_sees_each_once() {
        let mut inbox = Inbox::new(1_000);
        let empty = inbox.read(None);
        assert_eq!((sequences(&empty), empty.next, empty.gap), (vec![], 1_000, false));
        push(&mut inbox, "a", 1);
        push(&mut inbox, "a", 2);
        let first = inbox.read(Some(empty.next));
        assert_eq!((sequences(&first), first.gap), (vec![1, 2], false));
        push(&mut inbox, "a", 3);
        let second = inbox.read(Some(first.next));
        assert_eq!((sequences(&second), second.gap), (vec![3], false));
        assert_eq!(sequences(&inbox.read(None)), [1, 2, 3]);
    }

    #[test]
    fn a_loud_teller_displaces_only_its_own_and_the_gap_shows() {
        let mut inbox = Inbox::new(1);
        push(&mut inbox, "quiet", 1);
        let after_quiet = inbox.read(None).next;
        for sequence in 0..=PAIR_MAX as u64 {
            push(&mut inbox, "loud", sequence);
        }
        assert_eq!(inbox.read(None).notifications[0].from.as_str(), "quiet");
        let late = inbox.read(Some(after_quiet));
        assert_eq!((late.gap, sequences(&late).first().copied()), (true, Some(1)));
        assert!(!inbox.read(Some(late.next)).gap);
    }

    #[test]
    fn pages_follow_each_other() {
        let mut inbox = Inbox::new(1);
        (0..100).for_each(|sequence| push(&mut inbox, "a", sequence));
        let first = inbox.read(Some(1));
        let second = inbox.read(Some(first.next));
        assert_eq!((first.notifications.len(), second.notifications.len(), second.next), (PAGE_MAX, 36, 101));
        assert!(!first.gap && !second.gap);
    }

    #[test]
    fn a_cursor_of_another_life_is_a_gap() {
        let mut inbox = Inbox::new(1_000);
        push(&mut inbox, "a", 1);
        for cursor in [5, 2_000] {
            let page = inbox.read(Some(cursor));
            assert!(page.gap && page.notifications.len() == 1, "{cursor}");
        }
    }

    #[test]
    fn the_whole_inbox_is_bounded() {
        let mut inbox = Inbox::new(1);
        for n in 0..INBOX_MAX as u64 + 10 {
            push(&mut inbox, &format!("sae-{}", n % 100), n);
        }
        assert_eq!(inbox.held.len(), INBOX_MAX);
        assert!(inbox.read(Some(1)).gap);
    }
}
