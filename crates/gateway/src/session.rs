//! One cipher connection: opening, streams, key top-up, protection levels.
//!
//! ```text
//!  plain TCP ─ classify ─ suite by level ─ seal ─▶ u16 length | record, header hidden ─▶ cipher TCP ─▶ open ─ floor ─▶ plain TCP
//!                            ▲                                                    │
//!                stock ─ policy with hysteresis            Installed ◀─ collect ◀─ Offer (key ids) ◀─ order
//! ```
//! Records stand in one order on the connection: each is sealed with its number in the session as context, so a
//! record that was dropped, repeated or moved ends the session. Control records are always sealed under an epoch
//! key. A session is opened as [`terminal::access`] says.
//!
//! Provided: any number of plain connections up to [`STREAMS_MAX`], FIN and RST in both directions, credit per
//! stream, fallback without stall, top-up for both directions and for later openings. Not provided: datagrams and
//! serial lines (the record layer is ready for them), resumption of plain connections over two sessions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crypto::record::Change;
use terminal::access::{CenterClosing, Report, Seeds, TerminalClosing};
use terminal::control::{Control, StreamId};
use terminal::{Class, Direction, HeaderMask, PadSender, ReceiverCounts, Strength};
use types::event::Event;
use types::id::{RequestId, TerminalId};
use types::units::{ByteLen, Time};

use crate::policy::Level;
use crate::pools::{Pools, Role};

mod io;
mod opening;
mod streams;
mod supply;
mod wire;

pub use io::{Input, Output, RequestPurpose, SessionConfig, Status, SupplyPlan};
use opening::Opening;
use streams::Streams;
use supply::Supply;

/// Plain connections in one session.
pub const STREAMS_MAX: usize = 256;
/// Bytes of records that may wait for the cipher connection before plain bytes wait too.
pub const BACKLOG_MAX: usize = 256 * 1024;

/// Set in the length of access frames.
const ACCESS_BIT: u16 = 1 << 15;
const OPENING_TIMEOUT: Duration = Duration::from_secs(20);
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
const PING_AFTER: Duration = Duration::from_secs(10);
const SILENT_AFTER: Duration = Duration::from_secs(35);
const SETTLE_EVERY: Duration = Duration::from_millis(500);
/// A record waits this long for reserved pad to become durable, then goes under the epoch key.
const PAD_WAIT: Duration = Duration::from_millis(250);
/// A record that must not go under the epoch key waits this long for pad, then the session ends.
const FLOOR_WAIT: Duration = Duration::from_secs(5);
const EPOCH_AGE: Duration = Duration::from_secs(3600);

/// One end of one cipher connection. See the crate's documentation for the order of calls.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    role: Role,
    pools: Pools,
    sender: PadSender,
    state: State,
    streams: Streams,
    supply: Supply,
    outputs: VecDeque<Output>,
    inbound: Vec<u8>,
    backlog: usize,
    sent: u64,
    received: u64,
    sent_otp: u64,
    sent_aead: u64,
    counts_before: ReceiverCounts,
    level: Level,
    peer_level: Level,
    // Of what is sent, of what is received.
    masks: Option<(HeaderMask, HeaderMask)>,
    commits: u64,
    requests: u64,
    reserving: Option<u64>,
    pad_late: bool,
    waiting: Option<Waiting>,
    last_sent: Time,
    last_received: Time,
    last_settled: Time,
    epoch_since: Time,
}

/// A record waits for pad.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Time,
    until: Time,
}

#[derive(Debug)]
enum State {
    Opening { step: Opening, until: Time },
    Open(Closing),
    Stopping { closing: Closing, until: Time },
    Closed,
}

#[derive(Debug)]
enum Closing {
    Center(CenterClosing),
    Terminal(TerminalClosing),
}

