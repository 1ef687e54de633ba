//! A log's name in the world: `<network>/<site>/audit`, and one name more for each replica of a site that has several.

use std::fmt;
use std::str::FromStr;

use types::id::SiteId;

/// The origin line of a site's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    text: String,
    site: SiteId,
}

/// Why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "origin {0:?} is not valid: <network>/<site>/audit[/<replica>], network and replica 1 to 64 characters of a-z, 0-9, \
     dot and hyphen"
)]
pub struct OriginError(String);

impl Origin {
    /// Longest origin in bytes.
    pub const LEN_MAX: usize = 64 + 1 + 32 + SUFFIX.len() + 1 + 64;

    /// The log of a site in a network.
    ///
    /// # Errors
    /// If the network's name breaks the rule.
    pub fn new(network: &str, site: &SiteId) -> Result<Self, OriginError> {
        let text = format!("{network}/{site}{SUFFIX}");
        if !is_word(network) {
            return Err(OriginError(text.chars().take(200).collect()));
        }
        Ok(Self { text, site: site.clone() })
    }

    /// The log of one replica of the site. Each has a log of its own: two processes that write under one name would
    /// sign heads that contradict each other.
    ///
    /// # Errors
    /// If the replica's name breaks the rule.
    pub fn of_replica(self, replica: &str) -> Result<Self, OriginError> {
        let text = format!("{}/{replica}", self.text);
        if !is_word(replica) || !self.text.ends_with(SUFFIX) {
            return Err(OriginError(text.chars().take(200).collect()));
        }
        Ok(Self { text, site: self.site })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &SiteId {
        &self.site
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let refused = || OriginError(text.chars().take(200).collect());
        let mut parts = text.splitn(4, '/');
        let (Some(network), Some(site), Some(KIND), replica) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused());
        };
        let origin = Self::new(network, &SiteId::new(site).map_err(|_| refused())?)?;
        replica.map_or(Ok(origin.clone()), |replica| origin.of_replica(replica))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_word(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_allowed)
}

const KIND: &str = "audit";
const SUFFIX: &str = "/audit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_shape() {
        let origin: Origin = "shanxi/taiyuan/audit".parse().unwrap();
        assert_eq!((origin.as_str(), origin.site().as_str()), ("shanxi/taiyuan/audit", "taiyuan"));
        let of_one: Origin = "shanxi/taiyuan/audit/taiyuan-b".parse().unwrap();
        assert_eq!(of_one, origin.clone().of_replica("taiyuan-b").unwrap());
        assert_eq!((of_one.as_str(), of_one.site()), ("shanxi/taiyuan/audit/taiyuan-b", origin.site()));
        assert!(of_one.of_replica("c").is_err() && origin.of_replica("B").is_err());
        let longest = format!("{0}/{1}/audit/{0}", "n".repeat(64), "s".repeat(32));
        assert_eq!(longest.parse::<Origin>().unwrap().as_str().len(), Origin::LEN_MAX);
        for text in [
            "",
            "a/audit",
            "/b/audit",
            "a/b/c/audit",
            "a/b",
            "A/b/audit",
            "a b/c/audit",
            "a+/b/audit",
            "a/B/audit",
            "a/b/audit/",
            "a/b/audit/C",
            "a/b/audit/c/d",
            "a/b/audit/c\n",
            "a/b/audits",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text:?}");
        }
    }
}
