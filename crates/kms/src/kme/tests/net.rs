//! A few KMEs, their disks and the wires between them. Everything arrives at once unless a test says otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{SeedableRng, TryCryptoRng, TryRng};
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, RequestId, SaeId, SiteId};
use types::units::{Time, UtcNanos};

use crate::message::Message;
use crate::{Config, Input, Kme, Output, Refusal, SuppliedKey, SupplyReply, SupplyRequest};

pub(super) type Answer = Result<SupplyReply, Refusal>;
/// May change or swallow a message from one site to another.
pub(super) type Wiretap = Box<dyn FnMut(&SiteId, &SiteId, &mut Vec<u8>) -> bool>;

pub(super) fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub(super) fn sae(name: &str) -> SaeId {
    SaeId::new(name).unwrap()
}

/// Changes what is drawn at random.
pub(super) type Bend = Box<dyn FnMut(&mut [u8])>;

/// Seeded randomness that a test may bend.
pub(super) struct TestRng {
    inner: ChaCha12Rng,
    pub(super) bend: Bend,
}

impl TryRng for TestRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.inner.try_fill_bytes(bytes)?;
        (self.bend)(bytes);
        Ok(())
    }
}

impl TryCryptoRng for TestRng {}

type Place = (Table, Vec<u8>);
type Content = (Vec<u8>, Option<SecretBytes>);

#[derive(Default)]
pub(super) struct Disk(BTreeMap<Place, Content>);

impl Disk {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(r) => _ = self.0.insert((r.table, r.key), (r.value, r.secret)),
            Change::Delete { table, key } => _ = self.0.remove(&(table, key)),
            Change::Update { table, key, value } => self.0.get_mut(&(table, key)).unwrap().0 = value,
        }
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let record = |((table, key), (value, secret)): (&Place, &Content)| Record {
            table: *table,
            key: key.clone(),
            value: value.clone(),
            secret: secret.as_ref().map(SecretBytes::duplicate),
        };
        self.0.iter().map(record).collect()
    }

    pub(super) fn count(&self, table: Table) -> usize {
        self.0.keys().filter(|(t, _)| *t == table).count()
    }

    /// All secrets of a table, by key.
    pub(super) fn secrets(&self, table: Table) -> Vec<Vec<u8>> {
        let of_table = self.0.iter().filter(|((t, _), _)| *t == table);
        of_table.filter_map(|(_, (_, secret))| Some(secret.as_ref()?.expose(<[u8]>::to_vec))).collect()
    }

    /// A copy, as a backup makes it.
    pub(super) fn copy(&self) -> Self {
        let content = |(value, secret): &Content| (value.clone(), secret.as_ref().map(SecretBytes::duplicate));
        Self(self.0.iter().map(|(place, all)| (place.clone(), content(all))).collect())
    }

    /// Whether any stored secret holds these bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        let found = |secret: &SecretBytes| secret.expose(|secret| secret.windows(bytes.len()).any(|w| w == bytes));
        self.0.values().filter_map(|(_, secret)| secret.as_ref()).any(found)
    }
}

/// When a site dies.
pub(super) struct Doom {
    pub(super) site: SiteId,
    pub(super) commits: u32,
    pub(super) durable: bool,
}

/// Keys that a site gave to another network.
pub(super) struct Exported {
    pub(super) export: KeyId,
    pub(super) peer: String,
    pub(super) master: SaeId,
    pub(super) slave: SaeId,
    pub(super) keys: Vec<(KeyId, SecretBytes)>,
    pub(super) passed_on: Option<crate::PassedOn>,
}

