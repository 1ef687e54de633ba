//! One end of a link that is fed by QKD devices of another maker: a thread that owns the protocol core, fed by this
//! site's device over ETSI GS QKD 014, classical channel and disk.
//!
//! ```text
//!  device ◄─requests── ┌────────────┐ ◄──messages──► classical channel
//!         ──keys─────► │ VendorEnd  │
//!  keeper ◄─changes─── │ (a thread) │ ──blocks──► keeper ──► KME pool
//!         ──durable──► └────────────┘ ◄──filed──
//!                            ▲ pool level, once a second
//! ```
//!
//! The device is left alone while the pool is full, and while the other site's KME is not heard: what it has not
//! confirmed does not count as stock, and would look like need.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Error, Kme, SuppliedKey};
use link::vendor::{
    DeviceFault, DeviceStatus, Input, Output, VendorBlock, VendorCause, VendorConfig, VendorEnd, VendorRecord,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::{BlockSeq, SaeId, SiteId};
use types::network::Link;
use types::quantum::Role;
use types::units::{BitLen, UtcNanos};

use super::classical::ChannelEvent;
use super::link::{open_classical, spawn_until};
use crate::board::Board;
use crate::clock;
use crate::config::{DeviceConfig, LinkConfig};
use crate::failure::{Failure, Outcome};
use crate::keeper::{Keeper, Snapshot};
use crate::report::LinkReport;
use crate::sae;

/// A site's QKD device.
pub struct Device {
    client: Kme,
    peer: SaeId,
}

impl Device {
    /// Reads the certificates; connects at the first request.
    ///
    /// # Errors
    /// If a file is missing or does not fit.
    pub fn open(config: &DeviceConfig) -> Outcome<Self> {
        Ok(Self { client: sae::device_client(config)?, peer: config.peer_sae.clone() })
    }

    async fn answer(&self, request: Request) -> Answer {
        let (number, asked) = match &request {
            Request::Status(number) => (*number, self.status(*number).await),
            Request::New { number, keys, key_bits } => {
                let keys = self.client.encrypt(&self.peer, *keys, *key_bits).await;
                (*number, keys.map(|keys| fetched(*number, keys)).map_err(Failure::from))
            }
            Request::ById { number, ids } => {
                match self.client.decrypt_all(&self.peer, ids).await {
                    Ok(keys) => (*number, Ok(fetched(*number, keys))),
                    // ETSI GS QKD 014, 5.5: unknown keys are a bad request, and not every maker says which it was.
                    Err(Error::KeysNotFound(_) | Error::Malformed(_)) => {
                        let input = Input::DeviceFailed { request: *number, fault: DeviceFault::Unknown };
                        return Answer { input, failure: None };
                    }
                    Err(error) => (*number, Err(error.into())),
                }
            }
        };
        match asked {
            Ok(input) => Answer { input, failure: None },
            Err(failure) => {
                let input = Input::DeviceFailed { request: number, fault: DeviceFault::Unavailable };
                Answer { input, failure: Some(failure) }
            }
        }
    }

    async fn status(&self, request: u64) -> Outcome<Input> {
        let said = self.client.status(&self.peer).await?;
        let key_bits = u32::try_from(said.key_size).map_err(|_| {
            Failure::new(format!("the QKD device says that its keys have {} bits", said.key_size))
                .remedy("ask its maker; a key of ETSI GS QKD 014 has a few hundred")
        })?;
        let status = DeviceStatus {
            key_bits,
            stored_keys: said.stored_key_count,
            keys_per_request_max: said.max_key_per_request,
        };
        Ok(Input::Status { request, status })
    }
}

/// What the core wants of the device.
enum Request {
    Status(u64),
    New { number: u64, keys: u32, key_bits: u32 },
    ById { number: u64, ids: Vec<types::id::KeyId> },
}

/// What became of it.
struct Answer {
    input: Input,
    /// For people; `None` if the device answered.
    failure: Option<Failure>,
}

fn fetched(request: u64, keys: Vec<SuppliedKey>) -> Input {
    Input::Fetched { request, keys: keys.into_iter().map(|key| (key.id, key.key)).collect() }
}

/// The core's configuration for one end.
#[must_use]
pub fn core_config(link: &Link, role: Role, device: &DeviceConfig) -> VendorConfig {
    VendorConfig {
        link: link.id.clone(),
        role,
        block_bytes: BLOCK_BYTES,
        pool_target: device.pool_target,
        peer_timeout: PEER_TIMEOUT,
    }
}

/// Starts an end: opens the classical channel, runs the protocol.
///
/// # Errors
/// If Alice has no listener.
#[expect(clippy::too_many_arguments, reason = "what a link end is wired to")]
pub(super) async fn start(
    link: Link,
    role: Role,
    config: &LinkConfig,
    end: VendorEnd,
    device: Device,
    listener: Option<TcpListener>,
    keeper: &Keeper,
    board: &Arc<Board>,
    stop: &CancellationToken,
) -> Outcome<JoinHandle<()>> {
    let (channel_events, channel_inbox) = mpsc::channel(CHANNEL_QUEUE_MAX);
    open_classical(&link, role, config.classical, listener, channel_events, stop)?;
    let (news, news_inbox) = mpsc::unbounded_channel();
    let filed = news.clone();
    keeper.when_filed(link.id.clone(), Arc::new(move |seq| drop(filed.send(News::Filed(seq))))).await;
    if role == Role::Alice {
        let levels = watch_pool(link.clone(), end.config().pool_target, keeper.clone(), board.clone(), news.clone());
        spawn_until(stop, levels);
    }
    tracing::info!(link = %link.id, ?role, device = %device.client.server(), "key comes from a QKD device");
    let runtime = Handle::current();
    let worker = Worker {
        link,
        role,
        end,
        device: Arc::new(device),
        keeper: keeper.clone(),
        board: board.clone(),
        news,
        runtime: runtime.clone(),
        peer: None,
        hang_up_at: None,
        lit: None,
        burst: None,
    };
    let inbox = Inbox { channel: channel_inbox, news: news_inbox, stop: stop.clone() };
    Ok(tokio::task::spawn_blocking(move || worker.run(inbox, &runtime)))
}

/// What keeper, device and pool tell the thread. Few are under way: what the core asked for, and a level a second.
enum News {
    Durable(u64),
    Filed(BlockSeq),
    Device(Answer),
    Pool(BitLen),
}

struct Inbox {
    channel: mpsc::Receiver<ChannelEvent>,
    news: mpsc::UnboundedReceiver<News>,
    stop: CancellationToken,
}

enum Wake {
    News(News),
    Channel(ChannelEvent),
    Time,
    Stop,
}

impl Inbox {
    async fn next(&mut self, wait: Duration) -> Wake {
        timeout(wait, async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Wake::Stop,
                Some(news) = self.news.recv() => Wake::News(news),
                event = self.channel.recv() => event.map_or(Wake::Stop, Wake::Channel),
            }
        })
        .await
        .unwrap_or(Wake::Time)
    }
}

