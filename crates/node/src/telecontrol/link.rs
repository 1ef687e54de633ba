//! One session over one cipher connection: moves bytes, keys, commits and time between it and the world.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use crypto::secret::SecretBytes;
use gateway::session::BACKLOG_MAX;
use gateway::{Input, Output, Pools, Session, SessionConfig, StreamId};
use rand_core::Rng as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use types::id::KeyId;
use types::units::{BitLen, Time};

use super::plain::Plain;
use super::pool_store::PoolStore;
use super::supply::KeySupply;
use super::{EndConfig, Reports, Side};
use crate::clock;
use crate::entropy::os_rng;
use crate::failure::Outcome;

/// A session that is to be run.
pub(super) struct Link<'a, S> {
    config: &'a EndConfig,
    tcp: TcpStream,
    supply: Arc<S>,
    store: &'a PoolStore,
    session: Session,
    plains: BTreeMap<StreamId, Plain>,
    out: BytesMut,
    plain_in: mpsc::Sender<Input>,
    answers_in: mpsc::UnboundedSender<Input>,
    opened: bool,
    over: Option<String>,
}

/// A session that was run.
pub(super) struct Ended {
    pub(super) pools: Pools,
    pub(super) reason: String,
    pub(super) opened: bool,
}

/// Where a session's inputs arrive: from plain connections (bounded), and answers of keys and disk (one each per
/// question that the session asked).
pub(super) struct Inbox {
    plain: mpsc::Receiver<Input>,
    answers: mpsc::UnboundedReceiver<Input>,
}

impl<'a, S: KeySupply> Link<'a, S> {
    pub(super) fn new(
        config: &'a EndConfig,
        tcp: TcpStream,
        supply: Arc<S>,
        store: &'a PoolStore,
        pools: Pools,
    ) -> (Self, Inbox) {
        let mut nonce = [0; 16];
        os_rng().fill_bytes(&mut nonce);
        let session = SessionConfig {
            terminal: pools.terminal().clone(),
            center: config.center.clone(),
            policy: config.policy.clone(),
            supply: config.supply.clone(),
            limits: config.limits,
            nonce,
        };
        let (plain_in, plain) = mpsc::channel(INPUTS_MAX);
        let (answers_in, answers) = mpsc::unbounded_channel();
        let link = Self {
            config,
            tcp,
            supply,
            store,
            session: Session::new(clock::now(), session, pools),
            plains: BTreeMap::new(),
            out: BytesMut::new(),
            plain_in,
            answers_in,
            opened: false,
            over: None,
        };
        (link, Inbox { plain, answers })
    }