/// Sites, each linked with the next or as a test says; SAE `x1`, `x2` at site `x`.
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) rng: TestRng,
    pub(super) names: Vec<&'static str>,
    pub(super) links: Vec<(&'static str, &'static str)>,
    pub(super) kmes: BTreeMap<SiteId, Kme>,
    pub(super) disks: BTreeMap<SiteId, Disk>,
    pub(super) events: Vec<(SiteId, Event)>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) misbehaved: Vec<(SiteId, SiteId, &'static str)>,
    pub(super) tap: Wiretap,
    /// Sites whose commits are not made durable for now, with what waits.
    pub(super) stalled: BTreeMap<SiteId, VecDeque<Output>>,
    pub(super) adjust: fn(&mut Config),
    /// Dies at its commit number so many, counted down: before it is durable, or after and before anybody knows.
    pub(super) doom: Option<Doom>,
    /// Sites that do not run.
    pub(super) dead: BTreeSet<SiteId>,
    pub(super) imported: BTreeMap<RequestId, Result<(), Refusal>>,
    pub(super) withdrawn: BTreeMap<RequestId, Result<(), Refusal>>,
    pub(super) exports: Vec<Exported>,
    pub(super) export_voids: Vec<KeyId>,
    /// SAEs of other networks, and the site beside which their KME is.
    pub(super) foreign: BTreeMap<SaeId, SiteId>,
    wire: VecDeque<(SiteId, SiteId, Vec<u8>)>,
    requests: u64,
    blocks: u64,
}

