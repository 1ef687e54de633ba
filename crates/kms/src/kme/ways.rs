//! Which way a batch takes: the routes that the controller gives, less what lately failed.
//!
//! A batch that is neither acknowledged nor said to wait in time was lost on its way. Whichever site between the ends,
//! and whichever hop, let nothing of ours pass since then is suspected and avoided while there is another way; the first
//! batch that comes through clears it. So a site that forwards to all neighbours but one is not avoided for the others,
//! and what it sends to that one does not seem safe because of them. A hop that was refused is avoided for a moment, so that the next batch tries another way.
//! Ways of which one changed what it carried are charged; those with less charge come first.

use std::collections::BTreeMap;
use std::time::Duration;

use types::id::SiteId;
use types::units::Time;

use crate::config::{AVOID_FOR, CHARGED_FOR, Config, PATH_MAX, ROUTES_MAX, SUSPECT_FOR};
use crate::wish::Fit;

/// Ways to all sites and what is known of their sites.
#[derive(Debug, Default)]
pub(super) struct Ways {
    routes: BTreeMap<SiteId, Vec<Vec<SiteId>>>,
    suspects: BTreeMap<SiteId, Suspect>,
    /// When something of ours last came through a site.
    passed: BTreeMap<SiteId, Time>,
    /// The same for hops.
    hops_suspected: BTreeMap<Hop, Suspect>,
    hops_passed: BTreeMap<Hop, Time>,
    avoided: BTreeMap<Hop, Time>,
    charges: BTreeMap<SiteId, Charge>,
}

/// Failures to confirm that a site may have caused.
#[derive(Clone, Copy, Debug, Default)]
struct Charge {
    /// Thousandths of a failure: each is shared by all ways of its batch.
    thousandths: u32,
    until: Time,
}

/// From one site to the next.
type Hop = (SiteId, SiteId);

#[derive(Clone, Copy, Debug)]
struct Suspect {
    until: Time,
    strikes: u32,
}

impl Suspect {
    /// Suspected again, for longer. What is heard while it is suspected says nothing new.
    fn again(before: Option<Self>, now: Time) -> Self {
        let Some(before) = before else { return Self { until: now.after(SUSPECT_FOR), strikes: 0 } };
        if now < before.until {
            return before;
        }
        let strikes = (before.strikes + 1).min(5);
        Self { until: now.after(SUSPECT_FOR * (1 << strikes)), strikes }
    }
}

impl Ways {
    /// Takes new routes; what is no way from here to the site that it stands under is left out.
    pub(super) fn replace(&mut self, here: &SiteId, routes: BTreeMap<SiteId, Vec<Vec<SiteId>>>) {
        let is_way = |to: &SiteId, path: &[SiteId]| {
            let once = (1..path.len()).all(|at| !path[..at].contains(&path[at]));
            (2..=PATH_MAX).contains(&path.len()) && path.first() == Some(here) && path.last() == Some(to) && once
        };
        let sound = |(to, paths): (SiteId, Vec<Vec<SiteId>>)| {
            let mut ways: Vec<Vec<SiteId>> = Vec::new();
            for path in paths.into_iter().filter(|path| is_way(&to, path)) {
                if ways.len() < ROUTES_MAX && !ways.contains(&path) {
                    ways.push(path);
                }
            }
            (!ways.is_empty()).then_some((to, ways))
        };
        self.routes = routes.into_iter().filter_map(sound).collect();
        let routes = &self.routes;
        let used = |site: &SiteId| routes.values().flatten().any(|path| path.contains(site));
        self.suspects.retain(|site, _| used(site));
        self.passed.retain(|site, _| used(site));
        let hop_used = |(from, to): &Hop| used(from) && used(to);
        self.avoided.retain(|hop, _| hop_used(hop));
        self.hops_suspected.retain(|hop, _| hop_used(hop));
        self.hops_passed.retain(|hop, _| hop_used(hop));
        self.charges.retain(|site, _| used(site));
    }

    /// Whether keys that are right could ever be made with the ways to a site.
    pub(super) fn can_meet(&self, to: &SiteId, fit: &Fit) -> bool {
        let all: Vec<&Vec<SiteId>> = self.routes.get(to).into_iter().flatten().collect();
        apart(&all, usize::from(fit.paths()), fit).is_some()
    }

