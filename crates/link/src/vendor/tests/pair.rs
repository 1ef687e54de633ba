//! Two ends, their disks, pools and devices, and a wire that can be cut and bent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::message::{Answer, Commit, Message};
use super::super::*;

pub(super) fn config(role: Role) -> VendorConfig {
    VendorConfig {
        link: LinkId::new("a-b").unwrap(),
        role,
        block_bytes: 2_048,
        pool_target: BitLen(3 * 8 * 1_500),
        peer_timeout: Duration::from_secs(15),
    }
}

pub(super) fn initial_key() -> SecretBytes {
    SecretBytes::from_vec((0..4_096_u32).map(|i| (i * 7 % 251) as u8).collect())
}

type Disk = BTreeMap<(u8, Vec<u8>), (Vec<u8>, Option<SecretBytes>)>;

/// One end with what survives a crash.
pub(super) struct Node {
    pub(super) end: VendorEnd,
    pub(super) disk: Disk,
    /// The key pool of the site, durable by itself.
    pub(super) pool: BTreeMap<BlockSeq, Vec<u8>>,
    pub(super) records: BTreeMap<BlockSeq, VendorRecord>,
    pub(super) aborted: Vec<VendorRecord>,
    pub(super) dropped: Vec<VendorCause>,
    pub(super) errors: Vec<Error>,
    pub(super) alarms: Vec<&'static str>,
    inbox: VecDeque<Vec<u8>>,
    pub(super) online: bool,
    /// Answers of the device on their way, with when they arrive.
    answers: VecDeque<(Time, Input)>,
    /// Changes on their way to the disk, with when they are durable.
    writes: VecDeque<(Time, u64, Vec<Change>)>,
    /// Times the device was asked.
    pub(super) asked: usize,
    /// Whether its pool says that blocks are filed.
    pub(super) files: bool,
}

/// A change of keys on their way from a device.
pub(super) type BendKeys = fn(&mut Vec<(KeyId, SecretBytes)>);

/// The two devices: one stock, as a vendor's link makes it.
pub(super) struct Devices {
    /// Keys that Alice's device can still supply.
    pub(super) stock: u64,
    pub(super) per_request: u64,
    pub(super) key_bits: u32,
    /// Keys supplied to Alice and not yet collected by Bob.
    waiting: BTreeMap<KeyId, Vec<u8>>,
    made: u64,
    /// Requests by role that are answered with a fault from now on, and which.
    pub(super) faults: [VecDeque<DeviceFault>; 2],
    pub(super) delay: Duration,
    /// What happens to keys that Alice gets.
    pub(super) bend_new: Option<BendKeys>,
    /// What happens to keys that Bob gets.
    pub(super) bend: Option<BendKeys>,
}

/// A change of a message on its way: the number of the message, its sender and its bytes.
type Bend = Box<dyn FnMut(usize, Role, &mut Vec<u8>) -> Fate>;

/// What happens to a message.
#[derive(PartialEq)]
pub(super) enum Fate {
    Arrives,
    Cut,
}

pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) devices: Devices,
    pub(super) now: Time,
    pub(super) sent: usize,
    pub(super) names: Vec<&'static str>,
    pub(super) bend: Option<Bend>,
    /// Crash this end before this output is acted on, or before time moves.
    pub(super) crash: Option<(usize, usize)>,
    pub(super) steps: [usize; 2],
    /// Every tag that left: direction and counter, and the message.
    tags: BTreeMap<(u8, u64), Vec<u8>>,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self {
            nodes: [Role::Alice, Role::Bob].map(Node::new),
            devices: Devices {
                stock: 100_000,
                per_request: 16,
                key_bits: 256,
                waiting: BTreeMap::new(),
                made: 0,
                faults: Default::default(),
                delay: Duration::from_millis(20),
                bend_new: None,
                bend: None,
            },
            now: Time::ZERO,
            sent: 0,
            names: Vec::new(),
            bend: None,
            crash: None,
            steps: [0; 2],
            tags: BTreeMap::new(),
        }
    }

    /// Runs until Alice's pool has this many blocks more, or the time is over.
    pub(super) fn run_blocks(&mut self, blocks: usize, limit: Duration) {
        let (goal, end) = (self.nodes[0].pool.len() + blocks, self.now.after(limit));
        self.run_until(end, |pair| pair.nodes.iter().all(|node| node.pool.len() >= goal));
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now.after(time), |_| false);
    }

    fn run_until(&mut self, end: Time, done: impl Fn(&Self) -> bool) {
        loop {
            self.quiet();
            if done(self) || self.now >= end {
                return;
            }
            if !self.nodes.iter().all(|node| node.online) {
                self.disconnect();
                self.now = self.now.after(Duration::from_millis(200));
                self.connect();
                continue;
            }
            let answers = self.nodes.iter().filter_map(|node| node.answers.front().map(|(at, _)| *at));
            let writes = self.nodes.iter().filter_map(|node| node.writes.front().map(|(at, _, _)| *at));
            let timeouts = self.nodes.iter().filter_map(|node| node.end.poll_timeout());
            let Some(next) = timeouts.chain(answers).chain(writes).min() else { return };
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            for at in 0..2 {
                // A crash may also come while nothing is said: a write or an answer of the device is under way.
                self.steps[at] += 1;
                if self.crash == Some((at, self.steps[at])) {
                    self.crash = None;
                    self.restart(at);
                    continue;
                }
                if self.nodes[at].writes.front().is_some_and(|(due, _, _)| *due <= self.now)
                    && let Some((_, seq, changes)) = self.nodes[at].writes.pop_front()
                {
                    apply(&mut self.nodes[at].disk, changes);
                    self.input(at, Input::Durable(seq));
                    continue;
                }
                if self.nodes[at].answers.front().is_some_and(|(due, _)| *due <= self.now)
                    && let Some((_, input)) = self.nodes[at].answers.pop_front()
                {
                    self.input(at, input);
                }
                if self.nodes[at].end.poll_timeout().is_some_and(|due| due <= self.now)
                    && let Err(error) = self.nodes[at].end.handle_timeout(self.now)
                {
                    self.fail(at, error);
                }
            }
        }
    }

    /// Acts until nothing moves without time moving.
    fn quiet(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("an end never rests");
    }

    pub(super) fn connect(&mut self) {
        for at in 0..2 {
            self.nodes[at].online = true;
            self.input(at, Input::Connected);
        }
        self.tell_level();
    }

    pub(super) fn disconnect(&mut self) {
        for at in 0..2 {
            self.nodes[at].inbox.clear();
            self.nodes[at].online = false;
            self.input(at, Input::Disconnected);
        }
    }

    /// Alice's shell says what her pool holds, less what was used: the last three blocks count.
    fn tell_level(&mut self) {
        let bits = if self.use_up() { 0 } else { u64::MAX };
        self.input(0, Input::PoolLevel(BitLen(bits)));
    }

    fn use_up(&self) -> bool {
        self.devices.stock > 0
    }

    fn step(&mut self) -> bool {
        for at in 0..2 {
            if let Some(output) = self.nodes[at].end.poll_output() {
                self.steps[at] += 1;
                if self.crash == Some((at, self.steps[at])) {
                    self.crash = None;
                    drop(output);
                    self.restart(at);
                } else {
                    self.act(at, output);
                }
                return true;
            }
        }
        for at in 0..2 {
            if let Some(wire) = self.nodes[at].inbox.pop_front() {
                self.input(at, Input::Message(wire));
                return true;
            }
        }
        false
    }

    fn act(&mut self, at: usize, output: Output) {
        let answer_at = self.now.after(self.devices.delay);
        let node = &mut self.nodes[at];
        match output {
            Output::Send(wire) => self.carry(at, wire),
            Output::Persist { seq, changes } => node.writes.push_back((self.now.after(DISK), seq, changes)),
            Output::Block(block) => {
                let key = block.key.into_public("test bytes");
                assert_eq!(block.record.secret.0 - block.record.kept.0, 8 * key.len() as u64);
                node.records.insert(block.seq, block.record);
                if let Some(before) = node.pool.insert(block.seq, key.clone()) {
                    assert_eq!(before, key, "a block handed over again is the same");
                }
                if self.nodes[at].files {
                    self.input(at, Input::Filed(block.seq));
                }
            }
            Output::AskStatus { request } => {
                let answer = self.devices.status(at, request);
                node.asked += 1;
                node.answers.push_back((answer_at, answer));
            }
            Output::FetchNew { request, number, key_bits } => {
                let answer = self.devices.fetch_new(request, number, key_bits);
                node.asked += 1;
                node.answers.push_back((answer_at, answer));
            }
            Output::FetchById { request, ids } => {
                let answer = self.devices.fetch_by_id(request, &ids);
                node.asked += 1;
                node.answers.push_back((answer_at, answer));
            }
            Output::Aborted(record) => node.aborted.push(record),
            Output::Dropped { cause, .. } => node.dropped.push(cause),
            Output::Alarm { suspicion, .. } => node.alarms.push(suspicion),
        }
    }

    fn carry(&mut self, from: usize, mut wire: Vec<u8>) {
        self.watch(&wire);
        self.sent += 1;
        let role = self.nodes[from].end.config().role;
        let fate = self.bend.as_mut().map_or(Fate::Arrives, |bend| bend(self.sent - 1, role, &mut wire));
        if fate == Fate::Cut {
            self.disconnect();
        } else if self.nodes[1 - from].online {
            self.nodes[1 - from].inbox.push_back(wire);
        }
    }

    /// Audits what leaves an end: no pad for two messages.
    fn watch(&mut self, wire: &[u8]) {
        let message = Message::decode(wire).unwrap();
        assert_eq!(message.encode(), wire);
        self.names.push(message.name());
        let mut tagged = |direction: u8, counter: u64| {
            let before = self.tags.insert((direction, counter), wire.to_vec());
            assert!(before.is_none_or(|before| before == wire), "pad {direction}/{counter} hides two messages");
        };
        match message {
            Message::Commit(Commit { counter, .. }) => {
                tagged(0, counter);
                tagged(0, counter + 1);
            }
            Message::Answer(Answer { counter, .. }) => tagged(1, counter),
            _ => {}
        }
    }

    /// A crash: what is not on disk is gone, writes on their way too, and so are answers of the device.
    pub(super) fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.answers.clear();
        node.writes.clear();
        node.end = VendorEnd::restore(node.end.config().clone(), records(&node.disk)).unwrap();
        self.disconnect();
    }

    fn input(&mut self, at: usize, input: Input) {
        if let Err(error) = self.nodes[at].end.handle_input(self.now, input) {
            self.fail(at, error);
        }
    }

    pub(super) fn inject(&mut self, at: usize, message: &Message) {
        self.nodes[at].inbox.push_back(message.encode());
    }

    fn fail(&mut self, at: usize, error: Error) {
        self.nodes[at].errors.push(error);
        self.nodes[at].online = false;
        self.nodes[at].inbox.clear();
    }

    /// What must hold whenever both have heard of each other.
    pub(super) fn check(&self) {
        let [alice, bob] = &self.nodes;
        let mut all = BTreeSet::new();
        for (block, key) in &bob.pool {
            assert!(all.insert(key.clone()), "no key twice");
            let theirs = alice.pool.get(block);
            let in_doubt = theirs.is_none() && Some(block) == bob.pool.keys().next_back();
            assert!(in_doubt || theirs == Some(key), "block {block}: the same key under the same number");
        }
        assert!(alice.pool.keys().all(|block| bob.pool.contains_key(block)), "Bob decided on all that Alice filed");
        for (block, record) in &alice.records {
            assert_eq!(Some(record), bob.records.get(block), "the same record at both ends");
        }
    }

    /// As [`Pair::check`], when nothing is under way.
    pub(super) fn check_settled(&self) {
        self.check();
        assert_eq!(self.nodes[0].pool, self.nodes[1].pool);
    }
}

