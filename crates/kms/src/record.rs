//! Durable records of a KME, byte by byte in `docs/formats/kme-records.md`.
//!
//! | table | key | value | secret |
//! |---|---|---|---|
//! | `PoolBlock` | link, block, direction | peer | the half's bytes |
//! | `PoolMark` | link, block, direction | mark, lease start | |
//! | `PoolMark` | link | peer, window of filed blocks | |
//! | `PoolMark` | no link, 0 | spendings of this site | |
//! | `PoolMark` | no link, 1, peer | run and spendings that the peer told | |
//! | `PairKey` | side, peer, relay, index | version, how it came | 32 bytes |
//! | `Delivery` | key id | assignment, when, whose, who has it not yet, how it came | the key, if any SAE has it not |

use std::sync::Arc;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId, Uuid};
use types::units::UtcNanos;

use crate::Error;
use crate::config::{PEER_MAX, SLAVES_MAX};
use crate::message::assign::slaves;
use crate::origin::Origin;
use crate::stock::Run;

const VERSION: u8 = 1;
/// Of pair keys. Version 1 did not note how the key came; it is still read.
const ORIGIN_VERSION: u8 = 2;
/// Of deliveries. Version 1 had one slave; it is still read.
const DELIVERY_VERSION: u8 = 2;

/// Which way the bits of a half go, seen from this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// Hides and authenticates what this site sends.
    Out,
    /// Hides and authenticates what the peer sends.
    In,
}

/// Whose pair key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// This site made it and decides who gets it.
    Own,
    /// The peer made it and decides.
    Held,
}

/// A record after decoding.
#[derive(Debug)]
pub(crate) enum Stored {
    Half { link: LinkId, peer: SiteId, seq: BlockSeq, direction: Direction, bytes: SecretBytes },
    Mark { link: LinkId, seq: BlockSeq, direction: Direction, mark: u32, lease_from: u32 },
    Window { link: LinkId, peer: SiteId, next: u64, bits: u64 },
    Spent { at: u64 },
    Heard { peer: SiteId, run: u64, at: u64 },
    PairKey { side: Side, peer: SiteId, relay: KeyId, index: u16, origin: Origin, key: SecretBytes },
    Delivery { id: KeyId, delivery: DeliveryRecord, key: Option<SecretBytes> },
}

/// What is public about a key that waits for its slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryRecord {
    pub(crate) assign: KeyId,
    /// When it was assigned.
    pub(crate) since: UtcNanos,
    pub(crate) parties: Arc<Parties>,
    /// Bit `i` says that slave `i` has not fetched it.
    pub(crate) pending: u32,
    pub(crate) origin: Arc<Origin>,
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Parties {
    /// The site that assigned it.
    pub(crate) owner: SiteId,
    pub(crate) master: SaeId,
    pub(crate) slaves: Vec<SaeId>,
    pub(crate) kind: Kind,
}

/// What is done with a key that was assigned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It waits for its slaves.
    Supplied,
    /// The same; it came from another network, and its id stays known after the last slave fetched it.
    Imported,
    /// Another network's KME is asked to take it.
    Export { peer: String },
    /// Another network's KME has it.
    Exported { peer: String },
    /// Another network's KME is told to destroy it.
    ExportVoid { peer: String },
}

impl Parties {
    /// The bits of all slaves.
    pub(crate) fn all(&self) -> u32 {
        assert!((1..=SLAVES_MAX).contains(&self.slaves.len()), "slaves are bounded");
        u32::MAX >> (32 - self.slaves.len())
    }
}

fn half_key(link: &LinkId, seq: BlockSeq, direction: Direction) -> Vec<u8> {
    let mut w = Writer::new();
    w.bytes16(link.as_str().as_bytes()).u64(seq.0).u8(match direction {
        Direction::Out => 0,
        Direction::In => 1,
    });
    w.finish()
}

