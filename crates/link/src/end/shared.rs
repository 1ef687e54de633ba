//! What both roles have: outputs and their order, authentication key, the record and transcript of the block.

use std::collections::{BTreeSet, VecDeque};

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
use crate::error::{Error, Misbehaviour};
use crate::message::{Finish, Hello, Kind, Message, PROTOCOL_VERSION, Verdict};
use crate::record::{AbortCause, BlockRecord, Outcome};
use crate::sift::Filling;

/// State of an end that does not depend on its role.
pub(super) struct Shared {
    pub(super) config: LinkConfig,
    pub(super) sending: Stream,
    pub(super) receiving: Stream,
    pub(super) next_block: BlockSeq,
    /// The block in progress.
    pub(super) block: Option<Block>,
    /// Errors and bits of the last corrected block.
    pub(super) last_errors: Option<(u64, u64)>,
    outputs: VecDeque<Output>,
    /// Outputs that wait for a persist request to be durable.
    held: VecDeque<(u64, Output)>,
    persisted: u64,
    durable: u64,
    unfiled: BTreeSet<BlockSeq>,
    deadline: Option<(Time, &'static str)>,
}

/// Record and transcript of the block in progress.
pub(super) struct Block {
    pub(super) record: BlockRecord,
    transcript: Option<Transcript>,
}

/// Hashes over everything said about a block, one for each direction's tag.
struct Transcript {
    alice: Option<TagHasher>,
    bob: Option<TagHasher>,
}

impl Shared {
    pub(super) fn new(config: LinkConfig, streams: [Stream; 2], next_block: BlockSeq) -> Self {
        let [alice, bob] = streams;
        let (sending, receiving) = match config.role {
            Role::Alice => (alice, bob),
            Role::Bob => (bob, alice),
        };
        Self {
            config,
            sending,
            receiving,
            next_block,
            block: None,
            last_errors: None,
            outputs: VecDeque::new(),
            held: VecDeque::new(),
            persisted: 0,
            durable: 0,
            unfiled: BTreeSet::new(),
            deadline: None,
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // --- Sending, and the order of disk and wire.

    /// Sends a message now; it must say nothing that is not durable.
    pub(super) fn send(&mut self, message: &Message) {
        let wire = message.encode();
        self.absorb(self.config.role, &wire);
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

    pub(super) fn await_answer(&mut self, now: Time, awaited: &'static str) {
        self.deadline = Some((now.after(self.config.peer_timeout), awaited));
    }

    pub(super) fn await_nothing(&mut self) {
        self.deadline = None;
    }

    pub(super) fn overdue(&mut self, now: Time) -> Option<&'static str> {
        self.deadline.take_if(|(deadline, _)| now >= *deadline).map(|(_, awaited)| awaited)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.map(|(deadline, _)| deadline)
    }

    // --- The connection.

    pub(super) fn greet(&mut self, now: Time, pending: Option<BlockSeq>) {
        let hello = Hello { pending, ..self.outline() };
        self.outputs.push_back(Output::Send(Message::Hello(hello).encode()));
        self.await_answer(now, "the greeting");
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
            next_block: self.next_block,
            pending: None,
        }
    }

    /// Compares the other end's settings with ours and agrees on the next block's number.
    pub(super) fn check_greeting(&mut self, theirs: &Hello) -> Result<(), Error> {
        let ours = self.outline();
        let hex = |digest: &[u8; 32]| digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        let role = |role: Role| format!("{role:?}");
        let settings: [(&'static str, String, String); 6] = [
            ("link id", ours.link.clone(), theirs.link.clone()),
            ("role", role(opposite(ours.role)), role(theirs.role)),
            ("block size", ours.block_bits.to_string(), theirs.block_bits.to_string()),
            ("proof", ours.proof.clone(), theirs.proof.clone()),
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
        self.deadline = None;
        // Messages of the lost connection are void; blocks are not.
        self.held.retain(|(_, output)| !matches!(output, Output::Send(_)));
        self.abort(cause);
    }

    // --- The block in progress.

    /// Begins a block; `counters` are those of Alice's and Bob's tags at its end.
    pub(super) fn begin(&mut self, block: BlockSeq, counters: [u64; 2]) -> Result<(), Error> {
        let next = block.0.checked_add(1).ok_or(Error::Exhausted { what: "block numbers" })?;
        self.next_block = BlockSeq(next);
        let record = BlockRecord::begin(block, self.config.proof, self.config.security);
        let hasher = |role: Role, counter: u64| -> Result<TagHasher, Error> {
            let stream = if role == self.config.role { &self.sending } else { &self.receiving };
            let mut hasher =
                stream.hasher(counter, Domain::LinkTranscript).ok_or(Misbehaviour::TagCounter { counter })?;
            hasher.update(&self.header(role, block, counters));
            Ok(hasher)
        };
        let (alice, bob) = (hasher(Role::Alice, counters[0])?, hasher(Role::Bob, counters[1])?);
        self.block = Some(Block { record, transcript: Some(Transcript { alice: Some(alice), bob: Some(bob) }) });
        Ok(())
    }

    /// Notes what sifting counted.
    pub(super) fn note_filling(&mut self, filling: &Filling, progress: (u64, u64)) {
        let (queued, dropped) = progress;
        if let Some(block) = &mut self.block {
            block.record.counts = filling.counts;
            block.record.slots = filling.slots.len();
        }
        self.outputs.push_back(Output::Progress(Progress {
            sifted: filling.counts.key.iter().sum(),
            block_bits: u64::from(self.config.decoy.block_bits),
            last_errors: self.last_errors,
            queued,
            dropped,
            tags_left: self.sending.left(),
        }));
    }

    /// Gives the block in progress up.
    pub(super) fn abort(&mut self, cause: AbortCause) {
        if let Some(block) = self.block.take() {
            self.report_aborted(block.record, cause);
        }
    }

    pub(super) fn report_aborted(&mut self, mut record: BlockRecord, cause: AbortCause) {
        record.outcome = Outcome::Aborted(cause);
        record.secret = BitLen(0);
        record.kept = BitLen(0);
        self.outputs.push_back(Output::Aborted(record));
    }

    pub(super) fn record(&mut self) -> &mut BlockRecord {
        &mut self.block.as_mut().expect("a block is in progress in the states that ask for its record").record
    }

    // --- Tags.

    /// What came from the other end belongs to the transcript; a tagged message is added by its handler.
    pub(super) fn received(&mut self, wire: &[u8], kind: Kind) {
        if !matches!(kind, Kind::Finish | Kind::Confirm) {
            self.absorb(opposite(self.config.role), wire);
        }
    }

    /// Adds a message of the block to both transcripts.
    pub(super) fn absorb(&mut self, from: Role, wire: &[u8]) {
        let Some(transcript) = self.block.as_mut().and_then(|block| block.transcript.as_mut()) else { return };
        let mut frame = [role_number(from); 9];
        frame[1..].copy_from_slice(&(wire.len() as u64).to_be_bytes());
        for hasher in [&mut transcript.alice, &mut transcript.bob].into_iter().flatten() {
            hasher.update(&frame);
            hasher.update(wire);
        }
    }

    /// Alice: sends `Finish` with the tag of `counter` once the counter is durable.
    pub(super) fn tag_finish(&mut self, mut finish: Finish, counter: u64) {
        let untagged = Message::Finish(Box::new(finish.clone())).encode();
        self.absorb(Role::Alice, without_tag(&untagged));
        let hasher = self.hasher_of(Role::Alice);
        finish.tag = hasher.tag(self.sending.pad(counter).expect("the counter was found usable"));
        self.send_when_durable(Message::Finish(Box::new(finish)).encode());
    }

    /// Bob: checks the tag of `Finish`.
    pub(super) fn check_finish(&mut self, finish: &Finish, counter: u64) -> Result<TagVerified, Error> {
        let wire = Message::Finish(Box::new(finish.clone())).encode();
        self.absorb(Role::Alice, without_tag(&wire));
        let hasher = self.hasher_of(Role::Alice);
        let pad = self.receiving.pad(counter).ok_or(Misbehaviour::TagCounter { counter })?;
        hasher.verify(pad, &finish.tag).map_err(|_| Misbehaviour::NotAuthentic { what: "Finish" }.into())
    }

    /// Bob: his tag over the transcript.
    pub(super) fn tag_confirm(&mut self, counter: u64) -> Tag {
        let hasher = self.hasher_of(Role::Bob);
        hasher.tag(self.sending.pad(counter).expect("the counter was found usable"))
    }

    /// Alice: checks Bob's tag over the transcript.
    pub(super) fn check_confirm(&mut self, tag: &Tag, counter: u64) -> Result<TagVerified, Error> {
        let hasher = self.hasher_of(Role::Bob);
        let pad = self.receiving.pad(counter).ok_or(Misbehaviour::TagCounter { counter })?;
        hasher.verify(pad, tag).map_err(|_| Misbehaviour::NotAuthentic { what: "Confirm" }.into())
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

    fn hasher_of(&mut self, role: Role) -> TagHasher {
        let transcript = self.block.as_mut().and_then(|block| block.transcript.as_mut());
        let transcript = transcript.expect("a block in progress has a transcript");
        let hasher = match role {
            Role::Alice => transcript.alice.take(),
            Role::Bob => transcript.bob.take(),
        };
        hasher.expect("each direction is tagged once in a block")
    }

    /// What every transcript begins with: who says it, and on what both must agree.
    fn header(&self, direction: Role, block: BlockSeq, counters: [u64; 2]) -> Vec<u8> {
        let outline = self.outline();
        let mut w = Writer::new();
        w.u16(PROTOCOL_VERSION).bytes16(outline.link.as_bytes()).u8(role_number(direction));
        w.u32(outline.block_bits).put(&outline.decoy).put(&outline.security).bytes16(outline.proof.as_bytes());
        w.u64(block.0).u64(counters[0]).u64(counters[1]);
        w.finish()
    }

    /// Notes what the block's authentication spent.
    pub(super) fn note_spent(&mut self) {
        self.record().spent = BitLen(SPENT_BITS);
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
