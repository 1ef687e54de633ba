//! Bob's half of the protocol: he announces, corrects, and files what Alice committed.

use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagVerified};
use types::id::BlockSeq;
use types::quantum::Detection;
use types::units::{BitLen, Time};

use super::SecretBlock;
use super::durable::{self, Pending, refill_len};
use super::shared::{Shared, split_output};
use crate::amplify;
use crate::authenticate::piece_len;
use crate::bits::Bits;
use crate::error::{Error, Misbehaviour};
use crate::estimate;
use crate::message::{Announcement, Finish, Hello, Message, SiftAnswer, Verdict};
use crate::reconcile::cascade::Corrector;
use crate::record::{AbortCause, BlockRecord, Outcome};
use crate::sift::{Filling, Queue};
use crate::verify::{self, KeyHash, KeysAgree};

/// Bob's state beside what both roles have.
pub(super) struct Bob {
    state: State,
    session: Option<u64>,
    queue: Queue,
    /// A confirmed block whose fate only Alice knows.
    pending: Option<Pending>,
    /// Nothing is announced before this time: Alice refused.
    retry: Option<Time>,
}

enum State {
    Offline,
    Greeting,
    Resolving,
    Idle,
    Opening(Opening),
    Gathering(Gathering),
    Announced(Announced),
    Estimating(Gathering),
    Reconciling(Reconciling),
    Verifying(Verifying),
    Finishing(Finishing),
    Committing,
}

/// Waits for Alice to agree to a block.
struct Opening {
    block: BlockSeq,
    counter: u64,
}

/// Counters of the tags that will end the block.
#[derive(Clone, Copy)]
struct Counters {
    ours: u64,
    theirs: u64,
}

/// Waits for detections, or, with a full block, for Alice's estimate.
struct Gathering {
    counters: Counters,
    filling: Filling,
}

/// Waits for the answer to a frame.
struct Announced {
    counters: Counters,
    filling: Filling,
    frame: Vec<Detection>,
}

/// Waits for parities.
struct Reconciling {
    counters: Counters,
    filling: Filling,
    corrector: Corrector,
}

/// Waits for the hash of Alice's key.
struct Verifying {
    counters: Counters,
    filling: Filling,
    key: Bits,
    parities: u64,
    corrected: u64,
}

/// Waits for `Finish`.
struct Finishing {
    counters: Counters,
    filling: Filling,
    key: Bits,
    parities: u64,
    agree: KeysAgree,
}

impl Bob {
    pub(super) fn new(pending: Option<Pending>) -> Self {
        Self { state: State::Offline, session: None, queue: Queue::default(), pending, retry: None }
    }

    pub(super) fn online(&self) -> bool {
        !matches!(self.state, State::Offline)
    }

    pub(super) fn connect(&mut self, shared: &mut Shared, now: Time) {
        if self.online() {
            self.disconnect();
            shared.go_offline(AbortCause::ConnectionLost);
        }
        self.state = State::Greeting;
        self.retry = None;
        shared.greet(now, self.pending.as_ref().map(|pending| pending.record.block));
    }

    /// A frame under way is lost with the connection: Alice may have taken its slots, and no slot makes two bits.
    pub(super) fn disconnect(&mut self) {
        self.state = State::Offline;
        self.retry = None;
    }

    pub(super) fn receive(&mut self, session: u64) {
        self.session = Some(session);
        self.queue.clear();
    }

    pub(super) fn detect(&mut self, detections: Vec<Detection>) -> Result<(), Error> {
        if self.session.is_none() {
            return Err(Error::ApiMisuse { what: "detections outside a session" });
        }
        if self.queue.push(detections) { Ok(()) } else { Err(Error::ApiMisuse { what: "slots that do not ascend" }) }
    }

    pub(super) fn retry(&self) -> Option<Time> {
        self.retry.filter(|_| matches!(self.state, State::Idle | State::Gathering(_)))
    }

