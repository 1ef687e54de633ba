//! Sources, fibre, detectors: detection records from a seed.
//!
//! The quantum side of one QKD link is three actors, and nothing but light crosses between the first two:
//!
//! ```text
//!  Alice                        nature and Bob's receiver             Bob
//!  Source --- Emission (light) ---> Channel --- Detection records ---> his protocol end
//!    |
//!    +--- prepare(slot) ---> Alice's protocol end, for the slots that Bob announces
//! ```
//!
//! - [`Source`] is Alice's modulator: what it prepared in a slot is a pure function of her secret seed and the
//!   slot, so nothing is stored for the 10^9 slots of a second of which ten thousand are ever detected.
//! - [`Emission`] is the light in the fibre. It can be encoded and handed to another process; only a
//!   [`Channel`] can be made from it.
//! - [`Channel`] is the fibre and the receiver up to the click: a Monte Carlo of the photons that skips from one
//!   possible detection to the next, so its cost follows detections and not pulses. What it yields is what a
//!   time tagger would give Bob.
//! - [`attack`] is Eve, who takes the light between source and receiver when [`Channel::set_attack`] lets her.
//! - [`memory`] is another kind of link: two quantum memories at a relay in its middle.
//! - [`model`] states the expected values of the same physics in closed form. Tests hold one against the other.
//!
//! Everything is deterministic: same seeds and settings, same records, on every platform.
//!
//! ```
//! use optics::{Channel, Source};
//! use types::quantum::Slot;
//! # let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
//! # let network = types::network::Network::parse(text).unwrap();
//! # let link = network.links().values().next().unwrap();
//! let alice = Source::new(&link.decoy, [1; 32]);
//! let mut channel = Channel::new(link, alice.emission(), [2; 32]);
//! let mut clicks = Vec::new();
//! channel.run_until(Slot(9_000_000), &mut clicks); // ten milliseconds at 900 MHz
//! let same_basis = clicks.iter().filter(|click| click.basis == alice.prepare(click.slot).basis).count();
//! assert!(same_basis > 0);
//! ```
//!
//! Not provided: what the files of the parts list, each at its end; photon sources other than phase-randomised laser
//! pulses.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod attack;
mod channel;
mod emission;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod memory;
pub mod model;
mod prf;
mod source;
mod terms;
mod weather;
mod ziggurat;

pub use self::attack::{Attack, AttackError};
pub use self::channel::{Channel, ChannelCounts};
pub use self::emission::{EMISSION_LEN, Emission};
pub use self::error::Error;
pub use self::source::Source;
