//! What goes into a KME and what comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use crypto::record::Change;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, RequestId, SaeId, SiteId};
use types::units::BitLen;

pub use self::carry::{ExportFailure, KeyOrigin};
pub use self::quality::{PairFlow, PassedOn, Priority, RouteWish, SaePolicy, TokenRate, Wishes};

mod carry;
mod quality;

/// Number of a commit; counts up from 1 since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSeq(pub u64);

/// What the shell tells the KME.
#[derive(Debug)]
pub enum Input {
    /// A secret block that a link distilled; both ends file the same bits under the same number. Doing it again
    /// changes nothing and is answered again.
    LinkBlock {
        /// Which link.
        link: LinkId,
        /// The site at its other end.
        peer: SiteId,
        /// The block's number on the link.
        seq: BlockSeq,
        /// Its bits.
        key: SecretBytes,
    },
    /// A message of another KME, over a mutually authenticated connection that keeps order.
    Message {
        /// The site in the connection's certificate.
        from: SiteId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// An SAE of this site asks; answered by exactly one [`Output::Reply`].
    Request {
        /// Correlates the reply.
        id: RequestId,
        /// The SAE in the connection's certificate.
        sae: SaeId,
        /// What it asks.
        request: SupplyRequest,
    },
    /// Which KME serves which SAE; replaces the directory. An SAE of another network stands under the site whose KME
    /// has that network's KME beside it.
    Directory(BTreeMap<SaeId, SiteId>),
    /// SAEs of other networks that are reached through a KME beside this site, and that KME's name; replaces all.
    Foreign(BTreeMap<SaeId, String>),
    /// What SAEs of this site may draw; replaces all. While nothing is said every SAE is equal and unlimited.
    Saes(BTreeMap<SaeId, SaePolicy>),
    /// Percent of each stock that is reserved for telecontrol, telemetry and models, as in
    /// [`crate::Config::reserve_percent`].
    Reserves([u8; 3]),
    /// Keys that come from another network for SAEs of this one; answered by exactly one [`Output::Imported`].
    /// Doing the same again changes nothing and is answered again.
    Import {
        /// Correlates the answer.
        id: RequestId,
        /// The master SAE, of the other network.
        initiator: SaeId,
        /// The slave SAEs; each gets every key once.
        targets: Vec<SaeId>,
        /// The keys under their ids.
        keys: Vec<(KeyId, SecretBytes)>,
    },
    /// Destroys imported keys that no SAE has fetched; answered by exactly one [`Output::Withdrawn`].
    Withdraw {
        /// Correlates the answer.
        id: RequestId,
        /// The master SAE, of the other network.
        initiator: SaeId,
        /// The slave SAEs of the import.
        targets: Vec<SaeId>,
        /// Which keys.
        ids: Vec<KeyId>,
    },
    /// What became of an [`Output::Export`].
    Exported {
        /// Which export.
        export: KeyId,
        /// Whether the other network's KME has the keys for its SAE.
        result: Result<(), ExportFailure>,
    },
    /// The ways to each site, the best first, both ends included; replaces all routes. Keys that are to be combined
    /// from several ways take such as share no site between the ends.
    Routes(BTreeMap<SiteId, Vec<Vec<SiteId>>>),
    /// A link of this site makes key.
    LinkUp {
        /// Which link.
        link: LinkId,
        /// The site at its other end.
        peer: SiteId,
    },
    /// A link of this site makes no key; what is filed stays usable.
    LinkDown {
        /// Which link.
        link: LinkId,
    },
    /// Messages reach another KME.
    PeerUp(SiteId),
    /// Messages do not reach another KME.
    PeerDown(SiteId),
    /// This commit and all before it are durable, records and events.
    Durable(CommitSeq),
}

/// What the KME tells the shell.
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
    /// Send a message to another KME; may be lost, is never sent twice by the shell.
    Send {
        /// To which site.
        to: SiteId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Answer a request.
    Reply {
        /// Which request.
        id: RequestId,
        /// The answer.
        result: Result<SupplyReply, Refusal>,
    },
    /// Answer to an import: each target's KME durably holds the keys, or nobody has any of them.
    Imported {
        /// Which import.
        id: RequestId,
        /// [`Refusal::BadParameter`] if it can never be met, else when to try again.
        result: Result<(), Refusal>,
    },
    /// Answer to a withdrawal.
    Withdrawn {
        /// Which withdrawal.
        id: RequestId,
        /// [`Refusal::KeyDelivered`] if an SAE has one of the keys, [`Refusal::KeysNotFound`] if one is not known.
        result: Result<(), Refusal>,
    },
    /// Give keys to another network's KME, then say [`Input::Exported`]. May come again after a restart, until that.
    Export {
        /// Its id; the same when it comes again.
        export: KeyId,
        /// The other network's KME.
        peer: String,
        /// The master SAE, of this network.
        master: SaeId,
        /// The slave SAE, of the other network.
        slave: SaeId,
        /// The keys under their ids.
        keys: Vec<(KeyId, SecretBytes)>,
        /// What the master SAE said besides.
        passed_on: Option<PassedOn>,
    },
    /// Void an export, answered or not; may come again after a restart.
    ExportVoid {
        /// Which export.
        export: KeyId,
        /// The other network's KME.
        peer: String,
        /// The master SAE, of this network.
        master: SaeId,
        /// The slave SAE, of the other network.
        slave: SaeId,
        /// The keys.
        ids: Vec<KeyId>,
    },
    /// A block is durable; the link may forget it.
    BlockFiled {
        /// Which link.
        link: LinkId,
        /// Which block.
        seq: BlockSeq,
    },
    /// A KME sent what it must not send. The message had no effect.
    PeerMisbehaved {
        /// Which site.
        site: SiteId,
        /// What was wrong.
        reason: &'static str,
    },
}

/// What an SAE asks (ETSI GS QKD 014, 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupplyRequest {
    /// Get status; the caller is the master.
    Status {
        /// The slave.
        slave: SaeId,
    },
    /// Get key; the caller is the master.
    Encrypt {
        /// The slave.
        slave: SaeId,
        /// Further slaves of the same keys.
        additional: Vec<SaeId>,
        /// How many keys.
        number: u32,
        /// Bits of each; the default size if not said.
        size_bits: Option<u32>,
        /// What more is asked of the keys.
        wishes: Wishes,
    },
    /// Get key with key IDs; the caller is the slave.
    Decrypt {
        /// The master.
        master: SaeId,
        /// Which keys.
        ids: Vec<KeyId>,
    },
}

