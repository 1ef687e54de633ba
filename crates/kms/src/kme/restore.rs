//! From durable records to a KME.

use std::collections::BTreeMap;

use crypto::record::Record;
use crypto::secret::SecretBytes;
use types::id::{BlockSeq, KeyId, LinkId, SiteId};
use types::units::Time;

use super::Kme;
use crate::Error;
use crate::config::{BATCH_MAX, Config, PAIR_KEY_BYTES};
use crate::pool::{self, FiledWindow};
use crate::record::{self, DeliveryRecord, Direction, Side, Stored};

type HalfKey = (LinkId, BlockSeq, Direction);

/// Everything that was stored, by what it belongs to.
#[derive(Default)]
struct Found {
    windows: Vec<(LinkId, SiteId, FiledWindow)>,
    halves: BTreeMap<HalfKey, (SiteId, SecretBytes)>,
    marks: BTreeMap<HalfKey, (u32, u32)>,
    own: BTreeMap<(SiteId, KeyId, u16), SecretBytes>,
    held: Vec<(SiteId, KeyId, u16, SecretBytes)>,
    deliveries: Vec<(KeyId, DeliveryRecord, SecretBytes)>,
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
            Some(Stored::PairKey { side: Side::Own, peer, relay, index, key }) => {
                found.own.insert((peer, relay, index), key);
            }
            Some(Stored::PairKey { side: Side::Held, peer, relay, index, key }) => {
                found.held.push((peer, relay, index, key));
            }
            Some(Stored::Delivery { id, delivery, key }) => found.deliveries.push((id, delivery, key)),
        }
    }
    let mut kme = Kme::empty(now, config);
    restore_pools(&mut kme, &mut found)?;
    restore_keys(now, &mut kme, found)?;
    kme.journal.close();
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
    let mut segment: Option<(SiteId, KeyId, u16, Vec<SecretBytes>)> = None;
    for ((peer, relay, index), key) in found.own {
        if index >= BATCH_MAX {
            return Err(Error::Corrupt { what: "a pair key", why: format!("index {index} is beyond a batch") });
        }
        match &mut segment {
            Some((p, r, first, keys)) if *p == peer && *r == relay && usize::from(index - *first) == keys.len() => {
                keys.push(key);
            }
            _ => {
                add_segment(kme, segment.replace((peer, relay, index, vec![key])));
            }
        }
    }
    add_segment(kme, segment);
    for (peer, relay, index, key) in found.held {
        if index >= BATCH_MAX {
            return Err(Error::Corrupt { what: "a pair key", why: format!("index {index} is beyond a batch") });
        }
        kme.peer(&peer).held.add(relay, index, &key);
    }
    let expires = now.after(kme.config.delivery_ttl);
    for (id, delivery, key) in found.deliveries {
        kme.deliveries.add(id, delivery, key, expires);
    }
    Ok(())
}

fn add_segment(kme: &mut Kme, segment: Option<(SiteId, KeyId, u16, Vec<SecretBytes>)>) {
    let Some((peer, relay, first, keys)) = segment else { return };
    let mut bytes = SecretBytes::from_vec(vec![0; keys.len() * PAIR_KEY_BYTES]);
    bytes.expose_mut(|bytes| {
        for (to, key) in bytes.chunks_exact_mut(PAIR_KEY_BYTES).zip(&keys) {
            key.expose(|key| to.copy_from_slice(key));
        }
    });
    kme.peer(&peer).own.add(relay, first, bytes);
}
