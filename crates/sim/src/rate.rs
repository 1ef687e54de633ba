//! Key rate of a link from its description: the closed form of the optics put into the finite-key proof.
//!
//! ```
//! # let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
//! let network = types::network::Network::parse(text).unwrap();
//! for link in network.links().values() {
//!     let point = sim::rate::expected_rate(link, &network.security(), 1.16);
//!     assert!(point.skr.0 > 500.0 && point.qber < 0.04);
//! }
//! ```

mod optimum;
#[cfg(test)]
mod tests;

use link::proof::{KeyLength, Proof, RealCounts, binary_entropy};
pub use optics::model::Afterpulses;
use optics::model::Expected;
use types::network::{DecoySettings, Link, Security};
use types::units::BitsPerSecond;

pub use self::optimum::optimise;

/// What a link is expected to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatePoint {
    /// Secret key rate; authentication of the classical channel is not yet taken off.
    pub skr: BitsPerSecond,
    /// Error rate of the key basis.
    pub qber: f64,
    /// Bound on the phase error rate of a block of expected counts.
    pub phase_error: f64,
    /// Clicks of the receiver.
    pub clicks_per_s: f64,
    /// Share of the time in which the detectors are not blanked.
    pub live_fraction: f64,
    /// Sifted key-basis bits.
    pub sifted_per_s: f64,
    /// Seconds until a block is full.
    pub block_s: f64,
}

/// The expected rate of a link whose reconciliation discloses `f_ec` times the Shannon limit, in the model of
/// Lim et al. 2014. It is the cautious figure: that model counts afterpulses as if they were the light's own errors.
#[must_use]
pub fn expected_rate(link: &Link, security: &Security, f_ec: f64) -> RatePoint {
    expected_rate_with(link, security, f_ec, Afterpulses::Lumped)
}

/// The same with a choice of where afterpulses count. [`Afterpulses::Later`] is what detectors and the photon
/// Monte Carlo do: the dimmest intensity shows such clicks to be background, and the reference links give 5 to
/// 10 % more key.
#[must_use]
pub fn expected_rate_with(link: &Link, security: &Security, f_ec: f64, afterpulses: Afterpulses) -> RatePoint {
    let expected = Expected::of(&link.hardware, link.length, &link.decoy, afterpulses);
    let (length, block_s) = expected_block(&expected, &link.decoy, security, f_ec);
    RatePoint {
        skr: BitsPerSecond((libm::floor(length.margin) / block_s).max(0.0)),
        qber: expected.qber(),
        phase_error: length.phase_error,
        clicks_per_s: expected.clicks_per_s,
        live_fraction: expected.live_fraction,
        sifted_per_s: expected.sifted_per_s(),
        block_s,
    }
}

/// A block of exactly the expected counts, and the seconds that it takes.
fn expected_block(expected: &Expected, decoy: &DecoySettings, security: &Security, f_ec: f64) -> (KeyLength, f64) {
    let bits = f64::from(decoy.block_bits);
    let block_s = bits / expected.sifted_per_s();
    let in_block = |per_s: [f64; 3]| per_s.map(|n| n * block_s);
    let counts = RealCounts {
        key: in_block(expected.key_per_s),
        test: in_block(expected.test_per_s),
        test_errors: in_block(expected.test_errors_per_s),
    };
    let leak = f_ec * bits * binary_entropy(expected.qber());
    (Proof::Lim2014.planned_length(&counts, leak, decoy, security), block_s)
}
