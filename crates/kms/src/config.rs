//! Settings and limits of a KME.

use std::collections::BTreeMap;
use std::time::Duration;

use types::id::SiteId;
use types::units::UtcNanos;

/// Bytes of one end-to-end key of a pair of sites.
pub const PAIR_KEY_BYTES: usize = 32;
/// Most keys in one relayed batch.
pub(crate) const BATCH_MAX: u16 = 64;
/// Fewest keys that a batch is made for, unless the target is lower.
pub(crate) const BATCH_MIN: u16 = 8;
/// Keys in the first batch to a site.
pub(crate) const BATCH_FIRST: u16 = 16;
/// Most ways that are noted of one key.
pub(crate) const WAYS_MAX: usize = 32;
/// Most sites on a path.
pub(crate) const PATH_MAX: usize = 32;
/// Most blocks of one link.
pub(crate) const BLOCKS_MAX: usize = 1_024;
/// Most pieces of blocks that one message draws its pad from.
pub(crate) const RANGES_MAX: usize = 32;
/// Most additional slaves of one request.
pub(crate) const ADDITIONAL_MAX: usize = 16;
/// Most slaves of one key.
pub(crate) const SLAVES_MAX: usize = ADDITIONAL_MAX + 1;
/// Most bytes of key of one import.
pub(crate) const IMPORT_BYTES_MAX: usize = 1024 * 1024;
/// Withdrawals that are remembered after they were done.
pub(crate) const WITHDRAWN_MAX: usize = 256;
/// Longest time that a request waits for key.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest name of another network's KME.
pub(crate) const PEER_MAX: usize = 256;
/// Most keys of one import or withdrawal.
pub(crate) const WITHDRAW_MAX: usize = 1_024;
/// Most key sets in one message.
pub(crate) const SETS_MAX: usize = 1_024;
/// Most ways to one site.
pub(crate) const ROUTES_MAX: usize = 8;
/// Most ways that the keys of one batch are combined from.
pub(crate) const SHARES_MAX: u8 = 8;
/// Most batches of one owner of which some shares have come.
pub(crate) const PARTS_MAX: usize = 256;
/// Most batches of one pair of sites that wait for key of one hop.
pub(crate) const FLOW_QUEUE_MAX: usize = 64;
/// Most batches that wait for key of one hop.
pub(crate) const OUTLET_QUEUE_MAX: usize = 65_536;
/// Most relays in one word to their owner.
pub(crate) const WAITS_MAX: usize = 1_024;
/// How often owners are told that their batches wait.
pub(crate) const WAITS_INTERVAL: Duration = Duration::from_millis(250);
/// How long a site is avoided after a batch that went through it did not arrive; doubles up to 32 times.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_secs(2);
/// How long a hop is avoided after it was refused.
pub(crate) const AVOID_FOR: Duration = Duration::from_secs(1);
/// How long a way is charged with a batch that somebody on it or on another changed.
pub(crate) const CHARGED_FOR: Duration = Duration::from_secs(3_600);
/// Most kinds of keys of one pair of sites that are made because they were asked for.
pub(crate) const DEMANDS_MAX: usize = 8;
/// How long keys that need certain ways go on being made after they were asked for.
pub(crate) const DEMAND_FOR: Duration = Duration::from_secs(600);
/// A batch that took longer than this is followed by a smaller one.
pub(crate) const BATCH_SLOW: Duration = Duration::from_secs(15);
/// Most runs of pair keys in one assignment.
pub(crate) const RUNS_MAX: usize = 2_048;
/// Most keys of one request.
pub(crate) const NUMBER_MAX: u32 = 128;
/// Smallest key in bits.
pub(crate) const SIZE_MIN_BITS: u32 = 64;
/// Largest key in bits.
pub(crate) const SIZE_MAX_BITS: u32 = 65_536;
/// Most key bytes of one request.
pub(crate) const REQUEST_BYTES_MAX: usize = 65_536;
/// Bytes by which the sending side moves its durable mark ahead.
pub(crate) const LEASE_BYTES: usize = 4_096;
/// Most relays that are started by one input.
pub(crate) const RELAYS_PER_STEP_MAX: usize = 16;
/// How often one request is assigned anew when the other site misses keys.
pub(crate) const ASSIGN_ATTEMPTS_MAX: u8 = 4;

