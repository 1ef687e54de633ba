//! Which keys of a stock a request may take.

use types::id::SiteId;
use types::units::UtcNanos;

use crate::api::{RouteWish, Wishes};
use crate::origin::Origin;

/// What a wish asks of the way and the age of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fit {
    not_before: Option<UtcNanos>,
    hops_min: usize,
    hops_max: Option<usize>,
    combined_min: u8,
}

impl Fit {
    /// What the wishes ask at `now`.
    pub(crate) fn new(wishes: &Wishes, now: UtcNanos) -> Self {
        let age = |age: std::time::Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let (route_min, route_max) = match wishes.route {
            RouteWish::Any => (0, None),
            RouteWish::Direct => (0, Some(0)),
            RouteWish::Indirect => (1, None),
        };
        let hops_max = [wishes.max_hops.map(usize::from), route_max].into_iter().flatten().min();
        Self {
            not_before: wishes.max_age.map(|max| UtcNanos(now.0.saturating_sub(age(max)))),
            hops_min: usize::from(wishes.min_hops.unwrap_or_default()).max(route_min),
            hops_max,
            combined_min: if wishes.paths > 1 { wishes.paths } else { 0 },
        }
    }

    /// Whether every key of every way is right.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether key that never leaves its site is right.
    pub(crate) fn is_met_at_home(&self) -> bool {
        self.hops_min == 0 && self.combined_min == 0
    }

    /// The oldest key that is right was made then; `None` if age does not matter.
    pub(crate) fn not_before(&self) -> Option<UtcNanos> {
        self.not_before
    }

    /// The same of the way, but keys of any age are right.
    pub(crate) fn of_any_age(&self) -> Self {
        Self { not_before: None, ..self.clone() }
    }

    /// Whether keys of every way are right.
    pub(crate) fn is_any_way(&self) -> bool {
        self.of_any_age().is_any()
    }

    /// From how many ways the keys must be combined, at least 1.
    pub(crate) fn paths(&self) -> u8 {
        self.combined_min.max(1)
    }

    /// Whether keys that came like this are right, whatever their age. Of keys whose way was not noted only one
    /// who asks nothing of the way is content.
    pub(crate) fn ways(&self, origin: &Origin) -> bool {
        if origin.paths.is_empty() {
            return self.is_any_way();
        }
        self.is_right(&origin.paths) && origin.combined >= self.combined_min
    }

    /// Whether keys over these ways have passed as many trusted nodes as they may, whatever they are combined from.
    pub(crate) fn is_right(&self, ways: &[impl AsRef<[SiteId]>]) -> bool {
        let hops = ways.iter().map(|way| way.as_ref().len().saturating_sub(2)).max().unwrap_or_default();
        hops >= self.hops_min && self.hops_max.is_none_or(|max| hops <= max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ways(ways: &[&str]) -> Vec<Vec<SiteId>> {
        let path = |way: &&str| way.split('-').map(|site| SiteId::new(site).unwrap()).collect();
        ways.iter().map(path).collect()
    }

    fn fit(change: fn(&mut Wishes)) -> Fit {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        Fit::new(&wishes, UtcNanos(1_000))
    }

    #[test]
    fn wishes_choose_ways() {
        type Change = fn(&mut Wishes);
        let direct = Origin::new(ways(&["a-z"]), UtcNanos(5));
        let long = Origin::new(ways(&["a-b-c-z"]), UtcNanos(5));
        let both = Origin::new(ways(&["a-z", "a-b-z"]), UtcNanos(5));
        let unknown = Origin::default();
        let cases: [(Change, [bool; 4]); 7] = [
            (|_| {}, [true, true, true, true]),
            (|w| w.route = RouteWish::Direct, [true, false, false, false]),
            (|w| w.route = RouteWish::Indirect, [false, true, true, false]),
            (|w| w.min_hops = Some(2), [false, true, false, false]),
            (|w| w.max_hops = Some(1), [true, false, true, false]),
            (|w| w.paths = 2, [false, false, true, false]),
            (|w| w.max_age = Some(Duration::from_nanos(1)), [true, true, true, true]),
        ];
        for (case, (change, expected)) in cases.into_iter().enumerate() {
            let fit = fit(change);
            assert_eq!([&direct, &long, &both, &unknown].map(|origin| fit.ways(origin)), expected, "case {case}");
        }
        assert_eq!(fit(|w| w.max_age = Some(Duration::from_nanos(100))).not_before(), Some(UtcNanos(900)));
    }
}