impl Session {
    /// Starts a session over a fresh cipher connection. The gateway speaks first.
    #[must_use]
    pub fn new(now: Time, mut config: SessionConfig, pools: Pools) -> Self {
        // The two ends' own messages must get through when there is no pad.
        config.policy.floor = config.policy.floor.with(Class::Session, Strength::Computational);
        let role = pools.role();
        let mut session = Self {
            role,
            sender: PadSender::with_limits(role.sends(), config.limits),
            state: State::Closed,
            streams: Streams::new(role),
            supply: Supply::new(now),
            outputs: VecDeque::new(),
            inbound: Vec::new(),
            backlog: 0,
            sent: 0,
            received: 0,
            sent_otp: 0,
            sent_aead: 0,
            counts_before: pools.receive.counts(),
            level: Level::Aead,
            peer_level: Level::Aead,
            masks: None,
            commits: 0,
            requests: 0,
            reserving: None,
            pad_late: false,
            waiting: None,
            last_sent: now,
            last_received: now,
            last_settled: now,
            epoch_since: now,
            config,
            pools,
        };
        let step = session.begin_opening();
        session.state = State::Opening { step, until: now.after(OPENING_TIMEOUT) };
        session
    }

    /// The terminal that it is for.
    #[must_use]
    pub fn terminal(&self) -> &TerminalId {
        &self.config.terminal
    }

    /// What the session looks like.
    #[must_use]
    pub fn status(&self) -> Status {
        let (now, before) = (self.pools.receive.counts(), self.counts_before);
        Status {
            open: matches!(self.state, State::Open(_)),
            level: self.level,
            peer_level: self.peer_level,
            sent_otp: self.sent_otp,
            sent_aead: self.sent_aead,
            received: ReceiverCounts {
                otp: now.otp - before.otp,
                aead: now.aead - before.aead,
                refused: now.refused - before.refused,
                forged: now.forged - before.forged,
                blocked: now.blocked - before.blocked,
            },
            send_stock: ByteLen(self.send_stock()),
            receive_stock: ByteLen(self.pools.receive_stock()),
            capacity: ByteLen(self.config.policy.capacity),
            opening_slots: self.pools.opening_slots(),
            streams: self.streams.len(),
            batches: self.supply.installed(),
        }
    }

    /// Ends the session and gives the pools back for the next one. What was reserved and not used is burned then.
    #[must_use]
    pub fn into_pools(self) -> Pools {
        self.pools
    }

    /// A plain connection was accepted here. `None` if the session is not open or carries too many.
    pub fn open_stream(&mut self, now: Time) -> Option<StreamId> {
        if !matches!(self.state, State::Open(_)) {
            return None;
        }
        let stream = self.streams.accept()?;
        self.send_control(now, &Control::Open(stream));
        Some(stream)
    }

