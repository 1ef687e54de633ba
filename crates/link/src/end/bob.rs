//! Bob's half of the protocol: he announces, corrects, and files what Alice committed.

use core::time::Duration;
use std::collections::BTreeMap;

use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagVerified};
use types::id::BlockSeq;
use types::quantum::{Detection, Intensity, ReceiverReading};
use types::units::{BitLen, Time};

use super::durable::{self, Pending, refill_len};
use super::shared::{Shared, Subject, split_output};
use super::{SecretBlock, in_flight_max};
use crate::amplify;
use crate::authenticate::piece_len;
use crate::bits::Bits;
use crate::distil::{self, Mode};
use crate::error::{Error, Misbehaviour};
use crate::estimate::{self, Distilled};
use crate::message::{Announcement, Estimate, Finish, Hello, Kind, Message, SiftAnswer, Step, Verdict};
use crate::proof::BlockCounts;
use crate::reconcile::Correction;
use crate::record::{AbortCause, Outcome};
use crate::sift::{Filling, Queue};
use crate::verify::{self, KeyHash, KeysAgree};

/// Bob's state beside what both roles have.
pub(super) struct Bob {
    phase: Phase,
    session: Option<u64>,
    queue: Queue,
    /// The block that takes detections.
    gathering: Option<Gathering>,
    /// Full blocks, each on its own.
    blocks: BTreeMap<BlockSeq, State>,
    /// A confirmed block whose fate only Alice knows.
    pending: Option<Pending>,
    /// Nothing is announced before this time: Alice refused.
    retry: Option<Time>,
    /// Shortest time from an announcement to its answer on this connection.
    round_trip: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Offline,
    Greeting,
    /// Waits for the fate of a block that was pending before the connection.
    Resolving,
    Online,
}

/// A block that fills.
struct Gathering {
    block: BlockSeq,
    filling: Filling,
    /// The frame that Alice has not answered yet.
    announced: Option<Announced>,
}

/// A frame on its way.
struct Announced {
    /// Its detections' slots are of this session, and no other one's.
    session: u64,
    frame: Vec<Detection>,
    left_at: Time,
}

/// A full block.
enum State {
    /// Waits for Alice's estimate.
    Estimating(Filling),
    Reconciling(Reconciling),
    Verifying(Verifying),
    Finishing(Finishing),
}

/// Bob's key as it was sifted, where the proof asks for its errors by intensity.
type Sifted = Option<(Bits, Vec<Intensity>)>;

/// Waits for parities.
struct Reconciling {
    counts: BlockCounts,
    distilled: Distilled,
    sifted: Sifted,
    correction: Correction,
}

/// Waits for the hash of Alice's key.
struct Verifying {
    counts: BlockCounts,
    distilled: Distilled,
    sifted: Sifted,
    key: Bits,
    parities: u64,
    corrected: u64,
}

/// Waits for `Finish`.
struct Finishing {
    counts: BlockCounts,
    distilled: Distilled,
    key: Bits,
    parities: u64,
    agree: KeysAgree,
}

impl Bob {
    pub(super) fn new(pending: Option<Pending>) -> Self {
        Self {
            phase: Phase::Offline,
            session: None,
            queue: Queue::default(),
            gathering: None,
            blocks: BTreeMap::new(),
            pending,
            retry: None,
            round_trip: None,
        }
    }

    pub(super) fn online(&self) -> bool {
        self.phase != Phase::Offline
    }

    pub(super) fn connect(&mut self, shared: &mut Shared, now: Time) {
        if self.online() {
            self.disconnect();
            shared.go_offline(AbortCause::ConnectionLost);
        }
        self.phase = Phase::Greeting;
        shared.greet(now, self.pending.as_ref().map(|pending| pending.record.block));
    }

    /// A frame under way is lost with the connection: Alice may have taken its slots, and no slot makes two bits.
    pub(super) fn disconnect(&mut self) {
        self.phase = Phase::Offline;
        self.gathering = None;
        self.blocks.clear();
        self.retry = None;
        self.round_trip = None;
    }

    pub(super) fn receive(&mut self, session: u64) {
        self.session = Some(session);
        self.queue.clear();
    }