    /// As many ways to a site as are wanted, have no site in common and together are right, at least `least`. Ways
    /// that `usable` refuses are left out; doubtful ones are taken only if nothing else is there, charged ones last.
    pub(super) fn choose(
        &self,
        now: Time,
        to: &SiteId,
        (least, wanted): (u8, u8),
        fit: &Fit,
        usable: impl Fn(&[SiteId]) -> bool,
    ) -> Option<Vec<Vec<SiteId>>> {
        let mut all: Vec<&Vec<SiteId>> = self.routes.get(to)?.iter().filter(|path| usable(path)).collect();
        if !self.charges.is_empty() {
            all.sort_by_key(|path| self.charge(now, path));
        }
        let sound: Vec<&Vec<SiteId>> = all.iter().filter(|path| !self.is_doubtful(now, path)).copied().collect();
        let mut counts = [&sound, &all]
            .into_iter()
            .flat_map(|ways| (least.max(1)..=wanted).rev().map(move |count| (ways, usize::from(count))));
        let chosen = counts.find_map(|(ways, count)| apart(ways, count, fit))?;
        Some(chosen.into_iter().cloned().collect())
    }

    /// Whether a site of the way is suspected or one of its hops was refused lately.
    pub(super) fn is_doubtful(&self, now: Time, path: &[SiteId]) -> bool {
        let suspected = |site: &SiteId| self.suspects.get(site).is_some_and(|suspect| now < suspect.until);
        let doubtful = |hop: Hop| {
            self.avoided.get(&hop).is_some_and(|until| now < *until)
                || self.hops_suspected.get(&hop).is_some_and(|suspect| now < suspect.until)
        };
        let none = self.avoided.is_empty() && self.hops_suspected.is_empty();
        inner(path).iter().any(suspected) || (!none && hops(path).any(doubtful))
    }

    /// Something came through all sites but the last of a part of a way that begins here.
    pub(super) fn came_through(&mut self, now: Time, part: &[SiteId]) {
        for site in inner(part) {
            self.passed.insert(site.clone(), now);
            self.suspects.remove(site);
        }
        for hop in hops(part) {
            self.hops_suspected.remove(&hop);
            self.hops_passed.insert(hop, now);
        }
    }

    /// What was sent over a way at `sent` got lost.
    pub(super) fn lost(&mut self, now: Time, path: &[SiteId], sent: Time) {
        for site in inner(path) {
            if self.passed.get(site).is_none_or(|passed| *passed < sent) {
                self.suspect(now, site);
            }
        }
        for hop in hops(path) {
            if self.hops_passed.get(&hop).is_none_or(|passed| *passed < sent) {
                let suspect = Suspect::again(self.hops_suspected.get(&hop).copied(), now);
                self.hops_suspected.insert(hop, suspect);
            }
        }
    }

    /// A site seems to let nothing pass.
    pub(super) fn suspect(&mut self, now: Time, site: &SiteId) {
        let suspect = Suspect::again(self.suspects.get(site).copied(), now);
        self.suspects.insert(site.clone(), suspect);
    }

    /// A site speaks again.
    pub(super) fn clear(&mut self, site: &SiteId) {
        self.suspects.remove(site);
        self.hops_suspected.retain(|(from, to), _| from != site && to != site);
    }

    /// A batch over these ways was changed on one of them.
    pub(super) fn unconfirmed(&mut self, now: Time, ways: &[Vec<SiteId>]) {
        let part = 1_000 / u32::try_from(ways.len().max(1)).unwrap_or(u32::MAX);
        self.charges.retain(|_, charge| now < charge.until);
        for site in ways.iter().flat_map(|way| inner(way)) {
            let charge = self.charges.entry(site.clone()).or_default();
            *charge = Charge { thousandths: charge.thousandths.saturating_add(part), until: now.after(CHARGED_FOR) };
        }
    }

    /// A batch that came over this way among others was confirmed.
    pub(super) fn confirmed(&mut self, way: &[SiteId]) {
        for site in inner(way) {
            if let Some(charge) = self.charges.get_mut(site) {
                charge.thousandths -= charge.thousandths.div_ceil(8);
            }
        }
    }

    fn charge(&self, now: Time, way: &[SiteId]) -> u32 {
        let charge = |site: &SiteId| self.charges.get(site).filter(|charge| now < charge.until);
        inner(way).iter().filter_map(charge).map(|charge| charge.thousandths).max().unwrap_or_default()
    }

