//! What a site tells others about itself, for dashboards and `--json`: counts, rates and times, never key.

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
