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

mod disk;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::record::Change;
use kms::interwork::{Answer, CallId, Interwork, PeerRequest, Reply};
use kms::{
    CommitSeq, Counters, ExportFailure, Input, Kme, LinkStock, Output, PairFlow, PairStock, Refusal, SupplyReply,
    SupplyRequest,
};
use ledger::SiteLog;
use store::Store;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;
use types::event::Event;
use types::id::{BlockSeq, LinkId, RequestId, SaeId, SiteId};
use types::units::Time;

pub use self::disk::{DiskError, DiskFailure, DiskUse};
use crate::backups::Backups;
use crate::clock;
use crate::entropy::os_rng;
use crate::interwork::Outgoing;
use crate::kx::{Channel, KxSender};
use crate::pairs::{Holders, Pairs};
use crate::refusals::{Refusals, Who};
use crate::report::AuditLine;
use crate::tls::Identity;

/// Handle to the keeper; cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    jobs: Sender<Job>,
    saes: Arc<BTreeMap<SaeId, SiteId>>,
    site: SiteId,
    pairs: Arc<Pairs>,
    failure: Arc<DiskFailure>,
    refusals: Refusals,
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
    /// How the stocks move.
    pub flows: Vec<PairFlow>,
    /// What interworking did, if the site does.
    pub interwork: Option<kms::interwork::Counters>,
    /// What the disk did.
    pub disk: DiskUse,
}

/// Called when the changes of a link are durable.
pub type WhenDurable = Box<dyn FnOnce() + Send>;
/// Called when a block is filed in the pool.
pub type WhenFiled = Arc<dyn Fn(BlockSeq) + Send + Sync>;

enum Job {
    Inputs(Vec<Input>),
    Request(SaeId, SupplyRequest, oneshot::Sender<Result<SupplyReply, Refusal>>),
    Persist(Vec<Change>, WhenDurable),
    Record(Vec<Event>, oneshot::Sender<()>),
    Filed(LinkId, WhenFiled),
    ForeignRequest(String, PeerRequest, oneshot::Sender<Reply>),
    ForeignAnswer(CallId, Answer),
    Snapshot(oneshot::Sender<Snapshot>),
    Flows(oneshot::Sender<Vec<PairFlow>>),
    Stop(oneshot::Sender<()>),
}

impl Job {
    /// How many asked together.
    fn weight(&self) -> usize {
        match self {
            Self::Inputs(inputs) => inputs.len(),
            _ => 1,
        }
    }
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
    /// Interworking with other networks, if this site does, and where its calls go.
    pub interwork: Option<(Interwork, Sender<Outgoing>)>,
    /// Backups made beside the work.
    pub backups: Option<Backups>,
    /// Who was turned away.
    pub refusals: Refusals,
    /// Where the store lives, for messages about the disk.
    pub data: PathBuf,
}

impl Keeper {
    /// Starts the thread. `failure` is told when the disk fails.
    #[must_use]
    pub fn start(parts: KeeperParts, failure: &Arc<DiskFailure>) -> Self {
        let (jobs, inbox) = channel(JOBS_MAX);
        let runtime = Handle::current();
        let (saes, site, failure) = (Arc::new(parts.saes.clone()), parts.site.clone(), failure.clone());
        let refusals = parts.refusals.clone();
        let keeper = Self { jobs, saes, site, pairs: Arc::default(), failure: failure.clone(), refusals };
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || Worker::new(parts).run(inbox, &runtime, &failure))
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

    /// The site that serves an SAE.
    #[must_use]
    pub fn home(&self, sae: &SaeId) -> Option<&SiteId> {
        self.saes.get(sae)
    }

    /// Every SAE of the network.
    pub fn saes(&self) -> impl Iterator<Item = &SaeId> {
        self.saes.keys()
    }

    /// Which pairs of SAEs took keys here.
    #[must_use]
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// Who was turned away, and why.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Notes for the audit log that a caller may not do what it asked.
    pub fn note_refused(&self, caller: &Identity, reason: &str) {
        self.refusals.note(clock::now(), &Who::Caller(caller.clone()), reason);
    }

    /// Asks the KME for an SAE. `None` when the site is stopping.
    pub async fn request(&self, sae: SaeId, request: SupplyRequest) -> Option<Result<SupplyReply, Refusal>> {
        let holders = Holders::of(&sae, &request);
        let (reply, answer) = oneshot::channel();
        self.put(Job::Request(sae, request, reply)).await?;
        let result = self.answered(answer).await?;
        if let (Some(holders), Ok(SupplyReply::Keys(keys))) = (holders, &result) {
            self.pairs.note(&holders, keys, clock::utc_now());
        }
        Some(result)
    }

