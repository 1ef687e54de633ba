//! What a link sees of an attacker: watchdog readings and the counts of blocks, compared with what they should be.
//!
//! A block's length is decided by its proof alone; this module gives the reason a name, and stops key where an attack
//! leaves the counts as they should be because it leaves the proof's assumptions.
//!
//! | suspicion | statistic | stops key |
//! |---|---|---|
//! | [`InterceptResend`](Suspicion::InterceptResend) | test-basis error rate above the link's usual one: `Q = e (1 - xi) + xi (1/4 + e/2)` | by the length |
//! | [`PhotonNumberSplitting`](Suspicion::PhotonNumberSplitting) | gain of the decoy over that of the signal, `mu2/mu1` without an attacker | by the length |
//! | [`Blinding`](Suspicion::Blinding) | photocurrent of the detectors in any microsecond | at once |
//! | [`TimeShift`](Suspicion::TimeShift) | arrivals off the middle of the gate, unequal detectors | at once |
//! | [`TrojanLight`](Suspicion::TrojanLight) | light that comes into the transmitter | at once |
//! | [`Tampering`](Suspicion::Tampering) | a tag that does not hold, a contradiction | by the tag |
//! | [`Denial`](Suspicion::Denial) | clicks gone, or nothing but noise | nothing to stop |
//!
//! The photocurrent is sampled in microseconds because a pulsed blinding attack hides from an average (Wu et al.,
//! EPJ Quantum Technol. 10:22, 2023). The bounds are those of the modules that [`ReceiverReading`] describes.
//!
//! **Not provided.** Certainty: a fault can look like an attack, and an attacker who knows the bounds can stay below
//! them; the length of a block covers him only within the proof's assumptions.

use core::fmt;
use std::collections::BTreeSet;

use types::network::DecoySettings;
use types::quantum::{ReceiverReading, TransmitterReading};

use crate::proof::BlockCounts;

/// What it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Suspicion {
    /// Somebody measures a share of the pulses and sends his own.
    InterceptResend,
    /// Somebody keeps a photon of pulses that have two, and blocks those that have one.
    PhotonNumberSplitting,
    /// Somebody drives the detectors with bright light.
    Blinding,
    /// Somebody shifts pulses to where the detectors differ.
    TimeShift,
    /// Somebody shines light into the transmitter.
    TrojanLight,
    /// Somebody changes messages.
    Tampering,
    /// Somebody cuts the line or floods it.
    Denial,
}

/// A suspicion and the figures that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it looks like.
    pub suspicion: Suspicion,
    /// The measured figures, for people.
    pub evidence: String,
}

impl Suspicion {
    /// Whether no key may come of light that was received under it.
    #[must_use]
    pub fn stops_key(self) -> bool {
        matches!(self, Self::Blinding | Self::TimeShift | Self::TrojanLight)
    }

    /// Its name in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InterceptResend => "intercept-resend",
            Self::PhotonNumberSplitting => "photon-number splitting",
            Self::Blinding => "detector blinding",
            Self::TimeShift => "time shift",
            Self::TrojanLight => "Trojan light",
            Self::Tampering => "tampering",
            Self::Denial => "denial",
        }
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Memory of what is usual on this link.
#[derive(Debug)]
pub(crate) struct Watch {
    mu: [f64; 2],
    p: [f64; 2],
    /// Suspicions that were reported and still hold.
    standing: BTreeSet<Suspicion>,
    arrivals: [[u64; ReceiverReading::GATE_PARTS]; 2],
    /// Clicks and slots of the readings so far.
    usual_clicks: (f64, f64),
    /// Lowest test-basis error rate of a block that gave key.
    usual_qber: Option<f64>,
}

impl Watch {
    pub(crate) fn new(decoy: &DecoySettings) -> Self {
        let [mu1, mu2, _] = decoy.intensities;
        let [p1, p2, _] = decoy.probabilities;
        Self {
            mu: [mu1, mu2],
            p: [p1, p2],
            standing: BTreeSet::new(),
            arrivals: [[0; ReceiverReading::GATE_PARTS]; 2],
            usual_clicks: (0.0, 0.0),
            usual_qber: None,
        }
    }

