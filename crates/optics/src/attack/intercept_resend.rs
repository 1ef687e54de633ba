//! Intercept and resend: Eve measures a pulse in a basis of her choice and sends on a pulse of the state that she
//! found. With half of the bases wrong and half of what Bob then finds wrong, the error rate is
//! `e (1 - xi) + xi (1/4 + e/2)`; count rates stay.
//!
//! She learns: her basis and the outcome in it. She counts photons and sends on as many.

use rand_core::Rng;

use super::Share;
use super::eve::random_basis;
use super::notes::Evidence;
use super::pulse::Pulse;
use crate::ziggurat::unit;

/// What Eve finds if she takes the pulse.
pub(super) fn measure(fraction: Share, pulse: Pulse, rng: &mut impl Rng) -> Option<Evidence> {
    if unit(rng.next_u64()) >= fraction.value() {
        return None;
    }
    let basis = random_basis(rng);
    let coin = rng.next_u64() >> 63 == 1;
    Some(Evidence::Outcome { basis, bit: pulse.measure(basis, false, coin) })
}
