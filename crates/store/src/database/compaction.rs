//! Seals the last pieces of a mostly dead KEK anew, so that its row can be deleted.

use crypto::secret::SecretBytes;

use super::seal::{KekId, Part, Piece};
use super::session::FullRow;
use super::{Batch, Database, NewRow, PIECES_MAX};
use crate::Error;
use crate::kek::Class;

impl Database {
    /// Empties one KEK, if one is due. Bounded: at most a quarter of what it sealed is moved.
    pub(crate) fn compact(&mut self) -> Result<bool, Error> {
        let active = self.active;
        let is_sparse = |(id, kek): &(&KekId, &super::Kek)| {
            kek.is_full() && !active.contains(&Some(**id)) && kek.pieces * SPARSE_DIVISOR <= PIECES_MAX
        };
        let due = self.keks.iter().filter(|(id, _)| !self.damaged.contains(id)).find(is_sparse).map(|(id, _)| *id);
        let Some(due) = due else { return Ok(false) };
        let rows = self.session.begin_with_kek(self.epoch, due)?;
        let Ok(rows) = rows.into_iter().map(|row| self.take_apart(due, row)).collect::<Result<Vec<_>, _>>() else {
            // One that does not open stays, and its record is named when it is read.
            self.damaged.insert(due);
            self.session.roll_back()?;
            return Ok(false);
        };
        let class = self.keks.get(&due).expect("it is due").class();
        let mut batch = Batch::default();
        for (row, value, secret) in rows {
            let value = self.put_back(due, class, &row, Part::Value, value, &mut batch);
            let secret = secret.map(|secret| self.put_back(due, class, &row, Part::Secret, secret, &mut batch));
            batch.puts.push(NewRow { row, value, secret });
        }
        self.collect_dead(&mut batch);
        self.session.finish(batch)?;
        Ok(true)
    }

    /// Opens what is under the KEK that goes.
    fn take_apart(&self, due: KekId, full: FullRow) -> Result<(Vec<u8>, Moving, Option<Moving>), &'static str> {
        let FullRow { row, value, secret } = full;
        let open = |part, piece: Piece| {
            if piece.kek == due { self.unseal(&row, part, &piece).map(Moving::Open) } else { Ok(Moving::Stays(piece)) }
        };
        let (value, secret) = (open(Part::Value, value)?, secret.map(|piece| open(Part::Secret, piece)).transpose()?);
        Ok((row, value, secret))
    }

    fn put_back(
        &mut self,
        due: KekId,
        class: Class,
        row: &[u8],
        part: Part,
        moving: Moving,
        batch: &mut Batch,
    ) -> Piece {
        match moving {
            Moving::Stays(piece) => piece,
            Moving::Open(bytes) => {
                self.uncount(due);
                bytes.expose(|bytes| self.seal(class, row, part, bytes, batch))
            }
        }
    }
}

/// A piece of a row that is written again.
enum Moving {
    /// Under another KEK, as it was.
    Stays(Piece),
    /// To be sealed anew.
    Open(SecretBytes),
}

/// A KEK is sparse when at most one part in this many of what it may seal is live.
const SPARSE_DIVISOR: u64 = 4;
