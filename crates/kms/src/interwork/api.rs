//! Settings, inputs and outputs of interworking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::record::Change;
use crypto::secret::SecretBytes;
use etsi::etsi020::{AckContainers, CallbackUrl, ExtKeyContainer, Problem, VoidContainer};
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId};

use crate::{CommitSeq, ExportFailure, PassedOn, Refusal};

/// Number of a call to a foreign KME since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Settings of interworking.
#[derive(Clone, Debug)]
pub struct Config {
    /// The foreign KMEs by the name that this site gives them.
    pub peers: BTreeMap<String, PeerConfig>,
    /// The SAEs of this network.
    pub saes: BTreeSet<SaeId>,
    /// How long a transfer is tried before its keys are voided.
    pub export_give_up: Duration,
    /// How long an accepted transfer or void may stay without acknowledgement before it is sent again.
    pub ack_wait: Duration,
    /// First wait before a call is repeated; doubles up to `backoff_max`.
    pub backoff: Duration,
    /// Longest wait before a call is repeated.
    pub backoff_max: Duration,
    /// How long a foreign key may take to reach its targets before it is reported as failed.
    pub import_give_up: Duration,
    /// How long the answer to a synchronous request may take.
    pub sync_max: Duration,
    /// How long an acknowledgement or a void is repeated.
    pub post_give_up: Duration,
    /// How long it is remembered that a key was relayed or failed, for repeated transfers and acknowledgements.
    pub resolved_ttl: Duration,
    /// How long it is remembered that a key was voided, so that a late transfer of it is refused.
    pub void_ttl: Duration,
    /// Most fates remembered per foreign KME; then nothing new is taken from it until some are forgotten.
    pub tombstones_max: usize,
    /// Most transfers of one foreign KME, and to it, that may be unresolved at once.
    pub transfers_max: usize,
    /// Most target SAEs of one transfer.
    pub targets_max: usize,
    /// Most calls to one foreign KME at once.
    pub calls_max: usize,
}

impl Config {
    /// The defaults for a site's SAEs; peers are to be added.
    #[must_use]
    pub fn new(saes: BTreeSet<SaeId>) -> Self {
        Self {
            peers: BTreeMap::new(),
            saes,
            export_give_up: Duration::from_secs(30),
            ack_wait: Duration::from_secs(5),
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            import_give_up: Duration::from_secs(20),
            sync_max: Duration::from_secs(10),
            post_give_up: Duration::from_secs(24 * 3_600),
            resolved_ttl: Duration::from_secs(600),
            void_ttl: Duration::from_secs(24 * 3_600),
            tombstones_max: 262_144,
            transfers_max: 1_024,
            targets_max: 16,
            calls_max: 8,
        }
    }
}

/// A foreign KME in the same trusted node.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Host and port to which its callback URLs must lead, as [`CallbackUrl::authority`] writes it.
    pub authority: String,
    /// The URL of this site that it shall send acknowledgements to.
    pub callback: CallbackUrl,
    /// The SAEs behind it.
    pub saes: BTreeSet<SaeId>,
}

/// What the shell tells the core.
#[derive(Debug)]
pub enum Input {
    /// [`crate::Output::Export`] of the KME.
    Export {
        /// Its id; the same when it comes again.
        export: KeyId,
        /// The foreign KME.
        peer: String,
        /// The master SAE, of this network.
        master: SaeId,
        /// The slave SAE, behind the foreign KME.
        slave: SaeId,
        /// The keys under their ids.
        keys: Vec<(KeyId, SecretBytes)>,
        /// What the master SAE said besides.
        passed_on: Option<PassedOn>,
    },
    /// [`crate::Output::ExportVoid`] of the KME.
    ExportVoid {
        /// Which export.
        export: KeyId,
        /// The foreign KME.
        peer: String,
        /// The master SAE.
        master: SaeId,
        /// The slave SAE.
        slave: SaeId,
        /// The keys.
        ids: Vec<KeyId>,
    },
    /// [`crate::Output::Imported`] of the KME.
    Imported {
        /// Which import.
        id: RequestId,
        /// Whether each target's KME holds the keys.
        result: Result<(), Refusal>,
    },
    /// [`crate::Output::Withdrawn`] of the KME.
    Withdrawn {
        /// Which withdrawal.
        id: RequestId,
        /// Whether the keys are destroyed.
        result: Result<(), Refusal>,
    },
    /// A foreign KME asks; answered by exactly one [`Output::Reply`].
    Request {
        /// Correlates the reply.
        id: RequestId,
        /// Which KME, by its certificate.
        peer: String,
        /// What it asks.
        request: PeerRequest,
    },
    /// What became of an [`Output::Call`].
    Answer {
        /// Which call.
        call: CallId,
        /// The answer.
        answer: Answer,
    },
    /// This commit and all before it are durable, records and events.
    Durable(CommitSeq),
}

