//! One end of a link at work: a thread that owns the protocol core, fed by module, classical channel and disk.
//!
//! ```text
//!  module ──clicks──► ┌────────────┐ ◄──messages──► classical channel
//!                     │  LinkEnd   │
//!  keeper ◄─changes── │ (a thread) │ ──blocks──► keeper ──► KME pool
//!         ─durable──► └────────────┘ ◄──filed──
//! ```
//!
//! Post-processing takes whole cores for a while, so it has a thread of its own and never blocks the runtime.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::record::{Change, Record};
use link::vendor::VendorEnd;
use link::{Alarm, BlockRecord, Input, LinkConfig, LinkEnd, Output, SecretBlock};
use store::Store;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::BlockSeq;
use types::network::{Link, Network};
use types::quantum::{Role, Slot};

use super::classical::{self, ChannelEvent, ChannelEvents};
use super::initial_key::{InitialKey, end_generation, has_no_key};
use super::module::{self, ModuleEvent};
use super::vendor::{self, Device};
use crate::board::Board;
use crate::clock;
use crate::config::{LinkConfig as LinkAddresses, LinkSource, NodeConfig};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::keeper::Keeper;
use crate::report::{BlockReport, LinkReport};

/// A restored link end and where it plugs in.
pub struct LinkEndConfig {
    link: Link,
    role: Role,
    addresses: LinkAddresses,
    end: End,
}

/// The protocol core, by what makes the key.
enum End {
    Simulated(Box<LinkEnd>, SocketAddr),
    Vendor(Box<VendorEnd>, Box<Device>),
}

impl LinkEndConfig {
    /// Restores every link end of a site, in the order of its configuration. A link that never ran takes its first
    /// authentication key from its file, which is destroyed once the store holds it; so does a link whose file is of a
    /// later generation, after it gave up all it had. `None` for a link that has no key left and finds no such file.
    ///
    /// # Errors
    /// If a record is corrupt, or a new link has no key file.
    pub fn restore_all(
        config: &NodeConfig,
        network: &Network,
        records: Vec<Record>,
        store: &mut Store,
    ) -> Outcome<Vec<Option<Self>>> {
        let mut by_link = sort_by_link(config, records)?;
        let mut ends = Vec::new();
        for addresses in &config.link {
            let unknown = || Failure::new(format!("link {} does not end at site {}", addresses.id, config.site));
            let link = network.links().get(&addresses.id).ok_or_else(unknown)?.clone();
            let role = link.role_of(&config.site).ok_or_else(unknown)?;
            let mut records = by_link.remove(&addresses.id).unwrap_or_default();
            check_source(&link, &addresses.source, &records)?;
            if records.is_empty() || has_newer_key(addresses, &records)? {
                records = provision(&link, addresses, &records, store)?;
            } else if has_no_key(&records) {
                tracing::error!(
                    link = %link.id,
                    "the link has no authentication key: its store was restored. It waits until both ends are started \
                     with new key files; make them with `qurrent network rekey`"
                );
                ends.push(None);
                continue;
            } else if addresses.initial_key.exists() {
                let file = addresses.initial_key.display();
                tracing::warn!(link = %link.id, %file, "the link has its key already; remove this file, it is a secret");
            }
            let what = || format!("records of link {}", link.id);
            let end = match &addresses.source {
                LinkSource::Simulated { fibre } => {
                    let end = LinkEnd::restore(settings(&link, role, network), records).context(what)?;
                    End::Simulated(Box::new(end), *fibre)
                }
                LinkSource::Etsi014(device) => {
                    let end = VendorEnd::restore(vendor::core_config(&link, role, device), records).context(what)?;
                    End::Vendor(Box::new(end), Box::new(Device::open(device)?))
                }
            };
            ends.push(Some(Self { link, role, addresses: addresses.clone(), end }));
        }
        Ok(ends)
    }
}

