//! Alice's half of the protocol: she answers, decides and commits.

use std::collections::BTreeMap;

use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagVerified};
use rand_core::CryptoRng;
use types::id::BlockSeq;
use types::quantum::{Intensity, Slot, TransmitterReading};
use types::units::{BitLen, Time};

use super::durable::{self, refill_len};
use super::shared::{Shared, Subject, split_output};
use super::{SecretBlock, in_flight_max};
use crate::amplify;
use crate::authenticate::{piece_len, refill};
use crate::bits::Bits;
use crate::distil::{self, Mode};
use crate::error::{Error, Misbehaviour};
use crate::estimate::{self, Distilled};
use crate::message::{Announcement, Estimate, Finish, Hello, Kind, Message, Step, Verdict};
use crate::proof::BlockCounts;
use crate::reconcile::{Answers, Question};
use crate::record::{AbortCause, Outcome};
use crate::sift::{Filling, Preparations};
use crate::verify::{KeyHash, KeysAgree};

/// Alice's state beside what both roles have.
pub(super) struct Alice {
    phase: Phase,
    session: Option<Session>,
    /// The block that takes detections.
    gathering: Option<Gathering>,
    /// Full blocks, each on its own.
    blocks: BTreeMap<BlockSeq, State>,
    /// The block whose `Finish` left.
    closing: Option<Confirming>,
    /// The last block whose `Finish` may have left, and the counter kept for its verdict.
    finished: Option<(BlockSeq, u64)>,
    committed: Option<BlockSeq>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Offline,
    Greeting,
    Online,
}

struct Session {
    number: u64,
    source: Box<dyn Preparations>,
    /// The last slot taken: no slot makes two bits.
    last: Option<Slot>,
}

/// A block that fills.
struct Gathering {
    block: BlockSeq,
    filling: Filling,
    /// Our bits and intensities of the test-basis slots whose test bits Bob owes.
    owed: Option<Vec<(bool, Intensity)>>,
}

/// A full block.
enum State {
    Distilling(Distilling),
    Reconciling(Reconciling),
    Verifying(Verifying),
    /// Waits for the blocks before it.
    Agreed(Agreed),
}

/// Waits for the groups that Bob keeps.
struct Distilling {
    counts: BlockCounts,
    key: Bits,
    group: u32,
    seed: [u8; 32],
}

/// Answers questions.
struct Reconciling {
    counts: BlockCounts,
    key: Bits,
    mode: Mode,
    answers: Answers,
}

/// Waits for Bob's comparison.
struct Verifying {
    counts: BlockCounts,
    key: Bits,
    mode: Mode,
    parities: u64,
}

struct Agreed {
    counts: BlockCounts,
    key: Bits,
    distilled: Distilled,
    parities: u64,
    agree: KeysAgree,
}

/// Waits for Bob's tag; holds what becomes key.
struct Confirming {
    block: BlockSeq,
    key: Bits,
    seed: Bits,
    secret_bytes: usize,
    refill: [u64; 2],
}

