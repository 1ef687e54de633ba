//! The closed list of audit events.
//!
//! An event holds ids, counts, times and reasons; there is no field that could take a key bit. Cores emit
//! events beside the durable writes that they belong to; the shell appends them to the site's log (`ledger`)
//! before the effect is visible.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BatchId, BlockSeq, KeyId, LinkId, ModelId, SaeId, SiteId, TerminalId};
use crate::units::BitLen;

/// One lifecycle event. The variant's code is [`Event::code`], its content [`Event::fields`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// A site's process started.
    ServiceStarted {
        /// Program version.
        version: String,
        /// SHA-256 of the configuration, hexadecimal.
        config_sha256: String,
    },
    /// What SAEs may draw was changed while the site runs.
    PoliciesChanged {
        /// SAEs with a policy.
        saes: u64,
        /// SHA-256 of all policies, hexadecimal.
        policies_sha256: String,
    },
    /// A site's process stopped cleanly.
    ServiceStopped,
    /// The classical channel of a link is up.
    LinkUp {
        /// Which link.
        link: LinkId,
    },
    /// The classical channel of a link is down.
    LinkDown {
        /// Which link.
        link: LinkId,
        /// Why.
        reason: String,
    },
    /// A secret-key block was distilled and filed.
    BlockFiled {
        /// Which link.
        link: LinkId,
        /// Its sequence number.
        block: BlockSeq,
        /// Secret bits filed in the pool.
        secret: BitLen,
        /// Secret bits kept for authentication.
        authentication: BitLen,
        /// Error rate of the key basis in parts per million.
        qber_ppm: u64,
        /// Name of the key-length proof.
        proof: String,
    },
    /// A block was given up; it made no key.
    BlockAborted {
        /// Which link.
        link: LinkId,
        /// Its sequence number.
        block: BlockSeq,
        /// Why.
        cause: String,
    },
    /// A link saw signs of an attack or of a fault that looks like one.
    LinkAlarm {
        /// Which link.
        link: LinkId,
        /// What it looks like.
        suspicion: String,
        /// The measured figures that say so.
        evidence: String,
    },
    /// Link key was spent to relay end-to-end keys over one hop.
    RelayHop {
        /// Random id of the relayed batch.
        relay: KeyId,
        /// First site of the path.
        from: SiteId,
        /// Last site of the path.
        to: SiteId,
        /// Position on the path, from 0 at the first site.
        hop: u64,
        /// Keys in the batch.
        keys: u64,
        /// Link-key bits spent at this site for this hop.
        spent: BitLen,
    },
    /// End-to-end keys of one relay batch are ready at this site.
    KeysStored {
        /// Random id of the relayed batch.
        relay: KeyId,
        /// The other site.
        peer: SiteId,
        /// How many keys.
        keys: u64,
    },
    /// A relay did not arrive; its key was destroyed.
    RelayFailed {
        /// Random id of the relayed batch.
        relay: KeyId,
        /// The other site.
        peer: SiteId,
        /// Why.
        reason: String,
    },
    /// The shares of a batch that was combined from several ways do not fit together, or what the last site took is
    /// not what the first sent: a site on one of the ways changed something. The keys were destroyed.
    KeysUnconfirmed {
        /// Random id of the relayed batch.
        relay: KeyId,
        /// The other site.
        peer: SiteId,
        /// The ways, site by site.
        ways: String,
        /// How many keys.
        keys: u64,
    },
    /// The records of a site were set back to an older state: it has forgotten that it spent key.
    StoreSetBack {
        /// Whose records.
        site: SiteId,
        /// Number of spendings that its records began with.
        told: u64,
        /// Number of spendings that was heard of it before.
        known: u64,
    },
    /// Keys were supplied to the master SAE.
    KeysSupplied {
        /// The master SAE.
        master: SaeId,
        /// The slave SAE.
        slave: SaeId,
        /// The first key id.
        first: KeyId,
        /// How many keys.
        keys: u64,
        /// Bits of each.
        size: BitLen,
    },
    /// Keys were delivered to the slave SAE by their ids.
    KeysDelivered {
        /// The master SAE.
        master: SaeId,
        /// The slave SAE.
        slave: SaeId,
        /// The first key id.
        first: KeyId,
        /// How many keys.
        keys: u64,
    },
    /// A key request was refused.
    RequestRefused {
        /// Who asked.
        sae: SaeId,
        /// Why.
        reason: String,
    },
    /// More refusals of one caller, or of one part of the network, for one reason, that have no entry of their own.
    RefusalsCounted {
        /// `sae ID`, `kme ID`, `address PREFIX`, or `others`.
        who: String,
        /// Why.
        reason: String,
        /// How many.
        times: u64,
        /// Within how long.
        seconds: u64,
    },
    /// Key was destroyed without having been used.
    KeyBurned {
        /// Why.
        reason: String,
        /// How much.
        bits: BitLen,
    },
    /// Keys reached the KME of another network for one of its SAEs.
    KeysExported {
        /// The other network's KME.
        peer: String,
        /// The master SAE, of this network.
        master: SaeId,
        /// The slave SAE, of the other network.
        slave: SaeId,
        /// The first key id.
        first: KeyId,
        /// How many keys.
        keys: u64,
    },
    /// Keys of another network reached the KMEs of their slave SAEs in this one.
    KeysImported {
        /// The other network's KME.
        peer: String,
        /// The master SAE, of the other network.
        master: SaeId,
        /// The first slave SAE, of this network.
        slave: SaeId,
        /// The first key id.
        first: KeyId,
        /// How many keys.
        keys: u64,
    },
    /// Keys between this and another network are void; no SAE gets them any more.
    KeysVoided {
        /// The other network's KME.
        peer: String,
        /// Why.
        reason: String,
        /// The first key id.
        first: KeyId,
        /// How many keys.
        keys: u64,
    },
    /// A model version was published.
    ModelPublished {
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
        /// SHA-256 of the signed manifest, hexadecimal.
        manifest_sha256: String,
        /// Sites that hold an envelope.
        sites: u64,
        /// Plaintext bytes.
        bytes: u64,
    },
    /// A model version was fetched, opened and verified.
    ModelFetched {
        /// The model.
        model: ModelId,
        /// Its version.
        version: u64,
        /// SHA-256 of the signed manifest, hexadecimal.
        manifest_sha256: String,
        /// Plaintext bytes.
        bytes: u64,
    },
    /// A model did not verify.
    ModelRefused {
        /// The model.
        model: ModelId,
        /// Why.
        reason: String,
    },
    /// A batch of pre-shared key was cut for one direction of one terminal.
    BatchCut {
        /// The terminal.
        terminal: TerminalId,
        /// The batch.
        batch: BatchId,
        /// How much key.
        bits: BitLen,
    },
    /// A telecontrol session changed its protection level.
    ProtectionChanged {
        /// The terminal.
        terminal: TerminalId,
        /// The level left.
        from: String,
        /// The level taken.
        to: String,
        /// Why.
        reason: String,
    },
    /// A telecontrol session ended.
    SessionClosed {
        /// The terminal.
        terminal: TerminalId,
        /// Records sealed under a one-time pad.
        otp_records: u64,
        /// Records sealed under an epoch key.
        aead_records: u64,
        /// Records refused.
        refused: u64,
    },
    /// The log was exported.
    LogExported {
        /// Entries in the export.
        entries: u64,
    },
    /// A torn tail was cut at start.
    LogRecovered {
        /// Bytes cut.
        cut: u64,
    },
}

