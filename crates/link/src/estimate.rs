//! Parameter estimation: what the counts of a block say, in integers on both sides.

use types::network::{BeyondOneWay, Decoys};
use types::quantum::Intensity;
use types::units::BitLen;

use crate::authenticate::BLOCK_COST_BITS;
use crate::distil::Mode;
use crate::end::LinkConfig;
use crate::proof::{BlockCounts, KeyLength, binary_entropy, distillation, preprocessing, secret_length};
use crate::verify;

/// What reconciliation works on: the sifted key, or what is left of it after distillation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distilled {
    pub(crate) mode: Mode,
    /// Bits to reconcile.
    pub(crate) bits: u64,
}

/// Bits of secret key that a block gives after `parities` disclosed bits; `None` if it does not pay for its own
/// authentication. There is no threshold on an error rate.
pub(crate) fn secret_bits(config: &LinkConfig, counts: &BlockCounts, from: Distilled, parities: u64) -> Option<u64> {
    let length = length(config, counts, from, leak(config, from.bits, parities));
    (length.bits > BLOCK_COST_BITS).then_some(length.bits)
}

fn length(config: &LinkConfig, counts: &BlockCounts, from: Distilled, leak: BitLen) -> KeyLength {
    let LinkConfig { proof, decoy, security, .. } = config;
    match from.mode {
        Mode::OneWay => secret_length(*proof, counts, leak, decoy, security),
        Mode::NoisyPreprocessing { flip_ppm } => {
            preprocessing::secret_length(counts, *proof, decoy, security, flip_ppm, leak)
        }
        Mode::AdvantageDistillation { group } => {
            distillation::secret_length(counts, *proof, decoy, security, group, from.bits, leak)
        }
    }
}

/// How a full block goes on; `None` if no way gives key. Beyond one-way only what the link enables, and only when
/// one-way would give nothing.
pub(crate) fn choose_mode(config: &LinkConfig, counts: &BlockCounts) -> Option<Mode> {
    let LinkConfig { proof, decoy, security, .. } = config;
    let beyond = || match config.beyond_one_way {
        BeyondOneWay::Off => None,
        BeyondOneWay::NoisyPreprocessing => preprocessing::plan(counts, *proof, decoy, security, LEAK_EXPECTED)
            .filter(|plan| plan.expected_bits > BLOCK_COST_BITS && plan.flip_ppm > 0)
            .map(|plan| Mode::NoisyPreprocessing { flip_ppm: plan.flip_ppm }),
        BeyondOneWay::AdvantageDistillation => distillation::plan(counts, *proof, decoy, security, LEAK_EXPECTED)
            .filter(|plan| plan.expected_bits > BLOCK_COST_BITS)
            .map(|plan| Mode::AdvantageDistillation { group: plan.b }),
    };
    if promises_key(config, counts) {
        return Some(Mode::OneWay);
    }
    // A block that would give nothing even if reconciliation were free is not worth its disclosures.
    beyond().or_else(|| one_way_gives_key(config, counts, 0).then_some(Mode::OneWay))
}

/// Whether one-way post-processing should give key, before it is done.
pub(crate) fn promises_key(config: &LinkConfig, counts: &BlockCounts) -> bool {
    one_way_gives_key(config, counts, expected_parities(counts))
}

fn one_way_gives_key(config: &LinkConfig, counts: &BlockCounts, parities: u64) -> bool {
    // Errors of the key basis are not known yet: as if there were none, which is the most that could come out.
    let at_best = BlockCounts { key_errors: wants_key_errors(config).then_some([0; Intensity::COUNT]), ..*counts };
    let one_way = Distilled { mode: Mode::OneWay, bits: sifted(counts) };
    secret_bits(config, &at_best, one_way, parities).is_some()
}

/// Whether the proof asks for the errors of the key basis, which Bob tells once they are corrected.
pub(crate) fn wants_key_errors(config: &LinkConfig) -> bool {
    config.proof.decoys() == Decoys::One
}

/// What reconciliation of the sifted key will disclose if the key basis is like the test basis.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn expected_parities(counts: &BlockCounts) -> u64 {
    let real = |ppm: u128| f64::from(u32::try_from(ppm).unwrap_or(u32::MAX)) / 1e6;
    let qber = real(sifted_qber_ppm(counts, None)).min(0.5);
    let bits = f64::from(u32::try_from(sifted(counts)).unwrap_or(u32::MAX));
    libm::ceil(LEAK_EXPECTED * bits * binary_entropy(qber)) as u64
}

