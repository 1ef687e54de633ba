//! Alice's half of the protocol: she answers, decides and commits.

use crypto::tag::{Tag, TagVerified};
use rand_core::CryptoRng;
use types::id::BlockSeq;
use types::quantum::{Intensity, Slot};
use types::units::{BitLen, Time};

use super::SecretBlock;
use super::durable::{self, refill_len};
use super::shared::{Shared, split_output};
use crate::amplify;
use crate::authenticate::{piece_len, refill};
use crate::bits::Bits;
use crate::error::{Error, Misbehaviour};
use crate::estimate;
use crate::message::{Announcement, Finish, Hello, Message, Verdict};
use crate::reconcile::cascade::{Answerer, Question};
use crate::record::{AbortCause, Outcome};
use crate::sift::{Filling, Preparations};
use crate::verify::{KeyHash, KeysAgree};

/// Alice's state beside what both roles have.
pub(super) struct Alice {
    state: State,
    session: Option<Session>,
    /// The last block whose `Finish` may have left, and the counter kept for its verdict.
    finished: Option<(BlockSeq, u64)>,
    committed: Option<BlockSeq>,
}

struct Session {
    number: u64,
    source: Box<dyn Preparations>,
    /// The last slot taken: no slot makes two bits.
    last: Option<Slot>,
}

enum State {
    Offline,
    Greeting,
    Idle,
    Sifting(Sifting),
    Counting(Counting),
    Reconciling(Reconciling),
    Verifying(Verifying),
    Confirming(Confirming),
}

/// Counters of the tags that will end the block.
#[derive(Clone, Copy)]
struct Counters {
    ours: u64,
    theirs: u64,
}

/// Waits for an announcement.
struct Sifting {
    counters: Counters,
    filling: Filling,
}

/// Waits for the test bits of a frame.
struct Counting {
    counters: Counters,
    filling: Filling,
    expected: Vec<(bool, Intensity)>,
}

/// Answers questions.
struct Reconciling {
    counters: Counters,
    filling: Filling,
    answerer: Answerer,
}

/// Waits for Bob's comparison.
struct Verifying {
    counters: Counters,
    filling: Filling,
    parities: u64,
}

/// Waits for Bob's tag; holds what becomes key.
struct Confirming {
    counters: Counters,
    key: Bits,
    seed: Bits,
    secret_bytes: usize,
    refill: [u64; 2],
}

impl Alice {
    pub(super) fn new(finished: Option<(BlockSeq, u64)>, committed: Option<BlockSeq>) -> Self {
        Self { state: State::Offline, session: None, finished, committed }
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
        shared.greet(now, None);
    }

    pub(super) fn disconnect(&mut self) {
        self.state = State::Offline;
    }

    pub(super) fn transmit(&mut self, number: u64, source: Box<dyn Preparations>) {
        self.session = Some(Session { number, source, last: None });
    }

    pub(super) fn handle(
        &mut self,
        shared: &mut Shared,
        now: Time,
        message: Message,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        shared.await_nothing();
        let state = core::mem::replace(&mut self.state, State::Offline);
        let name = state.name();
        self.state = match (state, message) {
            (State::Greeting, Message::Hello(hello)) => self.greeted(shared, &hello)?,
            (State::Greeting, Message::OtherVersion(version)) => return Err(Shared::other_version(version)),
            (State::Idle, Message::Open { block, counter }) => Self::open(shared, block, counter)?,
            (State::Sifting(state), Message::Sift(announcement)) => self.sift(state, shared, now, &announcement)?,
            (State::Counting(state), Message::TestBits(bits)) => state.count(shared, now, &bits, rng)?,
            (State::Reconciling(state), Message::Ask(question)) => state.answer(shared, now, &question)?,
            (State::Reconciling(state), Message::Corrected { parities }) => state.verify(shared, now, parities, rng)?,
            (State::Verifying(state), Message::Verified { equal, corrected }) => {
                match KeysAgree::by_word_of_bob(equal) {
                    Some(agree) => self.finish(state, shared, now, corrected, agree, rng)?,
                    None => give_up(shared, AbortCause::VerificationFailed, false),
                }
            }
            (State::Confirming(state), Message::Confirm { tag }) => self.confirm(state, shared, &tag)?,
            (_, message) => return Err(Misbehaviour::OutOfTurn { got: message.kind(), state: name }.into()),
        };
        Ok(())
    }

