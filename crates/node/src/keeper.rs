//! The keeper: one thread that owns the site's KME core, store and audit log, and turns their outputs into
//! disk and messages.
//!
//! ```text
//!  jobs ──► batch ──► Kme ──► changes ──► Store::commit ──► SiteLog::append ──► Durable ──► replies, messages
//! ```
//!
//! Many jobs share one pass to disk (group commit). Nothing leaves before what it depends on is durable. When
//! the disk fails the keeper stops the whole process: a site that cannot write must not supply key, and a
//! restart replays from what is durable.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crypto::record::Change;
use kms::{CommitSeq, Counters, Input, Kme, LinkStock, Output, PairStock, Refusal, SupplyReply, SupplyRequest};
use ledger::SiteLog;
use store::Store;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::{BlockSeq, LinkId, RequestId, SaeId, SiteId};
use types::units::Time;

use crate::clock;
use crate::entropy::os_rng;
use crate::kx::{Channel, KxSender};
use crate::report::AuditLine;

/// Handle to the keeper; cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    jobs: Sender<Job>,
    saes: Arc<BTreeMap<SaeId, SiteId>>,
    site: SiteId,
}

/// What the site's stocks and counters are now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// End-to-end keys owned here.
    pub pairs: Vec<PairStock>,
    /// Link key left here.
    pub links: Vec<LinkStock>,
    /// What the KME did.
    pub counters: Counters,
    /// Last entries of the log, newest first.
    pub audit: Vec<AuditLine>,
    /// Entries in the log.
    pub audit_entries: u64,
}

/// Called when the changes of a link are durable.
pub type WhenDurable = Box<dyn FnOnce() + Send>;
/// Called when a block is filed in the pool.
pub type WhenFiled = Arc<dyn Fn(BlockSeq) + Send + Sync>;

enum Job {
    Input(Input),
    Request(SaeId, SupplyRequest, oneshot::Sender<Result<SupplyReply, Refusal>>),
    Persist(Vec<Change>, WhenDurable),
    Record(Vec<Event>, oneshot::Sender<()>),
    Filed(LinkId, WhenFiled),
    Snapshot(oneshot::Sender<Snapshot>),
    Stop(oneshot::Sender<()>),
}

/// What the keeper's thread owns.
pub struct KeeperParts {
    /// The site.
    pub site: SiteId,
    /// The KME core, restored.
    pub kme: Kme,
    /// The store, open.
    pub store: Store,
    /// The audit log, open.
    pub log: SiteLog,
    /// Which site serves which SAE.
    pub saes: BTreeMap<SaeId, SiteId>,
    /// Where messages to other KMEs go.
    pub kx: KxSender,
    /// Where the store lives, for messages about the disk.
    pub data: PathBuf,
}

impl Keeper {
    /// Starts the thread. `broken` is cancelled when the disk fails.
    #[must_use]
    pub fn start(parts: KeeperParts, broken: CancellationToken) -> Self {
        let (jobs, inbox) = channel(JOBS_MAX);
        let runtime = Handle::current();
        let keeper = Self { jobs, saes: Arc::new(parts.saes.clone()), site: parts.site.clone() };
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || Worker::new(parts).run(inbox, &runtime, &broken))
            .expect("a process can start one more thread at its start");
        keeper
    }

    /// The site whose keys these are.
    #[must_use]
    pub fn site(&self) -> &SiteId {
        &self.site
    }

    /// Whether an SAE is served by this site.
    #[must_use]
    pub fn serves(&self, sae: &SaeId) -> bool {
        self.saes.get(sae) == Some(&self.site)
    }

    /// Asks the KME for an SAE. `None` when the site is stopping.
    pub async fn request(&self, sae: SaeId, request: SupplyRequest) -> Option<Result<SupplyReply, Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Request(sae, request, reply)).await?;
        answer.await.ok()
    }

    /// Appends events to the log and waits until they are durable. `None` when the site is stopping.
    pub async fn record(&self, events: Vec<Event>) -> Option<()> {
        let (done, durable) = oneshot::channel();
        self.put(Job::Record(events, done)).await?;
        durable.await.ok()
    }

    /// Stocks and counters. `None` when the site is stopping.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Snapshot(reply)).await?;
        answer.await.ok()
    }

    /// Tells the KME something, waiting while the keeper is behind. `None` when the site is stopping.
    pub async fn input(&self, input: Input) -> Option<()> {
        self.put(Job::Input(input)).await
    }

    /// As [`Keeper::input`], from a thread.
    pub fn input_blocking(&self, input: Input) {
        drop(self.jobs.blocking_send(Job::Input(input)));
    }

    /// Makes a link's changes durable and then calls back, from the keeper's thread.
    pub fn persist(&self, changes: Vec<Change>, when_durable: WhenDurable) {
        drop(self.jobs.blocking_send(Job::Persist(changes, when_durable)));
    }

    /// Appends events without waiting, from a thread.
    pub fn record_blocking(&self, events: Vec<Event>) {
        let (done, _) = oneshot::channel();
        drop(self.jobs.blocking_send(Job::Record(events, done)));
    }

    /// Whom to tell when a block of a link is filed.
    pub async fn when_filed(&self, link: LinkId, call: WhenFiled) {
        let _stopping = self.put(Job::Filed(link, call)).await;
    }

    /// Writes the last entry and a checkpoint, and ends the thread.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.put(Job::Stop(done)).await.is_some() {
            drop(stopped.await);
        }
    }

    async fn put(&self, job: Job) -> Option<()> {
        self.jobs.send(job).await.ok()
    }
}

struct Worker {
    parts: KeeperParts,
    replies: HashMap<RequestId, oneshot::Sender<Result<SupplyReply, Refusal>>>,
    next_request: u64,
    filed: HashMap<LinkId, WhenFiled>,
    pending: Pending,
    checkpointed: Time,
}

