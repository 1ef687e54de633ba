//! From TOML text to a checked [`Network`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{
    BeyondOneWay, Centre, Coexistence, DecoySettings, Environment, Hardware, Link, Network, Proof, Reconciliation,
    Security, Site, StockPolicy, TerminalPlace,
};
use crate::id::{LinkId, SiteId, TerminalId};
use crate::units::Kilometres;

/// What is wrong with a network file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {field}: {message}")]
pub struct NetworkError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The field, as a dotted path.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Parses and checks.
pub(super) fn parse(text: &str) -> Result<Network, NetworkError> {
    let raw: RawNetwork = toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        located(text, &at, &field_at(text, &at), error.message().trim())
    })?;
    Checker { text }.network(raw)
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn fail<T>(&self, at: &Range<usize>, field: impl AsRef<str>, message: impl AsRef<str>) -> Result<T, NetworkError> {
        Err(located(self.text, at, field.as_ref(), message.as_ref()))
    }

    fn network(&self, raw: RawNetwork) -> Result<Network, NetworkError> {
        let name = raw.name.get_ref();
        if SiteId::new(name).is_err() {
            return self.fail(&raw.name.span(), "name", "use 1 to 32 characters of a-z, 0-9 and hyphen");
        }
        if let Some((field, rule)) = raw.security.get_ref().fault() {
            return self.fail(&raw.security.span(), format!("security.{field}"), format!("must be {rule}"));
        }
        let stock = raw.stock.get_ref();
        if stock.target_keys == 0 || stock.target_keys > TARGET_KEYS_MAX || stock.low_water_keys > stock.target_keys {
            return self.fail(
                &raw.stock.span(),
                "stock",
                "target_keys must be 1 to 4,000,000 and low_water_keys at most that",
            );
        }
        let stock = StockPolicy { target_keys: stock.target_keys, low_water_keys: stock.low_water_keys };
        let sites = self.sites(raw.site)?;
        let links = self.links(raw.link, &raw.hardware, &sites)?;
        self.connected(&raw.name.span(), &sites, &links)?;
        let centres = self.centres(raw.centre, &sites)?;
        let terminals = self.terminals(raw.terminal, &sites)?;
        let name = raw.name.into_inner();
        let (security, key_streams) = (raw.security.into_inner(), raw.key_streams);
        Ok(Network { name, sites, links, centres, terminals, security, stock, key_streams })
    }

    fn sites(&self, raw: Vec<RawSite>) -> Result<BTreeMap<SiteId, Site>, NetworkError> {
        let mut sites = BTreeMap::new();
        for site in raw {
            let at = site.id.span();
            self.place(&at, site.latitude, site.longitude)?;
            let id = site.id.into_inner();
            let site = Site { id: id.clone(), name: site.name, latitude: site.latitude, longitude: site.longitude };
            if sites.insert(id.clone(), site).is_some() {
                return self.fail(&at, "site.id", format!("site {id} stands twice; ids are unique"));
            }
        }
        if sites.len() > MAX_SITES {
            return self.fail(&(0..0), "site", format!("at most {MAX_SITES} sites"));
        }
        Ok(sites)
    }

    fn links(
        &self,
        raw: Vec<RawLink>,
        hardware: &BTreeMap<String, Spanned<Hardware>>,
        sites: &BTreeMap<SiteId, Site>,
    ) -> Result<BTreeMap<LinkId, Link>, NetworkError> {
        for (name, set) in hardware {
            if let Some((field, rule)) = set.get_ref().fault() {
                return self.fail(&set.span(), format!("hardware.{name}.{field}"), format!("must be {rule}"));
            }
        }
        let mut links = BTreeMap::new();
        let mut pairs = BTreeSet::new();
        for link in raw {
            let at = link.id.span();
            let id = link.id.into_inner();
            let alice = self.known(link.alice, "link.alice", sites)?;
            let bob_at = link.bob.span();
            let bob = self.known(link.bob, "link.bob", sites)?;
            if alice == bob {
                return self.fail(&bob_at, "link.bob", format!("link {id} must join two different sites"));
            }
            let pair = if alice < bob { (alice.clone(), bob.clone()) } else { (bob.clone(), alice.clone()) };
            if !pairs.insert(pair) {
                return self.fail(&at, "link", format!("sites {alice} and {bob} are joined by a link already"));
            }
            let length = *link.length_km.get_ref();
            if !(length > 0.0 && length <= 1_000.0) {
                return self.fail(&link.length_km.span(), "link.length_km", "must be above 0 and at most 1,000 km");
            }
            let Some(set) = hardware.get(link.hardware.get_ref()) else {
                let message = format!("no [hardware.{}] in this file", link.hardware.get_ref());
                return self.fail(&link.hardware.span(), "link.hardware", message);
            };
            if let Some((field, rule)) = link.decoy.get_ref().fault() {
                return self.fail(&link.decoy.span(), format!("link.decoy.{field}"), format!("must be {rule}"));
            }
            let proof = self.proof(link.proof, link.decoy.get_ref())?;
            self.surroundings(link.coexistence.as_ref(), link.environment.as_ref())?;
            let link = Link {
                id: id.clone(),
                alice,
                bob,
                length: Kilometres(length),
                hardware: set.get_ref().clone(),
                decoy: link.decoy.into_inner(),
                proof,
                beyond_one_way: link.beyond_one_way,
                reconciliation: link.reconciliation,
                coexistence: link.coexistence.map(Spanned::into_inner),
                environment: link.environment.map(Spanned::into_inner),
            };
            if links.insert(id.clone(), link).is_some() {
                return self.fail(&at, "link.id", format!("link {id} stands twice; ids are unique"));
            }
        }
        Ok(links)
    }

    fn proof(&self, named: Option<Spanned<Proof>>, decoy: &DecoySettings) -> Result<Proof, NetworkError> {
        let Some(named) = named else { return Ok(Proof::newest(decoy.decoys())) };
        let proof = *named.get_ref();
        if proof.decoys() == decoy.decoys() {
            return Ok(proof);
        }
        let message = format!("{proof} is for {:?} decoy(s), link.decoy has {:?}", proof.decoys(), decoy.decoys());
        self.fail(&named.span(), "link.proof", message.to_lowercase())
    }

    fn surroundings(
        &self,
        coexistence: Option<&Spanned<Coexistence>>,
        environment: Option<&Spanned<Environment>>,
    ) -> Result<(), NetworkError> {
        let faults = [
            coexistence.and_then(|part| part.get_ref().fault().map(|fault| (part.span(), "coexistence", fault))),
            environment.and_then(|part| part.get_ref().fault().map(|fault| (part.span(), "environment", fault))),
        ];
        match faults.into_iter().flatten().next() {
            Some((at, part, (field, rule))) => {
                self.fail(&at, format!("link.{part}.{field}"), format!("must be {rule}"))
            }
            None => Ok(()),
        }
    }

    fn connected(
        &self,
        at: &Range<usize>,
        sites: &BTreeMap<SiteId, Site>,
        links: &BTreeMap<LinkId, Link>,
    ) -> Result<(), NetworkError> {
        let Some(first) = sites.keys().next() else {
            return self.fail(at, "site", "a network has at least one [[site]]");
        };
        let mut reached = BTreeSet::from([first]);
        let mut frontier = vec![first];
        while let Some(site) = frontier.pop() {
            for link in links.values() {
                if let Some(next) = link.other_end(site)
                    && reached.insert(next)
                {
                    frontier.push(next);
                }
            }
        }
        match sites.keys().find(|site| !reached.contains(site)) {
            Some(lost) => self.fail(at, "link", format!("no chain of links joins site {lost} with site {first}")),
            None => Ok(()),
        }
    }

    fn centres(&self, raw: Vec<RawCentre>, sites: &BTreeMap<SiteId, Site>) -> Result<Vec<Centre>, NetworkError> {
        let mut seen = BTreeSet::new();
        let mut centres = Vec::new();
        for centre in raw {
            let at = centre.id.span();
            self.place(&at, centre.latitude, centre.longitude)?;
            let id = centre.id.into_inner();
            if sites.contains_key(&id) || !seen.insert(id.clone()) {
                return self.fail(&at, "centre.id", format!("{id} stands twice; ids are unique"));
            }
            let served_by = centre.served_by.map(|site| self.known(site, "centre.served_by", sites)).transpose()?;
            let (latitude, longitude) = (centre.latitude, centre.longitude);
            centres.push(Centre { id, name: centre.name, served_by, latitude, longitude });
        }
        Ok(centres)
    }

    fn terminals(
        &self,
        raw: Vec<RawTerminal>,
        sites: &BTreeMap<SiteId, Site>,
    ) -> Result<BTreeMap<TerminalId, TerminalPlace>, NetworkError> {
        let mut terminals = BTreeMap::new();
        for terminal in raw {
            let at = terminal.id.span();
            let id = terminal.id.into_inner();
            let site = self.known(terminal.site, "terminal.site", sites)?;
            let place = TerminalPlace { id: id.clone(), name: terminal.name, site };
            if terminals.insert(id.clone(), place).is_some() {
                return self.fail(&at, "terminal.id", format!("terminal {id} stands twice; ids are unique"));
            }
        }
        Ok(terminals)
    }

    fn known(
        &self,
        site: Spanned<SiteId>,
        field: &str,
        sites: &BTreeMap<SiteId, Site>,
    ) -> Result<SiteId, NetworkError> {
        if sites.contains_key(site.get_ref()) {
            return Ok(site.into_inner());
        }
        self.fail(&site.span(), field, format!("no [[site]] has the id {}", site.get_ref()))
    }

    fn place(&self, at: &Range<usize>, latitude: f64, longitude: f64) -> Result<(), NetworkError> {
        if (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude) {
            return Ok(());
        }
        self.fail(at, "latitude, longitude", "must be degrees within -90 to 90 and -180 to 180")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: Spanned<String>,
    #[serde(default)]
    key_streams: bool,
    security: Spanned<Security>,
    stock: Spanned<RawStock>,
    #[serde(default)]
    hardware: BTreeMap<String, Spanned<Hardware>>,
    #[serde(default)]
    site: Vec<RawSite>,
    #[serde(default)]
    link: Vec<RawLink>,
    #[serde(default)]
    centre: Vec<RawCentre>,
    #[serde(default)]
    terminal: Vec<RawTerminal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStock {
    target_keys: u32,
    low_water_keys: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    id: Spanned<SiteId>,
    name: String,
    latitude: f64,
    longitude: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    id: Spanned<LinkId>,
    alice: Spanned<SiteId>,
    bob: Spanned<SiteId>,
    length_km: Spanned<f64>,
    hardware: Spanned<String>,
    decoy: Spanned<DecoySettings>,
    proof: Option<Spanned<Proof>>,
    #[serde(default)]
    beyond_one_way: BeyondOneWay,
    #[serde(default)]
    reconciliation: Reconciliation,
    coexistence: Option<Spanned<Coexistence>>,
    environment: Option<Spanned<Environment>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCentre {
    id: Spanned<SiteId>,
    name: String,
    served_by: Option<Spanned<SiteId>>,
    latitude: f64,
    longitude: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTerminal {
    id: Spanned<TerminalId>,
    name: String,
    site: Spanned<SiteId>,
}

const MAX_SITES: usize = 1_000;
/// 128 MB of key bits.
const TARGET_KEYS_MAX: u32 = 4_000_000;

fn located(text: &str, at: &Range<usize>, field: &str, message: &str) -> NetworkError {
    let before = text.get(..at.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    NetworkError { line, column, field: field.to_owned(), message: message.to_owned() }
}

/// The field that a TOML error speaks of: the key on its line within the last table header above.
fn field_at(text: &str, at: &Range<usize>) -> String {
    let start = text.get(..at.start).map_or(0, |before| before.rfind('\n').map_or(0, |newline| newline + 1));
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let key = line.split('=').next().unwrap_or_default().trim();
    let table = text
        .get(..start)
        .unwrap_or_default()
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix('[').map(|table| table.trim_matches(['[', ']']).to_owned()));
    match table {
        Some(table) if !key.starts_with('[') && !key.is_empty() => format!("{table}.{key}"),
        _ if key.is_empty() => "file".to_owned(),
        _ => key.trim_matches(['[', ']']).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHANXI: &str = include_str!("../../../../networks/shanxi.toml");

    #[test]
    fn the_reference_network_is_the_ring_of_paper_1() {
        let network = Network::parse(SHANXI).unwrap();
        let lengths: f64 = network.links().values().map(|link| link.length.0).sum();
        assert_eq!(lengths, 580.0);
        assert_eq!(network.sites().len(), 5);
        for site in network.sites().keys() {
            assert_eq!(network.links_of(site).count(), 2, "{site} has two neighbours in a ring");
        }
    }

    #[test]
    fn every_fault_is_named_with_line_and_field() {
        let cases = [
            ("length_km = 50.0", "length_km = -1.0", "link.length_km", "above 0"),
            ("alice = \"taiyuan\"", "alice = \"beijing\"", "link.alice", "no [[site]] has the id beijing"),
            ("hardware = \"s1\"", "hardware = \"s9\"", "link.hardware", "no [hardware.s9]"),
            ("efficiency = 0.2", "efficiency = 1.2", "hardware.s1.efficiency", "at most 1"),
            ("clock_hz = 900e6", "clock_hz = \"fast\"", "hardware.s1.clock_hz", "expected f64"),
            ("name = \"shanxi\"", "name = \"shanxi\"\ncolour = 3", "colour", "unknown field"),
            ("epsilon_secrecy = 1e-10", "epsilon_secrecy = 0.5", "security.epsilon_secrecy", "1e-30"),
            ("length_km = 50.0", "length_km = 50.0\nproof = \"wiesemann2026\"", "link.proof", "one decoy"),
            ("length_km = 50.0", "length_km = 50.0\nproof = \"own2027\"", "link.proof", "unknown variant"),
            ("length_km = 50.0", "length_km = 50.0\nenvironment = { swing_k = -1 }", "environment.swing_k", "60 K"),
            ("[0.100, 0.028, 0.0002]", "[0.1]", "decoy", "two or three"),
            ("[0.100, 0.028, 0.0002]", "[0.1, 0.02]", "decoy", "as many as"),
        ];
        for (from, to, field, message) in cases {
            let broken = SHANXI.replacen(from, to, 1);
            assert_ne!(broken, SHANXI, "{from} must stand in the file");
            let error = Network::parse(&broken).unwrap_err();
            assert!(error.field.contains(field), "{to}: {error}");
            assert!(error.message.contains(message), "{to}: {error}");
            assert!(error.line > 1 || field == "colour", "{to}: {error}");
        }
    }

    #[test]
    fn a_link_with_one_decoy_takes_the_newest_proof() {
        let one = SHANXI.replacen("[0.100, 0.028, 0.0002]", "[0.5, 0.15]", 1).replacen(
            "[0.050, 0.36385, 0.58615]",
            "[0.7, 0.3]",
            1,
        );
        let network = Network::parse(&one).unwrap();
        let links: Vec<_> = network.links().values().collect();
        assert_eq!(links.iter().filter(|link| link.proof == Proof::Wiesemann2026).count(), 1);
        assert_eq!(links.iter().filter(|link| link.proof == Proof::Lim2014).count(), 4);
    }

    /// The sample link of the guide, put into a network of two sites.
    #[test]
    fn the_guides_sample_is_a_link() {
        let guide = include_str!("../../../../docs/guide/links.md");
        let from = guide.find("```toml\n[[link]]\nid = \"east-west\"\nalice").expect("the sample stands in the guide");
        let sample = guide[from..].trim_start_matches("```toml\n").split("```").next().unwrap();
        let site = |id| format!("[[site]]\nid = \"{id}\"\nname = \"\"\nlatitude = 0.0\nlongitude = 0.0\n");
        let head = SHANXI.split("[[site]]").next().unwrap();
        let network = Network::parse(&[head, &site("east"), &site("west"), sample].concat()).unwrap();
        let link = network.links().values().next().unwrap();
        assert_eq!(link.coexistence.as_ref().map(|shared| shared.channels.len()), Some(2));
        assert!(link.environment.is_some());
    }

    #[test]
    fn no_input_panics() {
        for end in 0..SHANXI.len() {
            if let Some(cut) = SHANXI.get(..end) {
                let _ = Network::parse(cut);
            }
        }
    }
}
