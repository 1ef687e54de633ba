//! The light in the fibre, and its encoding for a fibre that runs in another process.
//!
//! Layout in `docs/formats/emission.md`. A record stands for every pulse that a source will send, so who holds
//! it holds the states, exactly as the fibre does. It goes to the process that simulates nature and to nobody
//! else: neither Bob nor anything of the key layers takes it.

use core::fmt;

use types::codec::{CodecError, Reader};
use types::quantum::Preparation;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::source::Modulator;

/// Bytes of an encoded emission.
pub const EMISSION_LEN: usize = 4 + 1 + 32 + 7 * 8;

/// Light on its way from a source: only a [`Channel`](crate::Channel) can do something with it.
pub struct Emission {
    modulator: Modulator,
}

impl Emission {
    pub(crate) fn of(modulator: Modulator) -> Self {
        Self { modulator }
    }

    /// The light as bytes, for a fibre in another process.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Sized at once: a buffer that grows would leave parts of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(EMISSION_LEN));
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&*self.modulator.key());
        bytes.extend_from_slice(&self.modulator.key_basis.to_bits().to_be_bytes());
        for number in self.modulator.intensities.iter().chain(&self.modulator.probabilities) {
            bytes.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        bytes
    }

    /// The light of these bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Version`] or [`Error::Range`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC {
            return Err(CodecError::Value { field: "magic" }.into());
        }
        let version = r.u8("version")?;
        if version != VERSION {
            return Err(Error::Version { found: version, known: VERSION });
        }
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(r.array("key")?);
        let mut number = |field| r.u64(field).map(f64::from_bits);
        let key_basis = number("key_basis")?;
        let intensities = [number("intensity")?, number("intensity")?, number("intensity")?];
        let probabilities = [number("probability")?, number("probability")?, number("probability")?];
        r.end()?;
        check(key_basis, intensities, probabilities)?;
        Ok(Self::of(Modulator::new(&key, key_basis, intensities, probabilities)))
    }

    /// Mean photon numbers at the source, brightest first.
    pub(crate) fn intensities(&self) -> [f64; 3] {
        self.modulator.intensities
    }

    /// Mean photons of a pulse.
    pub(crate) fn mean_photons(&self) -> f64 {
        self.modulator.intensities.iter().zip(&self.modulator.probabilities).map(|(mu, p)| mu * p).sum()
    }

    /// The states in some slots, as the fibre carries them.
    #[inline]
    pub(crate) fn states<const N: usize>(&self, slots: &[u64; N]) -> [Preparation; N] {
        self.modulator.prepare_each(slots)
    }
}

impl fmt::Debug for Emission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emission([REDACTED])")
    }
}

/// The rules of the network file: two decoys, or one and a third intensity of 0 that is never sent. A comparison with
/// NaN is false and so refuses it.
fn check(key_basis: f64, intensities: [f64; 3], probabilities: [f64; 3]) -> Result<(), Error> {
    let [mu1, mu2, mu3] = intensities;
    let sum: f64 = probabilities.iter().sum();
    let sent = if probabilities[2] == 0.0 { &probabilities[..2] } else { &probabilities[..] };
    let rules = [
        ("key_basis", key_basis > 0.0 && key_basis < 1.0, "between 0 and 1"),
        // Lim et al. 2014, section II.
        (
            "intensities",
            mu1 > mu2 + mu3 && mu2 > mu3 && mu3 >= 0.0 && mu1 <= 2.0 && (mu3 == 0.0 || sent.len() == 3),
            "mu1 > mu2 + mu3, mu2 > mu3 >= 0, mu1 <= 2; mu3 is 0 if never sent",
        ),
        (
            "probabilities",
            sent.iter().all(|p| *p > 0.0) && (sum - 1.0).abs() < 1e-9,
            "all above 0 or the last 0, sum 1",
        ),
    ];
    match rules.into_iter().find(|(_, holds, _)| !holds) {
        Some((field, _, rule)) => Err(Error::Range { field, rule }),
        None => Ok(()),
    }
}