    /// Judges a reading. Light received under a suspicion that leaves the proof's assumptions makes no key.
    pub(super) fn read(&mut self, shared: &mut Shared, reading: &ReceiverReading) {
        let alarms = shared.watch.receiver(reading);
        shared.alarm(alarms);
        if !shared.watch.trusts_light() {
            self.queue.forget_waiting();
            // A block that is pending stays: Alice may have committed it.
            for block in shared.in_progress() {
                shared.abort(block, AbortCause::Alarm);
            }
            self.gathering = None;
            self.blocks.clear();
        }
    }

    pub(super) fn detect(&mut self, shared: &Shared, detections: Vec<Detection>) -> Result<(), Error> {
        if self.session.is_none() {
            return Err(Error::ApiMisuse { what: "detections outside a session" });
        }
        if !self.queue.push(detections) {
            return Err(Error::ApiMisuse { what: "slots that do not ascend" });
        }
        if !shared.watch.trusts_light() {
            self.queue.forget_waiting();
        }
        Ok(())
    }

    pub(super) fn retry(&self) -> Option<Time> {
        self.retry.filter(|_| self.phase == Phase::Online)
    }

    /// Goes on by itself where it can: announces the next frame, if need be as the first of a new block.
    pub(super) fn advance(&mut self, shared: &mut Shared, now: Time) {
        let (Some(session), true) = (self.session, self.queue.len() > 0) else { return };
        if self.phase != Phase::Online || self.retry.is_some_and(|retry| now < retry) {
            return;
        }
        self.retry = None;
        if self.gathering.is_none() {
            let room = self.blocks.len() < in_flight_max(shared.config.decoy.block_bits);
            if !room || shared.sending.left() == 0 || shared.backlog() {
                return;
            }
            let block = shared.next_block;
            if shared.begin(block).is_err() {
                return;
            }
            let filling = Filling::new(shared.config.decoy.block_bits);
            self.gathering = Some(Gathering { block, filling, announced: None });
        }
        let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.announced.is_none()) else { return };
        let frame = self.queue.frame();
        let detections = frame.iter().map(|detection| (detection.slot, detection.basis)).collect();
        gathering.announced = Some(Announced { session, frame, left_at: now });
        shared.send(gathering.block, Step::Sift(Announcement { session, detections }));
        shared.await_answer(now, Subject::Block(gathering.block), "the answer to an announcement");
    }

    pub(super) fn handle(&mut self, shared: &mut Shared, now: Time, message: Message) -> Result<(), Error> {
        let out_of_turn = |got, state| Err(Misbehaviour::OutOfTurn { got, state }.into());
        match (self.phase, message) {
            (Phase::Greeting, Message::Hello(hello)) => self.greeted(shared, now, &hello),
            (Phase::Greeting, Message::OtherVersion(version)) => Err(Shared::other_version(version)),
            (Phase::Resolving | Phase::Online, Message::Verdict(verdict)) if self.pending.is_some() => {
                self.resolve(shared, &verdict)
            }
            (Phase::Online, Message::Block(block, step)) => self.step(shared, now, block, step),
            (Phase::Greeting, message) => out_of_turn(message.kind(), "greeting"),
            (Phase::Resolving, message) => out_of_turn(message.kind(), "waiting for a verdict"),
            (_, message) => out_of_turn(message.kind(), "online"),
        }
    }

    fn greeted(&mut self, shared: &mut Shared, now: Time, hello: &Hello) -> Result<(), Error> {
        shared.check_greeting(hello)?;
        shared.answered(Subject::Line);
        if self.pending.is_none() {
            self.phase = Phase::Online;
        } else {
            self.phase = Phase::Resolving;
            shared.await_answer(now, Subject::Verdict, "the verdict on a block");
        }
        Ok(())
    }

    fn step(&mut self, shared: &mut Shared, now: Time, block: BlockSeq, step: Step) -> Result<(), Error> {
        shared.answered(Subject::Block(block));
        let kind = step.kind();
        let step = match step {
            Step::SiftAnswer(answer) => return self.sifted(shared, now, block, &answer),
            Step::Refused { session } => return self.refused(now, block, session),
            Step::Abort { cause } => return self.aborted(shared, now, block, cause),
            step => step,
        };
        let next = match (self.blocks.remove(&block), step) {
            (Some(State::Estimating(filling)), Step::Estimate(estimate)) => {
                self.estimate(shared, now, block, filling, &estimate)?
            }
            (Some(State::Reconciling(state)), Step::Parities(parities)) => {
                state.correct(shared, now, block, &parities)?
            }
            (Some(State::Verifying(state)), Step::Verify(hash)) => match state.compare(shared, now, block, &hash) {
                Some(state) => state,
                None => return Ok(()),
            },
            (Some(State::Finishing(state)), Step::Finish(finish)) if self.pending.is_none() => {
                return self.finish(state, shared, now, block, &finish);
            }
            (Some(state), _) => return Err(Misbehaviour::OutOfTurn { got: kind, state: state.name() }.into()),
            (None, _) => return Err(Misbehaviour::OutOfTurn { got: kind, state: "not in this block" }.into()),
        };
        self.blocks.insert(block, next);
        Ok(())
    }

    fn sifted(&mut self, shared: &mut Shared, now: Time, block: BlockSeq, answer: &SiftAnswer) -> Result<(), Error> {
        let out_of_turn = Misbehaviour::OutOfTurn { got: Kind::SiftAnswer, state: "not sifting" };
        let gathering = self.gathering.as_mut().filter(|gathering| gathering.block == block).ok_or(out_of_turn)?;
        let Announced { session, frame, left_at } = gathering.announced.take().ok_or(out_of_turn)?;
        let round_trip = now.since(left_at);
        self.round_trip = Some(self.round_trip.map_or(round_trip, |shortest| shortest.min(round_trip)));
        let test = gathering.filling.learn(&frame, answer)?;
        if self.session == Some(session) {
            self.queue.give_back(&frame[answer.matched.len()..]);
        }
        shared.send(block, Step::TestBits(test));
        shared.note_filling(block, &gathering.filling, (self.queue.len() as u64, self.queue.dropped));
        if gathering.filling.full()
            && let Some(Gathering { filling, .. }) = self.gathering.take()
        {
            shared.await_answer(now, Subject::Block(block), "the estimate");
            self.blocks.insert(block, State::Estimating(filling));
        }
        Ok(())
    }

    /// Alice is in another session. A later one makes ours worthless; otherwise she will soon be told.
    fn refused(&mut self, now: Time, block: BlockSeq, theirs: Option<u64>) -> Result<(), Error> {
        let out_of_turn = Misbehaviour::OutOfTurn { got: Kind::Refused, state: "not sifting" };
        let gathering = self.gathering.as_mut().filter(|gathering| gathering.block == block).ok_or(out_of_turn)?;
        let announced = gathering.announced.take().ok_or(out_of_turn)?;
        if theirs > self.session {
            self.session = None;
            self.queue.clear();
        } else {
            self.take_back(&announced);
            self.retry = Some(now.after(RETRY));
        }
        Ok(())
    }

    /// A frame that Alice took nothing of waits again, unless its session has ended meanwhile: under the number of the
    /// next its slots would be ahead of all that is to come.
    fn take_back(&mut self, announced: &Announced) {
        if self.session == Some(announced.session) {
            self.queue.give_back(&announced.frame);
        }
    }

    /// Alice gives a block up. One that she did not even begin leaves its detections for later.
    fn aborted(&mut self, shared: &mut Shared, now: Time, block: BlockSeq, cause: AbortCause) -> Result<(), Error> {
        if self.pending.as_ref().is_some_and(|pending| pending.record.block == block) {
            return Err(Misbehaviour::Contradiction { field: "abort of a finished block" }.into());
        }
        if let Some(gathering) = self.gathering.take_if(|gathering| gathering.block == block) {
            if let (0, Some(announced)) = (estimate::sifted(&gathering.filling.counts), gathering.announced) {
                self.take_back(&announced);
            }
            self.retry = Some(now.after(RETRY));
        }
        self.blocks.remove(&block);
        shared.give_up(block, cause);
        Ok(())
    }

    /// Takes Alice's word for the errors of the test basis, which its tag will hold her to, and does what she chose.
    fn estimate(
        &self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        mut filling: Filling,
        estimate: &Estimate,
    ) -> Result<State, Error> {
        if estimate.test_errors.iter().zip(&filling.counts.test).any(|(errors, bits)| errors > bits) {
            return Err(Misbehaviour::Contradiction { field: "test errors" }.into());
        }
        filling.counts.test_errors = estimate.test_errors;
        let counts = filling.counts;
        let mode = estimate.mode;
        if estimate::choose_mode(&shared.config, &counts) != Some(mode) {
            return Err(Misbehaviour::Contradiction { field: "mode" }.into());
        }
        let alarms = shared.watch.block(&counts, estimate::promises_key(&shared.config, &counts));
        shared.alarm(alarms);
        let record = shared.record(block);
        (record.counts, record.mode) = (counts, mode);
        let mut key = core::mem::take(&mut filling.key);
        let asked = mode == Mode::OneWay && estimate::wants_key_errors(&shared.config);
        let sifted = asked.then(|| (key.clone(), core::mem::take(&mut filling.intensities)));
        match mode {
            Mode::AdvantageDistillation { group } => {
                let group = usize::try_from(group).expect("a group is small");
                key = distil::shuffled(&key, estimate.seed);
                let kept = distil::agreeing(&key, group, &estimate.differences)?;
                key = distil::first_bits(&key, group, &kept)?;
                shared.send(block, Step::Kept(kept));
                if key.is_empty() {
                    return Err(Misbehaviour::Contradiction { field: "differences" }.into());
                }
            }
            _ if !estimate.differences.is_empty() => {
                return Err(Misbehaviour::Contradiction { field: "differences" }.into());
            }
            _ => {}
        }
        let distilled = Distilled { mode, bits: key.len() as u64 };
        let qber_ppm = estimate::expected_qber_ppm(&counts, shared.last_errors, mode);
        let correction = Correction::new(
            &key,
            estimate.seed,
            qber_ppm,
            shared.config.reconciliation,
            self.round_trip.unwrap_or_default(),
        );
        Reconciling { counts, distilled, sifted, correction }.ask(shared, now, block)
    }

    /// Checks everything that Alice says of the block, makes its output and holds it.
    fn finish(
        &mut self,
        state: Finishing,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        finish: &Finish,
    ) -> Result<(), Error> {
        let verified = shared.check_finish(block, finish)?;
        let Finishing { counts, distilled, key, parities, agree } = state;
        let wrong = |field| Err(Misbehaviour::Contradiction { field }.into());
        if finish.counts != counts {
            return wrong("counts");
        }
        if finish.leak != estimate::leak(&shared.config, distilled.bits, parities).0 {
            return wrong("leak");
        }
        let allowed = estimate::secret_bits(&shared.config, &counts, distilled, parities);
        if allowed.is_none_or(|allowed| finish.secret_bits > allowed) {
            return wrong("key length");
        }
        let secret_bytes = usize::try_from(finish.secret_bits / 8).expect("at most what the proof allowed");
        if refill_len(finish.refill) >= secret_bytes {
            return wrong("refill");
        }
        if finish.seed.len() != amplify::seed_len(key.len(), 8 * secret_bytes) {
            return wrong("seed length");
        }
        if shared.sending.left() == 0 {
            return Err(Error::Exhausted { what: "authentication key" });
        }
        let output = amplify(&key, &finish.seed, secret_bytes, agree);
        self.hold(shared, now, block, finish, output, verified);
        Ok(())
    }

    /// Makes the block durable as undecided, then confirms it.
    fn hold(
        &mut self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        finish: &Finish,
        output: SecretBytes,
        _verified: TagVerified,
    ) {
        shared.note_spent(block);
        let counter = shared.sending.marks().next;
        let tag: Tag = shared.tag_confirm(block, counter);
        shared.receiving.spend(finish.counter + 1);
        shared.sending.spend(counter + 1);
        let keep_from = shared.sending.marks().next;
        let mut changes = shared.sending.destroy_spent(&shared.config.link, keep_from);
        let mut record = shared.take_record(block);
        record.secret = BitLen(8 * output.len() as u64);
        record.kept = BitLen(8 * refill_len(finish.refill) as u64);
        let pending = Pending { record, refill: finish.refill, output };
        changes.push(shared.state_change(None, None));
        changes.push(durable::put_pending(&shared.config.link, &pending));
        shared.persist(changes);
        self.pending = Some(pending);
        shared.send_when_durable(Message::Block(block, Step::Confirm { counter, tag }).encode());
        shared.await_answer(now, Subject::Verdict, "the verdict on a block");
    }

    /// Files or drops the block that waits for this verdict.
    fn resolve(&mut self, shared: &mut Shared, verdict: &Verdict) -> Result<(), Error> {
        let _verified: TagVerified = shared.check_verdict(verdict)?;
        let pending = self.pending.take().expect("a verdict is taken only for a block that is held");
        let block = pending.record.block;
        if verdict.up_to < block {
            self.pending = Some(pending);
            return Err(Misbehaviour::Contradiction { field: "verdict" }.into());
        }
        shared.answered(Subject::Verdict);
        self.phase = Phase::Online;
        let link = shared.config.link.clone();
        shared.receiving.spend(verdict.counter + 1);
        let keep_from = shared.receiving.marks().next;
        let mut changes = shared.receiving.destroy_spent(&link, keep_from);
        if verdict.committed == Some(block) {
            let ([theirs, ours], key) = split_output(pending.output, pending.refill.map(piece_len));
            changes.extend(shared.receiving.append(&link, theirs));
            changes.extend(shared.sending.append(&link, ours));
            let record = crate::record::BlockRecord { outcome: Outcome::Filed, ..pending.record };
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
        Ok(())
    }
}

