//! The key management entities of a whole network under virtual time: real cores, simulated wires, disks and links.
//!
//! | file | does |
//! |---|---|
//! | `world` | the clock: what happens when, from one seed |
//! | `world/applications` | SAEs that ask, fetch and steal |
//! | `disk` | durable records and events of one site; a crash loses what was not durable yet |
//! | `audit` | sees every message, record, reply and key, and says what must not be |
//!
//! Messages between two sites keep their order, are late, get lost, and die with the connection; those of different
//! pairs overtake each other. Commits become durable late. Sites crash at any moment and come back from their disk.
//! Link blocks come at different times at both ends and come again until they were filed.

mod audit;
mod disk;
mod world;

pub use self::world::{Chaos, Report, World};

#[cfg(test)]
mod tests;
