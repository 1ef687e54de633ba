//! Two sites that interwork: cores, disks, simple KMEs, and a wire with a fault injector.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use etsi::etsi020::{ACK_PATH, AckContainers, CallbackUrl, EXT_KEYS_PATH, ExtKeyContainer, VOID_PATH, VoidContainer};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use types::id::{KeyId, RequestId, SaeId};
use types::units::Time;

use crate::interwork::{Answer, CallId, Config, Input, Interwork, Output, PeerConfig, PeerRequest, Reply};
use crate::{ExportFailure, Refusal};

pub(super) fn sae(name: &str) -> SaeId {
    SaeId::new(name).unwrap()
}

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It never arrives.
    Drop,
    /// The other side answers this without looking at it.
    Status(u16),
    /// It arrives and is done, and the answer is lost.
    LostAnswer,
    /// It arrives, long after its sender gave it up.
    Late,
    /// It arrives, and once more later.
    Twice,
}

/// When a side is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    pub(super) side: usize,
    /// At its commit of this number, counted over all lives.
    pub(super) commit: u64,
    /// Whether the commit reached the disk.
    pub(super) durable: bool,
}

/// What a KME holds of one foreign key.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bits: SecretBytes,
    pub(super) initiator: SaeId,
    pub(super) targets: Vec<SaeId>,
    /// The SAE fetched it.
    pub(super) fetched: bool,
}

/// An export as its KME sees it.
#[derive(Debug)]
pub(super) struct Exporting {
    pub(super) master: SaeId,
    pub(super) slave: SaeId,
    pub(super) keys: Vec<(KeyId, SecretBytes)>,
    pub(super) result: Option<Result<(), ExportFailure>>,
}

/// The KME beside a core; durable in itself.
#[derive(Debug, Default)]
pub(super) struct SimpleKme {
    pub(super) exports: BTreeMap<KeyId, Exporting>,
    pub(super) held: BTreeMap<KeyId, Held>,
    /// Answers to the next imports, `Ok` when there are none.
    pub(super) refusals: Vec<Refusal>,
    /// Withdrawals that were asked.
    pub(super) withdrawn: u32,
}

pub(super) struct Side {
    name: &'static str,
    pub(super) core: Option<Interwork>,
    pub(super) kme: SimpleKme,
    disk: BTreeMap<Vec<u8>, (Vec<u8>, Option<SecretBytes>)>,
    life: u64,
    commits: u64,
    next_request: u64,
    /// Requests of the other side that are not answered.
    open: BTreeMap<RequestId, Origin>,
    pub(super) replies: Vec<Reply>,
}

/// Who waits for an answer: a call of the other side's life, or a test.
#[derive(Clone, Copy, Debug)]
struct Origin {
    call: Option<(u64, CallId)>,
}

enum Due {
    Arrive { to: usize, path: String, body: Vec<u8>, origin: Origin },
    Answer { to: usize, life: u64, call: CallId, answer: Answer },
    Kme { to: usize, life: u64, input: Input },
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) sides: [Side; 2],
    due: BTreeMap<(Time, u64), Due>,
    next: u64,
    rng: ChaCha12Rng,
    /// The faults of the next calls; after that none.
    pub(super) script: Vec<Fault>,
    /// Random faults until then.
    pub(super) faults_until: Time,
    pub(super) crash: Option<Crash>,
    pub(super) calls: Vec<(usize, String)>,
    /// Optional extensions of the transfers.
    pub(super) optional: Vec<Option<String>>,
    /// Calls to A are answered 200 by the wire.
    pub(super) is_a_played: bool,
}