    /// Runs the session to its end.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) async fn run(
        mut self,
        mut inbox: Inbox,
        accepted: &mut mpsc::Receiver<TcpStream>,
        reports: &mut Reports,
        stop: &CancellationToken,
    ) -> Outcome<Ended> {
        let mut tick = interval(STATUS_EVERY);
        let mut stopping = false;
        let mut buffer = vec![0; READ_MAX];
        let reason = loop {
            self.drain(reports)?;
            if let Some(reason) = self.over.take() {
                break reason;
            }
            let due = self.session.poll_timeout();
            let quiet = self.out.len() < BACKLOG_MAX;
            tokio::select! {
                ready = self.tcp.readable() => self.receive(ready, &mut buffer),
                ready = self.tcp.writable(), if !self.out.is_empty() => self.written(ready),
                Some(answer) = inbox.answers.recv() => self.session.handle_input(clock::now(), answer),
                Some(input) = inbox.plain.recv(), if quiet => self.session.handle_input(clock::now(), input),
                Some(tcp) = accepted.recv(), if self.opened && quiet => self.accept(tcp),
                () = sleep_until(instant(due)), if due.is_some() => self.session.handle_timeout(clock::now()),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.session.handle_input(clock::now(), Input::Stop);
                }
                _ = tick.tick() => self.show(reports),
            }
        };
        self.show(reports);
        drop(timeout(FLUSH_TIMEOUT, self.flush()).await);
        Ok(Ended { pools: self.session.into_pools(), reason, opened: self.opened })
    }

    fn receive(&mut self, ready: io::Result<()>, buffer: &mut [u8]) {
        let input = match ready.and_then(|()| self.tcp.try_read(buffer)) {
            Ok(0) => Input::Lost,
            Ok(len) => Input::Received(buffer.get(..len).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => Input::Lost,
        };
        self.session.handle_input(clock::now(), input);
    }

    fn written(&mut self, ready: io::Result<()>) {
        if ready.is_err() {
            return self.session.handle_input(clock::now(), Input::Lost);
        }
        self.write();
    }

    /// Writes what the socket takes now.
    fn write(&mut self) {
        while !self.out.is_empty() {
            match self.tcp.try_write(&self.out) {
                Ok(len) => {
                    self.out.advance(len);
                    self.session.handle_input(clock::now(), Input::Written(len));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.session.handle_input(clock::now(), Input::Lost),
            }
        }
    }

    async fn flush(&mut self) {
        while !self.out.is_empty() {
            if self.tcp.writable().await.is_err() {
                return;
            }
            match self.tcp.try_write(&self.out) {
                Ok(len) => self.out.advance(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, tcp: TcpStream) {
        match self.session.open_stream(clock::now()) {
            Some(stream) => {
                self.plains.insert(stream, Plain::serve(stream, tcp, self.plain_in.clone()));
            }
            None => tracing::warn!("a plain connection was refused: too many are open"),
        }
    }

    /// Does all that the session wants done.
    fn drain(&mut self, reports: &mut Reports) -> Outcome<()> {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.take(output, reports)?;
            }
            let before = self.out.len();
            self.write();
            if before == self.out.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, output: Output, reports: &mut Reports) -> Outcome<()> {
        match output {
            Output::Send(bytes) => self.out.extend_from_slice(&bytes),
            Output::Dial(stream) => self.dial(stream),
            Output::Deliver { stream, bytes } => self.with(stream, |plain| plain.deliver(bytes)),
            Output::Finish(stream) => self.with(stream, Plain::finish),
            Output::Ready(stream) => self.with(stream, Plain::ready),
            Output::Reset(stream) => {
                if let Some(plain) = self.plains.remove(&stream) {
                    plain.reset();
                }
            }
            Output::OrderKeys { request, number, size, .. } => {
                let (supply, answers) = (Arc::clone(&self.supply), self.answers_in.clone());
                tokio::spawn(async move {
                    let keys = order(&*supply, number, size).await;
                    drop(answers.send(Input::KeysOrdered { request, keys }));
                });
            }
            Output::CollectKeys { request, ids } => {
                let (supply, answers) = (Arc::clone(&self.supply), self.answers_in.clone());
                tokio::spawn(async move {
                    let keys = supply.collect(&ids).await.map_err(|failure| failure.to_string());
                    let keys = keys.map(|keys| keys.into_iter().map(|key| key.key).collect());
                    drop(answers.send(Input::KeysCollected { request, keys }));
                });
            }
            Output::Commit { seq, changes } => self.store.commit(seq, changes, &self.answers_in)?,
            Output::Event(event) => (reports.events)(event),
            Output::Opened => {
                self.opened = true;
                tracing::info!(terminal = %self.session.terminal(), "telecontrol session open");
            }
            Output::Close { reason } => self.over = Some(reason),
        }
        Ok(())
    }

    fn dial(&mut self, stream: StreamId) {
        let inputs = self.plain_in.clone();
        match &self.config.plain {
            Side::Connect(address) => {
                self.plains.insert(stream, Plain::dial(stream, address.clone(), inputs));
            }
            // Both ends listen: nobody is there to be dialled.
            Side::Listen(_) => {
                tokio::spawn(async move { drop(inputs.send(Input::PlainReset(stream)).await) });
            }
        }
    }

    fn with(&mut self, stream: StreamId, tell: impl FnOnce(&Plain)) {
        if let Some(plain) = self.plains.get(&stream) {
            tell(plain);
        }
    }

    fn show(&mut self, reports: &Reports) {
        self.plains.retain(|_, plain| !plain.is_over());
        let status = self.session.status();
        reports.status.send_modify(|shown| shown.update(&status));
    }
}

async fn order(supply: &impl KeySupply, number: u32, size: BitLen) -> Result<Vec<(KeyId, SecretBytes)>, String> {
    let size = u32::try_from(size.0).map_err(|_| "a key of that size cannot be".to_owned())?;
    let keys = supply.supply(number, size).await.map_err(|failure| failure.to_string())?;
    Ok(keys.into_iter().map(|key| (key.id, key.key)).collect())
}

fn instant(due: Option<Time>) -> Instant {
    let wait = due.map_or(Duration::MAX, |due| due.since(clock::now()));
    Instant::now() + wait.min(FAR)
}

const INPUTS_MAX: usize = 1024;
const READ_MAX: usize = 64 * 1024;
const STATUS_EVERY: Duration = Duration::from_millis(500);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const FAR: Duration = Duration::from_secs(3600);
