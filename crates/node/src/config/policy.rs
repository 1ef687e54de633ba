//! `[policy]` in `node.toml`: what each SAE of the site may draw, and what of every stock is kept for whom. Read again
//! while the site runs.

use std::collections::BTreeMap;
use std::time::Duration;

use kms::{Priority, SaePolicy, TokenRate};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use types::id::{SaeId, SiteId};

use crate::failure::{Failure, Outcome};

/// `[policy]`. If there is none, every SAE is equal and unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyTable {
    /// What is kept for more urgent classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<ReserveConfig>,
    /// SAEs of this site that stand nowhere in `sae`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<PolicyConfig>,
    /// SAEs of this site by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sae: BTreeMap<SaeId, PolicyConfig>,
}

/// `[policy.default]`, `[policy.sae.ID]`: what an SAE may draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `telecontrol`, `telemetry`, `model` or `other`, the most urgent first.
    #[serde(serialize_with = "write_class", deserialize_with = "read_class")]
    pub class: Priority,
    /// How fast it may draw; no limit if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateConfig>,
    /// Percent of each stock, and of what is made for it, that it may draw; no limit if not said.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read_share")]
    pub stock_share: Option<u8>,
    /// How long its requests wait for key that lacks, unless they say it themselves.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read_wait")]
    pub wait_ms: Option<u64>,
}

/// `rate` of a policy: a bucket of tokens, one for every 256 bits of key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "RawRate")]
pub struct RateConfig {
    keys_per_second: f64,
    burst: u32,
}

/// `[policy.reserve]`: percent of each stock that less urgent classes leave to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "RawReserve")]
pub struct ReserveConfig {
    telecontrol: u8,
    telemetry: u8,
    model: u8,
}

impl PolicyTable {
    /// Whether the file says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The policy of every SAE of a site; empty if the file says nothing.
    ///
    /// # Errors
    /// If a name stands here that is no SAE of the site.
    pub fn of_site(&self, site: &SiteId, homes: &BTreeMap<SaeId, SiteId>) -> Outcome<BTreeMap<SaeId, SaePolicy>> {
        if self.is_empty() {
            return Ok(BTreeMap::new());
        }
        for sae in self.sae.keys() {
            let wrong = match homes.get(sae) {
                Some(home) if home == site => continue,
                Some(home) => Failure::new(format!("[policy.sae.{sae}]: site {home} serves this SAE, not {site}"))
                    .remedy(format!("move the table to the node.toml of {home}")),
                None => Failure::new(format!("[policy.sae.{sae}]: there is no such SAE"))
                    .remedy("correct the name; [sae] in the same file lists all of the network"),
            };
            return Err(wrong);
        }
        let standard = self.default.unwrap_or_default();
        let own = homes.iter().filter(|(_, home)| *home == site).map(|(sae, _)| sae.clone());
        Ok(own.map(|sae| (sae.clone(), self.sae.get(&sae).unwrap_or(&standard).policy())).collect())
    }

    /// Percent reserved for the three most urgent classes, if the file says it.
    #[must_use]
    pub fn reserve_percent(&self) -> Option<[u8; 3]> {
        self.reserve.map(|reserve| [reserve.telecontrol, reserve.telemetry, reserve.model])
    }
}

impl PolicyConfig {
    /// A class, and no limit.
    #[must_use]
    pub fn of_class(class: Priority) -> Self {
        Self { class, ..Self::default() }
    }

