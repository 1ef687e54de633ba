//! Durable records of a KME, byte by byte in `docs/formats/kme-records.md`.
//!
//! | table | key | value | secret |
//! |---|---|---|---|
//! | `PoolBlock` | link, block, direction | peer | the half's bytes |
//! | `PoolMark` | link, block, direction | mark, lease start | |
//! | `PoolMark` | link | peer, window of filed blocks | |
//! | `PairKey` | side, peer, relay, index | version | 32 bytes |
//! | `Delivery` | key id | assignment, origin, master, slave | the key |

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use types::codec::{CodecError, Reader, Writer};
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId, Uuid};

use crate::Error;
use crate::stock::Run;

const VERSION: u8 = 1;

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
    PairKey { side: Side, peer: SiteId, relay: KeyId, index: u16, key: SecretBytes },
    Delivery { id: KeyId, delivery: DeliveryRecord, key: SecretBytes },
}

/// What is public about a key that waits for its slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryRecord {
    pub(crate) assign: KeyId,
    pub(crate) origin: SiteId,
    pub(crate) master: SaeId,
    pub(crate) slave: SaeId,
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
pub(crate) fn put_pair_key(side: Side, peer: &SiteId, relay: KeyId, index: u16, key: SecretBytes) -> Change {
    let record_key = pair_key(side, peer, relay, index);
    Change::Put(Record { table: Table::PairKey, key: record_key, value: vec![VERSION], secret: Some(key) })
}

/// Destroys runs of pair keys.
pub(crate) fn delete_pair_keys(side: Side, peer: &SiteId, runs: &[Run]) -> impl Iterator<Item = Change> {
    runs.iter().flat_map(move |run| {
        run.indexes()
            .map(move |index| Change::Delete { table: Table::PairKey, key: pair_key(side, peer, run.relay, index) })
    })
}

/// Stores a key for its slave.
pub(crate) fn put_delivery(id: KeyId, delivery: &DeliveryRecord, key: SecretBytes) -> Change {
    let mut w = Writer::new();
    w.u8(VERSION).put(delivery.assign.0.as_bytes());
    w.bytes16(delivery.origin.as_str().as_bytes());
    w.bytes16(delivery.master.as_str().as_bytes());
    w.bytes16(delivery.slave.as_str().as_bytes());
    let (table, record_key) = (Table::Delivery, id.0.as_bytes().to_vec());
    Change::Put(Record { table, key: record_key, value: w.finish(), secret: Some(key) })
}

/// Destroys a key that waited for its slave.
pub(crate) fn delete_delivery(id: KeyId) -> Change {
    Change::Delete { table: Table::Delivery, key: id.0.as_bytes().to_vec() }
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
    let link = link(&mut key)?;
    version(&mut value)?;
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
    version(&mut value)?;
    value.end()?;
    let secret = record.secret.filter(|secret| secret.len() == crate::PAIR_KEY_BYTES);
    let key = secret.ok_or(CodecError::Value { field: "secret" })?;
    Ok(Stored::PairKey { side, peer, relay, index, key })
}

fn decode_delivery(record: Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let id = key_id(&mut key, "id")?;
    key.end()?;
    let mut value = Reader::new(&record.value);
    version(&mut value)?;
    let delivery = DeliveryRecord {
        assign: key_id(&mut value, "assignment")?,
        origin: site(&mut value, "origin")?,
        master: sae(&mut value, "master")?,
        slave: sae(&mut value, "slave")?,
    };
    value.end()?;
    let key = record.secret.filter(|secret| !secret.is_empty()).ok_or(CodecError::Value { field: "secret" })?;
    Ok(Stored::Delivery { id, delivery, key })
}

fn version(r: &mut Reader<'_>) -> Result<(), CodecError> {
    if r.u8("version")? == VERSION { Ok(()) } else { Err(CodecError::Value { field: "version" }) }
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
        let key = record(put_pair_key(Side::Held, &peer, id(9), 3, SecretBytes::copy_of(&[1; 32])));
        assert_eq!(key.key[..4], *b"\x01\0\x01b");
        assert_eq!((&key.key[4..20], &key.key[20..]), (id(9).0.as_bytes().as_slice(), b"\0\x03".as_slice()));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let delivery = DeliveryRecord {
            assign: id(1),
            origin: SiteId::new("a").unwrap(),
            master: SaeId::new("m").unwrap(),
            slave: SaeId::new("s").unwrap(),
        };
        let good = || record(put_delivery(id(2), &delivery, SecretBytes::copy_of(&[1; 32])));
        assert!(matches!(decode(good()), Ok(Some(Stored::Delivery { delivery: d, .. })) if d == delivery));
        let damage: [fn(&mut Record); 5] = [
            |r| r.value[0] = 2,
            |r| r.value.push(0),
            |r| r.key.truncate(15),
            |r| r.secret = None,
            |r| r.value.truncate(20),
        ];
        for (case, damage) in damage.into_iter().enumerate() {
            let mut bad = good();
            damage(&mut bad);
            assert!(matches!(decode(bad), Err(Error::Corrupt { .. })), "case {case}");
        }
    }
}
