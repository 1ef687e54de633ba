//! Where a key comes from, and what may happen to one that goes to another network.

use std::time::Duration;

use types::id::SiteId;

/// Where a key comes from. Master and slave SAE are told the same, but for the moments by which they ask apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOrigin {
    /// The site of the master SAE, or the site through which the key came from another network.
    pub source: SiteId,
    /// The site of the slave SAE; of the first slave if the master is told.
    pub target: SiteId,
    /// Every way that carried a part of it, both ends included. Empty if it never left its site, and if it was
    /// stored by a program that did not note the way.
    pub paths: Vec<Vec<SiteId>>,
    /// From how many node-disjoint ways its weakest part is combined: an attacker needs a node on each of them.
    /// 0 if no way is noted, 1 if each part came over one way.
    pub combined: u8,
    /// Time since its oldest part was made.
    pub age: Duration,
}

impl KeyOrigin {
    /// Trusted nodes crossed on the longest of its ways; 0 if the two sites share a link.
    #[must_use]
    pub fn hops(&self) -> usize {
        self.paths.iter().map(|path| path.len().saturating_sub(2)).max().unwrap_or_default()
    }
}

/// Why keys did not come into another network. They are burned at all sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFailure {
    /// The other KME surely kept nothing.
    NotTaken,
    /// The other KME took them, or may have, and has destroyed them again.
    Voided,
    /// It is not known what the other KME has; whoever says this goes on voiding there.
    InDoubt,
}
