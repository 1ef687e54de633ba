//! Hardware sets with a name: those of published experiments and papers, and the sets of the reference network.

use types::network::Hardware;

/// A named set of hardware.
#[derive(Clone, Debug, PartialEq)]
pub struct HardwareSet {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is and where its figures come from.
    pub about: &'static str,
    /// The set.
    pub hardware: Hardware,
}

impl HardwareSet {
    /// All named sets.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self {
                name: "s1",
                about: "free-running InGaAs, saturated when near: the reference network",
                hardware: of(900e6, 0.2, 0.2, [50.0, 1.0], 0.027, 60.0, 0.01),
            },
            Self {
                name: "s2",
                about: "gated InGaAs at 1.25 GHz, 600 dark counts per second",
                hardware: of(1.25e9, 0.2, 0.2, [600.0, 0.4], 0.027, 45.0, 0.01),
            },
            Self {
                name: "s3",
                about: "the same with 2,500 dark counts per second",
                hardware: of(1.25e9, 0.2, 0.2, [2_500.0, 0.4], 0.027, 45.0, 0.01),
            },
            Self {
                name: "snspd",
                about: "superconducting nanowires at 100 MHz, never saturated",
                hardware: of(100e6, 0.2, 0.5, [20.0, 1.0], 0.03, 0.05, 0.0),
            },
            Self {
                name: "gys",
                about: "Gobby, Yuan, Shields, APL 84 3762 (2004), as in Ma et al., PRA 72 012326 (2005)",
                hardware: of(2e6, 0.21, 0.045, [850.0, 1.0], 0.033, 0.0, 0.0),
            },
            Self {
                name: "lim2014",
                about: "test model of Lim et al., PRA 89 022307 (2014)",
                hardware: of(1e9, 0.2, 0.1, [600.0, 1.0], 5e-3, 0.0, 0.04),
            },
            Self {
                name: "mdi",
                about: "relay of MDI-QKD: 14.5 % detectors, 3.01e-6 dark counts per gate, 1.5 % misalignment",
                hardware: of(1e9, 0.2, 0.145, [3_010.0, 1.0], 0.015, 0.0, 0.0),
            },
            Self {
                name: "pm",
                about: "Ma, Zeng, Zhou, PRX 8 031043 (2018): 14.5 % detectors, 8e-8 dark counts per gate",
                hardware: of(1e9, 0.2, 0.145, [80.0, 1.0], 0.015, 0.0, 0.0),
            },
            Self {
                name: "ideal",
                about: "perfect detectors without noise behind a fibre of 0.2 dB/km, 1 % misalignment",
                hardware: of(1e9, 0.2, 1.0, [0.0, 1.0], 0.01, 0.0, 0.0),
            },
        ]
    }

    /// The set of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|set| set.name == name)
    }
}

fn of(
    clock_hz: f64,
    attenuation_db_per_km: f64,
    efficiency: f64,
    [dark_count_hz, gate_ns]: [f64; 2],
    misalignment: f64,
    dead_time_us: f64,
    afterpulse: f64,
) -> Hardware {
    Hardware {
        clock_hz,
        attenuation_db_per_km,
        efficiency,
        dark_count_hz,
        gate_ns,
        misalignment,
        dead_time_us,
        afterpulse,
        efficiency_ratio: 1.0,
        jitter_ps: 0.0,
        wavelength_nm: 1_550.0,
    }
}
