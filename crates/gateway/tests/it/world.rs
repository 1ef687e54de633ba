//! A gateway end and a terminal end, a key management entity, stores and a wire, all in virtual time.
//!
//! The world checks on every step what must always hold: no unit of pad is sent twice, whatever crashed or was
//! restored, and nothing of the plain side is readable on the
//! wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::record::{Change, Record};
use crypto::secret::SecretBytes;
use gateway::{Input, Level, Output, Policy, Pools, Role, Session, SessionConfig, StreamId, SupplyPlan};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use terminal::access::{KeySource, OPENING_LEN, Unverified};
use terminal::record::split_epoch;
use terminal::suite::UNIT;
use terminal::{Direction, EpochLimits, Header, HeaderMask, Suite};
use types::event::Event;
use types::id::{KeyId, SaeId, TerminalId};
use types::units::Time;

pub(crate) type Store = BTreeMap<Vec<u8>, (Vec<u8>, Option<SecretBytes>)>;

/// Changes bytes on the wire: sending end, bytes.
pub(crate) type Tamper = Box<dyn FnMut(usize, &mut Vec<u8>)>;

pub(crate) const WIRE: Duration = Duration::from_millis(5);
pub(crate) const DISK: Duration = Duration::from_millis(3);
pub(crate) const KME: Duration = Duration::from_millis(30);

