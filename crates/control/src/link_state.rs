//! The newest word of every site about its links, and the routes that follow.
//!
//! A hop from `u` to `v` is usable if both ends lately said that they reach each other, and `u` has key for at least
//! one relayed batch or the link makes key. A link that makes none is used as long as its stock lasts. A hop costs
//!
//! ```text
//! cost = 1000 + 1000 * R / (R + stock + 60 s * rate) + 250 * min(4, overload)      R = 65,536 bit
//! overload = whole part of demand / (rate + stock / 60 s) - 1, not below 0
//! ```
//! so that a hop costs between 1000 (much key to spare) and 3000 (far more is asked than it has): fewer hops win,
//! unless they are poor in key and the way round is rich. Demand counts in whole steps only, so that traffic which just
//! fills a link does not swing from one way to the other. Equal costs are broken by fewer hops, then by the ids of the
//! sites ([`LinkStateTable::routes`]) or by a fixed scatter over pairs ([`LinkStateTable::ways`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use types::id::{LinkId, SiteId};
use types::units::{BitLen, Time};

use crate::Error;
use crate::advertisement::{Advertisement, LinkReport};
use crate::topology::Topology;
use crate::ways::Graph;

/// What became of an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the newest of its origin; pass it on.
    New,
    /// It is known or older.
    Old,
}

/// The newest advertisement of every site, while it is fresh.
#[derive(Clone, Debug)]
pub struct LinkStateTable {
    topology: Topology,
    ttl: Duration,
    origins: BTreeMap<SiteId, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    seq: u64,
    expires: Time,
    links: BTreeMap<LinkId, LinkReport>,
}

impl LinkStateTable {
    /// An empty table; an advertisement counts for `ttl` after it came.
    #[must_use]
    pub fn new(topology: Topology, ttl: Duration) -> Self {
        Self { topology, ttl, origins: BTreeMap::new() }
    }

    /// The topology that it works on.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Takes an advertisement whose signature was checked.
    ///
    /// # Errors
    /// [`Error::UnknownSite`] or [`Error::NotItsLink`]; the table is unchanged then.
    pub fn accept(&mut self, now: Time, advertisement: Advertisement) -> Result<Accepted, Error> {
        let Advertisement { origin, seq, links } = advertisement;
        if !self.topology.sites().contains(&origin) {
            return Err(Error::UnknownSite { site: origin });
        }
        let mut reports = BTreeMap::new();
        for report in links {
            let link = report.link.clone();
            if !self.topology.ends_at(&link, &origin) || reports.insert(link.clone(), report).is_some() {
                return Err(Error::NotItsLink { site: origin, link });
            }
        }
        if self.origins.get(&origin).is_some_and(|entry| entry.seq >= seq) {
            return Ok(Accepted::Old);
        }
        let expires = now.after(self.ttl);
        self.origins.insert(origin, Entry { seq, expires, links: reports });
        Ok(Accepted::New)
    }

    /// When routes may change because an advertisement expires.
    #[must_use]
    pub fn next_expiry(&self, now: Time) -> Option<Time> {
        self.origins.values().map(|entry| entry.expires).filter(|expires| *expires > now).min()
    }

    /// The fresh report of a site about a link.
    #[must_use]
    pub fn report(&self, now: Time, origin: &SiteId, link: &LinkId) -> Option<&LinkReport> {
        self.origins.get(origin).filter(|entry| now < entry.expires)?.links.get(link)
    }

