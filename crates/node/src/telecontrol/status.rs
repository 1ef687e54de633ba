//! What an end tells: a state that is always there, a line for people, a file, a post to the site's dashboard.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Kme;
use gateway::{Role, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};
use types::event::Event;
use types::id::TerminalId;

use crate::failure::{Context as _, Outcome};
use crate::report::TerminalReport;

/// State of one end, over all its sessions since the process started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelecontrolStatus {
    /// The terminal.
    pub terminal: TerminalId,
    /// `gateway` or `terminal`.
    pub end: String,
    /// Whether a session is open.
    pub connected: bool,
    /// Protection level of what this end sends.
    pub level: String,
    /// Protection level of what the other end sends.
    pub peer_level: String,
    /// Plain connections open.
    pub connections: u64,
    /// Sessions so far, with the running one.
    pub sessions: u64,
    /// Records.
    pub records: Records,
    /// Bytes of pad left to send with.
    pub pool_out_bytes: u64,
    /// Bytes of pad left to receive with.
    pub pool_in_bytes: u64,
    /// Bytes that each pool is filled up to.
    pub pool_target_bytes: u64,
    /// Slots to open later sessions with.
    pub opening_slots: u64,
    /// Batches installed.
    pub batches: u64,
    /// Why the last session ended; empty if none did.
    pub last_end: String,
    #[serde(skip)]
    before: (Records, u64),
    #[serde(skip)]
    in_session: bool,
}

/// Records by suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// Sent under one-time pad.
    pub sent_otp: u64,
    /// Sent under an epoch key.
    pub sent_aead: u64,
    /// Opened under one-time pad.
    pub received_otp: u64,
    /// Opened under an epoch key.
    pub received_aead: u64,
    /// Refused, for any reason.
    pub refused: u64,
    /// Refused because the tag did not hold.
    pub forged: u64,
}

impl TelecontrolStatus {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(role: Role, terminal: TerminalId) -> Self {
        Self {
            terminal,
            end: match role {
                Role::Gateway => "gateway".to_owned(),
                Role::Terminal => "terminal".to_owned(),
            },
            connected: false,
            level: "none".to_owned(),
            peer_level: "none".to_owned(),
            connections: 0,
            sessions: 0,
            records: Records::default(),
            pool_out_bytes: 0,
            pool_in_bytes: 0,
            pool_target_bytes: 0,
            opening_slots: 0,
            batches: 0,
            last_end: String::new(),
            before: (Records::default(), 0),
            in_session: false,
        }
    }

    /// Takes over the running session's state.
    pub(super) fn update(&mut self, now: &Status) {
        if !self.in_session && now.open {
            self.in_session = true;
            self.sessions += 1;
        }
        let (before, batches) = self.before;
        self.connected = now.open;
        if now.open {
            self.level = now.level.name().to_owned();
            self.peer_level = now.peer_level.name().to_owned();
        }
        self.connections = now.streams as u64;
        self.records = Records {
            sent_otp: before.sent_otp + now.sent_otp,
            sent_aead: before.sent_aead + now.sent_aead,
            received_otp: before.received_otp + now.received.otp,
            received_aead: before.received_aead + now.received.aead,
            refused: before.refused + now.received.refused,
            forged: before.forged + now.received.forged,
        };
        self.pool_out_bytes = now.send_stock.0;
        self.pool_in_bytes = now.receive_stock.0;
        self.pool_target_bytes = now.capacity.0;
        self.opening_slots = now.opening_slots as u64;
        self.batches = batches + now.batches;
    }

    /// The running session is over.
    pub(super) fn session_over(&mut self, reason: &str) {
        self.before = (self.records, self.batches);
        self.in_session = false;
        self.connected = false;
        self.connections = 0;
        self.level = "none".to_owned();
        self.peer_level = "none".to_owned();
        reason.clone_into(&mut self.last_end);
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let state = if self.connected { "connected" } else { "not connected" };
        format!(
            "{} {}: {state}, level {} (other end {}), {} connections; sent {} otp + {} aead, received {} otp + {} aead, \
             {} refused; pool {} B out, {} B in of {} B{}",
            self.end,
            self.terminal,
            self.level,
            self.peer_level,
            self.connections,
            self.records.sent_otp,
            self.records.sent_aead,
            self.records.received_otp,
            self.records.received_aead,
            self.records.refused,
            self.pool_out_bytes,
            self.pool_in_bytes,
            self.pool_target_bytes,
            if self.last_end.is_empty() { String::new() } else { format!("; last session ended: {}", self.last_end) },
        )
    }

