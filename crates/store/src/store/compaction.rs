//! Moves the last live secrets out of a mostly dead segment, so that its key can be destroyed.

use redb::ReadableTable;

use super::{Effect, Plan, ROWS, Store};
use crate::Error;
use crate::entry::{Entry, Place, split_row_key};
use crate::segment::{Class, Segment, SegmentId};

impl Store {
    /// Empties and destroys one segment, if one is due. Bounded: at most a quarter of a segment is moved.
    pub(super) fn compact_one(&mut self) -> Result<bool, Error> {
        let due = self.segments.iter().find(|(id, segment)| self.is_sparse(**id, segment));
        let Some((&id, segment)) = due else {
            return Ok(false);
        };
        let mut moving = Vec::with_capacity(segment.live().len());
        for (&offset, live) in segment.live() {
            let place = Place { segment: id, offset, len: live.len };
            match segment.read(place, &live.row) {
                Some(secret) => moving.push((place, live.row.clone(), secret)),
                None => {
                    // Left for the next opening, which names the record.
                    self.segments.get_mut(&id).expect("it was just found").damaged = true;
                    return Ok(false);
                }
            }
        }

        let path = self.state_path();
        let transaction = self.state.begin_write().map_err(Error::state("write", &path))?;
        let mut plan = Plan::default();
        {
            let failed = || Error::state::<redb::StorageError>("write", &path);
            let mut rows = transaction.open_table(ROWS).map_err(Error::state("write", &path))?;
            for (place, row, secret) in moving {
                let (table, _) = split_row_key(&row).ok_or_else(|| self.bad_row(&row))?;
                let old = rows.get(&*row).map_err(failed())?.map(|old| old.value().to_vec());
                let old = old.ok_or_else(|| self.bad_row(&row))?;
                let entry = Entry::decode(&old).map_err(|_| self.bad_row(&row))?;
                assert_eq!(entry.place, Some(place), "the row of a live slot points to it");
                let after = Some(self.plan_secret(Class::of(table), &row, &secret, &mut plan)?);
                let moved = Entry { value: entry.value, place: after }.encode();
                rows.insert(&*row, moved.as_slice()).map_err(failed())?;
                plan.effects.push(Effect { row: row.into_vec(), before: Some(place), after });
            }
        }
        self.write_slots(&plan)?;
        transaction.commit().map_err(Error::state("write", &path))?;
        self.settle(plan)?;
        assert!(!self.segments.contains_key(&id), "an emptied segment is destroyed");
        Ok(true)
    }

    fn is_sparse(&self, id: SegmentId, segment: &Segment) -> bool {
        !self.active.contains(&Some(id))
            && !segment.damaged
            && segment.live_bytes() * SPARSE_DIVISOR <= u64::from(segment.capacity())
    }
}

/// A segment is sparse when at most one part in this many is live.
const SPARSE_DIVISOR: u64 = 4;