struct Worker {
    link: Link,
    role: Role,
    end: VendorEnd,
    device: Arc<Device>,
    keeper: Keeper,
    board: Arc<Board>,
    news: mpsc::UnboundedSender<News>,
    runtime: Handle,
    peer: Option<mpsc::Sender<bytes::Bytes>>,
    /// When a connection that is of no use is closed.
    hang_up_at: Option<Instant>,
    /// Whether the device answered last; `None` before the first answer.
    lit: Option<bool>,
    /// Blocks in close succession: when they began, when the last came, and their bits without the first.
    burst: Option<(Instant, Instant, u64)>,
}

impl Worker {
    fn run(mut self, mut inbox: Inbox, runtime: &Handle) {
        self.tell_kme();
        self.time();
        loop {
            let wait = self.end.poll_timeout().map_or(IDLE, |at| at.since(clock::now()).min(IDLE));
            match runtime.block_on(inbox.next(wait)) {
                Wake::Stop => return,
                Wake::Time => {}
                Wake::News(News::Durable(seq)) => self.input(Input::Durable(seq)),
                Wake::News(News::Filed(seq)) => self.input(Input::Filed(seq)),
                Wake::News(News::Pool(bits)) => self.input(Input::PoolLevel(bits)),
                Wake::News(News::Device(answer)) => self.answered(answer),
                Wake::Channel(event) => self.channel(event),
            }
            if self.end.poll_timeout().is_some_and(|at| at <= clock::now()) {
                self.time();
            }
            if self.hang_up_at.is_some_and(|at| at <= Instant::now()) {
                self.hang_up_at = None;
                self.peer = None;
            }
        }
    }

    fn time(&mut self) {
        let result = self.end.handle_timeout(clock::now());
        self.drain();
        self.judge(result);
    }

    fn input(&mut self, input: Input) {
        let result = self.end.handle_input(clock::now(), input);
        self.drain();
        self.judge(result);
    }