    /// A hop was refused.
    pub(super) fn refused(&mut self, now: Time, from: &SiteId, to: &SiteId) {
        self.avoided.retain(|_, until| now < *until);
        self.avoided.insert((from.clone(), to.clone()), now.after(AVOID_FOR));
    }
}

/// The first `count` ways that have no site in common but their ends and together are right.
fn apart<'a>(ways: &[&'a Vec<SiteId>], count: usize, fit: &Fit) -> Option<Vec<&'a Vec<SiteId>>> {
    fn more<'a>(chosen: &mut Vec<&'a Vec<SiteId>>, ways: &[&'a Vec<SiteId>], count: usize, fit: &Fit) -> bool {
        if count == 0 {
            return fit.is_right(chosen);
        }
        for (at, way) in ways.iter().enumerate() {
            let shares = |other: &[SiteId]| inner(other).iter().any(|site| inner(way).contains(site));
            let rest: Vec<&Vec<SiteId>> = ways[at + 1..].iter().filter(|other| !shares(other)).copied().collect();
            chosen.push(way);
            if more(chosen, &rest, count - 1, fit) {
                return true;
            }
            chosen.pop();
        }
        false
    }
    let mut chosen = Vec::with_capacity(count);
    more(&mut chosen, ways, count, fit).then_some(chosen)
}

/// The sites between the ends.
fn inner(path: &[SiteId]) -> &[SiteId] {
    path.get(1..path.len().saturating_sub(1)).unwrap_or_default()
}

fn hops(path: &[SiteId]) -> impl Iterator<Item = Hop> {
    path.windows(2).map(|hop| (hop[0].clone(), hop[1].clone()))
}

/// How long acknowledgements of one peer take, as RFC 6298 estimates it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AckTime {
    mean: Option<Duration>,
    spread: Duration,
}

impl AckTime {
    /// A relay that did not wait was acknowledged after `took`.
    pub(super) fn measured(&mut self, took: Duration) {
        match self.mean {
            None => (self.mean, self.spread) = (Some(took), took / 2),
            Some(mean) => {
                self.spread = (self.spread * 3 + mean.abs_diff(took)) / 4;
                self.mean = Some((mean * 7 + took) / 8);
            }
        }
    }

    /// How long to wait before a relay counts as lost.
    pub(super) fn timeout(&self, config: &Config) -> Duration {
        let Some(mean) = self.mean else { return config.relay_timeout };
        (mean + self.spread * 4).max(config.relay_timeout_min).min(config.relay_timeout)
    }
}

#[cfg(test)]
mod tests {
    use types::units::UtcNanos;

    use super::*;
    use crate::api::{RouteWish, Wishes};

    fn site(name: &str) -> SiteId {
        SiteId::new(name).unwrap()
    }

    fn path(sites: &str) -> Vec<SiteId> {
        sites.split(' ').map(site).collect()
    }

    fn ways(paths: &[&str]) -> Ways {
        let mut ways = Ways::default();
        let paths: Vec<Vec<SiteId>> = paths.iter().map(|sites| path(sites)).collect();
        ways.replace(&site("a"), BTreeMap::from([(site("z"), paths)]));
        ways
    }

