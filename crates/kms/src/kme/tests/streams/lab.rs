//! Sites with real KMEs, real streams and wires between the streams that may lose, double and reorder.

use std::collections::BTreeMap;
use std::time::Duration;

use crypto::rand_core::Rng as _;
use etsi::etsi004::{
    GetRequest, GetResponse, Ksid, Mimetype, OpenRequest, OpenResponse, Qos, Request, Response, Status,
};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use types::id::{RequestId, SiteId};

use super::super::net::{Net, sae, site};
use crate::stream::message::Message;
use crate::stream::{CallId, Input, Output, StreamConfig, Streams};

/// What the wires between streams do, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) loss: u32,
    pub(super) double: u32,
    pub(super) overtake: u32,
}

pub(super) struct Lab {
    pub(super) net: Net,
    pub(super) streams: BTreeMap<SiteId, Streams>,
    pub(super) answers: BTreeMap<CallId, Response>,
    pub(super) misbehaved: Vec<(SiteId, SiteId, &'static str)>,
    pub(super) weather: Weather,
    pub(super) adjust: fn(&mut StreamConfig),
    rng: ChaCha12Rng,
    wire: Vec<(SiteId, SiteId, Vec<u8>)>,
    supplies: BTreeMap<RequestId, (SiteId, RequestId)>,
    calls: u64,
}

impl Lab {
    pub(super) fn new(names: &[&'static str], seed: u64) -> Self {
        Self::adjusted(names, seed, |_| {})
    }

    pub(super) fn adjusted(names: &[&'static str], seed: u64, adjust: fn(&mut StreamConfig)) -> Self {
        let mut net = Net::line(names, |config| config.target_keys = 512);
        net.blocks(200_000);
        let mut lab = Self {
            net,
            streams: BTreeMap::new(),
            answers: BTreeMap::new(),
            misbehaved: Vec::new(),
            weather: Weather::default(),
            adjust,
            rng: ChaCha12Rng::seed_from_u64(seed),
            wire: Vec::new(),
            supplies: BTreeMap::new(),
            calls: 0,
        };
        for name in names {
            lab.start(name);
        }
        for name in names {
            lab.meet(name);
        }
        lab
    }

    fn start(&mut self, name: &str) {
        let mut config = StreamConfig::new(site(name));
        (self.adjust)(&mut config);
        self.streams.insert(site(name), Streams::new(config));
        let names = self.net.names.clone();
        let directory = names.iter().flat_map(|at| [1, 2].map(|n| (sae(&format!("{at}{n}")), site(at)))).collect();
        self.input(name, Input::Directory(directory));
    }

    pub(super) fn meet(&mut self, name: &str) {
        for other in self.net.names.clone() {
            if other != name {
                self.input(name, Input::PeerUp(site(other)));
                self.input(other, Input::PeerUp(site(name)));
            }
        }
    }

    pub(super) fn part(&mut self, one: &str, other: &str) {
        self.input(one, Input::PeerDown(site(other)));
        self.input(other, Input::PeerDown(site(one)));
    }

    /// Kills a site with its KME and starts it again.
    pub(super) fn crash(&mut self, name: &'static str) {
        let at = site(name);
        self.wire.retain(|(from, to, _)| *from != at && *to != at);
        self.supplies.retain(|_, (asker, _)| *asker != at);
        self.net.crash(name);
        self.start(name);
        self.meet(name);
    }

    pub(super) fn input(&mut self, name: &str, input: Input) {
        self.streams.get_mut(&site(name)).unwrap().handle_input(self.net.now, input, &mut self.rng);
        self.pump();
    }

    /// Calls without waiting.
    pub(super) fn call(&mut self, name: &str, request: Request) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        self.input(&name[..1], Input::Call { id, sae: sae(name), request });
        id
    }

    /// Lets time pass until a call is answered.
    pub(super) fn wait(&mut self, call: CallId) -> Response {
        for _ in 0..1_400 {
            if let Some(response) = self.answers.remove(&call) {
                return response;
            }
            self.advance(Duration::from_millis(50));
        }
        panic!("call {call:?} is never answered");
    }

    pub(super) fn open(&mut self, name: &str, other: &str, qos: Qos, ksid: Ksid) -> OpenResponse {
        let call = self.call(name, open(name, other, qos, ksid));
        opened(self.wait(call))
    }

    /// Opens at both ends.
    pub(super) fn both(&mut self, one: &str, other: &str, qos: Qos) -> Ksid {
        let first = self.open(one, other, qos, Ksid::NULL);
        assert_eq!(first.status, Status::PeerNotConnected);
        let second = self.open(other, one, Qos::default(), first.ksid);
        assert_eq!((second.status, &second.qos), (Status::Success, &first.qos));
        first.ksid
    }

    pub(super) fn get(&mut self, name: &str, ksid: Ksid, index: u32) -> GetResponse {
        let call = self.call(name, get(ksid, index, 0));
        got(self.wait(call))
    }

    /// A chunk that must be there.
    pub(super) fn chunk(&mut self, name: &str, ksid: Ksid, index: u32) -> Vec<u8> {
        let response = self.get(name, ksid, index);
        assert_eq!((response.status, response.index), (Status::Success, index), "{name} {index}");
        response.key.expose(<[u8]>::to_vec)
    }

    pub(super) fn close(&mut self, name: &str, ksid: Ksid) -> Status {
        let call = self.call(name, Request::Close { ksid });
        self.wait(call).status()
    }

    pub(super) fn ends(&self, name: &str) -> u64 {
        self.streams[&site(name)].counters().ends
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.net.now.after(by);
        while self.net.now < end {
            let due = self.streams.values().filter_map(Streams::poll_timeout).min();
            let next = due.map_or(end, |due| due.min(end)).min(self.net.now.after(Duration::from_millis(50)));
            let step = next.since(self.net.now).max(Duration::from_micros(10));
            self.net.advance(step);
            for streams in self.streams.values_mut() {
                if streams.poll_timeout().is_some_and(|at| at <= self.net.now) {
                    streams.handle_timeout(self.net.now);
                }
            }
            self.pump();
        }
    }

    fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.next_u32() % 100 < percent
    }