const MAGIC: [u8; 4] = *b"QEMI";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use types::network::DecoySettings;
    use types::quantum::Slot;

    use super::*;
    use crate::Source;

    fn alice() -> Source {
        let settings = DecoySettings {
            key_basis: 0.8,
            intensities: [0.4, 0.15, 2e-4],
            probabilities: [0.12, 0.58, 0.30],
            block_bits: 1_000_000,
        };
        Source::new(&settings, [9; 32])
    }

    fn altered(at: usize, bytes: &[u8]) -> Error {
        let mut wire = alice().emission().to_bytes().to_vec();
        wire[at..at + bytes.len()].copy_from_slice(bytes);
        Emission::from_bytes(&wire).unwrap_err()
    }

    #[test]
    fn light_survives_the_way_to_another_process() {
        let wire = alice().emission().to_bytes();
        assert_eq!(wire.len(), EMISSION_LEN);
        let light = Emission::from_bytes(&wire).unwrap();
        assert_eq!(light.to_bytes(), wire);
        for slot in (0..100).map(|i| Slot(i * 1_000_003)) {
            assert!(light.states(&[slot.0, 5]) == [slot, Slot(5)].map(|slot| alice().prepare(slot)));
        }
    }

    #[test]
    fn light_of_one_decoy_has_two_intensities() {
        let mut settings = DecoySettings {
            key_basis: 0.9,
            intensities: [0.5, 0.15, 0.0],
            probabilities: [0.7, 0.3, 0.0],
            block_bits: 1_000_000,
        };
        let alice = Source::new(&settings, [9; 32]);
        let light = Emission::from_bytes(&alice.emission().to_bytes()).unwrap();
        let states = light.states(&core::array::from_fn::<u64, 512, _>(|at| at as u64));
        let weak = states.iter().filter(|state| state.intensity.index() == 1).count();
        assert!(states.iter().all(|state| state.intensity.index() < 2) && weak > 100 && weak < 210, "{weak}");
        // What is never sent has no intensity.
        settings.intensities[2] = 1e-3;
        let wire = Source::new(&settings, [9; 32]).emission().to_bytes();
        assert!(matches!(Emission::from_bytes(&wire), Err(Error::Range { field: "intensities", .. })));
    }

    #[test]
    fn every_way_to_be_wrong_is_refused() {
        let wire = alice().emission().to_bytes();
        for len in 0..EMISSION_LEN {
            assert!(matches!(Emission::from_bytes(&wire[..len]), Err(Error::Corrupt(CodecError::Short { .. }))));
        }
        let long = [wire.as_slice(), &[0]].concat();
        assert!(matches!(Emission::from_bytes(&long), Err(Error::Corrupt(CodecError::Trailing { left: 1 }))));
        assert!(matches!(altered(0, b"QEMX"), Error::Corrupt(CodecError::Value { field: "magic" })));
        assert!(matches!(altered(4, &[2]), Error::Version { found: 2, known: 1 }));
        let nan = f64::NAN.to_bits().to_be_bytes();
        let one = 1_f64.to_bits().to_be_bytes();
        assert!(matches!(altered(37, &nan), Error::Range { field: "key_basis", .. }));
        assert!(matches!(altered(37, &one), Error::Range { field: "key_basis", .. }));
        for at in [45, 53, 61] {
            assert!(matches!(altered(at, &nan), Error::Range { field: "intensities", .. }));
        }
        assert!(matches!(altered(53, &one), Error::Range { field: "intensities", .. }), "decoy above signal");
        for at in [69, 77, 85] {
            assert!(matches!(altered(at, &nan), Error::Range { field: "probabilities", .. }));
            assert!(matches!(altered(at, &one), Error::Range { field: "probabilities", .. }), "sum is not 1");
        }
    }
}