    fn at(millis: u64) -> Time {
        Time::ZERO.after(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_no_way_from_here_is_left_out() {
        let ways = ways(&["a", "b z", "a b", "a b c b z", "a z", "a z", "a b z"]);
        assert_eq!(ways.routes[&site("z")], [path("a z"), path("a b z")]);
    }

    #[test]
    fn the_first_ways_that_are_apart_are_chosen_even_if_the_best_is_not_among_them() {
        let ways = ways(&["a b c z", "a b d z", "a e c z", "a z"]);
        let choose = |least, wanted| ways.choose(Time::ZERO, &site("z"), (least, wanted), &Fit::default(), |_| true);
        assert_eq!(choose(1, 1).unwrap(), [path("a b c z")]);
        assert_eq!(choose(2, 2).unwrap(), [path("a b c z"), path("a z")]);
        assert_eq!(choose(3, 3).unwrap(), [path("a b d z"), path("a e c z"), path("a z")]);
        assert_eq!(choose(4, 4), None);
        assert_eq!(choose(1, 4).unwrap().len(), 3);
    }

    #[test]
    fn wishes_that_no_way_meets_are_known_beforehand_and_others_choose_their_ways() {
        let fit = |change: fn(&mut Wishes)| {
            let mut wishes = Wishes::default();
            change(&mut wishes);
            Fit::new(&wishes, UtcNanos(1_000))
        };
        let ring = ways(&["a z", "a b c z", "a b d z"]);
        let can = |change| ring.can_meet(&site("z"), &fit(change));
        assert!(can(|w| w.paths = 2) && can(|w| (w.paths, w.route) = (2, RouteWish::Indirect)));
        assert!(!can(|w| w.paths = 3), "both long ways go over b");
        assert!(!can(|w| (w.paths, w.route) = (2, RouteWish::Direct)));
        assert!(can(|w| w.min_hops = Some(2)) && !can(|w| w.min_hops = Some(3)));
        assert!(!can(|w| (w.min_hops, w.max_hops) = (Some(1), Some(1))));
        assert!(!ring.can_meet(&site("y"), &fit(|_| {})));
        let choose = |change| ring.choose(Time::ZERO, &site("z"), (1, 1), &fit(change), |_| true);
        assert_eq!(choose(|w| w.route = RouteWish::Indirect).unwrap(), [path("a b c z")]);
        assert_eq!(choose(|w| w.max_hops = Some(1)).unwrap(), [path("a z")]);
    }

    #[test]
    fn only_sites_that_let_nothing_pass_are_suspected_and_the_first_batch_clears_them() {
        let mut ways = ways(&["a b c z", "a d e z"]);
        ways.came_through(at(900), &path("a b c"));
        ways.lost(at(1_000), &path("a b c z"), at(800));
        assert!(ways.is_doubtful(at(1_000), &path("a c z")) && !ways.is_doubtful(at(1_000), &path("a b z")));
        assert_eq!(ways.choose(at(1_000), &site("z"), (1, 1), &Fit::default(), |_| true).unwrap(), [path("a d e z")]);
        assert!(!ways.is_doubtful(at(3_000), &path("a c z")), "it is tried again");
        ways.lost(at(3_500), &path("a b c z"), at(3_100));
        assert!(ways.is_doubtful(at(7_000), &path("a c z")), "and avoided longer");
        ways.came_through(at(7_100), &path("a b c z"));
        assert!(!ways.is_doubtful(at(7_100), &path("a c z")));
        ways.refused(at(8_000), &site("b"), &site("c"));
        assert_eq!(ways.choose(at(8_500), &site("z"), (1, 1), &Fit::default(), |_| true).unwrap(), [path("a d e z")]);
        assert_eq!(
            ways.choose(at(8_500), &site("z"), (1, 1), &Fit::default(), |way| way[1] == site("b")).unwrap(),
            [path("a b c z")]
        );
        assert_eq!(ways.choose(at(9_000), &site("z"), (1, 1), &Fit::default(), |_| true).unwrap(), [path("a b c z")]);
    }

    #[test]
    fn a_hop_that_lets_nothing_pass_is_avoided_though_the_site_before_it_lets_others_pass() {
        let mut ways = ways(&["a b z", "a b c z", "a d e z"]);
        let chosen = |ways: &Ways, now| ways.choose(now, &site("z"), (1, 1), &Fit::default(), |_| true).unwrap();
        ways.came_through(at(900), &path("a b y"));
        ways.lost(at(1_000), &path("a b z"), at(800));
        assert_eq!(chosen(&ways, at(1_000)), [path("a b c z")], "b is alive, but not b to z");
        ways.lost(at(1_400), &path("a b c z"), at(1_000));
        assert_eq!(chosen(&ways, at(1_400)), [path("a d e z")]);
        ways.came_through(at(1_500), &path("a b z"));
        assert_eq!(chosen(&ways, at(1_500)), [path("a b z")]);
    }

    #[test]
    fn the_time_out_follows_what_is_measured_between_floor_and_ceiling() {
        let config = Config::new(site("a"));
        let mut time = AckTime::default();
        assert_eq!(time.timeout(&config), config.relay_timeout);
        (0..50).for_each(|_| time.measured(Duration::from_millis(3)));
        assert_eq!(time.timeout(&config), config.relay_timeout_min);
        (0..50).for_each(|n| time.measured(Duration::from_millis(if n % 2 == 0 { 100 } else { 200 })));
        let now = time.timeout(&config);
        assert!(now > Duration::from_millis(250) && now < Duration::from_millis(500), "{now:?}");
        (0..50).for_each(|_| time.measured(Duration::from_secs(9)));
        assert_eq!(time.timeout(&config), config.relay_timeout);
    }
}
