//! Key rates from descriptions, without a photon: of a link as it runs, and of the protocols that it could run.
//!
//! - [`expected_rate`]: a link of a network, the closed form of the optics put into the link's finite-key proof.
//! - [`optimise`]: the decoy settings with the highest rate.
//! - [`Protocol`]: every protocol as a type with its sifting rule and key-rate bound, for curves over distance.
//!   One module each: [`asymptotic`], [`single_photon`], [`b92`], [`mdi`], [`memory`], [`long_haul`], [`distilled`].
//! - [`HardwareSet`]: hardware with a name.
//!
//! ```
//! # let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
//! let network = types::network::Network::parse(text).unwrap();
//! for link in network.links().values() {
//!     let point = sim::rate::expected_rate(link, &network.security(), 1.16);
//!     assert!(point.skr.0 > 500.0 && point.qber < 0.04);
//! }
//! ```

pub mod asymptotic;
pub mod b92;
pub mod distilled;
mod hardware;
pub mod long_haul;
pub mod mdi;
pub mod memory;
mod optimum;
mod protocol;
mod search;
pub mod single_photon;
#[cfg(test)]
mod tests;

use link::proof::{KeyLength, Proof, RealCounts, binary_entropy, planned_length};
pub use optics::model::Afterpulses;
use optics::model::Expected;
use types::network::{Coexistence, DecoySettings, Environment, Hardware, Link, Security};
use types::units::{BitsPerSecond, Kilometres};

pub use self::hardware::HardwareSet;
pub use self::optimum::optimise;
pub use self::protocol::{Conditions, CurvePoint, Protocol, UnknownProtocol, usual_settings};
pub use self::search::last_above_zero;

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

/// All that the rate of a decoy-state link depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting<'a> {
    /// Source, fibre and detectors.
    pub hardware: &'a Hardware,
    /// Fibre length.
    pub length: Kilometres,
    /// Classical channels on the same fibre.
    pub coexistence: Option<&'a Coexistence>,
    /// Weather along the line.
    pub environment: Option<&'a Environment>,
    /// Intensities, probabilities, block length.
    pub decoy: &'a DecoySettings,
    /// Which proof bounds the key.
    pub proof: Proof,
    /// Failure probabilities.
    pub security: &'a Security,
    /// What reconciliation discloses, over the Shannon limit.
    pub f_ec: f64,
    /// Where afterpulses count.
    pub afterpulses: Afterpulses,
}

impl<'a> Setting<'a> {
    /// A link of a network.
    #[must_use]
    pub fn of(link: &'a Link, security: &'a Security, f_ec: f64) -> Self {
        Self {
            hardware: &link.hardware,
            length: link.length,
            coexistence: link.coexistence.as_ref(),
            environment: link.environment.as_ref(),
            decoy: &link.decoy,
            proof: link.proof,
            security,
            f_ec,
            afterpulses: Afterpulses::Lumped,
        }
    }

    /// The expected rate.
    #[must_use]
    pub fn rate(&self) -> RatePoint {
        let expected = self.expected(self.decoy);
        let (length, block_s) = self.expected_block(&expected);
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

    /// Expected values with these decoy settings.
    fn expected(&self, decoy: &DecoySettings) -> Expected {
        let link = Link {
            coexistence: self.coexistence.cloned(),
            environment: self.environment.cloned(),
            ..Link::planned(self.hardware.clone(), self.length, decoy.clone())
        };
        Expected::of(&link, decoy, self.afterpulses)
    }

    /// A block of exactly the expected counts, and the seconds that it takes.
    fn expected_block(&self, expected: &Expected) -> (KeyLength, f64) {
        let bits = f64::from(self.decoy.block_bits);
        let block_s = bits / expected.sifted_per_s();
        let in_block = |per_s: [f64; 3]| per_s.map(|n| n * block_s);
        let counts = RealCounts {
            key: in_block(expected.key_per_s),
            test: in_block(expected.test_per_s),
            test_errors: in_block(expected.test_errors_per_s),
            key_errors: Some(in_block(expected.key_errors_per_s)),
        };
        let leak = self.f_ec * bits * binary_entropy(expected.qber());
        (planned_length(self.proof, &counts, leak, self.decoy, self.security), block_s)
    }
}

/// The expected rate of a link whose reconciliation discloses `f_ec` times the Shannon limit, in the model of
/// Lim et al. 2014. It is the cautious figure: that model counts afterpulses as if they were the light's own errors.
#[must_use]
pub fn expected_rate(link: &Link, security: &Security, f_ec: f64) -> RatePoint {
    Setting::of(link, security, f_ec).rate()
}

/// The same with a choice of where afterpulses count. [`Afterpulses::Later`] is what detectors and the photon
/// Monte Carlo do: the dimmest intensity shows such clicks to be background, and the reference links give 5 to
/// 10 % more key.
#[must_use]
pub fn expected_rate_with(link: &Link, security: &Security, f_ec: f64, afterpulses: Afterpulses) -> RatePoint {
    Setting { afterpulses, ..Setting::of(link, security, f_ec) }.rate()
}
