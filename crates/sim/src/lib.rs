//! Seeded network, disk and time around the real cores; shares of scarce key; photons beside their model; key rates of protocols.

pub mod fairness;
pub mod line;
pub mod network;
pub mod photons;
pub mod rate;