fn settings(link: &Link, role: Role, network: &Network) -> LinkConfig {
    LinkConfig {
        link: link.id.clone(),
        role,
        decoy: link.decoy.clone(),
        security: network.security(),
        proof: link.proof,
        beyond_one_way: link.beyond_one_way,
        reconciliation: link.reconciliation,
        peer_timeout: PEER_TIMEOUT,
    }
}

/// The thread and the tasks of one link end.
pub struct LinkTask {
    thread: tokio::task::JoinHandle<()>,
}

impl LinkTask {
    /// Starts the end: plugs the module in, opens the classical channel, runs the protocol.
    ///
    /// # Errors
    /// If Alice has no listener.
    pub async fn start(
        config: LinkEndConfig,
        listener: Option<TcpListener>,
        keeper: &Keeper,
        board: &Arc<Board>,
        stop: &CancellationToken,
    ) -> Outcome<Self> {
        let LinkEndConfig { link, role, addresses, end } = config;
        board.add_link(empty_report(&link, role));
        let (end, fibre) = match end {
            End::Simulated(end, fibre) => (*end, fibre),
            End::Vendor(end, device) => {
                let thread =
                    vendor::start(link, role, &addresses, *end, *device, listener, keeper, board, stop).await?;
                return Ok(Self { thread });
            }
        };
        let (module_events, module_inbox) = mpsc::channel(MODULE_QUEUE_MAX);
        let (channel_events, channel_inbox) = mpsc::channel(CHANNEL_QUEUE_MAX);
        let (disk, disk_inbox) = mpsc::unbounded_channel();
        spawn_until(stop, module::run(link.clone(), role, fibre, module_events));
        open_classical(&link, role, addresses.classical, listener, channel_events, stop)?;
        let filed = disk.clone();
        keeper.when_filed(link.id.clone(), Arc::new(move |seq| drop(filed.send(DiskEvent::Filed(seq))))).await;
        let worker = Worker {
            link,
            role,
            end,
            keeper: keeper.clone(),
            board: board.clone(),
            disk,
            peer: None,
            clicks_since: None,
        };
        let inbox = Inbox { module: module_inbox, channel: channel_inbox, disk: disk_inbox, stop: stop.clone() };
        let runtime = Handle::current();
        let thread = tokio::task::spawn_blocking(move || worker.run(inbox, &runtime));
        Ok(Self { thread })
    }

    /// Waits until the thread has ended after the stop.
    pub async fn join(self) {
        drop(timeout(JOIN_MAX, self.thread).await);
    }
}

/// Opens the classical channel: Alice listens, Bob connects.
pub(super) fn open_classical(
    link: &Link,
    role: Role,
    address: SocketAddr,
    listener: Option<TcpListener>,
    events: ChannelEvents,
    stop: &CancellationToken,
) -> Outcome<()> {
    match (role, listener) {
        (Role::Alice, Some(listener)) => spawn_until(stop, classical::listen(listener, link.id.clone(), events)),
        (Role::Alice, None) => return Err(Failure::new(format!("link {} has no listener at Alice", link.id))),
        (Role::Bob, _) => spawn_until(stop, classical::connect(address, link.id.clone(), events)),
    }
    Ok(())
}

/// What the keeper tells a link. At most a few are under way, as many as the core has asked for.
enum DiskEvent {
    Durable(u64),
    Filed(BlockSeq),
}

struct Inbox {
    module: mpsc::Receiver<ModuleEvent>,
    channel: mpsc::Receiver<ChannelEvent>,
    disk: mpsc::UnboundedReceiver<DiskEvent>,
    stop: CancellationToken,
}

enum Wake {
    Module(ModuleEvent),
    Channel(ChannelEvent),
    Disk(DiskEvent),
    Time,
    Stop,
}

impl Inbox {
    async fn next(&mut self, wait: Duration) -> Wake {
        // What is on disk first, then what the peer says, then new clicks: a block is finished before the next grows.
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            Some(event) = self.disk.recv() => Wake::Disk(event),
            event = self.channel.recv() => event.map_or(Wake::Stop, Wake::Channel),
            event = self.module.recv() => event.map_or(Wake::Stop, Wake::Module),
            () = tokio::time::sleep(wait) => Wake::Time,
        }
    }
}

