//! Denial of service: a cut fibre, or so much light that nothing else counts. Eve learns nothing.

use super::eve::Delivery;
use crate::terms::Terms;

/// No light.
pub(super) fn cut(plain: Delivery) -> Delivery {
    Delivery { light: [0.0; 3], ..plain }
}

/// Unpolarised light besides Alice's: half of it goes to each detector.
pub(super) fn flood(plain: Delivery, photons_per_gate: f64, terms: &Terms) -> Delivery {
    let each = photons_per_gate * terms.efficiency / 2.0;
    Delivery { flood: terms.relative.map(|efficiency| each * efficiency), ..plain }
}
