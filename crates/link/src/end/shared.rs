//! What both roles have: outputs and their order, authentication key, records and transcripts of the blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::domain::Domain;
use crypto::hash::labelled;
use crypto::record::Change;
use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagHasher, TagVerified};
use types::codec::Writer;
use types::id::BlockSeq;
use types::quantum::Role;
use types::units::{BitLen, Time};

use super::durable::{self, State};
use super::{LinkConfig, Output, Progress, SecretBlock};
use crate::authenticate::{SPENT_BITS, Stream, role_number};
use crate::distil::Mode;
use crate::error::{Error, Misbehaviour};
use crate::estimate::{self, Distilled};
use crate::message::{Finish, Hello, Kind, Message, PROTOCOL_VERSION, Step, Verdict};
use crate::proof::BlockCounts;
use crate::record::{AbortCause, BlockRecord, Outcome};
use crate::sift::Filling;
use crate::watch::{Alarm, Watch};

/// State of an end that does not depend on its role.
pub(super) struct Shared {
    pub(super) config: LinkConfig,
    pub(super) sending: Stream,
    pub(super) receiving: Stream,
    pub(super) next_block: BlockSeq,
    /// Errors and bits of the last block corrected without distillation.
    pub(super) last_errors: Option<(u64, u64)>,
    pub(super) watch: Watch,
    /// The blocks in progress.
    blocks: BTreeMap<BlockSeq, Block>,
    /// Blocks given up lately: the other end may not have heard of it.
    given_up: VecDeque<BlockSeq>,
    outputs: VecDeque<Output>,
    /// Outputs that wait for a persist request to be durable.
    held: VecDeque<(u64, Output)>,
    persisted: u64,
    durable: u64,
    unfiled: BTreeSet<BlockSeq>,
    waits: BTreeMap<Subject, (Time, &'static str)>,
}

/// What an awaited answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The line: greetings.
    Line,
    /// A block.
    Block(BlockSeq),
    /// The verdict on the block that Bob holds.
    Verdict,
}

/// Record and transcript of a block in progress.
struct Block {
    record: BlockRecord,
    /// Everything said about it so far, each message with its sender and length.
    transcript: Vec<u8>,
}

