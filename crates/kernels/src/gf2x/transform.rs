//! The additive FFT and its transposes over any backend.
//!
//! A transform of `size` elements is laid out in `size / 4` quads, lane `q` of quad `z` is element `q * size / 4 + z`,
//! so that butterflies stay within a lane but for the two levels of largest stride, which are done on the way there (or
//! back).
//! At a level of stride `h` block `b` multiplies by the sum of `CANTOR[1 + i]` over the bits `i` of `b`, independent
//! of the level, since `s_i(CANTOR[i + j]) = CANTOR[j]`.

use super::basis;
use super::engine::{Engine, Quad};
use super::field::{self, CANTOR, Factor, times_x64};

/// What a backend runs in one go.
pub(super) enum Job<'a> {
    /// Coefficients, the first word the lowest, to values at all points. The words are spent.
    Vector { words: &'a mut [u64], out: &'a mut [Quad] },
    /// The transpose of the way from values to coefficients. The words are spent.
    Window { words: &'a mut [u64], out: &'a mut [Quad] },
    /// `sum += a * b`, element by element.
    Accumulate { sum: &'a mut [Quad], a: &'a [Quad], b: &'a [Quad] },
    /// `a *= b`, element by element.
    Multiply { a: &'a mut [Quad], b: &'a [Quad] },
    /// The transpose of `Vector`, to two words for each coefficient. The sum is spent.
    Product { sum: &'a mut [Quad], low: &'a mut [u64], high: &'a mut [u64] },
}

/// The job, inlined into a function compiled for the backend.
#[inline(always)]
pub(super) fn run<E: Engine>(engine: E, job: Job<'_>) {
    match job {
        Job::Vector { words, out } => {
            basis::to_novel(words);
            pack::<E, Forward>(engine, words, out);
            descend::<E, Forward>(engine, out);
        }
        Job::Window { words, out } => {
            basis::from_novel_transposed(words);
            pack::<E, InverseTransposed>(engine, words, out);
            descend::<E, InverseTransposed>(engine, out);
        }
        Job::Accumulate { sum, a, b } => accumulate(engine, sum, a, b),
        Job::Multiply { a, b } => multiply(engine, a, b),
        Job::Product { sum, low, high } => {
            ascend::<E, ForwardTransposed>(engine, sum);
            unpack(engine, sum, low, high);
            basis::to_novel_transposed(low);
            basis::to_novel_transposed(high);
        }
    }
}

/// Words to the low halves of elements, and the two levels of largest stride: four elements of each quarter at once.
#[inline(always)]
fn pack<E: Engine, B: Butterfly>(e: E, words: &[u64], out: &mut [Quad]) {
    let root = root(e);
    let quarter = words.len() / 4;
    let (front, back) = words.split_at(2 * quarter);
    let ((a, b), (c, d)) = (front.split_at(quarter), back.split_at(quarter));
    let words = a.as_chunks().0.iter().zip(b.as_chunks().0).zip(c.as_chunks().0).zip(d.as_chunks().0);
    for (to, (((a, b), c), d)) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        let rows = B::top(e, [e.expand(a), e.expand(b), e.expand(c), e.expand(d)], root);
        let columns = e.transpose(rows);
        for (to, column) in to.iter_mut().zip(columns) {
            e.store(column, to);
        }
    }
}

/// The two levels of largest stride, and elements to words.
#[inline(always)]
fn unpack<E: Engine>(e: E, from: &[Quad], low: &mut [u64], high: &mut [u64]) {
    let root = root(e);
    let quarter = low.len() / 4;
    for (index, columns) in from.as_chunks::<4>().0.iter().enumerate() {
        let [a, b, c, d] = columns;
        let columns = [e.load(a), e.load(b), e.load(c), e.load(d)];
        let rows = ForwardTransposed::top(e, e.transpose(columns), root);
        let mut at = index;
        for v in rows {
            e.compress(v, &mut low.as_chunks_mut().0[at], &mut high.as_chunks_mut().0[at]);
            at += quarter / 4;
        }
    }
}

/// The factor of the second level's second block; the first level's and the first block's are zero.
#[inline(always)]
fn root<E: Engine>(e: E) -> [E::V; 2] {
    [e.splat(CANTOR[1]), e.splat(times_x64(CANTOR[1]))]
}

#[inline(always)]
fn accumulate<E: Engine>(e: E, sum: &mut [Quad], a: &[Quad], b: &[Quad]) {
    for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
        let b = e.load(b);
        let product = e.multiply_add(e.load(sum), e.load(a), [b, e.times_x64(b)]);
        e.store(product, sum);
    }
}

#[inline(always)]
fn multiply<E: Engine>(e: E, a: &mut [Quad], b: &[Quad]) {
    let zero = e.load(&Quad::ZERO);
    for (a, b) in a.iter_mut().zip(b) {
        let b = e.load(b);
        let product = e.multiply_add(zero, e.load(a), [b, e.times_x64(b)]);
        e.store(product, a);
    }
}

