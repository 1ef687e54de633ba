//! Carry-less multiplication of 64-bit Arm: PMULL on 64-bit halves.
//!
//! A [`Pmull`] is made by detection alone; that is what every `unsafe` block below rests on.

use core::arch::aarch64::*;

use crate::gf2x::engine::{Engine, Quad};
use crate::gf2x::field::REDUCTION;
use crate::gf2x::transform::{self, Job};

/// Proof that the processor has NEON and PMULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pmull(());

impl Pmull {
    pub(super) fn detect() -> Option<Self> {
        let found = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("aes");
        found.then_some(Self(()))
    }

    pub(super) fn run(self, job: Job<'_>) {
        // SAFETY: `self` proves the features.
        unsafe { run_pmull(self, job) }
    }
}

#[target_feature(enable = "neon,aes")]
fn run_pmull(unit: Pmull, job: Job<'_>) {
    transform::run(unit, job);
}

/// Product of half `A` of `a` and half `B` of `b`.
#[inline(always)]
fn product<const A: i32, const B: i32>(_unit: Pmull, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    // SAFETY: the unit proves NEON and PMULL.
    unsafe { vreinterpretq_u64_p128(vmull_p64(vgetq_lane_u64::<A>(a), vgetq_lane_u64::<B>(b))) }
}

/// The low half moved to the high half.
#[inline(always)]
fn shifted(_unit: Pmull, v: uint64x2_t) -> uint64x2_t {
    // SAFETY: the unit proves NEON.
    unsafe { vzip1q_u64(vdupq_n_u64(0), v) }
}

#[inline(always)]
fn sum(_unit: Pmull, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    // SAFETY: the unit proves NEON.
    unsafe { veorq_u64(a, b) }
}

#[inline(always)]
fn both(_unit: Pmull, word: u64) -> uint64x2_t {
    // SAFETY: the unit proves NEON.
    unsafe { vdupq_n_u64(word) }
}

impl Engine for Pmull {
    type V = [uint64x2_t; 4];

    #[inline(always)]
    fn load(self, from: &Quad) -> Self::V {
        let from: *const u64 = core::ptr::from_ref(from).cast();
        // SAFETY: `self` proves NEON; a quad is four registers long.
        core::array::from_fn(|lane| unsafe { vld1q_u64(from.add(2 * lane)) })
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Quad) {
        let to: *mut u64 = core::ptr::from_mut(to).cast();
        for (lane, v) in v.into_iter().enumerate() {
            // SAFETY: `self` proves NEON; a quad is four registers long.
            unsafe { vst1q_u64(to.add(2 * lane), v) }
        }
    }

    #[inline(always)]
    fn splat(self, element: u128) -> Self::V {
        // SAFETY: `self` proves NEON.
        [unsafe { vreinterpretq_u64_p128(element) }; 4]
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        core::array::from_fn(|lane| sum(self, a[lane], b[lane]))
    }

    #[inline(always)]
    fn expand(self, words: &[u64; 4]) -> Self::V {
        // SAFETY: `self` proves NEON.
        words.map(|word| unsafe { vsetq_lane_u64::<0>(word, vdupq_n_u64(0)) })
    }

    #[inline(always)]
    fn compress(self, v: Self::V, low: &mut [u64; 4], high: &mut [u64; 4]) {
        for lane in 0..4 {
            // SAFETY: `self` proves NEON.
            (low[lane], high[lane]) = unsafe { (vgetq_lane_u64::<0>(v[lane]), vgetq_lane_u64::<1>(v[lane])) };
        }
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4] {
        core::array::from_fn(|lane| core::array::from_fn(|row| rows[row][lane]))
    }

    #[inline(always)]
    fn times_x64(self, v: Self::V) -> Self::V {
        core::array::from_fn(|lane| {
            let folded = product::<1, 0>(self, v[lane], both(self, REDUCTION));
            sum(self, folded, shifted(self, v[lane]))
        })
    }

    #[inline(always)]
    fn multiply_add(self, addend: Self::V, a: Self::V, b: [Self::V; 2]) -> Self::V {
        core::array::from_fn(|lane| {
            let (a, b0, b1) = (a[lane], b[0][lane], b[1][lane]);
            let outer = sum(self, product::<0, 0>(self, a, b0), product::<1, 0>(self, a, b1));
            let middle = sum(self, product::<0, 1>(self, a, b0), product::<1, 1>(self, a, b1));
            let folded = product::<1, 0>(self, middle, both(self, REDUCTION));
            sum(self, sum(self, outer, addend[lane]), sum(self, folded, shifted(self, middle)))
        })
    }
}