struct Worker {
    link: Link,
    role: Role,
    end: LinkEnd,
    keeper: Keeper,
    board: Arc<Board>,
    disk: mpsc::UnboundedSender<DiskEvent>,
    peer: Option<mpsc::Sender<bytes::Bytes>>,
    clicks_since: Option<(Instant, Slot)>,
}

impl Worker {
    fn run(mut self, mut inbox: Inbox, runtime: &Handle) {
        self.drain();
        loop {
            let wait = self.end.poll_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            match runtime.block_on(inbox.next(wait)) {
                Wake::Stop => return,
                Wake::Time => {}
                Wake::Disk(DiskEvent::Durable(seq)) => self.input(Input::Durable(seq)),
                Wake::Disk(DiskEvent::Filed(seq)) => self.input(Input::Filed(seq)),
                Wake::Channel(event) => self.channel(event),
                Wake::Module(event) => self.module(event),
            }
            if self.end.poll_timeout().is_some_and(|at| at <= clock::now()) {
                let result = self.end.handle_timeout(clock::now());
                self.drain();
                self.judge(result);
            }
        }
    }

    fn channel(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Up(peer) => {
                self.peer = Some(peer);
                self.report(|report| report.up = true);
                self.keeper.record_blocking(vec![Event::LinkUp { link: self.link.id.clone() }]);
                self.input(Input::Connected);
            }
            ChannelEvent::Down(reason) => {
                if self.peer.take().is_some() {
                    self.hung_up(reason);
                    self.input(Input::Disconnected);
                }
            }
            ChannelEvent::Message(bytes) if self.peer.is_some() => self.input(Input::Message(bytes.to_vec())),
            ChannelEvent::Message(_) => {}
        }
    }

    fn module(&mut self, event: ModuleEvent) {
        match event {
            ModuleEvent::Started { session, source } => {
                self.clicks_since = None;
                self.report(|report| report.lit = true);
                self.tell_kme(true);
                match source {
                    Some(source) => self.input(Input::Transmitting {
                        session,
                        source: Box::new(move |slots: &[Slot]| source.prepare_all(slots)),
                    }),
                    None => self.input(Input::Receiving { session }),
                }
            }
            ModuleEvent::Clicks { until, clicks } => {
                self.measure_time_scale(until);
                if !clicks.is_empty() {
                    self.input(Input::Detections(clicks));
                }
            }
            ModuleEvent::Receiver(reading) => self.input(Input::ReceiverReading(reading)),
            ModuleEvent::Transmitter(reading) => self.input(Input::TransmitterReading(reading)),
            ModuleEvent::Lost => {
                self.report(|report| report.lit = false);
                self.tell_kme(false);
            }
        }
    }

    fn input(&mut self, input: Input) {
        let result = self.end.handle_input(clock::now(), input, &mut os_rng());
        self.drain();
        self.judge(result);
    }

    /// After an error the connection is closed; module and channel come back by themselves.
    fn judge(&mut self, result: Result<(), link::Error>) {
        let Err(error) = result else { return };
        tracing::warn!(link = %self.link.id, role = ?self.role, %error, "link protocol");
        if self.peer.take().is_some() {
            self.hung_up(error.to_string());
        }
    }

    fn hung_up(&mut self, reason: String) {
        self.report(|report| report.up = false);
        self.keeper.record_blocking(vec![Event::LinkDown { link: self.link.id.clone(), reason }]);
    }

    fn drain(&mut self) {
        while let Some(output) = self.end.poll_output() {
            match output {
                Output::Send(bytes) => self.send(bytes),
                Output::Persist { seq, changes } => {
                    let disk = self.disk.clone();
                    self.keeper.persist(changes, Box::new(move || drop(disk.send(DiskEvent::Durable(seq)))));
                }
                Output::Block(block) => self.file(block),
                Output::Aborted(record) => self.aborted(&record),
                Output::Alarm(alarm) => self.alarm(alarm),
                Output::Progress(progress) => {
                    let share = progress.sifted as f64 / progress.block_bits.max(1) as f64;
                    self.report(|report| report.progress = share);
                }
            }
        }
    }

    fn send(&mut self, bytes: Vec<u8>) {
        let Some(peer) = &self.peer else { return };
        if peer.blocking_send(bytes.into()).is_err() {
            tracing::debug!(link = %self.link.id, "message for a closed channel");
        }
    }

    fn file(&mut self, block: SecretBlock) {
        let record = &block.record;
        let seconds = record.slots as f64 / self.link.hardware.clock_hz;
        let rate = record.secret.0.saturating_sub(record.spent.0) as f64 / seconds.max(1e-9);
        let qber = record.qber();
        let last = BlockReport {
            block: block.seq.0,
            rule: record.rule().to_string(),
            sifted: record.sifted(),
            qber: qber.unwrap_or_default(),
            leak_factor: record.efficiency(),
            secret: record.secret.0,
            kept: record.kept.0,
            light_s: seconds,
        };
        self.report(|report| {
            report.blocks += 1;
            report.last_block = Some(last);
            report.last_alarm = None;
            report.qber = qber;
            report.secret_bit_s = Some(rate);
        });
        self.keeper.record_blocking(vec![Event::BlockFiled {
            link: self.link.id.clone(),
            block: block.seq,
            secret: types::units::BitLen(block.key.len() as u64 * 8),
            authentication: record.kept,
            qber_ppm: parts_per_million(qber.unwrap_or_default()),
            proof: record.rule().to_string(),
        }]);
        let Some(peer) = self.link.other_end(self.site()).cloned() else { return };
        self.keeper.input_blocking(kms::Input::LinkBlock {
            link: self.link.id.clone(),
            peer,
            seq: block.seq,
            key: block.key,
        });
    }

    fn aborted(&mut self, record: &BlockRecord) {
        let cause = match &record.outcome {
            link::Outcome::Aborted(cause) => cause.to_string(),
            _ => return,
        };
        tracing::info!(link = %self.link.id, block = record.block.0, cause, "block given up");
        self.report(|report| {
            report.aborted += 1;
            report.last_abort = Some(cause.clone());
        });
        let link = self.link.id.clone();
        self.keeper.record_blocking(vec![Event::BlockAborted { link, block: record.block, cause }]);
    }

    fn alarm(&mut self, alarm: Alarm) {
        let Alarm { suspicion, evidence } = alarm;
        tracing::error!(link = %self.link.id, role = ?self.role, %suspicion, evidence, "this link looks attacked");
        self.report(|report| report.last_alarm = Some(format!("{suspicion}: {evidence}")));
        let (link, suspicion) = (self.link.id.clone(), suspicion.to_string());
        self.keeper.record_blocking(vec![Event::LinkAlarm { link, suspicion, evidence }]);
    }

    fn tell_kme(&self, up: bool) {
        let link = self.link.id.clone();
        match self.link.other_end(self.site()).cloned() {
            Some(peer) if up => self.keeper.input_blocking(kms::Input::LinkUp { link, peer }),
            _ => self.keeper.input_blocking(kms::Input::LinkDown { link }),
        }
    }

    /// Simulated seconds per second, over the session so far.
    fn measure_time_scale(&mut self, until: Slot) {
        let (since, first) = *self.clicks_since.get_or_insert((Instant::now(), until));
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed > 1.0 {
            let simulated = until.0.saturating_sub(first.0) as f64 / self.link.hardware.clock_hz;
            self.report(|report| report.time_scale = Some(simulated / elapsed));
        }
    }

    fn report(&self, change: impl FnOnce(&mut LinkReport)) {
        self.board.link(&self.link.id, change);
    }

    fn site(&self) -> &types::id::SiteId {
        match self.role {
            Role::Alice => &self.link.alice,
            Role::Bob => &self.link.bob,
        }
    }
}

