//! The desk of key streams: one task that owns the streams' core of the site and turns its outputs into requests to the
//! keeper, messages to other sites and answers.
//!
//! ```text
//!  ETSI 004 connections --call--> desk --Supply--> keeper
//!          switchboard --input--> desk --Send----> other sites
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etsi::etsi004::{Request, Response};
use kms::Refusal;
use kms::stream::{CallId, Input, Output, StreamConfig, StreamCounters, Streams};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::id::{SaeId, SiteId};

use crate::clock;
use crate::entropy::os_rng;
use crate::keeper::Keeper;
use crate::kx::{Channel, KxSender};

/// Handle to the desk; cheap to clone.
#[derive(Clone)]
pub struct StreamDesk {
    inbox: mpsc::Sender<Note>,
    left: mpsc::UnboundedSender<CallId>,
    calls: Arc<AtomicU64>,
    counters: Arc<Mutex<StreamCounters>>,
}

enum Note {
    Input(Input),
    Call(CallId, SaeId, Request, oneshot::Sender<Response>),
}

impl StreamDesk {
    /// Starts the task; it ends with `stop`.
    #[must_use]
    pub fn start(
        site: &SiteId,
        saes: &BTreeMap<SaeId, SiteId>,
        keeper: &Keeper,
        kx: &KxSender,
        stop: &CancellationToken,
    ) -> Self {
        let (inbox, notes) = mpsc::channel(NOTES_MAX);
        // As many as calls that wait, which the core bounds.
        let (left, leaving) = mpsc::unbounded_channel();
        let mut streams = Streams::new(StreamConfig::new(site.clone()));
        streams.handle_input(clock::now(), Input::Directory(saes.clone()), &mut os_rng());
        let (answers, answered) = mpsc::channel(NOTES_MAX);
        let counters = Arc::default();
        let worker = Worker {
            streams,
            replies: HashMap::new(),
            keeper: keeper.clone(),
            kx: kx.clone(),
            answers,
            counters: Arc::clone(&counters),
        };
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = worker.run(notes, leaving, answered) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { inbox, left, calls: Arc::default(), counters }
    }

    /// What the streams did since the process started.
    #[must_use]
    pub fn counters(&self) -> StreamCounters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls for an SAE and waits for the answer, up to the stream's time. If the caller stops waiting, nothing is
    /// consumed for it. `None` when the site is stopping.
    pub async fn call(&self, sae: SaeId, request: Request) -> Option<Response> {
        let id = CallId(self.calls.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Note::Call(id, sae, request, reply)).await.ok()?;
        let mut leaver = Leaver { left: &self.left, id: Some(id) };
        let response = answer.await.ok()?;
        leaver.id = None;
        Some(response)
    }

    /// Tells the streams something. `None` when the site is stopping.
    pub async fn input(&self, input: Input) -> Option<()> {
        self.inbox.send(Note::Input(input)).await.ok()
    }
}

/// Tells the desk that a caller does not wait any longer.
struct Leaver<'a> {
    left: &'a mpsc::UnboundedSender<CallId>,
    id: Option<CallId>,
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _stopping = self.left.send(id);
        }
    }
}

struct Worker {
    streams: Streams,
    replies: HashMap<CallId, oneshot::Sender<Response>>,
    keeper: Keeper,
    kx: KxSender,
    /// Where the keeper's answers come back.
    answers: mpsc::Sender<Input>,
    /// For whoever wants to know.
    counters: Arc<Mutex<StreamCounters>>,
}

impl Worker {
    async fn run(
        mut self,
        mut notes: mpsc::Receiver<Note>,
        mut leaving: mpsc::UnboundedReceiver<CallId>,
        mut answered: mpsc::Receiver<Input>,
    ) {
        loop {
            let wait = self.streams.poll_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            tokio::select! {
                Some(input) = answered.recv() => self.streams.handle_input(clock::now(), input, &mut os_rng()),
                Some(id) = leaving.recv() => {
                    self.replies.remove(&id);
                    self.streams.handle_input(clock::now(), Input::Abandoned(id), &mut os_rng());
                }
                note = notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                () = sleep(wait) => {}
            }
            if self.streams.poll_timeout().is_some_and(|at| at <= clock::now()) {
                self.streams.handle_timeout(clock::now());
            }
            while let Some(output) = self.streams.poll_output() {
                self.put_out(output);
            }
            *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.streams.counters();
        }
    }

    fn take(&mut self, note: Note) {
        let input = match note {
            Note::Input(input) => input,
            Note::Call(id, sae, request, reply) => {
                self.replies.insert(id, reply);
                Input::Call { id, sae, request }
            }
        };
        self.streams.handle_input(clock::now(), input, &mut os_rng());
    }

    fn put_out(&mut self, output: Output) {
        match output {
            Output::Answer { id, response } => {
                if let Some(reply) = self.replies.remove(&id) {
                    drop(reply.send(response));
                }
            }
            Output::Supply { id, sae, request } => {
                let (keeper, answers) = (self.keeper.clone(), self.answers.clone());
                tokio::spawn(async move {
                    let stopping = Err(Refusal::Busy { retry_after: Duration::from_secs(1) });
                    let result = keeper.request(sae, request).await.unwrap_or(stopping);
                    drop(answers.send(Input::Supplied { id, result }).await);
                });
            }
            Output::Send { to, bytes } => self.kx.send(&to, Channel::Streams, &bytes),
            Output::PeerMisbehaved { site, reason } => tracing::warn!(%site, reason, "key streams: a site misbehaved"),
        }
    }
}

const NOTES_MAX: usize = 4_096;
const IDLE: Duration = Duration::from_secs(1);
