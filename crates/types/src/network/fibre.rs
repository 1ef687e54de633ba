//! What else a fibre carries and suffers: classical channels, weather.

use serde::Deserialize;

/// Classical channels on the quantum channel's own fibre. Their Raman-scattered light and crosstalk are noise counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coexistence {
    /// The channels.
    pub channels: Vec<ClassicalChannel>,
    /// Raman scattering into the receiver's band, per km of fibre and nm of filter width. About 2e-9 is the worst case
    /// within the C band.
    #[serde(default = "raman")]
    pub raman_per_km_nm: f64,
    /// Width of the receiver's filter in nm.
    #[serde(default = "filter")]
    pub filter_nm: f64,
    /// Suppression of a classical channel's own light at the quantum receiver in dB.
    #[serde(default = "isolation")]
    pub isolation_db: f64,
}

/// One classical channel beside the quantum channel.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassicalChannel {
    /// Which way it goes, seen from the quantum channel.
    pub direction: Direction,
    /// Its power where it leaves the fibre, in dBm: what its own receiver needs.
    pub received_dbm: f64,
}

/// Direction of a classical channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From Alice to Bob, with the quantum light.
    Forward,
    /// From Bob to Alice, against it.
    Backward,
}

/// Weather along the line and how the modules follow it. All fields have defaults, so `environment = {}` is a calm
/// overhead line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    /// Mean fibre temperature in degrees Celsius.
    pub temperature_c: f64,
    /// Half the daily swing in kelvin.
    pub swing_k: f64,
    /// Time of the day at slot 0, in hours from midnight; the coldest is at 4.
    pub start_h: f64,
    /// Change of the propagation delay per km of fibre and kelvin, in picoseconds.
    pub delay_ps_per_km_k: f64,
    /// Change of the loss per km of fibre and kelvin away from 20 degrees, in dB.
    pub loss_db_per_km_k: f64,
    /// Seconds between two corrections of the gate's position; 0 switches the tracking loop off.
    pub tracking_s: f64,
    /// Standard deviation of the tracking loop's correction in picoseconds.
    pub tracking_error_ps: f64,
    /// Diffusion of the polarisation: mean square angle that a state turns on the Poincare sphere, in square radians
    /// per second.
    pub polarisation_rad2_per_s: f64,
    /// Seconds in which the polarisation controller takes an excursion back to 1/e; 0 for a phase-coded system that
    /// does not feel polarisation.
    pub polarisation_control_s: f64,
    /// Lightning transients per hour.
    pub lightning_per_h: f64,
    /// Duration of a transient in microseconds.
    pub lightning_us: f64,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            temperature_c: 15.0,
            swing_k: 10.0,
            start_h: 12.0,
            delay_ps_per_km_k: 33.0,
            loss_db_per_km_k: 0.0,
            tracking_s: 10.0,
            tracking_error_ps: 20.0,
            polarisation_rad2_per_s: 1e-4,
            polarisation_control_s: 1.0,
            lightning_per_h: 0.0,
            lightning_us: 500.0,
        }
    }
}

impl Coexistence {
    /// The first field out of range, with its rule.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let power = |channel: &ClassicalChannel| (-80.0..=20.0).contains(&channel.received_dbm);
        let rules = [
            (
                "channels",
                self.channels.len() <= 128 && self.channels.iter().all(power),
                "at most 128, -80 to 20 dBm each",
            ),
            ("raman_per_km_nm", (0.0..=1e-6).contains(&self.raman_per_km_nm), "0 to 1e-6 per km and nm"),
            ("filter_nm", self.filter_nm > 0.0 && self.filter_nm <= 100.0, "above 0, at most 100 nm"),
            ("isolation_db", (0.0..=300.0).contains(&self.isolation_db), "0 to 300 dB"),
        ];
        rules.into_iter().find(|(_, holds, _)| !holds).map(|(field, _, rule)| (field, rule))
    }
}

impl Environment {
    /// The first field out of range, with its rule.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let rules = [
            ("temperature_c", (-60.0..=90.0).contains(&self.temperature_c), "-60 to 90 degrees"),
            ("swing_k", (0.0..=60.0).contains(&self.swing_k), "0 to 60 K"),
            ("start_h", (0.0..24.0).contains(&self.start_h), "0 to 24 hours"),
            ("delay_ps_per_km_k", (0.0..=1_000.0).contains(&self.delay_ps_per_km_k), "0 to 1,000 ps"),
            ("loss_db_per_km_k", (0.0..=0.1).contains(&self.loss_db_per_km_k), "0 to 0.1 dB"),
            ("tracking_s", (0.0..=86_400.0).contains(&self.tracking_s), "0 to 86,400 s"),
            ("tracking_error_ps", (0.0..=1e5).contains(&self.tracking_error_ps), "0 to 100,000 ps"),
            ("polarisation_rad2_per_s", (0.0..=1e3).contains(&self.polarisation_rad2_per_s), "0 to 1,000"),
            ("polarisation_control_s", (0.0..=1e5).contains(&self.polarisation_control_s), "0 to 100,000 s"),
            ("lightning_per_h", (0.0..=1e4).contains(&self.lightning_per_h), "0 to 10,000 per hour"),
            ("lightning_us", (0.0..=1e6).contains(&self.lightning_us), "0 to 1,000,000 microseconds"),
        ];
        rules.into_iter().find(|(_, holds, _)| !holds).map(|(field, _, rule)| (field, rule))
    }
}

fn raman() -> f64 {
    2e-9
}

fn filter() -> f64 {
    0.6
}

fn isolation() -> f64 {
    110.0
}
