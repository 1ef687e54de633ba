//! What may be done to sifted keys before reconciliation when one-way post-processing gives no key: two-way advantage
//! distillation, or noise that Alice adds. Off unless the network file enables it; both ends must agree.
//!
//! **Advantage distillation** (Maurer 1993; Gottesman and Lo 2003; Li et al., Commun. Phys. 5:53, 2022). The key is shuffled
//! by a public seed that Alice draws once it is fixed, and cut into groups of *b* bits. Alice tells, for each group, which of its bits differ from the first: that is her group
//! XOR a random bit repeated *b* times, up to the value of the random bit. Bob keeps a group if the same of his bits
//! differ. Both go on with the first bits of the kept groups; an error survives only where all *b* bits are wrong.
//!
//! **Noisy pre-processing** (Renner, Gisin, Kraus, PRA 72 012332, 2005). Alice flips each of her bits with a known
//! probability by private randomness. It costs Bob more correction, and the adversary even more.
//!
//! What key remains is computed by `proof`; both computations are asymptotic in this step and say so in the name of
//! the proof in the block's record.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng as _, SeedableRng as _};
use types::codec::{CodecError, Reader, Writer};

use crate::bits::Bits;
use crate::error::Misbehaviour;
use crate::proof::distillation::REPETITION_MAX;
use crate::proof::preprocessing::FLIP_PPM_MAX;

/// What is done to the sifted key of a block before reconciliation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: one-way post-processing.
    #[default]
    OneWay,
    /// Alice flips this share of her bits, in parts per million.
    NoisyPreprocessing {
        /// At most half of them.
        flip_ppm: u32,
    },
    /// Groups of this many bits become one or none.
    AdvantageDistillation {
        /// 2 to [`REPETITION_MAX`].
        group: u32,
    },
}

impl Mode {
    pub(crate) fn write(self, w: &mut Writer) {
        let (number, parameter) = match self {
            Self::OneWay => (0, 0),
            Self::NoisyPreprocessing { flip_ppm } => (1, flip_ppm),
            Self::AdvantageDistillation { group } => (2, group),
        };
        w.u8(number).u32(parameter);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        match (r.u8("mode")?, r.u32("parameter of the mode")?) {
            (0, 0) => Ok(Self::OneWay),
            (1, flip_ppm @ 1..=FLIP_PPM_MAX) => Ok(Self::NoisyPreprocessing { flip_ppm }),
            (2, group @ 2..=REPETITION_MAX) => Ok(Self::AdvantageDistillation { group }),
            _ => Err(CodecError::Value { field: "mode" }),
        }
    }
}

/// The key in a public random order: groups must not follow the order in which light came, which an adversary may have
/// had a hand in.
pub(crate) fn shuffled(key: &Bits, seed: [u8; 32]) -> Bits {
    let mut rng = ChaCha20Rng::from_seed(seed);
    rng.set_stream(SHUFFLE_STREAM);
    let mut order: Vec<u32> = (0..).take(key.len()).collect();
    for last in (1..order.len()).rev() {
        let bound = last as u64 + 1;
        // 32 random bits for at most 10^7 places: no place is favoured by more than 1 in 400.
        let other = (u64::from(rng.next_u32()) * bound) >> 32;
        order.swap(last, usize::try_from(other).expect("below a length"));
    }
    order.into_iter().map(|at| key.get(usize::try_from(at).expect("32 bits fit a usize"))).collect()
}

/// Alice: which bits of each whole group differ from its first.
pub(crate) fn differences(key: &Bits, group: usize) -> Bits {
    let groups = key.len() / group;
    let mut out = Bits::with_capacity(groups * (group - 1));
    for first in (0..groups * group).step_by(group) {
        (1..group).for_each(|at| out.push(key.get(first) != key.get(first + at)));
    }
    out
}

/// Bob: the groups whose differences are the same as Alice's.
///
/// # Errors
/// If Alice told of another number of groups.
pub(crate) fn agreeing(key: &Bits, group: usize, theirs: &Bits) -> Result<Bits, Misbehaviour> {
    let ours = differences(key, group);
    if ours.len() != theirs.len() {
        return Err(Misbehaviour::Contradiction { field: "number of differences" });
    }
    let agrees = |at: usize| (at * (group - 1)..(at + 1) * (group - 1)).all(|bit| ours.get(bit) == theirs.get(bit));
    Ok((0..key.len() / group).map(agrees).collect())
}

