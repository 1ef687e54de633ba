//! Several ways from one site to another: the cheapest, those that share no site between the ends, detours.
//!
//! Ways without a common site come from a flow of least cost: every site between the ends is cut in two and joined by
//! an arc that carries one way only; each augmentation along a cheapest path of the residual graph adds one way and
//! may lead earlier ones round (Suurballe 1974). Graphs are small, so the search is Bellman and Ford's.

use std::collections::BTreeSet;

/// Hops between sites that are numbered from 0, with their price.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// From each site: to which, at what price. Ascending, each neighbour once.
    hops: Vec<Vec<(usize, u64)>>,
}

#[derive(Clone, Copy, Debug)]
struct Arc {
    to: usize,
    cost: i64,
    free: bool,
    /// The opposite arc.
    back: usize,
}

/// The residual graph of a flow of one unit per way.
struct Flow {
    arcs: Vec<Arc>,
    from: Vec<Vec<usize>>,
}

impl Graph {
    /// A graph of `sites` sites without hops.
    pub(crate) fn new(sites: usize) -> Self {
        Self { hops: vec![Vec::new(); sites] }
    }

    /// Adds a hop; of two between the same sites the cheaper counts.
    pub(crate) fn add(&mut self, from: usize, to: usize, price: u64) {
        match self.hops[from].binary_search_by_key(&to, |hop| hop.0) {
            Ok(at) => self.hops[from][at].1 = self.hops[from][at].1.min(price),
            Err(at) => self.hops[from].insert(at, (to, price)),
        }
    }

    /// Up to [`WAYS_MAX`] ways, the cheapest first; among equal ones the order is fixed but differs from pair to
    /// pair, so that load spreads. Whenever `k` ways without a common site exist, for `k` up to [`APART_MAX`], `k`
    /// such ways are among them.
    pub(crate) fn ways(&self, from: usize, to: usize) -> Vec<Vec<usize>> {
        let mut found: BTreeSet<Vec<usize>> = BTreeSet::new();
        let mut flow = Flow::new(self, from, to);
        while found.len() < WAYS_MAX && flow.augment(2 * from + 1, 2 * to) {
            let ways = flow.ways(from, to);
            let last = ways.len() == APART_MAX;
            found.extend(ways);
            if last {
                break;
            }
        }
        // Detours: sites of known ways get dearer, so that another way is found where only a part can be avoided.
        let mut met = vec![0_u64; self.hops.len()];
        let mark = |met: &mut Vec<u64>, way: &[usize]| way[1..way.len() - 1].iter().for_each(|site| met[*site] += 1);
        found.iter().for_each(|way| mark(&mut met, way));
        while !found.is_empty() && found.len() < WAYS_MAX {
            let Some(way) = self.cheapest(from, to, &met) else { break };
            mark(&mut met, &way);
            if !found.insert(way) {
                break;
            }
        }
        let mut ways: Vec<Vec<usize>> = found.into_iter().collect();
        ways.sort_by_key(|way| (self.price(way), way.len(), scatter(way)));
        ways
    }

    /// The price of a way.
    pub(crate) fn price(&self, way: &[usize]) -> u64 {
        let hop = |pair: &[usize]| self.hops[pair[0]].iter().find(|hop| hop.0 == pair[1]).map_or(0, |hop| hop.1);
        way.windows(2).map(hop).sum()
    }

    fn cheapest(&self, from: usize, to: usize, met: &[u64]) -> Option<Vec<usize>> {
        let mut best: Vec<Option<(u64, usize)>> = vec![None; self.hops.len()];
        let mut open = BTreeSet::from([(0, from)]);
        best[from] = Some((0, from));
        while let Some((cost, site)) = open.pop_first() {
            if site == to {
                break;
            }
            for &(next, price) in &self.hops[site] {
                let cost = cost + price + met[next] * DETOUR_PRICE;
                if best[next].is_none_or(|known| cost < known.0) {
                    if let Some((old, _)) = best[next] {
                        open.remove(&(old, next));
                    }
                    best[next] = Some((cost, site));
                    open.insert((cost, next));
                }
            }
        }
        let mut way = vec![to];
        while way[way.len() - 1] != from {
            way.push(best[way[way.len() - 1]]?.1);
        }
        way.reverse();
        Some(way)
    }
}

