//! The types that hold key bits: boxed, wiped on drop, silent in `Debug`, compared in constant time.
//!
//! Reading goes through [`SecretBytes::expose`]; the only way out is [`SecretBytes::into_public`], which says why.
//!
//! ```
//! use crypto::secret::SecretBytes;
//! let key = SecretBytes::from_vec(vec![1, 2, 3]);
//! assert_eq!(format!("{key:?}"), "SecretBytes(3 B, [REDACTED])");
//! assert_eq!(key.expose(|bytes| bytes.len()), 3);
//! ```

use alloc::vec::Vec;
use core::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Secret bytes of any length.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over a vector; its buffer is wiped when this value drops.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies from a slice; wiping the source is the caller's duty.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::from_vec(bytes.to_vec())
    }

    /// `len` fresh random bytes.
    pub fn random(len: usize, rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new(alloc::vec![0; len]);
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a closure read the bytes.
    pub fn expose<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        read(&self.0)
    }

    /// Lets a closure change the bytes in place.
    pub fn expose_mut<R>(&mut self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        change(&mut self.0)
    }

    /// Cuts off the first `len` bytes; the rest stays here. `None`, and nothing changes, if there are fewer.
    #[must_use]
    pub fn split_front(&mut self, len: usize) -> Option<Self> {
        if len > self.0.len() {
            return None;
        }
        let front = Self::copy_of(self.0.get(..len)?);
        let rest = Self::copy_of(self.0.get(len..)?);
        *self = rest;
        Some(front)
    }

    /// A copy of part of the bytes. `None` if the range is not inside.
    #[must_use]
    pub fn part(&self, start: usize, len: usize) -> Option<Self> {
        self.0.get(start..start.checked_add(len)?).map(Self::copy_of)
    }

    /// A second holder of the same bytes. Explicit, so that every copy of a secret is visible in the code.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::copy_of(&self.0)
    }

    /// Gives the bytes up as public; `reason` says why they are no secret any more (or never were).
    #[must_use]
    pub fn into_public(mut self, reason: &'static str) -> Vec<u8> {
        debug_assert!(!reason.is_empty());
        core::mem::take(&mut *self.0)
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} B, [REDACTED])", self.len())
    }
}

/// A 256-bit key.
pub struct Key256(alloc::boxed::Box<[u8; 32]>);

impl Key256 {
    /// Copies a key; wiping the source is the caller's duty.
    #[must_use]
    pub fn copy_of(bytes: &[u8; 32]) -> Self {
        Self(alloc::boxed::Box::new(*bytes))
    }

    /// From secret bytes of length 32.
    #[must_use]
    pub fn from_secret(bytes: &SecretBytes) -> Option<Self> {
        bytes.expose(|bytes| <&[u8; 32]>::try_from(bytes).ok().map(Self::copy_of))
    }

    /// A fresh random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self(alloc::boxed::Box::new([0; 32]));
        rng.fill_bytes(key.0.as_mut_slice());
        key
    }

    /// Lets a closure read the key.
    pub fn expose<R>(&self, read: impl FnOnce(&[u8; 32]) -> R) -> R {
        read(&self.0)
    }

    /// The key as secret bytes.
    #[must_use]
    pub fn to_secret(&self) -> SecretBytes {
        SecretBytes::copy_of(self.0.as_slice())
    }
}

impl Drop for Key256 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Key256 {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Key256 {}

impl fmt::Debug for Key256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key256([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_and_part_stay_inside() {
        let mut bytes = SecretBytes::from_vec(alloc::vec![1, 2, 3, 4]);
        assert!(bytes.split_front(5).is_none());
        assert!(bytes.part(3, 2).is_none());
        assert_eq!(bytes.split_front(1).unwrap(), SecretBytes::copy_of(&[1]));
        assert_eq!(bytes.part(1, 2).unwrap(), SecretBytes::copy_of(&[3, 4]));
        assert_eq!(bytes.into_public("test bytes"), [2, 3, 4]);
    }
}
