//! From durable records to a KME, one record at a time.
//!
//! Records come in the order of the store, by table and key, so that the keys of one relay follow each other: of a
//! million keys no more than one batch is held twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crypto::record::{Record, Table};
use crypto::secret::SecretBytes;
use types::id::{BlockSeq, KeyId, LinkId, SiteId};
use types::units::{Time, UtcNanos};

use super::Kme;
use super::set_back::Heard;
use crate::Error;
use crate::config::{BATCH_MAX, Config, PAIR_KEY_BYTES};
use crate::origin::Origin;
use crate::pool::{self, FiledWindow};
use crate::record::{self, DeliveryRecord, Direction, Side, Stored};
use crate::spending::Spending;
use crate::stock::KeySet;

type HalfKey = (LinkId, BlockSeq, Direction);

/// A KME in the making: takes its durable records one by one.
///
/// ```
/// # use kms::{Config, Restore};
/// # use types::{id::SiteId, units::Time};
/// # let records = Vec::new();
/// let mut restore = Restore::new(Time::ZERO, Config::new(SiteId::new("taiyuan")?));
/// for record in records {
///     restore.record(record)?;
/// }
/// let kme = restore.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Restore {
    now: Time,
    kme: Kme,
    /// Table and key of the last record.
    last: Option<(Table, Vec<u8>)>,
    windows: Vec<(LinkId, SiteId, FiledWindow)>,
    halves: BTreeMap<HalfKey, (SiteId, SecretBytes)>,
    marks: BTreeMap<HalfKey, (u32, u32)>,
    /// Keys of the relay under way.
    batch: Option<Batch>,
    /// Room for the bits of a batch.
    room: SecretBytes,
    own: Vec<Segment>,
    origins: BTreeSet<Arc<Origin>>,
}

/// Keys of one relay that have come so far.
#[derive(Debug)]
struct Batch {
    side: Side,
    peer: SiteId,
    relay: KeyId,
    origin: Origin,
    /// Bit `i` says that key `i` has come; their bits follow each other.
    stored: u64,
}

/// Consecutive own keys of one relay.
#[derive(Debug)]
struct Segment {
    peer: SiteId,
    relay: KeyId,
    first: u16,
    origin: Arc<Origin>,
    keys: SecretBytes,
}

