//! The protocols as types: each with its sifting rule and its key rate for hardware and distance.

use core::fmt;
use core::str::FromStr;

use link::proof::Proof;
use optics::model::Afterpulses;
use types::network::{DecoySettings, Decoys, Hardware, Security};
use types::units::{BitsPerSecond, Kilometres};

use super::asymptotic::{DecoyBound, Line};
use super::long_haul::{PhaseMatching, plob};
use super::mdi::Relay;
use super::memory::Memories;
use super::{Setting, b92, distilled, optimise, single_photon};

/// A key distribution protocol with its bound on the key rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    /// Decoy-state BB84 with blocks of finite length: what a link runs.
    DecoyBb84(Proof),
    /// Decoy-state BB84 with endless blocks.
    DecoyBb84Asymptotic(DecoyBound),
    /// BB84 with a source of single photons and finite blocks.
    SinglePhotonBb84,
    /// B92 with single photons.
    B92,
    /// MDI-QKD with decoys.
    MdiDecoy,
    /// MDI-QKD with quantum memories at the relay.
    MdiMemory,
    /// Phase-matching QKD.
    PhaseMatching,
    /// Not a protocol: the most that any can give over one span without a repeater.
    Plob,
    /// Decoy-state BB84 with advantage distillation, endless blocks.
    AdvantageDistillation,
}

/// What a curve is computed for.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Source, fibre and detectors.
    pub hardware: Hardware,
    /// Failure probabilities of finite blocks.
    pub security: Security,
    /// What reconciliation discloses, over the Shannon limit.
    pub f_ec: f64,
    /// Sifted key-basis bits in a finite block.
    pub block_bits: u32,
    /// Decoy settings of finite blocks; without them usual ones. Ignored for a proof with another number of decoys.
    pub decoy: Option<DecoySettings>,
    /// Whether intensities, their probabilities and bases are chosen anew at each distance.
    pub optimise: bool,
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Length of the fibre.
    pub length: Kilometres,
    /// Secret bits per pulse, dead time included; 0 if there is no key.
    pub bits_per_pulse: f64,
    /// The same per second.
    pub skr: BitsPerSecond,
    /// Error rate of the sifted bits, where the protocol has one.
    pub qber: Option<f64>,
}