    /// The cheapest way from a site to each site that can be reached, both ends included.
    #[must_use]
    pub fn routes(&self, now: Time, from: &SiteId) -> BTreeMap<SiteId, Vec<SiteId>> {
        let hops = self.hops(now);
        // Dijkstra; `before` holds the last site but one on the best way found.
        let mut best: BTreeMap<&SiteId, (Cost, Option<&SiteId>)> = BTreeMap::new();
        let mut open: BTreeSet<(Cost, &SiteId)> = BTreeSet::new();
        let mut closed: BTreeSet<&SiteId> = BTreeSet::new();
        if let Some(from) = self.topology.sites().get(from) {
            best.insert(from, (Cost::default(), None));
            open.insert((Cost::default(), from));
        }
        while let Some((cost, site)) = open.pop_first() {
            closed.insert(site);
            for (next, price) in hops.get(site).into_iter().flatten() {
                if closed.contains(next) {
                    continue;
                }
                let way = (Cost { price: cost.price + price, hops: cost.hops + 1 }, Some(site));
                match best.get(next) {
                    Some(known) if *known <= way => {}
                    known => {
                        if let Some((old, _)) = known {
                            open.remove(&(*old, *next));
                        }
                        open.insert((way.0, next));
                        best.insert(next, way);
                    }
                }
            }
        }
        let path = |to: &SiteId| {
            let mut path = vec![to.clone()];
            let mut at = best[to].1;
            while let Some(site) = at {
                path.push(site.clone());
                at = best[site].1;
            }
            path.reverse();
            path
        };
        best.keys().filter(|to| **to != from).map(|to| ((*to).clone(), path(to))).collect()
    }

    /// Several ways from a site to each site that can be reached, both ends included, the best first: if there are up
    /// to three ways without a common site between the ends, they are among them.
    #[must_use]
    pub fn ways(&self, now: Time, from: &SiteId) -> BTreeMap<SiteId, Vec<Vec<SiteId>>> {
        let sites: Vec<&SiteId> = self.topology.sites().iter().collect();
        let number: BTreeMap<&SiteId, usize> = sites.iter().enumerate().map(|(at, site)| (*site, at)).collect();
        let mut graph = Graph::new(sites.len());
        for (site, hops) in self.hops(now) {
            hops.into_iter().for_each(|(next, price)| graph.add(number[site], number[next], price));
        }
        let Some(here) = number.get(from) else { return BTreeMap::new() };
        let named = |way: Vec<usize>| way.into_iter().map(|at| sites[at].clone()).collect::<Vec<SiteId>>();
        let others = (0..sites.len()).filter(|there| there != here);
        let ways =
            others.map(|there| (sites[there].clone(), graph.ways(*here, there).into_iter().map(named).collect()));
        ways.filter(|(_, ways): &(SiteId, Vec<Vec<SiteId>>)| !ways.is_empty()).collect()
    }

    /// Usable hops from each site with their price.
    fn hops(&self, now: Time) -> BTreeMap<&SiteId, Vec<(&SiteId, u64)>> {
        let mut hops: BTreeMap<&SiteId, Vec<(&SiteId, u64)>> = BTreeMap::new();
        for (link, (one, other)) in self.topology.links() {
            for (from, to) in [(one, other), (other, one)] {
                let (Some(here), Some(there)) = (self.report(now, from, link), self.report(now, to, link)) else {
                    continue;
                };
                if here.up && there.up && (here.stock >= EMPTY_BELOW || here.rate.0 > 0.0) {
                    hops.entry(from).or_default().push((to, price(here)));
                }
            }
        }
        hops
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    price: u64,
    hops: u32,
}

/// A batch of 8 keys of 256 bit and its tag key: with less, nothing can be relayed.
const EMPTY_BELOW: BitLen = BitLen((8 + 1) * 256);
/// Stock at which a hop costs half more than a hop with endless stock.
const REFERENCE_BITS: u64 = 65_536;
const RATE_HORIZON_S: f64 = 60.0;

fn price(report: &LinkReport) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let whole = |bits: f64| bits.clamp(0.0, 1e15) as u64;
    let soon = whole(report.rate.0 * RATE_HORIZON_S);
    let asked = whole(report.demand.0 * RATE_HORIZON_S);
    let had = report.stock.0.min(1 << 60).saturating_add(soon);
    let overload = (asked / had.max(1)).saturating_sub(1).min(4);
    1_000 + 1_000 * REFERENCE_BITS / (REFERENCE_BITS + had) + 250 * overload
}

#[cfg(test)]
mod tests;
