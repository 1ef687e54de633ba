//! Topology, link state, routes by key stock. Depends on `types` alone, so it cannot name a key.
//!
//! | module | holds |
//! |---|---|
//! | [`topology`] | which sites are joined by which links |
//! | [`advertisement`] | what a site says of its links (`docs/formats/link-state.md`) |
//! | [`link_state`] | the newest word of every site, and the routes that follow |
//! | `ways` | cheapest ways, ways without a common site, detours |
//!
//! Provided: bounded encoding, newest-wins table with expiry, ways by hops, key stock, rate and demand.
//! Not provided: signatures on advertisements (the shell's, under the label `ControlLinkState`), flooding (the shell
//! passes on what [`link_state::LinkStateTable::accept`] calls new).
//!
//! ```
//! use std::time::Duration;
//! use control::{Advertisement, LinkReport, LinkStateTable, Topology};
//! use types::id::{LinkId, SiteId};
//! use types::units::{BitLen, BitsPerSecond, Time};
//!
//! let (a, b, link) = (SiteId::new("a")?, SiteId::new("b")?, LinkId::new("a-b")?);
//! let topology = Topology::new([(link.clone(), a.clone(), b.clone())])?;
//! let mut table = LinkStateTable::new(topology, Duration::from_secs(30));
//! for origin in [a.clone(), b.clone()] {
//!     let (rate, demand) = (BitsPerSecond(1_000.0), BitsPerSecond(10.0));
//!     let report = LinkReport { link: link.clone(), up: true, stock: BitLen(1 << 20), rate, demand };
//!     table.accept(Time::ZERO, Advertisement { origin, seq: 1, links: vec![report] })?;
//! }
//! assert_eq!(table.routes(Time::ZERO, &a)[&b], [a.clone(), b.clone()]);
//! assert_eq!(table.ways(Time::ZERO, &a)[&b], [[a.clone(), b.clone()]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod advertisement;
#[doc(hidden)]
pub mod fuzzing;
pub mod link_state;
pub mod topology;
mod ways;

use types::id::{LinkId, SiteId};

pub use self::advertisement::{Advertisement, LinkReport};
pub use self::link_state::{Accepted, LinkStateTable};
pub use self::topology::Topology;

/// Why a topology or an advertisement was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A link joins a site with itself or stands twice.
    #[error("link {link} joins a site with itself or stands twice")]
    BadLink {
        /// Which link.
        link: LinkId,
    },
    /// An advertisement of a site that is not in the topology.
    #[error("site {site} is not in the topology")]
    UnknownSite {
        /// Which site.
        site: SiteId,
    },
    /// A site spoke of a link that does not end there, or of one link twice.
    #[error("site {site} must not speak of link {link}, or not twice")]
    NotItsLink {
        /// Which site.
        site: SiteId,
        /// Which link.
        link: LinkId,
    },
}