    fn policy(&self) -> SaePolicy {
        let rate = |rate: RateConfig| TokenRate { keys_per_second: rate.keys_per_second, burst: rate.burst };
        SaePolicy {
            priority: self.class,
            rate: self.rate.map(rate),
            stock_share_percent: self.stock_share.unwrap_or(100),
            wait: Duration::from_millis(self.wait_ms.unwrap_or_default()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    keys_per_second: f64,
    burst: u32,
}

impl TryFrom<RawRate> for RateConfig {
    type Error = String;

    fn try_from(RawRate { keys_per_second, burst }: RawRate) -> Result<Self, String> {
        if !(keys_per_second > 0.0 && keys_per_second <= RATE_MAX) {
            return Err(format!("rate: keys_per_second must be above 0 and at most {RATE_MAX}"));
        }
        if burst == 0 {
            return Err("rate: burst must be at least 1; it is the largest request that can ever be met".to_owned());
        }
        Ok(Self { keys_per_second, burst })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReserve {
    telecontrol: u8,
    telemetry: u8,
    model: u8,
}

impl TryFrom<RawReserve> for ReserveConfig {
    type Error = String;

    fn try_from(RawReserve { telecontrol, telemetry, model }: RawReserve) -> Result<Self, String> {
        let sum = u32::from(telecontrol) + u32::from(telemetry) + u32::from(model);
        if sum >= 100 {
            return Err(format!("reserve: together they must be below 100 percent and are {sum}"));
        }
        Ok(Self { telecontrol, telemetry, model })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
fn write_class<S: Serializer>(class: &Priority, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.name())
}

fn read_class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Priority, D::Error> {
    let name = String::deserialize(deserializer)?;
    Priority::from_name(&name).ok_or_else(|| {
        let names: Vec<_> = Priority::ALL.iter().map(|class| class.name()).collect();
        de::Error::custom(format!("class must be one of {}", names.join(", ")))
    })
}

fn read_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if !(1..=100).contains(&percent) {
        return Err(de::Error::custom("stock_share is a percentage, 1 to 100"));
    }
    Ok(Some(percent))
}

fn read_wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let wait = u64::deserialize(deserializer)?;
    if wait > WAIT_MAX_MS {
        return Err(de::Error::custom(format!("wait_ms must be at most {WAIT_MAX_MS}")));
    }
    Ok(Some(wait))
}

const RATE_MAX: f64 = 1e6;
/// No request waits longer than this.
const WAIT_MAX_MS: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn homes() -> BTreeMap<SaeId, SiteId> {
        let pair = |(sae, site)| (SaeId::new(sae).unwrap(), SiteId::new(site).unwrap());
        [("a", "east"), ("b", "east"), ("c", "west")].into_iter().map(pair).collect()
    }

    fn east(text: &str) -> Outcome<BTreeMap<SaeId, SaePolicy>> {
        let table: PolicyTable = toml::from_str(text).map_err(|error| Failure::new(error.to_string()))?;
        table.of_site(&SiteId::new("east").unwrap(), &homes())
    }

    #[test]
    fn who_is_not_named_gets_the_default_and_other_sites_get_nothing() {
        assert!(east("").unwrap().is_empty());
        let text = "default = { class = \"model\", stock_share = 40 }\n\
                    [sae.a]\nclass = \"telecontrol\"\nrate = { keys_per_second = 2.5, burst = 10 }\nwait_ms = 700";
        let policies = east(text).unwrap();
        let of = |sae| policies[&SaeId::new(sae).unwrap()];
        let rate = Some(TokenRate { keys_per_second: 2.5, burst: 10 });
        let wait = Duration::from_millis(700);
        assert_eq!(of("a"), SaePolicy { priority: Priority::Telecontrol, rate, stock_share_percent: 100, wait });
        assert_eq!((of("b").priority, of("b").stock_share_percent), (Priority::Model, 40));
        assert_eq!(policies.len(), 2);
        let unnamed = east("[sae.a]\nclass = \"model\"").unwrap();
        assert_eq!(unnamed[&SaeId::new("b").unwrap()], SaePolicy::default());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "reserve = { telecontrol = 30, telemetry = 10, model = 0 }\n[default]\nclass = \"other\"\n[sae.a]\n\
                    class = \"telemetry\"\nrate = { keys_per_second = 1.0, burst = 3 }\nstock_share = 7\nwait_ms = 0";
        let table: PolicyTable = toml::from_str(text).unwrap();
        assert_eq!(table.reserve_percent(), Some([30, 10, 0]));
        assert_eq!(toml::from_str::<PolicyTable>(&toml::to_string(&table).unwrap()).unwrap(), table);
    }

    #[test]
    fn every_way_to_be_wrong_is_named_with_its_line() {
        for (text, said) in [
            ("[sae.a]\nclass = \"urgent\"", "line 2|class must be one of telecontrol, telemetry, model, other"),
            ("[sae.a]\nclas = \"model\"", "line 2|unknown field `clas`"),
            ("[sae.a]\nstock_share = 0", "line 2|1 to 100"),
            ("[sae.a]\nstock_share = 101", "line 2|1 to 100"),
            ("[sae.a]\nwait_ms = 600_001", "line 2|at most 600000"),
            ("[sae.a]\nwait_ms = -1", "line 2|wait_ms"),
            ("[sae.a]\nrate = { keys_per_second = 1.0 }", "line 2|missing field `burst`"),
            ("[sae.a]\nrate = { keys_per_second = 0.0, burst = 1 }", "line 2|above 0"),
            ("[sae.a]\nrate = { keys_per_second = nan, burst = 1 }", "line 2|above 0"),
            ("[sae.a]\nrate = { keys_per_second = 1.0, burst = 0 }", "line 2|at least 1"),
            ("[reserve]\ntelecontrol = 60\ntelemetry = 30\nmodel = 10", "line 1|below 100 percent and are 100"),
            ("[sae.a]\n[sae.a]\n", "line 2|duplicate key"),
            ("[sae.c]", "[policy.sae.c]|site west serves this SAE|move the table"),
            ("[sae.d]", "[policy.sae.d]|no such SAE|[sae] in the same file"),
        ] {
            let failure = format!("{:#}", east(text).unwrap_err());
            for part in said.split('|') {
                assert!(failure.contains(part), "{text}: {failure}");
            }
        }
    }
}