    /// Asks the interworking core for a foreign KME. `None` when the site is stopping.
    pub async fn foreign_request(&self, peer: String, request: PeerRequest) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::ForeignRequest(peer, request, reply)).await?;
        self.answered(answer).await
    }

    /// Waits for an answer that the disk may take along. What a commit that failed did is not known before the store
    /// is opened again, so there is nothing true to say: the caller's connection ends with the process, as in a crash.
    async fn answered<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        match answer.await {
            Ok(answer) => Some(answer),
            Err(_) if self.failure.has_happened() => std::future::pending().await,
            Err(_) => None,
        }
    }

    /// Tells the interworking core what became of a call. `None` when the site is stopping.
    pub async fn foreign_answer(&self, call: CallId, answer: Answer) -> Option<()> {
        self.put(Job::ForeignAnswer(call, answer)).await
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

    /// What the stocks of all pairs do. `None` when the site is stopping.
    pub async fn flows(&self) -> Option<Vec<PairFlow>> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Flows(reply)).await?;
        answer.await.ok()
    }

    /// Tells the KME something, waiting while the keeper is behind. `None` when the site is stopping.
    pub async fn input(&self, input: Input) -> Option<()> {
        self.inputs(vec![input]).await
    }

    /// The same with several, which share one pass to disk.
    pub async fn inputs(&self, inputs: Vec<Input>) -> Option<()> {
        self.put(Job::Inputs(inputs)).await
    }

    /// As [`Keeper::input`], from a thread.
    pub fn input_blocking(&self, input: Input) {
        drop(self.jobs.blocking_send(Job::Inputs(vec![input])));
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
    foreign_replies: HashMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    filed: HashMap<LinkId, WhenFiled>,
    pending: Pending,
    /// Messages that leave when the core has nothing more to say, those to one site together.
    sends: BTreeMap<SiteId, Vec<Vec<u8>>>,
    checkpointed: Time,
    /// How long the last pass to disk took.
    pass: Duration,
    /// Whether the last pass served several jobs.
    crowded: bool,
    heartbeat: Time,
    disk: DiskUse,
    /// When the store last overwrote what is dead.
    wiped: Time,
}

/// What the next pass to disk holds.
#[derive(Default)]
struct Pending {
    changes: Vec<Change>,
    events: Vec<Event>,
    commit: Option<CommitSeq>,
    interwork_commit: Option<CommitSeq>,
    durable: Vec<WhenDurable>,
    recorded: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.events.is_empty()
            && self.commit.is_none()
            && self.interwork_commit.is_none()
            && self.durable.is_empty()
            && self.recorded.is_empty()
    }
}

impl Worker {
    fn new(parts: KeeperParts) -> Self {
        Self {
            parts,
            replies: HashMap::new(),
            foreign_replies: HashMap::new(),
            next_request: 0,
            filed: HashMap::new(),
            pending: Pending::default(),
            sends: BTreeMap::new(),
            checkpointed: clock::now(),
            pass: Duration::ZERO,
            crowded: false,
            heartbeat: clock::now(),
            disk: DiskUse::default(),
            wiped: clock::now(),
        }
    }

    fn run(mut self, inbox: Receiver<Job>, runtime: &Handle, failure: &DiskFailure) {
        match self.serve(inbox, runtime) {
            Ok(stopped) => {
                // The store gives its place to another replica when it is dropped: before the process may end.
                drop(self.parts);
                let _nobody_waits = stopped.send(());
            }
            Err(error) => {
                tracing::error!(data = %self.parts.data.display(), %error, "nothing can be made durable; stopping");
                // Before those who wait for an answer see that none comes.
                failure.tell(error);
            }
        }
    }

    /// Until asked to stop or the disk fails.
    fn serve(&mut self, mut inbox: Receiver<Job>, runtime: &Handle) -> Result<oneshot::Sender<()>, DiskError> {
        self.settle()?;
        loop {
            let wait = self.next_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            let mut batch = Vec::new();
            // Without a timer while there is work.
            let first = match inbox.try_recv() {
                Ok(job) => Ok(Some(job)),
                Err(_) => runtime.block_on(async { timeout(wait, inbox.recv()).await }),
            };
            match first {
                Ok(Some(job)) => batch.push(job),
                Ok(None) => return Err(DiskError::Abandoned),
                Err(_) => {}
            }
            if self.crowded {
                // Who was answered by the last pass asks again now: their jobs share the next pass.
                std::thread::sleep(self.pass / GATHER_DIVISOR);
            }
            while batch.len() < BATCH_MAX
                && let Ok(job) = inbox.try_recv()
            {
                batch.push(job);
            }
            self.crowded = batch.iter().map(Job::weight).sum::<usize>() > 1;
            for job in batch {
                if let Some(stop) = self.take(job) {
                    self.settle()?;
                    self.pending.events.extend(self.parts.refusals.close(clock::now()));
                    self.pending.events.push(Event::ServiceStopped);
                    self.settle()?;
                    self.parts.store.wipe()?;
                    self.parts.log.checkpoint()?;
                    return Ok(stop);
                }
            }
            if self.parts.kme.poll_timeout().is_some_and(|at| at <= clock::now()) {
                self.parts.kme.handle_timeout(clock::now(), &mut os_rng());
            }
            if let Some((core, _)) = &mut self.parts.interwork
                && core.poll_timeout().is_some_and(|at| at <= clock::now())
            {
                core.handle_timeout(clock::now(), &mut os_rng());
            }
            self.settle()?;
            if self.wipe_due().is_some_and(|at| at <= clock::now()) {
                self.parts.store.wipe()?;
                self.wiped = clock::now();
            }
            self.keep_place()?;
            if self.parts.log.unsigned() > 0 && clock::now() - self.checkpointed > CHECKPOINT_EVERY {
                self.parts.log.checkpoint()?;
                self.checkpointed = clock::now();
            }
        }
    }

