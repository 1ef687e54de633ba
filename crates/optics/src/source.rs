//! Alice's modulator: basis, bit and intensity of every slot from her secret seed.

use core::fmt;

use types::network::DecoySettings;
use types::quantum::{Basis, Intensity, Preparation, Slot};
use zeroize::Zeroizing;

use crate::emission::Emission;
use crate::prf::Prf;

/// Alice's modulator. Its seed never leaves it other than as light.
///
/// ```
/// use optics::Source;
/// use types::{network::DecoySettings, quantum::Slot};
/// let settings = DecoySettings {
///     key_basis: 0.9,
///     intensities: [0.45, 0.2, 0.0002],
///     probabilities: [0.5, 0.35, 0.15],
///     block_bits: 1_000_000,
/// };
/// let alice = Source::new(&settings, [7; 32]);
/// assert!(alice.prepare(Slot(3)) == alice.prepare(Slot(3)));
/// assert!(!format!("{alice:?}").contains('7'));
/// ```
#[derive(Clone)]
pub struct Source {
    modulator: Modulator,
}

impl Source {
    /// A source with these settings, which come checked from the network file. The seed must be uniform and secret.
    #[must_use]
    pub fn new(settings: &DecoySettings, seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self { modulator: Modulator::new(&seed, settings.key_basis, settings.intensities, settings.probabilities) }
    }

    /// What was prepared in a slot.
    #[must_use]
    #[inline]
    pub fn prepare(&self, slot: Slot) -> Preparation {
        self.modulator.prepare(slot)
    }

    /// What was prepared in each of these slots: several at a time, which is faster than one by one.
    #[must_use]
    pub fn prepare_all(&self, slots: &[Slot]) -> Vec<Preparation> {
        let mut prepared = Vec::with_capacity(slots.len());
        let (groups, rest) = slots.as_chunks::<LANES>();
        for group in groups {
            prepared.extend(self.modulator.prepare_each(&group.map(|slot| slot.0)));
        }
        prepared.extend(rest.iter().map(|slot| self.prepare(*slot)));
        prepared
    }

    /// The light that goes into the fibre.
    #[must_use]
    pub fn emission(&self) -> Emission {
        Emission::of(self.modulator.clone())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source([REDACTED])")
    }
}

/// The function from slot to prepared state, shared by the source and its light.
#[derive(Clone)]
pub(crate) struct Modulator {
    prf: Prf,
    pub(crate) key_basis: f64,
    pub(crate) intensities: [f64; Intensity::COUNT],
    pub(crate) probabilities: [f64; Intensity::COUNT],
    /// A uniform 64-bit number below the first is the brightest, below the second the middle, else the dimmest.
    bounds: [u64; 2],
    /// Index of the dimmest intensity that is sent.
    dimmest: u8,
    /// A uniform 64-bit number below this is the key basis.
    key_bound: u64,
}

impl Modulator {
    pub(crate) fn new(key: &[u8; 32], key_basis: f64, intensities: [f64; 3], probabilities: [f64; 3]) -> Self {
        let [p1, p2, p3] = probabilities;
        Self {
            prf: Prf::new(key),
            key_basis,
            intensities,
            probabilities,
            bounds: [bound(p1), bound(p1 + p2)],
            dimmest: if p3 > 0.0 { 2 } else { 1 },
            key_bound: bound(key_basis),
        }
    }

    pub(crate) fn key(&self) -> Zeroizing<[u8; 32]> {
        self.prf.key()
    }

    #[inline]
    pub(crate) fn prepare(&self, slot: Slot) -> Preparation {
        let block = self.prf.block(slot.0);
        self.state([block[0], block[1], block[2], block[3], block[4]])
    }

    /// The same for several slots, in one pass of vector instructions.
    #[inline]
    pub(crate) fn prepare_each<const N: usize>(&self, slots: &[u64; N]) -> [Preparation; N] {
        let blocks = self.prf.first_words(slots);
        core::array::from_fn(|lane| self.state(core::array::from_fn(|word| blocks[word][lane])))
    }

    /// What the first words of a block of the pseudorandom function say.
    #[inline]
    fn state(&self, block: [u32; 5]) -> Preparation {
        let intensity = u64::from(block[0]) | u64::from(block[1]) << 32;
        let basis = u64::from(block[2]) | u64::from(block[3]) << 32;
        let index = u8::from(intensity >= self.bounds[0]) + u8::from(intensity >= self.bounds[1]);
        Preparation {
            basis: if basis < self.key_bound { Basis::Key } else { Basis::Test },
            bit: block[4] & 1 == 1,
            intensity: Intensity::new(index.min(self.dimmest)).expect("at most 2"),
        }
    }
}

/// Slots that are prepared together.
const LANES: usize = 16;

/// The bound under which a uniform 64-bit number falls with this probability.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn bound(probability: f64) -> u64 {
    (probability * 18_446_744_073_709_551_616.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slots_at_once_are_as_one_by_one() {
        let alice = Source::new(&settings(), [9; 32]);
        let slots: Vec<Slot> = (0..37).map(|i| Slot(i * i * 1_000_003)).collect();
        assert!(alice.prepare_all(&slots) == slots.iter().map(|slot| alice.prepare(*slot)).collect::<Vec<_>>());
    }

    fn settings() -> DecoySettings {
        DecoySettings {
            key_basis: 0.8,
            intensities: [0.4, 0.15, 2e-4],
            probabilities: [0.12, 0.58, 0.30],
            block_bits: 1_000_000,
        }
    }

    #[test]
    fn preparations_have_the_stated_probabilities() {
        const SLOTS: u32 = 400_000;
        let alice = Source::new(&settings(), [3; 32]);
        let mut intensities = [0_u32; 3];
        let (mut key, mut ones, mut key_and_one, mut repeats) = (0_u32, 0_u32, 0_u32, 0_u32);
        let mut last = false;
        for slot in 0..u64::from(SLOTS) {
            let state = alice.prepare(Slot(slot));
            intensities[state.intensity.index()] += 1;
            key += u32::from(state.basis == Basis::Key);
            ones += u32::from(state.bit);
            key_and_one += u32::from(state.bit && state.basis == Basis::Key && state.intensity.index() == 1);
            repeats += u32::from(state.bit == last);
            last = state.bit;
        }
        let near = |count: u32, p: f64| {
            let n = f64::from(SLOTS);
            let sigma = (n * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - n * p).abs() < 4.0 * sigma, "{count} of {n} at {p}");
        };
        near(intensities[0], 0.12);
        near(intensities[1], 0.58);
        near(intensities[2], 0.30);
        near(key, 0.8);
        near(ones, 0.5);
        near(repeats, 0.5);
        near(key_and_one, 0.58 * 0.8 * 0.5);
    }

    #[test]
    fn seeds_differ_and_far_slots_are_reached() {
        let a = Source::new(&settings(), [3; 32]);
        let b = Source::new(&settings(), [4; 32]);
        let differ = (0..64).filter(|i| a.prepare(Slot(u64::MAX - i)) != b.prepare(Slot(u64::MAX - i))).count();
        assert!(differ > 16);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let alice = Source::new(&settings(), [0x5a; 32]);
        assert_eq!(format!("{alice:?} {:?}", alice.emission()), "Source([REDACTED]) Emission([REDACTED])");
    }
}