/// Content of one field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

macro_rules! field_from {
    (number: $($number:ty => $get:expr),*; shown: $($shown:ty),*) => {
        $(impl From<&$number> for FieldValue {
            fn from(value: &$number) -> Self {
                let get: fn(&$number) -> u64 = $get;
                Self::Number(get(value))
            }
        })*
        $(impl From<&$shown> for FieldValue {
            fn from(value: &$shown) -> Self {
                Self::Text(value.to_string())
            }
        })*
    };
}
field_from!(
    number: u64 => |n| *n, BlockSeq => |seq| seq.0, BatchId => |batch| u64::from(batch.0), BitLen => |bits| bits.0;
    shown: String, SiteId, LinkId, SaeId, TerminalId, ModelId, KeyId
);

impl Event {
    /// Stable code of the kind of event, as it stands in logs and exports.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ServiceStarted { .. } => "SERVICE_STARTED",
            Self::PoliciesChanged { .. } => "POLICIES_CHANGED",
            Self::ServiceStopped => "SERVICE_STOPPED",
            Self::LinkUp { .. } => "LINK_UP",
            Self::LinkDown { .. } => "LINK_DOWN",
            Self::BlockFiled { .. } => "BLOCK_FILED",
            Self::BlockAborted { .. } => "BLOCK_ABORTED",
            Self::LinkAlarm { .. } => "LINK_ALARM",
            Self::RelayHop { .. } => "RELAY_HOP",
            Self::KeysStored { .. } => "KEYS_STORED",
            Self::RelayFailed { .. } => "RELAY_FAILED",
            Self::KeysUnconfirmed { .. } => "KEYS_UNCONFIRMED",
            Self::StoreSetBack { .. } => "STORE_SET_BACK",
            Self::KeysSupplied { .. } => "KEYS_SUPPLIED",
            Self::KeysDelivered { .. } => "KEYS_DELIVERED",
            Self::RequestRefused { .. } => "REQUEST_REFUSED",
            Self::RefusalsCounted { .. } => "REFUSALS_COUNTED",
            Self::KeyBurned { .. } => "KEY_BURNED",
            Self::KeysExported { .. } => "KEYS_EXPORTED",
            Self::KeysImported { .. } => "KEYS_IMPORTED",
            Self::KeysVoided { .. } => "KEYS_VOIDED",
            Self::ModelPublished { .. } => "MODEL_PUBLISHED",
            Self::ModelFetched { .. } => "MODEL_FETCHED",
            Self::ModelRefused { .. } => "MODEL_REFUSED",
            Self::BatchCut { .. } => "BATCH_CUT",
            Self::ProtectionChanged { .. } => "PROTECTION_CHANGED",
            Self::SessionClosed { .. } => "SESSION_CLOSED",
            Self::LogExported { .. } => "LOG_EXPORTED",
            Self::LogRecovered { .. } => "LOG_RECOVERED",
        }
    }

    /// The event's content, in a fixed order.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, FieldValue)> {
        macro_rules! fields {
            ($($name:ident),*) => { vec![$((stringify!($name), FieldValue::from($name))),*] };
        }
        match self {
            Self::ServiceStopped => Vec::new(),
            Self::ServiceStarted { version, config_sha256 } => fields!(version, config_sha256),
            Self::PoliciesChanged { saes, policies_sha256 } => fields!(saes, policies_sha256),
            Self::LinkUp { link } => fields!(link),
            Self::LinkDown { link, reason } => fields!(link, reason),
            Self::BlockFiled { link, block, secret, authentication, qber_ppm, proof } => {
                fields!(link, block, secret, authentication, qber_ppm, proof)
            }
            Self::BlockAborted { link, block, cause } => fields!(link, block, cause),
            Self::LinkAlarm { link, suspicion, evidence } => fields!(link, suspicion, evidence),
            Self::RelayHop { relay, from, to, hop, keys, spent } => fields!(relay, from, to, hop, keys, spent),
            Self::KeysStored { relay, peer, keys } => fields!(relay, peer, keys),
            Self::RelayFailed { relay, peer, reason } => fields!(relay, peer, reason),
            Self::KeysUnconfirmed { relay, peer, ways, keys } => fields!(relay, peer, ways, keys),
            Self::StoreSetBack { site, told, known } => fields!(site, told, known),
            Self::KeysSupplied { master, slave, first, keys, size } => fields!(master, slave, first, keys, size),
            Self::KeysDelivered { master, slave, first, keys } => fields!(master, slave, first, keys),
            Self::RequestRefused { sae, reason } => fields!(sae, reason),
            Self::RefusalsCounted { who, reason, times, seconds } => fields!(who, reason, times, seconds),
            Self::KeyBurned { reason, bits } => fields!(reason, bits),
            Self::KeysExported { peer, master, slave, first, keys } => fields!(peer, master, slave, first, keys),
            Self::KeysImported { peer, master, slave, first, keys } => fields!(peer, master, slave, first, keys),
            Self::KeysVoided { peer, reason, first, keys } => fields!(peer, reason, first, keys),
            Self::ModelPublished { model, version, manifest_sha256, sites, bytes } => {
                fields!(model, version, manifest_sha256, sites, bytes)
            }
            Self::ModelFetched { model, version, manifest_sha256, bytes } => {
                fields!(model, version, manifest_sha256, bytes)
            }
            Self::ModelRefused { model, reason } => fields!(model, reason),
            Self::BatchCut { terminal, batch, bits } => fields!(terminal, batch, bits),
            Self::ProtectionChanged { terminal, from, to, reason } => fields!(terminal, from, to, reason),
            Self::SessionClosed { terminal, otp_records, aead_records, refused } => {
                fields!(terminal, otp_records, aead_records, refused)
            }
            Self::LogExported { entries } => fields!(entries),
            Self::LogRecovered { cut } => fields!(cut),
        }
    }
}
