//! Eve: what can be done to a link's light, one file per attacker.
//!
//! Eve is an actor of her own between the source and the receiver. What she learns of a pulse is what physics lets
//! her learn: she holds a `Pulse`, which answers a measurement in a basis of her choice and nothing
//! else, or the number of its photons, which says nothing of its state. Her chances come from a generator of her
//! own. What she knows of the slots that Bob announces she writes down as a [`Note`], for whoever wants to see what an
//! attack is worth. Bob's end sees none of this, only its detections and the watchdogs of his receiver.
//!
//! | attack | what she does | what shows it |
//! |---|---|---|
//! | [`InterceptResend`](Attack::InterceptResend) | measures pulses and sends on what she found | error rate |
//! | [`PhotonNumberSplitting`](Attack::PhotonNumberSplitting) | keeps a photon of each pulse that has two | ratios of the intensities' count rates |
//! | [`Blinding`](Attack::Blinding) | makes the detectors classical and steers them | photocurrent, no double clicks |
//! | [`TimeShift`](Attack::TimeShift) | moves pulses to a side of the gate | places of arrival, balance of bits |
//! | [`TrojanLight`](Attack::TrojanLight) | shines into the transmitter and reads the echo | incoming power |
//! | [`Cut`](Attack::Cut), [`Flood`](Attack::Flood) | no light, too much light | count rate, error rate |
//!
//! An attack is read from TOML or JSON, or from a short form:
//!
//! ```
//! use optics::Attack;
//! let long: Attack = toml::from_str("kind = \"intercept-resend\"\nfraction = 0.5").unwrap();
//! assert_eq!(long, "intercept-resend:0.5".parse().unwrap());
//! assert_eq!(long.to_string(), "intercept-resend:0.5");
//! let error = "intercept-resend:2".parse::<Attack>().unwrap_err();
//! assert_eq!(error.to_string(), "fraction is 2, must be 0 to 1");
//! ```
//!
//! Eve's own apparatus is perfect: she measures without error or loss, stores light for ever and reads every echo.
//!
//! Not provided: unambiguous state discrimination (an attack on two-state protocols), tampering with the classical
//! channel (the link's authentication is tested against it elsewhere), light that destroys or ages detectors.

mod blinding;
mod denial;
mod eve;
mod intercept_resend;
mod notes;
mod photon_number;
mod pulse;
mod spelling;
mod time_shift;
mod within;

use serde::{Deserialize, Serialize};

pub(crate) use self::blinding::current_share;
pub(crate) use self::eve::{Delivery, Eve, Incoming};
pub use self::notes::Note;
pub(crate) use self::pulse::Pulse;
pub use self::spelling::AttackError;
pub use self::within::Within;

/// A probability.
pub type Share = Within<0, 1>;

/// What Eve does to a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Attack {
    /// Measures this share of the pulses in a random basis and sends on what she found.
    InterceptResend {
        /// Share of the pulses.
        #[serde(default = "all")]
        fraction: Share,
    },
    /// Stops pulses of one photon, keeps one photon of the others and sends one on through a line without loss, so
    /// often that the brightest pulses arrive as before, or always if that is too rarely.
    PhotonNumberSplitting {},
    /// Blinds the detectors with bright light and makes them click as she wants where Bob has her basis.
    Blinding {
        /// How the bright light comes.
        #[serde(default)]
        light: BlindingLight,
        /// Whether she measures twice as many pulses as Bob did, so that his count rate stays.
        #[serde(default)]
        compensated: bool,
        /// Photocurrent that the bright light draws while it is on, in microampere.
        #[serde(default = "blinding_current")]
        photocurrent_ua: Within<0, 1_000_000>,
    },
    /// Moves pulses in the gate to where one detector is better than the other.
    TimeShift {
        /// How far, in picoseconds; late is positive.
        shift_ps: Within<-100_000, 100_000>,
        /// Share of the pulses that she moves the other way.
        #[serde(default = "none")]
        opposite: Share,
        /// Efficiency of the detector for bit 1 over that for bit 0 at the place where she moves pulses to, and its
        /// inverse at the opposite place. She knows it from a receiver of the same make.
        #[serde(default = "alike")]
        efficiency_ratio: Within<0, 100>,
    },
    /// Shines into the transmitter and reads its settings from the echo.
    TrojanLight {
        /// Power at the transmitter in nanowatt.
        #[serde(default = "trojan_power")]
        incoming_nw: Within<0, 1_000_000_000>,
    },
    /// No light passes.
    Cut {},
    /// Light of her own over the pulses.
    Flood {
        /// Her photons per gate at the receiver.
        #[serde(default = "flood_light")]
        photons_per_gate: Within<0, 100>,
    },
}

/// How blinding light comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlindingLight {
    /// Without pause.
    #[default]
    Continuous,
    /// A microsecond in every thousand: the average current looks innocent.
    Pulsed,
}

fn all() -> Share {
    Within::literal::<1>()
}

fn none() -> Share {
    Within::literal::<0>()
}

fn blinding_current() -> Within<0, 1_000_000> {
    Within::literal::<50>()
}

fn alike() -> Within<0, 100> {
    Within::literal::<1>()
}

fn trojan_power() -> Within<0, 1_000_000_000> {
    Within::literal::<1_000>()
}

fn flood_light() -> Within<0, 100> {
    Within::literal::<1>()
}
