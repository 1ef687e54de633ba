//! Key pools, key relay, key supply: the key management entity (KME) of one site as a core without IO.
//!
//! | module | holds |
//! |---|---|
//! | [`Kme`] | the core: inputs in, outputs out |
//! | [`message`] | what KMEs say to each other (`docs/formats/kx.md`) |
//! | `pool` | key of one link, split by direction, with marks that only grow |
//! | `stock` | end-to-end keys of a pair of sites |
//! | `delivery` | supplied keys that wait for their slave SAE |
//! | `record` | durable records (`docs/formats/kme-records.md`) |
//!
//! Every mutation is closed by at most one [`Output::Commit`]; whatever a mutation lets out (a message, a reply, a
//! key) leaves only after that commit and all before it were reported by [`Input::Durable`].
//!
//! Provided: filing of link key, relay hop by hop under one-time pad and one-time tag, background filling of every
//! ordered pair of sites, ETSI GS QKD 014 status, get key and get key with key IDs between two SAEs.
//! Not provided: relay over several disjoint paths, more than one slave per key.
//!
//! ```
//! use crypto::secret::SecretBytes;
//! use kms::{Config, Input, Kme, Output};
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
//! use types::id::{BlockSeq, LinkId, SiteId};
//! use types::units::Time;
//!
//! let mut rng = ChaCha12Rng::from_seed([1; 32]);
//! let mut kme = Kme::restore(Time::ZERO, Config::new(SiteId::new("taiyuan")?), Vec::new())?;
//! let (link, peer) = (LinkId::new("taiyuan-jinzhong")?, SiteId::new("jinzhong")?);
//! let key = SecretBytes::random(1_000, &mut rng);
//! kme.handle_input(Time::ZERO, Input::LinkBlock { link, peer, seq: BlockSeq(0), key }, &mut rng);
//! // One mutation, then drain: nothing but the commit comes out before it is durable.
//! let Some(Output::Commit { seq, .. }) = kme.poll_output() else { unreachable!() };
//! assert!(kme.poll_output().is_none());
//! kme.handle_input(Time::ZERO, Input::Durable(seq), &mut rng);
//! assert!(matches!(kme.poll_output(), Some(Output::BlockFiled { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod api;
mod config;
mod delivery;
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod kme;
pub mod message;
mod pool;
mod record;
mod stock;

pub use self::api::{
    CommitSeq, Counters, Input, LinkStock, Output, PairStatus, PairStock, Refusal, SuppliedKey, SupplyReply,
    SupplyRequest,
};
pub use self::config::{Config, PAIR_KEY_BYTES};
pub use self::kme::Kme;

/// Why a KME could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A durable record is not what this program writes.
    #[error("the record of {what} is corrupt: {why}")]
    Corrupt {
        /// Which record.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}
