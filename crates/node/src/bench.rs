//! `qurrent bench`: every published figure, measured again.
//!
//! A row has a name, a value, the bar that it has to reach and how it was measured; a row that could not be measured is
//! there with the reason. Speeds are for one core by its processor time, unless a row says otherwise.

pub mod end;
mod kms;
mod link;
mod processor;

use serde::Serialize;

pub use self::kms::kms;
pub use self::link::link;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name; stable.
    pub name: String,
    /// The figure; `None` if it could not be measured.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// What it has to reach.
    pub bar: Option<f64>,
    /// What others reach, where somebody measured it.
    pub anchor: Option<f64>,
    /// Who.
    pub anchor_source: &'static str,
    /// Whether the bar is reached; `None` without a bar or a value.
    pub met: Option<bool>,
    /// How it was measured, or why it could not be.
    pub how: String,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// How much work a measurement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Enough for a figure.
    Full,
    /// As little as shows that the measurement works.
    Smoke,
}

impl Effort {
    /// The full number, or a small one.
    fn of(self, full: usize, smoke: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Smoke => smoke,
        }
    }
}

impl Row {
    /// A figure that must be at least `bar`.
    fn at_least(name: &str, value: f64, unit: &'static str, bar: f64, how: impl Into<String>) -> Self {
        Self::new(name, value, unit, Better::Higher, bar, value >= bar, how)
    }

    /// A figure that must be at most `bar`.
    fn at_most(name: &str, value: f64, unit: &'static str, bar: f64, how: impl Into<String>) -> Self {
        Self::new(name, value, unit, Better::Lower, bar, value <= bar, how)
    }

    fn new(
        name: &str,
        value: f64,
        unit: &'static str,
        better: Better,
        bar: f64,
        met: bool,
        how: impl Into<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
            unit,
            better,
            bar: Some(bar),
            anchor: None,
            anchor_source: "",
            met: Some(met),
            how: how.into(),
        }
    }

    /// A figure without a bar.
    fn without_bar(name: &str, value: f64, unit: &'static str, better: Better, how: impl Into<String>) -> Self {
        Self { bar: None, met: None, ..Self::new(name, value, unit, better, 0.0, true, how) }
    }

    /// A figure that could not be measured.
    fn missing(name: &str, unit: &'static str, better: Better, bar: f64, why: impl Into<String>) -> Self {
        Self { value: None, met: None, ..Self::new(name, 0.0, unit, better, bar, false, why) }
    }

    fn beside(self, anchor: f64, anchor_source: &'static str) -> Self {
        Self { anchor: Some(anchor), anchor_source, ..self }
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
