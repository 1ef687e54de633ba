//! Reading rows back, a page at a time.

use crypto::record::{Record, Table};

use super::Database;
use super::seal::Part;
use super::session::FullRow;
use crate::Error;
use crate::entry::split_row_key;
use crate::store::{Damaged, Loaded};

/// Records of a database. Nobody else writes while its owner reads.
pub(crate) struct DatabaseRecords<'a> {
    store: &'a Database,
    page: std::vec::IntoIter<FullRow>,
    after: Vec<u8>,
    below: Vec<u8>,
    is_over: bool,
}

impl Database {
    /// All records, or those of one table.
    pub(crate) fn records(&self, table: Option<Table>) -> DatabaseRecords<'_> {
        // A row's key begins with its table's number, and no table has the number 255.
        let (after, below) = table.map_or((vec![], vec![u8::MAX]), |table| (vec![table as u8], vec![table as u8 + 1]));
        // A row that is its table's number alone would be passed over by "after".
        let after = after.split_last().map_or(vec![], |(number, _)| vec![number - 1, u8::MAX]);
        DatabaseRecords { store: self, page: Vec::new().into_iter(), after, below, is_over: false }
    }

    fn load(&self, FullRow { row, value, secret }: FullRow) -> Result<Loaded, Error> {
        let (table, key) = split_row_key(&row).ok_or_else(|| self.bad_row())?;
        let key = key.to_vec();
        let lost =
            |key, value, reason| Ok(Loaded::Damaged(Damaged { table, key, value, path: self.name.clone(), reason }));
        let value = match self.unseal(&row, Part::Value, &value) {
            Ok(value) => value.into_public("the public value of a record"),
            Err(reason) => return lost(key, Vec::new(), reason),
        };
        match secret.map(|secret| self.unseal(&row, Part::Secret, &secret)).transpose() {
            Ok(secret) => Ok(Loaded::Whole(Record { table, key, value, secret })),
            Err(reason) => lost(key, value, reason),
        }
    }
}

impl Iterator for DatabaseRecords<'_> {
    type Item = Result<Loaded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(self.store.load(row));
            }
            if self.is_over {
                return None;
            }
            match self.store.session.page(self.after.clone(), self.below.clone()) {
                Ok(page) => {
                    match page.last() {
                        Some(last) => self.after.clone_from(&last.row),
                        None => self.is_over = true,
                    }
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
