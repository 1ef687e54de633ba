//! Another root key: KEKs are sealed anew, no data is rewritten.
//!
//! ```text
//! every key file: second half under the new key  →  mark in the state table (the commit point)
//!                                                →  every key file: half under the old key overwritten
//! ```
//!
//! Before the commit point the old root key opens everything and after it the new one does; the next opening
//! overwrites the halves of the other.

use super::recovery::sealed_mark;
use super::{Embedded, MARKS};
use crate::kek;
use crate::{Error, RootKey};

impl Embedded {
    /// Changes the root key.
    pub(crate) fn rekey(&mut self, new: RootKey) -> Result<(), Error> {
        for id in self.segments.keys() {
            kek::seal_anew(&*self.disk, *id, &self.root, &new, &mut self.rng)?;
        }
        let path = self.state_path();
        let mark = sealed_mark(&new, &mut self.rng);
        let transaction = self.state.begin_write().map_err(Error::state("write", &path))?;
        {
            let mut marks = transaction.open_table(MARKS).map_err(Error::state("write", &path))?;
            marks.insert(super::recovery::FORMAT, mark.as_slice()).map_err(Error::state("write", &path))?;
        }
        transaction.commit().map_err(Error::state("write", &path))?;
        self.root = new;
        for id in self.segments.keys() {
            kek::load(&*self.disk, &self.root, *id).map_err(|reason| Error::Corrupt {
                what: "a segment's key".into(),
                path: self.disk.path().join(id.kek_name()),
                reason,
            })?;
        }
        Ok(())
    }
}
