//! Which sites are joined by which links.

use std::collections::{BTreeMap, BTreeSet};

use types::id::{LinkId, SiteId};
use types::network::Network;

use crate::Error;

/// The sites and links of the network; a link joins two different sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    sites: BTreeSet<SiteId>,
    links: BTreeMap<LinkId, (SiteId, SiteId)>,
}

impl Topology {
    /// From links with their ends.
    ///
    /// # Errors
    /// [`Error::BadLink`] for a link that joins a site with itself or stands twice.
    pub fn new(links: impl IntoIterator<Item = (LinkId, SiteId, SiteId)>) -> Result<Self, Error> {
        let mut topology = Self { sites: BTreeSet::new(), links: BTreeMap::new() };
        for (link, one, other) in links {
            if one == other || topology.links.contains_key(&link) {
                return Err(Error::BadLink { link });
            }
            topology.sites.extend([one.clone(), other.clone()]);
            topology.links.insert(link, (one, other));
        }
        Ok(topology)
    }

    /// All sites.
    #[must_use]
    pub fn sites(&self) -> &BTreeSet<SiteId> {
        &self.sites
    }

    /// All links with their ends.
    #[must_use]
    pub fn links(&self) -> &BTreeMap<LinkId, (SiteId, SiteId)> {
        &self.links
    }

    /// Whether a link ends at a site.
    #[must_use]
    pub fn ends_at(&self, link: &LinkId, site: &SiteId) -> bool {
        self.links.get(link).is_some_and(|(one, other)| one == site || other == site)
    }
}

impl From<&Network> for Topology {
    fn from(network: &Network) -> Self {
        let ends = |link: &types::network::Link| (link.alice.clone(), link.bob.clone());
        Self {
            sites: network.sites().keys().cloned().collect(),
            links: network.links().iter().map(|(id, link)| (id.clone(), ends(link))).collect(),
        }
    }
}
