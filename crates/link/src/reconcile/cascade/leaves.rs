//! One pass of one frame at Bob: leaves, and which of them differ from Alice's in parity.

use super::plan::Order;
use crate::bits::Bits;

/// Leaves of a pass.
pub(super) struct Leaves {
    /// The frame's bits in the order of the pass, if that needs a copy.
    copy: Option<Bits>,
    marks: Marks,
    /// Leaves that turned odd since they were looked at; some may have turned back.
    fresh: Vec<u32>,
    /// Odd leaves that are to be cut, and where; some may have turned back.
    kept: Vec<(u32, u32)>,
    /// Leaves whose first part's parity was asked for, and where they are cut.
    halving: Vec<(u32, u32)>,
}

impl Leaves {
    /// No leaf yet. A subset's pass has few.
    pub(super) fn new(order: &Order, frame: &Bits, positions: usize) -> Self {
        let marks = Marks::new(positions, matches!(order, Order::Subset(_)));
        Self { copy: order.arrange(frame), marks, fresh: Vec::new(), kept: Vec::new(), halving: Vec::new() }
    }

    /// Marks the blocks; `whole` is the frame's parity at Alice if the last block's was not sent.
    pub(super) fn begin(
        &mut self,
        order: &Order,
        frame: &Bits,
        block_len: usize,
        whole: Option<bool>,
        parity: impl Fn(usize) -> bool,
    ) {
        let positions = self.marks.positions();
        let blocks = positions.div_ceil(block_len);
        let mut sum = false;
        for block in 0..blocks {
            let theirs = match whole {
                Some(whole) if block + 1 == blocks => whole ^ sum,
                _ => parity(block),
            };
            sum ^= theirs;
            let start = block * block_len;
            let end = (start + block_len).min(positions);
            let odd = order.parity(frame, self.copy.as_ref(), start, end) != theirs;
            self.marks.put(start, odd);
            if odd {
                self.fresh.push(narrow(start));
            }
        }
    }

    /// Whether the number of odd leaves is odd: Alice's parity of the whole frame differs.
    pub(super) fn any_odd(&self) -> bool {
        self.marks.parity()
    }

    /// The next leaf that turned odd.
    pub(super) fn next_fresh(&mut self) -> Option<usize> {
        loop {
            let start = self.fresh.pop()? as usize;
            if self.marks.odd(start) {
                return Some(start);
            }
        }
    }

    /// Leaves this one for the next question, to be cut at `middle`.
    pub(super) fn keep(&mut self, start: usize, middle: usize) {
        self.kept.push((narrow(start), narrow(middle)));
    }

    /// Length of the leaf that holds this position, and whether it is odd.
    #[inline]
    pub(super) fn around(&self, position: usize) -> (usize, bool) {
        let start = self.marks.start(position);
        (self.marks.end(position) - start, self.marks.odd(start))
    }

    /// Where the leaf that holds this position ends.
    #[inline]
    pub(super) fn end(&self, position: usize) -> usize {
        self.marks.end(position)
    }

    /// Turns the bit at this position over.
    #[inline]
    pub(super) fn flip(&mut self, position: usize) {
        if let Some(copy) = &mut self.copy {
            copy.flip(position);
        }
        let start = self.marks.start(position);
        let odd = !self.marks.odd(start);
        self.marks.set_odd(start, odd);
        if odd {
            self.fresh.push(narrow(start));
        }
    }

    /// The first parts of all odd leaves: start and length.
    pub(super) fn ask(&mut self) -> Vec<(usize, usize)> {
        self.kept.sort_unstable();
        self.kept.dedup_by_key(|(start, _)| *start);
        self.halving.clear();
        let marks = &self.marks;
        self.halving.extend(self.kept.drain(..).filter(|(start, _)| marks.odd(*start as usize)));
        self.halving.iter().map(|(start, middle)| (*start as usize, (middle - start) as usize)).collect()
    }

