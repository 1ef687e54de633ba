//! What each SAE may draw: a token bucket per SAE, and one per SAE and other site for its share of that stock.
//!
//! A request is charged when it is admitted and gets its tokens back when it is refused. SAEs without a policy are
//! not limited.

use std::collections::BTreeMap;
use std::time::Duration;

use types::id::{RequestId, SaeId, SiteId};
use types::units::Time;

use crate::api::{Refusal, SaePolicy};

/// Keys of 256 bit that a request draws from one stock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draw {
    pub(crate) peer: SiteId,
    pub(crate) keys: usize,
    /// Keys that the stock is filled up to, and keys made for it per second.
    pub(crate) target: u32,
    pub(crate) made_per_second: f64,
}

/// All policies and buckets.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    saes: BTreeMap<SaeId, Limits>,
    charges: BTreeMap<RequestId, Charge>,
    standard: SaePolicy,
}

#[derive(Debug)]
struct Limits {
    policy: SaePolicy,
    rate: Bucket,
    shares: BTreeMap<SiteId, Bucket>,
}

#[derive(Debug)]
struct Charge {
    sae: SaeId,
    keys: usize,
    draws: Vec<Draw>,
}

/// Tokens taken and not come back yet.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    taken: f64,
    at: Time,
}

impl Bucket {
    fn settle(&mut self, now: Time, per_second: f64) {
        self.taken = (self.taken - per_second * now.since(self.at).as_secs_f64()).max(0.0);
        self.at = now;
    }

    /// How long until `keys` can be taken; `None` if never.
    fn wait(&self, keys: usize, capacity: f64, per_second: f64) -> Option<Duration> {
        let keys = as_f64(keys);
        if keys > capacity {
            return None;
        }
        let over = self.taken + keys - capacity;
        if over <= 0.0 { Some(Duration::ZERO) } else { Some(bounded(over / per_second)) }
    }
}

impl Quotas {
    /// No policy; every SAE waits as long as is said.
    pub(crate) fn new(wait: Duration) -> Self {
        Self { standard: SaePolicy { wait, ..SaePolicy::default() }, ..Self::default() }
    }

    /// Replaces all policies; what was drawn stays drawn.
    pub(crate) fn replace(&mut self, policies: BTreeMap<SaeId, SaePolicy>) {
        let mut before = std::mem::take(&mut self.saes);
        self.saes = policies
            .into_iter()
            .map(|(sae, policy)| {
                let (rate, shares) = before.remove(&sae).map(|l| (l.rate, l.shares)).unwrap_or_default();
                (sae, Limits { policy, rate, shares })
            })
            .collect();
    }

    /// Whether classes and limits are in force.
    pub(crate) fn are_set(&self) -> bool {
        !self.saes.is_empty()
    }

    /// What an SAE may draw.
    pub(crate) fn policy(&self, sae: &SaeId) -> SaePolicy {
        self.saes.get(sae).map_or(self.standard, |limits| limits.policy)
    }

    /// Charges a request. All or nothing.
    pub(crate) fn charge(
        &mut self,
        now: Time,
        request: RequestId,
        sae: &SaeId,
        keys: usize,
        draws: &[Draw],
    ) -> Result<(), Refusal> {
        let Some(limits) = self.saes.get_mut(sae) else { return Ok(()) };
        let policy = limits.policy;
        let mut waits = Vec::new();
        if let Some(rate) = policy.rate {
            limits.rate.settle(now, rate.keys_per_second);
            waits.push(limits.rate.wait(keys, f64::from(rate.burst), rate.keys_per_second));
        }
        for draw in limited(&policy, draws) {
            let (capacity, per_second) = share(&policy, draw);
            let bucket = limits.shares.entry(draw.peer.clone()).or_default();
            bucket.settle(now, per_second);
            waits.push(bucket.wait(draw.keys, capacity, per_second));
        }
        let Some(waits) = waits.into_iter().collect::<Option<Vec<Duration>>>() else {
            return Err(Refusal::BadParameter { message: "this is more key than the SAE may draw at once".to_owned() });
        };
        if let Some(retry_after) = waits.into_iter().max().filter(|wait| !wait.is_zero()) {
            return Err(Refusal::OverQuota { retry_after });
        }
        if policy.rate.is_some() {
            limits.rate.taken += as_f64(keys);
        }
        for draw in limited(&policy, draws) {
            limits.shares.entry(draw.peer.clone()).or_default().taken += as_f64(draw.keys);
        }
        self.charges.insert(request, Charge { sae: sae.clone(), keys, draws: draws.to_vec() });
        Ok(())
    }

