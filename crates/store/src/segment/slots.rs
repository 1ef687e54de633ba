//! Which slots of a segment are live, in little memory.
//!
//! Up to 64 slots of one length that follow each other are one row of bits, so that a million keys take a few hundred
//! kilobytes. A gap whose length fits is dead slots of the row.

/// Where a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The slots of one segment.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// By offset.
    rows: Vec<Row>,
    live: usize,
    live_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    offset: u32,
    /// Bytes of each slot.
    len: u32,
    count: u32,
    /// Bit `i` says that slot `i` is live.
    live: u64,
}

impl Row {
    fn slot(&self, at: u32) -> Slot {
        Slot { offset: self.offset + at * self.len, len: self.len }
    }

    /// Behind its last slot.
    fn end(&self) -> u32 {
        self.offset + self.count * self.len
    }

    /// Which slot begins at an offset behind its own.
    fn at(&self, offset: u32) -> Option<u32> {
        let distance = offset - self.offset;
        distance.is_multiple_of(self.len).then_some(distance / self.len)
    }
}

impl Slots {
    /// Adds a live slot behind all others.
    pub(crate) fn push(&mut self, slot: Slot) {
        assert!(slot.len > 0 && self.rows.last().is_none_or(|last| last.end() <= slot.offset), "{slot:?} overlaps");
        self.live += 1;
        self.live_bytes += u64::from(slot.len);
        if let Some(row) = self.rows.last_mut()
            && row.len == slot.len
            && let Some(at) = row.at(slot.offset).filter(|at| *at < u64::BITS)
        {
            row.live |= 1 << at;
            row.count = at + 1;
            return;
        }
        self.rows.push(Row { offset: slot.offset, len: slot.len, count: 1, live: 1 });
    }

    /// The live slot at an offset.
    pub(crate) fn find(&self, offset: u32) -> Option<Slot> {
        self.place(offset).map(|(row, at)| self.rows[row].slot(at))
    }

    /// The live slot at an offset, which is dead from now on.
    pub(crate) fn remove(&mut self, offset: u32) -> Option<Slot> {
        let (row, at) = self.place(offset)?;
        let row = &mut self.rows[row];
        row.live &= !(1 << at);
        self.live -= 1;
        self.live_bytes -= u64::from(row.len);
        Some(row.slot(at))
    }

    /// Live slots by offset.
    pub(crate) fn live(&self) -> impl Iterator<Item = Slot> + '_ {
        self.rows.iter().flat_map(|row| (0..row.count).filter(|at| row.live >> at & 1 == 1).map(|at| row.slot(at)))
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Gives back memory set aside for slots to come.
    pub(crate) fn shrink(&mut self) {
        self.rows.shrink_to_fit();
    }

    /// Row and place of a live slot.
    fn place(&self, offset: u32) -> Option<(usize, u32)> {
        let index = self.rows.partition_point(|row| row.offset <= offset).checked_sub(1)?;
        let row = &self.rows[index];
        let at = row.at(offset).filter(|at| *at < row.count)?;
        (row.live >> at & 1 == 1).then_some((index, at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_a_map(steps in proptest::collection::vec((0..4_u32, 1..5_u32, any::<u32>()), 1..300)) {
            let (mut slots, mut model, mut next) = (Slots::default(), BTreeMap::new(), 0);
            for (kind, len, pick) in steps {
                if kind == 0 {
                    // Any offset, live or not, the start of a slot or not.
                    let offset = pick % (next + 8);
                    let expected = model.get(&offset).map(|len| Slot { offset, len: *len });
                    prop_assert_eq!(slots.find(offset), expected);
                    prop_assert_eq!(slots.remove(offset), expected);
                    model.remove(&offset);
                } else {
                    // Mostly of one length, now and then with a gap before.
                    let len = if kind == 1 { len } else { 80 };
                    let offset = next + if pick % 5 == 0 { pick % 200 } else { 0 };
                    slots.push(Slot { offset, len });
                    model.insert(offset, len);
                    next = offset + len;
                }
            }
            let live: Vec<Slot> = model.iter().map(|(offset, len)| Slot { offset: *offset, len: *len }).collect();
            prop_assert_eq!(slots.live().collect::<Vec<_>>(), live);
            prop_assert_eq!(slots.live_count(), model.len());
            prop_assert_eq!(slots.live_bytes(), model.values().map(|len| u64::from(*len)).sum::<u64>());
        }
    }

    #[test]
    fn slots_of_one_length_take_less_than_a_byte_each() {
        let mut slots = Slots::default();
        (0..12_800).for_each(|n| slots.push(Slot { offset: n * 80, len: 80 }));
        slots.shrink();
        assert!(slots.rows.capacity() * size_of::<Row>() <= 12_800 / 2, "{} rows", slots.rows.len());
    }
}
