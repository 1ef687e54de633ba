//! What a site tells others about itself, for dashboards and `--json`: counts, rates and times, never key.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::id::{LinkId, ModelId, SiteId, TerminalId};
use types::quantum::Role;
use types::units::UtcNanos;

/// State of one site at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteReport {
    /// Which site.
    pub site: SiteId,
    /// When the report was made.
    pub made: UtcNanos,
    /// Program version.
    pub version: String,
    /// Links that end here.
    pub links: Vec<LinkReport>,
    /// End-to-end stock that this site owns, by the other site.
    pub pairs: Vec<PairReport>,
    /// Key counters since the process started.
    pub keys: KeyCounters,
    /// Model versions that this site published or holds.
    pub models: Vec<ModelReport>,
    /// Telecontrol sessions of gateways and terminals served here.
    pub terminals: Vec<TerminalReport>,
    /// Last entries of the audit log, newest first.
    pub audit: Vec<AuditLine>,
    /// Entries in the audit log.
    pub audit_entries: u64,
    /// What the site's interfaces and its disk did.
    #[serde(default)]
    pub service: ServiceReport,
}

/// What the interfaces and the disk of a site did since its process started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceReport {
    /// Key streams.
    pub streams: StreamReport,
    /// Keys to and from other networks, if the site interworks.
    pub interwork: Option<InterworkReport>,
    /// TLS handshakes by how they ended.
    pub handshakes: Vec<(String, u64)>,
    /// Refused requests by interface and reason.
    pub refusals: Vec<(String, String, u64)>,
    /// Passes to the store.
    pub store_commits: Timing,
    /// Passes to the audit log.
    pub log_appends: Timing,
    /// Changes of records that were made durable.
    pub store_changes: u64,
    /// Relays that failed.
    pub relays_failed: u64,
    /// Key destroyed unused, in bits.
    pub burned_bits: u64,
    /// Messages of other sites refused.
    pub messages_refused: u64,
}

/// Key streams of a site (ETSI GS QKD 004).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamReport {
    /// Ends of streams now.
    pub ends: u64,
    /// Calls that wait now.
    pub waiting: u64,
    /// Streams opened here first.
    pub opened: u64,
    /// Chunks given to applications.
    pub chunks: u64,
    /// Bytes of key given to applications.
    pub bytes: u64,
    /// Calls refused.
    pub refused: u64,
}

/// Keys to and from other networks (ETSI GS QKD 020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterworkReport {
    /// Keys that other networks have taken.
    pub exported: u64,
    /// Transfers that failed.
    pub exports_failed: u64,
    /// Keys of other networks that reached their SAEs' KMEs.
    pub imported: u64,
    /// Keys voided on request of other networks.
    pub voided: u64,
    /// Requests of other networks refused.
    pub refused: u64,
    /// Calls to other networks that failed.
    pub calls_failed: u64,
}

/// How long something that is done again and again takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Seconds in all.
    pub seconds: f64,
    /// How often it took no longer than each of [`Timing::BOUNDS_MS`] and longer than the one before, then longer than
    /// all.
    pub counts: [u64; Timing::BOUNDS_MS.len() + 1],
}

impl Timing {
    /// Upper bounds of what is counted together.
    pub const BOUNDS_MS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 2_000.0];

    /// Notes one time.
    pub fn note(&mut self, took: Duration) {
        let ms = took.as_secs_f64() * 1e3;
        let place = Self::BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(Self::BOUNDS_MS.len());
        self.counts[place] += 1;
        self.seconds += took.as_secs_f64();
    }
}

