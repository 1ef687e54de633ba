//! Key streams (ETSI GS QKD 004 V2.1.1) of one site, on top of its KME, as a core without IO.
//!
//! ```text
//!   SAE --Call--> Streams --Supply--> Kme      SAE <--Answer-- Streams <--Supplied-- Kme
//!                    \--Send--> Streams of the other site
//! ```
//! The site where a stream is opened first owns it and allots its chunks: chunk *i* is cut from keys that the KME supplied
//! to the two applications, and the owner tells the other site (the guest) which. So both applications read the same
//! bytes at the same index, whoever asks first; an index is allotted once and given once to each.
//!
//! | file | does |
//! |---|---|
//! | `calls` | OPEN_CONNECT, GET_KEY, CLOSE; calls that wait |
//! | `peer` | messages of the other site: rendezvous, presence |
//! | `keys` | allotting at the owner, fetching at the guest |
//! | `end` | one end of a stream |
//! | `book` | chunks held, indices known |
//! | `qos`, `names` | what is granted, who is meant |
//! | [`message`] | what two sites say (`docs/formats/kx-stream.md`) |
//!
//! Provided: calls that wait up to the stream's `Timeout`, both orders of asking, simultaneous openings, pacing by
//! `Max_bps`, expiry of unused key by `TTL`, JSON metadata.
//! Not provided: streams over a restart. A site that restarts has none; whoever asks for one gets status 4 and opens it
//! anew, and no byte of the old one is ever given again. `Jitter` is echoed and does nothing.

mod book;
mod calls;
mod end;
mod keys;
pub mod message;
mod names;
mod peer;
mod qos;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crypto::rand_core::CryptoRng;
use etsi::etsi004::{Ksid, Request, Response};
use types::id::{RequestId, SaeId, SiteId};
use types::units::Time;

use self::calls::Wait;
use self::end::{End, EndId};
use self::keys::Asked;
use self::message::{Body, Message, Role};
use crate::{Refusal, SupplyReply, SupplyRequest};

/// Number of a call of an application; the shell's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Settings of the streams of one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// The site.
    pub site: SiteId,
    /// Bytes of a chunk if the application leaves it to us.
    pub chunk_default: u32,
    /// How long a call may take if the application leaves it to us.
    pub timeout_default: Duration,
    /// Longest time that a call may take.
    pub timeout_max: Duration,
    /// How long unused key is kept if the application leaves it to us.
    pub ttl_default: Duration,
    /// Longest time that unused key is kept.
    pub ttl_max: Duration,
    /// A stream that nobody used for so long ends.
    pub idle_max: Duration,
    /// Ends of streams at this site.
    pub ends_max: usize,
    /// Streams that one application has opened.
    pub ends_per_sae_max: usize,
    /// Streams that one application may have opened to another one, which did not open them yet.
    pub ends_per_pair_max: usize,
    /// Calls that may wait at once for one application.
    pub calls_per_sae_max: usize,
    /// Bytes of chunks that one end holds.
    pub held_bytes_max: usize,
    /// Bytes of chunks that all ends hold.
    pub held_bytes_total_max: usize,
    /// Keys that may wait at the guest's KME for one stream.
    pub offered_keys_max: usize,
    /// First wait before a message is repeated; doubles up to 8 times this.
    pub resend: Duration,
    /// How long to wait after the KME had no key.
    pub retry: Duration,
}

impl StreamConfig {
    /// The defaults for a site.
    #[must_use]
    pub fn new(site: SiteId) -> Self {
        Self {
            site,
            chunk_default: 32,
            timeout_default: Duration::from_secs(5),
            timeout_max: Duration::from_secs(60),
            ttl_default: Duration::from_secs(3_600),
            ttl_max: Duration::from_secs(24 * 3_600),
            idle_max: Duration::from_secs(24 * 3_600),
            ends_max: 16_384,
            ends_per_sae_max: 1_024,
            ends_per_pair_max: 256,
            calls_per_sae_max: 64,
            held_bytes_max: 1 << 20,
            held_bytes_total_max: 64 << 20,
            offered_keys_max: 8_192,
            resend: Duration::from_millis(400),
            retry: Duration::from_millis(200),
        }
    }
}

