//! From durable records to a KME.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crypto::record::Record;
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

type HalfKey = (LinkId, BlockSeq, Direction);

/// Everything that was stored, by what it belongs to.
#[derive(Default)]
struct Found {
    windows: Vec<(LinkId, SiteId, FiledWindow)>,
    halves: BTreeMap<HalfKey, (SiteId, SecretBytes)>,
    marks: BTreeMap<HalfKey, (u32, u32)>,
    own: BTreeMap<(SiteId, KeyId, u16), (Origin, SecretBytes)>,
    held: BTreeMap<(SiteId, KeyId), HeldKeys>,
    deliveries: Vec<(KeyId, DeliveryRecord, Option<SecretBytes>)>,
    spent: u64,
    heard: Vec<(SiteId, Heard)>,
}

/// Held keys of one relay by their index.
type HeldKeys = (Origin, BTreeMap<u16, SecretBytes>);

/// Consecutive own keys of one relay.
struct Segment {
    peer: SiteId,
    relay: KeyId,
    first: u16,
    origin: Arc<Origin>,
    keys: Vec<SecretBytes>,
}

pub(super) fn restore(now: Time, config: Config, records: Vec<Record>) -> Result<Kme, Error> {
    let mut found = Found::default();
    for record in records {
        match record::decode(record)? {
            None => {}
            Some(Stored::Window { link, peer, next, bits }) => {
                found.windows.push((link, peer, FiledWindow { next, bits }));
            }
            Some(Stored::Half { link, peer, seq, direction, bytes }) => {
                found.halves.insert((link, seq, direction), (peer, bytes));
            }
            Some(Stored::Mark { link, seq, direction, mark, lease_from }) => {
                found.marks.insert((link, seq, direction), (mark, lease_from));
            }
            Some(Stored::PairKey { side: Side::Own, peer, relay, index, origin, key }) => {
                found.own.insert((peer, relay, index), (origin, key));
            }
            Some(Stored::PairKey { side: Side::Held, peer, relay, index, origin, key }) => {
                found.held.entry((peer, relay)).or_insert((origin, BTreeMap::new())).1.insert(index, key);
            }
            Some(Stored::Spent { at }) => found.spent = at,
            Some(Stored::Heard { peer, run, at }) => found.heard.push((peer, Heard { run, at })),
            Some(Stored::Delivery { id, delivery, key }) => found.deliveries.push((id, delivery, key)),
        }
    }
    let mut kme = Kme::empty(now, config);
    kme.spending = Spending::restored(found.spent);
    found.heard.drain(..).for_each(|(peer, heard)| kme.peer(&peer).heard = heard);
    restore_pools(&mut kme, &mut found)?;
    restore_keys(now, &mut kme, found)?;
    kme.close();
    Ok(kme)
}

fn restore_pools(kme: &mut Kme, found: &mut Found) -> Result<(), Error> {
    let corrupt = |why: String| Error::Corrupt { what: "a link pool", why };
    for (link, peer, window) in found.windows.drain(..) {
        kme.pool(link, &peer).restore_window(window);
    }
    for ((link, seq, direction), (peer, bytes)) in std::mem::take(&mut found.halves) {
        let (mark, lease_from) = found.marks.remove(&(link.clone(), seq, direction)).unwrap_or_default();
        let marks = (pool::as_usize(mark), pool::as_usize(lease_from));
        if marks.0 > bytes.len() || marks.1 > marks.0 {
            return Err(corrupt(format!("block {seq} of link {link} has a mark beyond its end")));
        }
        let pool = kme.pools.get_mut(&link).filter(|pool| pool.peer == peer);
        let Some(pool) = pool.filter(|pool| pool.has_filed(seq)) else {
            return Err(corrupt(format!("block {seq} of link {link} was never noted as filed")));
        };
        let burned = pool.restore_half(seq, direction, bytes, marks, &mut kme.journal);
        kme.burned(burned);
    }
    match found.marks.keys().next() {
        Some((link, seq, _)) => Err(corrupt(format!("a mark of link {link} stands without its block {seq}"))),
        None => Ok(()),
    }
}

fn restore_keys(now: Time, kme: &mut Kme, found: Found) -> Result<(), Error> {
    // Consecutive keys of a relay become one segment again.
    let mut segments: Vec<Segment> = Vec::new();
    for ((peer, relay, index), (origin, key)) in found.own {
        if index >= BATCH_MAX {
            return Err(Error::Corrupt { what: "a pair key", why: format!("index {index} is beyond a batch") });
        }
        match segments.last_mut().filter(|last| last.peer == peer && last.relay == relay) {
            Some(last) if *last.origin != origin => {
                return Err(Error::Corrupt { what: "a pair key", why: format!("keys of relay {relay} came apart") });
            }
            Some(last) if usize::from(index - last.first) == last.keys.len() => last.keys.push(key),
            before => {
                let origin = before.map_or_else(|| Arc::new(origin), |last| Arc::clone(&last.origin));
                segments.push(Segment { peer, relay, first: index, origin, keys: vec![key] });
            }
        }
    }
    // The oldest is taken first, as before the restart.
    segments.sort_by_key(|segment| segment.origin.made);
    segments.into_iter().for_each(|segment| add_segment(kme, segment));
    for ((peer, relay), (origin, keys)) in found.held {
        if let Some(index) = keys.keys().find(|index| **index >= BATCH_MAX) {
            return Err(Error::Corrupt { what: "a pair key", why: format!("index {index} is beyond a batch") });
        }
        let stored = keys.keys().fold(0, |stored, index| stored | 1_u64 << index);
        kme.peer(&peer).held.add(relay, stored, Arc::new(origin), joined(keys.values()));
    }
    let mut origins: BTreeSet<Arc<Origin>> = BTreeSet::new();
    let mut deliveries: Vec<_> = found.deliveries.into_iter().map(|found| (left(kme, &found.1), found)).collect();
    deliveries.sort_by_key(|(left, _)| *left);
    for (left, (id, mut delivery, key)) in deliveries {
        delivery.parties = kme.deliveries.shared(Arc::unwrap_or_clone(delivery.parties));
        delivery.origin = match origins.get(&delivery.origin) {
            Some(origin) => Arc::clone(origin),
            None => {
                origins.insert(Arc::clone(&delivery.origin));
                delivery.origin
            }
        };
        kme.deliveries.add(id, delivery, key, now.after(left));
    }
    kme.resume_exports();
    Ok(())
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

fn add_segment(kme: &mut Kme, segment: Segment) {
    let Segment { peer, relay, first, origin, keys } = segment;
    kme.peer(&peer).own.add(relay, first, origin, joined(keys.iter()));
}

fn joined<'a>(keys: impl ExactSizeIterator<Item = &'a SecretBytes>) -> SecretBytes {
    let mut bytes = SecretBytes::from_vec(vec![0; keys.len() * PAIR_KEY_BYTES]);
    bytes.expose_mut(|bytes| {
        for (to, key) in bytes.chunks_exact_mut(PAIR_KEY_BYTES).zip(keys) {
            key.expose(|key| to.copy_from_slice(key));
        }
    });
    bytes
}
