//! Hardware, decoy settings and security parameters of a link, as the network file states them.

use serde::Deserialize;

/// Source, fibre and detectors of a link. Defaults: none; a hardware set is written out in the file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Pulses per second.
    pub clock_hz: f64,
    /// Fibre loss in dB per km, splices included.
    pub attenuation_db_per_km: f64,
    /// Probability that a photon which reaches the receiver makes a click (receiver loss and detector); that of the
    /// better detector where the two differ.
    pub efficiency: f64,
    /// Dark counts per second of one of the two detectors.
    pub dark_count_hz: f64,
    /// Width of the detection gate in nanoseconds.
    pub gate_ns: f64,
    /// Probability that a signal photon goes to the wrong detector.
    pub misalignment: f64,
    /// Time after a click in which both detectors are blanked, in microseconds.
    pub dead_time_us: f64,
    /// Probability that a click is followed by an afterpulse beyond the dead time.
    pub afterpulse: f64,
    /// Efficiency of the detector for bit 1 over that of the detector for bit 0; 1 when they are alike.
    #[serde(default = "one")]
    pub efficiency_ratio: f64,
    /// Standard deviation of a click's arrival time in picoseconds; 0 for none.
    #[serde(default)]
    pub jitter_ps: f64,
    /// Wavelength of the quantum channel in nanometres.
    #[serde(default = "c_band")]
    pub wavelength_nm: f64,
}

/// Settings of decoy-state BB84: with two decoys (Lim et al. 2014) or with one (Rusca et al. 2018).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawDecoySettings")]
pub struct DecoySettings {
    /// Probability of the key basis, at both ends.
    pub key_basis: f64,
    /// Mean photon numbers, brightest first. With one decoy the file gives two and the third is 0.
    pub intensities: [f64; 3],
    /// Probabilities of the intensities; they sum to 1. With one decoy the third is 0: it is never sent.
    pub probabilities: [f64; 3],
    /// Sifted key-basis bits in one block.
    pub block_bits: u32,
}

/// Failure probabilities that every block keeps to, and the assumed cost of reconciliation for planning.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// Distance of a block from an ideal secret.
    pub epsilon_secrecy: f64,
    /// Probability that the two ends hold different bits.
    pub epsilon_correctness: f64,
}

impl Hardware {
    /// The first field out of range, with its rule.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let rules = [
            ("clock_hz", self.clock_hz >= 1e3 && self.clock_hz <= 1e11, "1e3 to 1e11 Hz"),
            ("attenuation_db_per_km", (0.0..=10.0).contains(&self.attenuation_db_per_km), "0 to 10 dB/km"),
            ("efficiency", self.efficiency > 0.0 && self.efficiency <= 1.0, "above 0, at most 1"),
            ("dark_count_hz", (0.0..=1e7).contains(&self.dark_count_hz), "0 to 1e7 counts per second"),
            (
                "gate_ns",
                self.gate_ns > 0.0 && self.gate_ns * 1e-9 * self.clock_hz <= 1.0,
                "above 0 and within one clock period",
            ),
            ("misalignment", (0.0..=0.5).contains(&self.misalignment), "0 to 0.5"),
            ("dead_time_us", (0.0..=1e4).contains(&self.dead_time_us), "0 to 10,000 microseconds"),
            ("afterpulse", (0.0..=0.5).contains(&self.afterpulse), "0 to 0.5"),
            ("efficiency_ratio", (0.1..=10.0).contains(&self.efficiency_ratio), "0.1 to 10"),
            ("jitter_ps", (0.0..=1e5).contains(&self.jitter_ps), "0 to 100,000 ps"),
            ("wavelength_nm", (600.0..=1_700.0).contains(&self.wavelength_nm), "600 to 1,700 nm"),
        ];
        rules.into_iter().find(|(_, holds, _)| !holds).map(|(field, _, rule)| (field, rule))
    }
}

/// How many decoy intensities a source has beside the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decoys {
    /// One: two intensities in all.
    One,
    /// Two: three intensities in all.
    Two,
}

impl DecoySettings {
    /// How many decoys these settings have.
    #[must_use]
    pub fn decoys(&self) -> Decoys {
        if self.probabilities[2] > 0.0 { Decoys::Two } else { Decoys::One }
    }

    /// The first field out of range, with its rule.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let [mu1, mu2, mu3] = self.intensities;
        let sum: f64 = self.probabilities.iter().sum();
        let sent = match self.decoys() {
            Decoys::Two => self.probabilities.as_slice(),
            Decoys::One => &self.probabilities[..2],
        };
        let rules = [
            ("key_basis", self.key_basis > 0.0 && self.key_basis < 1.0, "between 0 and 1"),
            // Lim et al. 2014, section II: mu1 > mu2 + mu3 and mu2 > mu3 >= 0.
            (
                "intensities",
                mu1 > mu2 + mu3 && mu2 > mu3 && mu3 >= 0.0 && mu1 <= 2.0 && (mu3 == 0.0 || sent.len() == 3),
                "two or three, as many as probabilities, with mu1 > mu2 + mu3, mu2 > mu3 >= 0, mu1 <= 2",
            ),
            (
                "probabilities",
                sent.iter().all(|p| *p > 0.0) && (sum - 1.0).abs() < 1e-9,
                "two or three, all above 0, sum 1",
            ),
            ("block_bits", (10_000..=10_000_000).contains(&self.block_bits), "10,000 to 10,000,000 bits"),
        ];
        rules.into_iter().find(|(_, holds, _)| !holds).map(|(field, _, rule)| (field, rule))
    }
}

impl Security {
    /// The first field out of range, with its rule.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let in_range = |epsilon: f64| epsilon > 1e-30 && epsilon < 1e-3;
        let rules = [
            ("epsilon_secrecy", in_range(self.epsilon_secrecy), "1e-30 to 1e-3"),
            ("epsilon_correctness", in_range(self.epsilon_correctness), "1e-30 to 1e-3"),
        ];
        rules.into_iter().find(|(_, holds, _)| !holds).map(|(field, _, rule)| (field, rule))
    }
}

fn one() -> f64 {
    1.0
}

fn c_band() -> f64 {
    1_550.0
}

/// As the file has it: two or three intensities, each with its probability.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDecoySettings {
    key_basis: f64,
    intensities: Vec<f64>,
    probabilities: Vec<f64>,
    block_bits: u32,
}

impl TryFrom<RawDecoySettings> for DecoySettings {
    type Error = &'static str;

    fn try_from(raw: RawDecoySettings) -> Result<Self, Self::Error> {
        let RawDecoySettings { key_basis, intensities, probabilities, block_bits } = raw;
        // A third intensity that is not there is 0 and never sent.
        let (intensities, probabilities) = match (intensities.as_slice(), probabilities.as_slice()) {
            ([mu1, mu2], [p1, p2]) => ([*mu1, *mu2, 0.0], [*p1, *p2, 0.0]),
            ([mu1, mu2, mu3], [p1, p2, p3]) if *p3 > 0.0 => ([*mu1, *mu2, *mu3], [*p1, *p2, *p3]),
            _ => {
                return Err("intensities and probabilities must be two or three numbers each, as many as the other, \
                             probabilities above 0");
            }
        };
        Ok(Self { key_basis, intensities, probabilities, block_bits })
    }
}
