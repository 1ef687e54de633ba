//! Seeded network, disk and time around the real cores; photons beside their model; key rates of protocols.

pub mod line;
pub mod network;
pub mod photons;
pub mod rate;
