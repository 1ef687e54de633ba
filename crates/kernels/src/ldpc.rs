//! One layer of belief propagation over quasi-cyclic codes, on 16-bit integers.
//!
//! ```text
//!  totals    column 0: lane 0 .. lanes-1, then HALO lanes that repeat its beginning | column 1 ...
//!  messages  row 0: tile 0: edge 0: lane 0 .. TILE-1 | edge 1 ... | tile 1 ... | row 1 ...
//!  check lane i of an edge with shift s meets lane (i + s) mod lanes of its column
//! ```
//!
//! A value is a log-likelihood ratio in units of 1/341, positive for "no error". The check rule is the exact one
//! of belief propagation, `a # b = min(a, b) + c(a + b) - c(|a - b|)` on magnitudes with `c(x) = ln(1 + exp(-x))`, taken
//! forwards and backwards over the edges of a check. `c` is replaced by `ln 2 (1 - x / 10.57)^8`, which is at most
//! 0.004 off anywhere and costs five integer instructions. Checks of fifty edges need it that good: with the fourth
//! power, 0.02 off, codes for error rates of 1 % lose a tenth of their efficiency.
//!
//! All of it is integer arithmetic in plain Rust, compiled once for the base instruction set and once for each wider
//! one: results are the same bit for bit on every processor.

/// Lanes worked on at a time.
pub const TILE: usize = 64;

/// Lanes that a column of totals has beyond its own, so that every tile is one piece of memory.
pub const HALO: usize = TILE;

/// Most edges of one check.
pub const DEGREE_MAX: usize = 112;

/// Scale of all values: `341 * ln(p0 / p1)`.
pub const UNITS_PER_NAT: i16 = 341;

/// One circulant of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Where its column begins in the totals.
    pub column: usize,
    /// Rotation: below the number of lanes.
    pub shift: usize,
}

/// One row of circulants, or a part of its edges.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The edges that take part.
    pub edges: &'a [Edge],
    /// Where the messages of the row begin.
    pub messages: usize,
    /// Number of the row's edges before the first that takes part.
    pub before: usize,
    /// Number of all edges of the row.
    pub degree: usize,
}

/// What the decoder believes.
#[derive(Clone, Debug, Default)]
pub struct Beliefs {
    /// Lanes in a column.
    pub lanes: usize,
    /// Sum of everything known of each variable; see the module for the layout.
    pub totals: Vec<i16>,
    /// What each check said last.
    pub messages: Vec<i16>,
    scratch: Scratch,
}

type Lanes = [i16; TILE];
type Magnitudes = [u16; TILE];

/// Room for one tile of one check row.
#[derive(Clone, Debug, Default)]
struct Scratch {
    values: Vec<Lanes>,
    forward: Vec<Magnitudes>,
    backward: Vec<Magnitudes>,
}

impl Beliefs {
    /// Everything zero, for this many columns and edges.
    #[must_use]
    pub fn new(lanes: usize, columns: usize, edges: usize) -> Self {
        Self {
            lanes,
            totals: vec![0; columns * (lanes + HALO)],
            messages: vec![0; edges * lanes.next_multiple_of(TILE)],
            scratch: Scratch {
                values: vec![[0; TILE]; DEGREE_MAX],
                backward: vec![[0; TILE]; DEGREE_MAX],
                forward: vec![[0; TILE]; DEGREE_MAX],
            },
        }
    }

    /// Where a column begins in the totals.
    #[must_use]
    pub fn column(&self, column: usize) -> usize {
        column * (self.lanes + HALO)
    }

    /// Makes the halo of a column what its beginning is.
    pub fn repeat(&mut self, column: usize) {
        let start = self.column(column);
        let halo = self.lanes.min(HALO);
        self.totals.copy_within(start..start + halo, start + self.lanes);
    }

    /// Where the messages of a row begin, with this many edges in rows before it.
    #[must_use]
    pub fn messages_of(&self, edges_before: usize) -> usize {
        edges_before * self.lanes.next_multiple_of(TILE)
    }

    /// Updates the checks `from` to before `to` of one row; `odd` is -1 for a lane whose parity is odd, else 0.
    /// Gives the number of checks that the totals did not satisfy before.
    ///
    /// # Panics
    /// If the range, an edge or the number of edges is not within what the beliefs have.
    pub fn update(&mut self, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
        assert!(to <= self.lanes && odd.len() == self.lanes, "lanes inside");
        assert!(!row.edges.is_empty() && row.edges.len() <= DEGREE_MAX, "a check has between 1 and {DEGREE_MAX} edges");
        dispatch(self, row, odd, from, to)
    }
}

