//! Parameter estimation: what the counts of a block say, in integers on both sides.

use types::units::BitLen;

use crate::authenticate::BLOCK_COST_BITS;
use crate::end::LinkConfig;
use crate::proof::BlockCounts;
use crate::verify;

/// Bits of secret key that a block gives after `parities` disclosed bits; `None` if it does not pay for its own
/// authentication. There is no threshold on an error rate.
pub(crate) fn secret_bits(config: &LinkConfig, counts: &BlockCounts, parities: u64) -> Option<u64> {
    let length = config.proof.secret_length(counts, leak(config, counts, parities), &config.decoy, &config.security);
    (length.bits > BLOCK_COST_BITS).then_some(length.bits)
}

/// Bits charged for reconciliation: every parity, and what verification discloses beyond what the proof pays for.
pub(crate) fn leak(config: &LinkConfig, counts: &BlockCounts, parities: u64) -> BitLen {
    let bits = usize::try_from(counts.key.iter().sum::<u64>()).unwrap_or(usize::MAX);
    BitLen(parities + verify::excess_bits(bits, config.security.epsilon_correctness))
}

/// Error rate, in errors per million, that reconciliation chooses its block sizes for: that of the last corrected
/// block (errors, bits), unless the test basis of this block contradicts it by more than five sigma.
pub(crate) fn expected_qber_ppm(counts: &BlockCounts, last: Option<(u64, u64)>) -> u32 {
    let bits: u64 = counts.test.iter().sum::<u64>().max(1);
    let errors: u64 = counts.test_errors.iter().sum();
    let ppm = |errors: u64, bits: u64| u128::from(errors) * 1_000_000 / u128::from(bits.max(1));
    let tested = ppm(errors, bits);
    let expected = match last {
        None => tested,
        Some((last_errors, last_bits)) => {
            let (before, now) =
                (u128::from(last_errors) * u128::from(bits) / u128::from(last_bits.max(1)), u128::from(errors));
            // Poisson: five sigma of the expected number of errors, squared; plus a few for small numbers.
            let allowed = 25 * (before + 4);
            if before.abs_diff(now).pow(2) > allowed { tested } else { ppm(last_errors, last_bits) }
        }
    };
    u32::try_from(expected).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_counts_until_the_test_basis_contradicts_it() {
        let counts = |errors| BlockCounts { key: [0; 3], test: [8_000, 1_500, 500], test_errors: [errors, 0, 0] };
        assert_eq!(expected_qber_ppm(&counts(320), None), 32_000);
        assert_eq!(expected_qber_ppm(&counts(320), Some((3_000, 100_000))), 30_000);
        assert_eq!(expected_qber_ppm(&counts(1_100), Some((3_000, 100_000))), 110_000);
        assert_eq!(expected_qber_ppm(&BlockCounts::default(), None), 0);
    }
}
