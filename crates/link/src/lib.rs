//! One QKD link: sifting, parameter estimation, reconciliation, verification, privacy amplification.
//!
//! [`LinkEnd`] is one end of a link, Alice or Bob. It takes detections (Bob) or a record of preparations (Alice)
//! and the messages of the classical channel, and gives secret blocks that both ends hold under one number, or
//! neither. It has no IO: the shell moves bytes, time and disk.
//!
//! ```text
//!  detections -> sift -> estimate -> distil -> reconcile -> verify -> amplify -> authenticate, commit -> secret block
//!               (Filling)  (counts)   (Mode)   (Correction) (KeysAgree) (toeplitz)   (Stream)  (LinkEnd)
//! ```
//!
//! | module | step |
//! |---|---|
//! | [`proof`] | secret bits in a block: finite-key proofs by name |
//! | [`distil`] | advantage distillation and added noise, where one-way gives nothing |
//! | [`reconcile`] | error correction with every disclosed bit counted |
//! | [`verify`] | hash comparison of the corrected keys |
//! | [`amplify`] | Toeplitz hashing |
//! | [`wire`] | what a watcher of the wire can check |
//! | [`authenticate`] | reserve of authentication key, spent by tags, refilled by blocks |
//!
//! A link may be fed by QKD devices of another maker instead: [`vendor`].
//!
//! Messages and durable records are specified byte by byte in `docs/formats/link.md` and `docs/formats/vendor.md`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod amplify;
pub mod authenticate;
pub mod bits;
mod code;
pub mod distil;
mod end;
mod error;
mod estimate;
#[doc(hidden)]
pub mod fuzzing;
mod message;
pub mod proof;
pub mod reconcile;
mod record;
mod sift;
pub mod vendor;
pub mod verify;
mod watch;
pub mod wire;

pub use self::end::{IN_FLIGHT_MAX, Input, LinkConfig, LinkEnd, Output, Progress, SecretBlock};
pub use self::error::{Error, Misbehaviour};
pub use self::message::{BLOCK_BITS_MAX, FRAME_DETECTIONS_MAX, Kind, MESSAGE_MAX, PROTOCOL_VERSION};
pub use self::record::{AbortCause, BlockRecord, Outcome};
pub use self::sift::{Preparations, QUEUE_MAX};
pub use self::watch::{Alarm, Suspicion};