impl Protocol {
    /// All protocols of this build.
    pub const ALL: [Self; 14] = [
        Self::DecoyBb84(Proof::Lim2014),
        Self::DecoyBb84(Proof::Rusca2018),
        Self::DecoyBb84(Proof::Wiesemann2026),
        Self::DecoyBb84Asymptotic(DecoyBound::Infinite),
        Self::DecoyBb84Asymptotic(DecoyBound::VacuumWeak { nu: WEAK }),
        Self::DecoyBb84Asymptotic(DecoyBound::OneDecoy { nu: WEAK }),
        Self::DecoyBb84Asymptotic(DecoyBound::NoDecoy),
        Self::SinglePhotonBb84,
        Self::B92,
        Self::MdiDecoy,
        Self::MdiMemory,
        Self::PhaseMatching,
        Self::AdvantageDistillation,
        Self::Plob,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DecoyBb84(Proof::Rusca2018) => "bb84-rusca2018",
            Self::DecoyBb84(Proof::Wiesemann2026) => "bb84-wiesemann2026",
            Self::DecoyBb84(_) => "bb84-lim2014",
            Self::DecoyBb84Asymptotic(DecoyBound::Infinite) => "bb84-asymptotic",
            Self::DecoyBb84Asymptotic(DecoyBound::VacuumWeak { .. }) => "bb84-vacuum-weak",
            Self::DecoyBb84Asymptotic(DecoyBound::OneDecoy { .. }) => "bb84-one-decoy",
            Self::DecoyBb84Asymptotic(DecoyBound::NoDecoy) => "bb84-no-decoy",
            Self::SinglePhotonBb84 => "bb84-single-photon",
            Self::B92 => "b92",
            Self::MdiDecoy => "mdi",
            Self::MdiMemory => "mdi-memory",
            Self::PhaseMatching => "phase-matching",
            Self::Plob => "plob",
            Self::AdvantageDistillation => "bb84-distilled",
        }
    }

    /// What it is, in one line, with the paper of its bound.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::DecoyBb84(Proof::Rusca2018) => "BB84, one decoy, finite blocks (Rusca et al. 2018)",
            Self::DecoyBb84(Proof::Wiesemann2026) => "BB84, one decoy, finite blocks (Wiesemann et al. 2026)",
            Self::DecoyBb84(_) => "BB84, two decoys, finite blocks (Lim et al. 2014)",
            Self::DecoyBb84Asymptotic(DecoyBound::Infinite) => "BB84, endless decoys and blocks (Ma et al. 2005)",
            Self::DecoyBb84Asymptotic(DecoyBound::VacuumWeak { .. }) => "BB84, vacuum and weak decoy (Ma et al. 2005)",
            Self::DecoyBb84Asymptotic(DecoyBound::OneDecoy { .. }) => "BB84, one weak decoy (Ma et al. 2005)",
            Self::DecoyBb84Asymptotic(DecoyBound::NoDecoy) => "BB84 without decoys (Gottesman et al. 2004)",
            Self::SinglePhotonBb84 => "BB84, single photons, finite blocks (Tomamichel et al. 2012)",
            Self::B92 => "B92, single photons (Matsumoto 2013)",
            Self::MdiDecoy => "MDI-QKD with decoys (Lo, Curty, Qi 2012)",
            Self::MdiMemory => "MDI-QKD with quantum memories (Panayi et al. 2014)",
            Self::PhaseMatching => "phase-matching QKD (Ma, Zeng, Zhou 2018)",
            Self::Plob => "limit of one span (Pirandola et al. 2017)",
            Self::AdvantageDistillation => "BB84 with advantage distillation, asymptotic (Li et al. 2022)",
        }
    }

    /// Which detections become sifted bits.
    #[must_use]
    pub fn sifting(self) -> &'static str {
        match self {
            Self::DecoyBb84(_) | Self::SinglePhotonBb84 => {
                "both ends in the key basis; bits of the test basis are disclosed"
            }
            Self::DecoyBb84Asymptotic(_) => "both ends in the same of two equally likely bases",
            Self::B92 => "Bob's result rules out one of Alice's two states",
            Self::MdiDecoy => "both ends in Z and the relay announces a Bell state",
            Self::MdiMemory => "both memories loaded in the same basis and the relay announces a Bell state",
            Self::PhaseMatching => "one detector of the relay clicks and both phases lie in the same slice",
            Self::Plob => "none",
            Self::AdvantageDistillation => "as BB84, then one bit of each repetition block in which all agree",
        }
    }

    /// The protocol at a distance.
    #[must_use]
    pub fn rate(self, conditions: &Conditions, length: Kilometres) -> CurvePoint {
        let hardware = &conditions.hardware;
        let line = Line::of(hardware, length);
        let f_ec = conditions.f_ec;
        let live = |bits: f64, clicks: f64| bits * line.live(clicks);
        let (bits_per_pulse, qber) = match self {
            Self::DecoyBb84(proof) => return finite(conditions, length, proof),
            Self::MdiMemory => return memory(conditions, length),
            Self::Plob => (plob(hardware, length), None),
            Self::DecoyBb84Asymptotic(bound) => {
                let usual = line.rate(SIGNAL, f_ec, bound);
                let best = conditions.optimise.then(|| line.best(f_ec, bound).1);
                // Where no intensity gives key, the best one means nothing: it is no light at all.
                let point = best.filter(|best| best.bits_per_pulse > 0.0).unwrap_or(usual);
                (live(point.bits_per_pulse, point.gain), Some(point.qber))
            }
            Self::AdvantageDistillation => {
                let point = distilled::best(&line, REPETITION_MAX, f_ec);
                (live(point.bits_per_pulse, line.gain(point.mu)), Some(point.qber))
            }
            Self::SinglePhotonBb84 => {
                let (clicks, qber) = line.single_photons();
                let n = f64::from(conditions.block_bits);
                let bits = single_photon::best(clicks, qber, n, f_ec, &conditions.security).1;
                (live(bits, clicks), Some(qber))
            }
            Self::B92 => {
                let (clicks, qber) = line.single_photons();
                let point = b92::rate(clicks.min(1.0), (2.0 * qber).min(1.0), f_ec);
                (live(point.bits_per_pulse, clicks), Some(point.qber))
            }
            Self::MdiDecoy => {
                let relay = Relay::half_way(hardware, length);
                let usual = (MDI_SIGNAL, relay.rate([MDI_SIGNAL, MDI_SIGNAL], f_ec));
                let best = conditions.optimise.then(|| relay.best(f_ec));
                let (mu, point) = best.filter(|(_, best)| best.bits_per_pulse > 0.0).unwrap_or(usual);
                (point.bits_per_pulse * relay.live([mu, mu]), Some(point.e_z))
            }
            Self::PhaseMatching => {
                let point = PhaseMatching::half_way(hardware, length).best(f_ec).1;
                (live(point.bits_per_pulse, point.gain), Some(point.qber))
            }
        };
        let bits_per_pulse = bits_per_pulse.max(0.0);
        CurvePoint { length, bits_per_pulse, skr: BitsPerSecond(bits_per_pulse * hardware.clock_hz), qber }
    }
}

