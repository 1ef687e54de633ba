//! Change of basis between powers of `x` and the novel basis, and its transposes; only additions.
//!
//! The novel basis has the products of `s_i(x)` over the bits `i` of the index, where `s_i` vanishes on the sums of
//! the first `i` elements of the Cantor basis. There `s_i` for `i` a power of two is `x^(2^i) + x`, and
//! `s_(t + i)(x) = s_i(s_t(x))`, so a polynomial is divided by powers of `y = s_t(x)`, and its coefficients in `x` and
//! the polynomial in `y` are converted in turn (Chen et al. 2017, section 3).
//!
//! Loops are written out: a closure inside an iterator's method would not be compiled for the backend.
//!
//! One level divides blocks of `2 * half` words by `x^half + x^shift`.

/// From powers of `x` to the novel basis.
#[inline(always)]
pub(super) fn to_novel(words: &mut [u64]) {
    forward::<ToNovel>(words);
}

/// The transpose of the way back from the novel basis.
#[inline(always)]
pub(super) fn from_novel_transposed(words: &mut [u64]) {
    forward::<FromNovelTransposed>(words);
}

/// The transpose of [`to_novel`].
#[inline(always)]
pub(super) fn to_novel_transposed(words: &mut [u64]) {
    backward::<ToNovelTransposed>(words);
}

/// What one level does to the halves of a block.
trait Division {
    fn divide(low: &mut [u64], high: &mut [u64], shift: usize);
}

struct ToNovel;

struct FromNovelTransposed;

struct ToNovelTransposed;

impl Division for ToNovel {
    #[inline(always)]
    fn divide(low: &mut [u64], high: &mut [u64], shift: usize) {
        // What the quotient's top adds to the quotient itself, then what the quotient adds to the remainder.
        let kept = high.len() - shift;
        let (bottom, top) = high.split_at_mut(kept);
        add(&mut bottom[..shift], top);
        add(&mut low[shift..], bottom);
    }
}

impl Division for FromNovelTransposed {
    #[inline(always)]
    fn divide(low: &mut [u64], high: &mut [u64], shift: usize) {
        let kept = high.len() - shift;
        let (bottom, top) = high.split_at_mut(kept);
        add(top, &bottom[..shift]);
        add(bottom, &low[shift..]);
    }
}

impl Division for ToNovelTransposed {
    #[inline(always)]
    fn divide(low: &mut [u64], high: &mut [u64], shift: usize) {
        let kept = high.len() - shift;
        let (bottom, top) = high.split_at_mut(kept);
        add(bottom, &low[shift..]);
        add(top, &bottom[..shift]);
    }
}

#[inline(always)]
fn add(to: &mut [u64], from: &[u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

#[inline(always)]
fn forward<D: Division>(words: &mut [u64]) {
    let levels = Levels::new(words.len());
    for level in &levels.levels[..levels.before] {
        level.run::<D>(words);
    }
    for block in words.as_chunks_mut::<INNER>().0 {
        fixed::<D, 128, 8>(block);
        fixed::<D, 64, 4>(block);
        fixed::<D, 32, 2>(block);
        fixed::<D, 16, 1>(block);
        for small in block.as_chunks_mut().0 {
            small_forward::<D>(small);
        }
        fixed::<D, 128, 32>(block);
        fixed::<D, 64, 16>(block);
        fixed::<D, 32, 16>(block);
        fixed::<D, 128, 64>(block);
    }
    for level in &levels.levels[levels.before..levels.count] {
        level.run::<D>(words);
    }
}

#[inline(always)]
fn backward<D: Division>(words: &mut [u64]) {
    let levels = Levels::new(words.len());
    for level in levels.levels[levels.before..levels.count].iter().rev() {
        level.run::<D>(words);
    }
    for block in words.as_chunks_mut::<INNER>().0 {
        fixed::<D, 128, 64>(block);
        fixed::<D, 32, 16>(block);
        fixed::<D, 64, 16>(block);
        fixed::<D, 128, 32>(block);
        for small in block.as_chunks_mut().0 {
            small_backward::<D>(small);
        }
        fixed::<D, 16, 1>(block);
        fixed::<D, 32, 2>(block);
        fixed::<D, 64, 4>(block);
        fixed::<D, 128, 8>(block);
    }
    for level in levels.levels[..levels.before].iter().rev() {
        level.run::<D>(words);
    }
}

/// A level whose lengths the compiler knows.
#[inline(always)]
fn fixed<D: Division, const HALF: usize, const SHIFT: usize>(block: &mut [u64]) {
    for pair in block.chunks_exact_mut(2 * HALF) {
        let (low, high) = pair.split_at_mut(HALF);
        D::divide(low, high, SHIFT);
    }
}

/// Not inlined: the compiler would gather words from many blocks, which takes longer.
#[inline(never)]
fn small_forward<D: Division>(block: &mut [u64; 16]) {
    fixed::<D, 8, 2>(block);
    fixed::<D, 4, 1>(block);
    fixed::<D, 2, 1>(block);
    fixed::<D, 8, 4>(block);
}

#[inline(never)]
fn small_backward<D: Division>(block: &mut [u64; 16]) {
    fixed::<D, 8, 4>(block);
    fixed::<D, 2, 1>(block);
    fixed::<D, 4, 1>(block);
    fixed::<D, 8, 2>(block);
}

/// One level of divisions, in all blocks.
#[derive(Clone, Copy, Debug)]
struct Level {
    half: usize,
    shift: usize,
}

impl Level {
    #[inline(always)]
    fn run<D: Division>(&self, words: &mut [u64]) {
        for block in words.chunks_exact_mut(2 * self.half) {
            let (low, high) = block.split_at_mut(self.half);
            D::divide(low, high, self.shift);
        }
    }
}

/// The levels for one length, in the order of [`to_novel`], without those inside blocks of [`INNER`] words.
struct Levels {
    levels: [Level; LEVELS_MAX],
    /// How many come before the blocks' own levels.
    before: usize,
    count: usize,
}

impl Levels {
    fn new(len: usize) -> Self {
        debug_assert!(len.is_power_of_two(), "a whole transform");
        let mut all = Self { levels: [Level { half: 0, shift: 0 }; LEVELS_MAX], before: 0, count: 0 };
        let log = len.ilog2();
        if log < INNER_LOG {
            all.push(log, 1);
            all.before = all.count;
        } else {
            all.push_divisions(log, INNER_LOG, 1);
            all.before = all.count;
            all.push(log - INNER_LOG, INNER);
        }
        all
    }

    /// All levels for polynomials of `2^log` coefficients of `width` words.
    fn push(&mut self, log: u32, width: usize) {
        if log <= 1 {
            return;
        }
        // The largest power of two below `log`.
        let inner = 1 << (log - 1).ilog2();
        self.push_divisions(log, inner, width);
        self.push(inner, width);
        self.push(log - inner, width << inner);
    }

    /// The levels that divide by powers of `s_inner`.
    fn push_divisions(&mut self, log: u32, inner: u32, width: usize) {
        for power in (0..log - inner).rev() {
            self.levels[self.count] = Level { half: width << (inner + power), shift: width << power };
            self.count += 1;
        }
    }
}

/// Words of a block that is taken through its own levels in one go, and its logarithm, a power of two itself.
const INNER: usize = 1 << INNER_LOG;
const INNER_LOG: u32 = 8;
const _: () = assert!(super::plan::LOG_SIZE_MAX <= 2 * INNER_LOG, "the blocks' own levels come second");
/// More levels than any transform has outside its blocks.
const LEVELS_MAX: usize = 32;
