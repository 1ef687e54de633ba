//! What one site made durable.

use std::collections::BTreeMap;

use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;

type Place = (Table, Vec<u8>);
type Content = (Vec<u8>, Option<SecretBytes>);

/// Records of one site by table and key.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: BTreeMap<Place, Content>,
}

impl Disk {
    /// Applies one change.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(record) => {
                self.records.insert((record.table, record.key), (record.value, record.secret));
            }
            Change::Update { table, key, value } => {
                let record = self.records.get_mut(&(table, key)).expect("an updated record is there");
                record.0 = value;
            }
            Change::Delete { table, key } => {
                self.records.remove(&(table, key));
            }
        }
    }

    /// The public value of a record.
    pub(crate) fn value(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.records.get(&(table, key.to_vec())).map(|(value, _)| value.as_slice())
    }

    /// Whether any secret of a table satisfies a test.
    pub(crate) fn any_secret(&self, table: Table, test: impl Fn(&[u8]) -> bool) -> bool {
        let records = self.records.range((table, Vec::new())..).take_while(|((t, _), _)| *t == table);
        records.filter_map(|(_, (_, secret))| secret.as_ref()).any(|secret| secret.expose(&test))
    }

    /// All records, as a restart reads them.
    pub(crate) fn records(&self) -> Vec<Record> {
        let record = |((table, key), (value, secret)): (&Place, &Content)| Record {
            table: *table,
            key: key.clone(),
            value: value.clone(),
            secret: secret.as_ref().map(SecretBytes::duplicate),
        };
        self.records.iter().map(record).collect()
    }
}
