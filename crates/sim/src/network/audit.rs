//! Sees everything and says what must not be. It knows the bits of every block, so it opens every relay itself.
//!
//! | checked | when |
//! |---|---|
//! | no range of a link's key hides or authenticates two messages | a relay is sent |
//! | the sender's mark is durable beyond the range, or the half is destroyed | a relay is sent |
//! | the tag holds, and every hop carries the same keys | a relay is sent |
//! | a mark never goes back; a half, a pair key, a delivery is never written twice | a change becomes durable |
//! | keys supplied come from relays between the two sites, their bits and ids never twice | the master is answered |
//! | the slave's keys and the event are durable, the pair keys are gone at both sites | the master is answered |
//! | the bits are the master's, for this slave, once, and gone from the disk | the slave is answered |

use std::collections::{BTreeMap, BTreeSet};

use crypto::domain::Domain;
use crypto::pad::OneTimePad;
use crypto::record::{Change, Table};
use crypto::secret::SecretBytes;
use crypto::tag::{OneTimeTagKey, Tag};
use kms::message::{Message, Relay};
use kms::{PAIR_KEY_BYTES, SuppliedKey};
use types::codec::Writer;
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId};

use super::disk::Disk;

/// One key that a master got.
#[derive(Debug)]
pub(crate) struct Supplied {
    pub(crate) master: SaeId,
    pub(crate) slave: SaeId,
    bits: Vec<u8>,
    pub(crate) delivered: bool,
    /// The slave's site crashed while it was asked: delivered or not, but never twice.
    pub(crate) in_doubt: bool,
}

/// The auditor of one world.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    blocks: BTreeMap<(LinkId, BlockSeq), Vec<u8>>,
    /// Used bytes of each half, by the sending site.
    used: BTreeMap<(LinkId, BlockSeq, SiteId), Vec<bool>>,
    /// Keys of each share of a relay.
    relays: BTreeMap<(KeyId, u8), Vec<u8>>,
    pair_keys: BTreeMap<Vec<u8>, (SiteId, SiteId)>,
    written: BTreeSet<(SiteId, Table, Vec<u8>)>,
    supply_events: BTreeSet<(SiteId, KeyId)>,
    spent: BTreeSet<Vec<u8>>,
    pub(crate) supplied: BTreeMap<KeyId, Supplied>,
    pub(crate) relays_seen: u64,
    pub(crate) pad_bytes: u64,
    pub(crate) violations: Vec<String>,
}

/// Who asked and got keys.
pub(crate) struct Supply<'a> {
    pub(crate) master: &'a SaeId,
    pub(crate) slave: &'a SaeId,
    pub(crate) owner: (&'a SiteId, &'a Disk),
    pub(crate) holder: (&'a SiteId, &'a Disk),
    pub(crate) number: u32,
    pub(crate) size_bits: u32,
}

impl Audit {
    /// Learns a block that a link made.
    pub(crate) fn block(&mut self, link: &LinkId, seq: BlockSeq, key: &SecretBytes) {
        self.blocks.insert((link.clone(), seq), key.expose(<[u8]>::to_vec));
    }

    pub(crate) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    /// A message leaves a site.
    pub(crate) fn sent(&mut self, from: &SiteId, to: &SiteId, bytes: &[u8], disk: &Disk) {
        match Message::decode(bytes) {
            Ok(Message::Relay(relay)) => self.relay(from, to, &relay, bytes, disk),
            Ok(_) => {}
            Err(error) => self.violations.push(format!("{from} sent what does not decode: {error}")),
        }
    }

