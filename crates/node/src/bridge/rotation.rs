//! The change of a key in two phases, as a core without IO.
//!
//! ```text
//!  initiator                          responder
//!  take key X                         (both use the old key)
//!     ------- prepare X ------------>  collect X, try the target
//!     <------ ready X ---------------
//!     ------- switch X ------------->  apply X
//!     <------ done X ----------------
//!  apply X
//! ```
//!
//! Lost `prepare`, `ready` or `switch`: both ends keep the old key. Lost `done`: the responder is ahead until the
//! initiator's next `switch` is answered, two seconds later, or, if none is, until the next key. The initiator repeats what
//! is not answered and gives a key up after [`PHASE_MAX`]; a key that was given up is never used. Every message names its
//! key; what names another is stale and changes nothing.
//!
//! Drive it as every core: one call, then drain [`Rotation::poll_output`].

use std::collections::VecDeque;
use std::time::Duration;

use crypto::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use types::id::KeyId;
use types::units::Time;

/// Which end of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes the keys and leads; one end has this role.
    Initiator,
    /// Follows; the other end.
    Responder,
}

/// What the two ends say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Prepare,
    Ready,
    Switch,
    Done,
    /// This end does not have the key, or could not apply it.
    Drop,
}

impl Verb {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Ready => "ready",
            Self::Switch => "switch",
            Self::Done => "done",
            Self::Drop => "drop",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Prepare, Self::Ready, Self::Switch, Self::Done, Self::Drop].into_iter().find(|verb| verb.text() == text)
    }
}

/// What the shell is to do, in order.
#[derive(Debug)]
pub(super) enum Output {
    /// Take a fresh key; answer with [`Rotation::taken`].
    Take,
    /// Collect a key by its id and see whether the target takes keys; answer with [`Rotation::collected`].
    Collect(KeyId),
    /// Say something to the other end; it may be lost.
    Tell(Verb, KeyId),
    /// Give the key to the target; answer with [`Rotation::applied`].
    Apply(KeyId, SecretBytes),
    /// There was no fresh key for too long.
    FallBack,
    /// Something to report.
    Happened(Happened),
}