/// The settings of one side: `a1` and `a2` at A, `b1` and `b2` at B, and `c1` behind a third KME at B.
pub(super) fn config(side: usize) -> Config {
    let (own, other) = if side == 0 { ("a", "b") } else { ("b", "a") };
    let saes = |of: &str| BTreeSet::from([sae(&format!("{of}1")), sae(&format!("{of}2"))]);
    let mut config = Config::new(saes(own));
    let peer = PeerConfig {
        authority: format!("{other}.test:443"),
        callback: CallbackUrl::of(&format!("{own}.test"), ACK_PATH).unwrap(),
        saes: saes(other),
    };
    config.peers.insert(format!("kme-{other}"), peer.clone());
    if side == 1 {
        let third = PeerConfig { authority: "c.test:443".to_owned(), saes: saes("c"), ..peer };
        config.peers.insert("kme-c".to_owned(), third);
    }
    config
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let side = |index: usize| Side {
            name: ["kme-a", "kme-b"][index],
            core: Some(Interwork::restore(Time::ZERO, config(index), Vec::new()).unwrap()),
            kme: SimpleKme::default(),
            disk: BTreeMap::new(),
            life: 0,
            commits: 0,
            next_request: 0,
            open: BTreeMap::new(),
            replies: Vec::new(),
        };
        Self {
            now: Time::ZERO,
            sides: [side(0), side(1)],
            due: BTreeMap::new(),
            next: 0,
            rng: ChaCha12Rng::seed_from_u64(seed),
            script: Vec::new(),
            faults_until: Time::ZERO,
            crash: None,
            calls: Vec::new(),
            optional: Vec::new(),
            is_a_played: false,
        }
    }

    /// A world in which the test plays A.
    pub(super) fn of_b() -> Self {
        Self { is_a_played: true, ..Self::new(1) }
    }

    /// Commits of both sides.
    pub(super) fn commits(&self) -> [u64; 2] {
        [self.sides[0].commits, self.sides[1].commits]
    }

    /// The KME of a side exports keys; gives the export's id.
    pub(super) fn export(&mut self, side: usize, master: &str, slave: &str, keys: Vec<(KeyId, SecretBytes)>) -> KeyId {
        let export = self.id();
        let exporting = Exporting { master: sae(master), slave: sae(slave), keys, result: None };
        self.sides[side].kme.exports.insert(export, exporting);
        self.tell_export(side, export);
        export
    }

    /// As [`World::export`], with fresh keys.
    pub(super) fn export_fresh(&mut self, side: usize, master: &str, slave: &str, count: usize) -> KeyId {
        let keys = (0..count).map(|_| (self.id(), SecretBytes::random(32, &mut self.rng))).collect();
        self.export(side, master, slave, keys)
    }

    pub(super) fn id(&mut self) -> KeyId {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        KeyId::from_random(bytes)
    }

    fn tell_export(&mut self, side: usize, export: KeyId) {
        let peer = self.sides[1 - side].name.to_owned();
        let exporting = &self.sides[side].kme.exports[&export];
        let keys = exporting.keys.iter().map(|(key, bits)| (*key, bits.duplicate())).collect();
        let (master, slave) = (exporting.master.clone(), exporting.slave.clone());
        let passed_on = crate::PassedOn::new(PASSED_ON);
        self.input(side, Input::Export { export, peer, master, slave, keys, passed_on });
    }

    /// A request comes to a side as if the other sent it; its reply goes to [`Side::replies`].
    pub(super) fn request(&mut self, side: usize, request: PeerRequest) -> Option<Reply> {
        let peer = self.sides[1 - side].name;
        self.request_of(side, peer, request)
    }

    /// As [`World::request`], of a KME by name.
    pub(super) fn request_of(&mut self, side: usize, peer: &str, request: PeerRequest) -> Option<Reply> {
        let before = self.sides[side].replies.len();
        let id = self.request_id(side, Origin { call: None });
        self.input(side, Input::Request { id, peer: peer.to_owned(), request });
        assert!(self.sides[side].replies.len() <= before + 1);
        self.sides[side].replies.get(before).cloned()
    }

    fn request_id(&mut self, side: usize, origin: Origin) -> RequestId {
        self.sides[side].next_request += 1;
        let id = RequestId(self.sides[side].next_request);
        self.sides[side].open.insert(id, origin);
        id
    }

    pub(super) fn input(&mut self, side: usize, input: Input) {
        if let Some(core) = &mut self.sides[side].core {
            core.handle_input(self.now, input, &mut self.rng);
        }
        self.drain(side);
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.sides[side].core.as_mut().and_then(Interwork::poll_output) {
            match output {
                Output::Commit { seq, changes, .. } => {
                    self.sides[side].commits += 1;
                    let commit = self.sides[side].commits;
                    let crash = self.crash.filter(|crash| crash.side == side && crash.commit == commit);
                    if crash.is_none_or(|crash| crash.durable) {
                        changes.into_iter().for_each(|change| self.sides[side].apply(change));
                    }
                    if crash.is_some() {
                        self.crash = None;
                        return self.restart(side);
                    }
                    let core = self.sides[side].core.as_mut().unwrap();
                    core.handle_input(self.now, Input::Durable(seq), &mut self.rng);
                }
                Output::Call { call, path, body, .. } => self.called(side, call, &path, &body),
                Output::Reply { id, reply } => self.replied(side, id, reply),
                Output::Import { id, initiator, targets, keys } => {
                    let result = self.sides[side].kme.import(&initiator, &targets, keys);
                    self.later_kme(side, Input::Imported { id, result });
                }
                Output::Withdraw { id, ids, .. } => {
                    let result = self.sides[side].kme.withdraw(&ids);
                    self.later_kme(side, Input::Withdrawn { id, result });
                }
                Output::Exported { export, result } => {
                    let exporting = self.sides[side].kme.exports.get_mut(&export).unwrap();
                    let first = *exporting.result.get_or_insert(result);
                    assert!(first == result || result.is_err(), "an export that failed is not relayed later");
                }
            }
        }
    }

    fn later_kme(&mut self, side: usize, input: Input) {
        let life = self.sides[side].life;
        let wait = Duration::from_millis(u64::from(self.rng.next_u32() % 20));
        self.at(wait, Due::Kme { to: side, life, input });
    }

    fn at(&mut self, wait: Duration, due: Due) {
        self.next += 1;
        self.due.insert((self.now.after(wait), self.next), due);
    }

    fn fault(&mut self) -> Fault {
        if !self.script.is_empty() {
            return self.script.remove(0);
        }
        if self.now >= self.faults_until {
            return Fault::None;
        }
        match self.rng.next_u32() % 10 {
            0 => Fault::Drop,
            1 => Fault::Status(408),
            2 => Fault::Status(503),
            3 | 4 => Fault::LostAnswer,
            5 => Fault::Late,
            6 => Fault::Twice,
            _ => Fault::None,
        }
    }

    fn called(&mut self, side: usize, call: CallId, path: &str, body: &SecretBytes) {
        self.calls.push((side, path.to_owned()));
        let (to, life) = (1 - side, self.sides[side].life);
        let fault = if self.is_a_played { Fault::Status(200) } else { self.fault() };
        let (soon, long) = (Duration::from_millis(5), secs(u64::from(self.rng.next_u32() % 90)));
        let body = body.expose(<[u8]>::to_vec);
        if path == etsi::etsi020::EXT_KEYS_PATH {
            let transfer = etsi::etsi020::ExtKeyContainer::parse(&body).unwrap();
            self.optional.push(transfer.extension_optional.map(|extension| extension.as_json().to_owned()));
        }
        let arrive = |origin: Origin| Due::Arrive { to, path: path.to_owned(), body: body.clone(), origin };
        let answered = Origin { call: Some((life, call)) };
        let unheard = Origin { call: None };
        let lost = |answer: Answer| Due::Answer { to: side, life, call, answer };
        match fault {
            Fault::None => self.at(soon, arrive(answered)),
            Fault::Drop => self.at(secs(1), lost(Answer::Lost)),
            Fault::Status(status) => self.at(soon, lost(Answer::Status(status, Vec::new()))),
            Fault::LostAnswer => {
                self.at(soon, arrive(unheard));
                self.at(secs(1), lost(Answer::Lost));
            }
            Fault::Late => {
                self.at(secs(1), lost(Answer::Lost));
                self.at(long, arrive(unheard));
            }
            Fault::Twice => {
                self.at(soon, arrive(answered));
                self.at(long, arrive(unheard));
            }
        }
    }

    fn replied(&mut self, side: usize, id: RequestId, reply: Reply) {
        let origin = self.sides[side].open.remove(&id).expect("a request is answered once");
        self.sides[side].replies.push(reply.clone());
        let Some((life, call)) = origin.call else { return };
        let answer = match reply {
            Reply::Accepted => Answer::Status(202, Vec::new()),
            Reply::Taken => Answer::Status(200, Vec::new()),
            Reply::Resolved(acks) => Answer::Status(200, acks.to_json()),
            Reply::Refused(problem) => Answer::Status(problem.status.unwrap(), problem.to_json()),
        };
        self.at(Duration::from_millis(5), Due::Answer { to: 1 - side, life, call, answer });
    }

    /// Kills a side and starts it from its disk.
    pub(super) fn restart(&mut self, side: usize) {
        let records = self.sides[side].records();
        let state = &mut self.sides[side];
        state.life += 1;
        for origin in std::mem::take(&mut state.open).into_values() {
            if let Some((life, call)) = origin.call {
                self.at(Duration::from_millis(5), Due::Answer { to: 1 - side, life, call, answer: Answer::Lost });
            }
        }
        let core = Interwork::restore(self.now, config(side), records).unwrap();
        self.sides[side].core = Some(core);
        self.drain(side);
        // Its KME was killed with it and says again what it does not know the end of.
        let waiting = self.sides[side].kme.exports.iter().filter(|(_, export)| export.result.is_none());
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for export in waiting {
            self.tell_export(side, export);
        }
    }

    /// Runs until nothing is due before `until`.
    pub(super) fn run_until(&mut self, until: Time) {
        loop {
            let timers = self.sides.iter().filter_map(|side| side.core.as_ref()?.poll_timeout());
            let wire = self.due.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timers.chain(wire).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let due = entry.remove();
                self.happen(due);
            }
            for side in 0..2 {
                if self.sides[side].core.as_ref().and_then(Interwork::poll_timeout).is_some_and(|at| at <= self.now) {
                    self.sides[side].core.as_mut().unwrap().handle_timeout(self.now, &mut self.rng);
                    self.drain(side);
                }
            }
        }
        self.now = self.now.max(until);
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(self.now.after(time));
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Kme { to, life, input } if self.sides[to].life == life => self.input(to, input),
            Due::Answer { to, life, call, answer } if self.sides[to].life == life => {
                self.input(to, Input::Answer { call, answer });
            }
            Due::Arrive { to, path, body, origin } => {
                let request = match path.as_str() {
                    EXT_KEYS_PATH => PeerRequest::Transfer(ExtKeyContainer::parse(&body).unwrap()),
                    ACK_PATH => PeerRequest::Ack(AckContainers::parse(&body).unwrap()),
                    VOID_PATH => PeerRequest::Void(VoidContainer::parse(&body).unwrap()),
                    other => panic!("{other}"),
                };
                let id = self.request_id(to, origin);
                let peer = self.sides[1 - to].name.to_owned();
                self.input(to, Input::Request { id, peer, request });
            }
            Due::Kme { .. } | Due::Answer { .. } => {}
        }
    }
}

