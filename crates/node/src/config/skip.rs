//! `[skip]` of `node.toml`: names of systems as encryptors know them.
//!
//! ```toml
//! [skip]
//! remote = ["KP_*"]                 # what /capabilities says; every system when left out
//! [skip.alias]
//! KP_east = "app-east"              # system id = SAE id
//! ```

use std::collections::BTreeMap;

use etsi::skip::SystemPattern;
use serde::{Deserialize, Serialize};
use types::id::SaeId;

/// Names of systems for SKIP. Without an alias an SAE's system id is its SAE id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "RawSkip")]
pub struct SkipConfig {
    /// Remote systems that may be asked for, as patterns; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote: Vec<SystemPattern>,
    /// System id to SAE id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alias: BTreeMap<String, SaeId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSkip {
    #[serde(default)]
    remote: Vec<SystemPattern>,
    #[serde(default)]
    alias: BTreeMap<String, SaeId>,
}

impl TryFrom<RawSkip> for SkipConfig {
    type Error = String;
    fn try_from(raw: RawSkip) -> Result<Self, String> {
        let RawSkip { remote, alias } = raw;
        for (system, sae) in &alias {
            SystemPattern::new(system).map_err(|error| format!("alias {system:?}: {error}"))?;
            if system.contains('*') {
                return Err(format!("alias {system:?} must be one system id, without *"));
            }
            if alias.iter().any(|(other, named)| other != system && named == sae) {
                return Err(format!("SAE {sae} has two system ids; an SAE has one"));
            }
        }
        Ok(Self { remote, alias })
    }
}

impl SkipConfig {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The system id of an SAE.
    #[must_use]
    pub fn system_of<'a>(&'a self, sae: &'a SaeId) -> &'a str {
        let alias = self.alias.iter().find(|(_, named)| *named == sae);
        alias.map_or(sae.as_str(), |(system, _)| system)
    }

    /// The SAE that a remote system id names, if it may be asked for.
    #[must_use]
    pub fn sae_of(&self, system: &str) -> Option<SaeId> {
        let allowed = self.remote.is_empty() || self.remote.iter().any(|pattern| pattern.covers(system));
        let named = || self.alias.get(system).cloned().or_else(|| SaeId::new(system).ok());
        allowed.then(named).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_patterns() {
        let config: SkipConfig =
            toml::from_str("remote = [\"KP_*\", \"app-west\"]\n[alias]\nKP_east = \"app-east\"\n").unwrap();
        let sae = |name| SaeId::new(name).unwrap();
        assert_eq!(config.system_of(&sae("app-east")), "KP_east");
        assert_eq!(config.system_of(&sae("app-west")), "app-west");
        assert_eq!(config.sae_of("KP_east"), Some(sae("app-east")));
        assert_eq!(config.sae_of("app-west"), Some(sae("app-west")));
        assert_eq!(config.sae_of("app-middle"), None, "no pattern covers it");
        assert!(SkipConfig::default().sae_of("anything").is_some());
    }

    #[test]
    fn the_example_of_the_guide_is_read() {
        let guide = include_str!("../../../../docs/guide/bridges.md");
        let sample = guide.split("```toml\n[skip]\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config: SkipConfig = toml::from_str(&sample.replace("[skip.alias]", "[alias]")).unwrap();
        assert_eq!((config.remote.len(), config.alias.len()), (1, 2));
    }

    #[test]
    fn wrong_settings_are_refused() {
        for text in [
            "[alias]\n\"a*\" = \"x\"\n",
            "[alias]\n\"\" = \"x\"\n",
            "[alias]\na = \"x\"\nb = \"x\"\n",
            "remote = [\"\"]\n",
            "other = 1\n",
        ] {
            assert!(toml::from_str::<SkipConfig>(text).is_err(), "{text}");
        }
    }
}