/// Puts the first key of a generation into the store, in place of all that the link had, then destroys its file.
fn provision(link: &Link, config: &LinkAddresses, before: &[Record], store: &mut Store) -> Outcome<Vec<Record>> {
    let what = || format!("first key of link {}", link.id);
    let file = config.initial_key.as_path();
    let initial = InitialKey::read(file).map_err(|failure| {
        failure.remedy("both ends need the same new key file; a link that lost its store starts anew at both ends")
    })?;
    let (key, first) = (&initial.key, initial.first_block());
    let mut changes = if initial.generation > 0 { end_generation(&link.id, before, store)? } else { Vec::new() };
    let fresh = match &config.source {
        LinkSource::Simulated { .. } => LinkEnd::provision_from(&link.id, key, first),
        LinkSource::Etsi014(_) => VendorEnd::provision_from(&link.id, key, first),
    };
    changes.extend(fresh.context(what)?);
    store.commit(&changes).context(what)?;
    destroy(file).context(|| format!("cannot destroy {}", file.display()))?;
    Ok(changes.into_iter().filter_map(Change::into_put).collect())
}

/// Whether a key file of a later generation than the link's is there.
fn has_newer_key(config: &LinkAddresses, records: &[Record]) -> Outcome<bool> {
    if !config.initial_key.exists() {
        return Ok(false);
    }
    let now = InitialKey::generation_of(records).unwrap_or(0);
    Ok(InitialKey::read(&config.initial_key)?.generation > now)
}