/// Files one half of a block.
pub(crate) fn put_half(
    link: &LinkId,
    peer: &SiteId,
    seq: BlockSeq,
    direction: Direction,
    bytes: SecretBytes,
) -> Change {
    let mut value = Writer::new();
    value.u8(VERSION).bytes16(peer.as_str().as_bytes());
    Change::Put(Record {
        table: Table::PoolBlock,
        key: half_key(link, seq, direction),
        value: value.finish(),
        secret: Some(bytes),
    })
}

/// Moves the mark of one half.
pub(crate) fn put_mark(link: &LinkId, seq: BlockSeq, direction: Direction, mark: u32, lease_from: u32) -> Change {
    let mut value = Writer::new();
    value.u8(VERSION).u32(mark).u32(lease_from);
    let key = half_key(link, seq, direction);
    Change::Put(Record { table: Table::PoolMark, key, value: value.finish(), secret: None })
}

/// Destroys one half and its mark.
pub(crate) fn delete_half(link: &LinkId, seq: BlockSeq, direction: Direction) -> [Change; 2] {
    let key = half_key(link, seq, direction);
    [Change::Delete { table: Table::PoolBlock, key: key.clone() }, Change::Delete { table: Table::PoolMark, key }]
}

/// Notes which blocks of a link were filed.
pub(crate) fn put_window(link: &LinkId, peer: &SiteId, next: u64, bits: u64) -> Change {
    let mut key = Writer::new();
    key.bytes16(link.as_str().as_bytes());
    let mut value = Writer::new();
    value.u8(VERSION).bytes16(peer.as_str().as_bytes()).u64(next).u64(bits);
    Change::Put(Record { table: Table::PoolMark, key: key.finish(), value: value.finish(), secret: None })
}

/// Moves the number of spendings of this site.
pub(crate) fn put_spent(at: u64) -> Change {
    let (mut key, mut value) = (Writer::new(), Writer::new());
    key.u16(0).u8(0);
    value.u8(VERSION).u64(at);
    Change::Put(Record { table: Table::PoolMark, key: key.finish(), value: value.finish(), secret: None })
}

/// Notes what a peer told of its spendings.
pub(crate) fn put_heard(peer: &SiteId, run: u64, at: u64) -> Change {
    let (mut key, mut value) = (Writer::new(), Writer::new());
    key.u16(0).u8(1).bytes16(peer.as_str().as_bytes());
    value.u8(VERSION).u64(run).u64(at);
    Change::Put(Record { table: Table::PoolMark, key: key.finish(), value: value.finish(), secret: None })
}

/// What a change spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spends {
    /// Nothing.
    Nothing,
    /// Pad of a link.
    Pad,
    /// A pair key or a key that waited for its slave.
    Key,
}

/// What a change spends: marks that move and halves that go are pad, pair keys and deliveries that go are keys.
pub(crate) fn spends(change: &Change) -> Spends {
    match change {
        Change::Put(Record { table: Table::PoolMark, key, value, .. })
            if value.len() == 9 && !key.starts_with(&[0, 0]) =>
        {
            Spends::Pad
        }
        Change::Delete { table: Table::PoolBlock, .. } => Spends::Pad,
        Change::Delete { table: Table::PairKey | Table::Delivery, .. }
        | Change::Update { table: Table::Delivery, .. } => Spends::Key,
        Change::Put(Record { table: Table::Delivery, secret: None, .. }) => Spends::Key,
        _ => Spends::Nothing,
    }
}

fn pair_key(side: Side, peer: &SiteId, relay: KeyId, index: u16) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(match side {
        Side::Own => 0,
        Side::Held => 1,
    });
    w.bytes16(peer.as_str().as_bytes()).put(relay.0.as_bytes()).u16(index);
    w.finish()
}

