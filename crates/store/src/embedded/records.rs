//! Reading records back, one at a time, by table and key.

use crypto::record::{Record, Table};
use redb::ReadableDatabase;

use super::{Embedded, ROWS, bad_row};
use crate::Error;
use crate::entry::{Entry, Place, split_row_key};
use crate::store::{Damaged, Loaded};

/// Records of a folder, as they were when reading began.
pub(crate) struct EmbeddedRecords<'a> {
    store: &'a Embedded,
    rows: redb::Range<'static, &'static [u8], &'static [u8]>,
}

impl Embedded {
    /// All records, or those of one table.
    pub(crate) fn records(&self, table: Option<Table>) -> Result<EmbeddedRecords<'_>, Error> {
        let path = self.state_path();
        let transaction = self.state.begin_read().map_err(Error::state("read", &path))?;
        let rows = transaction.open_table(ROWS).map_err(Error::state("read", &path))?;
        let rows = match table {
            None => rows.range::<&[u8]>(..),
            Some(table) => {
                let number = table as u8;
                rows.range::<&[u8]>([number].as_slice()..[number + 1].as_slice())
            }
        };
        Ok(EmbeddedRecords { store: self, rows: rows.map_err(Error::state("read", &path))? })
    }

    /// Opens the secret of a row.
    fn read_secret(&self, place: Place, row: &[u8]) -> Result<crypto::secret::SecretBytes, &'static str> {
        if let Some(reason) = self.unreadable.get(&place.segment) {
            return Err(reason);
        }
        self.segments.get(&place.segment).ok_or("its segment is missing")?.read(place, row)
    }
}

impl EmbeddedRecords<'_> {
    fn load(&self, row: &[u8], bytes: &[u8]) -> Result<Loaded, Error> {
        let bad_row = || bad_row(&self.store.state_path(), row);
        let entry = Entry::decode(bytes).map_err(|_| bad_row())?;
        let (table, key) = split_row_key(row).ok_or_else(bad_row)?;
        let (key, value) = (key.to_vec(), entry.value.to_vec());
        let Some(place) = entry.place else {
            return Ok(Loaded::Whole(Record { table, key, value, secret: None }));
        };
        Ok(match self.store.read_secret(place, row) {
            Ok(secret) => Loaded::Whole(Record { table, key, value, secret: Some(secret) }),
            Err(reason) => {
                let path = self.store.disk.path().join(place.segment.keys_name());
                Loaded::Damaged(Damaged { table, key, value, path, reason })
            }
        })
    }
}

impl Iterator for EmbeddedRecords<'_> {
    type Item = Result<Loaded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(
            row.map_err(Error::state("read", &self.store.state_path()))
                .and_then(|(key, bytes)| self.load(key.value(), bytes.value())),
        )
    }
}
