//! Key pools, key relay, key supply: the key management entity (KME) of one site as a core without IO.
//!
//! | module | holds |
//! |---|---|
//! | [`Kme`] | the core: inputs in, outputs out |
//! | [`message`] | what KMEs say to each other (`docs/formats/kx.md`) |
//! | `pool` | key of one link, split by direction, with marks that only grow |
//! | `queue` | whose turn it is when link key is scarce |
//! | `stock` | end-to-end keys of a pair of sites |
//! | `origin`, `wish` | how a key came, and which keys a request may have |
//! | `quota`, `flow` | what an SAE may draw; how fast keys are made and taken |
//! | `delivery` | keys that wait for their slave SAEs or are on their way into another network |
//! | [`stream`] | key streams of ETSI GS QKD 004 on top of the KME |
//! | [`interwork`] | keys to and from KMEs of other networks (ETSI GS QKD 020) |
//! | `record` | durable records (`docs/formats/kme-records.md`) |
//!
//! Every mutation is closed by at most one [`Output::Commit`]; whatever a mutation lets out (a message, a reply, a
//! key) leaves only after that commit and all before it were reported by [`Input::Durable`].
//!
//! Provided: filing of link key, relay hop by hop under one-time pad and one-time tag, keys combined from several ways
//! without a common site and confirmed at both ends, fair shares of scarce link key, other ways round what fails, background filling of every
//! ordered pair of sites, notice of records that were set back; ETSI GS QKD 014 status, get key and get key with key
//! IDs, for several slaves at several sites; wishes for way, age and waiting; classes, reserves and quotas of SAEs; keys
//! from and to other networks, and their withdrawal.
//! Not provided: the protocols towards other networks (the shell's).
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
mod flow;
#[doc(hidden)]
pub mod fuzzing;
pub mod interwork;
mod journal;
mod kme;
pub mod message;
mod origin;
mod pool;
mod queue;
mod quota;
mod record;
mod spending;
mod stock;
pub mod stream;
mod wish;

pub use self::api::{
    CommitSeq, Counters, ExportFailure, Input, KeyOrigin, LinkStock, LinkUse, Output, PairFlow, PairStatus, PairStock,
    PassedOn, Priority, Refusal, RouteWish, SaePolicy, SuppliedKey, SupplyReply, SupplyRequest, TokenRate, Wishes,
};
pub use self::config::{Config, PAIR_KEY_BYTES};
pub use self::kme::{Kme, Restore};

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
