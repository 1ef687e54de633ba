//! What both roles have: outputs and their order, the line, the device, tags.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use crypto::domain::Domain;
use crypto::record::Change;
use crypto::secret::SecretBytes;
use crypto::tag::{Tag, TagHashKey, TagHasher, TagPad, TagVerified};
use types::codec::Writer;
use types::id::{BlockSeq, KeyId};
use types::quantum::Role;
use types::units::{BitLen, Time};

use super::durable::{self, Decision, State};
use super::message::{Answer, Commit, Hello, Message, VERSION};
use super::{DeviceFault, Output, VendorBlock, VendorCause, VendorConfig};
use crate::authenticate::{PIECE_TAGS, Stream, piece_len, role_number};
use crate::error::{Error, Misbehaviour};

/// State of an end that does not depend on its role.
pub(super) struct Shared {
    pub(super) config: VendorConfig,
    pub(super) sending: Stream,
    pub(super) receiving: Stream,
    pub(super) next_block: BlockSeq,
    pub(super) device: Device,
    line: Line,
    outputs: VecDeque<Output>,
    /// Outputs that wait for a persist request to be durable.
    held: VecDeque<(u64, Output)>,
    persisted: u64,
    durable: u64,
    unfiled: BTreeSet<BlockSeq>,
}

/// The connection to the other end.
#[derive(Clone, Copy)]
enum Line {
    Offline,
    Greeting { heard: Time },
    Online { heard: Time, alive_at: Time },
}

/// What this end knows of its device.
#[derive(Default)]
pub(super) struct Device {
    requests: u64,
    outstanding: Option<Request>,
    /// Failures in a row.
    failures: u32,
    /// Nothing is asked before this time.
    not_before: Time,
    status_due: Time,
    /// When time alone lets something be asked.
    pub(super) wake: Option<Time>,
}

struct Request {
    number: u64,
    /// Nobody waits for the answer any more.
    void: bool,
}

