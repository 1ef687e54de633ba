//! Holds back what a mutation lets out until the mutation is durable.
//!
//! ```text
//! change, event, effect ... close -> Commit(seq) out, effects wait for seq
//! durable(seq)                     -> effects of all commits up to seq out, in order
//! ```
//! An effect waits for the newest commit issued before it, its own or an older one, so effects never overtake.
//!
//! The journal also numbers spendings: a commit that spends key moves a durable number, so that a site whose records
//! were set back can be told by what others heard of it (`kme/set_back.rs`).

use std::collections::VecDeque;

use crypto::record::Change;
use types::event::Event;

use crate::api::{CommitSeq, Output};
use crate::record::{self, Spends};

/// How far spending has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// What the records said at the start.
    pub(crate) began: u64,
    /// Now.
    pub(crate) at: u64,
    /// What the records say; at least `at`.
    stored: u64,
}

/// Changes of the mutation under way, effects that wait, outputs to drain.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    changes: Vec<Change>,
    events: Vec<Event>,
    effects: Vec<Output>,
    issued: CommitSeq,
    durable: CommitSeq,
    waiting: VecDeque<(CommitSeq, Output)>,
    out: VecDeque<Output>,
    spent: Spent,
}

impl Journal {
    /// Spending as it was stored.
    pub(crate) fn restore_spent(&mut self, at: u64) {
        self.spent = Spent { began: at, at, stored: at };
    }

    /// How far spending has come.
    pub(crate) fn spent(&self) -> Spent {
        self.spent
    }

    /// Moves the number of spendings beyond another.
    pub(crate) fn spent_beyond(&mut self, other: u64) {
        self.spent.at = self.spent.stored.max(other).saturating_add(1);
        self.spent.stored = self.spent.at;
        self.change(record::put_spent(self.spent.at));
    }

    /// Counts what the mutation spends. Pad always moves the stored number; for keys it is moved ahead by a lease.
    fn count(&mut self) {
        let spends = |what| self.changes.iter().any(|change| record::spends(change) == what);
        if spends(Spends::Pad) {
            self.spent_beyond(0);
        } else if spends(Spends::Key) {
            self.spent.at += 1;
            if self.spent.at > self.spent.stored {
                self.spent.stored = self.spent.at + KEYS_LEASE;
                self.change(record::put_spent(self.spent.stored));
            }
        }
    }

    /// A change of durable state.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// An audit event.
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// An output that may be seen only after everything before it is durable.
    pub(crate) fn effect(&mut self, output: Output) {
        self.effects.push(output);
    }

    /// An output that shows nothing of state that is not durable yet.
    pub(crate) fn direct(&mut self, output: Output) {
        self.out.push_back(output);
    }

    /// Ends the mutation.
    pub(crate) fn close(&mut self) {
        self.count();
        if !self.changes.is_empty() || !self.events.is_empty() {
            self.issued = CommitSeq(self.issued.0 + 1);
            let changes = std::mem::take(&mut self.changes);
            let events = std::mem::take(&mut self.events);
            self.out.push_back(Output::Commit { seq: self.issued, changes, events });
        }
        for effect in self.effects.drain(..) {
            if self.issued <= self.durable {
                self.out.push_back(effect);
            } else {
                self.waiting.push_back((self.issued, effect));
            }
        }
    }

    /// Releases what waited for commits up to `seq`.
    pub(crate) fn durable(&mut self, seq: CommitSeq) {
        assert!(seq <= self.issued, "a commit that was never issued cannot be durable");
        self.durable = self.durable.max(seq);
        while let Some((_, effect)) = self.waiting.pop_front_if(|(needs, _)| *needs <= self.durable) {
            self.out.push_back(effect);
        }
    }

    /// The next output.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// Takings of keys that one stored number covers, less one.
const KEYS_LEASE: u64 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(n: u64) -> Output {
        Output::Reply { id: types::id::RequestId(n), result: Err(crate::Refusal::KeysNotFound) }
    }

    fn drained(journal: &mut Journal) -> Vec<String> {
        std::iter::from_fn(|| journal.poll())
            .map(|output| match output {
                Output::Commit { seq, .. } => format!("c{}", seq.0),
                Output::Reply { id, .. } => format!("e{}", id.0),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn effects_wait_for_the_newest_commit_and_keep_their_order() {
        let mut journal = Journal::default();
        journal.effect(effect(1));
        journal.close();
        assert_eq!(drained(&mut journal), ["e1"]);
        journal.event(Event::ServiceStopped);
        journal.effect(effect(2));
        journal.close();
        journal.effect(effect(3));
        journal.close();
        journal.event(Event::ServiceStopped);
        journal.effect(effect(4));
        journal.close();
        assert_eq!(drained(&mut journal), ["c1", "c2"]);
        journal.durable(CommitSeq(1));
        assert_eq!(drained(&mut journal), ["e2", "e3"]);
        journal.durable(CommitSeq(2));
        assert_eq!(drained(&mut journal), ["e4"]);
    }
}