    /// Whether light that is received now may become key.
    pub(crate) fn trusts_light(&self) -> bool {
        !self.standing.iter().any(|suspicion| suspicion.stops_key())
    }

    /// Bob: judges a reading; gives what is new.
    pub(crate) fn receiver(&mut self, reading: &ReceiverReading) -> Vec<Alarm> {
        let blinding = (reading.photocurrent_ua > PHOTOCURRENT_UA_MAX).then(|| {
            format!(
                "photocurrent {:.2} uA, at most {PHOTOCURRENT_UA_MAX} without bright light",
                reading.photocurrent_ua
            )
        });
        let mut alarms = Vec::new();
        alarms.extend(self.judge(Suspicion::Blinding, blinding));
        let cut = self.clicks_gone(reading);
        alarms.extend(self.judge(Suspicion::Denial, cut));
        for (sum, new) in self.arrivals.iter_mut().flatten().zip(reading.arrivals.iter().flatten()) {
            *sum += u64::from(*new);
        }
        if self.arrivals.iter().flatten().sum::<u64>() >= ARRIVALS_MIN {
            let arrivals = core::mem::take(&mut self.arrivals);
            alarms.extend(self.judge(Suspicion::TimeShift, shifted(&arrivals)));
        }
        alarms
    }

    /// Alice: judges a reading.
    pub(crate) fn transmitter(&mut self, reading: &TransmitterReading) -> Option<Alarm> {
        let light = (reading.incoming_nw > INCOMING_NW_MAX)
            .then(|| format!("{:.1} nW came in, at most {INCOMING_NW_MAX} of our own", reading.incoming_nw));
        self.judge(Suspicion::TrojanLight, light)
    }

    /// Judges the counts of a full block; `gives_key` is the proof's word.
    pub(crate) fn block(&mut self, counts: &BlockCounts, gives_key: bool) -> Vec<Alarm> {
        let bits: u64 = counts.test.iter().sum();
        let errors: u64 = counts.test_errors.iter().sum();
        let qber = real(errors) / real(bits.max(1));
        let usual = self.usual_qber.unwrap_or(0.0);
        let sigma = (qber.max(usual) / real(bits.max(1))).sqrt();
        let excess = !gives_key && qber - usual > (5.0 * sigma).max(EXCESS_MIN);
        let noise =
            (excess && qber > NOISE_QBER).then(|| format!("error rate {:.1} %: clicks are noise", 100.0 * qber));
        let resent = (excess && qber <= NOISE_QBER).then(|| {
            let xi = ((qber - usual) / (0.25 - usual / 2.0)).clamp(0.0, 1.0);
            match self.usual_qber {
                Some(_) => format!(
                    "error rate {:.2} % instead of {:.2} %: a fraction of {xi:.2} resent",
                    100.0 * qber,
                    100.0 * usual
                ),
                None => format!(
                    "error rate {:.2} % on a link that gave no key yet: a fraction of at most {xi:.2} resent",
                    100.0 * qber
                ),
            }
        });
        let split = self.decoy_gain(counts).filter(|_| !gives_key);
        let mut alarms = Vec::new();
        alarms.extend(self.judge(Suspicion::InterceptResend, resent));
        alarms.extend(self.judge(Suspicion::PhotonNumberSplitting, split));
        if noise.is_some() {
            alarms.extend(self.judge(Suspicion::Denial, noise));
        }
        if gives_key {
            self.usual_qber = Some(self.usual_qber.map_or(qber, |usual| usual.min(qber)));
        }
        alarms
    }

    /// Messages that are not authentic or contradict each other.
    pub(crate) fn tampering(what: &dyn fmt::Display) -> Alarm {
        Alarm { suspicion: Suspicion::Tampering, evidence: what.to_string() }
    }

    /// Reports a suspicion when it arises, not again while it holds.
    fn judge(&mut self, suspicion: Suspicion, evidence: Option<String>) -> Option<Alarm> {
        match evidence {
            Some(evidence) => self.standing.insert(suspicion).then_some(Alarm { suspicion, evidence }),
            None => {
                self.standing.remove(&suspicion);
                None
            }
        }
    }