/// The widest instructions that the processor has.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "calls behind detection of what they need")]
fn dispatch(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
    if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vl") {
        // SAFETY: the processor has just been found to have both features.
        unsafe { update_avx512(beliefs, row, odd, from, to) }
    } else if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have the feature.
        unsafe { update_avx2(beliefs, row, odd, from, to) }
    } else {
        update(beliefs, row, odd, from, to)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
    update(beliefs, row, odd, from, to)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw,avx512vl")]
fn update_avx512(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
    update(beliefs, row, odd, from, to)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn update_avx2(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
    update(beliefs, row, odd, from, to)
}

#[inline(always)]
fn update(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], from: usize, to: usize) -> usize {
    let mut unsatisfied = 0;
    let mut at = from;
    while at < to {
        let len = (TILE - at % TILE).min(to - at);
        unsatisfied += if len == TILE {
            update_tile::<true>(beliefs, row, odd, at, TILE)
        } else {
            update_tile::<false>(beliefs, row, odd, at, len)
        };
        at += len;
    }
    unsatisfied
}

/// One tile: reads what the variables believe without this check, combines, writes back.
#[inline(always)]
fn update_tile<const WHOLE: bool>(beliefs: &mut Beliefs, row: Row<'_>, odd: &[i16], at: usize, len: usize) -> usize {
    let Beliefs { lanes, totals, messages, scratch } = beliefs;
    let edges = row.edges;
    let degree = edges.len();
    let start = row.messages + (at / TILE * row.degree + row.before) * TILE + at % TILE;
    let ours = &mut messages[start..];
    let values = &mut scratch.values[..degree];
    let forward = &mut scratch.forward[..degree];
    let backward = &mut scratch.backward[..degree];
    let mut violated = read_lanes::<WHOLE>(odd, at, len);
    let mut sign = violated;
    for ((index, edge), value) in edges.iter().enumerate().zip(&mut *values) {
        let place = edge.column + rotate(at, edge.shift, *lanes);
        // The next tile's totals: no processor guesses as many streams as a check has edges.
        prefetch(totals, place + TILE);
        let total = read_lanes::<WHOLE>(totals, place, len);
        let message = read_lanes::<WHOLE>(ours, index * TILE, len);
        *value = each(&total, &message, i16::saturating_sub);
        violated = each(&violated, &total, |a, b| a ^ b);
        sign = each(&sign, value, |a, b| a ^ b);
    }
    // Both ways at once: one chain alone would wait for itself.
    let (mut before, mut after) = ([SURE; TILE], [SURE; TILE]);
    for index in 0..degree {
        let last = degree - 1 - index;
        forward[index] = before;
        backward[last] = after;
        before = each(&before, &values[index], |running, value| combine(running, value.unsigned_abs()));
        after = each(&after, &values[last], |running, value| combine(running, value.unsigned_abs()));
    }
    for (index, edge) in edges.iter().enumerate() {
        let size = each(&forward[index], &backward[index], combine);
        let value = &values[index];
        // All ones if the other edges' signs and the parity say "error".
        let negative = each(&sign, value, |a, b| (a ^ b) >> 15);
        let message =
            each(&size, &negative, |size, negative| (size.min(SURE).cast_signed() ^ negative).wrapping_sub(negative));
        let total = each(value, &message, i16::saturating_add);
        write_lanes::<WHOLE>(ours, index * TILE, len, &message);
        write_rotated::<WHOLE>(totals, edge.column, rotate(at, edge.shift, *lanes), *lanes, len, &total);
    }
    count_negative(&violated, len)
}

/// How many of the first `len` lanes are negative.
#[inline(always)]
fn count_negative(lanes: &Lanes, len: usize) -> usize {
    let mut count = 0_u16;
    for (index, lane) in lanes.iter().enumerate() {
        count = count.wrapping_add(u16::from(*lane < 0 && index < len));
    }
    usize::from(count)
}

/// Asks for the lanes of a tile ahead of their use; a place beyond the end is left alone.
#[inline(always)]
fn prefetch(totals: &[i16], place: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in [0, 32, 63] {
        if let Some(lane) = totals.get(place + line) {
            // SAFETY: the instruction is part of the base set; it only hints, and the address is inside the slice.
            #[expect(unsafe_code, reason = "there is no safe prefetch")]
            unsafe {
                use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(lane).cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (totals, place);
}

/// Lane by lane.
#[inline(always)]
fn each<A: Copy, B: Copy, C: Copy + Default>(a: &[A; TILE], b: &[B; TILE], f: impl Fn(A, B) -> C) -> [C; TILE] {
    let mut out = [C::default(); TILE];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b);
    }
    out
}

/// `a # b` on magnitudes. The two corrections are subtracted before they are cut to units.
#[inline(always)]
fn combine(a: u16, b: u16) -> u16 {
    let loss = correction(a.abs_diff(b)).saturating_sub(correction(a.saturating_add(b)));
    a.min(b).saturating_sub(loss >> 8)
}

/// `ln(1 + exp(-x))` in units of 1/(256 * 341) for `x` in units of 1/341.
#[inline(always)]
fn correction(x: u16) -> u16 {
    square(square(square(3605_u16.saturating_sub(x).wrapping_mul(18))))
}

/// The upper half of the square.
#[inline(always)]
fn square(x: u16) -> u16 {
    (u32::from(x).wrapping_mul(u32::from(x)) >> 16) as u16
}

#[inline(always)]
fn rotate(at: usize, shift: usize, lanes: usize) -> usize {
    let sum = at + shift;
    if sum >= lanes { sum - lanes } else { sum }
}

#[inline(always)]
fn read_lanes<const WHOLE: bool>(from: &[i16], start: usize, len: usize) -> Lanes {
    if WHOLE { whole(from, start) } else { read_some(from, start, len) }
}

#[inline(always)]
fn whole(from: &[i16], start: usize) -> Lanes {
    let mut lanes = [0; TILE];
    lanes.copy_from_slice(&from[start..start + TILE]);
    lanes
}

#[cold]
#[inline(never)]
fn read_some(from: &[i16], start: usize, len: usize) -> Lanes {
    let mut lanes = [0; TILE];
    lanes[..len].copy_from_slice(&from[start..start + len]);
    lanes
}

#[inline(always)]
fn write_lanes<const WHOLE: bool>(to: &mut [i16], start: usize, len: usize, lanes: &Lanes) {
    if WHOLE {
        to[start..start + TILE].copy_from_slice(lanes);
    } else {
        write_some(to, start, len, lanes);
    }
}

#[cold]
#[inline(never)]
fn write_some(to: &mut [i16], start: usize, len: usize, lanes: &Lanes) {
    to[start..start + len].copy_from_slice(&lanes[..len]);
}

/// Writes to a column at `start`, and keeps its halo what its beginning is.
#[inline(always)]
fn write_rotated<const WHOLE: bool>(
    totals: &mut [i16],
    column: usize,
    start: usize,
    lanes: usize,
    len: usize,
    new: &Lanes,
) {
    write_lanes::<WHOLE>(totals, column + start, len, new);
    let end = start + len;
    if lanes < HALO {
        repeat_narrow(totals, column, start, lanes, end);
    } else if end > lanes {
        // What went into the halo belongs to the beginning.
        let beyond = i16::try_from(end - lanes).unwrap_or(i16::MAX);
        let (halo, front) = (whole(totals, column + lanes), whole(totals, column));
        // All ones where the lane was written beyond the end.
        let moved = NUMBERS.map(|lane| lane.wrapping_sub(beyond) >> 15);
        let halo = each(&halo, &moved, |lane, moved| lane & moved);
        let front = each(&front, &moved, |lane, moved| lane & !moved);
        let front = each(&halo, &front, |a, b| a | b);
        write_lanes::<true>(totals, column, TILE, &front);
        write_lanes::<true>(totals, column + lanes, TILE, &front);
    } else if start < HALO {
        let front = whole(totals, column);
        write_lanes::<true>(totals, column + lanes, TILE, &front);
    }
}

/// 0, 1, 2, ...
const NUMBERS: Lanes = {
    let mut numbers = [0; TILE];
    let mut next = 1;
    while next < TILE {
        numbers[next] = numbers[next - 1] + 1;
        next += 1;
    }
    numbers
};

/// The same for a column narrower than a tile.
#[cold]
#[inline(never)]
fn repeat_narrow(totals: &mut [i16], column: usize, start: usize, lanes: usize, end: usize) {
    if end > lanes {
        totals.copy_within(column + lanes..column + end, column);
    }
    totals.copy_within(column + start..column + end.min(lanes), column + lanes + start);
}

/// Most that a check may say: 20 nats.
const SURE: u16 = 6_820;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAT: f64 = UNITS_PER_NAT as f64;

    #[test]
    fn check_rule_is_that_of_belief_propagation() {
        for a in (0..8_000_u16).step_by(61) {
            for b in (0..8_000_u16).step_by(53) {
                let (x, y) = (f64::from(a) / NAT, f64::from(b) / NAT);
                let exact = 2.0 * ((x / 2.0).tanh() * (y / 2.0).tanh()).min(1.0 - 1e-16).atanh();
                let ours = f64::from(combine(a, b)) / NAT;
                assert!((ours - exact).abs() < 0.012, "{x} # {y} = {exact}, not {ours}");
            }
        }
        assert_eq!(combine(0, 5_000), 0);
    }

    /// Three variables in one check, lanes apart: what is said to each is what the other two believe.
    #[test]
    fn one_check_by_hand() {
        let mut beliefs = Beliefs::new(8, 3, 3);
        let edges: Vec<Edge> =
            [0, 3, 5].iter().enumerate().map(|(c, shift)| Edge { column: beliefs.column(c), shift: *shift }).collect();
        for (column, value) in [(0, 1_000), (1, 2_000), (2, -500)] {
            let start = beliefs.column(column);
            beliefs.totals[start..start + 8].fill(value);
            beliefs.repeat(column);
        }
        let row = Row { edges: &edges, messages: 0, before: 0, degree: 3 };
        let mut odd = [0; 8];
        odd[2] = -1;
        // One negative belief: the even checks are not satisfied, the odd one is.
        assert_eq!(beliefs.update(row, &odd, 0, 8), 7);
        let said = |a, b| i16::try_from(combine(a, b)).unwrap();
        for lane in 0..8 {
            let sign = if lane == 2 { -1 } else { 1 };
            let total = |column: usize, shift: usize| beliefs.totals[beliefs.column(column) + (lane + shift) % 8];
            assert_eq!(total(0, 0), 1_000 - sign * said(2_000, 500));
            assert_eq!(total(1, 3), 2_000 - sign * said(1_000, 500));
            assert_eq!(total(2, 5), -500 + sign * said(1_000, 2_000));
        }
        // The last word of a check is taken back before it speaks again.
        let before = beliefs.clone();
        beliefs.update(row, &odd, 0, 8);
        assert_eq!(beliefs.totals, before.totals);
        assert_eq!(beliefs.messages, before.messages);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The widest instructions of this processor, one check lane at a time in portable code, and halos.
        #[test]
        fn all_ways_agree(lanes in 1_usize..200, degree in 1_usize..12, seed in any::<u64>(), from in 0_usize..200, to in 0_usize..200) {
            let (from, to) = (from.min(lanes), to.min(lanes));
            let mut state = seed | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                i16::from_le_bytes([state.to_le_bytes()[2], state.to_le_bytes()[3]])
            };
            let mut fast = Beliefs::new(lanes, degree, degree);
            fast.totals.iter_mut().for_each(|total| *total = next());
            fast.messages.iter_mut().for_each(|message| *message = next() / 5);
            (0..degree).for_each(|column| fast.repeat(column));
            let edges: Vec<Edge> = (0..degree).map(|column| Edge { column: fast.column(column), shift: usize::from(next().unsigned_abs()) % lanes }).collect();
            let odd: Vec<i16> = (0..lanes).map(|_| next() >> 15).collect();
            let row = Row { edges: &edges, messages: 0, before: 0, degree };
            let (mut plain, mut slow) = (fast.clone(), fast.clone());
            let count = if from < to { fast.update(row, &odd, from, to) } else { 0 };
            prop_assert_eq!(count, update(&mut plain, row, &odd, from, to));
            let one_by_one: usize = (from..to).map(|lane| update(&mut slow, row, &odd, lane, lane + 1)).sum();
            prop_assert_eq!(count, one_by_one);
            for other in [&plain, &slow] {
                prop_assert_eq!(&fast.totals, &other.totals);
                prop_assert_eq!(&fast.messages, &other.messages);
            }
            for column in 0..degree {
                let start = fast.column(column);
                let halo = lanes.min(HALO);
                prop_assert_eq!(&fast.totals[start..start + halo], &fast.totals[start + lanes..start + lanes + halo]);
            }
        }
    }
}