    fn relay(&mut self, from: &SiteId, to: &SiteId, relay: &Relay, bytes: &[u8], disk: &Disk) {
        self.relays_seen += 1;
        let mut pad = Vec::new();
        for range in &relay.ranges {
            let Some(block) = self.blocks.get(&(relay.link.clone(), range.seq)) else {
                return self.violations.push(format!("{from} used a block that was never made"));
            };
            let half = block.len() / 2;
            let start = if from < to { 0 } else { half };
            let (offset, len) = (range.offset as usize, range.len as usize);
            if offset + len > half {
                return self.violations.push(format!("{from} used a range beyond its half"));
            }
            pad.extend_from_slice(&block[start + offset..start + offset + len]);
            let used =
                self.used.entry((relay.link.clone(), range.seq, from.clone())).or_insert_with(|| vec![false; half]);
            let twice = used[offset..offset + len].iter().any(|used| *used);
            used[offset..offset + len].fill(true);
            self.require(!twice, || format!("{from} used {range:?} of {} twice", relay.link));
            let key = half_key(&relay.link, range.seq, 0);
            let mark = disk.value(Table::PoolMark, &key).map_or(0, mark_of);
            let destroyed = disk.value(Table::PoolBlock, &key).is_none();
            self.require(destroyed || mark as usize >= offset + len, || {
                format!("{from} sent {range:?} of {} before its mark {mark} was durable", relay.link)
            });
        }
        self.pad_bytes += pad.len() as u64;
        let header = &bytes[..bytes.len() - Tag::LEN - relay.sealed.len() - 2];
        let mut pad = SecretBytes::from_vec(pad);
        let tag_key = pad.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new).expect("decoding checked it");
        let verified = tag_key.verify(Domain::RelayHop, &[header, &relay.sealed], &relay.tag);
        self.require(verified.is_ok(), || format!("{from} sent a relay with a wrong tag"));
        let mut keys = relay.sealed.clone();
        OneTimePad::new(pad).apply(&mut keys).expect("decoding checked the lengths");
        let (owner, holder) = (relay.path[0].clone(), relay.path[relay.path.len() - 1].clone());
        let first = self.relays.entry((relay.relay, relay.share.index)).or_insert_with(|| keys.clone()) == &keys;
        self.require(first, || format!("relay {} carries other keys on another hop", relay.relay));
        // A batch is the sum of its shares; it is known when the last of them is.
        let shares = (0..relay.share.count).map(|index| self.relays.get(&(relay.relay, index)));
        let Some(shares) = shares.collect::<Option<Vec<_>>>() else { return };
        let mut whole = vec![0; keys.len()];
        shares.into_iter().flat_map(|share| share.iter().enumerate()).for_each(|(at, bits)| whole[at] ^= bits);
        whole.truncate(relay.share.keys(whole.len()) * PAIR_KEY_BYTES);
        for key in whole.chunks_exact(PAIR_KEY_BYTES) {
            let pair = (owner.clone(), holder.clone());
            let known = self.pair_keys.insert(key.to_vec(), pair.clone());
            self.require(known.is_none_or(|known| known == pair), || "a pair key of two pairs".to_owned());
        }
    }

    /// A change becomes durable.
    pub(crate) fn change(&mut self, site: &SiteId, change: &Change, disk: &Disk) {
        let Change::Put(record) = change else { return };
        let is_half_mark =
            record.table == Table::PoolMark && record.value.len() == 9 && !record.key.starts_with(&[0, 0]);
        if is_half_mark {
            let before = disk.value(record.table, &record.key).map_or(0, mark_of);
            let after = mark_of(&record.value);
            self.require(before <= after, || format!("a mark at {site} went back from {before} to {after}"));
        } else if record.table != Table::PoolMark {
            let new = self.written.insert((site.clone(), record.table, record.key.clone()));
            self.require(new, || format!("{site} wrote a record of {:?} twice", record.table));
        }
    }

    /// An event becomes durable.
    pub(crate) fn event(&mut self, site: &SiteId, event: &Event) {
        match event {
            Event::KeysSupplied { first, .. } => _ = self.supply_events.insert((site.clone(), *first)),
            Event::StoreSetBack { .. } => self.violations.push(format!("{site} says {event:?}, and no disk was")),
            _ => {}
        }
    }

    /// A master gets keys.
    pub(crate) fn supplied(&mut self, supply: &Supply<'_>, keys: &[SuppliedKey]) {
        let (owner, holder) = (supply.owner.0, supply.holder.0);
        let whole =
            keys.len() == supply.number as usize && keys.iter().all(|k| k.key.len() * 8 == supply.size_bits as usize);
        self.require(whole, || "a request was met in part".to_owned());
        let logged = keys.first().is_some_and(|key| self.supply_events.contains(&(owner.clone(), key.id)));
        self.require(logged, || "a supply was not logged before it was seen".to_owned());
        let mut stream = Vec::new();
        for supplied in keys {
            let bits = supplied.key.expose(<[u8]>::to_vec);
            stream.extend_from_slice(&bits);
            let waits = supply.holder.1.value(Table::Delivery, supplied.id.0.as_bytes()).is_some();
            self.require(waits, || format!("key {} does not wait durably for its slave", supplied.id));
            let new = self.spent.insert(bits.clone());
            self.require(new, || format!("key {} has the bits of another", supplied.id));
            let (master, slave) = (supply.master.clone(), supply.slave.clone());
            let entry = Supplied { master, slave, bits, delivered: false, in_doubt: false };
            let new = self.supplied.insert(supplied.id, entry).is_none();
            self.require(new, || format!("id {} was supplied twice", supplied.id));
        }
        if owner == holder {
            return;
        }
        for chunk in stream.chunks_exact(PAIR_KEY_BYTES) {
            let from = self.pair_keys.get(chunk);
            let right = from.is_some_and(|(from, to)| from == owner && to == holder);
            self.require(right, || format!("{owner} supplied what was not relayed to {holder}"));
            for (site, disk) in [supply.owner, supply.holder] {
                let kept = disk.any_secret(Table::PairKey, |secret| secret == chunk);
                self.require(!kept, || format!("a key was supplied before its consumption was durable at {site}"));
            }
        }
    }

    /// A slave gets keys.
    pub(crate) fn delivered(&mut self, master: &SaeId, slave: &SaeId, keys: &[SuppliedKey], disk: &Disk) {
        for key in keys {
            let kept = disk.value(Table::Delivery, key.id.0.as_bytes()).is_some();
            self.require(!kept, || format!("key {} was delivered before its consumption was durable", key.id));
            let Some(supplied) = self.supplied.get_mut(&key.id) else {
                self.violations.push(format!("key {} was delivered and never supplied", key.id));
                continue;
            };
            let right = supplied.master == *master && supplied.slave == *slave;
            let same = key.key.expose(|bits| bits == supplied.bits);
            let again = std::mem::replace(&mut supplied.delivered, true);
            self.require(right, || format!("key {} was delivered to another pair", key.id));
            self.require(same, || format!("key {} differs at its slave", key.id));
            self.require(!again, || format!("key {} was delivered twice", key.id));
        }
    }
}