    /// Clicks that should be there and are not.
    fn clicks_gone(&mut self, reading: &ReceiverReading) -> Option<String> {
        let clicks = real(reading.arrivals.iter().flatten().map(|n| u64::from(*n)).sum());
        let (usual_clicks, usual_slots) = self.usual_clicks;
        let expected = if usual_slots > 0.0 { usual_clicks / usual_slots * real(reading.slots) } else { 0.0 };
        if expected >= CLICKS_EXPECTED_MIN && clicks < GONE_SHARE * expected {
            return Some(format!("{clicks:.0} clicks where {expected:.0} are usual"));
        }
        // An average over about the last hundred readings.
        self.usual_clicks = (0.99 * usual_clicks + clicks, 0.99 * usual_slots + real(reading.slots));
        None
    }

    /// Gain of the first decoy over the signal's, if it is too low to be the channel's.
    fn decoy_gain(&self, counts: &BlockCounts) -> Option<String> {
        let [bright, dim] = [0, 1].map(|k: usize| real(counts.key[k] + counts.test[k]));
        if bright < 100.0 {
            return None;
        }
        let gain = (dim / self.p[1]) / (bright / self.p[0]);
        let normal = self.mu[1] / self.mu[0];
        // Only pulses of two and more photons arrive.
        let multi = self.mu.map(|mu| 1.0 - (1.0 + mu) * libm::exp(-mu));
        let split = multi[1] / multi[0];
        let sigma = gain.max(split) * (1.0 / bright + 1.0 / dim.max(1.0)).sqrt();
        (gain < (normal * split).sqrt() && normal - gain > 5.0 * sigma).then(|| {
            format!("decoy over signal gain {gain:.3}: {normal:.3} is usual, {split:.3} when only pairs arrive")
        })
    }
}