impl Alice {
    pub(super) fn new(finished: Option<(BlockSeq, u64)>, committed: Option<BlockSeq>) -> Self {
        Self {
            phase: Phase::Offline,
            session: None,
            gathering: None,
            blocks: BTreeMap::new(),
            closing: None,
            finished,
            committed,
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
        shared.greet(now, None);
    }

    pub(super) fn disconnect(&mut self) {
        self.phase = Phase::Offline;
        self.forget_blocks();
    }

    fn forget_blocks(&mut self) {
        self.gathering = None;
        self.blocks.clear();
        self.closing = None;
    }

    pub(super) fn transmit(&mut self, number: u64, source: Box<dyn Preparations>) {
        self.session = Some(Session { number, source, last: None });
    }

    /// Judges a reading; light that came in while the transmitter was watched by somebody makes no key.
    pub(super) fn read(&mut self, shared: &mut Shared, reading: &TransmitterReading) {
        let alarm = shared.watch.transmitter(reading);
        shared.alarm(alarm);
        if !shared.watch.trusts_light() {
            // A block that is being closed stays: Bob may hold it already.
            let closing = self.closing.as_ref().map(|closing| closing.block);
            for block in shared.in_progress().into_iter().filter(|block| Some(*block) != closing) {
                shared.abort(block, AbortCause::Alarm);
            }
            self.gathering = None;
            self.blocks.clear();
        }
    }

    pub(super) fn handle(
        &mut self,
        shared: &mut Shared,
        now: Time,
        message: Message,
        wire: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        let out_of_turn = |got, state| Err(Misbehaviour::OutOfTurn { got, state }.into());
        match (self.phase, message) {
            (Phase::Greeting, Message::Hello(hello)) => self.greeted(shared, &hello),
            (Phase::Greeting, Message::OtherVersion(version)) => Err(Shared::other_version(version)),
            (Phase::Online, Message::Block(block, Step::Sift(announcement))) => {
                self.announced(shared, now, block, &announcement, wire)
            }
            (Phase::Online, Message::Block(block, step)) => self.step(shared, now, block, step, rng),
            (Phase::Greeting, message) => out_of_turn(message.kind(), "greeting"),
            (_, message) => out_of_turn(message.kind(), "online"),
        }
    }

    /// Tells Bob the fate of a block that he holds.
    fn greeted(&mut self, shared: &mut Shared, hello: &Hello) -> Result<(), Error> {
        shared.check_greeting(hello)?;
        if let Some(pending) = hello.pending {
            match self.finished {
                Some((up_to, counter)) if up_to >= pending => self.give_verdict(shared, up_to, counter),
                _ => return Err(Misbehaviour::Contradiction { field: "pending block" }.into()),
            }
        }
        shared.answered(Subject::Line);
        self.phase = Phase::Online;
        Ok(())
    }

    fn give_verdict(&self, shared: &mut Shared, up_to: BlockSeq, counter: u64) {
        let verdict = Verdict { up_to, committed: self.committed, counter, tag: Tag([0; Tag::LEN]) };
        let verdict = shared.tag_verdict(verdict);
        shared.send_when_durable(Message::Verdict(verdict).encode());
    }

    /// Begins a block with its first announcement; `false` if it is refused.
    fn begin(&mut self, shared: &mut Shared, block: BlockSeq, wire: &[u8]) -> Result<bool, Error> {
        if block < shared.next_block {
            return Err(Misbehaviour::Contradiction { field: "block number" }.into());
        }
        let limit = in_flight_max(shared.config.decoy.block_bits);
        if self.blocks.len() >= limit {
            return Err(Misbehaviour::Limit { what: "blocks in flight", limit }.into());
        }
        shared.agree_on_number(block)?;
        shared.begin(block)?;
        shared.received(block, wire, Kind::Sift);
        // Two tags: `Finish`, and the verdict that must be possible whatever happens after.
        let refusal = match (shared.sending.left() >= 2, shared.backlog(), shared.watch.trusts_light()) {
            (false, ..) => Some(AbortCause::ReserveEmpty),
            (_, true, _) => Some(AbortCause::Backlog),
            (.., false) => Some(AbortCause::Alarm),
            _ => None,
        };
        match refusal {
            Some(cause) => shared.abort(block, cause),
            None => {
                let filling = Filling::new(shared.config.decoy.block_bits);
                self.gathering = Some(Gathering { block, filling, owed: None });
            }
        }
        Ok(refusal.is_none())
    }

    fn announced(
        &mut self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        announcement: &Announcement,
        wire: &[u8],
    ) -> Result<(), Error> {
        if self.gathering.is_none() && !self.begin(shared, block, wire)? {
            return Ok(());
        }
        let gathering =
            self.gathering.as_mut().filter(|gathering| gathering.block == block && gathering.owed.is_none());
        let out_of_turn = Misbehaviour::OutOfTurn { got: Kind::Sift, state: "sifting" };
        let gathering = gathering.ok_or(out_of_turn)?;
        let session = match &mut self.session {
            Some(session) if session.number == announcement.session => session,
            other => {
                let session = other.as_ref().map(|session| session.number);
                shared.send(block, Step::Refused { session });
                return Ok(());
            }
        };
        let Some((first, _)) = announcement.detections.first() else {
            return Err(Misbehaviour::Contradiction { field: "empty announcement" }.into());
        };
        if session.last.is_some_and(|last| *first <= last) {
            return Err(Misbehaviour::Contradiction { field: "slot announced before" }.into());
        }
        let (answer, expected) = gathering.filling.answer(announcement, session.source.as_ref());
        let taken = answer.matched.len();
        let last_taken = taken.checked_sub(1).and_then(|at| announcement.detections.get(at)).map(|(slot, _)| *slot);
        session.last = last_taken.or(session.last);
        gathering.owed = Some(expected);
        shared.send(block, Step::SiftAnswer(answer));
        shared.await_answer(now, Subject::Block(block), "test bits");
        Ok(())
    }

    /// Every step but announcements.
    fn step(
        &mut self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        step: Step,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        shared.answered(Subject::Block(block));
        let kind = step.kind();
        if let Step::Abort { cause } = step {
            self.aborted(shared, block, cause);
            return Ok(());
        }
        if let Step::TestBits(bits) = &step {
            return self.count(shared, now, block, bits, rng);
        }
        if let Step::Confirm { counter, tag } = &step {
            let closing = self.closing.take_if(|closing| closing.block == block);
            let closing = closing.ok_or(Misbehaviour::OutOfTurn { got: kind, state: "not closing this block" })?;
            let verified = shared.check_confirm(block, *counter, tag)?;
            self.commit(closing, shared, *counter, verified);
            return self.close_next(shared, now, rng);
        }
        let state = self.blocks.remove(&block);
        let next = match (state, step) {
            (Some(State::Distilling(state)), Step::Kept(kept)) => state.keep(shared, now, block, &kept)?,
            (Some(State::Reconciling(state)), Step::Ask(question)) => {
                State::Reconciling(state.answer(shared, now, block, &question)?)
            }
            (Some(State::Reconciling(state)), Step::Corrected { parities }) => {
                State::Verifying(state.verify(shared, now, block, parities, rng)?)
            }
            (Some(State::Verifying(state)), Step::Verified { equal, corrected, key_errors }) => {
                let Some(agree) = KeysAgree::by_word_of_bob(equal) else {
                    shared.give_up(block, AbortCause::VerificationFailed);
                    return self.close_next(shared, now, rng);
                };
                self.blocks.insert(block, State::Agreed(state.agreed(shared, block, (corrected, key_errors), agree)?));
                return self.close_next(shared, now, rng);
            }
            (Some(state), _) => return Err(Misbehaviour::OutOfTurn { got: kind, state: state.name() }.into()),
            (None, _) => return Err(Misbehaviour::OutOfTurn { got: kind, state: "not in this block" }.into()),
        };
        self.blocks.insert(block, next);
        Ok(())
    }

    /// Bob gives a block up, perhaps while `Finish` is on its way to him: he ignores it then. Should somebody else have
    /// said it after Bob's tag, Alice has not committed and the verdict of the next connection tells him so.
    fn aborted(&mut self, shared: &mut Shared, block: BlockSeq, cause: AbortCause) {
        self.gathering.take_if(|gathering| gathering.block == block);
        self.closing.take_if(|closing| closing.block == block);
        self.blocks.remove(&block);
        shared.give_up(block, cause);
    }

    /// Counts errors of the test basis; a full block goes its own way.
    fn count(
        &mut self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        theirs: &Bits,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        let out_of_turn = Misbehaviour::OutOfTurn { got: Kind::TestBits, state: "not sifting" };
        let gathering = self.gathering.as_mut().filter(|gathering| gathering.block == block).ok_or(out_of_turn)?;
        let ours = gathering.owed.take().ok_or(out_of_turn)?;
        gathering.filling.count_errors(&ours, theirs)?;
        shared.note_filling(block, &gathering.filling, (0, 0));
        if !gathering.filling.full() {
            return Ok(());
        }
        let Some(Gathering { filling, .. }) = self.gathering.take() else { return Ok(()) };
        let counts = filling.counts;
        let mode = estimate::choose_mode(&shared.config, &counts);
        let alarms = shared.watch.block(&counts, estimate::promises_key(&shared.config, &counts));
        shared.alarm(alarms);
        let Some(mode) = mode else {
            shared.abort(block, AbortCause::NoKey);
            return Ok(());
        };
        shared.record(block).mode = mode;
        let state = self.estimated(shared, block, mode, filling, rng);
        shared.await_answer(now, Subject::Block(block), "questions");
        self.blocks.insert(block, state);
        Ok(())
    }

    /// Tells Bob how the block goes on.
    fn estimated(
        &mut self,
        shared: &mut Shared,
        block: BlockSeq,
        mode: Mode,
        filling: Filling,
        rng: &mut impl CryptoRng,
    ) -> State {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let Filling { mut key, counts, .. } = filling;
        let mut estimate = Estimate { test_errors: counts.test_errors, mode, seed, differences: Bits::default() };
        match mode {
            Mode::OneWay => {}
            Mode::NoisyPreprocessing { flip_ppm } => distil::add_noise(&mut key, flip_ppm, rng),
            Mode::AdvantageDistillation { group } => {
                let len = usize::try_from(group).expect("a group is small");
                key = distil::shuffled(&key, seed);
                estimate.differences = distil::differences(&key, len);
                shared.send(block, Step::Estimate(Box::new(estimate)));
                return State::Distilling(Distilling { counts, key, group, seed });
            }
        }
        shared.send(block, Step::Estimate(Box::new(estimate)));
        let answers = Answers::new(&key, seed);
        State::Reconciling(Reconciling { counts, key, mode, answers })
    }

    /// Finishes the first block if it is agreed on and none is being closed.
    fn close_next(&mut self, shared: &mut Shared, now: Time, rng: &mut impl CryptoRng) -> Result<(), Error> {
        while self.closing.is_none()
            && let Some((block, State::Agreed(_))) = self.blocks.first_key_value()
        {
            let block = *block;
            let Some(State::Agreed(state)) = self.blocks.remove(&block) else { return Ok(()) };
            self.finish(state, shared, now, block, rng);
        }
        Ok(())
    }

    /// Sends counts, length, seed and tag; the tag's counter is durable first.
    fn finish(&mut self, state: Agreed, shared: &mut Shared, now: Time, block: BlockSeq, rng: &mut impl CryptoRng) {
        let Agreed { counts, key, distilled, parities, agree: _agree } = state;
        let leak = estimate::leak(&shared.config, distilled.bits, parities);
        let Some(secret_bits) = estimate::secret_bits(&shared.config, &counts, distilled, parities) else {
            return shared.abort(block, AbortCause::NoKey);
        };
        if shared.sending.left() < 2 || shared.receiving.left() < 1 {
            return shared.abort(block, AbortCause::ReserveEmpty);
        }
        let counter = shared.sending.marks().next;
        let secret_bytes = usize::try_from(secret_bits / 8).expect("a block's length fits a usize");
        // Left after this block: Alice's two tags and Bob's one are gone then.
        let refill = refill([shared.sending.left() - 2, shared.receiving.left() - 1], secret_bytes);
        // The key is fixed and agreed: now, and only now, the seed is drawn.
        let seed = random_bits(amplify::seed_len(key.len(), 8 * secret_bytes), rng);
        shared.sending.spend(counter + 2);
        let mut changes = shared.sending.destroy_spent(&shared.config.link, counter + 1);
        self.finished = Some((block, counter + 1));
        changes.push(shared.state_change(self.finished, self.committed));
        shared.persist(changes);
        shared.note_spent(block);
        let (leak, tag) = (leak.0, Tag([0; Tag::LEN]));
        shared.tag_finish(block, Finish { counts, leak, secret_bits, refill, counter, seed: seed.clone(), tag });
        shared.await_answer(now, Subject::Block(block), "Bob's tag");
        self.closing = Some(Confirming { block, key, seed, secret_bytes, refill });
    }

    /// From the moment that these changes are durable the block is key.
    fn commit(&mut self, state: Confirming, shared: &mut Shared, theirs: u64, _verified: TagVerified) {
        let output = amplify::toeplitz(&state.key, &state.seed, 8 * state.secret_bytes);
        let output = SecretBytes::from_vec(core::mem::take(&mut *output.to_bytes()));
        let link = shared.config.link.clone();
        shared.receiving.spend(theirs + 1);
        let keep_from = shared.receiving.marks().next;
        let mut changes = shared.receiving.destroy_spent(&link, keep_from);
        let lengths = state.refill.map(piece_len);
        let ([ours, theirs], key) = split_output(output, lengths);
        changes.extend(shared.sending.append(&link, ours));
        changes.extend(shared.receiving.append(&link, theirs));
        let mut record = shared.take_record(state.block);
        record.kept = BitLen(8 * u64::try_from(refill_len(state.refill)).expect("a refill is small"));
        record.secret = BitLen(8 * u64::try_from(state.secret_bytes).expect("a length fits 64 bits"));
        record.outcome = Outcome::Filed;
        let block = SecretBlock { seq: record.block, key, record };
        self.committed = Some(block.seq);
        changes.push(shared.state_change(self.finished, self.committed));
        changes.push(durable::put_committed(&link, &block));
        shared.persist(changes);
        let (up_to, counter) = self.finished.expect("a block is finished before it is committed");
        assert_eq!(up_to, block.seq, "the verdict speaks of the block just committed");
        shared.hand_over(block);
        self.give_verdict(shared, up_to, counter);
    }
}

impl Distilling {
    fn keep(self, shared: &mut Shared, now: Time, block: BlockSeq, kept: &Bits) -> Result<State, Error> {
        let Self { counts, key, group, seed } = self;
        let key = distil::first_bits(&key, usize::try_from(group).expect("a group is small"), kept)?;
        if key.is_empty() {
            return Err(Misbehaviour::Contradiction { field: "kept groups" }.into());
        }
        shared.await_answer(now, Subject::Block(block), "questions");
        let answers = Answers::new(&key, seed);
        Ok(State::Reconciling(Reconciling { counts, key, mode: Mode::AdvantageDistillation { group }, answers }))
    }
}

impl Reconciling {
    fn answer(mut self, shared: &mut Shared, now: Time, block: BlockSeq, question: &Question) -> Result<Self, Error> {
        let parities = self.answers.answer(question)?;
        shared.record(block).leak = BitLen(self.answers.disclosed());
        shared.send(block, Step::Parities(parities));
        shared.await_answer(now, Subject::Block(block), "questions");
        Ok(self)
    }

