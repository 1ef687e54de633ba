//! Settings and limits of a KME.

use std::time::Duration;

use types::id::SiteId;

/// Bytes of one end-to-end key of a pair of sites.
pub const PAIR_KEY_BYTES: usize = 32;
/// Most keys in one relayed batch.
pub(crate) const BATCH_MAX: u16 = 64;
/// Fewest keys that a batch is made for, unless the target is lower.
pub(crate) const BATCH_MIN: u16 = 8;
/// Keys in the first batch to a site.
pub(crate) const BATCH_FIRST: u16 = 16;
/// Most sites on a path.
pub(crate) const PATH_MAX: usize = 32;
/// Most blocks of one link.
pub(crate) const BLOCKS_MAX: usize = 1_024;
/// Most pieces of blocks that one message draws its pad from.
pub(crate) const RANGES_MAX: usize = 32;
/// Most batches held for one owner; more are refused.
pub(crate) const HELD_BATCHES_MAX: usize = 4_096;
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
    /// Keys that the background relay fills every peer's stock up to.
    pub target_keys: u32,
    /// Below this a stock is reported as low.
    pub low_water_keys: u32,
    /// Batches to one peer that may be on their way at once.
    pub batches_in_flight: u32,
    /// Bytes of each link's sending side that own relays leave to transit, and transit to own relays.
    pub link_reserve_bytes: usize,
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
    /// How long a relay may take.
    pub relay_timeout: Duration,
    /// How long a request may wait for another KME.
    pub supply_deadline: Duration,
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
            target_keys: 256,
            low_water_keys: 32,
            batches_in_flight: 2,
            link_reserve_bytes: 4_096,
            link_pool_max_bytes: 32 * 1024 * 1024,
            key_size_bits: 256,
            allow_self_pair: false,
            requests_max: 4_096,
            deliveries_max: 1_000_000,
            delivery_ttl: Duration::from_secs(24 * 3_600),
            relay_timeout: Duration::from_secs(5),
            supply_deadline: Duration::from_secs(2),
            assign_resend: Duration::from_millis(400),
            park_ttl: Duration::from_secs(60),
            sync_interval: Duration::from_secs(10),
            relay_backoff: Duration::from_millis(250),
        }
    }
}
