//! Moves the last live secrets out of a mostly dead segment, so that its key can be destroyed.

use crypto::secret::SecretBytes;
use redb::ReadableTable;

use super::{Effect, Embedded, Plan, ROWS};
use crate::Error;
use crate::entry::{Entry, Place, split_row_key};
use crate::kek::Class;
use crate::segment::{Segment, SegmentId};

/// A secret on its way to another segment.
pub(super) struct Moving {
    pub(super) from: Place,
    pub(super) row: Vec<u8>,
    pub(super) secret: SecretBytes,
}

impl Embedded {
    /// Empties and destroys one segment, if one is due. Bounded: at most a quarter of a segment is moved.
    pub(super) fn compact_one(&mut self) -> Result<bool, Error> {
        let due = self.segments.iter().find(|(id, segment)| self.is_sparse(**id, segment));
        let Some((&id, segment)) = due else {
            return Ok(false);
        };
        let mut moving = Vec::with_capacity(segment.live_count());
        for slot in segment.live() {
            // One that does not open is left for the next opening, which names the record.
            let Ok((row, secret)) = segment.read_named(slot) else { return Ok(false) };
            let len = u32::try_from(secret.len()).expect("it is part of a slot");
            moving.push(Moving { from: Place { segment: id, offset: slot.offset, len }, row, secret });
        }
        self.move_secrets(moving)?;
        assert!(!self.segments.contains_key(&id), "an emptied segment is destroyed");
        Ok(true)
    }

    /// Seals secrets anew into the current segments; rows follow in one commit.
    pub(super) fn move_secrets(&mut self, moving: Vec<Moving>) -> Result<(), Error> {
        let path = self.state_path();
        let transaction = self.state.begin_write().map_err(Error::state("write", &path))?;
        let mut plan = Plan::default();
        {
            let failed = || Error::state::<redb::StorageError>("write", &path);
            let mut rows = transaction.open_table(ROWS).map_err(Error::state("write", &path))?;
            for Moving { from, row, secret } in moving {
                let (table, _) = split_row_key(&row).ok_or_else(|| self.bad_row(&row))?;
                let old = rows.get(row.as_slice()).map_err(failed())?.map(|old| old.value().to_vec());
                let old = old.ok_or_else(|| self.bad_row(&row))?;
                let entry = Entry::decode(&old).map_err(|_| self.bad_row(&row))?;
                assert_eq!(entry.place, Some(from), "the row of a live slot points to it");
                let after = Some(self.plan_secret(Class::of(table), &row, &secret, &mut plan)?);
                let moved = Entry { value: entry.value, place: after }.encode();
                rows.insert(row.as_slice(), moved.as_slice()).map_err(failed())?;
                plan.effects.push(Effect { row, before: Some(from), after });
            }
        }
        self.write_slots(&plan)?;
        transaction.commit().map_err(Error::state("write", &path))?;
        self.settle(plan)
    }

    fn is_sparse(&self, id: SegmentId, segment: &Segment) -> bool {
        !self.active.contains(&Some(id))
            && !segment.is_damaged()
            && segment.live_bytes() * SPARSE_DIVISOR <= u64::from(segment.capacity())
    }
}

/// A segment is sparse when at most one part in this many is live.
const SPARSE_DIVISOR: u64 = 4;