    /// Drains, delivers and answers until nothing moves.
    fn pump(&mut self) {
        loop {
            let mut moved = false;
            for at in self.streams.keys().cloned().collect::<Vec<_>>() {
                while let Some(output) = self.streams.get_mut(&at).unwrap().poll_output() {
                    moved = true;
                    self.put_out(&at, output);
                }
            }
            if !self.wire.is_empty() {
                moved = true;
                let overtaken = self.percent(self.weather.overtake);
                let place = if overtaken { self.rng.next_u32() as usize % self.wire.len() } else { 0 };
                let (from, to, bytes) = self.wire.remove(place);
                if self.percent(self.weather.double) {
                    self.wire.push((from.clone(), to.clone(), bytes.clone()));
                }
                if !self.percent(self.weather.loss) {
                    let streams = self.streams.get_mut(&to).unwrap();
                    streams.handle_input(self.net.now, Input::Message { from, bytes }, &mut self.rng);
                }
            }
            for id in self.supplies.keys().copied().collect::<Vec<_>>() {
                if let Some(result) = self.net.answers.remove(&id) {
                    moved = true;
                    let (at, id) = self.supplies.remove(&id).unwrap();
                    let streams = self.streams.get_mut(&at).unwrap();
                    streams.handle_input(self.net.now, Input::Supplied { id, result }, &mut self.rng);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn put_out(&mut self, at: &SiteId, output: Output) {
        match output {
            Output::Answer { id, response } => {
                assert!(self.answers.insert(id, response).is_none(), "one answer per call");
            }
            Output::Supply { id, sae, request } => {
                let asked = self.net.ask(sae.as_str(), request);
                self.supplies.insert(asked, (at.clone(), id));
            }
            Output::Send { to, bytes } => {
                assert_eq!(Message::decode(&bytes).expect("what is sent decodes").encode(), bytes);
                self.wire.push((at.clone(), to, bytes));
            }
            Output::PeerMisbehaved { site, reason } => self.misbehaved.push((at.clone(), site, reason)),
        }
    }
}

pub(super) fn open(name: &str, other: &str, qos: Qos, ksid: Ksid) -> Request {
    let uri = |sae: &str| format!("qkd://{sae}");
    Request::Open(OpenRequest { source: uri(name), destination: uri(other), qos, ksid })
}

pub(super) fn get(ksid: Ksid, index: u32, metadata_size: u32) -> Request {
    Request::Get(GetRequest { ksid, index, metadata_size, buffer: Vec::new() })
}

pub(super) fn opened(response: Response) -> OpenResponse {
    match response {
        Response::Open(open) => open,
        other => panic!("{other:?}"),
    }
}

pub(super) fn got(response: Response) -> GetResponse {
    match response {
        Response::Get(get) => get,
        other => panic!("{other:?}"),
    }
}

pub(super) fn chunks_of(size: u32) -> Qos {
    Qos { key_chunk_size: size, mimetype: Mimetype::json(), ..Qos::default() }
}

pub(super) fn id(n: u8) -> Ksid {
    Ksid([n; 16])
}