impl Node {
    fn new(role: Role) -> Self {
        let mut disk = Disk::new();
        apply(&mut disk, VendorEnd::provision(&config(role).link, &initial_key()).unwrap());
        Self {
            end: VendorEnd::restore(config(role), records(&disk)).unwrap(),
            disk,
            pool: BTreeMap::new(),
            records: BTreeMap::new(),
            aborted: Vec::new(),
            dropped: Vec::new(),
            errors: Vec::new(),
            alarms: Vec::new(),
            inbox: VecDeque::new(),
            online: false,
            answers: VecDeque::new(),
            writes: VecDeque::new(),
            asked: 0,
            files: true,
        }
    }
}

impl Devices {
    fn status(&mut self, at: usize, request: u64) -> Input {
        if let Some(fault) = self.faults[at].pop_front() {
            return Input::DeviceFailed { request, fault };
        }
        let status =
            DeviceStatus { key_bits: self.key_bits, stored_keys: self.stock, keys_per_request_max: self.per_request };
        Input::Status { request, status }
    }

    fn fetch_new(&mut self, request: u64, number: u32, key_bits: u32) -> Input {
        assert!(u64::from(number) <= self.per_request && key_bits == self.key_bits);
        if let Some(fault) = self.faults[0].pop_front() {
            return Input::DeviceFailed { request, fault };
        }
        if self.stock < u64::from(number) {
            return Input::DeviceFailed { request, fault: DeviceFault::Unavailable };
        }
        let mut keys = Vec::new();
        for _ in 0..number {
            self.made += 1;
            self.stock -= 1;
            let id = KeyId(types::id::Uuid::from_u128(u128::from(self.made) << 64 | 0x4000_8000));
            let bytes: Vec<u8> = (0..key_bits / 8).map(|i| (self.made * 31 + u64::from(i) * 17 % 253) as u8).collect();
            let bytes = [self.made.to_be_bytes().to_vec(), bytes].concat()[..key_bits as usize / 8].to_vec();
            self.waiting.insert(id, bytes.clone());
            keys.push((id, SecretBytes::from_vec(bytes)));
        }
        if let Some(bend) = self.bend_new {
            bend(&mut keys);
        }
        Input::Fetched { request, keys }
    }

