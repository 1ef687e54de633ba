//! Quantum links of a site: the QKD modules, the classical channel between them, and the thread that drives
//! the protocol core.
//!
//! ```text
//!  site A's process                fibre process               site B's process
//!  Source ---- emission ---------> Channel ---- clicks -------> LinkEnd (Bob)
//!  LinkEnd (Alice) <================ classical channel (TCP) ================>
//! ```
//!
//! A link may be fed by QKD devices of another maker instead of a fibre process ([`vendor`]).
//!
//! The fibre process stands for the glass and the receiver's optics. It is the only stand-in of the whole
//! system; nothing above [`module`] can tell.

pub mod classical;
pub mod fibre;
pub mod initial_key;
pub mod link;
pub mod module;
pub mod plug;
pub mod vendor;
