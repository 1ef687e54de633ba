//! Durable records of interworking, byte by byte in `docs/formats/interwork-records.md`.
//!
//! | kind | key | value | secret |
//! |---|---|---|---|
//! | 1 export | export | peer, master, slave, key ids with lengths | the keys |
//! | 2 sent | export | peer, master, slave, fate, key ids | |
//! | 3 import | import | peer, initiator, targets, callback, key ids with lengths | the keys |
//! | 4 known | key | peer, initiator, targets, state | salt and check value of the bits |
//! | 5 void job | job | peer, initiator, targets, callback, key ids | |
//! | 6 ack post | post | peer, path, body | |
//! | 7 void post | post | peer, initiator, targets, key ids | |

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use etsi::etsi020::{AckContainers, CallbackUrl, KEYS_MAX, TARGETS_MAX, TransferSae};
use types::codec::{CodecError, Reader, Writer};
use types::id::{KeyId, SaeId, Uuid};

use super::receiving::KnownState;
use super::sending::Fate;
use crate::Error;

const VERSION: u8 = 1;

/// Kind of a record; the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Export = 1,
    Sent = 2,
    Import = 3,
    Known = 4,
    VoidJob = 5,
    AckPost = 6,
    VoidPost = 7,
}

/// Keys under their ids.
pub(super) type Keys = Vec<(KeyId, SecretBytes)>;

/// Who shares keys, and past which foreign KME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parties {
    pub(super) peer: String,
    pub(super) initiator: TransferSae,
    pub(super) targets: Vec<TransferSae>,
}

/// A record after decoding.
#[derive(Debug)]
pub(super) enum Stored {
    Export { export: KeyId, parties: Parties, keys: Keys },
    Sent { export: KeyId, parties: Parties, fate: Fate, ids: Vec<KeyId> },
    Import { import: KeyId, parties: Parties, callback: Option<CallbackUrl>, keys: Keys },
    Known { key: KeyId, parties: Parties, state: KnownState, check: Option<SecretBytes> },
    VoidJob { job: KeyId, parties: Parties, callback: Option<CallbackUrl>, ids: Vec<KeyId> },
    AckPost { post: KeyId, peer: String, path: String, acks: AckContainers },
    VoidPost { post: KeyId, parties: Parties, ids: Vec<KeyId> },
}

pub(super) fn put_export(export: KeyId, parties: &Parties, keys: &Keys) -> Change {
    let mut value = begin(parties);
    put_lengths(&mut value, keys);
    put(Kind::Export, export, value, Some(joined(keys)))
}

pub(super) fn put_sent(export: KeyId, parties: &Parties, fate: Fate, ids: &[KeyId]) -> Change {
    let mut value = begin(parties);
    value.u8(fate as u8);
    put_ids(&mut value, ids);
    put(Kind::Sent, export, value, None)
}

pub(super) fn put_import(import: KeyId, parties: &Parties, callback: Option<&CallbackUrl>, keys: &Keys) -> Change {
    put(Kind::Import, import, import_value(parties, callback, keys), Some(joined(keys)))
}

/// Another callback URL for a pending import; its keys stay.
pub(super) fn update_import(import: KeyId, parties: &Parties, callback: Option<&CallbackUrl>, keys: &Keys) -> Change {
    let value = import_value(parties, callback, keys).finish();
    Change::Update { table: Table::Interwork, key: place(Kind::Import, import), value }
}

pub(super) fn put_known(key: KeyId, parties: &Parties, state: KnownState, check: Option<&SecretBytes>) -> Change {
    let mut value = begin(parties);
    value.u8(state as u8);
    put(Kind::Known, key, value, check.map(SecretBytes::duplicate))
}

pub(super) fn put_void_job(job: KeyId, parties: &Parties, callback: Option<&CallbackUrl>, ids: &[KeyId]) -> Change {
    let mut value = begin(parties);
    put_callback(&mut value, callback);
    put_ids(&mut value, ids);
    put(Kind::VoidJob, job, value, None)
}

pub(super) fn put_ack_post(post: KeyId, peer: &str, path: &str, acks: &AckContainers) -> Change {
    let mut value = Writer::new();
    value.u8(VERSION).bytes16(peer.as_bytes()).bytes16(path.as_bytes()).bytes32(&acks.to_json());
    put(Kind::AckPost, post, value, None)
}

pub(super) fn put_void_post(post: KeyId, parties: &Parties, ids: &[KeyId]) -> Change {
    let mut value = begin(parties);
    put_ids(&mut value, ids);
    put(Kind::VoidPost, post, value, None)
}

pub(super) fn delete(kind: Kind, id: KeyId) -> Change {
    Change::Delete { table: Table::Interwork, key: place(kind, id) }
}

/// Decodes a record.
pub(super) fn decode(record: Record) -> Result<Stored, Error> {
    let corrupt = |why: String| Error::Corrupt { what: "interworking", why };
    if record.table != Table::Interwork {
        return Err(corrupt(format!("table {:?} is none of interworking", record.table)));
    }
    parse(record).map_err(|error| corrupt(error.to_string()))
}