    /// Something happened.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        if matches!(self.state, State::Closed) {
            return;
        }
        match input {
            Input::Received(bytes) => self.handle_received(now, &bytes),
            Input::Written(bytes) => self.backlog = self.backlog.saturating_sub(bytes),
            Input::Lost => self.close("the cipher connection is gone"),
            Input::KeysOrdered { request, keys } => self.handle_ordered(now, request, keys),
            Input::KeysCollected { request, keys } => self.handle_collected(now, request, keys),
            Input::Durable(seq) => self.handle_durable(now, seq),
            Input::PlainReceived { stream, bytes } => self.streams.plain_received(stream, &bytes),
            Input::PlainFinished(stream) => self.streams.plain_finished(stream),
            Input::PlainReset(stream) => {
                if self.streams.remove(stream) {
                    self.send_control(now, &Control::Reset(stream));
                }
            }
            Input::PlainDelivered { stream, bytes } => {
                if let Some(bytes) = self.streams.delivered(stream, bytes) {
                    self.send_control(now, &Control::Credit { stream, bytes });
                }
            }
            Input::Stop => self.stop(now),
        }
        self.turn(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        match &self.state {
            State::Opening { until, .. } if now >= *until => self.close("the session was not opened in time"),
            State::Stopping { until, .. } if now >= *until => self.close("stopped"),
            State::Open(_) => {
                if now.since(self.last_received) >= SILENT_AFTER {
                    self.close("the other end is silent");
                } else if now.since(self.last_sent) >= PING_AFTER {
                    self.send_control(now, &Control::Ping);
                }
                if now.since(self.last_settled) >= SETTLE_EVERY {
                    self.last_settled = now;
                    let changes = self.pools.settle();
                    self.commit(changes);
                }
            }
            _ => {}
        }
        self.turn(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Opening { until, .. } | State::Stopping { until, .. } => Some(*until),
            State::Closed => None,
            State::Open(_) => [
                Some(self.last_settled.after(SETTLE_EVERY)),
                Some(self.last_sent.after(PING_AFTER)),
                Some(self.last_received.after(SILENT_AFTER)),
                self.supply.retry_at().filter(|_| self.role == Role::Gateway),
                self.waiting.map(|waiting| waiting.until),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }

    /// What follows from any change while the session is open.
    fn turn(&mut self, now: Time) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        self.reserve();
        self.review_level(now);
        self.pump(now);
        self.order_keys(now);
    }

    fn handle_control(&mut self, now: Time, control: Control) {
        match control {
            Control::Open(stream) => match self.streams.dial(stream) {
                Ok(true) => self.outputs.push_back(Output::Dial(stream)),
                Ok(false) => self.send_control(now, &Control::Reset(stream)),
                Err(reason) => self.close(reason),
            },
            Control::Finish(stream) => {
                if self.streams.peer_finished(stream) {
                    self.outputs.push_back(Output::Finish(stream));
                }
            }
            Control::Reset(stream) => {
                if self.streams.remove(stream) {
                    self.outputs.push_back(Output::Reset(stream));
                }
            }
            Control::Credit { stream, bytes } => self.streams.credit(stream, bytes),
            Control::Level { to, reason, .. } => match Level::from_number(to) {
                Some(to) => {
                    let from = std::mem::replace(&mut self.peer_level, to);
                    let way = self.role.sends().reverse();
                    self.event_level(way, from, to, &reason);
                }
                None => self.close("the other end named an unknown level"),
            },
            Control::Offer { batch, purpose, check, ids } => self.handle_offer(now, batch, purpose, check, ids),
            Control::Installed(batch) => self.handle_installed(now, batch),
            Control::Declined { batch, reason } => self.handle_declined(now, batch, &reason),
            Control::Ping => {}
            Control::Close { reason } => {
                self.report();
                self.close(&format!("closed by the other end: {reason}"));
            }
            _ => self.close("an unknown control message"),
        }
    }

    /// The session is open at this end.
    fn opened(&mut self, now: Time, closing: Closing, seeds: &Seeds) -> Result<State, String> {
        let (ours, theirs) = (self.role.sends(), self.role.sends().reverse());
        self.sender = PadSender::with_limits(ours, self.config.limits);
        self.pools.receive.end_epochs();
        let batch = |way: Direction| way.batch(Seeds::BATCH);
        self.sender.start_epoch(batch(ours), 0, seeds.of(ours)).map_err(|error| chain(&error))?;
        self.pools.receive.start_epoch(batch(theirs), 0, seeds.of(theirs)).map_err(|error| chain(&error))?;
        let mask = |way| HeaderMask::new(way, seeds.of(way));
        self.masks = mask(ours).zip(mask(theirs));
        self.pools.receive.set_floor(self.config.policy.floor);
        self.epoch_since = now;
        self.last_received = now;
        self.outputs.push_back(Output::Opened);
        Ok(State::Open(closing))
    }

    fn send_stock(&self) -> u64 {
        self.pools.send_stock() + self.sender.held()
    }

    /// Keeps pad in reserve: durably out of the store, ready to be used.
    fn reserve(&mut self) {
        const LOW: usize = 4;
        let stock = self.send_stock();
        let pieces = usize::try_from(stock / 16 / 1024).unwrap_or(usize::MAX).clamp(LOW, 64);
        let ready = usize::try_from(self.sender.held()).unwrap_or(usize::MAX).saturating_add(self.pools.send.ready());
        if self.reserving.is_none() && self.pools.send.has_more() && ready < pieces * 1024 / 2 {
            let changes = self.pools.reserve(pieces);
            self.reserving = self.commit(changes);
        }
    }

    fn review_level(&mut self, now: Time) {
        let stock = self.send_stock();
        let to = if self.pad_late { Level::Aead } else { self.config.policy.level(self.level, stock) };
        if to == self.level {
            return;
        }
        let reason = if self.pad_late {
            "no reserved pad was ready in time".to_owned()
        } else {
            format!("stock {stock} of {} bytes", self.config.policy.capacity)
        };
        let from = std::mem::replace(&mut self.level, to);
        let message = Control::Level { from: from as u8, to: to as u8, reason: reason.clone() };
        self.send_control(now, &message);
        self.event_level(self.role.sends(), from, to, &reason);
    }

    fn event_level(&mut self, way: Direction, from: Level, to: Level, reason: &str) {
        let way = match way {
            Direction::Down => "to the terminal",
            Direction::Up => "from the terminal",
        };
        self.outputs.push_back(Output::Event(Event::ProtectionChanged {
            terminal: self.config.terminal.clone(),
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            reason: format!("{way}: {reason}"),
        }));
    }

    fn handle_durable(&mut self, now: Time, seq: u64) {
        if self.reserving.is_some_and(|waiting| waiting <= seq) {
            self.reserving = None;
            self.pools.reserved();
            self.pad_late = false;
        }
        self.opening_durable(seq);
        self.staged_durable(now, seq);
    }

    /// Numbers a commit; `None` if there is nothing to make durable.
    fn commit(&mut self, changes: Vec<Change>) -> Option<u64> {
        if changes.is_empty() {
            return None;
        }
        self.commits += 1;
        self.outputs.push_back(Output::Commit { seq: self.commits, changes });
        Some(self.commits)
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn stop(&mut self, now: Time) {
        if !matches!(self.state, State::Open(_)) {
            return self.close("stopped");
        }
        self.report();
        self.send_control(now, &Control::Close { reason: "stopped".to_owned() });
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(closing @ Closing::Center(_)) => {
                self.state = State::Stopping { closing, until: now.after(CLOSING_TIMEOUT) };
            }
            state => {
                self.state = state;
                self.close("stopped");
            }
        }
    }

    /// The terminal's closing report, once.
    fn report(&mut self) {
        let status = self.status();
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(Closing::Terminal(closing)) => {
                let frame = closing.report(&Report {
                    otp_records: status.sent_otp + status.received.otp,
                    aead_records: status.sent_aead + status.received.aead,
                    refused: status.received.refused,
                    down: status.receive_stock.0,
                    up: status.send_stock.0,
                });
                self.send_access(&frame);
                // Nothing but closing may follow.
                self.state = State::Opening { step: Opening::Failed, until: self.last_received };
            }
            state => self.state = state,
        }
    }

    fn close(&mut self, reason: &str) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        for stream in self.streams.drain() {
            self.outputs.push_back(Output::Reset(stream));
        }
        let changes = self.pools.settle();
        self.commit(changes);
        let status = self.status();
        self.outputs.push_back(Output::Event(Event::SessionClosed {
            terminal: self.config.terminal.clone(),
            otp_records: status.sent_otp + status.received.otp,
            aead_records: status.sent_aead + status.received.aead,
            refused: status.received.refused,
        }));
        self.outputs.push_back(Output::Close { reason: reason.to_owned() });
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

type StreamMap<T> = BTreeMap<StreamId, T>;