impl Side {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(record) => {
                assert_eq!(record.table, Table::Interwork);
                assert!(record.value.len() <= Record::VALUE_MAX && record.key.len() <= Record::KEY_MAX);
                self.disk.insert(record.key, (record.value, record.secret));
            }
            Change::Update { key, value, .. } => self.disk.get_mut(&key).unwrap().0 = value,
            Change::Delete { key, .. } => _ = self.disk.remove(&key),
        }
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let record = |(key, (value, secret)): (&Vec<u8>, &(Vec<u8>, Option<SecretBytes>))| Record {
            table: Table::Interwork,
            key: key.clone(),
            value: value.clone(),
            secret: secret.as_ref().map(SecretBytes::duplicate),
        };
        self.disk.iter().map(record).collect()
    }

    /// How many records of a kind are on disk.
    pub(super) fn count(&self, kind: u8) -> usize {
        self.disk.keys().filter(|key| key[0] == kind).count()
    }

    /// Whether any stored secret holds these bytes.
    pub(super) fn stores(&self, bytes: &[u8]) -> bool {
        let holds = |secret: &SecretBytes| secret.expose(|all| all.windows(bytes.len()).any(|w| w == bytes));
        self.disk.values().filter_map(|(_, secret)| secret.as_ref()).any(holds)
    }
}

impl SimpleKme {
    fn import(&mut self, initiator: &SaeId, targets: &[SaeId], keys: Vec<(KeyId, SecretBytes)>) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusals.pop() {
            return Err(refusal);
        }
        for (key, bits) in keys {
            let held = Held { bits, initiator: initiator.clone(), targets: targets.to_vec(), fetched: false };
            self.held.entry(key).or_insert(held);
        }
        Ok(())
    }

    fn withdraw(&mut self, ids: &[KeyId]) -> Result<(), Refusal> {
        self.withdrawn += 1;
        if ids.iter().any(|key| self.held.get(key).is_some_and(|held| held.fetched)) {
            return Err(Refusal::KeyDelivered);
        }
        if !ids.iter().all(|key| self.held.contains_key(key)) {
            return Err(Refusal::KeysNotFound);
        }
        ids.iter().for_each(|key| _ = self.held.remove(key));
        Ok(())
    }
}

/// What every export says besides.
pub(super) const PASSED_ON: &str = r#"{"E32473_module":  {"version": 2.50}}"#;