    /// Goes on by itself where it can: opens a block, announces a frame.
    pub(super) fn advance(&mut self, shared: &mut Shared, now: Time) {
        let (Some(session), true) = (self.session, self.queue.len() > 0) else { return };
        if self.retry.is_some_and(|retry| now < retry) {
            return;
        }
        self.retry = None;
        self.state = match core::mem::replace(&mut self.state, State::Offline) {
            State::Idle if shared.sending.left() > 0 && !shared.backlog() => {
                let (block, counter) = (shared.next_block, shared.sending.marks().next);
                shared.send(&Message::Open { block, counter });
                shared.await_answer(now, "agreement to a block");
                State::Opening(Opening { block, counter })
            }
            State::Gathering(state) => {
                let frame = self.queue.frame();
                let detections = frame.iter().map(|detection| (detection.slot, detection.basis)).collect();
                shared.send(&Message::Sift(Announcement { session, detections }));
                shared.await_answer(now, "the answer to an announcement");
                State::Announced(Announced { counters: state.counters, filling: state.filling, frame })
            }
            other => other,
        };
    }

    pub(super) fn handle(&mut self, shared: &mut Shared, now: Time, message: Message) -> Result<(), Error> {
        shared.await_nothing();
        let state = core::mem::replace(&mut self.state, State::Offline);
        let name = state.name();
        self.state = match (state, message) {
            (State::Greeting, Message::Hello(hello)) => self.greeted(shared, now, &hello)?,
            (State::Greeting, Message::OtherVersion(version)) => return Err(Shared::other_version(version)),
            (State::Resolving | State::Committing, Message::Verdict(verdict)) => self.resolve(shared, &verdict)?,
            (State::Opening(state), Message::Opened { block, counter }) => state.opened(shared, block, counter)?,
            (State::Opening(state), Message::Abort { cause }) => {
                let record = BlockRecord::begin(state.block, shared.config.proof, shared.config.security);
                shared.report_aborted(record, cause);
                self.retry = Some(now.after(RETRY));
                State::Idle
            }
            (State::Announced(state), Message::SiftAnswer(answer)) => self.sifted(state, shared, now, &answer)?,
            (State::Announced(state), Message::Refused { session }) => self.refused(state, now, session),
            (State::Estimating(state), Message::Estimate { test_errors, seed }) => {
                state.estimate(shared, now, test_errors, seed)?
            }
            (State::Reconciling(state), Message::Parities(parities)) => state.correct(shared, now, &parities)?,
            (State::Verifying(state), Message::Verify(hash)) => state.compare(shared, now, &hash),
            (State::Finishing(state), Message::Finish(finish)) => self.finish(state, shared, now, &finish)?,
            (State::Estimating(_) | State::Finishing(_), Message::Abort { cause }) => {
                shared.abort(cause);
                State::Idle
            }
            (_, message) => return Err(Misbehaviour::OutOfTurn { got: message.kind(), state: name }.into()),
        };
        Ok(())
    }

    fn greeted(&mut self, shared: &mut Shared, now: Time, hello: &Hello) -> Result<State, Error> {
        shared.check_greeting(hello)?;
        if self.pending.is_none() {
            return Ok(State::Idle);
        }
        shared.await_answer(now, "the verdict on a block");
        Ok(State::Resolving)
    }

    fn sifted(
        &mut self,
        mut state: Announced,
        shared: &mut Shared,
        now: Time,
        answer: &SiftAnswer,
    ) -> Result<State, Error> {
        let test = state.filling.learn(&state.frame, answer)?;
        self.queue.give_back(&state.frame[answer.matched.len()..]);
        shared.send(&Message::TestBits(test));
        shared.note_filling(&state.filling, (self.queue.len() as u64, self.queue.dropped));
        let gathering = Gathering { counters: state.counters, filling: state.filling };
        if gathering.filling.full() {
            shared.await_answer(now, "the estimate");
            return Ok(State::Estimating(gathering));
        }
        Ok(State::Gathering(gathering))
    }

    /// Alice is in another session. A later one makes ours worthless; otherwise she will soon be told.
    fn refused(&mut self, state: Announced, now: Time, theirs: Option<u64>) -> State {
        if theirs > self.session {
            self.session = None;
            self.queue.clear();
        } else {
            self.queue.give_back(&state.frame);
            self.retry = Some(now.after(RETRY));
        }
        State::Gathering(Gathering { counters: state.counters, filling: state.filling })
    }

