//! A few KMEs, their disks and the wires between them. Everything arrives at once unless a test says otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, RequestId, SaeId, SiteId};
use types::units::Time;

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

    /// Whether any stored secret holds these bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        let found = |secret: &SecretBytes| secret.expose(|secret| secret.windows(bytes.len()).any(|w| w == bytes));
        self.0.values().filter_map(|(_, secret)| secret.as_ref()).any(found)
    }
}

/// Sites in a row, each linked with the next; SAE `x1`, `x2` at site `x`.
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) rng: ChaCha12Rng,
    pub(super) names: Vec<&'static str>,
    pub(super) kmes: BTreeMap<SiteId, Kme>,
    pub(super) disks: BTreeMap<SiteId, Disk>,
    pub(super) events: Vec<(SiteId, Event)>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) misbehaved: Vec<(SiteId, SiteId, &'static str)>,
    pub(super) tap: Wiretap,
    /// Sites whose commits are not made durable for now, with what waits.
    pub(super) stalled: BTreeMap<SiteId, VecDeque<Output>>,
    pub(super) adjust: fn(&mut Config),
    wire: VecDeque<(SiteId, SiteId, Vec<u8>)>,
    requests: u64,
    blocks: u64,
}

impl Net {
    pub(super) fn line(names: &[&'static str], adjust: fn(&mut Config)) -> Self {
        let mut net = Self {
            now: Time::from_nanos(1),
            rng: ChaCha12Rng::from_seed([7; 32]),
            names: names.to_vec(),
            kmes: BTreeMap::new(),
            disks: BTreeMap::new(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            misbehaved: Vec::new(),
            tap: Box::new(|_, _, _| true),
            stalled: BTreeMap::new(),
            adjust,
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
    pub(super) fn start(&mut self, name: &str) {
        let mut config = Config::new(site(name));
        config.target_keys = 64;
        (self.adjust)(&mut config);
        let records = self.disks.entry(site(name)).or_default().records();
        self.kmes.insert(site(name), Kme::restore(self.now, config, records).unwrap());
        let directory = self.names.iter().flat_map(|at| [1, 2].map(|n| (sae(&format!("{at}{n}")), site(at)))).collect();
        self.input(name, Input::Directory(directory));
        let here = self.names.iter().position(|other| *other == name).unwrap();
        let routes = (0..self.names.len()).filter(|there| *there != here).map(|there| {
            let mut path: Vec<SiteId> =
                self.names[here.min(there)..=here.max(there)].iter().map(|name| site(name)).collect();
            if there < here {
                path.reverse();
            }
            (site(self.names[there]), path)
        });
        let routes = routes.collect();
        self.input(name, Input::Routes(routes));
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
    pub(super) fn crash(&mut self, name: &str) {
        self.stalled.remove(&site(name));
        self.start(name);
        self.meet(name);
    }

    /// Every link gets a block of so many bytes.
    pub(super) fn blocks(&mut self, len: usize) {
        for pair in self.names.clone().windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let key = SecretBytes::random(len, &mut self.rng);
            let link = LinkId::new(&format!("{a}-{b}")).unwrap();
            let seq = BlockSeq(self.blocks);
            for (at, peer) in [(a, b), (b, a)] {
                let (link, peer, key) = (link.clone(), site(peer), key.duplicate());
                self.input(at, Input::LinkBlock { link, peer, seq, key });
            }
        }
        self.blocks += 1;
        self.settle();
    }

    pub(super) fn input(&mut self, name: &str, input: Input) {
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
        keys(self.answer(master, SupplyRequest::Encrypt { slave, additional: vec![], number, size_bits }))
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
            let due = self.kmes.iter().filter_map(|(site, kme)| Some((kme.poll_timeout()?, site.clone()))).min();
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
            if (self.tap)(&from, &to, &mut bytes) {
                let input = Input::Message { from, bytes };
                self.kmes.get_mut(&to).unwrap().handle_input(self.now, input, &mut self.rng);
                self.drain(&to);
            }
        }
    }

    fn drain(&mut self, at: &SiteId) {
        while let Some(output) = self.kmes.get_mut(at).unwrap().poll_output() {
            if let Some(stalled) = self.stalled.get_mut(at)
                && matches!(output, Output::Commit { .. })
            {
                stalled.push_back(output);
                continue;
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
