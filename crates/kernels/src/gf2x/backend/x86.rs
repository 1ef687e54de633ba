//! Carry-less multiplication of x86-64: PCLMULQDQ on 128-bit registers, VPCLMULQDQ on 512-bit registers.
//!
//! A [`Pclmul`] or [`Vpclmul`] is made by detection alone; that is what every `unsafe` block below rests on.

use core::arch::x86_64::*;

use crate::gf2x::engine::{Engine, Quad};
use crate::gf2x::field::REDUCTION;
use crate::gf2x::transform::{self, Job};

/// Proof that the processor has SSE2 (all have) and PCLMULQDQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pclmul(());

/// Proof that the processor and the system have AVX-512 and VPCLMULQDQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vpclmul(());

impl Pclmul {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("pclmulqdq").then_some(Self(()))
    }

    pub(super) fn run(self, job: Job<'_>) {
        // SAFETY: `self` proves the features.
        unsafe { run_pclmul(self, job) }
    }
}

impl Vpclmul {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vpclmulqdq");
        found.then_some(Self(()))
    }

    pub(super) fn run(self, job: Job<'_>) {
        // SAFETY: `self` proves the features.
        unsafe { run_vpclmul(self, job) }
    }
}

#[target_feature(enable = "pclmulqdq")]
fn run_pclmul(unit: Pclmul, job: Job<'_>) {
    transform::run(unit, job);
}

#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn run_vpclmul(unit: Vpclmul, job: Job<'_>) {
    transform::run(unit, job);
}

impl Engine for Vpclmul {
    type V = __m512i;

    #[inline(always)]
    fn load(self, from: &Quad) -> Self::V {
        // SAFETY: `self` proves AVX-512F; a quad has the size and the alignment of the register.
        unsafe { _mm512_load_si512(core::ptr::from_ref(from).cast()) }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Quad) {
        // SAFETY: `self` proves AVX-512F; a quad has the size and the alignment of the register.
        unsafe { _mm512_store_si512(core::ptr::from_mut(to).cast(), v) }
    }

    #[inline(always)]
    fn splat(self, element: u128) -> Self::V {
        // SAFETY: `self` proves AVX-512F and SSE2; an element is 16 bytes.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(core::ptr::from_ref(&element).cast())) }
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn expand(self, words: &[u64; 4]) -> Self::V {
        // SAFETY: `self` proves AVX-512F; four words are the 32 bytes that are read.
        unsafe {
            let words = _mm512_castsi256_si512(_mm256_loadu_si256(core::ptr::from_ref(words).cast()));
            _mm512_maskz_permutexvar_epi64(0b0101_0101, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0), words)
        }
    }

    #[inline(always)]
    fn compress(self, v: Self::V, low: &mut [u64; 4], high: &mut [u64; 4]) {
        // SAFETY: `self` proves AVX-512F; four words are the 32 bytes that are written.
        unsafe {
            let even = _mm512_permutexvar_epi64(_mm512_set_epi64(0, 0, 0, 0, 6, 4, 2, 0), v);
            let odd = _mm512_permutexvar_epi64(_mm512_set_epi64(0, 0, 0, 0, 7, 5, 3, 1), v);
            _mm256_storeu_si256(core::ptr::from_mut(low).cast(), _mm512_castsi512_si256(even));
            _mm256_storeu_si256(core::ptr::from_mut(high).cast(), _mm512_castsi512_si256(odd));
        }
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [Self::V; 4]) -> [Self::V; 4] {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let (ab01, ab23) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
            let (cd01, cd23) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
            [
                _mm512_shuffle_i64x2::<0x88>(ab01, cd01),
                _mm512_shuffle_i64x2::<0xdd>(ab01, cd01),
                _mm512_shuffle_i64x2::<0x88>(ab23, cd23),
                _mm512_shuffle_i64x2::<0xdd>(ab23, cd23),
            ]
        }
    }

    #[inline(always)]
    fn times_x64(self, v: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX-512F and VPCLMULQDQ.
        unsafe {
            let zero = _mm512_setzero_si512();
            let reduction = _mm512_set1_epi64(i64::from_ne_bytes(REDUCTION.to_ne_bytes()));
            let folded = _mm512_clmulepi64_epi128::<0x01>(v, reduction);
            _mm512_xor_si512(folded, _mm512_unpacklo_epi64(zero, v))
        }
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::V, a: Self::V, b: [Self::V; 2]) -> Self::V {
        // The selector's low digit is the half of the first operand, its high digit that of the second.
        // SAFETY: `self` proves AVX-512F and VPCLMULQDQ.
        unsafe {
            let low_low = _mm512_clmulepi64_epi128::<0x00>(a, b[0]);
            let high_low = _mm512_clmulepi64_epi128::<0x01>(a, b[1]);
            let low_high = _mm512_clmulepi64_epi128::<0x10>(a, b[0]);
            let high_high = _mm512_clmulepi64_epi128::<0x11>(a, b[1]);
            let middle = _mm512_xor_si512(low_high, high_high);
            let reduction = _mm512_set1_epi64(i64::from_ne_bytes(REDUCTION.to_ne_bytes()));
            let folded = _mm512_clmulepi64_epi128::<0x01>(middle, reduction);
            let shifted = _mm512_unpacklo_epi64(_mm512_setzero_si512(), middle);
            // 0x96 is the truth table of a sum of three.
            let outer = _mm512_ternarylogic_epi64::<0x96>(sum, low_low, high_low);
            _mm512_ternarylogic_epi64::<0x96>(outer, folded, shifted)
        }
    }
}

