//! The same hash by real FFT over f64: an oracle that shares nothing with the kernel.
//!
//! Entries are 0 or 1, so every sum is an integer of at most the key's length; with transforms up to 2^22 points the
//! rounding error stays below 1e-6, and a sum farther than 1/4 from an integer stops the test.

use realfft::RealFftPlanner;

use super::*;

/// Hashes `key` to `out_len` bits.
pub(super) fn toeplitz_by_fourier(key: &Bits, seed: &Bits, out_len: usize) -> Bits {
    let len = seed.len().next_power_of_two();
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(len), planner.plan_fft_inverse(len));
    let spectrum = |bits: &Bits| {
        let mut values: Vec<f64> = (0..len).map(|i| if i < bits.len() && bits.get(i) { 1.0 } else { 0.0 }).collect();
        let mut out = forward.make_output_vec();
        forward.process(&mut values, &mut out).unwrap();
        out
    };
    // What wraps around falls on coefficients below n - 1, which nobody reads.
    let mut product = spectrum(seed);
    product.iter_mut().zip(spectrum(key)).for_each(|(a, b)| *a *= b);
    product[0].im = 0.0;
    product.last_mut().unwrap().im = 0.0;
    let mut values = inverse.make_output_vec();
    inverse.process(&mut product, &mut values).unwrap();
    values.iter().skip(key.len() - 1).take(out_len).map(|value| odd(value / len as f64)).collect()
}

/// Whether the integer next to `value` is odd.
fn odd(value: f64) -> bool {
    let nearest = value.round();
    assert!((value - nearest).abs() < 0.25, "a sum of bits is close to an integer");
    nearest % 2.0 != 0.0
}
