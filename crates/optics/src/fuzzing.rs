//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use crate::emission::Emission;

/// Whatever decodes encodes to the same bytes; nothing panics.
pub fn emission(bytes: &[u8]) {
    if let Ok(light) = Emission::from_bytes(bytes) {
        assert_eq!(light.to_bytes().as_slice(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::network::DecoySettings;

    use crate::Source;

    proptest! {
        #[test]
        fn emission_of_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            super::emission(&bytes);
        }

        #[test]
        fn emission_with_a_changed_byte(seed: [u8; 32], at in 0..crate::EMISSION_LEN, value: u8) {
            let settings = DecoySettings {
                key_basis: 0.8,
                intensities: [0.4, 0.15, 2e-4],
                probabilities: [0.12, 0.58, 0.30],
                block_bits: 1_000_000,
            };
            let mut wire = Source::new(&settings, seed).emission().to_bytes();
            wire[at] = value;
            super::emission(&wire);
        }
    }
}