impl Shared {
    pub(super) fn new(config: LinkConfig, streams: [Stream; 2], next_block: BlockSeq) -> Self {
        let [alice, bob] = streams;
        let (sending, receiving) = match config.role {
            Role::Alice => (alice, bob),
            Role::Bob => (bob, alice),
        };
        Self {
            watch: Watch::new(&config.decoy),
            config,
            sending,
            receiving,
            next_block,
            last_errors: None,
            blocks: BTreeMap::new(),
            given_up: VecDeque::new(),
            outputs: VecDeque::new(),
            held: VecDeque::new(),
            persisted: 0,
            durable: 0,
            unfiled: BTreeSet::new(),
            waits: BTreeMap::new(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // --- Sending, and the order of disk and wire.

    /// Sends a step of a block now; it must say nothing that is not durable.
    pub(super) fn send(&mut self, block: BlockSeq, step: Step) {
        let wire = Message::Block(block, step).encode();
        self.absorb(block, self.config.role, &wire);
        self.outputs.push_back(Output::Send(wire));
    }

    /// Sends bytes once everything persisted so far is durable.
    pub(super) fn send_when_durable(&mut self, wire: Vec<u8>) {
        self.hold(Output::Send(wire));
    }

    /// Emits an output once everything persisted so far is durable.
    fn hold(&mut self, output: Output) {
        if self.durable >= self.persisted && self.held.is_empty() {
            self.outputs.push_back(output);
        } else {
            self.held.push_back((self.persisted, output));
        }
    }

    pub(super) fn persist(&mut self, changes: Vec<Change>) {
        self.persisted += 1;
        self.outputs.push_back(Output::Persist { seq: self.persisted, changes });
    }

    /// Hands a committed block over once its record is durable.
    pub(super) fn hand_over(&mut self, block: SecretBlock) {
        self.unfiled.insert(block.seq);
        self.hold(Output::Block(block));
    }

    pub(super) fn durable(&mut self, seq: u64) {
        assert!(seq <= self.persisted, "only what was asked for becomes durable");
        self.durable = self.durable.max(seq);
        while let Some((needed, _)) = self.held.front()
            && *needed <= self.durable
            && let Some((_, output)) = self.held.pop_front()
        {
            self.outputs.push_back(output);
        }
    }

    pub(super) fn filed(&mut self, block: BlockSeq) {
        if self.unfiled.remove(&block) {
            self.persist(vec![durable::delete_block(&self.config.link, block)]);
        }
    }

    pub(super) fn backlog(&self) -> bool {
        self.unfiled.len() >= UNFILED_MAX
    }

    /// The change that makes counters and block numbers durable.
    pub(super) fn state_change(&self, finished: Option<(BlockSeq, u64)>, committed: Option<BlockSeq>) -> Change {
        let marks = match self.config.role {
            Role::Alice => [self.sending.marks(), self.receiving.marks()],
            Role::Bob => [self.receiving.marks(), self.sending.marks()],
        };
        State { next_block: self.next_block, marks, finished, committed }.to_change(&self.config.link)
    }

    // --- Time.

    pub(super) fn await_answer(&mut self, now: Time, subject: Subject, awaited: &'static str) {
        self.waits.insert(subject, (now.after(self.config.peer_timeout), awaited));
    }

    pub(super) fn answered(&mut self, subject: Subject) {
        self.waits.remove(&subject);
    }

    pub(super) fn overdue(&mut self, now: Time) -> Option<&'static str> {
        self.waits.values().find(|(deadline, _)| now >= *deadline).map(|(_, awaited)| *awaited)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.waits.values().map(|(deadline, _)| *deadline).min()
    }

    // --- The connection.

    pub(super) fn greet(&mut self, now: Time, pending: Option<BlockSeq>) {
        let hello = Hello { pending, ..self.outline() };
        self.outputs.push_back(Output::Send(Message::Hello(hello).encode()));
        self.await_answer(now, Subject::Line, "the greeting");
    }

    /// Our settings as a greeting states them.
    fn outline(&self) -> Hello {
        let decoy = &self.config.decoy;
        let mut w = Writer::new();
        for number in [decoy.key_basis].iter().chain(&decoy.intensities).chain(&decoy.probabilities) {
            w.u64(number.to_bits());
        }
        let decoy = labelled(Domain::LinkControl, &[&w.finish()]);
        let mut w = Writer::new();
        w.u64(self.config.security.epsilon_secrecy.to_bits()).u64(self.config.security.epsilon_correctness.to_bits());
        let security = labelled(Domain::LinkControl, &[&w.finish()]);
        Hello {
            link: self.config.link.as_str().to_owned(),
            role: self.config.role,
            block_bits: self.config.decoy.block_bits,
            decoy,
            security,
            proof: self.config.proof.name().to_owned(),
            beyond_one_way: format!("{:?}", self.config.beyond_one_way),
            next_block: self.next_block,
            pending: None,
        }
    }

    /// Compares the other end's settings with ours and agrees on the next block's number.
    pub(super) fn check_greeting(&mut self, theirs: &Hello) -> Result<(), Error> {
        let ours = self.outline();
        let hex = |digest: &[u8; 32]| digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        let role = |role: Role| format!("{role:?}");
        let settings: [(&'static str, String, String); 7] = [
            ("link id", ours.link.clone(), theirs.link.clone()),
            ("role", role(opposite(ours.role)), role(theirs.role)),
            ("block size", ours.block_bits.to_string(), theirs.block_bits.to_string()),
            ("proof", ours.proof.clone(), theirs.proof.clone()),
            ("beyond one-way", ours.beyond_one_way.clone(), theirs.beyond_one_way.clone()),
            ("decoy settings", hex(&ours.decoy), hex(&theirs.decoy)),
            ("security parameters", hex(&ours.security), hex(&theirs.security)),
        ];
        for (field, ours, theirs) in settings {
            if ours != theirs {
                return Err(Error::Mismatch { field, ours, theirs });
            }
        }
        self.agree_on_number(theirs.next_block)
    }

    /// Numbers only go up, and not by leaps: a forged greeting must not use them up.
    pub(super) fn agree_on_number(&mut self, theirs: BlockSeq) -> Result<(), Error> {
        if theirs.0 > self.next_block.0.saturating_add(BLOCK_LEAP_MAX) {
            return Err(Misbehaviour::Contradiction { field: "block number" }.into());
        }
        self.next_block = self.next_block.max(theirs);
        Ok(())
    }

    pub(super) fn other_version(version: u16) -> Error {
        let (ours, theirs) = (PROTOCOL_VERSION.to_string(), version.to_string());
        Error::Mismatch { field: "protocol version", ours, theirs }
    }

    pub(super) fn go_offline(&mut self, cause: AbortCause) {
        self.waits.clear();
        // Messages of the lost connection are void; blocks are not.
        self.held.retain(|(_, output)| !matches!(output, Output::Send(_)));
        while let Some(block) = self.blocks.keys().next().copied() {
            self.give_up(block, cause);
        }
        self.given_up.clear();
    }

    // --- The blocks in progress.

    /// Begins a block.
    pub(super) fn begin(&mut self, block: BlockSeq) -> Result<(), Error> {
        let next = block.0.checked_add(1).ok_or(Error::Exhausted { what: "block numbers" })?;
        self.next_block = BlockSeq(next);
        let record = BlockRecord::begin(block, self.config.proof, self.config.security);
        self.blocks.insert(block, Block { record, transcript: Vec::new() });
        Ok(())
    }

    /// Notes what sifting counted.
    pub(super) fn note_filling(&mut self, block: BlockSeq, filling: &Filling, progress: (u64, u64)) {
        let (queued, dropped) = progress;
        let record = self.record(block);
        record.counts = filling.counts;
        record.slots = filling.slots.len();
        self.outputs.push_back(Output::Progress(Progress {
            sifted: filling.counts.key.iter().sum(),
            block_bits: u64::from(self.config.decoy.block_bits),
            in_flight: self.blocks.len() as u64,
            last_errors: self.last_errors,
            queued,
            dropped,
            tags_left: self.sending.left(),
        }));
    }

    /// Gives a block up here.
    pub(super) fn give_up(&mut self, block: BlockSeq, cause: AbortCause) {
        self.answered(Subject::Block(block));
        if let Some(Block { record, .. }) = self.blocks.remove(&block) {
            self.given_up.push_back(block);
            if self.given_up.len() > GIVEN_UP_MAX {
                self.given_up.pop_front();
            }
            self.report_aborted(record, cause);
        }
    }

    /// Gives a block up and tells the other end.
    pub(super) fn abort(&mut self, block: BlockSeq, cause: AbortCause) {
        self.send(block, Step::Abort { cause });
        self.give_up(block, cause);
    }

    pub(super) fn report_aborted(&mut self, mut record: BlockRecord, cause: AbortCause) {
        record.outcome = Outcome::Aborted(cause);
        record.secret = BitLen(0);
        record.kept = BitLen(0);
        self.outputs.push_back(Output::Aborted(Box::new(record)));
    }

    /// Whether the other end may still speak of a block that was given up here.
    pub(super) fn was_given_up(&self, block: BlockSeq) -> bool {
        self.given_up.contains(&block)
    }

    pub(super) fn record(&mut self, block: BlockSeq) -> &mut BlockRecord {
        &mut self.blocks.get_mut(&block).expect("a block whose record is asked for is in progress").record
    }

    /// Notes what reconciliation did.
    pub(super) fn note_corrected(
        &mut self,
        block: BlockSeq,
        counts: &BlockCounts,
        distilled: Distilled,
        corrected: u64,
        parities: u64,
    ) {
        if distilled.mode == Mode::OneWay {
            self.last_errors = Some((corrected, distilled.bits));
        }
        let leak = estimate::leak(&self.config, distilled.bits, parities);
        let record = self.record(block);
        (record.mode, record.distilled) = (distilled.mode, BitLen(distilled.bits));
        (record.counts, record.corrected, record.leak) = (*counts, corrected, leak);
    }

    /// A finished block leaves those in progress.
    pub(super) fn take_record(&mut self, block: BlockSeq) -> BlockRecord {
        self.answered(Subject::Block(block));
        self.blocks.remove(&block).expect("a block that ends is in progress").record
    }

    pub(super) fn in_progress(&self) -> Vec<BlockSeq> {
        self.blocks.keys().copied().collect()
    }

    // --- Alarms.

    pub(super) fn alarm(&mut self, alarms: impl IntoIterator<Item = Alarm>) {
        self.outputs.extend(alarms.into_iter().map(Output::Alarm));
    }

    // --- Tags.

    /// What came from the other end belongs to the transcript; a tagged message is added by its handler.
    pub(super) fn received(&mut self, block: BlockSeq, wire: &[u8], kind: Kind) {
        if !matches!(kind, Kind::Finish | Kind::Confirm) {
            self.absorb(block, opposite(self.config.role), wire);
        }
    }

    /// Adds a message to its block's transcript.
    fn absorb(&mut self, block: BlockSeq, from: Role, wire: &[u8]) {
        let Some(block) = self.blocks.get_mut(&block) else { return };
        block.transcript.push(role_number(from));
        block.transcript.extend_from_slice(&(wire.len() as u64).to_be_bytes());
        block.transcript.extend_from_slice(wire);
    }

    /// Alice: sends `Finish` with the tag of its counter once the counter is durable.
    pub(super) fn tag_finish(&mut self, block: BlockSeq, mut finish: Finish) {
        let untagged = Message::Block(block, Step::Finish(Box::new(finish.clone()))).encode();
        self.absorb(block, Role::Alice, without_tag(&untagged));
        let hasher = self.transcript_hasher(block, Role::Alice, finish.counter).expect("the counter was found usable");
        finish.tag = hasher.tag(self.sending.pad(finish.counter).expect("the counter was found usable"));
        self.send_when_durable(Message::Block(block, Step::Finish(Box::new(finish))).encode());
    }

    /// Bob: checks the tag of `Finish`.
    pub(super) fn check_finish(&mut self, block: BlockSeq, finish: &Finish) -> Result<TagVerified, Error> {
        let counter = finish.counter;
        self.receiving.usable(counter)?;
        // The verdict's tag follows.
        self.receiving.usable(counter.saturating_add(1))?;
        let wire = Message::Block(block, Step::Finish(Box::new(finish.clone()))).encode();
        self.absorb(block, Role::Alice, without_tag(&wire));
        self.check_transcript(block, Role::Alice, counter, &finish.tag, "Finish")
    }

    /// Bob: his tag over the transcript.
    pub(super) fn tag_confirm(&mut self, block: BlockSeq, counter: u64) -> Tag {
        let hasher = self.transcript_hasher(block, Role::Bob, counter).expect("the counter was found usable");
        hasher.tag(self.sending.pad(counter).expect("the counter was found usable"))
    }

    /// Alice: checks Bob's tag over the transcript.
    pub(super) fn check_confirm(&mut self, block: BlockSeq, counter: u64, tag: &Tag) -> Result<TagVerified, Error> {
        self.receiving.usable(counter)?;
        self.check_transcript(block, Role::Bob, counter, tag, "Confirm")
    }

    fn check_transcript(
        &mut self,
        block: BlockSeq,
        from: Role,
        counter: u64,
        tag: &Tag,
        what: &'static str,
    ) -> Result<TagVerified, Error> {
        let missing = Misbehaviour::TagCounter { counter };
        let hasher = self.transcript_hasher(block, from, counter).ok_or(missing)?;
        let pad = self.receiving.pad(counter).ok_or(missing)?;
        hasher.verify(pad, tag).map_err(|_| Misbehaviour::NotAuthentic { what }.into())
    }

    /// Hash over everything said about a block, for the tag of one direction.
    fn transcript_hasher(&self, block: BlockSeq, from: Role, counter: u64) -> Option<TagHasher> {
        let stream = if from == self.config.role { &self.sending } else { &self.receiving };
        let mut hasher = stream.hasher(counter, Domain::LinkTranscript)?;
        hasher.update(&self.header(from, block, counter));
        hasher.update(&self.blocks.get(&block)?.transcript);
        Some(hasher)
    }

    /// Alice: the verdict's tag. The same verdict always has the same counter.
    pub(super) fn tag_verdict(&self, mut verdict: Verdict) -> Verdict {
        let pad = self.sending.pad(verdict.counter).expect("the verdict's key is kept until the next one's");
        verdict.tag = self.verdict_hasher(&self.sending, &verdict).expect("pad and hash key lie together").tag(pad);
        verdict
    }

    /// Bob: checks a verdict's tag.
    pub(super) fn check_verdict(&self, verdict: &Verdict) -> Result<TagVerified, Error> {
        let counter = verdict.counter;
        self.receiving.usable(counter)?;
        let missing = Misbehaviour::TagCounter { counter };
        let hasher = self.verdict_hasher(&self.receiving, verdict).ok_or(missing)?;
        let pad = self.receiving.pad(counter).ok_or(missing)?;
        hasher.verify(pad, &verdict.tag).map_err(|_| Misbehaviour::NotAuthentic { what: "Verdict" }.into())
    }

    fn verdict_hasher(&self, stream: &Stream, verdict: &Verdict) -> Option<TagHasher> {
        let mut hasher = stream.hasher(verdict.counter, Domain::LinkControl)?;
        let mut w = Writer::new();
        w.bytes16(self.config.link.as_str().as_bytes()).u8(role_number(Role::Alice));
        verdict.write_fields(&mut w);
        hasher.update(&w.finish());
        Some(hasher)
    }

    /// What every transcript begins with: who says it, and on what both must agree.
    fn header(&self, direction: Role, block: BlockSeq, counter: u64) -> Vec<u8> {
        let outline = self.outline();
        let mut w = Writer::new();
        w.u16(PROTOCOL_VERSION).bytes16(outline.link.as_bytes()).u8(role_number(direction));
        w.u32(outline.block_bits).put(&outline.decoy).put(&outline.security).bytes16(outline.proof.as_bytes());
        w.bytes16(outline.beyond_one_way.as_bytes()).u64(block.0).u64(counter);
        w.finish()
    }

    /// Notes what the block's authentication spent.
    pub(super) fn note_spent(&mut self, block: BlockSeq) {
        self.record(block).spent = BitLen(SPENT_BITS);
    }
}

/// The other end's role.
pub(super) fn opposite(role: Role) -> Role {
    match role {
        Role::Alice => Role::Bob,
        Role::Bob => Role::Alice,
    }
}

/// Cuts a block's output into Alice's and Bob's refill and the key that goes out.
pub(super) fn split_output(mut output: SecretBytes, lengths: [usize; 2]) -> ([SecretBytes; 2], SecretBytes) {
    let mut cut = |len| output.split_front(len).expect("a refill is smaller than the block");
    let refills = [cut(lengths[0]), cut(lengths[1])];
    (refills, output)
}

fn without_tag(wire: &[u8]) -> &[u8] {
    &wire[..wire.len() - Tag::LEN]
}

/// Finished blocks that may wait to be filed before no more are begun.
const UNFILED_MAX: usize = 16;
/// How far the other end's block number may be ahead of ours.
const BLOCK_LEAP_MAX: u64 = 1 << 16;
/// Blocks given up that the other end may still speak of; more are not in flight.
const GIVEN_UP_MAX: usize = 4 * super::IN_FLIGHT_MAX;