impl Net {
    pub(super) fn line(names: &[&'static str], adjust: fn(&mut Config)) -> Self {
        let links: Vec<_> = names.windows(2).map(|pair| (pair[0], pair[1])).collect();
        Self::of(names, &links, adjust)
    }

    pub(super) fn ring(names: &[&'static str], adjust: fn(&mut Config)) -> Self {
        let mut links: Vec<_> = names.windows(2).map(|pair| (pair[0], pair[1])).collect();
        links.push((names[names.len() - 1], names[0]));
        Self::of(names, &links, adjust)
    }

    pub(super) fn of(names: &[&'static str], links: &[(&'static str, &'static str)], adjust: fn(&mut Config)) -> Self {
        let mut net = Self {
            now: Time::from_nanos(1),
            rng: TestRng { inner: ChaCha12Rng::from_seed([7; 32]), bend: Box::new(|_| ()) },
            names: names.to_vec(),
            links: links.to_vec(),
            kmes: BTreeMap::new(),
            disks: BTreeMap::new(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            misbehaved: Vec::new(),
            tap: Box::new(|_, _, _| true),
            stalled: BTreeMap::new(),
            adjust,
            doom: None,
            dead: BTreeSet::new(),
            imported: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            exports: Vec::new(),
            export_voids: Vec::new(),
            foreign: BTreeMap::new(),
            wire: VecDeque::new(),
            requests: 0,
            blocks: 0,
        };
        for name in names {
            net.start(name);
        }
        for name in names {
            net.meet(name);
        }
        net
    }

    /// Starts a site from its disk.
    pub(super) fn start(&mut self, name: &'static str) {
        let mut config = Config::new(site(name));
        config.target_keys = 64;
        config.started = UtcNanos(self.now.as_nanos());
        (self.adjust)(&mut config);
        let records = self.disks.entry(site(name)).or_default().records();
        self.kmes.insert(site(name), Kme::restore(self.now, config, records).unwrap());
        self.drain(&site(name));
        self.tell(name);
        let routes = self.routes(name);
        self.input(name, Input::Routes(routes));
    }

    /// All ways from a site, the shortest first.
    pub(super) fn routes(&self, name: &'static str) -> BTreeMap<SiteId, Vec<Vec<SiteId>>> {
        let mut routes: BTreeMap<SiteId, Vec<Vec<SiteId>>> = BTreeMap::new();
        let mut open = VecDeque::from([vec![name]]);
        while let Some(path) = open.pop_front() {
            for (a, b) in &self.links {
                let last = path[path.len() - 1];
                let next = if *a == last { *b } else { *a };
                if (*a == last || *b == last) && !path.contains(&next) {
                    let longer = [&path[..], &[next]].concat();
                    routes.entry(site(next)).or_default().push(longer.iter().map(|name| site(name)).collect());
                    open.push_back(longer);
                }
            }
        }
        routes
    }

    /// Tells a site which SAEs there are.
    pub(super) fn tell(&mut self, name: &str) {
        let mut directory: BTreeMap<SaeId, SiteId> =
            self.names.iter().flat_map(|at| [1, 2].map(|n| (sae(&format!("{at}{n}")), site(at)))).collect();
        directory.extend(self.foreign.clone());
        self.input(name, Input::Directory(directory));
        let here = self.foreign.iter().filter(|(_, at)| at.as_str() == name);
        let foreign = here.map(|(sae, at)| (sae.clone(), format!("kme-of-{at}"))).collect();
        self.input(name, Input::Foreign(foreign));
    }

    /// Imports without waiting.
    pub(super) fn begin_import(
        &mut self,
        at: &str,
        initiator: &str,
        targets: &[&str],
        keys: Vec<(KeyId, SecretBytes)>,
    ) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let targets = targets.iter().map(|name| sae(name)).collect();
        self.input(at, Input::Import { id, initiator: sae(initiator), targets, keys });
        self.settle();
        id
    }

    pub(super) fn import(
        &mut self,
        at: &str,
        initiator: &str,
        targets: &[&str],
        keys: Vec<(KeyId, SecretBytes)>,
    ) -> Result<(), Refusal> {
        let id = self.begin_import(at, initiator, targets, keys);
        self.advance(Duration::from_secs(5));
        self.imported.remove(&id).expect("an import is answered")
    }

    /// Withdraws without waiting.
    pub(super) fn begin_withdraw(&mut self, at: &str, initiator: &str, targets: &[&str], ids: &[KeyId]) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let targets = targets.iter().map(|name| sae(name)).collect();
        self.input(at, Input::Withdraw { id, initiator: sae(initiator), targets, ids: ids.to_vec() });
        self.settle();
        id
    }

    pub(super) fn withdraw(
        &mut self,
        at: &str,
        initiator: &str,
        targets: &[&str],
        ids: &[KeyId],
    ) -> Result<(), Refusal> {
        let id = self.begin_withdraw(at, initiator, targets, ids);
        self.advance(Duration::from_secs(5));
        self.withdrawn.remove(&id).expect("a withdrawal is answered")
    }

    /// Connects a site with all others.
    pub(super) fn meet(&mut self, name: &str) {
        for other in self.names.clone() {
            if other != name {
                self.input(name, Input::PeerUp(site(other)));
                self.input(other, Input::PeerUp(site(name)));
            }
        }
        self.settle();
    }

    /// Kills a site, starts it from its disk and connects it again.
    pub(super) fn crash(&mut self, name: &'static str) {
        self.stalled.remove(&site(name));
        self.dead.remove(&site(name));
        self.start(name);
        self.meet(name);
    }

    /// Every link gets a block of so many bytes.
    pub(super) fn blocks(&mut self, len: usize) {
        for (a, b) in self.links.clone() {
            let key = SecretBytes::random(len, &mut self.rng);
            self.block(a, b, BlockSeq(self.blocks), &key);
        }
        self.blocks += 1;
        self.settle();
    }

    /// One link gets a block.
    pub(super) fn block(&mut self, a: &str, b: &str, seq: BlockSeq, key: &SecretBytes) {
        let link = LinkId::new(&format!("{a}-{b}")).unwrap();
        for (at, peer) in [(a, b), (b, a)] {
            let (link, peer, key) = (link.clone(), site(peer), key.duplicate());
            self.input(at, Input::LinkBlock { link, peer, seq, key });
        }
    }

    pub(super) fn input(&mut self, name: &str, input: Input) {
        if self.dead.contains(&site(name)) {
            return;
        }
        let kme = self.kmes.get_mut(&site(name)).unwrap();
        kme.handle_input(self.now, input, &mut self.rng);
        self.drain(&site(name));
    }

    /// Asks without waiting.
    pub(super) fn ask(&mut self, name: &str, request: SupplyRequest) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let at = &name[..name.len() - 1];
        self.input(at, Input::Request { id, sae: sae(name), request });
        self.settle();
        id
    }

    /// Asks, and lets time pass until there is an answer.
    pub(super) fn answer(&mut self, name: &str, request: SupplyRequest) -> Answer {
        let id = self.ask(name, request);
        for _ in 0..100 {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            self.advance(Duration::from_millis(100));
        }
        panic!("no answer to request {id}");
    }

    pub(super) fn encrypt(
        &mut self,
        master: &str,
        slave: &str,
        number: u32,
        size: u32,
    ) -> Result<Vec<SuppliedKey>, Refusal> {
        let (slave, size_bits) = (sae(slave), Some(size));
        keys(self.answer(
            master,
            SupplyRequest::Encrypt { slave, additional: vec![], number, size_bits, wishes: crate::Wishes::default() },
        ))
    }

    pub(super) fn decrypt(&mut self, slave: &str, master: &str, ids: &[KeyId]) -> Result<Vec<SuppliedKey>, Refusal> {
        keys(self.answer(slave, SupplyRequest::Decrypt { master: sae(master), ids: ids.to_vec() }))
    }

    pub(super) fn ready(&self, at: &str, peer: &str) -> u32 {
        let stock = self.kmes[&site(at)].stock();
        stock.iter().find(|stock| stock.peer == site(peer)).map_or(0, |stock| stock.ready)
    }

    pub(super) fn held(&self, at: &str, peer: &str) -> u32 {
        let stock = self.kmes[&site(at)].stock();
        stock.iter().find(|stock| stock.peer == site(peer)).map_or(0, |stock| stock.held)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        loop {
            let alive = self.kmes.iter().filter(|(site, _)| !self.dead.contains(*site));
            let due = alive.filter_map(|(site, kme)| Some((kme.poll_timeout()?, site.clone()))).min();
            match due {
                Some((at, site)) if at <= end => {
                    self.now = self.now.max(at);
                    self.kmes.get_mut(&site).unwrap().handle_timeout(self.now, &mut self.rng);
                    self.drain(&site);
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Delivers until the wires are empty.
    pub(super) fn settle(&mut self) {
        while let Some((from, to, mut bytes)) = self.wire.pop_front() {
            if !self.dead.contains(&to) && (self.tap)(&from, &to, &mut bytes) {
                let input = Input::Message { from, bytes };
                self.kmes.get_mut(&to).unwrap().handle_input(self.now, input, &mut self.rng);
                self.drain(&to);
            }
        }
    }

    fn drain(&mut self, at: &SiteId) {
        while let Some(output) = self.kmes.get_mut(at).unwrap().poll_output() {
            if self.dead.contains(at) {
                continue;
            }
            if let Some(stalled) = self.stalled.get_mut(at)
                && matches!(output, Output::Commit { .. })
            {
                stalled.push_back(output);
                continue;
            }
            if matches!(output, Output::Commit { .. })
                && let Some(doom) = self.doom.as_mut().filter(|doom| doom.site == *at)
            {
                if doom.commits == 0 {
                    self.dead.insert(at.clone());
                    if doom.durable
                        && let Output::Commit { changes, .. } = output
                    {
                        changes.into_iter().for_each(|change| self.disks.get_mut(at).unwrap().apply(change));
                    }
                    continue;
                }
                doom.commits -= 1;
            }
            match output {
                Output::Commit { seq, changes, events } => {
                    changes.into_iter().for_each(|change| self.disks.get_mut(at).unwrap().apply(change));
                    self.events.extend(events.into_iter().map(|event| (at.clone(), event)));
                    self.kmes.get_mut(at).unwrap().handle_input(self.now, Input::Durable(seq), &mut self.rng);
                }
                Output::Send { to, bytes } => {
                    Message::decode(&bytes).expect("what is sent decodes");
                    self.wire.push_back((at.clone(), to, bytes));
                }
                Output::Reply { id, result } => {
                    assert!(self.answers.insert(id, result).is_none(), "one answer per request");
                }
                Output::PeerMisbehaved { site, reason } => self.misbehaved.push((at.clone(), site, reason)),
                Output::BlockFiled { .. } => {}
                Output::Imported { id, result } => {
                    assert!(self.imported.insert(id, result).is_none(), "one answer per import");
                }
                Output::Withdrawn { id, result } => {
                    assert!(self.withdrawn.insert(id, result).is_none(), "one answer per withdrawal");
                }
                Output::Export { export, peer, master, slave, keys, passed_on } => {
                    self.exports.push(Exported { export, peer, master, slave, keys, passed_on });
                }
                Output::ExportVoid { export, .. } => self.export_voids.push(export),
            }
        }
    }

    /// Codes of the events of a site.
    pub(super) fn codes(&self, at: &str) -> BTreeSet<&'static str> {
        self.events.iter().filter(|(site, _)| site.as_str() == at).map(|(_, event)| event.code()).collect()
    }
}

pub(super) fn keys(answer: Answer) -> Result<Vec<SuppliedKey>, Refusal> {
    answer.map(|reply| match reply {
        SupplyReply::Keys(keys) => keys,
        SupplyReply::Status(status) => panic!("{status:?}"),
    })
}

pub(super) fn ids(keys: &[SuppliedKey]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}

pub(super) fn bits(keys: &[SuppliedKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.key.expose(<[u8]>::to_vec)).collect()
}