/// The first bits of the groups that are kept.
///
/// # Errors
/// If the other end speaks of another number of groups.
pub(crate) fn first_bits(key: &Bits, group: usize, kept: &Bits) -> Result<Bits, Misbehaviour> {
    if kept.len() != key.len() / group {
        return Err(Misbehaviour::Contradiction { field: "number of groups" });
    }
    Ok((0..kept.len()).filter(|at| kept.get(*at)).map(|at| key.get(at * group)).collect())
}

/// Alice: flips each bit with a probability of `flip_ppm` in a million.
pub(crate) fn add_noise(key: &mut Bits, flip_ppm: u32, rng: &mut impl CryptoRng) {
    let bound = (u64::from(flip_ppm) << 32) / 1_000_000;
    for at in 0..key.len() {
        if u64::from(rng.next_u32()) < bound {
            key.flip(at);
        }
    }
}

/// Keeps these numbers apart from those of reconciliation under the same seed.
const SHUFFLE_STREAM: u64 = u64::from_be_bytes(*b"distil\0\0");

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

    use super::*;

    fn pair(n: usize, qber: f64, seed: u64) -> (Bits, Bits) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let alice: Bits = (0..n).map(|_| rng.next_u32() & 1 == 1).collect();
        let bound = (qber * 4_294_967_296.0) as u64;
        let bob = (0..n).map(|at| alice.get(at) ^ (u64::from(rng.next_u32()) < bound)).collect();
        (alice, bob)
    }

    fn errors(a: &Bits, b: &Bits) -> usize {
        (0..a.len()).filter(|at| a.get(*at) != b.get(*at)).count()
    }

    /// E^b/(E^b + (1-E)^b): at 11.4 % 1.63 % for pairs and 0.21 % for groups of three.
    #[test]
    fn errors_survive_only_in_whole_groups() {
        for (group, expected, share) in [(2, 0.0163, 0.798), (3, 0.0021, 0.697)] {
            let (alice, bob) = pair(600_001, 0.114, group as u64);
            let kept = agreeing(&bob, group, &differences(&alice, group)).unwrap();
            let (a, b) = (first_bits(&alice, group, &kept).unwrap(), first_bits(&bob, group, &kept).unwrap());
            let rate = errors(&a, &b) as f64 / a.len() as f64;
            assert!((rate / expected - 1.0).abs() < 0.2, "{group}: {rate}");
            assert!((a.len() as f64 / kept.len() as f64 - share).abs() < 0.005, "{group}");
        }
    }

    #[test]
    fn noise_adds_up() {
        let (mut alice, bob) = pair(400_000, 0.05, 3);
        add_noise(&mut alice, 100_000, &mut ChaCha20Rng::seed_from_u64(9));
        let rate = errors(&alice, &bob) as f64 / 400_000.0;
        assert!((rate - (0.05 * 0.9 + 0.95 * 0.1)).abs() < 0.002, "{rate}");
    }

    #[test]
    fn the_order_is_a_permutation_of_the_seed() {
        let (key, _) = pair(10_000, 0.0, 7);
        let ones = |bits: &Bits| bits.words().iter().map(|word| word.count_ones()).sum::<u32>();
        let (a, b) = (shuffled(&key, [1; 32]), shuffled(&key, [2; 32]));
        assert!(a != b && a != key && a == shuffled(&key, [1; 32]));
        assert_eq!((ones(&a), ones(&b)), (ones(&key), ones(&key)));
        let mark: Bits = (0..1_000).map(|at| at == 0).collect();
        let places: std::collections::BTreeSet<_> =
            (0..200_u8).filter_map(|seed| (0..1_000).find(|at| shuffled(&mark, [seed; 32]).get(*at))).collect();
        assert!(places.len() > 150, "the first bit goes anywhere: {}", places.len());
    }

    #[test]
    fn other_numbers_of_groups_are_refused() {
        let (alice, bob) = pair(100, 0.0, 1);
        let said = differences(&alice, 3);
        assert_eq!(said.len(), 66);
        assert!(agreeing(&bob, 2, &said).is_err());
        assert!(first_bits(&bob, 3, &agreeing(&bob, 3, &said).unwrap()).is_ok());
        assert!(first_bits(&bob, 4, &Bits::zeros(24)).is_err());
    }
}
