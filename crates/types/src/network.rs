//! The network file: sites, links, hardware, security parameters.
//!
//! A file is parsed once into [`Network`], whose private fields hold what was checked: ids are unique, a link
//! joins two different known sites, lengths, probabilities and intensities are in range, and every site can be
//! reached from every other. What is wrong is said with its line and field.
//!
//! ```
//! let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
//! let network = types::network::Network::parse(text).unwrap();
//! assert_eq!(network.links().len(), 5);
//! ```

mod fibre;
mod file;
mod optics;
mod protocol;

use std::collections::BTreeMap;

pub use self::fibre::{ClassicalChannel, Coexistence, Direction, Environment};
pub use self::file::NetworkError;
pub use self::optics::{DecoySettings, Decoys, Hardware, Security};
pub use self::protocol::{BeyondOneWay, Proof, Reconciliation, UnknownProof};
use crate::id::{LinkId, SiteId, TerminalId};
use crate::quantum::Role;
use crate::units::Kilometres;

/// A checked network description.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    name: String,
    sites: BTreeMap<SiteId, Site>,
    links: BTreeMap<LinkId, Link>,
    centres: Vec<Centre>,
    terminals: BTreeMap<TerminalId, TerminalPlace>,
    security: Security,
    stock: StockPolicy,
    key_streams: bool,
}

/// A site with QKD modules and a key management entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// Its name for people.
    pub name: String,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// A QKD link: a quantum channel from Alice's site to Bob's, and the classical channel beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    /// Site of the transmitter.
    pub alice: SiteId,
    /// Site of the receiver.
    pub bob: SiteId,
    /// Fibre length.
    pub length: Kilometres,
    /// Hardware at both ends and fibre.
    pub hardware: Hardware,
    /// Intensities and probabilities of the protocol.
    pub decoy: DecoySettings,
    /// Which proof bounds the key; the newest for the number of decoys unless the file names one.
    pub proof: Proof,
    /// What is tried when a block gives no key by one-way post-processing.
    pub beyond_one_way: BeyondOneWay,
    /// How sifted keys are reconciled.
    pub reconciliation: Reconciliation,
    /// Classical channels on the same fibre.
    pub coexistence: Option<Coexistence>,
    /// Weather along the line; without it the link stands still.
    pub environment: Option<Environment>,
}

/// A dispatch centre: takes its keys from the KME of a nearby site.
#[derive(Clone, Debug, PartialEq)]
pub struct Centre {
    /// Its id.
    pub id: SiteId,
    /// Its name for people.
    pub name: String,
    /// The site whose KME serves it; a backup centre may have none.
    pub served_by: Option<SiteId>,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// A field terminal and the site that its key comes through.
#[derive(Clone, Debug, PartialEq)]
pub struct TerminalPlace {
    /// Its id.
    pub id: TerminalId,
    /// Its name for people.
    pub name: String,
    /// The site whose KME hands it key.
    pub site: SiteId,
}

/// How much end-to-end key every pair of sites keeps ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockPolicy {
    /// Keys of 256 bit that the background relay fills each ordered pair up to.
    pub target_keys: u32,
    /// Below this the pair raises a low-water event.
    pub low_water_keys: u32,
}

impl Network {
    /// Parses and checks a network file.
    ///
    /// # Errors
    /// The first thing that is wrong, with line, column and field.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        file::parse(text)
    }

    /// Name of the network; origin of its audit logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All sites by id.
    #[must_use]
    pub fn sites(&self) -> &BTreeMap<SiteId, Site> {
        &self.sites
    }

    /// All links by id.
    #[must_use]
    pub fn links(&self) -> &BTreeMap<LinkId, Link> {
        &self.links
    }

    /// Dispatch centres in file order.
    #[must_use]
    pub fn centres(&self) -> &[Centre] {
        &self.centres
    }

    /// Field terminals by id.
    #[must_use]
    pub fn terminals(&self) -> &BTreeMap<TerminalId, TerminalPlace> {
        &self.terminals
    }

    /// Security parameters of every link.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// Stock policy of every pair.
    #[must_use]
    pub fn stock(&self) -> StockPolicy {
        self.stock
    }

    /// Whether sites offer key streams (ETSI GS QKD 004) beside single keys.
    #[must_use]
    pub fn key_streams(&self) -> bool {
        self.key_streams
    }

    /// The links that end at a site, with the role of that site's module.
    pub fn links_of<'a>(&'a self, site: &'a SiteId) -> impl Iterator<Item = (&'a Link, Role)> {
        self.links.values().filter_map(move |link| link.role_of(site).map(|role| (link, role)))
    }
}

impl Link {
    /// A link that stands in no network: for planning.
    #[must_use]
    pub fn planned(hardware: Hardware, length: Kilometres, decoy: DecoySettings) -> Self {
        let site = |name| SiteId::new(name).expect("a plain word is a site's id");
        Self {
            id: LinkId::new("planned").expect("a plain word is a link's id"),
            alice: site("alice"),
            bob: site("bob"),
            length,
            hardware,
            proof: Proof::newest(decoy.decoys()),
            decoy,
            beyond_one_way: BeyondOneWay::Off,
            reconciliation: Reconciliation::Auto,
            coexistence: None,
            environment: None,
        }
    }

    /// The role of a site's module on this link, if the link ends there.
    #[must_use]
    pub fn role_of(&self, site: &SiteId) -> Option<Role> {
        if *site == self.alice {
            Some(Role::Alice)
        } else if *site == self.bob {
            Some(Role::Bob)
        } else {
            None
        }
    }

    /// The site at the other end, if the link ends at `site`.
    #[must_use]
    pub fn other_end(&self, site: &SiteId) -> Option<&SiteId> {
        match self.role_of(site)? {
            Role::Alice => Some(&self.bob),
            Role::Bob => Some(&self.alice),
        }
    }
}
