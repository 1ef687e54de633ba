//! Seeded network, disk and time around the real cores.

pub mod network;
pub mod rate;
