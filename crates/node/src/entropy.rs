//! The operating system's randomness, for the cores that are handed theirs.

use std::convert::Infallible;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use crypto::rand_core::{TryCryptoRng, TryRng};

/// A generator that asks AWS-LC, which asks the operating system. Without entropy the process stops.
pub struct OsRng(SystemRandom);

/// The generator.
#[must_use]
pub fn os_rng() -> OsRng {
    OsRng(SystemRandom::new())
}

impl TryRng for OsRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out).expect("a process without entropy must not make keys");
        Ok(())
    }
}

impl TryCryptoRng for OsRng {}