    /// Checks everything that Alice says of the block, makes its output and holds it.
    fn finish(&mut self, state: Finishing, shared: &mut Shared, now: Time, finish: &Finish) -> Result<State, Error> {
        let verified = shared.check_finish(finish, state.counters.theirs)?;
        let wrong = |field| Err(Misbehaviour::Contradiction { field }.into());
        let counts = state.filling.counts;
        if finish.counts != counts {
            return wrong("counts");
        }
        if finish.leak != estimate::leak(&shared.config, &counts, state.parities).0 {
            return wrong("leak");
        }
        let allowed = estimate::secret_bits(&shared.config, &counts, state.parities);
        if allowed.is_none_or(|allowed| finish.secret_bits > allowed) {
            return wrong("key length");
        }
        let secret_bytes = usize::try_from(finish.secret_bits / 8).expect("at most what the proof allowed");
        if refill_len(finish.refill) >= secret_bytes {
            return wrong("refill");
        }
        if finish.seed.len() != amplify::seed_len(state.key.len(), 8 * secret_bytes) {
            return wrong("seed length");
        }
        let output = amplify(&state.key, &finish.seed, secret_bytes, state.agree);
        Ok(self.hold(shared, now, state.counters, finish, output, verified))
    }

    /// Makes the block durable as undecided, then confirms it.
    fn hold(
        &mut self,
        shared: &mut Shared,
        now: Time,
        counters: Counters,
        finish: &Finish,
        output: SecretBytes,
        _verified: TagVerified,
    ) -> State {
        shared.note_spent();
        let tag: Tag = shared.tag_confirm(counters.ours);
        shared.receiving.spend(counters.theirs + 1);
        shared.sending.spend(counters.ours + 1);
        let keep_from = shared.sending.marks().next;
        let mut changes = shared.sending.destroy_spent(&shared.config.link, keep_from);
        let mut record = shared.block.take().expect("the block to hold is in progress").record;
        record.secret = BitLen(8 * output.len() as u64);
        record.kept = BitLen(8 * refill_len(finish.refill) as u64);
        let pending = Pending { record, refill: finish.refill, output };
        changes.push(shared.state_change(None, None));
        changes.push(durable::put_pending(&shared.config.link, &pending));
        shared.persist(changes);
        self.pending = Some(pending);
        shared.send_when_durable(Message::Confirm { tag }.encode());
        shared.await_answer(now, "the verdict on a block");
        State::Committing
    }

    /// Files or drops the block that waits for this verdict.
    fn resolve(&mut self, shared: &mut Shared, verdict: &Verdict) -> Result<State, Error> {
        let _verified: TagVerified = shared.check_verdict(verdict)?;
        let pending = self.pending.take().expect("a verdict is awaited only for a block that is held");
        let block = pending.record.block;
        if verdict.up_to < block {
            self.pending = Some(pending);
            return Err(Misbehaviour::Contradiction { field: "verdict" }.into());
        }
        let link = shared.config.link.clone();
        shared.receiving.spend(verdict.counter + 1);
        let keep_from = shared.receiving.marks().next;
        let mut changes = shared.receiving.destroy_spent(&link, keep_from);
        if verdict.committed == Some(block) {
            let ([theirs, ours], key) = split_output(pending.output, pending.refill.map(piece_len));
            changes.extend(shared.receiving.append(&link, theirs));
            changes.extend(shared.sending.append(&link, ours));
            let record = BlockRecord { outcome: Outcome::Filed, ..pending.record };
            let block = SecretBlock { seq: block, key, record };
            changes.push(shared.state_change(None, None));
            changes.push(durable::put_committed(&link, &block));
            shared.persist(changes);
            shared.hand_over(block);
        } else {
            changes.push(shared.state_change(None, None));
            changes.push(durable::delete_block(&link, block));
            shared.persist(changes);
            shared.report_aborted(pending.record, AbortCause::NotCommitted);
        }
        Ok(State::Idle)
    }
}

