//! Holds back what a mutation lets out until the mutation is durable.
//!
//! ```text
//! change, event, effect ... close -> Commit(seq) out, effects wait for seq
//! durable(seq)                     -> effects of all commits up to seq out, in order
//! ```
//! An effect waits for the newest commit issued before it, its own or an older one, so effects never overtake. One
//! mechanism for every core of this crate, whatever its outputs are.

use std::collections::VecDeque;

use crypto::record::Change;
use types::event::Event;

use crate::api::{CommitSeq, Output};

/// Outputs of a core that keeps its state in commits.
pub(crate) trait Commits {
    /// The output that asks for a commit.
    fn commit(seq: CommitSeq, changes: Vec<Change>, events: Vec<Event>) -> Self;
}

/// Changes of the mutation under way, effects that wait, outputs to drain.
#[derive(Debug)]
pub(crate) struct Journal<O = Output> {
    changes: Vec<Change>,
    events: Vec<Event>,
    effects: Vec<O>,
    issued: CommitSeq,
    durable: CommitSeq,
    waiting: VecDeque<(CommitSeq, O)>,
    out: VecDeque<O>,
}

impl<O> Default for Journal<O> {
    fn default() -> Self {
        Self {
            changes: Vec::new(),
            events: Vec::new(),
            effects: Vec::new(),
            issued: CommitSeq::default(),
            durable: CommitSeq::default(),
            waiting: VecDeque::new(),
            out: VecDeque::new(),
        }
    }
}

impl<O: Commits> Journal<O> {
    /// The changes of the mutation under way.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
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
    pub(crate) fn effect(&mut self, output: O) {
        self.effects.push(output);
    }

    /// An output that shows nothing of state that is not durable yet.
    pub(crate) fn direct(&mut self, output: O) {
        self.out.push_back(output);
    }

    /// Ends the mutation.
    pub(crate) fn close(&mut self) {
        if !self.changes.is_empty() || !self.events.is_empty() {
            self.issued = CommitSeq(self.issued.0 + 1);
            let changes = std::mem::take(&mut self.changes);
            let events = std::mem::take(&mut self.events);
            self.out.push_back(O::commit(self.issued, changes, events));
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
    pub(crate) fn poll(&mut self) -> Option<O> {
        self.out.pop_front()
    }
}

impl Commits for Output {
    fn commit(seq: CommitSeq, changes: Vec<Change>, events: Vec<Event>) -> Self {
        Self::Commit { seq, changes, events }
    }
}

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