/// The answer to a request that was met.
#[derive(Debug)]
pub enum SupplyReply {
    /// To get status.
    Status(PairStatus),
    /// To get key and get key with key IDs.
    Keys(Vec<SuppliedKey>),
}

/// Status of a pair of SAEs (ETSI GS QKD 014, 6.1). The names are the standard's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// The KME asked.
    pub source_kme: SiteId,
    /// The KME that serves the slave.
    pub target_kme: SiteId,
    /// The caller.
    pub master: SaeId,
    /// The slave.
    pub slave: SaeId,
    /// Default key size in bits.
    pub key_size: u32,
    /// Keys of default size that can be had now.
    pub stored_key_count: u32,
    /// The most that `stored_key_count` gets.
    pub max_key_count: u32,
    /// The most keys of one request.
    pub max_key_per_request: u32,
    /// Largest key in bits.
    pub max_key_size: u32,
    /// Smallest key in bits.
    pub min_key_size: u32,
    /// How many additional slaves a request may name.
    pub max_sae_id_count: u32,
}

/// One key on its way to an SAE.
#[derive(Debug)]
pub struct SuppliedKey {
    /// Its random id.
    pub id: KeyId,
    /// Its bits.
    pub key: SecretBytes,
    /// Where it comes from.
    pub origin: KeyOrigin,
}

/// Why a request was not met. Nothing was consumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller may not ask this (401).
    #[error("not authorised: {reason}")]
    NotAuthorised {
        /// Why.
        reason: &'static str,
    },
    /// No KME of the network serves the other SAE (400).
    #[error("SAE {sae} is not known in this network")]
    UnknownSae {
        /// The SAE named.
        sae: SaeId,
    },
    /// A parameter is out of range (400).
    #[error("{message}")]
    BadParameter {
        /// What the standard or the limit says.
        message: String,
    },
    /// A key asked for is not here, or not any more (400).
    #[error("one or more keys specified are not found on KME")]
    KeysNotFound,
    /// A wish that no way through the network can meet (400). The text is the standard's, ETSI GS QKD 014.
    #[error("not all extension_mandatory request options could be met")]
    WishUnmeetable,
    /// A key to withdraw is with an SAE already (400).
    #[error("an SAE has fetched one or more of the keys")]
    KeyDelivered,
    /// There is not enough key now (503).
    #[error("not enough key in stock for this pair")]
    NotEnoughKey {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The other KME does not answer (503).
    #[error("the KME of the slave SAE does not answer")]
    PeerDown {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The SAE has drawn what it may for now (503).
    #[error("the SAE has drawn its share of key")]
    OverQuota {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The other network did not take the keys for its SAE (503).
    #[error("the network of the slave SAE did not take the key")]
    NotExported {
        /// When to ask again.
        retry_after: Duration,
    },
    /// A limit of this or the other KME is reached (503).
    #[error("the key management entity is busy")]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
}

/// End-to-end keys that this site owns for one other site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairStock {
    /// The other site.
    pub peer: SiteId,
    /// Keys of 256 bit that are ready.
    pub ready: u32,
    /// What the background relay fills up to.
    pub target: u32,
    /// Whether `ready` is below the low-water mark.
    pub low: bool,
    /// Keys that this site holds for supply by the other.
    pub held: u32,
}

/// Key of one link that is left at this end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStock {
    /// Which link.
    pub link: LinkId,
    /// The site at its other end.
    pub peer: SiteId,
    /// Whether the link makes key now.
    pub up: bool,
    /// Whether messages reach the other end, so that what is left can be spent.
    pub reached: bool,
    /// Left for messages of this site and filed at both ends.
    pub bits_out: BitLen,
    /// Left for messages of the other site.
    pub bits_in: BitLen,
    /// Blocks of which anything is left.
    pub blocks: u32,
    /// What this site spent of it.
    pub used: LinkUse,
}

/// Key of one link that this site spent since it started, hop by hop of the relays that went over the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkUse {
    /// Pad of keys that this site owns.
    pub own: BitLen,
    /// Pad of keys that pass through.
    pub transit: BitLen,
    /// Key of one-time tags.
    pub tags: BitLen,
    /// What relays asked for, whether it was there or not; asking again counts again.
    pub asked: BitLen,
}

/// What a KME did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Keys relayed from here and ready.
    pub relayed_keys: u64,
    /// Keys relayed through here for others.
    pub transit_keys: u64,
    /// Relays from here that failed.
    pub relays_failed: u64,
    /// Batches from here or for here that a site on one of their ways had changed.
    pub batches_unconfirmed: u64,
    /// Keys supplied to master SAEs.
    pub supplied_keys: u64,
    /// Keys delivered to slave SAEs.
    pub delivered_keys: u64,
    /// Key destroyed unused.
    pub burned: BitLen,
    /// Requests refused.
    pub requests_refused: u64,
    /// Messages of other KMEs refused.
    pub messages_refused: u64,
}