/// One end of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Which link.
    pub link: LinkId,
    /// The module at this site.
    pub role: Role,
    /// The site at the other end.
    pub peer: SiteId,
    /// Fibre length in km.
    pub length_km: f64,
    /// Whether the classical channel is up.
    pub up: bool,
    /// Whether the quantum channel is lit.
    pub lit: bool,
    /// Error rate of the last block's key basis; `None` before the first block.
    pub qber: Option<f64>,
    /// Secret bits per second of the last block, in simulated time.
    pub secret_bit_s: Option<f64>,
    /// Sifted key-basis bits gathered for the block at work, as a share of a whole block.
    pub progress: f64,
    /// Blocks filed since the process started.
    pub blocks: u64,
    /// Blocks given up since the process started.
    pub aborted: u64,
    /// Why the last block was given up.
    pub last_abort: Option<String>,
    /// What the last alarm looked like, with its evidence.
    #[serde(default)]
    pub last_alarm: Option<String>,
    /// Figures of the last block filed.
    #[serde(default)]
    pub last_block: Option<BlockReport>,
    /// Key ready for sending from here, in bits.
    pub stock_out_bits: u64,
    /// Key ready for receiving here, in bits.
    pub stock_in_bits: u64,
    /// Simulated seconds per second that the light really ran; `None` at Alice, who does not see the clicks.
    pub time_scale: Option<f64>,
}

/// A block that was filed: what it was made of and what it gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockReport {
    /// Its number.
    pub block: u64,
    /// Rule under which its length was computed.
    pub rule: String,
    /// Sifted key-basis bits.
    pub sifted: u64,
    /// Error rate that reconciliation found.
    pub qber: f64,
    /// Disclosed bits over the Shannon limit.
    pub leak_factor: Option<f64>,
    /// Secret bits after privacy amplification.
    pub secret: u64,
    /// Of these, bits kept for authentication.
    pub kept: u64,
    /// Seconds of light from its first to its last detection.
    pub light_s: f64,
}

/// End-to-end stock towards another site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairReport {
    /// The other site.
    pub peer: SiteId,
    /// 256-bit keys ready.
    pub ready: u64,
    /// What the background relay fills up to.
    pub target: u64,
    /// Sites of the path in use, both ends included; empty when there is none.
    pub path: Vec<SiteId>,
    /// How the stock moves.
    #[serde(default)]
    pub flow: FlowReport,
}

/// How an end-to-end stock moves. Classes in the order of [`kms::Priority::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowReport {
    /// Keys held here for supply by the other site.
    pub held: u64,
    /// Keys made since the process started.
    pub made: u64,
    /// Keys made per second while keys are lacking.
    pub made_per_second: f64,
    /// Keys taken since the process started, by class.
    pub taken: [u64; 4],
    /// Keys taken per second, by class.
    pub taken_per_second: [f64; 4],
    /// Requests that wait for key.
    pub waiting: u64,
    /// Seconds until the stock is empty if it goes on like this.
    pub seconds_to_empty: Option<f64>,
}

/// What the KME did with keys since its process started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct KeyCounters {
    /// End-to-end keys made here and relayed.
    pub relayed: u64,
    /// Keys carried for others on their way.
    pub transit: u64,
    /// Keys supplied to master SAEs.
    pub supplied: u64,
    /// Keys delivered to slave SAEs.
    pub delivered: u64,
    /// Requests refused.
    pub refused: u64,
}

/// A model version at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The model.
    pub model: ModelId,
    /// The version.
    pub version: u64,
    /// Whether this site published it (or fetched it).
    pub published: bool,
    /// Plaintext bytes.
    pub bytes: u64,
    /// First 16 hexadecimal digits of the manifest's digest.
    pub manifest: String,
}

/// A telecontrol session's state, as its gateway or terminal process posts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TerminalReport {
    /// The terminal.
    pub terminal: TerminalId,
    /// `gateway` or `terminal`: which end reports.
    pub end: String,
    /// Protection level now, for example `otp` or `aes-256-gcm`.
    pub level: String,
    /// Plain connections open.
    pub connections: u64,
    /// Records sealed under one-time pad.
    pub otp_records: u64,
    /// Records sealed under an epoch key.
    pub aead_records: u64,
    /// Records refused.
    pub refused: u64,
    /// Pad bytes left for sending.
    pub pool_out_bytes: u64,
    /// Pad bytes left for receiving.
    pub pool_in_bytes: u64,
}

/// One line of a site's audit log, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Sequence number in the site's log.
    pub seq: u64,
    /// When.
    pub time: UtcNanos,
    /// Code of the event.
    pub code: String,
    /// Its content as `name=value` pairs.
    pub text: String,
}