    /// Tells Bob the fate of a block that he holds.
    fn greeted(&mut self, shared: &mut Shared, hello: &Hello) -> Result<State, Error> {
        shared.check_greeting(hello)?;
        if let Some(pending) = hello.pending {
            match self.finished {
                Some((up_to, counter)) if up_to >= pending => self.give_verdict(shared, up_to, counter),
                _ => return Err(Misbehaviour::Contradiction { field: "pending block" }.into()),
            }
        }
        Ok(State::Idle)
    }

    fn give_verdict(&self, shared: &mut Shared, up_to: BlockSeq, counter: u64) {
        let verdict = Verdict { up_to, committed: self.committed, counter, tag: Tag([0; Tag::LEN]) };
        let verdict = shared.tag_verdict(verdict);
        shared.send_when_durable(Message::Verdict(verdict).encode());
    }

    fn open(shared: &mut Shared, block: BlockSeq, theirs: u64) -> Result<State, Error> {
        if block < shared.next_block {
            return Err(Misbehaviour::Contradiction { field: "block number" }.into());
        }
        shared.agree_on_number(block)?;
        shared.receiving.usable(theirs)?;
        // Two tags: `Finish`, and the verdict that must be possible whatever happens after.
        let refusal = match (shared.sending.left() >= 2, shared.backlog()) {
            (false, _) => Some(AbortCause::ReserveEmpty),
            (_, true) => Some(AbortCause::Backlog),
            _ => None,
        };
        if let Some(cause) = refusal {
            return Ok(give_up(shared, cause, true));
        }
        let ours = shared.sending.marks().next;
        shared.send(&Message::Opened { block, counter: ours });
        shared.begin(block, [ours, theirs])?;
        let filling = Filling::new(shared.config.decoy.block_bits);
        Ok(State::Sifting(Sifting { counters: Counters { ours, theirs }, filling }))
    }

    fn sift(
        &mut self,
        mut state: Sifting,
        shared: &mut Shared,
        now: Time,
        announcement: &Announcement,
    ) -> Result<State, Error> {
        let session = match &mut self.session {
            Some(session) if session.number == announcement.session => session,
            other => {
                let session = other.as_ref().map(|session| session.number);
                shared.send(&Message::Refused { session });
                return Ok(State::Sifting(state));
            }
        };
        let Some((first, _)) = announcement.detections.first() else {
            return Err(Misbehaviour::Contradiction { field: "empty announcement" }.into());
        };
        if session.last.is_some_and(|last| *first <= last) {
            return Err(Misbehaviour::Contradiction { field: "slot announced before" }.into());
        }
        let (answer, expected) = state.filling.answer(announcement, session.source.as_ref());
        let taken = answer.matched.len();
        let last_taken = taken.checked_sub(1).and_then(|at| announcement.detections.get(at)).map(|(slot, _)| *slot);
        session.last = last_taken.or(session.last);
        shared.send(&Message::SiftAnswer(answer));
        shared.await_answer(now, "test bits");
        Ok(State::Counting(Counting { counters: state.counters, filling: state.filling, expected }))
    }

    /// Sends counts, length, seed and tag; the tag's counter is durable first.
    fn finish(
        &mut self,
        state: Verifying,
        shared: &mut Shared,
        now: Time,
        corrected: u64,
        _agree: KeysAgree,
        rng: &mut impl CryptoRng,
    ) -> Result<State, Error> {
        let counts = state.filling.counts;
        let sifted: u64 = counts.key.iter().sum();
        if corrected > sifted {
            return Err(Misbehaviour::Contradiction { field: "corrected bits" }.into());
        }
        shared.last_errors = Some((corrected, sifted));
        let leak = estimate::leak(&shared.config, &counts, state.parities);
        let record = shared.record();
        (record.corrected, record.leak) = (corrected, leak);
        let Some(secret_bits) = estimate::secret_bits(&shared.config, &counts, state.parities) else {
            return Ok(give_up(shared, AbortCause::NoKey, true));
        };
        let Counters { ours, theirs } = state.counters;
        let block = shared.record().block;
        let secret_bytes = usize::try_from(secret_bits / 8).expect("a block's length fits a usize");
        // Left after this block: Alice's two tags and Bob's one are gone then.
        let left = [shared.sending.marks().end - (ours + 2), shared.receiving.marks().end - (theirs + 1)];
        let refill = refill(left, secret_bytes);
        // The key is fixed and agreed: now, and only now, the seed is drawn.
        let seed = random_bits(amplify::seed_len(state.filling.key.len(), 8 * secret_bytes), rng);
        shared.sending.spend(ours + 2);
        let mut changes = shared.sending.destroy_spent(&shared.config.link, ours + 1);
        self.finished = Some((block, ours + 1));
        changes.push(shared.state_change(self.finished, self.committed));
        shared.persist(changes);
        shared.note_spent();
        let finish = Finish { counts, leak: leak.0, secret_bits, refill, seed: seed.clone(), tag: Tag([0; Tag::LEN]) };
        shared.tag_finish(finish, ours);
        shared.await_answer(now, "Bob's tag");
        let key = state.filling.key;
        Ok(State::Confirming(Confirming { counters: state.counters, key, seed, secret_bytes, refill }))
    }