    /// Says to the other replicas of the site that this one lives, and makes a backup when one is due.
    fn keep_place(&mut self) -> Result<(), DiskError> {
        let due = self.parts.store.heartbeat_every();
        if due.is_some_and(|every| clock::now() - self.heartbeat >= every) {
            self.parts.store.heartbeat()?;
            self.heartbeat = clock::now();
        }
        if let Some(backups) = &mut self.parts.backups {
            backups.tick(&mut self.parts.store);
        }
        Ok(())
    }

    fn take(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Inputs(inputs) => inputs.into_iter().for_each(|input| self.kme(input)),
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
            Job::ForeignRequest(peer, request, reply) => {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                self.foreign_replies.insert(id, reply);
                self.interwork(kms::interwork::Input::Request { id, peer, request });
            }
            Job::ForeignAnswer(call, answer) => self.interwork(kms::interwork::Input::Answer { call, answer }),
            Job::Filed(link, call) => drop(self.filed.insert(link, call)),
            Job::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Job::Flows(reply) => drop(reply.send(self.parts.kme.pairs())),
            Job::Stop(done) => return Some(done),
        }
        None
    }

    /// Drains the core and goes to disk until nothing is left to do.
    fn settle(&mut self) -> Result<(), DiskError> {
        loop {
            self.drain();
            self.pending.events.extend(self.parts.refusals.due(clock::now()));
            if self.pending.is_empty() {
                return Ok(());
            }
            let (pass, begun) = (std::mem::take(&mut self.pending), Instant::now());
            if !pass.changes.is_empty() {
                self.parts.store.commit(&pass.changes)?;
                self.disk.commits.note(begun.elapsed());
                self.disk.changes += pass.changes.len() as u64;
            }
            if !pass.events.is_empty() {
                let begun = Instant::now();
                self.parts.log.append(clock::utc_now(), &pass.events)?;
                self.disk.appends.note(begun.elapsed());
            }
            self.pass = begun.elapsed().min(PASS_MAX);
            if let Some(seq) = pass.commit {
                self.parts.kme.handle_input(clock::now(), Input::Durable(seq), &mut os_rng());
            }
            if let Some(seq) = pass.interwork_commit {
                self.interwork(kms::interwork::Input::Durable(seq));
            }
            pass.durable.into_iter().for_each(|when_durable| when_durable());
            for done in pass.recorded {
                let _nobody_waits = done.send(());
            }
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        let interwork = self.parts.interwork.as_ref().and_then(|(core, _)| core.poll_timeout());
        [self.parts.kme.poll_timeout(), interwork, self.wipe_due()].into_iter().flatten().min()
    }

    /// When consumed key is to be overwritten: at once if that was not done for a while, so what is consumed stays
    /// for no longer than [`WIPE_EVERY`] and a pass to disk, and a busy site does not wait for the disk twice a pass.
    fn wipe_due(&self) -> Option<Time> {
        self.parts.store.is_dirty().then(|| self.wiped.after(WIPE_EVERY))
    }

    /// Until both cores have nothing to say; what one says may make the other speak.
    fn drain(&mut self) {
        loop {
            if let Some(output) = self.parts.kme.poll_output() {
                self.put_out(output);
            } else if let Some(output) = self.parts.interwork.as_mut().and_then(|(core, _)| core.poll_output()) {
                self.put_foreign_out(output);
            } else {
                break;
            }
        }
        for (to, messages) in std::mem::take(&mut self.sends) {
            self.parts.kx.send_together(&to, Channel::Kms, &messages);
        }
    }

    fn interwork(&mut self, input: kms::interwork::Input) {
        if let Some((core, _)) = &mut self.parts.interwork {
            core.handle_input(clock::now(), input, &mut os_rng());
        }
    }

    fn kme(&mut self, input: Input) {
        self.parts.kme.handle_input(clock::now(), input, &mut os_rng());
    }

    fn put_foreign_out(&mut self, output: kms::interwork::Output) {
        use kms::interwork::Output;
        match output {
            Output::Commit { seq, changes, events } => {
                self.pending.changes.extend(changes);
                self.pending.events.extend(events);
                self.pending.interwork_commit = Some(seq);
            }
            Output::Call { call, peer, path, body } => {
                let calls = self.parts.interwork.as_ref().map(|(_, calls)| calls);
                let sent = calls.is_some_and(|calls| calls.try_send(Outgoing { call, peer, path, body }).is_ok());
                if !sent {
                    self.interwork(kms::interwork::Input::Answer { call, answer: Answer::Lost });
                }
            }
            Output::Reply { id, reply } => {
                if let Some(waiting) = self.foreign_replies.remove(&id) {
                    drop(waiting.send(reply));
                }
            }
            Output::Import { id, initiator, targets, keys } => {
                self.kme(Input::Import { id, initiator, targets, keys });
            }
            Output::Withdraw { id, initiator, targets, ids } => {
                self.kme(Input::Withdraw { id, initiator, targets, ids });
            }
            Output::Exported { export, result } => self.kme(Input::Exported { export, result }),
        }
    }

    fn put_out(&mut self, output: Output) {
        match output {
            Output::Commit { seq, changes, events } => {
                self.pending.changes.extend(changes);
                events.iter().for_each(say_aloud);
                let events: Vec<Event> = events.into_iter().filter_map(|event| self.unless_refusal(event)).collect();
                self.pending.events.extend(events);
                self.pending.commit = Some(seq);
            }
            Output::Send { to, bytes } => self.sends.entry(to).or_default().push(bytes),
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
            Output::Imported { id, result } => self.interwork(kms::interwork::Input::Imported { id, result }),
            Output::Withdrawn { id, result } => self.interwork(kms::interwork::Input::Withdrawn { id, result }),
            Output::Export { export, peer, master, slave, keys, passed_on } if self.parts.interwork.is_some() => {
                self.interwork(kms::interwork::Input::Export { export, peer, master, slave, keys, passed_on });
            }
            Output::ExportVoid { export, peer, master, slave, ids } if self.parts.interwork.is_some() => {
                self.interwork(kms::interwork::Input::ExportVoid { export, peer, master, slave, ids });
            }
            // Left from a time when this site interworked: whether the keys were taken then is not known.
            Output::Export { export, .. } | Output::ExportVoid { export, .. } => {
                self.kme(Input::Exported { export, result: Err(ExportFailure::InDoubt) });
            }
        }
    }

    /// Refusals go into the log by their number.
    fn unless_refusal(&self, event: Event) -> Option<Event> {
        match event {
            Event::RequestRefused { sae, reason } => {
                self.parts.refusals.note(clock::now(), &sae.into(), &reason);
                None
            }
            event => Some(event),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            pairs: self.parts.kme.stock(),
            links: self.parts.kme.link_stock(),
            counters: self.parts.kme.counters(),
            audit: self.parts.log.recent(AUDIT_LINES).rev().map(audit_line).collect(),
            audit_entries: self.parts.log.size(),
            flows: self.parts.kme.pairs(),
            interwork: self.parts.interwork.as_ref().map(|(core, _)| core.counters()),
            disk: self.disk.clone(),
        }
    }
}

/// Events that somebody must look at have a line in the process's log, too.
fn say_aloud(event: &Event) {
    match event {
        Event::StoreSetBack { site, told, known } => tracing::error!(
            %site, told, known,
            "this site's records are older than what was heard of it; what may have been spent is burned. Who restored them?"
        ),
        Event::KeysUnconfirmed { peer, ways, keys, .. } => tracing::warn!(
            %peer, ways, keys, "keys from several ways do not fit together: a relay on one of them changed its share"
        ),
        _ => {}
    }
}

fn audit_line(entry: &ledger::Entry) -> AuditLine {
    let fields = entry.fields.iter().map(|(name, value)| format!("{name}={value}"));
    AuditLine { seq: entry.seq, time: entry.time, code: entry.code.clone(), text: fields.collect::<Vec<_>>().join(" ") }
}

const JOBS_MAX: usize = 4_096;
const BATCH_MAX: usize = 512;
/// Part of a pass's time that is waited for more jobs under load.
const GATHER_DIVISOR: u32 = 4;
/// A pass counts as no longer than this.
const PASS_MAX: Duration = Duration::from_millis(8);
const AUDIT_LINES: usize = 12;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Least time between two passes that do nothing but overwrite consumed key.
const WIPE_EVERY: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(500);
