//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;

use crate::message::Message;
use crate::record::{self, Stored};

/// Whatever decodes encodes to the same bytes; nothing panics.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes, "decoding accepts only what encoding makes");
    }
}

/// A record of a pair key or of a delivery that decodes is written again as it was, unless it is of an old version;
/// nothing panics. The first two bytes choose the table and whether there is a secret, the third the key's length.
pub fn stored(bytes: &[u8]) {
    let [table, secret, key_len, rest @ ..] = bytes else { return };
    let (key, value) = rest.split_at(usize::from(*key_len).min(rest.len()));
    let table = if table & 1 == 0 { Table::PairKey } else { Table::Delivery };
    let secret = (secret & 1 == 0).then(|| SecretBytes::from_vec(vec![1; crate::PAIR_KEY_BYTES]));
    let record = Record { table, key: key.to_vec(), value: value.to_vec(), secret };
    let again = match record::decode(record) {
        Ok(Some(Stored::PairKey { side, peer, relay, index, origin, key })) => {
            record::put_pair_key(side, &peer, relay, index, &origin, key)
        }
        Ok(Some(Stored::Delivery { id, delivery, key })) => record::put_delivery(id, &delivery, key),
        _ => return,
    };
    let Change::Put(again) = again else { unreachable!("both are written whole") };
    let old = value.first() == Some(&1);
    assert!(again.key == key && (old || again.value == value), "decoding accepts only what encoding makes");
}

/// As [`message`], for what the stream cores of two sites say to each other.
pub fn stream_message(bytes: &[u8]) {
    if let Ok(message) = crate::stream::message::Message::decode(bytes) {
        assert_eq!(message.encode(), bytes, "decoding accepts only what encoding makes");
    }
}