    fn channel(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Up(peer) => {
                self.peer = Some(peer);
                self.hang_up_at = None;
                self.report(|report| report.up = true);
                self.keeper.record_blocking(vec![Event::LinkUp { link: self.link.id.clone() }]);
                self.input(Input::Connected);
            }
            ChannelEvent::Down(reason) => {
                if self.peer.take().is_some() {
                    if self.hang_up_at.take().is_none() {
                        self.hung_up(reason);
                    }
                    self.input(Input::Disconnected);
                }
            }
            ChannelEvent::Message(bytes) if self.peer.is_some() => self.input(Input::Message(bytes.to_vec())),
            ChannelEvent::Message(_) => {}
        }
    }

    /// After an error the connection is closed; it comes back by itself. One that only somebody can mend is kept for a
    /// while without use, so that it does not come back and fail many times a second.
    fn judge(&mut self, result: Result<(), link::Error>) {
        let Err(error) = result else { return };
        tracing::warn!(link = %self.link.id, role = ?self.role, %error, "link protocol");
        if self.peer.is_none() || self.hang_up_at.is_some() {
            return;
        }
        self.hung_up(error.to_string());
        match error {
            link::Error::Mismatch { .. } | link::Error::Exhausted { .. } => {
                self.hang_up_at = Some(Instant::now() + MISMATCH_PAUSE);
            }
            _ => self.peer = None,
        }
    }

    fn hung_up(&mut self, reason: String) {
        self.report(|report| report.up = false);
        self.keeper.record_blocking(vec![Event::LinkDown { link: self.link.id.clone(), reason }]);
    }

    /// Notes whether the device lives, says so when that changes, and hands its answer on.
    fn answered(&mut self, answer: Answer) {
        let Answer { input, failure } = answer;
        let (link, role, device) = (&self.link.id, self.role, self.device.client.server());
        match &failure {
            Some(failure) if self.lit != Some(false) => {
                tracing::warn!(%link, ?role, %device, %failure, "the QKD device does not deliver; it is asked again");
            }
            Some(failure) => tracing::debug!(%link, %device, %failure, "the QKD device does not deliver yet"),
            None if self.lit != Some(true) => tracing::info!(%link, ?role, %device, "the QKD device answers"),
            None => {}
        }
        if matches!(input, Input::DeviceFailed { fault: DeviceFault::Unknown, .. }) {
            tracing::warn!(%link, %device, "the QKD device does not know key ids that the other end's device gave out");
        }
        let lit = failure.is_none();
        self.lit = Some(lit);
        self.report(|report| report.lit = lit);
        self.input(input);
    }

    fn drain(&mut self) {
        while let Some(output) = self.end.poll_output() {
            match output {
                Output::Send(bytes) => self.send(bytes),
                Output::Persist { seq, changes } => {
                    let news = self.news.clone();
                    self.keeper.persist(changes, Box::new(move || drop(news.send(News::Durable(seq)))));
                }
                Output::Block(block) => self.file(block),
                Output::AskStatus { request } => self.ask(Request::Status(request)),
                Output::FetchNew { request, number, key_bits } => {
                    self.ask(Request::New { number: request, keys: number, key_bits });
                }
                Output::FetchById { request, ids } => self.ask(Request::ById { number: request, ids }),
                Output::Aborted(record) => self.aborted(record),
                Output::Dropped { cause, bits } => self.dropped(cause, bits),
                Output::Alarm { suspicion, evidence } => self.alarm(suspicion, evidence),
            }
        }
    }

    fn send(&mut self, bytes: Vec<u8>) {
        let Some(peer) = &self.peer else { return };
        if peer.blocking_send(bytes.into()).is_err() {
            tracing::debug!(link = %self.link.id, "message for a closed channel");
        }
    }

    fn ask(&self, request: Request) {
        let (device, news) = (self.device.clone(), self.news.clone());
        self.runtime.spawn(async move {
            let answer = device.answer(request).await;
            drop(news.send(News::Device(answer)));
        });
    }

    fn file(&mut self, block: VendorBlock) {
        let VendorRecord { keys, secret, kept, .. } = block.record;
        let bits = secret.0.saturating_sub(kept.0);
        let rate = self.measure_rate(bits);
        self.report(|report| {
            report.blocks += 1;
            report.last_alarm = None;
            report.secret_bit_s = rate.or(report.secret_bit_s);
        });
        let link = self.link.id.clone();
        tracing::debug!(%link, block = block.seq.0, keys, bits, "block of the device's keys");
        self.keeper.record_blocking(vec![Event::BlockFiled {
            link: link.clone(),
            block: block.seq,
            secret: BitLen(bits),
            authentication: kept,
            qber_ppm: 0,
            proof: PROOF.to_owned(),
        }]);
        let Some(peer) = self.link.other_end(self.site()).cloned() else { return };
        self.keeper.input_blocking(kms::Input::LinkBlock { link, peer, seq: block.seq, key: block.key });
    }

    fn aborted(&mut self, record: VendorRecord) {
        let cause = record.given_up.map(|cause| cause.to_string()).unwrap_or_default();
        tracing::warn!(link = %self.link.id, block = record.block.0, cause, "block given up");
        self.report(|report| {
            report.aborted += 1;
            report.last_abort = Some(cause.clone());
        });
        let link = self.link.id.clone();
        self.keeper.record_blocking(vec![Event::BlockAborted { link, block: record.block, cause }]);
    }

    fn dropped(&mut self, cause: VendorCause, bits: BitLen) {
        tracing::warn!(link = %self.link.id, %cause, bits = bits.0, "keys of the QKD device dropped");
        self.report(|report| {
            report.aborted += 1;
            report.last_abort = Some(cause.to_string());
        });
        let reason = format!("link {}: {cause}", self.link.id);
        self.keeper.record_blocking(vec![Event::KeyBurned { reason, bits }]);
    }

    fn alarm(&mut self, suspicion: &'static str, evidence: String) {
        tracing::error!(link = %self.link.id, role = ?self.role, suspicion, evidence, "look at this link");
        self.report(|report| report.last_alarm = Some(format!("{suspicion}: {evidence}")));
        let (link, suspicion) = (self.link.id.clone(), suspicion.to_owned());
        self.keeper.record_blocking(vec![Event::LinkAlarm { link, suspicion, evidence }]);
    }

    /// Once, at the start. A device that is down does not take the link out of the routes: the pool is filled ahead of
    /// need for just that time, and routes go by what it holds.
    fn tell_kme(&self) {
        let Some(peer) = self.link.other_end(self.site()).cloned() else { return };
        self.keeper.input_blocking(kms::Input::LinkUp { link: self.link.id.clone(), peer });
    }

    /// Bits per second while blocks follow each other. A link that waits for need makes none, which says nothing
    /// about what it can make.
    fn measure_rate(&mut self, bits: u64) -> Option<f64> {
        let now = Instant::now();
        let (begun, last, sum) = self.burst.unwrap_or((now, now, 0));
        if now.duration_since(last) > BURST_GAP || begun == now {
            self.burst = Some((now, now, 0));
            return None;
        }
        self.burst = Some((begun, now, sum + bits));
        let seconds = now.duration_since(begun).as_secs_f64();
        (seconds > 0.0).then(|| (sum + bits) as f64 / seconds)
    }

    fn report(&self, change: impl FnOnce(&mut LinkReport)) {
        self.board.link(&self.link.id, change);
    }

    fn site(&self) -> &SiteId {
        match self.role {
            Role::Alice => &self.link.alice,
            Role::Bob => &self.link.bob,
        }
    }
}