/// Whether arrivals lie off the middle of the gate, or one detector clicks much more often.
fn shifted(arrivals: &[[u64; ReceiverReading::GATE_PARTS]; 2]) -> Option<String> {
    let middle = real(ReceiverReading::GATE_PARTS as u64 - 1) / 2.0;
    let totals = [0, 1].map(|at: usize| real(arrivals[at].iter().sum::<u64>()));
    let total = totals[0] + totals[1];
    let places = arrivals.iter().flat_map(|parts| parts.iter().enumerate());
    let mean = places.map(|(place, n)| real(place as u64) * real(*n)).sum::<f64>() / total - middle;
    let balance = (totals[0] - totals[1]) / total;
    (mean.abs() > SHIFT_MAX || balance.abs() > IMBALANCE_MAX).then(|| {
        format!("arrivals {mean:+.2} eighths of a gate off its middle, detectors unequal by {:+.1} %", 100.0 * balance)
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

const PHOTOCURRENT_UA_MAX: f64 = 1.0;
const INCOMING_NW_MAX: f64 = 1.0;
/// Clicks that are judged together for their place in the gate.
const ARRIVALS_MIN: u64 = 2_000;
/// Eighths of the gate; a tracking loop keeps well within.
const SHIFT_MAX: f64 = 1.5;
const IMBALANCE_MAX: f64 = 0.2;
const CLICKS_EXPECTED_MIN: f64 = 50.0;
const GONE_SHARE: f64 = 0.1;
/// Error rate that no attack on the light alone explains: intercept-resend makes at most one half less than a quarter.
const NOISE_QBER: f64 = 0.35;
/// An excess below this is not named.
const EXCESS_MIN: f64 = 0.01;

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

    use types::quantum::Intensity;

    use super::*;

    fn decoy() -> DecoySettings {
        DecoySettings {
            key_basis: 0.9,
            intensities: [0.5, 0.1, 0.0],
            probabilities: [0.7, 0.3, 0.0],
            block_bits: 100_000,
        }
    }

    fn reading(clicks: u32) -> ReceiverReading {
        let mut arrivals = [[0; ReceiverReading::GATE_PARTS]; 2];
        arrivals.iter_mut().for_each(|parts| parts[3..5].fill(clicks / 4));
        ReceiverReading { slots: 1_000_000, photocurrent_ua: 0.1, arrivals, doubles: 0 }
    }

    fn counts(gain: f64, qber: f64) -> BlockCounts {
        let bright = 70_000.0;
        let dim = bright * gain * 0.3 / 0.7;
        let [key, test]: [[u64; Intensity::COUNT]; 2] =
            [0.9, 0.1].map(|share| [(share * bright) as u64, (share * dim) as u64, 0]);
        BlockCounts { key, test, test_errors: test.map(|n| (n as f64 * qber) as u64), key_errors: None }
    }

    fn names(alarms: &[Alarm]) -> Vec<Suspicion> {
        alarms.iter().map(|alarm| alarm.suspicion).collect()
    }

    #[test]
    fn a_quiet_link_raises_nothing() {
        let mut watch = Watch::new(&decoy());
        for _ in 0..200 {
            assert_eq!(watch.receiver(&reading(400)), Vec::new());
            assert_eq!(watch.transmitter(&TransmitterReading { slots: 1, incoming_nw: 0.2 }), None);
        }
        assert_eq!(watch.block(&counts(0.2, 0.02), true), Vec::new());
        assert_eq!(watch.block(&counts(0.21, 0.03), true), Vec::new());
        assert!(watch.trusts_light());
    }

    #[test]
    fn watchdogs_name_bright_light_once_and_key_stops_while_it_lasts() {
        let mut watch = Watch::new(&decoy());
        let bright = ReceiverReading { photocurrent_ua: 80.0, ..reading(400) };
        assert_eq!(names(&watch.receiver(&bright)), [Suspicion::Blinding]);
        assert_eq!(watch.receiver(&bright), Vec::new());
        assert!(!watch.trusts_light());
        watch.receiver(&reading(400));
        assert!(watch.trusts_light());
        let trojan = watch.transmitter(&TransmitterReading { slots: 1, incoming_nw: 500.0 }).unwrap();
        assert_eq!(trojan.suspicion, Suspicion::TrojanLight);
        assert!(!watch.trusts_light());
    }

    #[test]
    fn the_fraction_resent_is_estimated() {
        let mut watch = Watch::new(&decoy());
        watch.block(&counts(0.2, 0.03), true);
        let q = 0.03 * 0.5 + 0.5 * (0.25 + 0.015);
        let alarms = watch.block(&counts(0.2, q), false);
        assert_eq!(names(&alarms), [Suspicion::InterceptResend]);
        assert!(alarms[0].evidence.contains("fraction of 0.50"), "{}", alarms[0].evidence);
        assert_eq!(names(&watch.block(&counts(0.2, 0.5), false)), [Suspicion::Denial]);
    }

    /// (1 - 1.1 e^-0.1) / (1 - 1.5 e^-0.5) = 0.0519 where 0.2 is usual.
    #[test]
    fn a_collapsed_decoy_gain_is_photon_number_splitting() {
        let mut watch = Watch::new(&decoy());
        let alarms = watch.block(&counts(0.0519, 0.02), false);
        assert!(names(&alarms).contains(&Suspicion::PhotonNumberSplitting), "{alarms:?}");
    }

    #[test]
    fn arrivals_off_the_middle_and_unequal_detectors_are_a_time_shift() {
        for (early, late) in [([800, 0], [800, 0]), ([0, 1_500], [0, 500])] {
            let mut reading = reading(0);
            for (at, [edge, middle]) in [early, late].into_iter().enumerate() {
                reading.arrivals[at][0] = edge;
                reading.arrivals[at][4] = middle;
            }
            let mut watch = Watch::new(&decoy());
            let alarms: Vec<_> = (0..2).flat_map(|_| watch.receiver(&reading)).collect();
            assert_eq!(names(&alarms), [Suspicion::TimeShift]);
        }
    }

    #[test]
    fn clicks_that_vanish_are_a_denial() {
        let mut watch = Watch::new(&decoy());
        (0..10).for_each(|_| drop(watch.receiver(&reading(400))));
        assert_eq!(names(&watch.receiver(&reading(8))), [Suspicion::Denial]);
        assert_eq!(watch.receiver(&reading(8)), Vec::new());
    }
}