impl Reconciling {
    fn correct(mut self, shared: &mut Shared, now: Time, block: BlockSeq, parities: &Bits) -> Result<State, Error> {
        self.correction.take(parities)?;
        shared.record(block).leak = BitLen(self.correction.disclosed());
        self.ask(shared, now, block)
    }

    /// Asks on, or says that all is asked.
    fn ask(mut self, shared: &mut Shared, now: Time, block: BlockSeq) -> Result<State, Error> {
        if let Some(question) = self.correction.question()? {
            shared.send(block, Step::Ask(question));
            shared.await_answer(now, Subject::Block(block), "parities");
            return Ok(State::Reconciling(self));
        }
        let parities = self.correction.disclosed();
        let corrected = self.correction.corrected();
        shared.send(block, Step::Corrected { parities });
        shared.await_answer(now, Subject::Block(block), "the hash of Alice's key");
        let key = self.correction.finish();
        let Self { counts, distilled, sifted, .. } = self;
        Ok(State::Verifying(Verifying { counts, distilled, sifted, key, parities, corrected }))
    }
}

impl Verifying {
    /// `None` if the keys differ: the block is given up.
    fn compare(self, shared: &mut Shared, now: Time, block: BlockSeq, hash: &KeyHash) -> Option<State> {
        let Self { mut counts, distilled, sifted, key, parities, corrected } = self;
        let agree = verify::compare(&key, hash, shared.config.security.epsilon_correctness);
        // A number of corrections beyond the block's bits means that bits went back and forth; it stays in bounds.
        let corrected = corrected.min(key.len() as u64);
        let key_errors = sifted.map(|(before, intensities)| errors_by_intensity(&before, &key, &intensities));
        let key_errors = key_errors.filter(|_| agree.is_some());
        shared.send(block, Step::Verified { equal: agree.is_some(), corrected, key_errors });
        let Some(agree) = agree else {
            shared.give_up(block, AbortCause::VerificationFailed);
            return None;
        };
        counts.key_errors = key_errors;
        shared.note_corrected(block, &counts, distilled, corrected, parities);
        shared.await_answer(now, Subject::Block(block), "the end of the block");
        Some(State::Finishing(Finishing { counts, distilled, key, parities, agree }))
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Estimating(_) => "waiting for the estimate",
            Self::Reconciling(_) => "reconciling",
            Self::Verifying(_) => "verifying",
            Self::Finishing(_) => "waiting for the end of a block",
        }
    }
}

/// Privacy amplification of a key that was compared.
fn amplify(key: &Bits, seed: &Bits, secret_bytes: usize, _agree: KeysAgree) -> SecretBytes {
    let output = amplify::toeplitz(key, seed, 8 * secret_bytes);
    SecretBytes::from_vec(core::mem::take(&mut *output.to_bytes()))
}

/// Bits that reconciliation changed, by the intensity of their pulse.
fn errors_by_intensity(before: &Bits, after: &Bits, intensities: &[Intensity]) -> [u64; Intensity::COUNT] {
    let mut errors = [0; Intensity::COUNT];
    for (at, intensity) in intensities.iter().enumerate() {
        errors[intensity.index()] += u64::from(before.get(at) != after.get(at));
    }
    errors
}

/// How long Bob waits after a refusal.
const RETRY: Duration = Duration::from_secs(1);