    /// Cuts the leaves that were asked for in two. Gives their number.
    pub(super) fn take(&mut self, order: &Order, frame: &Bits, parity: impl Fn(usize) -> bool) -> usize {
        let before = self.fresh.len();
        for (index, (start, middle)) in self.halving.iter().enumerate() {
            let (at, middle_at) = (*start as usize, *middle as usize);
            let first_odd = order.parity(frame, self.copy.as_ref(), at, middle_at) != parity(index);
            self.marks.set_odd(at, first_odd);
            self.fresh.push(if first_odd { *start } else { *middle });
        }
        // One part of each is odd: the one that is fresh.
        for ((_, middle), odd) in self.halving.iter().zip(&self.fresh[before..]) {
            self.marks.put(*middle as usize, middle == odd);
        }
        self.marks.settle();
        let count = self.halving.len();
        self.halving.clear();
        count
    }
}

/// Where leaves begin, and which are odd: their parity differs from Alice's. Both follow from the error pattern, which
/// counts as public.
enum Marks {
    /// A bit for every position.
    Dense { starts: Bits, odd: Bits },
    /// Starts in ascending order, with a flag for odd leaves.
    Sparse { leaves: Vec<(u32, bool)>, positions: usize },
}

impl Marks {
    fn new(positions: usize, few: bool) -> Self {
        if few {
            Self::Sparse { leaves: Vec::new(), positions }
        } else {
            Self::Dense { starts: Bits::zeros(positions), odd: Bits::zeros(positions) }
        }
    }

    fn positions(&self) -> usize {
        match self {
            Self::Dense { starts, .. } => starts.len(),
            Self::Sparse { positions, .. } => *positions,
        }
    }

    /// A new leaf, in ascending order. After the last of some, [`Marks::settle`] is due before anything else.
    fn put(&mut self, start: usize, is_odd: bool) {
        match self {
            Self::Dense { starts, odd } => {
                starts.set(start, true);
                odd.set(start, is_odd);
            }
            Self::Sparse { leaves, .. } => leaves.push((narrow(start), is_odd)),
        }
    }

    /// New leaves take their places: two ascending runs are merged.
    fn settle(&mut self) {
        if let Self::Sparse { leaves, .. } = self {
            leaves.sort_by_key(|(start, _)| *start);
        }
    }

    /// Where the leaf that holds this position begins.
    #[inline]
    fn start(&self, position: usize) -> usize {
        match self {
            Self::Dense { starts, .. } => starts.previous_one(position).expect("the first leaf starts at 0"),
            Self::Sparse { leaves, .. } => leaves[Self::index(leaves, position)].0 as usize,
        }
    }

    /// Where it ends.
    #[inline]
    fn end(&self, position: usize) -> usize {
        match self {
            Self::Dense { starts, .. } => {
                let next = if position + 1 < starts.len() { starts.next_one(position + 1) } else { None };
                next.unwrap_or(starts.len())
            }
            Self::Sparse { leaves, positions } => {
                leaves.get(Self::index(leaves, position) + 1).map_or(*positions, |(start, _)| *start as usize)
            }
        }
    }

    /// Whether the leaf that begins here is odd.
    #[inline]
    fn odd(&self, start: usize) -> bool {
        match self {
            Self::Dense { odd, .. } => odd.get(start),
            Self::Sparse { leaves, .. } => leaves[Self::index(leaves, start)].1,
        }
    }

    #[inline]
    fn set_odd(&mut self, start: usize, is_odd: bool) {
        match self {
            Self::Dense { odd, .. } => odd.set(start, is_odd),
            Self::Sparse { leaves, .. } => {
                let index = Self::index(leaves, start);
                leaves[index].1 = is_odd;
            }
        }
    }

    /// Whether the number of odd leaves is odd.
    fn parity(&self) -> bool {
        match self {
            Self::Dense { odd, .. } => odd.parity(0, odd.len()),
            Self::Sparse { leaves, .. } => leaves.iter().filter(|(_, odd)| *odd).count() % 2 == 1,
        }
    }

    #[inline]
    fn index(leaves: &[(u32, bool)], position: usize) -> usize {
        leaves.partition_point(|(start, _)| *start as usize <= position) - 1
    }
}

#[inline]
fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("a pass has at most 2^17 positions")
}