/// Alice: tells once a second what the pool holds.
async fn watch_pool(link: Link, target: BitLen, keeper: Keeper, board: Arc<Board>, news: mpsc::UnboundedSender<News>) {
    let mut heard: Option<(UtcNanos, Instant)> = None;
    let mut tick = tokio::time::interval(POOL_POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(snapshot) = keeper.snapshot().await else { return };
        // The other site's reports come over the connection of the KMEs. Their time is that of its clock, so only
        // that it moves says something.
        let made = board.sites().into_iter().find(|report| report.site == link.bob).map(|report| report.made);
        if let Some(made) = made
            && heard.is_none_or(|(before, _)| before != made)
        {
            heard = Some((made, Instant::now()));
        }
        let peer_lives = heard.is_some_and(|(_, at)| at.elapsed() < KME_SILENT);
        let level = if peer_lives { pool_level(&snapshot, &link) } else { target };
        if news.send(News::Pool(level)).is_err() {
            return;
        }
    }
}

/// The scarcer direction, twice; as full if the pool takes no more blocks.
fn pool_level(snapshot: &Snapshot, link: &Link) -> BitLen {
    match snapshot.links.iter().find(|stock| stock.link == link.id) {
        None => BitLen(0),
        Some(stock) if stock.blocks >= POOL_BLOCKS_MAX => BitLen(u64::MAX),
        Some(stock) => BitLen(2 * stock.bits_out.0.min(stock.bits_in.0)),
    }
}

/// Name of the rule in audit events: the device's word.
const PROOF: &str = "etsi014";
/// Key that one block is made of.
const BLOCK_BYTES: usize = 16 << 10;
/// Blocks in the pool beyond which no more are made; the KME takes 1,024.
const POOL_BLOCKS_MAX: u32 = 900;
const POOL_POLL: Duration = Duration::from_secs(1);
/// How long a site's KME may be silent and still count as there.
const KME_SILENT: Duration = Duration::from_secs(10);
/// A longer pause between blocks ends a burst.
const BURST_GAP: Duration = Duration::from_secs(10);
/// How long two ends that do not fit leave each other alone.
const MISMATCH_PAUSE: Duration = Duration::from_secs(30);
const PEER_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(1);
const CHANNEL_QUEUE_MAX: usize = 64;