/// One kind of transform. A trait and not a closure, so that every step is inlined into the backend's function.
trait Butterfly {
    /// A pair of elements at distance of the stride.
    fn step<E: Engine>(e: E, low: E::V, high: E::V, factor: [E::V; 2]) -> (E::V, E::V);

    /// The levels of largest stride: elements of the four quarters. Their factors are zero but for one.
    fn top<E: Engine>(e: E, rows: [E::V; 4], root: [E::V; 2]) -> [E::V; 4];
}

struct Forward;

struct InverseTransposed;

struct ForwardTransposed;

impl Butterfly for Forward {
    #[inline(always)]
    fn step<E: Engine>(e: E, low: E::V, high: E::V, factor: [E::V; 2]) -> (E::V, E::V) {
        let low = e.multiply_add(low, high, factor);
        (low, e.xor(high, low))
    }

    #[inline(always)]
    fn top<E: Engine>(e: E, [a, b, c, d]: [E::V; 4], root: [E::V; 2]) -> [E::V; 4] {
        let (c, d) = Self::step(e, e.xor(c, a), e.xor(d, b), root);
        [a, e.xor(b, a), c, d]
    }
}

impl Butterfly for InverseTransposed {
    #[inline(always)]
    fn step<E: Engine>(e: E, low: E::V, high: E::V, factor: [E::V; 2]) -> (E::V, E::V) {
        let high = e.multiply_add(high, low, factor);
        (e.xor(low, high), high)
    }

    #[inline(always)]
    fn top<E: Engine>(e: E, [a, b, c, d]: [E::V; 4], root: [E::V; 2]) -> [E::V; 4] {
        let (a, b) = (e.xor(a, c), e.xor(b, d));
        let (c, d) = Self::step(e, c, d, root);
        [e.xor(a, b), b, c, d]
    }
}

impl Butterfly for ForwardTransposed {
    #[inline(always)]
    fn step<E: Engine>(e: E, low: E::V, high: E::V, factor: [E::V; 2]) -> (E::V, E::V) {
        let low = e.xor(low, high);
        (low, e.multiply_add(high, low, factor))
    }

    #[inline(always)]
    fn top<E: Engine>(e: E, [a, b, c, d]: [E::V; 4], root: [E::V; 2]) -> [E::V; 4] {
        let (c, d) = Self::step(e, c, d, root);
        let a = e.xor(a, b);
        [e.xor(a, c), e.xor(b, d), c, d]
    }
}

/// All levels from large strides to small; blocks that fit the first-level cache one after the other.
#[inline(always)]
fn descend<E: Engine, B: Butterfly>(e: E, quads: &mut [Quad]) {
    let total = quads.len();
    let near = total.min(NEAR);
    let mut half = total / 2;
    // Two levels at a time; what is left over is of the largest stride.
    if (total / near).ilog2() % 2 == 1 {
        one_level::<E, B>(e, quads, 0, total, half);
        half /= 2;
    }
    while half >= near {
        two_levels_down::<E, B>(e, quads, 0, total, half);
        half /= 4;
    }
    for (index, block) in quads.chunks_exact_mut(near).enumerate() {
        let mut half = near / 2;
        if near.ilog2() % 2 == 1 {
            one_level::<E, B>(e, block, index * near, total, half);
            half /= 2;
        }
        while half > 0 {
            two_levels_down::<E, B>(e, block, index * near, total, half);
            half /= 4;
        }
    }
}

/// All levels from small strides to large.
#[inline(always)]
fn ascend<E: Engine, B: Butterfly>(e: E, quads: &mut [Quad]) {
    let total = quads.len();
    let near = total.min(NEAR);
    for (index, block) in quads.chunks_exact_mut(near).enumerate() {
        let mut half = 2;
        while half < near {
            two_levels_up::<E, B>(e, block, index * near, total, half);
            half *= 4;
        }
        if near.ilog2() % 2 == 1 {
            one_level::<E, B>(e, block, index * near, total, near / 2);
        }
    }
    let mut half = 2 * near;
    while half < total {
        two_levels_up::<E, B>(e, quads, 0, total, half);
        half *= 4;
    }
    if (total / near).ilog2() % 2 == 1 {
        one_level::<E, B>(e, quads, 0, total, total / 2);
    }
}

/// One level of stride `half` in a part of a transform of `total` quads that begins at quad `first`.
#[inline(always)]
fn one_level<E: Engine, B: Butterfly>(e: E, part: &mut [Quad], first: usize, total: usize, half: usize) {
    let base = LevelFactors::new(e, first, total, half);
    for (index, block) in part.chunks_exact_mut(2 * half).enumerate() {
        let factor = base.of_block(e, index);
        let (low, high) = block.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            let (new_low, new_high) = B::step(e, e.load(low), e.load(high), factor);
            e.store(new_low, low);
            e.store(new_high, high);
        }
    }
}

