//! The vector units that the kernel knows, and which of them this processor has.

use super::engine::Portable;
use super::transform::{self, Job};

/// A way to compute; all give the same bits. A value other than [`Backend::PORTABLE`] exists only where the processor
/// has the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend(Unit);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Pclmul(x86::Pclmul),
    #[cfg(target_arch = "x86_64")]
    Vpclmul(x86::Vpclmul),
    #[cfg(target_arch = "aarch64")]
    Pmull(aarch64::Pmull),
}

impl Backend {
    /// Plain Rust, everywhere.
    pub const PORTABLE: Self = Self(Unit::Portable);

    /// The backends that this processor has, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let units = [
            #[cfg(target_arch = "x86_64")]
            x86::Vpclmul::detect().map(Unit::Vpclmul),
            #[cfg(target_arch = "x86_64")]
            x86::Pclmul::detect().map(Unit::Pclmul),
            #[cfg(target_arch = "aarch64")]
            aarch64::Pmull::detect().map(Unit::Pmull),
            Some(Unit::Portable),
        ];
        units.into_iter().flatten().map(Self)
    }

    /// The fastest that this processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::PORTABLE)
    }

    /// The instructions it rests on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Unit::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Unit::Pclmul(_) => "PCLMULQDQ",
            #[cfg(target_arch = "x86_64")]
            Unit::Vpclmul(_) => "VPCLMULQDQ with AVX-512",
            #[cfg(target_arch = "aarch64")]
            Unit::Pmull(_) => "PMULL",
        }
    }

    pub(super) fn run(self, job: Job<'_>) {
        match self.0 {
            Unit::Portable => transform::run(Portable, job),
            #[cfg(target_arch = "x86_64")]
            Unit::Pclmul(unit) => unit.run(job),
            #[cfg(target_arch = "x86_64")]
            Unit::Vpclmul(unit) => unit.run(job),
            #[cfg(target_arch = "aarch64")]
            Unit::Pmull(unit) => unit.run(job),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod aarch64;