/// Settings of one KME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The site that it serves.
    pub site: SiteId,
    /// Wall-clock time of the `now` that the KME is built at. Ages of keys are counted from it across restarts, by
    /// monotonic time in between.
    pub started: UtcNanos,
    /// Keys that the background relay fills every peer's stock up to; 4 million at most.
    pub target_keys: u32,
    /// Below this a stock is reported as low.
    pub low_water_keys: u32,
    /// Batches to one peer that may be on their way at once, for each hop of the way.
    pub batches_in_flight: u32,
    /// From how many ways without a common site keys are combined when stocks are filled: as many as there are, at
    /// most this. An attacker needs a relay on each of them. 1 is plain relay.
    pub paths_wanted: u8,
    /// The same for some peers.
    pub paths_wanted_for: BTreeMap<SiteId, u8>,
    /// Most keys held for one other site; more are refused.
    pub held_keys_max: u32,
    /// Bytes of one direction of one link above which new blocks are burned.
    pub link_pool_max_bytes: usize,
    /// Default key size in bits.
    pub key_size_bits: u32,
    /// Whether an SAE may be its own slave.
    pub allow_self_pair: bool,
    /// Requests that may wait for another KME at once.
    pub requests_max: usize,
    /// Keys that may wait for their slaves at once.
    pub deliveries_max: usize,
    /// How long a supplied key waits for its slave.
    pub delivery_ttl: Duration,
    /// How long a relay may take that neither arrives nor waits for key, at most. The time that relays really take
    /// is measured; this is the ceiling and the first guess.
    pub relay_timeout: Duration,
    /// The same, at least.
    pub relay_timeout_min: Duration,
    /// How long a relay may wait for key.
    pub relay_wait_max: Duration,
    /// How long a request may wait for another KME.
    pub supply_deadline: Duration,
    /// How long a request may wait for another network to take its keys.
    pub export_deadline: Duration,
    /// How long requests wait for key to be made, of SAEs without a policy and unless they say it themselves.
    pub supply_wait: Duration,
    /// Requests that may wait for key at once.
    pub waiters_max: usize,
    /// Percent of each stock that is reserved for telecontrol, telemetry and models, against all less urgent
    /// classes; in force when SAEs have policies.
    pub reserve_percent: [u8; 3],
    /// How often an unanswered assignment is repeated.
    pub assign_resend: Duration,
    /// How long an assignment without request is kept for the same pair of SAEs.
    pub park_ttl: Duration,
    /// How often peers compare what they hold.
    pub sync_interval: Duration,
    /// First wait after a failed relay; doubles up to 64 times this.
    pub relay_backoff: Duration,
}

impl Config {
    /// The defaults for a site.
    #[must_use]
    pub fn new(site: SiteId) -> Self {
        Self {
            site,
            started: UtcNanos(0),
            target_keys: 256,
            low_water_keys: 32,
            batches_in_flight: 2,
            paths_wanted: 1,
            paths_wanted_for: BTreeMap::new(),
            held_keys_max: 4_500_000,
            link_pool_max_bytes: 32 * 1024 * 1024,
            key_size_bits: 256,
            allow_self_pair: false,
            requests_max: 4_096,
            deliveries_max: 1_000_000,
            delivery_ttl: Duration::from_secs(24 * 3_600),
            relay_timeout: Duration::from_secs(1),
            relay_timeout_min: Duration::from_millis(400),
            relay_wait_max: Duration::from_secs(120),
            supply_deadline: Duration::from_secs(2),
            export_deadline: Duration::from_secs(10),
            supply_wait: Duration::ZERO,
            waiters_max: 1_024,
            reserve_percent: [20, 10, 5],
            assign_resend: Duration::from_millis(400),
            park_ttl: Duration::from_secs(60),
            sync_interval: Duration::from_secs(10),
            relay_backoff: Duration::from_millis(250),
        }
    }
}