    /// What the site's dashboard shows.
    #[must_use]
    pub fn report(&self) -> TerminalReport {
        TerminalReport {
            terminal: self.terminal.clone(),
            end: self.end.clone(),
            level: self.level.clone(),
            connections: self.connections,
            otp_records: self.records.sent_otp + self.records.received_otp,
            aead_records: self.records.sent_aead + self.records.received_aead,
            refused: self.records.refused,
            pool_out_bytes: self.pool_out_bytes,
            pool_in_bytes: self.pool_in_bytes,
        }
    }
}

/// The file in an end's data folder that holds its state.
#[must_use]
pub fn file_in(data: &Path) -> PathBuf {
    data.join("status.json")
}

/// Keeps the file of the state fresh.
pub(super) async fn to_file(file: PathBuf, status: watch::Receiver<TelecontrolStatus>) {
    let mut tick = interval(FILE_EVERY);
    let mut written = None;
    loop {
        tick.tick().await;
        let now = status.borrow().clone();
        if written.as_ref() == Some(&now) {
            continue;
        }
        match write_file(&file, &now) {
            Ok(()) => written = Some(now),
            Err(failure) => tracing::warn!(%failure, "status file"),
        }
    }
}

/// Writes the state, whole or not at all.
pub(super) fn write_file(file: &Path, status: &TelecontrolStatus) -> Outcome<()> {
    let what = || format!("cannot write {}", file.display());
    let text = serde_json::to_vec_pretty(status).context(what)?;
    let fresh = file.with_extension("json.new");
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, file)).context(what)
}

/// Prints the state again and again.
pub(super) async fn to_people(every: Duration, json: bool, status: watch::Receiver<TelecontrolStatus>) {
    let mut tick = interval(every);
    tick.tick().await;
    loop {
        tick.tick().await;
        if print(json, &status.borrow().clone()).is_err() {
            return;
        }
    }
}

/// Prints the state as one line, or as one line of JSON.
pub(super) fn print(json: bool, status: &TelecontrolStatus) -> Outcome<()> {
    let what = || "cannot write to standard output".to_owned();
    let line = if json { serde_json::to_string(status).context(what)? } else { status.line() };
    writeln!(std::io::stdout().lock(), "{line}").context(what)
}

/// Posts the state to the site that serves this end's SAE, for its dashboard.
pub(super) async fn to_site(client: Arc<Kme>, status: watch::Receiver<TelecontrolStatus>) {
    let mut tick = interval(POST_EVERY);
    let mut posted = None;
    loop {
        tick.tick().await;
        let report = status.borrow().report();
        if posted.as_ref() == Some(&report) {
            continue;
        }
        let Ok(value) = serde_json::to_value(&report) else { continue };
        match client.report_terminal(&value).await {
            Ok(()) => posted = Some(report),
            Err(error) => tracing::debug!(%error, "the site takes no report"),
        }
    }
}

/// Hands events to the site's audit log, in order. A site that is down gets them when it is back.
pub(super) async fn events_to_site(client: Arc<Kme>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let mut wait = EVENT_RETRY_MIN;
        for attempt in 1.. {
            match client.report(&event).await {
                Ok(()) => break,
                Err(error) if attempt >= EVENT_ATTEMPTS => {
                    tracing::error!(%error, event = event.code(), "an event is not in the site's audit log");
                    break;
                }
                Err(error) => tracing::debug!(%error, "the site takes no event"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(EVENT_RETRY_MAX);
        }
    }
}

/// Events that wait for the site, at most.
pub(super) const EVENTS_MAX: usize = 4096;
const FILE_EVERY: Duration = Duration::from_secs(1);
const POST_EVERY: Duration = Duration::from_secs(1);
const EVENT_RETRY_MIN: Duration = Duration::from_secs(1);
const EVENT_RETRY_MAX: Duration = Duration::from_secs(30);
const EVENT_ATTEMPTS: u32 = 200;