    fn verify(
        self,
        shared: &mut Shared,
        now: Time,
        block: BlockSeq,
        parities: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Verifying, Error> {
        if parities != self.answers.disclosed() {
            return Err(Misbehaviour::Contradiction { field: "number of parities" }.into());
        }
        let epsilon = shared.config.security.epsilon_correctness;
        shared.send(block, Step::Verify(KeyHash::draw(&self.key, epsilon, rng)));
        shared.await_answer(now, Subject::Block(block), "the comparison");
        Ok(Verifying { counts: self.counts, key: self.key, mode: self.mode, parities })
    }
}

impl Verifying {
    fn agreed(
        self,
        shared: &mut Shared,
        block: BlockSeq,
        (corrected, key_errors): (u64, Option<[u64; Intensity::COUNT]>),
        agree: KeysAgree,
    ) -> Result<Agreed, Error> {
        let Self { mut counts, key, mode, parities } = self;
        let distilled = Distilled { mode, bits: key.len() as u64 };
        if corrected > distilled.bits {
            return Err(Misbehaviour::Contradiction { field: "corrected bits" }.into());
        }
        let asked = mode == Mode::OneWay && estimate::wants_key_errors(&shared.config);
        let possible = key_errors.is_none_or(|errors| errors.iter().zip(counts.key).all(|(errors, n)| *errors <= n));
        if asked != key_errors.is_some() || !possible {
            return Err(Misbehaviour::Contradiction { field: "key errors" }.into());
        }
        counts.key_errors = key_errors;
        shared.note_corrected(block, &counts, distilled, corrected, parities);
        Ok(Agreed { counts, key, distilled, parities, agree })
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Distilling(_) => "waiting for the groups that Bob keeps",
            Self::Reconciling(_) => "reconciling",
            Self::Verifying(_) => "verifying",
            Self::Agreed(_) => "waiting to finish",
        }
    }
}

fn random_bits(len: usize, rng: &mut impl CryptoRng) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    rng.fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).expect("as many bytes as the bits need")
}