/// Finite blocks: the settings given or the best, in the model of the link's own planning.
fn finite(conditions: &Conditions, length: Kilometres, proof: Proof) -> CurvePoint {
    let given = conditions.decoy.as_ref().filter(|decoy| decoy.decoys() == proof.decoys());
    let decoy = given.cloned().unwrap_or_else(|| usual_settings(proof.decoys()));
    let decoy = DecoySettings { block_bits: conditions.block_bits, ..decoy };
    let setting = Setting {
        hardware: &conditions.hardware,
        length,
        coexistence: None,
        environment: None,
        decoy: &decoy,
        proof,
        security: &conditions.security,
        f_ec: conditions.f_ec,
        afterpulses: Afterpulses::Lumped,
    };
    let best;
    let setting = if conditions.optimise {
        best = optimise(&setting);
        Setting { decoy: &best, ..setting }
    } else {
        setting
    };
    let point = setting.rate();
    CurvePoint {
        length,
        bits_per_pulse: point.skr.0 / conditions.hardware.clock_hz,
        skr: point.skr,
        qber: Some(point.qber),
    }
}

/// Memories attempt at their own rate; a pulse is an attempt.
fn memory(conditions: &Conditions, length: Kilometres) -> CurvePoint {
    let memories = Memories::default();
    let rate = memories.rate(&conditions.hardware, length, conditions.f_ec);
    let skr = rate.bits_per_s.max(0.0);
    CurvePoint { length, bits_per_pulse: skr / memories.attempts_hz, skr: BitsPerSecond(skr), qber: Some(rate.e_z) }
}

/// Middling settings for a source with so many decoys.
#[must_use]
pub fn usual_settings(decoys: Decoys) -> DecoySettings {
    match decoys {
        Decoys::Two => DecoySettings {
            key_basis: 0.85,
            intensities: [0.4, 0.15, 2e-4],
            probabilities: [0.25, 0.41, 0.34],
            block_bits: 1_000_000,
        },
        Decoys::One => DecoySettings {
            key_basis: 0.85,
            intensities: [0.45, 0.15, 0.0],
            probabilities: [0.6, 0.4, 0.0],
            block_bits: 1_000_000,
        },
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or(UnknownProtocol)
    }
}

/// A name that no protocol of this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown protocol; this build knows bb84-lim2014, bb84-rusca2018, bb84-wiesemann2026, bb84-asymptotic, \
     bb84-vacuum-weak, bb84-one-decoy, bb84-no-decoy, bb84-single-photon, bb84-distilled, b92, mdi, mdi-memory, \
     phase-matching and plob"
)]
pub struct UnknownProtocol;

/// Mean photon number of the weak decoy with endless blocks.
const WEAK: f64 = 0.05;
/// Signal intensity with endless blocks, not optimised: the best for the hardware of Gobby, Yuan and Shields.
const SIGNAL: f64 = 0.48;
const MDI_SIGNAL: f64 = 0.4;
const REPETITION_MAX: u32 = 40;