fn parse(record: Record) -> Result<Stored, CodecError> {
    let mut key = Reader::new(&record.key);
    let kind = key.u8("kind")?;
    let id = KeyId(Uuid::from_bytes(key.array("id")?));
    key.end()?;
    let mut r = Reader::new(&record.value);
    if r.u8("version")? != VERSION {
        return Err(CodecError::Value { field: "version" });
    }
    let secret = record.secret;
    let stored = match kind {
        1 => {
            let parties = parties(&mut r)?;
            Stored::Export { export: id, parties, keys: keys(&mut r, secret)? }
        }
        2 => {
            let parties = parties(&mut r)?;
            let fate = Fate::from_number(r.u8("fate")?).ok_or(CodecError::Value { field: "fate" })?;
            Stored::Sent { export: id, parties, fate, ids: ids(&mut r)? }
        }
        3 => {
            let (parties, callback) = (parties(&mut r)?, callback(&mut r)?);
            Stored::Import { import: id, parties, callback, keys: keys(&mut r, secret)? }
        }
        4 => {
            let parties = parties(&mut r)?;
            let state = KnownState::from_number(r.u8("state")?).ok_or(CodecError::Value { field: "state" })?;
            Stored::Known { key: id, parties, state, check: secret }
        }
        5 => {
            let (parties, callback) = (parties(&mut r)?, callback(&mut r)?);
            Stored::VoidJob { job: id, parties, callback, ids: ids(&mut r)? }
        }
        6 => {
            let peer = r.text16("peer", NAME_MAX)?.to_owned();
            let path = r.text16("path", PATH_MAX)?.to_owned();
            let acks = AckContainers::parse(r.bytes32("body", Record::VALUE_MAX)?);
            let acks = acks.map_err(|_| CodecError::Value { field: "body" })?;
            Stored::AckPost { post: id, peer, path, acks }
        }
        7 => {
            let parties = parties(&mut r)?;
            Stored::VoidPost { post: id, parties, ids: ids(&mut r)? }
        }
        _ => return Err(CodecError::Value { field: "kind" }),
    };
    r.end()?;
    Ok(stored)
}

fn place(kind: Kind, id: KeyId) -> Vec<u8> {
    let mut key = Writer::new();
    key.u8(kind as u8).put(id.0.as_bytes());
    key.finish()
}

fn put(kind: Kind, id: KeyId, value: Writer, secret: Option<SecretBytes>) -> Change {
    Change::Put(Record { table: Table::Interwork, key: place(kind, id), value: value.finish(), secret })
}

fn begin(parties: &Parties) -> Writer {
    let mut value = Writer::new();
    value.u8(VERSION).bytes16(parties.peer.as_bytes()).bytes16(parties.initiator.id().as_str().as_bytes());
    value.count(parties.targets.len());
    for target in &parties.targets {
        value.bytes16(target.id().as_str().as_bytes());
    }
    value
}

fn parties(r: &mut Reader<'_>) -> Result<Parties, CodecError> {
    let peer = r.text16("peer", NAME_MAX)?.to_owned();
    let initiator = sae(r.text16("initiator", NAME_MAX)?)?;
    let count = r.count("targets", TARGETS_MAX)?;
    let targets = (0..count).map(|_| sae(r.text16("target", NAME_MAX)?)).collect::<Result<_, _>>()?;
    Ok(Parties { peer, initiator, targets })
}

fn sae(text: &str) -> Result<TransferSae, CodecError> {
    let sae = SaeId::new(text).ok().and_then(|id| TransferSae::new(id).ok());
    sae.ok_or(CodecError::Value { field: "SAE id" })
}

fn import_value(parties: &Parties, callback: Option<&CallbackUrl>, keys: &Keys) -> Writer {
    let mut value = begin(parties);
    put_callback(&mut value, callback);
    put_lengths(&mut value, keys);
    value
}

fn put_callback(value: &mut Writer, callback: Option<&CallbackUrl>) {
    value.bytes16(callback.map(CallbackUrl::as_str).unwrap_or_default().as_bytes());
}

fn callback(r: &mut Reader<'_>) -> Result<Option<CallbackUrl>, CodecError> {
    let text = r.text16("callback", PATH_MAX)?;
    let url = (!text.is_empty()).then(|| CallbackUrl::new(text)).transpose();
    url.map_err(|_| CodecError::Value { field: "callback" })
}

fn put_ids(value: &mut Writer, ids: &[KeyId]) {
    value.count(ids.len());
    for id in ids {
        value.put(id.0.as_bytes());
    }
}

fn ids(r: &mut Reader<'_>) -> Result<Vec<KeyId>, CodecError> {
    let count = r.count("key ids", KEYS_MAX)?;
    (0..count).map(|_| Ok(KeyId(Uuid::from_bytes(r.array("key id")?)))).collect()
}

fn put_lengths(value: &mut Writer, keys: &Keys) {
    value.count(keys.len());
    for (id, bits) in keys {
        value.put(id.0.as_bytes()).count(bits.len());
    }
}

fn joined(keys: &Keys) -> SecretBytes {
    let mut all = SecretBytes::from_vec(vec![0; keys.iter().map(|(_, bits)| bits.len()).sum()]);
    all.expose_mut(|mut room| {
        for (_, bits) in keys {
            let (here, rest) = room.split_at_mut(bits.len());
            bits.expose(|bits| here.copy_from_slice(bits));
            room = rest;
        }
    });
    all
}

fn keys(r: &mut Reader<'_>, secret: Option<SecretBytes>) -> Result<Keys, CodecError> {
    let wrong = CodecError::Value { field: "keys" };
    let secret = secret.ok_or(wrong)?;
    let count = r.count("keys", KEYS_MAX)?;
    let mut at = 0;
    let mut keys = Vec::new();
    for _ in 0..count {
        let id = KeyId(Uuid::from_bytes(r.array("key id")?));
        let len = r.count("key length", secret.len())?;
        keys.push((id, secret.part(at, len).ok_or(wrong)?));
        at += len;
    }
    if at == secret.len() { Ok(keys) } else { Err(wrong) }
}

/// Longest name of a foreign KME or of an SAE, in bytes.
pub(super) const NAME_MAX: usize = 128;
const PATH_MAX: usize = 2_048;
