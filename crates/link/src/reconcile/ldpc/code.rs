//! A quasi-cyclic code: its rows, each cut in two halves, and the circulants that lift it.
//!
//! The base graph has [`COLUMNS`] columns; the columns of degree two are a path over the rows, so that they close no
//! cycle among themselves. Every other column takes the rows that have fewest edges so far. Lifting goes edge by
//! edge, as progressive edge growth does: from the column of the new edge the lifted graph is searched, and a
//! rotation is taken that leads to a check not yet reached, or to the farthest. All of it is integer arithmetic with
//! ChaCha20 from a constant seed, so both ends build the same code on every processor.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crypto::domain::Domain;
use kernels::ldpc::{Edge, HALO};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::design::{COLUMNS, Design};
use crate::bits::Bits;

/// A lifted code.
pub(super) struct Code {
    /// Bits in a circulant.
    pub(super) lanes: usize,
    pub(super) rows: Vec<Row>,
    /// The edges of all rows, each row's first half before its second.
    pub(super) edges: Vec<Edge>,
    /// Column of each edge.
    columns: Vec<usize>,
    /// The rows in the order in which they are split.
    pub(super) splits: Vec<usize>,
}

/// Where a row's edges are.
pub(super) struct Row {
    pub(super) start: usize,
    pub(super) middle: usize,
    pub(super) end: usize,
}

impl Code {
    /// The code with this many rows for circulants of `lanes` bits; the last few are kept.
    pub(super) fn shared(rows: usize, lanes: usize) -> Arc<Self> {
        static KEPT: OnceLock<Mutex<Vec<Arc<Code>>>> = OnceLock::new();
        // A panic elsewhere leaves the list whole: entries are pushed and removed in one step each.
        let lock = || KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let same = |code: &Arc<Self>| code.rows.len() == rows && code.lanes == lanes;
        if let Some(code) = lock().iter().find(|kept| same(kept)) {
            return Arc::clone(code);
        }
        let code = Arc::new(Self::build(&Design::with_rows(rows), lanes));
        let mut kept = lock();
        if !kept.iter().any(same) {
            if kept.len() == KEPT_MAX {
                kept.remove(0);
            }
            kept.push(Arc::clone(&code));
        }
        code
    }

    /// Builds the code of a design for circulants of `lanes` bits.
    pub(super) fn build(design: &Design, lanes: usize) -> Self {
        let mut rng = ChaCha20Rng::from_seed(SEED);
        rng.set_stream(u64::try_from(design.rows).expect("few") << 32 | u64::try_from(lanes).expect("few"));
        let base = base_graph(design, &mut rng);
        let lifted = Lift::new(design.rows, lanes, &base).run(&mut rng);
        let mut code = Self { lanes, rows: Vec::new(), edges: Vec::new(), columns: Vec::new(), splits: Vec::new() };
        for mut row in lifted {
            // Columns are ascending in degree: every other edge to each half gives halves alike.
            row.sort_unstable();
            let halves = [0, 1].map(|half| row.iter().skip(half).step_by(2).copied().collect::<Vec<_>>());
            let start = code.edges.len();
            for (column, shift) in halves.iter().flatten() {
                code.edges.push(Edge { column: column * (lanes + HALO), shift: *shift });
                code.columns.push(*column);
            }
            code.rows.push(Row { start, middle: start + halves[0].len(), end: code.edges.len() });
        }
        let stride = coprime_near_golden(design.rows);
        code.splits = (0..design.rows).map(|index| index * stride % design.rows).collect();
        code
    }

    /// Bits of a whole frame, with those that are filled up.
    pub(super) fn len(&self) -> usize {
        COLUMNS * self.lanes
    }

    /// Checks, each before it is split.
    pub(super) fn checks(&self) -> usize {
        self.rows.len() * self.lanes
    }

    /// Parities of the rows' first halves and of the whole rows, `lanes` bits for each row.
    pub(super) fn parities(&self, word: &Columns) -> [Bits; 2] {
        let mut halves = Packed::zeros(self.checks());
        let mut whole = Packed::zeros(self.checks());
        let mut sum = Zeroizing::new(vec![0_u64; self.lanes.div_ceil(64)]);
        for row in &self.rows {
            sum.fill(0);
            (row.start..row.middle).for_each(|edge| word.add(self.columns[edge], self.edges[edge].shift, &mut sum));
            halves.append(&sum, self.lanes);
            (row.middle..row.end).for_each(|edge| word.add(self.columns[edge], self.edges[edge].shift, &mut sum));
            whole.append(&sum, self.lanes);
        }
        [halves.finish(), whole.finish()]
    }