/// Stores one pair key.
pub(crate) fn put_pair_key(
    side: Side,
    peer: &SiteId,
    relay: KeyId,
    index: u16,
    origin: &Origin,
    key: SecretBytes,
) -> Change {
    let record_key = pair_key(side, peer, relay, index);
    let mut value = Writer::new();
    origin.put(value.u8(ORIGIN_VERSION));
    Change::Put(Record { table: Table::PairKey, key: record_key, value: value.finish(), secret: Some(key) })
}

/// Destroys runs of pair keys.
pub(crate) fn delete_pair_keys(side: Side, peer: &SiteId, runs: &[Run]) -> impl Iterator<Item = Change> {
    runs.iter().flat_map(move |run| {
        run.indexes()
            .map(move |index| Change::Delete { table: Table::PairKey, key: pair_key(side, peer, run.relay, index) })
    })
}

fn delivery_value(delivery: &DeliveryRecord) -> Vec<u8> {
    let mut w = Writer::new();
    let Parties { owner, master, slaves, kind } = &*delivery.parties;
    w.u8(DELIVERY_VERSION).put(delivery.assign.0.as_bytes()).u64(delivery.since.0);
    w.bytes16(owner.as_str().as_bytes()).bytes16(master.as_str().as_bytes());
    w.u8(u8::try_from(slaves.len()).expect("slaves are bounded far below 256"));
    slaves.iter().for_each(|slave| _ = w.bytes16(slave.as_str().as_bytes()));
    w.u32(delivery.pending);
    match kind {
        Kind::Supplied => _ = w.u8(0),
        Kind::Imported => _ = w.u8(1),
        Kind::Export { peer } => _ = w.u8(2).bytes16(peer.as_bytes()),
        Kind::Exported { peer } => _ = w.u8(3).bytes16(peer.as_bytes()),
        Kind::ExportVoid { peer } => _ = w.u8(4).bytes16(peer.as_bytes()),
    }
    delivery.origin.put(&mut w);
    w.finish()
}

