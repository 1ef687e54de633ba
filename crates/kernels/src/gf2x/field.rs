//! GF(2^128) in plain integers: the constants of the transform, and the portable backend.
//!
//! Elements are polynomials over GF(2) modulo `x^128 + x^7 + x^2 + x + 1`, bit `i` the coefficient of `x^i`.

/// `x^128` in the field.
pub(super) const REDUCTION: u64 = 0x87;

/// A Cantor basis: `CANTOR[0] = 1` and `CANTOR[i + 1]^2 + CANTOR[i + 1] = CANTOR[i]`. The 2^16 sums are the subfield
/// GF(2^16).
pub(super) const CANTOR: [u128; 16] = [
    0x0000_0000_0000_0000_0000_0000_0000_0001,
    0x295a_c0b1_f473_1af9_676a_ac9f_a4b2_0b09,
    0x8b49_8493_3933_4e30_987a_355c_bf0c_842b,
    0xf210_539f_d8dd_2772_cbc2_6e38_bdbd_6c62,
    0xd3bc_203d_c59b_8569_6614_1a43_7041_312e,
    0x3866_5609_3df3_f038_d44c_32e6_0a17_dee0,
    0x4402_0450_758a_0366_26cb_812e_5dc6_f8a4,
    0x01a6_8209_a682_3702_b0c6_5670_8878_aff8,
    0x64a5_56f2_1ec1_5a4a_1c02_b2ae_09ed_f906,
    0x4095_5c19_c531_ec30_e5b6_3846_995a_737a,
    0xcfd6_717f_7aed_2805_6940_ed26_a1cf_3fc7,
    0xda0b_473d_4404_8f3e_1175_a072_0bb3_9f24,
    0xbeda_12b0_d57a_8543_6e9d_69de_871d_add3,
    0x5577_a229_4b70_fd0d_6cdd_86b1_d52a_c08d,
    0xcef1_99ce_281b_22e2_0149_33a9_ce59_3a8a,
    0x5827_db0d_7c51_0e8a_86e1_853f_b495_d92a,
];

/// A factor and the same times `x^64`: what a multiplication takes of a constant.
pub(super) type Factor = [u128; 2];

/// Number `index` of the sums of the Cantor basis without its 1: the bits of `index` choose from `CANTOR[1..]`.
pub(super) const fn twiddle(index: usize) -> Factor {
    let (mut sum, mut bit) = (0, 0);
    while bit < CANTOR.len() - 1 {
        if index >> bit & 1 == 1 {
            sum ^= CANTOR[bit + 1];
        }
        bit += 1;
    }
    [sum, times_x64(sum)]
}

/// `a * x^64`.
pub(super) const fn times_x64(a: u128) -> u128 {
    clmul(high(a), REDUCTION) ^ (a << 64)
}

/// `a * b`, given `b` and `b * x^64`.
pub(super) const fn multiply(a: u128, b: Factor) -> u128 {
    let outer = clmul(low(a), low(b[0])) ^ clmul(high(a), low(b[1]));
    let middle = clmul(low(a), high(b[0])) ^ clmul(high(a), high(b[1]));
    outer ^ (middle << 64) ^ clmul(high(middle), REDUCTION)
}

/// Product of two polynomials of degree below 64, in time that does not depend on them where the processor's
/// multiplication takes constant time.
///
/// Integer multiplication of numbers in which only every fourth bit may be set: sums of at most 8 ones do not reach
/// the next such bit. The method is that of `ghash_ctmul64` in BearSSL.
pub(super) const fn clmul(a: u64, b: u64) -> u128 {
    clmul_32(a & 0xffff_ffff, b) ^ (clmul_32(a >> 32, b) << 32)
}

const fn clmul_32(a: u64, b: u64) -> u128 {
    const HOLES: u64 = 0x1111_1111_1111_1111;
    const WIDE: u128 = 0x1111_1111_1111_1111_1111_1111_1111_1111;
    let a = [spread(a & HOLES), spread(a & HOLES << 1), spread(a & HOLES << 2), spread(a & HOLES << 3)];
    let b = [spread(b & HOLES), spread(b & HOLES << 1), spread(b & HOLES << 2), spread(b & HOLES << 3)];
    let sum0 = (a[0] * b[0]) ^ (a[1] * b[3]) ^ (a[2] * b[2]) ^ (a[3] * b[1]);
    let sum1 = (a[0] * b[1]) ^ (a[1] * b[0]) ^ (a[2] * b[3]) ^ (a[3] * b[2]);
    let sum2 = (a[0] * b[2]) ^ (a[1] * b[1]) ^ (a[2] * b[0]) ^ (a[3] * b[3]);
    let sum3 = (a[0] * b[3]) ^ (a[1] * b[2]) ^ (a[2] * b[1]) ^ (a[3] * b[0]);
    (sum0 & WIDE) | (sum1 & WIDE << 1) | (sum2 & WIDE << 2) | (sum3 & WIDE << 3)
}

const fn spread(word: u64) -> u128 {
    word as u128
}

const fn high(a: u128) -> u64 {
    (a >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
pub(super) const fn low(a: u128) -> u64 {
    a as u64
}
