//! Two ends, their disks and pools, a toy quantum channel and a wire that can be cut and bent.

#![expect(clippy::cast_possible_truncation, reason = "probabilities as 32-bit thresholds")]

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use types::network::Decoys;
use types::quantum::{Basis, Intensity, Preparation, Slot};

use super::super::*;
use crate::message::{Kind, Step};
use crate::record::Outcome;

pub(super) fn config(role: Role, block_bits: u32) -> LinkConfig {
    LinkConfig {
        link: LinkId::new("a-b").unwrap(),
        role,
        decoy: DecoySettings {
            key_basis: 0.5,
            intensities: [0.3, 0.1, 0.0002],
            probabilities: [0.1, 0.5, 0.4],
            block_bits,
        },
        security: Security { epsilon_secrecy: 1e-4, epsilon_correctness: 1e-6 },
        proof: Proof::Lim2014,
        beyond_one_way: BeyondOneWay::Off,
        reconciliation: Reconciliation::Auto,
        peer_timeout: Duration::from_secs(30),
    }
}

pub(super) fn initial_key() -> SecretBytes {
    SecretBytes::random(authenticate::PROVISION_MIN, &mut ChaCha20Rng::seed_from_u64(99))
}

/// What Alice prepared: a function of seed and slot.
pub(super) fn prepare(seed: u64, slot: Slot, decoys: Decoys) -> Preparation {
    // SplitMix64: fast, and good enough for a toy.
    let mut word = (seed << 48 ^ slot.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    let (basis, intensity, bit) = (word % 10, (word >> 16) % 20, word >> 63 == 1);
    let intensity = if intensity < 2 {
        0
    } else if intensity < 12 || decoys == Decoys::One {
        1
    } else {
        2
    };
    let basis = if basis < 5 { Basis::Key } else { Basis::Test };
    Preparation { basis, bit, intensity: Intensity::new(intensity).unwrap() }
}

type Disk = BTreeMap<(u8, Vec<u8>), (Vec<u8>, Option<SecretBytes>)>;

/// One end with what survives a crash.
pub(super) struct Node {
    pub(super) role: Role,
    pub(super) end: LinkEnd,
    pub(super) disk: Disk,
    /// The key pool of the site, durable by itself.
    pub(super) pool: BTreeMap<BlockSeq, Vec<u8>>,
    pub(super) records: Vec<BlockRecord>,
    pub(super) aborted: Vec<BlockRecord>,
    pub(super) errors: Vec<Error>,
    pub(super) alarms: Vec<crate::watch::Suspicion>,
    inbox: VecDeque<Vec<u8>>,
    online: bool,
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
    pub(super) block_bits: u32,
    decoys: Decoys,
    /// Most blocks in progress at once.
    pub(super) in_flight: u64,
    pub(super) qber: f64,
    pub(super) now: Time,
    pub(super) sent: usize,
    pub(super) kinds: Vec<Kind>,
    pub(super) bend: Option<Bend>,
    /// Crash this end before this output is acted on.
    pub(super) crash: Option<(Role, usize)>,
    pub(super) steps: [usize; 2],
    /// Every tag that left: direction and counter, and what it covered, as far as the message shows it.
    tags: BTreeMap<(u8, u64), Vec<u8>>,
    /// Parities on the wire by block.
    pub(super) captured: BTreeMap<BlockSeq, u64>,
    session: u64,
    slot: u64,
    rng: ChaCha20Rng,
}

/// A change of the usual configuration, the same at both ends.
pub(super) type Shape = fn(&mut LinkConfig);

impl Node {
    fn new(config: LinkConfig) -> Self {
        let role = config.role;
        let mut disk = Disk::new();
        apply(&mut disk, LinkEnd::provision(&config.link, &initial_key()).unwrap());
        let end = LinkEnd::restore(config, records(&disk)).unwrap();
        Self {
            role,
            end,
            disk,
            pool: BTreeMap::new(),
            records: Vec::new(),
            aborted: Vec::new(),
            errors: Vec::new(),
            alarms: Vec::new(),
            inbox: VecDeque::new(),
            online: false,
        }
    }
}

impl Node {
    /// What no real disk may do, a second branch of history; for a test that looks at both.
    pub(super) fn restart_from(&mut self, records: Vec<Record>, block_bits: u32) {
        self.disk.clear();
        apply(&mut self.disk, records.into_iter().map(Change::Put).collect());
        self.end = LinkEnd::restore(config(self.role, block_bits), super::pair::records(&self.disk)).unwrap();
    }
}

impl Pair {
    pub(super) fn new(block_bits: u32, seed: u64) -> Self {
        Self::shaped(block_bits, seed, |_| {})
    }

    pub(super) fn shaped(block_bits: u32, seed: u64, shape: Shape) -> Self {
        let shaped = |role| {
            let mut config = config(role, block_bits);
            shape(&mut config);
            config
        };
        let decoys = shaped(Role::Alice).decoy.decoys();
        let mut pair = Self {
            nodes: [Role::Alice, Role::Bob].map(|role| Node::new(shaped(role))),
            block_bits,
            decoys,
            in_flight: 0,
            qber: 0.01,
            now: Time::ZERO,
            sent: 0,
            kinds: Vec::new(),
            bend: None,
            crash: None,
            steps: [0; 2],
            tags: BTreeMap::new(),
            captured: BTreeMap::new(),
            session: 0,
            slot: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
        };
        pair.new_session();
        pair
    }

    /// A new source at Alice, known at both ends.
    pub(super) fn new_session(&mut self) {
        self.session += 1;
        self.slot = 0;
        let (session, seed, decoys) = (self.session, self.session, self.decoys);
        let source = Box::new(move |slots: &[Slot]| slots.iter().map(|slot| prepare(seed, *slot, decoys)).collect());
        self.input(0, Input::Transmitting { session, source });
        self.input(1, Input::Receiving { session });
    }

    /// Gives Bob detections for `blocks` blocks and lets everything run until nothing moves.
    pub(super) fn run(&mut self, blocks: f64) {
        self.reconnect();
        let count = (f64::from(self.block_bits) * blocks / 0.25) as usize;
        let detections = self.detect(count);
        self.input(1, Input::Detections(detections));
        self.settle();
    }

    /// Gives an end a watchdog's reading.
    pub(super) fn read(&mut self, at: usize, input: Input) {
        self.input(at, input);
        while self.step() {}
    }

    /// Gives Bob a few detections and stops when nothing moves without time moving.
    pub(super) fn try_to_open(&mut self) {
        self.reconnect();
        let detections = self.detect(10);
        self.input(1, Input::Detections(detections));
        while self.step() {}
    }

    /// Reconnects, however often an end gives up, until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            while self.step() {}
            if self.nodes.iter().all(|node| node.online) {
                let next = self.nodes.iter().filter_map(|node| node.end.poll_timeout()).min();
                let Some(next) = next else { return };
                self.now = self.now.max(next);
                for at in 0..2 {
                    if let Err(error) = self.nodes[at].end.handle_timeout(self.now) {
                        self.fail(at, error);
                    }
                }
            } else {
                self.disconnect();
                self.reconnect();
            }
        }
        assert!(self.nodes.iter().all(|node| node.online), "only a refused end may go on trying");
    }

    /// Begins the audit of tags anew, on a second branch of history.
    pub(super) fn forget_tags(&mut self) {
        self.tags.clear();
        self.captured.clear();
    }

    pub(super) fn reconnect(&mut self) {
        if self.nodes.iter().all(|node| !node.online) {
            for at in 0..2 {
                self.nodes[at].online = true;
                self.input(at, Input::Connected);
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        for at in 0..2 {
            self.nodes[at].inbox.clear();
            self.nodes[at].online = false;
            self.input(at, Input::Disconnected);
        }
    }

    pub(super) fn detect(&mut self, count: usize) -> Vec<Detection> {
        let share = [0.3, 0.1, 0.0007].map(|rate| (rate / 0.3 * 4_294_967_296.0) as u64);
        let error = (self.qber * 4_294_967_296.0) as u64;
        let mut detections = Vec::with_capacity(count);
        while detections.len() < count {
            self.slot += 1 + u64::from(self.rng.next_u32() % 900);
            let slot = Slot(self.slot);
            let prepared = prepare(self.session, slot, self.decoys);
            if u64::from(self.rng.next_u32()) >= share[prepared.intensity.index()] {
                continue;
            }
            let basis = if self.rng.next_u32() % 10 < 5 { Basis::Key } else { Basis::Test };
            let noise = u64::from(self.rng.next_u32()) < error;
            let bit = if basis == prepared.basis { prepared.bit ^ noise } else { self.rng.next_u32() & 1 == 1 };
            detections.push(Detection { slot, basis, bit, double: false });
        }
        detections
    }

    /// Acts on one output or one message; `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        for at in 0..2 {
            if let Some(output) = self.nodes[at].end.poll_output() {
                self.steps[at] += 1;
                if self.crash == Some((self.nodes[at].role, self.steps[at])) {
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
        match output {
            Output::Send(wire) => self.carry(at, wire),
            Output::Persist { seq, changes } => {
                apply(&mut self.nodes[at].disk, changes);
                self.input(at, Input::Durable(seq));
            }
            Output::Block(block) => {
                let node = &mut self.nodes[at];
                let key = block.key.into_public("test bytes");
                if let Some(before) = node.pool.insert(block.seq, key.clone()) {
                    assert_eq!(before, key, "a block handed over again is the same");
                } else {
                    assert_eq!(block.record.outcome, Outcome::Filed);
                    node.records.push(block.record);
                }
                self.input(at, Input::Filed(block.seq));
            }
            Output::Aborted(record) => self.nodes[at].aborted.push(*record),
            Output::Alarm(alarm) => self.nodes[at].alarms.push(alarm.suspicion),
            Output::Progress(progress) => self.in_flight = self.in_flight.max(progress.in_flight),
        }
    }

    fn carry(&mut self, from: usize, mut wire: Vec<u8>) {
        let role = self.nodes[from].role;
        self.watch(&wire);
        self.sent += 1;
        let fate = self.bend.as_mut().map_or(Fate::Arrives, |bend| bend(self.sent - 1, role, &mut wire));
        if fate == Fate::Cut {
            self.disconnect();
        } else if self.nodes[1 - from].online {
            self.nodes[1 - from].inbox.push_back(wire);
        }
    }

    /// Audits what leaves an end: no pad for two messages, every parity counted.
    fn watch(&mut self, wire: &[u8]) {
        let message = Message::decode(wire).unwrap();
        self.kinds.push(message.kind());
        let mut tagged = |direction: u8, counter: u64| {
            let before = self.tags.insert((direction, counter), wire.to_vec());
            assert!(before.is_none_or(|before| before == wire), "pad {direction}/{counter} hides two messages");
        };
        match message {
            Message::Block(block, Step::Parities(bits)) => {
                *self.captured.entry(block).or_default() += bits.len() as u64;
            }
            Message::Block(_, Step::Finish(finish)) => tagged(0, finish.counter),
            Message::Block(_, Step::Confirm { counter, .. }) => tagged(1, counter),
            Message::Verdict(verdict) => tagged(0, verdict.counter),
            _ => {}
        }
    }

    fn restart(&mut self, at: usize) {
        let role = self.nodes[at].role;
        self.nodes[at].end =
            LinkEnd::restore(self.nodes[at].end.config().clone(), records(&self.nodes[at].disk)).unwrap();
        self.disconnect();
        match role {
            Role::Alice => self.new_session(),
            Role::Bob => {
                let session = self.session;
                self.input(1, Input::Receiving { session });
            }
        }
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        if let Err(error) = self.nodes[at].end.handle_input(self.now, input, &mut self.rng) {
            self.fail(at, error);
        }
    }

    fn fail(&mut self, at: usize, error: Error) {
        self.nodes[at].errors.push(error);
        self.nodes[at].online = false;
        self.nodes[at].inbox.clear();
    }

    /// What must hold whenever nothing moves.
    pub(super) fn check(&self) {
        let [alice, bob] = &self.nodes;
        assert!(alice.pool == bob.pool, "the same key under the same numbers, or none");
        for node in &self.nodes {
            let waiting = node.disk.keys().filter(|(table, _)| *table == crypto::record::Table::LinkPending as u8);
            assert_eq!(waiting.count(), 0, "nothing waits at {:?}", node.role);
        }
        for (a, b) in alice.records.iter().zip(&bob.records) {
            assert_eq!(a, b, "the same record at both ends");
            assert!(self.captured[&a.block] <= a.leak.0, "the wire disclosed no more than was charged");
            assert_eq!(a.secret.0 - a.kept.0, 8 * alice.pool[&a.block].len() as u64);
        }
        // A tag that was lost is spent at its sender only.
        let ((a_sends, a_accepts), (b_sends, b_accepts)) = (alice.end.tags_left(), bob.end.tags_left());
        assert!(a_sends <= b_accepts && b_sends <= a_accepts, "nobody sends a tag without key at the other end");
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
