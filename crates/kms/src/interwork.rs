//! Interworking with the key management of another maker or network in the same trusted node (ETSI GS QKD 020
//! V1.1.1): one core between a site's [`Kme`](crate::Kme) and its foreign neighbours.
//!
//! ```text
//!             Export, ExportVoid                POST ext_keys, void          ack
//!   own KME ────────────────────►  Interwork  ──────────────────► foreign KME ──┐
//!           ◄────────────────────     │  ▲    ◄─────────────────────────────────┘
//!             Exported                │  │      POST ext_keys, void
//!   own KME ◄─────────────────────────┘  └───────────────────────  foreign KME
//!             Import, Withdraw                ──────────────────►  ack
//! ```
//!
//! | file | does |
//! |---|---|
//! | `api` | settings, inputs, outputs |
//! | `sending` | keys of this network on their way out |
//! | `receiving` | keys of a foreign network on their way in |
//! | `voiding` | void requests of a foreign KME |
//! | `posting` | the outbox: back-off, calls under way, answers |
//! | `record` | durable records (`docs/formats/interwork-records.md`) |
//! | `restore` | from records to a core |
//!
//! Rules of the standard that this core keeps, whatever is lost, repeated or killed:
//!
//! - Only a received 400 or 401 to the first sending of a key says that nothing is kept. After anything else the same
//!   transfer is repeated, or the keys are voided here first and then there. A key never goes to another pair.
//! - Whatever an answer or an acknowledgement promises is durable before it leaves.
//! - The same transfer again gives the same result; other bits or other SAEs under a known id are refused.
//! - A key id that was voided stays refused while its tombstone stands.
//!
//! Provided: asynchronous mode at both ends, synchronous mode where a foreign KME asks for it, several targets per
//! key of a foreign KME.
//! Optional extensions of the SAE that asks go along with a transfer as long as the process lives.
//! Not provided: sending in synchronous mode; keys that only cross this network (a target behind another foreign KME
//! is refused as not routable); mandatory extensions.

mod api;
mod posting;
mod receiving;
mod record;
mod restore;
mod sending;
#[cfg(test)]
mod tests;
mod voiding;

use std::collections::{BTreeMap, BTreeSet};

use crypto::rand_core::CryptoRng;
use crypto::record::Record;
use types::id::{KeyId, RequestId, SaeId};
use types::units::Time;

pub use self::api::{Answer, CallId, Config, Counters, Input, Output, PeerConfig, PeerRequest, Reply};
use self::posting::{Post, PostId, Queue};
use self::receiving::{Import, Known, SyncWait};
use self::sending::{Export, Sent};
use self::voiding::{VoidJob, Withdrawal};
use crate::Error;
use crate::journal::Journal;

/// Interworking of one site: a core without IO.
///
/// Call one of [`Interwork::handle_input`] and [`Interwork::handle_timeout`], then drain [`Interwork::poll_output`]
/// until it gives `None`, then ask [`Interwork::poll_timeout`] when to call [`Interwork::handle_timeout`] at the
/// latest. Commits are to be made durable in the order in which they come out.
#[derive(Debug)]
pub struct Interwork {
    config: Config,
    journal: Journal<Output>,
    timers: BTreeSet<(Time, Timer)>,
    counters: Counters,
    next_call: u64,
    next_request: u64,
    // Sending.
    exports: BTreeMap<KeyId, Export>,
    sent: BTreeMap<KeyId, Sent>,
    exported_keys: BTreeMap<KeyId, KeyId>,
    // Receiving.
    imports: BTreeMap<KeyId, Import>,
    known: BTreeMap<KeyId, Known>,
    /// Keys of pending imports.
    pending: BTreeMap<KeyId, KeyId>,
    import_requests: BTreeMap<RequestId, KeyId>,
    /// Fates remembered per foreign KME.
    known_count: BTreeMap<String, usize>,
    sync_waits: BTreeMap<RequestId, SyncWait>,
    // Voiding.
    void_jobs: BTreeMap<KeyId, VoidJob>,
    withdrawals: BTreeMap<RequestId, Withdrawal>,
    // Posting.
    posts: BTreeMap<PostId, Post>,
    /// Calls under way.
    calls: BTreeMap<CallId, (PostId, String)>,
    queues: BTreeMap<String, Queue>,
    /// Keys that a foreign KME was asked to void.
    voids: BTreeMap<KeyId, PostId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Post(PostId),
    GiveUpExport(KeyId),
    Import(KeyId),
    Job(KeyId),
    Sync(RequestId),
    ForgetSent(KeyId),
    ForgetKnown(KeyId),
}

impl Interwork {
    /// Builds the core from its durable records; without records it is new.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record is not what this program writes.
    pub fn restore(now: Time, config: Config, records: Vec<Record>) -> Result<Self, Error> {
        restore::restore(now, config, records)
    }

    fn empty(config: Config) -> Self {
        Self {
            config,
            journal: Journal::default(),
            timers: BTreeSet::new(),
            counters: Counters::default(),
            next_call: 0,
            next_request: 0,
            exports: BTreeMap::new(),
            sent: BTreeMap::new(),
            exported_keys: BTreeMap::new(),
            imports: BTreeMap::new(),
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
            import_requests: BTreeMap::new(),
            known_count: BTreeMap::new(),
            sync_waits: BTreeMap::new(),
            void_jobs: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            posts: BTreeMap::new(),
            calls: BTreeMap::new(),
            queues: BTreeMap::new(),
            voids: BTreeMap::new(),
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) {
        match input {
            Input::Export { export, peer, master, slave, keys, passed_on } => {
                self.export(now, export, &peer, (&master, &slave), keys, passed_on.as_ref());
            }
            Input::ExportVoid { export, peer, master, slave, ids } => {
                self.export_void(now, export, &peer, &master, &slave, ids);
            }
            Input::Imported { id, result } => self.imported(now, id, result, rng),
            Input::Withdrawn { id, result } => self.withdrawn(now, id, result, rng),
            Input::Request { id, peer, request } => self.request(now, id, &peer, request, rng),
            Input::Answer { call, answer } => self.answered(now, call, answer, rng),
            Input::Durable(seq) => self.journal.durable(seq),
        }
        self.journal.close();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        while let Some((_, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            match timer {
                Timer::Post(post) => self.post_due(now, post, rng),
                Timer::GiveUpExport(export) => self.give_up_export(now, export),
                Timer::Import(import) => self.import_due(now, import),
                Timer::Job(job) => self.job_due(now, job, rng),
                Timer::Sync(request) => self.sync_late(request),
                Timer::ForgetSent(export) => self.forget_sent(now, export),
                Timer::ForgetKnown(key) => self.forget_known(now, key),
            }
        }
        self.journal.close();
    }

    /// The next output; drain after every mutation.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.poll()
    }

    /// When [`Interwork::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What this core did since it started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// SAEs behind foreign KMEs and those KMEs' names, for the directory of this network.
    #[must_use]
    pub fn foreign_saes(&self) -> BTreeMap<SaeId, String> {
        let peers = self.config.peers.iter();
        peers.flat_map(|(name, peer)| peer.saes.iter().map(|sae| (sae.clone(), name.clone()))).collect()
    }

    fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }
}

fn random_id(rng: &mut impl CryptoRng) -> KeyId {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    KeyId::from_random(bytes)
}