/// What is reported.
#[derive(Debug)]
pub(super) enum Happened {
    /// This end uses the key.
    Switched(KeyId),
    /// The key is not used.
    Abandoned(KeyId, &'static str),
    /// A message named a key that is not at work.
    Stale(Verb, KeyId),
}

/// One end.
pub(super) struct Rotation {
    role: Role,
    interval: Duration,
    max_age: Duration,
    stage: Stage,
    /// The key in use, if it was set since the start.
    current: Option<KeyId>,
    /// When the key in use is too old; `None` after the fallback.
    stale_at: Option<Time>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Stage {
    /// Initiator: until the next key is due. Responder: until it is told of a key.
    Idle { next: Time },
    /// A key is being taken or collected.
    Fetching,
    /// Initiator.
    Preparing(Pending),
    /// Initiator.
    Switching(Pending),
    /// Responder: collected and not yet applied.
    Staged(Pending),
    /// The target has it in hand.
    Applying,
}

#[derive(Debug)]
struct Pending {
    id: KeyId,
    key: SecretBytes,
    until: Time,
    again: Time,
}

impl Rotation {
    pub(super) fn new(role: Role, interval: Duration, max_age: Duration, now: Time) -> Self {
        Self {
            role,
            interval,
            max_age,
            stage: Stage::Idle { next: now },
            current: None,
            stale_at: Some(now.after(max_age)),
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Rotation::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let stage = match &self.stage {
            Stage::Idle { next } if self.role == Role::Initiator => Some(*next),
            Stage::Idle { .. } | Stage::Fetching | Stage::Applying => None,
            Stage::Preparing(pending) | Stage::Switching(pending) => Some(pending.again.min(pending.until)),
            Stage::Staged(pending) => Some(pending.until),
        };
        [stage, self.stale_at].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.stale_at.is_some_and(|at| now >= at) {
            self.stale_at = None;
            self.outputs.push_back(Output::FallBack);
        }
        match &mut self.stage {
            Stage::Idle { next } if self.role == Role::Initiator && now >= *next => {
                self.stage = Stage::Fetching;
                self.outputs.push_back(Output::Take);
            }
            Stage::Preparing(pending) | Stage::Switching(pending) | Stage::Staged(pending) if now >= pending.until => {
                let id = pending.id;
                self.abandon(now, id, "the other end did not answer in time");
            }
            Stage::Preparing(pending) if now >= pending.again => {
                pending.again = now.after(REPEAT_AFTER);
                let id = pending.id;
                self.tell(Verb::Prepare, id);
            }
            Stage::Switching(pending) if now >= pending.again => {
                pending.again = now.after(REPEAT_AFTER);
                let id = pending.id;
                self.tell(Verb::Switch, id);
            }
            _ => {}
        }
    }

    /// Initiator: the answer to [`Output::Take`].
    pub(super) fn taken(&mut self, now: Time, key: Option<(KeyId, SecretBytes)>) {
        match key {
            Some((id, key)) if is_key(&key) => {
                self.stage = Stage::Preparing(Pending::new(now, id, key));
                self.tell(Verb::Prepare, id);
            }
            _ => self.stage = Stage::Idle { next: now.after(RETRY_AFTER.min(self.interval)) },
        }
    }

    /// Responder: the answer to [`Output::Collect`].
    pub(super) fn collected(&mut self, now: Time, id: KeyId, key: Option<SecretBytes>) {
        match key {
            Some(key) if is_key(&key) => {
                self.stage = Stage::Staged(Pending::new(now, id, key));
                self.tell(Verb::Ready, id);
            }
            _ => {
                self.stage = Stage::Idle { next: now };
                self.tell(Verb::Drop, id);
            }
        }
    }

    /// The answer to [`Output::Apply`].
    pub(super) fn applied(&mut self, now: Time, id: KeyId, applied: bool) {
        let wait = if applied { self.interval } else { RETRY_AFTER.min(self.interval) };
        self.stage = Stage::Idle { next: now.after(wait) };
        if applied {
            self.current = Some(id);
            self.stale_at = Some(now.after(self.max_age));
            self.outputs.push_back(Output::Happened(Happened::Switched(id)));
        }
        if self.role == Role::Responder {
            self.tell(if applied { Verb::Done } else { Verb::Drop }, id);
        }
    }

    /// The other end said something.
    pub(super) fn heard(&mut self, now: Time, verb: Verb, id: KeyId) {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle { next: now });
        self.stage = match (self.role, verb, stage) {
            (Role::Initiator, Verb::Ready, Stage::Preparing(pending)) if pending.id == id => {
                self.tell(Verb::Switch, id);
                Stage::Switching(Pending::new(now, id, pending.key))
            }
            (Role::Initiator, Verb::Done, Stage::Switching(pending)) if pending.id == id => {
                self.outputs.push_back(Output::Apply(id, pending.key));
                Stage::Applying
            }
            (Role::Initiator, Verb::Drop, Stage::Preparing(pending) | Stage::Switching(pending))
                if pending.id == id =>
            {
                return self.abandon(now, id, "the other end does not have it or could not apply it");
            }
            (Role::Responder, Verb::Prepare, Stage::Staged(pending)) if pending.id == id => {
                self.tell(Verb::Ready, id);
                Stage::Staged(pending)
            }
            (Role::Responder, Verb::Prepare, Stage::Idle { .. } | Stage::Staged(_)) if self.current != Some(id) => {
                self.outputs.push_back(Output::Collect(id));
                Stage::Fetching
            }
            (Role::Responder, Verb::Switch, Stage::Staged(pending)) if pending.id == id => {
                self.outputs.push_back(Output::Apply(id, pending.key));
                Stage::Applying
            }
            (Role::Responder, Verb::Switch, stage) => {
                // Ours was lost, or we started anew since.
                let answer = if self.current == Some(id) { Verb::Done } else { Verb::Drop };
                self.tell(answer, id);
                stage
            }
            (_, verb, stage) => {
                self.outputs.push_back(Output::Happened(Happened::Stale(verb, id)));
                stage
            }
        };
    }

    fn abandon(&mut self, now: Time, id: KeyId, why: &'static str) {
        self.stage = Stage::Idle { next: now.after(RETRY_AFTER.min(self.interval)) };
        self.outputs.push_back(Output::Happened(Happened::Abandoned(id, why)));
    }

    fn tell(&mut self, verb: Verb, id: KeyId) {
        self.outputs.push_back(Output::Tell(verb, id));
    }
}

impl Pending {
    fn new(now: Time, id: KeyId, key: SecretBytes) -> Self {
        Self { id, key, until: now.after(PHASE_MAX), again: now.after(REPEAT_AFTER) }
    }
}

/// What may become a key: all its bits, and not all of them zero, which WireGuard takes for "no key".
fn is_key(key: &SecretBytes) -> bool {
    key.len() == KEY_BYTES && key.expose(|bits| bits.iter().any(|byte| *byte != 0))
}

const KEY_BYTES: usize = 32;
/// What is not answered is said again.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// How long one phase may take before the key is given up.
const PHASE_MAX: Duration = Duration::from_secs(15);
/// Wait before the next key after one was given up.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