    /// Parities of first halves put in the order in which they are disclosed.
    pub(super) fn in_order_of_splits(&self, halves: &Bits) -> Bits {
        let mut ordered = Packed::zeros(halves.len());
        for row in &self.splits {
            ordered.append(halves.window(row * self.lanes, self.lanes).words(), self.lanes);
        }
        ordered.finish()
    }

    /// What the code is, in bytes: for the fixture.
    #[cfg(test)]
    pub(super) fn structure(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for row in &self.rows {
            for edge in row.start..row.end {
                let half = u64::from(edge >= row.middle);
                let parts = [self.columns[edge] as u64, self.edges[edge].shift as u64, half];
                parts.iter().for_each(|part| out.extend_from_slice(&part.to_be_bytes()));
            }
            out.push(b'\n');
        }
        out
    }
}

/// The bits of one frame by columns; each column is there twice over, so that any rotation is one piece.
pub(super) struct Columns {
    words: Zeroizing<Vec<u64>>,
    lanes: usize,
    stride: usize,
}

impl Columns {
    pub(super) fn zeros(lanes: usize) -> Self {
        let stride = (2 * lanes).div_ceil(64) + 1;
        Self { words: Zeroizing::new(vec![0; COLUMNS * stride]), lanes, stride }
    }

    /// Turns one bit over.
    pub(super) fn flip(&mut self, column: usize, lane: usize) {
        for bit in [lane, lane + self.lanes] {
            self.words[column * self.stride + bit / 64] ^= 1 << (bit % 64);
        }
    }

    /// Adds a column, rotated, to a sum.
    fn add(&self, column: usize, shift: usize, sum: &mut [u64]) {
        let words = &self.words[column * self.stride..(column + 1) * self.stride];
        let (skip, bit) = (shift / 64, shift % 64);
        for (at, sum) in sum.iter_mut().enumerate() {
            let low = words[skip + at] >> bit;
            let high = if bit == 0 { 0 } else { words.get(skip + at + 1).map_or(0, |word| word << (64 - bit)) };
            *sum ^= low | high;
        }
    }
}

/// Bits that are filled up row by row, a word at a time.
struct Packed {
    words: Zeroizing<Vec<u64>>,
    room: usize,
    len: usize,
}

impl Packed {
    /// With room for this many bits.
    fn zeros(room: usize) -> Self {
        Self { words: Zeroizing::new(vec![0; room.div_ceil(64)]), room, len: 0 }
    }

    /// Appends the first `count` bits of these words.
    fn append(&mut self, words: &[u64], count: usize) {
        assert!(self.len + count <= self.room, "room for the bits");
        for (index, word) in words.iter().enumerate() {
            let taken = (count - 64 * index).min(64);
            let word = word & (u64::MAX >> (64 - taken));
            let (at, offset) = (self.len / 64, self.len % 64);
            self.words[at] |= word << offset;
            if offset + taken > 64 {
                self.words[at + 1] |= word >> (64 - offset);
            }
            self.len += taken;
        }
    }

    fn finish(self) -> Bits {
        Bits::from_words(self.words.iter().copied(), self.len)
    }
}

/// The rows of each column, columns ascending in degree.
fn base_graph(design: &Design, rng: &mut ChaCha20Rng) -> Vec<Vec<usize>> {
    let mut degrees = vec![0_usize; design.rows];
    let mut columns = Vec::with_capacity(COLUMNS);
    for (degree, count) in &design.columns {
        for index in 0..*count {
            let chosen: Vec<usize> = if *degree == 2 {
                vec![index, index + 1]
            } else {
                let mut rows: Vec<(usize, u32, usize)> =
                    degrees.iter().enumerate().map(|(row, edges)| (*edges, rng.next_u32(), row)).collect();
                rows.sort_unstable();
                rows.into_iter().take(*degree).map(|(_, _, row)| row).collect()
            };
            chosen.iter().for_each(|row| degrees[*row] += 1);
            columns.push(chosen);
        }
    }
    columns
}

