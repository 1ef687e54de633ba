//! What the tests of both back ends hold a store against: a map, and the same changes made to it.

use std::collections::BTreeMap;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;

/// Records by table and key: public value and secret.
pub(crate) type Model = BTreeMap<(Table, Vec<u8>), (Vec<u8>, Option<Vec<u8>>)>;

pub(crate) fn put(table: Table, key: &[u8], value: &[u8], secret: Option<&[u8]>) -> Change {
    let secret = secret.map(SecretBytes::copy_of);
    Change::Put(Record { table, key: key.to_vec(), value: value.to_vec(), secret })
}

pub(crate) fn delete(table: Table, key: &[u8]) -> Change {
    Change::Delete { table, key: key.to_vec() }
}

pub(crate) fn as_model(records: Vec<Record>) -> Model {
    let secret = |secret: Option<SecretBytes>| secret.map(|secret| secret.into_public("test bytes"));
    records.into_iter().map(|record| ((record.table, record.key), (record.value, secret(record.secret)))).collect()
}

pub(crate) fn apply(model: &mut Model, change: &Change) {
    match change {
        Change::Put(record) => {
            let secret = record.secret.as_ref().map(|secret| secret.expose(<[u8]>::to_vec));
            model.insert((record.table, record.key.clone()), (record.value.clone(), secret));
        }
        Change::Update { table, key, value } => {
            model.get_mut(&(*table, key.clone())).unwrap().0.clone_from(value);
        }
        Change::Delete { table, key } => {
            model.remove(&(*table, key.clone()));
        }
    }
}