impl Engine for Pclmul {
    type V = [__m128i; 4];

    #[inline(always)]
    fn load(self, from: &Quad) -> Self::V {
        let from: *const __m128i = core::ptr::from_ref(from).cast();
        // SAFETY: every x86-64 has SSE2; a quad is four aligned registers long.
        core::array::from_fn(|lane| unsafe { _mm_load_si128(from.add(lane)) })
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Quad) {
        let to: *mut __m128i = core::ptr::from_mut(to).cast();
        for (lane, v) in v.into_iter().enumerate() {
            // SAFETY: every x86-64 has SSE2; a quad is four aligned registers long.
            unsafe { _mm_store_si128(to.add(lane), v) }
        }
    }

    #[inline(always)]
    fn splat(self, element: u128) -> Self::V {
        // SAFETY: every x86-64 has SSE2; an element is 16 bytes.
        [unsafe { _mm_loadu_si128(core::ptr::from_ref(&element).cast()) }; 4]
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: every x86-64 has SSE2.
        core::array::from_fn(|lane| unsafe { _mm_xor_si128(a[lane], b[lane]) })
    }

    #[inline(always)]
    fn expand(self, words: &[u64; 4]) -> Self::V {
        // SAFETY: every x86-64 has SSE2.
        words.map(|word| unsafe { _mm_set_epi64x(0, i64::from_ne_bytes(word.to_ne_bytes())) })
    }

    #[inline(always)]
    fn compress(self, v: Self::V, low: &mut [u64; 4], high: &mut [u64; 4]) {
        for lane in 0..4 {
            // SAFETY: every x86-64 has SSE2.
            let (even, odd) =
                unsafe { (_mm_cvtsi128_si64(v[lane]), _mm_cvtsi128_si64(_mm_unpackhi_epi64(v[lane], v[lane]))) };
            low[lane] = u64::from_ne_bytes(even.to_ne_bytes());
            high[lane] = u64::from_ne_bytes(odd.to_ne_bytes());
        }
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4] {
        core::array::from_fn(|lane| core::array::from_fn(|row| rows[row][lane]))
    }

    #[inline(always)]
    fn times_x64(self, v: Self::V) -> Self::V {
        // SAFETY: `self` proves PCLMULQDQ, and every x86-64 has SSE2.
        core::array::from_fn(|lane| unsafe {
            let reduction = _mm_set1_epi64x(i64::from_ne_bytes(REDUCTION.to_ne_bytes()));
            let folded = _mm_clmulepi64_si128::<0x01>(v[lane], reduction);
            _mm_xor_si128(folded, _mm_unpacklo_epi64(_mm_setzero_si128(), v[lane]))
        })
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::V, a: Self::V, b: [Self::V; 2]) -> Self::V {
        // SAFETY: `self` proves PCLMULQDQ, and every x86-64 has SSE2.
        core::array::from_fn(|lane| unsafe {
            let low_low = _mm_clmulepi64_si128::<0x00>(a[lane], b[0][lane]);
            let high_low = _mm_clmulepi64_si128::<0x01>(a[lane], b[1][lane]);
            let low_high = _mm_clmulepi64_si128::<0x10>(a[lane], b[0][lane]);
            let high_high = _mm_clmulepi64_si128::<0x11>(a[lane], b[1][lane]);
            let middle = _mm_xor_si128(low_high, high_high);
            let reduction = _mm_set1_epi64x(i64::from_ne_bytes(REDUCTION.to_ne_bytes()));
            let folded = _mm_clmulepi64_si128::<0x01>(middle, reduction);
            let shifted = _mm_unpacklo_epi64(_mm_setzero_si128(), middle);
            let outer = _mm_xor_si128(_mm_xor_si128(low_low, high_low), sum[lane]);
            _mm_xor_si128(outer, _mm_xor_si128(folded, shifted))
        })
    }
}