impl Restore {
    /// A KME without a record yet.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        Self {
            now,
            kme: Kme::empty(now, config),
            last: None,
            windows: Vec::new(),
            halves: BTreeMap::new(),
            marks: BTreeMap::new(),
            batch: None,
            room: SecretBytes::from_vec(vec![0; usize::from(BATCH_MAX) * PAIR_KEY_BYTES]),
            own: Vec::new(),
            origins: BTreeSet::new(),
        }
    }

    /// Takes the next record, in order of table and key. Records of other cores may be among them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record is not what this program writes, or if it is out of order.
    pub fn record(&mut self, record: Record) -> Result<(), Error> {
        self.check_order(&record)?;
        match record::decode(record)? {
            None => {}
            Some(Stored::Window { link, peer, next, bits }) => {
                self.windows.push((link, peer, FiledWindow { next, bits }));
            }
            Some(Stored::Half { link, peer, seq, direction, bytes }) => {
                self.halves.insert((link, seq, direction), (peer, bytes));
            }
            Some(Stored::Mark { link, seq, direction, mark, lease_from }) => {
                self.marks.insert((link, seq, direction), (mark, lease_from));
            }
            Some(Stored::PairKey { side, peer, relay, index, origin, key }) => {
                self.pair_key(Batch { side, peer, relay, origin, stored: 0 }, index, &key)?;
            }
            Some(Stored::Spent { at }) => self.kme.spending = Spending::restored(at),
            Some(Stored::Heard { peer, run, at }) => self.kme.peer(&peer).heard = Heard { run, at },
            Some(Stored::Delivery { id, delivery, key }) => self.delivery(id, delivery, key),
        }
        Ok(())
    }

    /// The KME. All peers are down until told otherwise.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the records do not belong together.
    pub fn finish(mut self) -> Result<Kme, Error> {
        self.restore_pools()?;
        self.end_batch();
        // The oldest is taken first, as before the restart.
        self.own.sort_by_key(|segment| segment.origin.made);
        for Segment { peer, relay, first, origin, keys } in self.own {
            self.kme.peer(&peer).own.add(relay, first, origin, keys);
        }
        self.kme.deliveries.sort_expiry();
        self.kme.resume_exports();
        self.kme.close();
        Ok(self.kme)
    }

    /// Equal records or keys of one relay that came apart would be counted twice.
    fn check_order(&mut self, record: &Record) -> Result<(), Error> {
        match &mut self.last {
            Some((table, key)) if (*table as u8, key.as_slice()) >= (record.table as u8, record.key.as_slice()) => {
                Err(Error::Corrupt { what: "a table", why: "its records are out of order".to_owned() })
            }
            Some((table, key)) => {
                *table = record.table;
                key.clone_from(&record.key);
                Ok(())
            }
            last => {
                *last = Some((record.table, record.key.clone()));
                Ok(())
            }
        }
    }

    fn restore_pools(&mut self) -> Result<(), Error> {
        let corrupt = |why: String| Error::Corrupt { what: "a link pool", why };
        for (link, peer, window) in self.windows.drain(..) {
            self.kme.pool(link, &peer).restore_window(window);
        }
        for ((link, seq, direction), (peer, bytes)) in std::mem::take(&mut self.halves) {
            let (mark, lease_from) = self.marks.remove(&(link.clone(), seq, direction)).unwrap_or_default();
            let marks = (pool::as_usize(mark), pool::as_usize(lease_from));
            if marks.0 > bytes.len() || marks.1 > marks.0 {
                return Err(corrupt(format!("block {seq} of link {link} has a mark beyond its end")));
            }
            let pool = self.kme.pools.get_mut(&link).filter(|pool| pool.peer == peer);
            let Some(pool) = pool.filter(|pool| pool.has_filed(seq)) else {
                return Err(corrupt(format!("block {seq} of link {link} was never noted as filed")));
            };
            let burned = pool.restore_half(seq, direction, bytes, marks, &mut self.kme.journal);
            self.kme.burned(burned);
        }
        match self.marks.keys().next() {
            Some((link, seq, _)) => Err(corrupt(format!("a mark of link {link} stands without its block {seq}"))),
            None => Ok(()),
        }
    }

    /// Adds a key to the batch under way, or begins the next one.
    fn pair_key(&mut self, new: Batch, index: u16, key: &SecretBytes) -> Result<(), Error> {
        let corrupt = |why: String| Error::Corrupt { what: "a pair key", why };
        if index >= BATCH_MAX {
            return Err(corrupt(format!("index {index} is beyond a batch")));
        }
        let same = |old: &Batch| old.side == new.side && old.peer == new.peer && old.relay == new.relay;
        if !self.batch.as_ref().is_some_and(same) {
            self.end_batch();
        }
        let batch = match &mut self.batch {
            Some(batch) if batch.origin != new.origin => {
                return Err(corrupt(format!("keys of relay {} came apart", batch.relay)));
            }
            batch => batch.get_or_insert(new),
        };
        let at = as_usize(batch.stored.count_ones()) * PAIR_KEY_BYTES;
        let room = |room: &mut [u8]| key.expose(|key| room[at..at + PAIR_KEY_BYTES].copy_from_slice(key));
        self.room.expose_mut(room);
        batch.stored |= 1 << index;
        Ok(())
    }

    fn end_batch(&mut self) {
        let Some(Batch { side, peer, relay, origin, stored }) = self.batch.take() else { return };
        let origin = Arc::new(origin);
        let mut start = 0;
        let mut next = |keys: usize| {
            let part = self.room.part(start, keys * PAIR_KEY_BYTES).expect("a batch fits into the room for one");
            start += part.len();
            part
        };
        match side {
            Side::Held => {
                let keys = next(as_usize(stored.count_ones()));
                self.kme.peer(&peer).held.add(relay, stored, origin, keys);
            }
            // Consecutive keys become one segment again.
            Side::Own => self.own.extend(KeySet { relay, keys: stored }.runs().map(|run| {
                let (peer, origin, keys) = (peer.clone(), Arc::clone(&origin), next(usize::from(run.count)));
                Segment { peer, relay, first: run.first, origin, keys }
            })),
        }
    }

    fn delivery(&mut self, id: KeyId, mut delivery: DeliveryRecord, key: Option<SecretBytes>) {
        let expires = self.now.after(left(&self.kme, &delivery));
        delivery.parties = self.kme.deliveries.shared(Arc::unwrap_or_clone(delivery.parties));
        delivery.origin = match self.origins.get(&delivery.origin) {
            Some(origin) => Arc::clone(origin),
            None => {
                self.origins.insert(Arc::clone(&delivery.origin));
                delivery.origin
            }
        };
        self.kme.deliveries.add(id, delivery, key, expires);
    }
}

/// How long a key still waits for its slaves.
fn left(kme: &Kme, delivery: &DeliveryRecord) -> Duration {
    // What was assigned by a program that did not note when waits anew.
    let waited = match delivery.since {
        UtcNanos(0) => 0,
        since => kme.config.started.0.saturating_sub(since.0),
    };
    kme.config.delivery_ttl.saturating_sub(Duration::from_nanos(waited))
}

fn as_usize(count: u32) -> usize {
    usize::try_from(count).expect("a batch has at most 64 keys")
}