/// What the next pass to disk holds.
#[derive(Default)]
struct Pending {
    changes: Vec<Change>,
    events: Vec<Event>,
    commit: Option<CommitSeq>,
    durable: Vec<WhenDurable>,
    recorded: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.events.is_empty()
            && self.commit.is_none()
            && self.durable.is_empty()
            && self.recorded.is_empty()
    }
}

impl Worker {
    fn new(parts: KeeperParts) -> Self {
        Self {
            parts,
            replies: HashMap::new(),
            next_request: 0,
            filed: HashMap::new(),
            pending: Pending::default(),
            checkpointed: clock::now(),
        }
    }

    fn run(mut self, inbox: Receiver<Job>, runtime: &Handle, broken: &CancellationToken) {
        match self.serve(inbox, runtime) {
            Ok(stopped) => drop(stopped.send(())),
            Err(error) => {
                tracing::error!(
                    data = %self.parts.data.display(), %error,
                    "the disk does not take what must be durable; stopping. Free space or repair it, then start again"
                );
                broken.cancel();
            }
        }
    }

    /// Until asked to stop or the disk fails.
    fn serve(&mut self, mut inbox: Receiver<Job>, runtime: &Handle) -> Result<oneshot::Sender<()>, DiskError> {
        self.settle()?;
        loop {
            let wait = self.parts.kme.poll_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            let mut batch = Vec::new();
            match runtime.block_on(async { timeout(wait, inbox.recv()).await }) {
                Ok(Some(job)) => batch.push(job),
                Ok(None) => return Err(DiskError::Abandoned),
                Err(_) => {}
            }
            while batch.len() < BATCH_MAX
                && let Ok(job) = inbox.try_recv()
            {
                batch.push(job);
            }
            for job in batch {
                if let Some(stop) = self.take(job) {
                    self.settle()?;
                    self.pending.events.push(Event::ServiceStopped);
                    self.settle()?;
                    self.parts.log.checkpoint()?;
                    return Ok(stop);
                }
            }
            if self.parts.kme.poll_timeout().is_some_and(|at| at <= clock::now()) {
                self.parts.kme.handle_timeout(clock::now(), &mut os_rng());
            }
            self.settle()?;
            if self.parts.log.unsigned() > 0 && clock::now() - self.checkpointed > CHECKPOINT_EVERY {
                self.parts.log.checkpoint()?;
                self.checkpointed = clock::now();
            }
        }
    }

    fn take(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Input(input) => self.parts.kme.handle_input(clock::now(), input, &mut os_rng()),
            Job::Request(sae, request, reply) => {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                self.replies.insert(id, reply);
                self.parts.kme.handle_input(clock::now(), Input::Request { id, sae, request }, &mut os_rng());
            }
            Job::Persist(changes, when_durable) => {
                self.pending.changes.extend(changes);
                self.pending.durable.push(when_durable);
            }
            Job::Record(events, done) => {
                self.pending.events.extend(events);
                self.pending.recorded.push(done);
            }
            Job::Filed(link, call) => drop(self.filed.insert(link, call)),
            Job::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Job::Stop(done) => return Some(done),
        }
        None
    }

    /// Drains the core and goes to disk until nothing is left to do.
    fn settle(&mut self) -> Result<(), DiskError> {
        loop {
            while let Some(output) = self.parts.kme.poll_output() {
                self.put_out(output);
            }
            if self.pending.is_empty() {
                return Ok(());
            }
            let pass = std::mem::take(&mut self.pending);
            if !pass.changes.is_empty() {
                self.parts.store.commit(&pass.changes)?;
            }
            if !pass.events.is_empty() {
                self.parts.log.append(clock::utc_now(), &pass.events)?;
            }
            if let Some(seq) = pass.commit {
                self.parts.kme.handle_input(clock::now(), Input::Durable(seq), &mut os_rng());
            }
            pass.durable.into_iter().for_each(|when_durable| when_durable());
            for done in pass.recorded {
                let _nobody_waits = done.send(());
            }
        }
    }

    fn put_out(&mut self, output: Output) {
        match output {
            Output::Commit { seq, changes, events } => {
                self.pending.changes.extend(changes);
                self.pending.events.extend(events);
                self.pending.commit = Some(seq);
            }
            Output::Send { to, bytes } => self.parts.kx.send(&to, Channel::Kms, &bytes),
            Output::Reply { id, result } => {
                if let Some(reply) = self.replies.remove(&id) {
                    drop(reply.send(result));
                }
            }
            Output::BlockFiled { link, seq } => {
                if let Some(call) = self.filed.get(&link) {
                    call(seq);
                }
            }
            Output::PeerMisbehaved { site, reason } => tracing::warn!(%site, reason, "a KME misbehaved"),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            pairs: self.parts.kme.stock(),
            links: self.parts.kme.link_stock(),
            counters: self.parts.kme.counters(),
            audit: self.parts.log.recent(AUDIT_LINES).rev().map(audit_line).collect(),
            audit_entries: self.parts.log.size(),
        }
    }
}

/// Why the keeper cannot go on.
#[derive(Debug, thiserror::Error)]
enum DiskError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Log(#[from] ledger::Error),
    #[error("every handle to the keeper is gone")]
    Abandoned,
}

fn audit_line(entry: &ledger::Entry) -> AuditLine {
    let fields = entry.fields.iter().map(|(name, value)| format!("{name}={value}"));
    AuditLine { seq: entry.seq, time: entry.time, code: entry.code.clone(), text: fields.collect::<Vec<_>>().join(" ") }
}

const JOBS_MAX: usize = 4_096;
const BATCH_MAX: usize = 512;
const AUDIT_LINES: usize = 12;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(500);