/// A link's numbers and counters belong to one source.
fn check_source(link: &Link, source: &LinkSource, records: &[Record]) -> Outcome<()> {
    let vendor = matches!(source, LinkSource::Etsi014(_));
    match records.iter().find_map(VendorEnd::made) {
        Some(made) if made != vendor => {
            let before = if made { "etsi014" } else { "simulated" };
            Err(Failure::new(format!("link {} has run with source = \"{before}\" before", link.id)).remedy(
                "a link keeps its source for life: set it back, or give the link a new id and a new initial key",
            ))
        }
        _ => Ok(()),
    }
}

/// Overwrites and removes a file.
fn destroy(file: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let length = usize::try_from(fs::metadata(file)?.len()).unwrap_or_default();
    let mut out = fs::OpenOptions::new().write(true).open(file)?;
    out.write_all(&vec![0; length])?;
    out.sync_all()?;
    fs::remove_file(file)
}

/// Records of each configured link; the link's id begins the key (`docs/formats/link.md`).
fn sort_by_link(config: &NodeConfig, records: Vec<Record>) -> Outcome<BTreeMap<types::id::LinkId, Vec<Record>>> {
    let mut by_link: BTreeMap<types::id::LinkId, Vec<Record>> = BTreeMap::new();
    for record in records {
        let owner = config.link.iter().find(|link| LinkEnd::owns(&link.id, &record));
        let owner = owner.ok_or_else(|| {
            Failure::new("the store holds records of a link that node.toml does not have")
                .remedy("add the link again, or retire its store")
        })?;
        by_link.entry(owner.id.clone()).or_default().push(record);
    }
    Ok(by_link)
}

fn empty_report(link: &Link, role: Role) -> LinkReport {
    LinkReport {
        link: link.id.clone(),
        role,
        peer: match role {
            Role::Alice => link.bob.clone(),
            Role::Bob => link.alice.clone(),
        },
        length_km: link.length.0,
        up: false,
        lit: false,
        qber: None,
        secret_bit_s: None,
        progress: 0.0,
        blocks: 0,
        aborted: 0,
        last_abort: None,
        last_alarm: None,
        last_block: None,
        stock_out_bits: 0,
        stock_in_bits: 0,
        time_scale: None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate from 0 to 1 gives at most a million"
)]
fn parts_per_million(rate: f64) -> u64 {
    (rate.clamp(0.0, 1.0) * 1e6).round() as u64
}

pub(super) fn spawn_until(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop.cancelled() => {}
        }
    });
}

const PEER_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(1);
const JOIN_MAX: Duration = Duration::from_secs(5);
const MODULE_QUEUE_MAX: usize = 8;
const CHANNEL_QUEUE_MAX: usize = 64;
