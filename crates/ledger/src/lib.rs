//! Per-site Merkle log, proofs, export, offline verifier.
//!
//! | module | holds |
//! |---|---|
//! | [`site_log`] | [`SiteLog`]: appends events durably, signs checkpoints |
//! | [`envelope`] | [`Entry`]: one audit record and its one encoding |
//! | [`reader`] | [`LogReader`]: reads a log, also beside the process that writes it |
//! | [`checkpoint`] | [`SignedCheckpoint`]: signed log head, a C2SP note |
//! | [`proof`] | inclusion and consistency proofs (RFC 6962) |
//! | [`mod@export`] | one file with the logs of one or several sites |
//! | [`mod@verify`] | checks such a file with nothing but key fingerprints |
//! | [`anchor`] | the seam to the chain that orders the sites' checkpoints |
//!
//! Formats: `docs/formats/ledger.md`.
//!
//! Provided: RFC 6962 trees, C2SP tlog-checkpoint and tlog-proof, Ed25519 and hybrid signatures, recovery of a
//! torn tail. Not provided yet: witness cosignatures, tiles over HTTP, the chain itself, salted bodies.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod anchor;
pub mod checkpoint;
pub mod envelope;
mod error;
pub mod export;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod origin;
pub mod proof;
pub mod reader;
pub mod site_log;
mod tree;
pub mod verify;

pub use anchor::{Anchor, Unanchored};
pub use checkpoint::SignedCheckpoint;
pub use envelope::Entry;
pub use error::Error;
pub use export::{Source, export};
pub use origin::Origin;
pub use proof::{ConsistencyProof, InclusionProof};
pub use reader::LogReader;
pub use site_log::SiteLog;
pub use verify::{Report, Trust, VerifyError, verify};
