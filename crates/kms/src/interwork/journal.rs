//! Holds back what a mutation lets out until the mutation is durable, as the KME's own journal does.

use std::collections::VecDeque;

use crypto::record::Change;
use types::event::Event;

use super::api::Output;
use crate::CommitSeq;

/// Changes of the mutation under way, effects that wait, outputs to drain.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: Vec<Change>,
    events: Vec<Event>,
    effects: Vec<Output>,
    issued: CommitSeq,
    durable: CommitSeq,
    waiting: VecDeque<(CommitSeq, Output)>,
    out: VecDeque<Output>,
}

impl Journal {
    /// A change of durable state.
    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// An audit event.
    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// An output that may be seen only after everything before it is durable.
    pub(super) fn effect(&mut self, output: Output) {
        self.effects.push(output);
    }

    /// Ends the mutation.
    pub(super) fn close(&mut self) {
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
    pub(super) fn durable(&mut self, seq: CommitSeq) {
        assert!(seq <= self.issued, "a commit that was never issued cannot be durable");
        self.durable = self.durable.max(seq);
        while let Some((_, effect)) = self.waiting.pop_front_if(|(needs, _)| *needs <= self.durable) {
            self.out.push_back(effect);
        }
    }

    /// The next output.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}