    fn fetch_by_id(&mut self, request: u64, ids: &[KeyId]) -> Input {
        if let Some(fault) = self.faults[1].pop_front() {
            return Input::DeviceFailed { request, fault };
        }
        if ids.len() as u64 > self.per_request || !ids.iter().all(|id| self.waiting.contains_key(id)) {
            return Input::DeviceFailed { request, fault: DeviceFault::Unknown };
        }
        let mut keys: Vec<_> =
            ids.iter().map(|id| (*id, SecretBytes::from_vec(self.waiting.remove(id).unwrap()))).collect();
        keys.reverse();
        if let Some(bend) = self.bend {
            bend(&mut keys);
        }
        Input::Fetched { request, keys }
    }

    /// Bob's device was reset: it knows none of the ids.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

pub(super) fn apply(disk: &mut Disk, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(record) => {
                assert!(record.key.len() <= Record::KEY_MAX && record.value.len() <= Record::VALUE_MAX);
                disk.insert((record.table as u8, record.key), (record.value, record.secret));
            }
            Change::Update { table, key, value } => disk.get_mut(&(table as u8, key)).unwrap().0 = value,
            Change::Delete { table, key } => _ = disk.remove(&(table as u8, key)),
        }
    }
}

pub(super) fn records(disk: &Disk) -> Vec<Record> {
    let table = |number| crypto::record::Table::from_number(number).unwrap();
    disk.iter()
        .map(|((number, key), (value, secret))| Record {
            table: table(*number),
            key: key.clone(),
            value: value.clone(),
            secret: secret.as_ref().map(SecretBytes::duplicate),
        })
        .collect()
}

/// How long a change takes to become durable.
const DISK: Duration = Duration::from_millis(7);
