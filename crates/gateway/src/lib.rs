//! Plain side and cipher side, IEC 104 frame classes, key policy, graded fallback. No sockets, files or clock.
//!
//! A [`Session`] stands at each end of one cipher connection, in the gateway before the control center's master
//! and in the terminal before the outstation. It carries the bytes of many plain TCP connections unchanged;
//! frames are parsed only to decide how well they are protected.
//!
//! | module | holds |
//! |---|---|
//! | [`iec104`] | which class each byte of a stream has |
//! | [`policy`] | which suite a class gets at which stock, with hysteresis |
//! | [`pools`] | the batches of a pair of ends, and what of them must be durable |
//! | [`session`] | opening, streams, key top-up, levels: [`Session`] |
//!
//! The rule of use is one mutation, then drain:
//!
//! ```text
//! session.handle_input(now, input);            // or handle_timeout(now), open_stream(now)
//! while let Some(output) = session.poll_output() { /* move bytes, keys, commits */ }
//! sleep_until(session.poll_timeout());
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod iec104;
pub mod policy;
pub mod pools;
pub mod session;

pub use policy::{Level, Policy};
pub use pools::{Pools, Role};
pub use session::{Input, Output, RequestPurpose, Session, SessionConfig, Status, SupplyPlan};
pub use terminal::control::StreamId;

/// Why something did not happen, and whose fault it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Durable records of the pools do not make sense.
    #[error("stored pools are corrupt: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// A setting that cannot be.
    #[error("{what}")]
    ApiMisuse {
        /// What was asked.
        what: &'static str,
    },
}
