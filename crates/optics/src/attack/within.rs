//! A number that is known to lie in a range.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::AttackError;

/// A number from `MIN` to `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Within<const MIN: i32, const MAX: i32>(f64);

impl<const MIN: i32, const MAX: i32> Within<MIN, MAX> {
    /// The number, if it is in the range.
    ///
    /// # Errors
    /// [`AttackError::Range`], which NaN gives too.
    pub fn new(value: f64) -> Result<Self, AttackError> {
        if (f64::from(MIN)..=f64::from(MAX)).contains(&value) {
            return Ok(Self(value));
        }
        Err(AttackError::Range { field: "value", value, min: MIN, max: MAX })
    }

    /// The plain number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }

    /// A number in the range, checked when compiled.
    pub(super) fn literal<const VALUE: i32>() -> Self {
        const { assert!(MIN <= VALUE && VALUE <= MAX) };
        Self(f64::from(VALUE))
    }
}

impl<const MIN: i32, const MAX: i32> TryFrom<f64> for Within<MIN, MAX> {
    type Error = AttackError;

    fn try_from(value: f64) -> Result<Self, AttackError> {
        Self::new(value)
    }
}

impl<const MIN: i32, const MAX: i32> From<Within<MIN, MAX>> for f64 {
    fn from(number: Within<MIN, MAX>) -> Self {
        number.0
    }
}

impl<const MIN: i32, const MAX: i32> fmt::Display for Within<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