    fn confirm(&mut self, state: Confirming, shared: &mut Shared, tag: &Tag) -> Result<State, Error> {
        let verified = shared.check_confirm(tag, state.counters.theirs)?;
        self.commit(state, shared, verified);
        Ok(State::Idle)
    }

    /// From the moment that these changes are durable the block is key.
    fn commit(&mut self, state: Confirming, shared: &mut Shared, _verified: TagVerified) {
        let output = amplify::toeplitz(&state.key, &state.seed, 8 * state.secret_bytes);
        let output = crypto::secret::SecretBytes::from_vec(core::mem::take(&mut *output.to_bytes()));
        let link = shared.config.link.clone();
        shared.receiving.spend(state.counters.theirs + 1);
        let keep_from = shared.receiving.marks().next;
        let mut changes = shared.receiving.destroy_spent(&link, keep_from);
        let lengths = state.refill.map(piece_len);
        let ([ours, theirs], key) = split_output(output, lengths);
        changes.extend(shared.sending.append(&link, ours));
        changes.extend(shared.receiving.append(&link, theirs));
        let mut record = shared.block.take().expect("the block to commit is in progress").record;
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

impl Counting {
    fn count(
        mut self,
        shared: &mut Shared,
        now: Time,
        theirs: &Bits,
        rng: &mut impl CryptoRng,
    ) -> Result<State, Error> {
        self.filling.count_errors(&self.expected, theirs)?;
        shared.note_filling(&self.filling, (0, 0));
        if !self.filling.full() {
            return Ok(State::Sifting(Sifting { counters: self.counters, filling: self.filling }));
        }
        // A block that would give nothing even if reconciliation were free is not worth its disclosures.
        if estimate::secret_bits(&shared.config, &self.filling.counts, 0).is_none() {
            return Ok(give_up(shared, AbortCause::NoKey, true));
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        shared.send(&Message::Estimate { test_errors: self.filling.counts.test_errors, seed });
        shared.await_answer(now, "questions");
        let answerer = Answerer::new(&self.filling.key, seed);
        Ok(State::Reconciling(Reconciling { counters: self.counters, filling: self.filling, answerer }))
    }
}

impl Reconciling {
    fn answer(mut self, shared: &mut Shared, now: Time, question: &Question) -> Result<State, Error> {
        let parities = self.answerer.answer(question)?;
        shared.record().leak = BitLen(self.answerer.disclosed() as u64);
        shared.send(&Message::Parities(parities));
        shared.await_answer(now, "questions");
        Ok(State::Reconciling(self))
    }

    fn verify(self, shared: &mut Shared, now: Time, parities: u64, rng: &mut impl CryptoRng) -> Result<State, Error> {
        if parities != self.answerer.disclosed() as u64 {
            return Err(Misbehaviour::Contradiction { field: "number of parities" }.into());
        }
        let epsilon = shared.config.security.epsilon_correctness;
        shared.send(&Message::Verify(KeyHash::draw(&self.filling.key, epsilon, rng)));
        shared.await_answer(now, "the comparison");
        Ok(State::Verifying(Verifying { counters: self.counters, filling: self.filling, parities }))
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Greeting => "greeting",
            Self::Idle => "idle",
            Self::Sifting(_) => "sifting",
            Self::Counting(_) => "waiting for test bits",
            Self::Reconciling(_) => "reconciling",
            Self::Verifying(_) => "verifying",
            Self::Confirming(_) => "waiting for Bob's tag",
        }
    }
}

/// Ends the block without key; tells Bob unless he knows.
fn give_up(shared: &mut Shared, cause: AbortCause, tell: bool) -> State {
    if tell {
        shared.send(&Message::Abort { cause });
    }
    shared.abort(cause);
    State::Idle
}

fn random_bits(len: usize, rng: &mut impl CryptoRng) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    rng.fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).expect("as many bytes as the bits need")
}