impl Flow {
    fn new(graph: &Graph, from: usize, to: usize) -> Self {
        let sites = graph.hops.len();
        let mut flow = Self { arcs: Vec::new(), from: vec![Vec::new(); 2 * sites] };
        for site in (0..sites).filter(|site| *site != from && *site != to) {
            flow.join(2 * site, 2 * site + 1, 0);
        }
        for (site, hops) in graph.hops.iter().enumerate() {
            for &(next, price) in hops {
                flow.join(2 * site + 1, 2 * next, i64::try_from(price).unwrap_or(i64::MAX / 1_000_000));
            }
        }
        flow
    }

    fn join(&mut self, one: usize, other: usize, cost: i64) {
        let at = self.arcs.len();
        self.arcs.push(Arc { to: other, cost, free: true, back: at + 1 });
        self.arcs.push(Arc { to: one, cost: -cost, free: false, back: at });
        self.from[one].push(at);
        self.from[other].push(at + 1);
    }

    /// Adds one way along the cheapest path of the residual graph; `false` if there is none.
    fn augment(&mut self, source: usize, sink: usize) -> bool {
        let mut cost: Vec<Option<i64>> = vec![None; self.from.len()];
        let mut by: Vec<Option<usize>> = vec![None; self.from.len()];
        cost[source] = Some(0);
        let mut due = std::collections::VecDeque::from([source]);
        while let Some(node) = due.pop_front() {
            let Some(here) = cost[node] else { continue };
            for &at in &self.from[node] {
                let arc = self.arcs[at];
                if arc.free && cost[arc.to].is_none_or(|known| here + arc.cost < known) {
                    cost[arc.to] = Some(here + arc.cost);
                    by[arc.to] = Some(at);
                    if !due.contains(&arc.to) {
                        due.push_back(arc.to);
                    }
                }
            }
        }
        let mut node = sink;
        while node != source {
            let Some(at) = by[node] else { return false };
            let back = self.arcs[at].back;
            self.arcs[at].free = false;
            self.arcs[back].free = true;
            node = self.arcs[back].to;
        }
        true
    }

    /// The ways that the flow is made of.
    fn ways(&self, from: usize, to: usize) -> Vec<Vec<usize>> {
        // An arc of even number is one of the graph; it carries a way if it is not free.
        let next = |site: usize| {
            let used = self.from[2 * site + 1].iter().filter(|at| *at % 2 == 0 && !self.arcs[**at].free);
            used.map(|at| self.arcs[*at].to / 2).collect::<Vec<usize>>()
        };
        let mut ways = Vec::new();
        for first in next(from) {
            let mut way = vec![from, first];
            while way[way.len() - 1] != to {
                match next(way[way.len() - 1]).first() {
                    Some(site) => way.push(*site),
                    None => break,
                }
            }
            ways.push(way);
        }
        ways
    }
}

/// A fixed number of a way that looks random (FNV-1a).
fn scatter(way: &[usize]) -> u64 {
    way.iter().fold(0xcbf2_9ce4_8422_2325, |hash, site| (hash ^ *site as u64).wrapping_mul(0x0100_0000_01b3)) >> 20
}

/// Most ways to one site.
pub(crate) const WAYS_MAX: usize = 6;
/// Most ways without a common site that are looked for.
pub(crate) const APART_MAX: usize = 3;
/// What a site on a known way costs more when detours are looked for.
const DETOUR_PRICE: u64 = 10_000;

#[cfg(test)]
mod tests;