    /// The request was met.
    pub(crate) fn settle(&mut self, request: RequestId) {
        self.charges.remove(&request);
    }

    /// The request was refused.
    pub(crate) fn refund(&mut self, request: RequestId) {
        let Some(charge) = self.charges.remove(&request) else { return };
        let Some(limits) = self.saes.get_mut(&charge.sae) else { return };
        limits.rate.taken = (limits.rate.taken - as_f64(charge.keys)).max(0.0);
        for draw in &charge.draws {
            if let Some(bucket) = limits.shares.get_mut(&draw.peer) {
                bucket.taken = (bucket.taken - as_f64(draw.keys)).max(0.0);
            }
        }
    }
}

fn limited<'a>(policy: &SaePolicy, draws: &'a [Draw]) -> impl Iterator<Item = &'a Draw> {
    let limited = policy.stock_share_percent < 100;
    draws.iter().filter(move |_| limited)
}

/// Capacity and refill of a share: of the stock, and of what is made for it; all of it at least once an hour.
fn share(policy: &SaePolicy, draw: &Draw) -> (f64, f64) {
    let share = f64::from(policy.stock_share_percent) / 100.0;
    let capacity = share * f64::from(draw.target);
    (capacity, (share * draw.made_per_second).max(capacity / 3_600.0))
}

/// A wait as it is told: 1 second to 1 hour.
pub(crate) fn bounded(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds)
        .unwrap_or(Duration::MAX)
        .clamp(Duration::from_secs(1), Duration::from_secs(3_600))
}

/// Key counts are small enough to be exact.
pub(crate) fn as_f64(keys: usize) -> f64 {
    f64::from(u32::try_from(keys).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Priority, TokenRate};

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    fn sae() -> SaeId {
        SaeId::new("s").unwrap()
    }

    fn quotas(policy: SaePolicy) -> Quotas {
        let mut quotas = Quotas::new(Duration::ZERO);
        quotas.replace(BTreeMap::from([(sae(), policy)]));
        quotas
    }

    #[test]
    fn a_bucket_empties_refills_and_gets_back_what_was_refused() {
        let rate = Some(TokenRate { keys_per_second: 2.0, burst: 10 });
        let mut quotas = quotas(SaePolicy { rate, ..SaePolicy::default() });
        let over = |seconds| Err(Refusal::OverQuota { retry_after: Duration::from_secs(seconds) });
        assert_eq!(quotas.charge(at(0), RequestId(1), &sae(), 10, &[]), Ok(()));
        assert_eq!(quotas.charge(at(0), RequestId(2), &sae(), 8, &[]), over(4));
        assert_eq!(quotas.charge(at(1), RequestId(2), &sae(), 3, &[]), over(1));
        assert_eq!(quotas.charge(at(1), RequestId(2), &sae(), 2, &[]), Ok(()));
        quotas.refund(RequestId(2));
        quotas.refund(RequestId(2));
        quotas.settle(RequestId(1));
        quotas.refund(RequestId(1));
        assert_eq!(quotas.charge(at(1), RequestId(3), &sae(), 3, &[]), over(1));
        assert_eq!(quotas.charge(at(1), RequestId(3), &sae(), 2, &[]), Ok(()));
        assert!(matches!(quotas.charge(at(99), RequestId(4), &sae(), 11, &[]), Err(Refusal::BadParameter { .. })));
        assert_eq!(quotas.charge(at(1), RequestId(5), &SaeId::new("t").unwrap(), 99, &[]), Ok(()));
    }

    #[test]
    fn a_share_is_of_each_stock_and_of_what_is_made_for_it() {
        let mut quotas = quotas(SaePolicy { stock_share_percent: 25, ..SaePolicy::default() });
        assert_eq!(quotas.policy(&sae()).priority, Priority::Other);
        let draw =
            |peer: &str, keys| Draw { peer: SiteId::new(peer).unwrap(), keys, target: 100, made_per_second: 4.0 };
        assert_eq!(quotas.charge(at(0), RequestId(1), &sae(), 20, &[draw("b", 20)]), Ok(()));
        let refused = quotas.charge(at(0), RequestId(2), &sae(), 12, &[draw("c", 6), draw("b", 6)]);
        assert_eq!(refused, Err(Refusal::OverQuota { retry_after: Duration::from_secs(1) }));
        assert_eq!(quotas.charge(at(0), RequestId(2), &sae(), 25, &[draw("c", 25)]), Ok(()));
        assert_eq!(quotas.charge(at(1), RequestId(3), &sae(), 6, &[draw("b", 6)]), Ok(()));
    }
}