impl Shared {
    pub(super) fn new(config: VendorConfig, streams: [Stream; 2], next_block: BlockSeq) -> Self {
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
            device: Device::default(),
            line: Line::Offline,
            outputs: VecDeque::new(),
            held: VecDeque::new(),
            persisted: 0,
            durable: 0,
            unfiled: BTreeSet::new(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    // --- Order of disk and wire.

    /// Sends a message that says nothing that must be durable first.
    pub(super) fn send(&mut self, message: &Message) {
        self.put(Output::Send(message.encode()));
    }

    /// Sends a message once everything persisted so far is durable.
    pub(super) fn send_when_durable(&mut self, message: &Message) {
        self.hold(Output::Send(message.encode()));
    }

    /// Hands a block over once its record is durable.
    pub(super) fn hand_over(&mut self, block: VendorBlock) {
        self.unfiled.insert(block.seq);
        self.hold(Output::Block(block));
    }

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

    /// The change that makes counters, numbers and Bob's decision durable.
    pub(super) fn state_change(&self, answer: Option<Decision>) -> Change {
        let marks = match self.config.role {
            Role::Alice => [self.sending.marks(), self.receiving.marks()],
            Role::Bob => [self.receiving.marks(), self.sending.marks()],
        };
        State { next_block: self.next_block, marks, answer }.to_change(&self.config.link)
    }

    /// A block got its number.
    pub(super) fn count_block(&mut self) -> Result<(), Error> {
        let next = self.next_block.0.checked_add(1).ok_or(Error::Exhausted { what: "block numbers" })?;
        self.next_block = BlockSeq(next);
        Ok(())
    }

    pub(super) fn dropped(&mut self, cause: VendorCause, bytes: usize) {
        if bytes > 0 {
            self.put(Output::Dropped { cause, bits: BitLen(8 * bytes as u64) });
        }
    }

    // --- The line.

    pub(super) fn online(&self) -> bool {
        matches!(self.line, Line::Online { .. })
    }

    /// Notes that the other end lives; `false` if there is no connection.
    pub(super) fn heard(&mut self, now: Time) -> bool {
        match &mut self.line {
            Line::Offline => return false,
            Line::Greeting { heard } | Line::Online { heard, .. } => *heard = now,
        }
        true
    }

    pub(super) fn silent(&self, now: Time) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    fn deadline(&self) -> Option<Time> {
        match self.line {
            Line::Offline => None,
            Line::Greeting { heard } | Line::Online { heard, .. } => Some(heard.after(self.config.peer_timeout)),
        }
    }

    pub(super) fn keep_alive(&mut self, now: Time) {
        if let Line::Online { alive_at, .. } = &mut self.line
            && now >= *alive_at
        {
            *alive_at = now.after(self.config.peer_timeout / ALIVE_PER_TIMEOUT);
            self.send(&Message::Alive);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let alive = match self.line {
            Line::Online { alive_at, .. } => Some(alive_at),
            _ => None,
        };
        [self.deadline(), alive, self.device.wake].into_iter().flatten().min()
    }

    pub(super) fn greet(&mut self, now: Time, pending: bool) {
        self.line = Line::Greeting { heard: now };
        let config = &self.config;
        let (link, role) = (config.link.as_str().to_owned(), config.role);
        self.send(&Message::Hello(Hello { link, role, next_block: self.next_block, pending }));
    }

    /// Compares the other end's settings and numbers with ours.
    pub(super) fn greeted(&mut self, now: Time, theirs: &Hello, pending: bool) -> Result<(), Error> {
        let mismatch = |field, ours: &dyn ToString, theirs: &dyn ToString| {
            Err(Error::Mismatch { field, ours: ours.to_string(), theirs: theirs.to_string() })
        };
        let config = &self.config;
        if theirs.link != config.link.as_str() {
            return mismatch("link id", &config.link, &theirs.link);
        }
        if theirs.role == config.role {
            return mismatch("role", &format!("{:?}", config.role), &format!("{:?}", theirs.role));
        }
        // Every number was decided by Bob, and Alice heard of all but perhaps the last.
        let (ours, other) = (self.next_block.0, theirs.next_block.0);
        let fits = match config.role {
            Role::Alice => other == ours || (pending && other.checked_add(1) == Some(ours)),
            Role::Bob => other == ours || (theirs.pending && ours.checked_add(1) == Some(other)),
        };
        if !fits {
            return mismatch("next block (was a store set back?)", &ours, &other);
        }
        self.line = Line::Online { heard: now, alive_at: now.after(self.config.peer_timeout / ALIVE_PER_TIMEOUT) };
        Ok(())
    }

    pub(super) fn other_version(version: u16) -> Error {
        let (ours, theirs) = (format!("{VERSION:#06x}"), format!("{version:#06x}"));
        Error::Mismatch { field: "protocol version (is the link's source the same at both ends?)", ours, theirs }
    }

    pub(super) fn go_offline(&mut self) {
        self.line = Line::Offline;
        // Messages of the lost connection are void; blocks are not.
        self.held.retain(|(_, output)| !matches!(output, Output::Send(_)));
    }

    // --- The device.

    pub(super) fn ask_status(&mut self, now: Time) {
        self.device.status_due = now.after(STATUS_EVERY);
        let request = self.device.ask();
        self.put(Output::AskStatus { request });
    }

    pub(super) fn fetch_new(&mut self, number: u32, key_bits: u32) {
        let request = self.device.ask();
        self.put(Output::FetchNew { request, number, key_bits });
    }

    pub(super) fn fetch_by_id(&mut self, ids: Vec<KeyId>) {
        let request = self.device.ask();
        self.put(Output::FetchById { request, ids });
    }

    // --- Tags.

    /// Whether key is left for the tags of one more block.
    pub(super) fn reserve_suffices(&self) -> bool {
        let (alice, bob) = match self.config.role {
            Role::Alice => (&self.sending, &self.receiving),
            Role::Bob => (&self.receiving, &self.sending),
        };
        alice.left() >= COMMIT_TAGS && bob.left() >= 1
    }

    /// Alice: both tags of a commit.
    pub(super) fn tag_commit(&self, mut commit: Commit, key: &SecretBytes) -> Commit {
        let usable = "the counters were set aside and their key is kept until the answer";
        let stream = &self.sending;
        commit.comparison = self
            .comparison_hasher(stream, &commit, key)
            .expect(usable)
            .tag(Self::inner_pad(stream, &commit).expect(usable));
        let hasher = self.message_hasher(stream, Role::Alice, commit.counter, &commit.untagged()).expect(usable);
        commit.tag = hasher.tag(stream.pad(commit.counter).expect(usable));
        commit
    }

    /// Bob: checks the outer tag of a commit, whose counter must be the next.
    pub(super) fn check_commit(&self, commit: &Commit) -> Result<TagVerified, Error> {
        let counter = commit.counter;
        self.next_counter(counter, COMMIT_TAGS)?;
        let hasher = self.message_hasher(&self.receiving, Role::Alice, counter, &commit.untagged());
        verify(hasher, self.receiving.pad(counter), &commit.tag, "Commit", counter)
    }

    /// Bob: whether the key that Alice hashed is his.
    pub(super) fn same_key(&self, commit: &Commit, key: &SecretBytes, _authentic: TagVerified) -> bool {
        let stream = &self.receiving;
        match (self.comparison_hasher(stream, commit, key), Self::inner_pad(stream, commit)) {
            (Some(hasher), Some(pad)) => hasher.verify(pad, &commit.comparison).is_ok(),
            _ => false,
        }
    }

    /// Bob: the answer that states his decision; the same bytes every time.
    pub(super) fn tag_answer(&self, decision: Decision) -> Answer {
        let usable = "the key of the last answer is kept until the next";
        let Decision { block, counter, refused } = decision;
        let answer = Answer { block, counter, refused, tag: Tag([0; Tag::LEN]) };
        let hasher = self.message_hasher(&self.sending, Role::Bob, counter, &answer.untagged()).expect(usable);
        Answer { tag: hasher.tag(self.sending.pad(counter).expect(usable)), ..answer }
    }

    /// Alice: checks an answer, whose counter must be the next.
    pub(super) fn check_answer(&self, answer: &Answer) -> Result<TagVerified, Error> {
        let counter = answer.counter;
        self.next_counter(counter, 1)?;
        let hasher = self.message_hasher(&self.receiving, Role::Bob, counter, &answer.untagged());
        verify(hasher, self.receiving.pad(counter), &answer.tag, "Answer", counter)
    }

    /// Both ends spend the same counters, none is skipped.
    fn next_counter(&self, counter: u64, tags: u64) -> Result<(), Error> {
        let marks = self.receiving.marks();
        if counter == marks.next && self.receiving.left() >= tags {
            Ok(())
        } else {
            Err(Misbehaviour::TagCounter { counter }.into())
        }
    }

    fn message_hasher(&self, stream: &Stream, from: Role, counter: u64, untagged: &[u8]) -> Option<TagHasher> {
        let mut hasher = stream.hasher(counter, Domain::LinkVendorMessage)?;
        hasher.update(&self.header(from));
        hasher.update(untagged);
        Some(hasher)
    }

    fn comparison_hasher(&self, stream: &Stream, commit: &Commit, key: &SecretBytes) -> Option<TagHasher> {
        let mut hasher = stream.hasher(commit.counter.checked_add(1)?, Domain::LinkVendorKey)?;
        let mut w = Writer::new();
        w.put(&self.header(Role::Alice)).u64(commit.block.0).u64(commit.counter);
        hasher.update(&w.finish());
        key.expose(|bytes| hasher.update(bytes));
        Some(hasher)
    }

    fn inner_pad(stream: &Stream, commit: &Commit) -> Option<TagPad> {
        stream.pad(commit.counter.checked_add(1)?)
    }

    fn header(&self, from: Role) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(VERSION).bytes16(self.config.link.as_str().as_bytes()).u8(role_number(from));
        w.finish()
    }
}

impl Device {
    /// Whether something may be asked now.
    pub(super) fn free(&mut self, now: Time) -> bool {
        if self.outstanding.is_none() && now < self.not_before {
            self.wake = Some(self.not_before);
        }
        self.outstanding.is_none() && now >= self.not_before
    }

    /// Whether its status should be asked, only to know that it lives.
    pub(super) fn status_due(&mut self, now: Time) -> bool {
        if now < self.status_due {
            self.wake = Some(self.status_due);
        }
        now >= self.status_due
    }

    /// Takes an answer; `false` if nobody waits for it.
    pub(super) fn answered(&mut self, now: Time, number: u64) -> bool {
        let awaited = self.take(number);
        if awaited {
            self.failures = 0;
            self.not_before = self.not_before.min(now);
        }
        awaited
    }

    /// Takes a failure; `false` if nobody waits for the answer.
    pub(super) fn failed(&mut self, now: Time, number: u64, fault: DeviceFault) -> bool {
        let awaited = self.take(number);
        match fault {
            DeviceFault::Unavailable => {
                self.failures = self.failures.saturating_add(1);
                self.pause(now, backoff(self.failures, DEVICE_PAUSE_MAX));
            }
            DeviceFault::Unknown => self.failures = 0,
        }
        awaited
    }

    pub(super) fn pause(&mut self, now: Time, by: Duration) {
        self.not_before = now.after(by);
    }

    /// Nobody waits for what is under way.
    pub(super) fn forget(&mut self) {
        if let Some(request) = &mut self.outstanding {
            request.void = true;
        }
    }

    fn ask(&mut self) -> u64 {
        assert!(self.outstanding.is_none(), "one request at a time");
        self.requests += 1;
        self.outstanding = Some(Request { number: self.requests, void: false });
        self.requests
    }

    fn take(&mut self, number: u64) -> bool {
        let request = self.outstanding.take_if(|request| request.number == number);
        request.is_some_and(|request| !request.void)
    }
}

/// One second, then twice as long with every failure.
pub(super) fn backoff(failures: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(factor).min(max)
}

/// Tags to add to Alice's stream and to Bob's from a block of `bytes`: at most a quarter of the block each, and only
/// what stays within the reserve.
pub(super) fn refill(left: [u64; 2], bytes: usize) -> [u64; 2] {
    let fit = (bytes / 4).saturating_sub(TagHashKey::LEN) / TagPad::LEN;
    let tags = u64::try_from(fit).unwrap_or(PIECE_TAGS).min(PIECE_TAGS);
    left.map(|left| if left + tags <= RESERVE_TAGS { tags } else { 0 })
}

/// Cuts Alice's and Bob's refill off a block; the rest is what goes out. `None` if nothing would be left.
pub(super) fn split(mut key: SecretBytes, refill: [u64; 2]) -> Option<([SecretBytes; 2], SecretBytes)> {
    let pieces = [key.split_front(piece_len(refill[0]))?, key.split_front(piece_len(refill[1]))?];
    (!key.is_empty()).then_some((pieces, key))
}

fn verify(
    hasher: Option<TagHasher>,
    pad: Option<TagPad>,
    tag: &Tag,
    what: &'static str,
    counter: u64,
) -> Result<TagVerified, Error> {
    let missing = Misbehaviour::TagCounter { counter };
    hasher.ok_or(missing)?.verify(pad.ok_or(missing)?, tag).map_err(|_| Misbehaviour::NotAuthentic { what }.into())
}

/// Tags that each direction is refilled to.
pub(super) const RESERVE_TAGS: u64 = 128;
/// Tags of one commit.
pub(super) const COMMIT_TAGS: u64 = 2;
/// Finished blocks that may wait to be filed before no more are begun.
const UNFILED_MAX: usize = 16;
/// Signs of life in the time after which an end counts as silent.
const ALIVE_PER_TIMEOUT: u32 = 3;
/// How often the device is asked for its status when nothing else is asked.
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// Longest pause after failures of the device.
const DEVICE_PAUSE_MAX: Duration = Duration::from_secs(60);