/// The levels of stride `half` and `half / 2`, in this order.
#[inline(always)]
fn two_levels_down<E: Engine, B: Butterfly>(e: E, part: &mut [Quad], first: usize, total: usize, half: usize) {
    let (outer, inner) = (LevelFactors::new(e, first, total, half), LevelFactors::new(e, first, total, half / 2));
    for (index, block) in part.chunks_exact_mut(2 * half).enumerate() {
        let factor = outer.of_block(e, index);
        let (left, right) = (inner.of_block(e, 2 * index), inner.of_block(e, 2 * index + 1));
        let (front, back) = block.split_at_mut(half);
        let ((a, b), (c, d)) = (front.split_at_mut(half / 2), back.split_at_mut(half / 2));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (va, vc) = B::step(e, e.load(a), e.load(c), factor);
            let (vb, vd) = B::step(e, e.load(b), e.load(d), factor);
            let (va, vb) = B::step(e, va, vb, left);
            let (vc, vd) = B::step(e, vc, vd, right);
            e.store(va, a);
            e.store(vb, b);
            e.store(vc, c);
            e.store(vd, d);
        }
    }
}

/// The levels of stride `half / 2` and `half`, in this order.
#[inline(always)]
fn two_levels_up<E: Engine, B: Butterfly>(e: E, part: &mut [Quad], first: usize, total: usize, half: usize) {
    let (outer, inner) = (LevelFactors::new(e, first, total, half), LevelFactors::new(e, first, total, half / 2));
    for (index, block) in part.chunks_exact_mut(2 * half).enumerate() {
        let factor = outer.of_block(e, index);
        let (left, right) = (inner.of_block(e, 2 * index), inner.of_block(e, 2 * index + 1));
        let (front, back) = block.split_at_mut(half);
        let ((a, b), (c, d)) = (front.split_at_mut(half / 2), back.split_at_mut(half / 2));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (va, vb) = B::step(e, e.load(a), e.load(b), left);
            let (vc, vd) = B::step(e, e.load(c), e.load(d), right);
            let (va, vc) = B::step(e, va, vc, factor);
            let (vb, vd) = B::step(e, vb, vd, factor);
            e.store(va, a);
            e.store(vb, b);
            e.store(vc, c);
            e.store(vd, d);
        }
    }
}

/// The factors of one level, lane by lane, for the blocks of a part.
struct LevelFactors<V>([V; 2]);

impl<V: Copy> LevelFactors<V> {
    /// For stride `half` in a part of a transform of `total` quads that begins at quad `first`.
    #[inline(always)]
    fn new<E: Engine<V = V>>(e: E, first: usize, total: usize, half: usize) -> Self {
        let blocks = total / (2 * half);
        let base = twiddle(first / (2 * half));
        let (mut once, mut shifted) = ([base[0]; 4], [base[1]; 4]);
        for (lane, (once, shifted)) in once.iter_mut().zip(&mut shifted).enumerate() {
            let factor = twiddle(lane * blocks);
            *once ^= factor[0];
            *shifted ^= factor[1];
        }
        Self([e.load(&Quad::of(once)), e.load(&Quad::of(shifted))])
    }

    #[inline(always)]
    fn of_block<E: Engine<V = V>>(&self, e: E, index: usize) -> [V; 2] {
        let of_index = &TWIDDLES[index % TWIDDLES.len()];
        [e.xor(self.0[0], e.splat(of_index[0])), e.xor(self.0[1], e.splat(of_index[1]))]
    }
}

/// [`field::twiddle`] from tables.
#[inline(always)]
fn twiddle(index: usize) -> Factor {
    let (low, high) = (TWIDDLES[index % TWIDDLES.len()], TWIDDLES_HIGH[index / TWIDDLES.len()]);
    [low[0] ^ high[0], low[1] ^ high[1]]
}

/// Quads that are taken through all small strides at once: 16 KiB.
const NEAR: usize = 256;
const _: () = assert!(NEAR / 2 <= TWIDDLES.len() && SIZE_MAX / 4 / NEAR <= TWIDDLES.len());
const _: () = assert!(SIZE_MAX / 2 <= TWIDDLES.len() * TWIDDLES_HIGH.len());
const SIZE_MAX: usize = 1 << super::plan::LOG_SIZE_MAX;

/// Factors of blocks by number, and by the upper part of the number.
static TWIDDLES: [Factor; 128] = twiddles(1);
static TWIDDLES_HIGH: [Factor; 128] = twiddles(128);

const fn twiddles(stride: usize) -> [Factor; 128] {
    let mut all = [[0; 2]; 128];
    let mut index = 0;
    while index < all.len() {
        all[index] = field::twiddle(index * stride);
        index += 1;
    }
    all
}
