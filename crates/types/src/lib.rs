//! Identifiers, units, wire codec with limits, network description, audit events. No secrets.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | newtypes for every identifier; two ids of one shape cannot swap |
//! | [`units`] | lengths, rates, losses, time |
//! | [`codec`] | bounded big-endian reader and writer for wire and disk |
//! | [`quantum`] | slot, basis, intensity, detection and preparation records |
//! | [`network`] | the network file, parsed once into types that cannot be wrong |
//! | [`event`] | the closed list of audit events |
//!
//! Without the `std` feature only [`id`], [`units`] and [`codec`] are there, for the `no_std` terminal core.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod codec;
#[cfg(feature = "std")]
pub mod event;
pub mod id;
#[cfg(feature = "std")]
pub mod network;
#[cfg(feature = "std")]
pub mod quantum;
pub mod units;