/// Key of a half's records: link, block, direction (0 out, 1 in).
fn half_key(link: &LinkId, seq: BlockSeq, direction: u8) -> Vec<u8> {
    let mut w = Writer::new();
    w.bytes16(link.as_str().as_bytes()).u64(seq.0).u8(direction);
    w.finish()
}

/// The mark in a half's record: version, mark, lease start.
fn mark_of(value: &[u8]) -> u32 {
    value.get(1..5).map_or(0, |mark| mark.iter().fold(0, |mark, byte| mark << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use types::id::SiteId;

    use super::*;

    #[test]
    fn the_auditor_notices_a_pad_that_is_used_twice_and_early() {
        let (a, b) = (SiteId::new("a").unwrap(), SiteId::new("b").unwrap());
        let link = LinkId::new("a-b").unwrap();
        let mut audit = Audit::default();
        audit.block(&link, BlockSeq(0), &SecretBytes::from_vec((0..200).collect()));
        let range = kms::message::PadRange { seq: BlockSeq(0), offset: 0, len: 64 };
        let relay = Relay {
            relay: KeyId::from_random([1; 16]),
            path: vec![a.clone(), b.clone()],
            hop: 0,
            share: kms::message::ShareOf::WHOLE,
            link: link.clone(),
            ranges: vec![range],
            sealed: vec![0; 32],
            tag: Tag([0; 16]),
        };
        let bytes = Message::Relay(relay).encode();
        let mut disk = Disk::default();
        audit.sent(&a, &b, &bytes, &disk);
        assert_eq!(
            audit.violations.len(),
            1,
            "the half is not stored, so only the tag is wrong: {:?}",
            audit.violations
        );
        let half = crypto::record::Record {
            table: Table::PoolBlock,
            key: half_key(&link, BlockSeq(0), 0),
            value: vec![],
            secret: None,
        };
        disk.apply(Change::Put(half));
        audit.violations.clear();
        audit.sent(&a, &b, &bytes, &disk);
        assert_eq!(audit.violations.len(), 3, "{:?}", audit.violations);
    }
}