fn delivery_key(id: KeyId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

/// Stores a key for its slaves, or, without the key, that they have it.
pub(crate) fn put_delivery(id: KeyId, delivery: &DeliveryRecord, key: Option<SecretBytes>) -> Change {
    let (table, value) = (Table::Delivery, delivery_value(delivery));
    Change::Put(Record { table, key: delivery_key(id), value, secret: key })
}

/// Notes that a slave fetched a key that waits for others.
pub(crate) fn update_delivery(id: KeyId, delivery: &DeliveryRecord) -> Change {
    Change::Update { table: Table::Delivery, key: delivery_key(id), value: delivery_value(delivery) }
}

/// Destroys a key that waited for its slave.
pub(crate) fn delete_delivery(id: KeyId) -> Change {
    Change::Delete { table: Table::Delivery, key: delivery_key(id) }
}

/// Decodes a record. `None` for tables of other cores.
pub(crate) fn decode(record: Record) -> Result<Option<Stored>, Error> {
    let (what, stored) = match record.table {
        Table::PoolBlock => ("a pool block", decode_half(record)),
        Table::PoolMark => ("a pool mark", decode_mark(&record)),
        Table::PairKey => ("a pair key", decode_pair_key(record)),
        Table::Delivery => ("a delivery", decode_delivery(record)),
        _ => return Ok(None),
    };
    stored.map(Some).map_err(|why| Error::Corrupt { what, why: why.to_string() })
}

fn decode_half(record: Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let (link, seq, direction) = (link(&mut key)?, BlockSeq(key.u64("block")?), direction(&mut key)?);
    key.end()?;
    let mut value = Reader::new(&record.value);
    version(&mut value)?;
    let peer = site(&mut value, "peer")?;
    value.end()?;
    let bytes = record.secret.filter(|secret| !secret.is_empty()).ok_or(CodecError::Value { field: "secret" })?;
    Ok(Stored::Half { link, peer, seq, direction, bytes })
}

fn decode_mark(record: &Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let mut value = Reader::new(&record.value);
    version(&mut value)?;
    if record.key.starts_with(&[0, 0]) {
        key.u16("link")?;
        let stored = match key.u8("kind")? {
            0 => Stored::Spent { at: value.u64("spendings")? },
            1 => {
                let peer = site(&mut key, "peer")?;
                Stored::Heard { peer, run: value.u64("run")?, at: value.u64("spendings")? }
            }
            _ => return Err(CodecError::Value { field: "kind" }),
        };
        key.end()?;
        value.end()?;
        return Ok(stored);
    }
    let link = link(&mut key)?;
    if key.left() == 0 {
        let peer = site(&mut value, "peer")?;
        let (next, bits) = (value.u64("next")?, value.u64("bits")?);
        value.end()?;
        return Ok(Stored::Window { link, peer, next, bits });
    }
    let (seq, direction) = (BlockSeq(key.u64("block")?), direction(&mut key)?);
    key.end()?;
    let (mark, lease_from) = (value.u32("mark")?, value.u32("lease start")?);
    value.end()?;
    Ok(Stored::Mark { link, seq, direction, mark, lease_from })
}

fn decode_pair_key(record: Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let side = match key.u8("side")? {
        0 => Side::Own,
        1 => Side::Held,
        _ => return Err(CodecError::Value { field: "side" }),
    };
    let (peer, relay, index) = (site(&mut key, "peer")?, key_id(&mut key, "relay")?, key.u16("index")?);
    key.end()?;
    let mut value = Reader::new(&record.value);
    let origin = if noted(&mut value)? { Origin::read(&mut value)? } else { Origin::default() };
    value.end()?;
    let secret = record.secret.filter(|secret| secret.len() == crate::PAIR_KEY_BYTES);
    let key = secret.ok_or(CodecError::Value { field: "secret" })?;
    Ok(Stored::PairKey { side, peer, relay, index, origin, key })
}

fn decode_delivery(record: Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let id = key_id(&mut key, "id")?;
    key.end()?;
    let mut value = Reader::new(&record.value);
    let delivery = match value.u8("version")? {
        VERSION => {
            // Written before keys could have several slaves and noted how they came.
            let (assign, owner) = (key_id(&mut value, "assignment")?, site(&mut value, "owner")?);
            let (master, slave) = (sae(&mut value, "master")?, sae(&mut value, "slave")?);
            let parties = Arc::new(Parties { owner, master, slaves: vec![slave], kind: Kind::Supplied });
            DeliveryRecord { assign, since: UtcNanos(0), pending: parties.all(), parties, origin: Arc::default() }
        }
        DELIVERY_VERSION => read_delivery(&mut value)?,
        _ => return Err(CodecError::Value { field: "version" }),
    };
    value.end()?;
    let secret = record.secret.filter(|secret| !secret.is_empty());
    let has_key = matches!(delivery.parties.kind, Kind::Supplied | Kind::Imported | Kind::Export { .. });
    if secret.is_some() != (has_key && delivery.pending != 0) {
        return Err(CodecError::Value { field: "secret" });
    }
    Ok(Stored::Delivery { id, delivery, key: secret })
}

fn read_delivery(r: &mut Reader<'_>) -> Result<DeliveryRecord, CodecError> {
    let (assign, since) = (key_id(r, "assignment")?, UtcNanos(r.u64("since")?));
    let (owner, master, slaves) = (site(r, "owner")?, sae(r, "master")?, slaves(r)?);
    let pending = r.u32("pending")?;
    let kind = r.u8("kind")?;
    let peer = |r: &mut Reader<'_>| r.text16("peer", PEER_MAX).map(str::to_owned);
    let kind = match kind {
        0 => Kind::Supplied,
        1 => Kind::Imported,
        2 => Kind::Export { peer: peer(r)? },
        3 => Kind::Exported { peer: peer(r)? },
        4 => Kind::ExportVoid { peer: peer(r)? },
        _ => return Err(CodecError::Value { field: "kind" }),
    };
    let parties = Parties { owner, master, slaves, kind };
    if pending & !parties.all() != 0 {
        return Err(CodecError::Value { field: "pending" });
    }
    let origin = Arc::new(Origin::read(r)?);
    Ok(DeliveryRecord { assign, since, parties: Arc::new(parties), pending, origin })
}

fn version(r: &mut Reader<'_>) -> Result<(), CodecError> {
    if r.u8("version")? == VERSION { Ok(()) } else { Err(CodecError::Value { field: "version" }) }
}

/// Whether the record notes how the key came.
fn noted(r: &mut Reader<'_>) -> Result<bool, CodecError> {
    match r.u8("version")? {
        VERSION => Ok(false),
        ORIGIN_VERSION => Ok(true),
        _ => Err(CodecError::Value { field: "version" }),
    }
}

fn direction(r: &mut Reader<'_>) -> Result<Direction, CodecError> {
    match r.u8("direction")? {
        0 => Ok(Direction::Out),
        1 => Ok(Direction::In),
        _ => Err(CodecError::Value { field: "direction" }),
    }
}

/// Reads a site id.
pub(crate) fn site(r: &mut Reader<'_>, field: &'static str) -> Result<SiteId, CodecError> {
    SiteId::new(r.text16(field, 32)?).map_err(|_| CodecError::Value { field })
}

/// Reads a link id.
pub(crate) fn link(r: &mut Reader<'_>) -> Result<LinkId, CodecError> {
    LinkId::new(r.text16("link", 32)?).map_err(|_| CodecError::Value { field: "link" })
}

/// Reads an SAE id.
pub(crate) fn sae(r: &mut Reader<'_>, field: &'static str) -> Result<SaeId, CodecError> {
    SaeId::new(r.text16(field, 128)?).map_err(|_| CodecError::Value { field })
}

/// Reads a key id.
pub(crate) fn key_id(r: &mut Reader<'_>, field: &'static str) -> Result<KeyId, CodecError> {
    Ok(KeyId(Uuid::from_bytes(r.array(field)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(change: Change) -> Record {
        match change {
            Change::Put(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn id(n: u8) -> KeyId {
        KeyId::from_random([n; 16])
    }

    #[test]
    fn the_encodings_are_pinned() {
        let (link, peer) = (LinkId::new("a-b").unwrap(), SiteId::new("b").unwrap());
        let mark = record(put_mark(&link, BlockSeq(7), Direction::In, 300, 256));
        assert_eq!(mark.key, b"\x00\x03a-b\0\0\0\0\0\0\0\x07\x01");
        assert_eq!(mark.value, b"\x01\0\0\x01\x2c\0\0\x01\0");
        let window = record(put_window(&link, &peer, 8, 0x81));
        assert_eq!(
            (window.key.as_slice(), window.value.as_slice()),
            (b"\x00\x03a-b".as_slice(), b"\x01\0\x01b\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x81".as_slice())
        );
        let half = record(put_half(&link, &peer, BlockSeq(7), Direction::Out, SecretBytes::copy_of(&[5; 4])));
        assert_eq!((half.key.last(), half.value.as_slice()), (Some(&0), b"\x01\0\x01b".as_slice()));
        let origin = Origin::default();
        let key = record(put_pair_key(Side::Held, &peer, id(9), 3, &origin, SecretBytes::copy_of(&[1; 32])));
        assert_eq!(key.value, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(key.key[..4], *b"\x01\0\x01b");
        assert_eq!((&key.key[4..20], &key.key[20..]), (id(9).0.as_bytes().as_slice(), b"\0\x03".as_slice()));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let parties = |kind| {
            let (owner, master) = (SiteId::new("a").unwrap(), SaeId::new("m").unwrap());
            Arc::new(Parties { owner, master, slaves: vec![SaeId::new("s").unwrap(), SaeId::new("t").unwrap()], kind })
        };
        let delivery = |kind, pending| DeliveryRecord {
            assign: id(1),
            since: UtcNanos(77),
            parties: parties(kind),
            pending,
            origin: Arc::default(),
        };
        let supplied = delivery(Kind::Supplied, 3);
        let good = || record(put_delivery(id(2), &supplied, Some(SecretBytes::copy_of(&[1; 32]))));
        assert!(matches!(decode(good()), Ok(Some(Stored::Delivery { delivery: d, .. })) if d == supplied));
        let spent = delivery(Kind::Imported, 0);
        let without = decode(record(put_delivery(id(2), &spent, None)));
        assert!(matches!(without, Ok(Some(Stored::Delivery { delivery: d, key: None, .. })) if d == spent));
        let damage: [fn(&mut Record); 8] = [
            |r| r.value[0] = 3,
            |r| r.value.push(0),
            |r| r.key.truncate(15),
            |r| r.secret = None,
            |r| r.value.truncate(20),
            |r| r.value[41] = 4,
            |r| r.value[42] = 5,
            |r| r.value[41] = 0,
        ];
        for (case, damage) in damage.into_iter().enumerate() {
            let mut bad = good();
            damage(&mut bad);
            assert!(matches!(decode(bad), Err(Error::Corrupt { .. })), "case {case}");
        }
    }

    #[test]
    fn records_of_version_1_are_read() {
        let old = Record {
            table: Table::Delivery,
            key: id(2).0.as_bytes().to_vec(),
            value: [&[1][..], id(1).0.as_bytes(), b"\0\x01a\0\x01m\0\x01s"].concat(),
            secret: Some(SecretBytes::copy_of(&[1; 32])),
        };
        let Ok(Some(Stored::Delivery { delivery, .. })) = decode(old) else { panic!("it was good in version 1") };
        assert_eq!((delivery.pending, delivery.parties.slaves.len(), delivery.origin.combined), (1, 1, 0));
        let mut old = record(put_pair_key(
            Side::Own,
            &SiteId::new("b").unwrap(),
            id(1),
            0,
            &Origin::default(),
            SecretBytes::copy_of(&[1; 32]),
        ));
        old.value = vec![1];
        assert!(matches!(decode(old), Ok(Some(Stored::PairKey { origin, .. })) if origin == Origin::default()));
    }

    proptest! {
        #[test]
        fn any_record(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), delivery: bool, secret: bool,
            at: prop::sample::Index, value: u8,
        ) {
            crate::fuzzing::stored(&bytes);
            // A good one with one byte changed.
            let path = vec![SiteId::new("a").unwrap(), SiteId::new("b").unwrap()];
            let origin = Origin::new(vec![path], UtcNanos(5));
            let good = if delivery {
                let (owner, master, slaves) = (SiteId::new("a").unwrap(), SaeId::new("m").unwrap(), ["s", "t"]);
                let slaves = slaves.map(|name| SaeId::new(name).unwrap()).to_vec();
                let parties = Arc::new(Parties { owner, master, slaves, kind: Kind::Export { peer: "p".to_owned() } });
                let origin = Arc::new(origin);
                let delivery = DeliveryRecord { assign: id(1), since: UtcNanos(9), parties, pending: 2, origin };
                record(put_delivery(id(2), &delivery, None))
            } else {
                record(put_pair_key(Side::Own, &SiteId::new("b").unwrap(), id(1), 3, &origin, SecretBytes::copy_of(&[1; 32])))
            };
            let key_len = u8::try_from(good.key.len()).unwrap();
            let mut wire = [&[u8::from(delivery), u8::from(!secret), key_len], &good.key[..], &good.value[..]].concat();
            crate::fuzzing::stored(&wire);
            let at = at.index(wire.len());
            wire[at] = value;
            crate::fuzzing::stored(&wire);
        }
    }
}
