//! Detector blinding with faked states (Lydersen et al., Nat. Photonics 4, 686 (2010)): bright light takes an
//! avalanche detector out of single-photon counting; then it clicks when a bright pulse passes a threshold. Eve
//! measures Alice's pulse with a receiver like Bob's and sends a bright pulse of what she found. In Bob's other
//! basis the pulse splits over both detectors and stays below the threshold of either, so Bob clicks only in Eve's
//! basis, never twice at once, and never without her.
//!
//! She learns: her basis and the outcome in it, which is Bob's.
//!
//! The light draws a photocurrent. Light that comes in pulses of a microsecond in each millisecond keeps the average
//! current a thousandth of that; only a monitor that looks at every microsecond sees it.

use rand_core::Rng;
use types::quantum::Basis;

use super::BlindingLight;
use super::eve::{Delivery, random_basis};
use super::pulse::Pulse;
use crate::terms::Terms;

/// A bright pulse that makes one detector click in one basis.
pub(crate) struct FakedState {
    pub(crate) basis: Basis,
    pub(crate) bit: bool,
}

/// What Eve sends for a pulse that she detected.
pub(super) fn fake(pulse: Pulse, rng: &mut impl Rng) -> FakedState {
    let basis = random_basis(rng);
    let coin = rng.next_u64() >> 63 == 1;
    FakedState { basis, bit: pulse.measure(basis, false, coin) }
}

/// Light as it arrives. Half of Eve's detections are in a basis that Bob does not have; for his count rate to stay
/// she sits nearer to Alice and detects twice as many, as far as there are so many photons.
pub(super) fn steer(plain: Delivery, compensated: bool, intensities: [f64; 3], terms: &Terms) -> Delivery {
    let transmittance = terms.transmittance() * if compensated { 2.0 } else { 1.0 };
    let light = intensities.map(|mu| transmittance.min(1.0) * mu);
    Delivery { light, single: true, own_line: true, blinded: true, ..plain }
}

/// Largest photocurrent in any microsecond of this time, as a share of the current while the light is on.
pub(crate) fn current_share(light: BlindingLight, from_us: u64, until_us: u64) -> f64 {
    match light {
        BlindingLight::Continuous => 1.0,
        BlindingLight::Pulsed if from_us.div_ceil(PERIOD_US) * PERIOD_US < until_us => 1.0,
        BlindingLight::Pulsed => 0.0,
    }
}

/// One of so many microseconds has light.
const PERIOD_US: u64 = 1_000;