/// What the shell tells the streams.
#[derive(Debug)]
pub enum Input {
    /// An application calls; answered by exactly one [`Output::Answer`].
    Call {
        /// Correlates the answer.
        id: CallId,
        /// The application in the connection's certificate.
        sae: SaeId,
        /// What it calls.
        request: Request,
    },
    /// The caller is gone: nothing is consumed for it and no answer comes.
    Abandoned(CallId),
    /// A message of the streams of another site, over a mutually authenticated connection.
    Message {
        /// The site in the connection's certificate.
        from: SiteId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The KME's answer to an [`Output::Supply`].
    Supplied {
        /// Which request.
        id: RequestId,
        /// The answer.
        result: Result<SupplyReply, Refusal>,
    },
    /// Which site serves which application; replaces the directory.
    Directory(BTreeMap<SaeId, SiteId>),
    /// Bits in a second that can be made for each site; replaces all. Of a site that is not named nothing is known.
    Forecast(BTreeMap<SiteId, u64>),
    /// Messages reach another site.
    PeerUp(SiteId),
    /// Messages do not reach another site.
    PeerDown(SiteId),
}

/// What the streams tell the shell.
#[derive(Debug)]
pub enum Output {
    /// Answer a call.
    Answer {
        /// Which call.
        id: CallId,
        /// The answer.
        response: Response,
    },
    /// Ask the KME on behalf of an application of this site, then say [`Input::Supplied`].
    Supply {
        /// Correlates the answer; the streams' own number.
        id: RequestId,
        /// The application.
        sae: SaeId,
        /// What it asks.
        request: SupplyRequest,
    },
    /// Send a message to the streams of another site; may be lost.
    Send {
        /// To which site.
        to: SiteId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Another site sent what it must not send. The message had no effect.
    PeerMisbehaved {
        /// Which site.
        site: SiteId,
        /// What was wrong.
        reason: &'static str,
    },
}

/// What there is now and what was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Ends of streams at this site.
    pub ends: u64,
    /// Calls that wait.
    pub waiting: u64,
    /// Streams opened here first.
    pub opened: u64,
    /// Chunks given to applications.
    pub chunks: u64,
    /// Bytes of key given to applications.
    pub bytes: u64,
    /// Calls answered with a status other than 0 and 1.
    pub refused: u64,
}

/// The key streams of one site: a core without IO.
///
/// Call one of [`Streams::handle_input`] and [`Streams::handle_timeout`], then drain [`Streams::poll_output`] until it
/// gives `None`, then ask [`Streams::poll_timeout`] when to call [`Streams::handle_timeout`] at the latest.
#[derive(Debug)]
pub struct Streams {
    config: StreamConfig,
    directory: BTreeMap<SaeId, SiteId>,
    forecast: BTreeMap<SiteId, u64>,
    up: BTreeSet<SiteId>,
    ends: BTreeMap<EndId, End>,
    waits: BTreeMap<CallId, Wait>,
    asked: BTreeMap<RequestId, Asked>,
    next_request: u64,
    /// Runs that are over: what still says them came late.
    retired: VecDeque<(Ksid, u64)>,
    timers: BTreeSet<(Time, Timer)>,
    /// Messages between two applications of this site.
    inward: VecDeque<Message>,
    out: VecDeque<Output>,
    counters: StreamCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Call(CallId),
    End(EndId),
}

impl Streams {
    /// Streams of a site that has none yet. All other sites are down until told otherwise.
    #[must_use]
    pub fn new(config: StreamConfig) -> Self {
        Self {
            config,
            directory: BTreeMap::new(),
            forecast: BTreeMap::new(),
            up: BTreeSet::new(),
            ends: BTreeMap::new(),
            waits: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_request: 0,
            retired: VecDeque::new(),
            timers: BTreeSet::new(),
            inward: VecDeque::new(),
            out: VecDeque::new(),
            counters: StreamCounters::default(),
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) {
        match input {
            Input::Call { id, sae, request } => self.call(now, id, sae, request, rng),
            Input::Abandoned(id) => self.abandoned(id),
            Input::Message { from, bytes } => match Message::decode(&bytes) {
                Ok(message) if from != self.config.site => self.message(now, &from, message),
                Ok(_) => self.misbehaved(&from, "a message in the name of this site"),
                Err(_) => self.misbehaved(&from, "a message that does not decode"),
            },
            Input::Supplied { id, result } => self.supplied(now, id, result),
            Input::Directory(directory) => self.directory = directory,
            Input::Forecast(forecast) => self.forecast = forecast,
            Input::PeerUp(site) => {
                self.up.insert(site.clone());
                for id in self.ends_with(&site) {
                    // It may have restarted and then says that it has no such stream.
                    if let Some(end) = self.ends.get_mut(&id) {
                        end.told = None;
                    }
                    self.hurry(now, id);
                    self.step(now, id);
                }
            }
            Input::PeerDown(site) => _ = self.up.remove(&site),
        }
        self.deliver_inward(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            match timer {
                Timer::Call(id) => self.call_due(now, id),
                Timer::End(id) => {
                    if let Some(end) = self.ends.get_mut(&id) {
                        end.due = None;
                    }
                    self.step(now, id);
                }
            }
            self.deliver_inward(now);
        }
    }

    /// The next output; drain after every mutation.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Streams::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What there is and what was done.
    #[must_use]
    pub fn counters(&self) -> StreamCounters {
        StreamCounters { ends: self.ends.len() as u64, waiting: self.waits.len() as u64, ..self.counters }
    }

    fn reaches(&self, site: &SiteId) -> bool {
        *site == self.config.site || self.up.contains(site)
    }

    fn ends_with(&self, site: &SiteId) -> Vec<EndId> {
        self.ends.iter().filter(|(_, end)| end.peer == *site).map(|(id, _)| *id).collect()
    }

    /// Sends if the site is reached; what must arrive is repeated by its end.
    fn send(&mut self, to: &SiteId, ksid: Ksid, run: u64, body: Body) {
        let message = Message { ksid, run, body };
        if *to == self.config.site {
            self.inward.push_back(message);
        } else if self.reaches(to) {
            self.out.push_back(Output::Send { to: to.clone(), bytes: message.encode() });
        }
    }

    fn deliver_inward(&mut self, now: Time) {
        let site = self.config.site.clone();
        while let Some(message) = self.inward.pop_front() {
            self.message(now, &site, message);
        }
    }

    fn ask(&mut self, sae: SaeId, request: SupplyRequest, asked: Asked) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.asked.insert(id, asked);
        self.out.push_back(Output::Supply { id, sae, request });
        id
    }