/// One end.
pub(crate) struct End {
    pub(crate) role: Role,
    pub(crate) session: Option<Session>,
    pub(crate) store: Store,
    pub(crate) policy: Policy,
    pub(crate) plan: SupplyPlan,
    pub(crate) closed: Option<String>,
    pub(crate) opened: bool,
    pub(crate) events: Vec<Event>,
    pub(crate) dialed: Vec<StreamId>,
    pub(crate) delivered: BTreeMap<StreamId, Vec<u8>>,
    pub(crate) finished: Vec<StreamId>,
    pub(crate) reset: Vec<StreamId>,
    pub(crate) ready: BTreeSet<StreamId>,
    /// Time at which the last byte was delivered here.
    pub(crate) last_delivery: Time,
    pending: Vec<(Time, Input)>,
    commits: Vec<(Time, u64, Vec<Change>)>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    /// Gateway, terminal.
    pub(crate) ends: [End; 2],
    pub(crate) kme: BTreeMap<KeyId, SecretBytes>,
    pub(crate) kme_works: bool,
    pub(crate) ordered: u64,
    /// Changes what goes over the wire: sending end, bytes.
    pub(crate) tamper: Tamper,
    pub(crate) used: BTreeSet<(u32, u64)>,
    pub(crate) epochs: BTreeSet<(u32, u64, u64)>,
    pub(crate) suites: Vec<(usize, Suite, terminal::Class, usize)>,
    pub(crate) wire: Vec<u8>,
    masks: Option<[HeaderMask; 2]>,
    seen_keys: BTreeMap<KeyId, SecretBytes>,
    seen_slots: BTreeMap<(u32, u32), SecretBytes>,
    rng: ChaCha20Rng,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let end = |role| End {
            role,
            session: None,
            store: Store::new(),
            policy: Policy::new(16 * 1024),
            plan: SupplyPlan::default(),
            closed: None,
            opened: false,
            events: Vec::new(),
            dialed: Vec::new(),
            delivered: BTreeMap::new(),
            finished: Vec::new(),
            reset: Vec::new(),
            ready: BTreeSet::new(),
            last_delivery: Time::ZERO,
            pending: Vec::new(),
            commits: Vec::new(),
        };
        Self {
            now: Time::ZERO,
            ends: [end(Role::Gateway), end(Role::Terminal)],
            kme: BTreeMap::new(),
            kme_works: true,
            ordered: 0,
            tamper: Box::new(|_, _| {}),
            used: BTreeSet::new(),
            epochs: BTreeSet::new(),
            suites: Vec::new(),
            wire: Vec::new(),
            masks: None,
            seen_keys: BTreeMap::new(),
            seen_slots: BTreeMap::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
        }
    }

    /// Both processes (re)start from their stores and connect.
    pub(crate) fn connect(&mut self) {
        // Epochs of the session's own seeds are new each time.
        self.epochs.retain(|(batch, ..)| batch << 1 != 0);
        for end in &mut self.ends {
            let terminal = TerminalId::new("ftu-7").unwrap();
            let records = end.store.iter().map(|(key, (value, secret))| Record {
                table: crypto::record::Table::TerminalBatch,
                key: key.clone(),
                value: value.clone(),
                secret: secret.as_ref().map(SecretBytes::duplicate),
            });
            let pools = Pools::load(end.role, terminal.clone(), records.collect()).unwrap();
            let mut nonce = [0; 16];
            self.rng.fill_bytes(&mut nonce);
            let config = SessionConfig {
                terminal,
                center: SaeId::new("gateway-1").unwrap(),
                policy: end.policy.clone(),
                supply: end.plan.clone(),
                limits: EpochLimits::default(),
                nonce,
            };
            end.session = Some(Session::new(self.now, config, pools));
            (end.closed, end.opened) = (None, false);
            end.pending.clear();
            end.commits.clear();
            end.ready.clear();
            end.dialed.clear();
            end.delivered.clear();
            end.finished.clear();
            end.reset.clear();
        }
        self.drain();
    }

    /// Both processes die: what was not durable is lost.
    pub(crate) fn crash(&mut self) {
        for end in &mut self.ends {
            end.session = None;
            end.pending.clear();
            end.commits.clear();
        }
    }

    pub(crate) fn input(&mut self, at: usize, input: Input) {
        if let Some(session) = &mut self.ends[at].session {
            session.handle_input(self.now, input);
        }
        self.drain();
    }

    pub(crate) fn open_stream(&mut self, at: usize) -> StreamId {
        let stream = self.ends[at].session.as_mut().unwrap().open_stream(self.now).unwrap();
        self.ends[at].ready.insert(stream);
        self.drain();
        stream
    }

    /// Plain bytes at one end, in pieces as the stream takes them.
    pub(crate) fn send(&mut self, at: usize, stream: StreamId, bytes: &[u8]) {
        for piece in bytes.chunks(4096) {
            for _ in 0..1000 {
                if self.ends[at].ready.contains(&stream) {
                    break;
                }
                self.run(Duration::from_millis(1));
            }
            assert!(self.ends[at].ready.remove(&stream), "the stream takes no bytes for a second");
            self.input(at, Input::PlainReceived { stream, bytes: piece.to_vec() });
        }
    }

    pub(crate) fn level(&self, at: usize) -> Level {
        self.ends[at].session.as_ref().unwrap().status().level
    }

    /// Runs until nothing happens before `span` has passed.
    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now.after(span);
        loop {
            let next = self.ends.iter().filter_map(End::next_time).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            for at in 0..2 {
                self.turn(at);
            }
        }
        self.now = until;
    }

    fn turn(&mut self, at: usize) {
        let now = self.now;
        let end = &mut self.ends[at];
        let mut inputs = Vec::new();
        let mut index = 0;
        while index < end.commits.len() {
            if end.commits[index].0 <= now {
                let (_, seq, changes) = end.commits.remove(index);
                apply(&mut end.store, changes);
                inputs.push(Input::Durable(seq));
            } else {
                index += 1;
            }
        }
        let mut index = 0;
        while index < end.pending.len() {
            if end.pending[index].0 <= now { inputs.push(end.pending.remove(index).1) } else { index += 1 }
        }
        if let Some(session) = &mut end.session {
            for input in inputs {
                session.handle_input(now, input);
            }
            if session.poll_timeout().is_some_and(|due| due <= now) {
                session.handle_timeout(now);
                assert!(session.poll_timeout().is_none_or(|due| due > now), "a timeout that is always due");
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..2 {
                while let Some(output) = self.ends[at].session.as_mut().and_then(Session::poll_output) {
                    quiet = false;
                    self.take(at, output);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn take(&mut self, at: usize, output: Output) {
        let now = self.now;
        let end = &mut self.ends[at];
        match output {
            Output::Send(mut bytes) => {
                let len = bytes.len();
                self.watch(at, &bytes);
                (self.tamper)(at, &mut bytes);
                self.ends[at].pending.push((now.after(Duration::from_micros(100)), Input::Written(len)));
                self.ends[1 - at].pending.push((now.after(WIRE), Input::Received(bytes)));
            }
            Output::Dial(stream) => {
                end.dialed.push(stream);
                end.ready.insert(stream);
            }
            Output::Deliver { stream, bytes } => {
                end.last_delivery = now;
                end.delivered.entry(stream).or_default().extend_from_slice(&bytes);
                end.pending.push((now, Input::PlainDelivered { stream, bytes: bytes.len() }));
            }
            Output::Finish(stream) => end.finished.push(stream),
            Output::Reset(stream) => end.reset.push(stream),
            Output::Ready(stream) => {
                end.ready.insert(stream);
            }
            Output::OrderKeys { request, number, size, .. } => {
                let keys = if self.kme_works {
                    let mut keys = Vec::new();
                    for _ in 0..number {
                        self.ordered += 1;
                        let mut id = [0; 16];
                        self.rng.fill_bytes(&mut id);
                        let id = KeyId::from_random(id);
                        let key = SecretBytes::random(usize::try_from(size.0 / 8).unwrap(), &mut self.rng);
                        self.kme.insert(id, key.duplicate());
                        self.seen_keys.insert(id, key.duplicate());
                        keys.push((id, key));
                    }
                    Ok(keys)
                } else {
                    Err("no key in stock".to_owned())
                };
                end.pending.push((now.after(KME), Input::KeysOrdered { request, keys }));
            }
            Output::CollectKeys { request, ids } => {
                let keys = ids.iter().map(|id| self.kme.remove(id).ok_or_else(|| format!("key {id} is not here")));
                let keys = keys.collect();
                end.pending.push((now.after(KME), Input::KeysCollected { request, keys }));
            }
            Output::Commit { seq, changes } => {
                for change in &changes {
                    if let Change::Put(Record { key, secret: Some(secret), .. }) = change
                        && secret.len() == OPENING_LEN
                    {
                        let place = key.last_chunk::<8>().unwrap();
                        let number = |at: usize| u32::from_be_bytes(place[at..at + 4].try_into().unwrap());
                        self.seen_slots.insert((number(0), number(4)), secret.duplicate());
                    }
                }
                end.commits.push((now.after(DISK), seq, changes));
            }
            Output::Event(event) => end.events.push(event),
            Output::Opened => end.opened = true,
            Output::Close { reason } => {
                end.closed = Some(reason);
                self.ends[1 - at].pending.push((now.after(WIRE * 2), Input::Lost));
            }
        }
    }

    /// Learns a session's header masks from its opening: this eavesdropper has every key there ever was.
    fn read_opening(&mut self, frame: &[u8]) {
        let Ok((_, opening)) = Unverified::parse(frame) else { return };
        let bytes: Vec<u8> = match opening.keys {
            KeySource::Keys(ids) => ids.iter().flat_map(|id| self.seen_keys[id].expose(<[u8]>::to_vec)).collect(),
            KeySource::Slot { batch, slot } => self.seen_slots[&(batch.0, slot)].expose(<[u8]>::to_vec),
        };
        let seed = |at: usize| SecretBytes::copy_of(&bytes[OPENING_LEN - 64 + at..OPENING_LEN - 32 + at]);
        let mask = |way, at| HeaderMask::new(way, &seed(at)).unwrap();
        self.masks = Some([mask(Direction::Down, 0), mask(Direction::Up, 32)]);
    }

    /// The eavesdropper: reads headers, and remembers each unit of pad that was used.
    fn watch(&mut self, at: usize, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
        let mut rest = bytes;
        while let Some((len, tail)) = rest.split_first_chunk::<2>() {
            let len = u16::from_be_bytes(*len);
            let (frame, tail) = tail.split_at(usize::from(len & 0x7fff));
            rest = tail;
            if len & 0x8000 != 0 {
                self.read_opening(frame);
                continue;
            }
            let mut frame = frame.to_vec();
            self.masks.as_ref().unwrap()[at].apply(&mut frame);
            let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
            let plain = frame.len() - terminal::record::OVERHEAD;
            self.suites.push((at, header.suite, header.class, plain));
            if header.suite == Suite::OtpWc128 {
                for unit in 0..header.suite.consumption(plain) / UNIT {
                    let unit = header.offset / UNIT + unit;
                    assert!(self.used.insert((header.batch.0, unit)), "pad unit {unit} of {} used twice", header.batch);
                }
            } else {
                let (start, counter) = split_epoch(header.offset);
                assert!(self.epochs.insert((header.batch.0, start, counter)), "a nonce was used twice");
                if header.batch.0 << 1 != 0 && counter == 0 {
                    for unit in [start / UNIT, start / UNIT + 1] {
                        assert!(self.used.insert((header.batch.0, unit)), "a seed was used twice");
                    }
                }
            }
        }
    }
}

impl End {
    fn next_time(&self) -> Option<Time> {
        let timeout = self.session.as_ref().and_then(Session::poll_timeout);
        let pending = self.pending.iter().map(|(at, _)| *at);
        pending.chain(self.commits.iter().map(|(at, ..)| *at)).chain(timeout).min()
    }
}

fn apply(store: &mut Store, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(record) => {
                store.insert(record.key, (record.value, record.secret));
            }
            Change::Update { key, value, .. } => store.get_mut(&key).unwrap().0 = value,
            Change::Delete { key, .. } => {
                store.remove(&key);
            }
        }
    }
}

/// A copy of a store, for a restored backup.
pub(crate) fn backup(store: &Store) -> Store {
    let copy = |secret: &Option<SecretBytes>| secret.as_ref().map(SecretBytes::duplicate);
    store.iter().map(|(key, (value, secret))| (key.clone(), (value.clone(), copy(secret)))).collect()
}

pub(crate) const COMMAND: [u8; 16] = [0x68, 14, 0, 0, 0, 0, 45, 1, 6, 0, 47, 0, 0x88, 0x13, 0, 1];
pub(crate) const FLOAT: [u8; 20] = [0x68, 18, 4, 0, 2, 0, 13, 1, 3, 0, 47, 0, 0xe8, 3, 0, 0, 0, 0x80, 0x3f, 0];
pub(crate) const TESTFR: [u8; 6] = [0x68, 4, 0x43, 0, 0, 0];

pub(crate) const SECOND: Duration = Duration::from_secs(1);