/// Bits charged for reconciliation: every parity, and what verification discloses beyond what the proof pays for.
pub(crate) fn leak(config: &LinkConfig, key_bits: u64, parities: u64) -> BitLen {
    let bits = usize::try_from(key_bits).unwrap_or(usize::MAX);
    BitLen(parities + verify::excess_bits(bits, config.security.epsilon_correctness))
}

/// Error rate, in errors per million, that reconciliation chooses its block sizes for: that of the last corrected
/// block (errors, bits), unless the test basis of this block contradicts it by more than five sigma; with what the
/// mode makes of it.
pub(crate) fn expected_qber_ppm(counts: &BlockCounts, last: Option<(u64, u64)>, mode: Mode) -> u32 {
    let sifted = sifted_qber_ppm(counts, last);
    let million = 1_000_000_u128;
    let (e, rest) = (sifted, million - sifted.min(million));
    let expected = match mode {
        Mode::OneWay => e,
        Mode::NoisyPreprocessing { flip_ppm } => {
            let flip = u128::from(flip_ppm);
            (e * (million - flip) + rest * flip) / million
        }
        Mode::AdvantageDistillation { group } => {
            // E^b / (E^b + (1 - E)^b): by the odds, in 64 binary places.
            let odds = (0..group).fold(1_u128 << 64, |odds, _| odds / rest.max(1) * e);
            million * (odds >> 20) / ((odds >> 20) + (1 << 44))
        }
    };
    u32::try_from(expected).unwrap_or(u32::MAX)
}

fn sifted_qber_ppm(counts: &BlockCounts, last: Option<(u64, u64)>) -> u128 {
    let bits: u64 = counts.test.iter().sum::<u64>().max(1);
    let errors: u64 = counts.test_errors.iter().sum();
    let ppm = |errors: u64, bits: u64| u128::from(errors) * 1_000_000 / u128::from(bits.max(1));
    let tested = ppm(errors, bits);
    match last {
        None => tested,
        Some((last_errors, last_bits)) => {
            let (before, now) =
                (u128::from(last_errors) * u128::from(bits) / u128::from(last_bits.max(1)), u128::from(errors));
            // Poisson: five sigma of the expected number of errors, squared; plus a few for small numbers.
            let allowed = 25 * (before + 4);
            if before.abs_diff(now).pow(2) > allowed { tested } else { ppm(last_errors, last_bits) }
        }
    }
}

/// Disclosed bits over the Shannon limit that the choice of a mode reckons with.
const LEAK_EXPECTED: f64 = 1.1;

/// Sifted key-basis bits.
pub(crate) fn sifted(counts: &BlockCounts) -> u64 {
    counts.key.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_counts_until_the_test_basis_contradicts_it() {
        let counts = |errors| BlockCounts {
            key: [0; 3],
            test: [8_000, 1_500, 500],
            test_errors: [errors, 0, 0],
            key_errors: None,
        };
        let expected = |errors, last| expected_qber_ppm(&counts(errors), last, Mode::OneWay);
        assert_eq!(expected(320, None), 32_000);
        assert_eq!(expected(320, Some((3_000, 100_000))), 30_000);
        assert_eq!(expected(1_100, Some((3_000, 100_000))), 110_000);
        assert_eq!(expected_qber_ppm(&BlockCounts::default(), None, Mode::OneWay), 0);
    }

    /// At 11.4 %: pairs keep 1.63 % of errors, groups of three 0.21 %; a tenth of noise makes 19.1 %.
    #[test]
    fn modes_change_the_error_rate() {
        let counts = BlockCounts { key: [0; 3], test: [10_000, 0, 0], test_errors: [1_140, 0, 0], key_errors: None };
        let expected = |mode| f64::from(expected_qber_ppm(&counts, None, mode)) / 1e6;
        assert!((expected(Mode::AdvantageDistillation { group: 2 }) - 0.0163).abs() < 1e-4);
        assert!((expected(Mode::AdvantageDistillation { group: 3 }) - 0.0021).abs() < 1e-4);
        assert!((expected(Mode::NoisyPreprocessing { flip_ppm: 100_000 }) - 0.1912).abs() < 1e-6);
    }
}