    fn misbehaved(&mut self, site: &SiteId, reason: &'static str) {
        self.out.push_back(Output::PeerMisbehaved { site: site.clone(), reason });
    }

    /// Lets an end repeat at once what the other end did not acknowledge.
    fn hurry(&mut self, now: Time, id: EndId) {
        if let Some(end) = self.ends.get_mut(&id) {
            (end.resend_at, end.pause) = (now, self.config.resend);
        }
    }

    /// Does what an end can do now and sets its timer. After every change of an end.
    fn step(&mut self, now: Time, id: EndId) {
        if self.ends.get(&id).is_some_and(|end| end.is_over() || end.is_idle(now, self.config.idle_max)) {
            return self.drop_end(id);
        }
        self.expire(now, id);
        let lacking = self.serve(now, id);
        match id.role {
            Role::Owner => self.allot(now, id, &lacking),
            Role::Guest => self.fetch(now, id, &lacking),
        }
        self.repeat(now, id);
        self.reschedule(id);
    }

    /// Sends what the other end did not acknowledge, if it is time.
    fn repeat(&mut self, now: Time, id: EndId) {
        let Some(end) = self.ends.get_mut(&id).filter(|end| end.resend_at <= now) else { return };
        let bodies = end.outstanding(id.role);
        end.resend_at = Time::from_nanos(u64::MAX);
        if bodies.is_empty() {
            return;
        }
        end.resend_at = now.after(end.pause);
        end.pause = (end.pause * 2).min(self.config.resend * 8);
        let (peer, run) = (end.peer.clone(), end.run);
        for body in bodies {
            self.send(&peer, id.ksid, run, body);
        }
    }

    fn reschedule(&mut self, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let due = end.next_due(self.config.idle_max);
        if end.due != Some(due) {
            if let Some(before) = end.due.replace(due) {
                self.timers.remove(&(before, Timer::End(id)));
            }
            self.timers.insert((due, Timer::End(id)));
        }
    }
}

/// Runs that are remembered after their end.
const RETIRED_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