impl Opening {
    fn opened(self, shared: &mut Shared, block: BlockSeq, theirs: u64) -> Result<State, Error> {
        if block != self.block {
            return Err(Misbehaviour::Contradiction { field: "block number" }.into());
        }
        shared.receiving.usable(theirs)?;
        shared.receiving.usable(theirs.saturating_add(1))?;
        shared.begin(block, [theirs, self.counter])?;
        let counters = Counters { ours: self.counter, theirs };
        Ok(State::Gathering(Gathering { counters, filling: Filling::new(shared.config.decoy.block_bits) }))
    }
}

impl Gathering {
    fn estimate(
        mut self,
        shared: &mut Shared,
        now: Time,
        test_errors: [u64; 3],
        seed: [u8; 32],
    ) -> Result<State, Error> {
        if test_errors.iter().zip(&self.filling.counts.test).any(|(errors, bits)| errors > bits) {
            return Err(Misbehaviour::Contradiction { field: "test errors" }.into());
        }
        self.filling.counts.test_errors = test_errors;
        shared.record().counts = self.filling.counts;
        let qber_ppm = estimate::expected_qber_ppm(&self.filling.counts, shared.last_errors);
        let key = core::mem::take(&mut self.filling.key);
        let corrector = Corrector::new(&key, seed, qber_ppm);
        Reconciling { counters: self.counters, filling: self.filling, corrector }.ask(shared, now)
    }
}

impl Reconciling {
    fn correct(mut self, shared: &mut Shared, now: Time, parities: &Bits) -> Result<State, Error> {
        self.corrector.take(parities)?;
        shared.record().leak = BitLen(self.corrector.disclosed() as u64);
        self.ask(shared, now)
    }

    /// Asks on, or says that all is asked.
    fn ask(mut self, shared: &mut Shared, now: Time) -> Result<State, Error> {
        if let Some(question) = self.corrector.question()? {
            shared.send(&Message::Ask(question));
            shared.await_answer(now, "parities");
            return Ok(State::Reconciling(self));
        }
        let parities = self.corrector.disclosed() as u64;
        let corrected = self.corrector.corrected() as u64;
        shared.send(&Message::Corrected { parities });
        shared.await_answer(now, "the hash of Alice's key");
        let key = self.corrector.finish();
        Ok(State::Verifying(Verifying { counters: self.counters, filling: self.filling, key, parities, corrected }))
    }
}

impl Verifying {
    fn compare(self, shared: &mut Shared, now: Time, hash: &KeyHash) -> State {
        let agree = verify::compare(&self.key, hash, shared.config.security.epsilon_correctness);
        // A number of corrections beyond the block's bits means that bits went back and forth; it stays in bounds.
        let corrected = self.corrected.min(self.key.len() as u64);
        shared.record().corrected = corrected;
        shared.record().leak = estimate::leak(&shared.config, &self.filling.counts, self.parities);
        shared.send(&Message::Verified { equal: agree.is_some(), corrected });
        match agree {
            Some(agree) => {
                shared.last_errors = Some((corrected, self.key.len() as u64));
                shared.await_answer(now, "the end of the block");
                let Self { counters, filling, key, parities, .. } = self;
                State::Finishing(Finishing { counters, filling, key, parities, agree })
            }
            None => {
                shared.abort(AbortCause::VerificationFailed);
                State::Idle
            }
        }
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Greeting => "greeting",
            Self::Resolving => "waiting for a verdict",
            Self::Idle => "idle",
            Self::Opening(_) => "opening a block",
            Self::Gathering(_) => "gathering detections",
            Self::Announced(_) => "sifting",
            Self::Estimating(_) => "waiting for the estimate",
            Self::Reconciling(_) => "reconciling",
            Self::Verifying(_) => "verifying",
            Self::Finishing(_) => "waiting for the end of a block",
            Self::Committing => "committing",
        }
    }
}

/// Privacy amplification of a key that was compared.
fn amplify(key: &Bits, seed: &Bits, secret_bytes: usize, _agree: KeysAgree) -> SecretBytes {
    let output = amplify::toeplitz(key, seed, 8 * secret_bytes);
    SecretBytes::from_vec(core::mem::take(&mut *output.to_bytes()))
}

/// How long Bob waits after a refusal.
const RETRY: core::time::Duration = core::time::Duration::from_secs(1);
