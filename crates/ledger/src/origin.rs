//! A log's name in the world: `<network>/<site>/audit`.

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
    "origin {0:?} is not valid: <network>/<site>/audit, the network 1 to 64 characters of a-z, 0-9, dot and hyphen"
)]
pub struct OriginError(String);

impl Origin {
    /// Longest origin in bytes.
    pub const LEN_MAX: usize = 64 + 1 + 32 + SUFFIX.len();

    /// The log of a site in a network.
    ///
    /// # Errors
    /// If the network's name breaks the rule.
    pub fn new(network: &str, site: &SiteId) -> Result<Self, OriginError> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let text = format!("{network}/{site}{SUFFIX}");
        if network.is_empty() || network.len() > 64 || !network.chars().all(is_allowed) {
            return Err(OriginError(text.chars().take(200).collect()));
        }
        Ok(Self { text, site: site.clone() })
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
        let (network, site) = text.strip_suffix(SUFFIX).and_then(|text| text.split_once('/')).ok_or_else(refused)?;
        Self::new(network, &SiteId::new(site).map_err(|_| refused())?)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const SUFFIX: &str = "/audit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_shape() {
        let origin: Origin = "shanxi/taiyuan/audit".parse().unwrap();
        assert_eq!((origin.as_str(), origin.site().as_str()), ("shanxi/taiyuan/audit", "taiyuan"));
        for text in
            ["", "a/audit", "/b/audit", "a/b/c/audit", "a/b", "A/b/audit", "a b/c/audit", "a+/b/audit", "a/B/audit"]
        {
            assert!(text.parse::<Origin>().is_err(), "{text:?}");
        }
    }
}