/// What a foreign KME asks.
#[derive(Debug)]
pub enum PeerRequest {
    /// POST `ext_keys`.
    Transfer(ExtKeyContainer),
    /// POST `ext_keys/ack`.
    Ack(AckContainers),
    /// POST `ext_keys/void`.
    Void(VoidContainer),
}

/// What a foreign KME answered to a call.
#[derive(Debug)]
pub enum Answer {
    /// This status and body.
    Status(u16, Vec<u8>),
    /// Nothing that arrived whole: the call may or may not have had its effect.
    Lost,
}

/// The answer to a request of a foreign KME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 202 without body.
    Accepted,
    /// 200 without body.
    Taken,
    /// 200 with the fate of the keys.
    Resolved(AckContainers),
    /// The problem's status and the problem.
    Refused(Problem),
}

/// What the core tells the shell.
#[derive(Debug)]
pub enum Output {
    /// Make the changes durable together, append the events durably, then say [`Input::Durable`]. In order.
    Commit {
        /// Its number.
        seq: CommitSeq,
        /// Changes of records.
        changes: Vec<Change>,
        /// Audit events.
        events: Vec<Event>,
    },
    /// POST a body to a foreign KME, once, and say [`Input::Answer`] exactly once.
    Call {
        /// Correlates the answer.
        call: CallId,
        /// Which KME.
        peer: String,
        /// Path and query at that KME.
        path: String,
        /// The body; may hold key bits.
        body: SecretBytes,
    },
    /// Answer a request.
    Reply {
        /// Which request.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Tell the KME [`crate::Input::Import`].
    Import {
        /// Correlates the answer.
        id: RequestId,
        /// The master SAE, behind the foreign KME.
        initiator: SaeId,
        /// The slave SAEs, of this network.
        targets: Vec<SaeId>,
        /// The keys under their ids.
        keys: Vec<(KeyId, SecretBytes)>,
    },
    /// Tell the KME [`crate::Input::Withdraw`].
    Withdraw {
        /// Correlates the answer.
        id: RequestId,
        /// The master SAE.
        initiator: SaeId,
        /// The slave SAEs.
        targets: Vec<SaeId>,
        /// Which keys.
        ids: Vec<KeyId>,
    },
    /// Tell the KME [`crate::Input::Exported`].
    Exported {
        /// Which export.
        export: KeyId,
        /// Whether the foreign KME has the keys for its SAE.
        result: Result<(), ExportFailure>,
    },
}

/// What interworking did since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Keys that foreign KMEs acknowledged as relayed.
    pub exported_keys: u64,
    /// Transfers to foreign KMEs that failed.
    pub exports_failed: u64,
    /// Keys of foreign KMEs that reached their targets.
    pub imported_keys: u64,
    /// Keys voided on request of a foreign KME.
    pub voided_keys: u64,
    /// Requests of foreign KMEs refused.
    pub requests_refused: u64,
    /// Calls that were answered by nothing, or by an error.
    pub calls_failed: u64,
}

/// Doubles a wait with every attempt.
pub(super) fn backoff(config: &Config, attempts: u32) -> Duration {
    config.backoff.saturating_mul(1 << attempts.min(16)).min(config.backoff_max)
}

impl crate::journal::Commits for Output {
    fn commit(seq: CommitSeq, changes: Vec<Change>, events: Vec<Event>) -> Self {
        Self::Commit { seq, changes, events }
    }
}