/// Edge by edge lifting of a base graph.
struct Lift<'a> {
    lanes: usize,
    base: &'a [Vec<usize>],
    /// For each row the columns and shifts placed so far, and the same for each column.
    by_row: Vec<Vec<(usize, usize)>>,
    by_column: Vec<Vec<(usize, usize)>>,
    /// Which search saw a check, and which a variable.
    seen_checks: Vec<u32>,
    seen_variables: Vec<u32>,
    search: u32,
    /// Checks in the order in which the search reached them.
    reached: Vec<(usize, usize)>,
}

impl<'a> Lift<'a> {
    fn new(rows: usize, lanes: usize, base: &'a [Vec<usize>]) -> Self {
        Self {
            lanes,
            base,
            by_row: vec![Vec::new(); rows],
            by_column: vec![Vec::new(); base.len()],
            seen_checks: vec![0; rows * lanes],
            seen_variables: vec![0; base.len() * lanes],
            search: 0,
            reached: Vec::new(),
        }
    }

    /// For each row its columns and shifts.
    fn run(mut self, rng: &mut ChaCha20Rng) -> Vec<Vec<(usize, usize)>> {
        for (column, rows) in self.base.iter().enumerate() {
            for row in rows {
                let shift = self.choose(column, *row, rng);
                self.by_row[*row].push((column, shift));
                self.by_column[column].push((*row, shift));
            }
        }
        self.by_row
    }

    /// A rotation that closes no short cycle; else the one whose check was reached last.
    fn choose(&mut self, column: usize, row: usize, rng: &mut ChaCha20Rng) -> usize {
        self.explore(column);
        for _ in 0..TRIES {
            let check = below(rng, self.lanes);
            if self.seen_checks[row * self.lanes + check] != self.search {
                return (self.lanes - check) % self.lanes;
            }
        }
        let free = (0..self.lanes).find(|check| self.seen_checks[row * self.lanes + check] != self.search);
        let last = self.reached.iter().rev().find(|(at, _)| *at == row).map(|(_, check)| *check);
        let check = free.or(last).expect("a check was reached or not");
        (self.lanes - check) % self.lanes
    }

    /// Breadth first from lane 0 of a column, until enough variables are seen.
    fn explore(&mut self, column: usize) {
        self.search += 1;
        self.reached.clear();
        self.seen_variables[column * self.lanes] = self.search;
        self.reach_from(column, 0);
        let (mut next, mut variables) = (0, 0);
        while next < self.reached.len() && variables < VARIABLES_MAX && self.reached.len() < self.seen_checks.len() {
            let (row, check) = self.reached[next];
            next += 1;
            for edge in 0..self.by_row[row].len() {
                let (column, shift) = self.by_row[row][edge];
                let lane = (check + shift) % self.lanes;
                let seen = &mut self.seen_variables[column * self.lanes + lane];
                if *seen != self.search {
                    *seen = self.search;
                    variables += 1;
                    self.reach_from(column, lane);
                }
            }
        }
    }

    fn reach_from(&mut self, column: usize, lane: usize) {
        for (row, shift) in &self.by_column[column] {
            let check = (lane + self.lanes - shift) % self.lanes;
            let seen = &mut self.seen_checks[row * self.lanes + check];
            if *seen != self.search {
                *seen = self.search;
                self.reached.push((*row, check));
            }
        }
    }
}

/// A number below `bound`, by multiplication.
pub(super) fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    let product = u64::from(rng.next_u32()) * bound as u64;
    usize::try_from(product >> 32).expect("below the bound")
}

/// A step that visits all of `count` places far from each other.
fn coprime_near_golden(count: usize) -> usize {
    let from = (count * 618 / 1_000).max(1);
    (from..).find(|step| gcd(*step, count) == 1).expect("some number has no divisor in common")
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Nothing up the sleeve: the label that stands in the one list of labels.
const SEED: [u8; 32] = match Domain::LinkCode.label().first_chunk::<32>() {
    Some(label) if Domain::LinkCode.label().len() == 32 => *label,
    _ => panic!("the label is as long as a seed"),
};

/// Codes kept: a link uses one or two sizes and a few neighbouring designs.
const KEPT_MAX: usize = 8;

/// Random rotations tried before all are looked at.
const TRIES: usize = 16;

/// Variables seen from a column before its search ends: the neighbourhood that closes cycles of four, and more where
/// columns are light.
const VARIABLES_MAX: usize = 1_600;
