//! `[[link]]` of `node.toml`: one end of a link, and what makes its key.
//!
//! ```toml
//! [[link]]                              [[link]]
//! id = "east-west"                      id = "east-west"
//! classical = "10.0.0.2:7101"           classical = "10.0.0.2:7101"
//! initial_key = "links/east-west.key"   initial_key = "links/east-west.key"
//! fibre = "10.0.0.9:7201"               source = "etsi014"
//!                                       [link.device]
//!                                       kme = "qkd-east.utility.example:443"
//!                                       peer_sae = "qurrent-west"
//!                                       tls = { ca = "ca.pem", certificate = "sae.pem", key = "sae.key" }
//! ```

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use types::id::{LinkId, SaeId};
use types::units::BitLen;

use super::TlsFiles;

/// One end of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawLink", into = "RawLink")]
pub struct LinkConfig {
    /// Which link of the network file.
    pub id: LinkId,
    /// Classical channel: Alice's process listens here, Bob's connects.
    pub classical: SocketAddr,
    /// First authentication key, the same file at both ends. Consumed at the first start.
    pub initial_key: PathBuf,
    /// What makes the link's key. The same kind at both ends, for the life of the link's id.
    pub source: LinkSource,
}

/// What makes a link's key.
#[derive(Clone, Debug)]
pub enum LinkSource {
    /// `source = "simulated"`: the process that stands for the fibre.
    Simulated {
        /// Where that process listens.
        fibre: SocketAddr,
    },
    /// `source = "etsi014"`: a QKD device of another maker at each end.
    Etsi014(DeviceConfig),
}

/// `[link.device]`: this end's QKD device, seen as a KME of ETSI GS QKD 014.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// Where it serves keys.
    pub kme: HostPort,
    /// The SAE id under which the other site is known to the devices.
    pub peer_sae: SaeId,
    /// Authority of the device's certificate; certificate and key that make this site an SAE of the device.
    pub tls: TlsFiles,
    /// Alice: the device is left alone while the link's pool holds this many bits.
    #[serde(default = "pool_target")]
    pub pool_target: BitLen,
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

/// A link as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    id: LinkId,
    classical: SocketAddr,
    initial_key: PathBuf,
    #[serde(default, skip_serializing_if = "RawSource::is_simulated")]
    source: RawSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fibre: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceConfig>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSource {
    #[default]
    Simulated,
    Etsi014,
}

impl LinkConfig {
    pub(super) fn resolve(&mut self, base: &Path) {
        self.initial_key = base.join(&self.initial_key);
        if let LinkSource::Etsi014(device) = &mut self.source {
            device.tls.resolve(base);
        }
    }
}

impl TryFrom<RawLink> for LinkConfig {
    type Error = String;
    fn try_from(raw: RawLink) -> Result<Self, String> {
        let RawLink { id, classical, initial_key, source, fibre, device } = raw;
        let source = match (source, fibre, device) {
            (RawSource::Simulated, Some(fibre), None) => LinkSource::Simulated { fibre },
            (RawSource::Etsi014, None, Some(device)) => LinkSource::Etsi014(device),
            (RawSource::Simulated, None, None) => {
                return Err(format!(
                    "link {id} has no `fibre`; add it, or source = \"etsi014\" and [link.device] for another maker's devices"
                ));
            }
            (RawSource::Simulated, _, Some(_)) => {
                return Err(format!(
                    "link {id} has [link.device] and no source = \"etsi014\"; add that line above it and remove `fibre`"
                ));
            }
            (RawSource::Etsi014, _, None) => {
                return Err(format!(
                    "link {id} has source = \"etsi014\" and no [link.device] with kme, peer_sae and tls; add it"
                ));
            }
            (RawSource::Etsi014, Some(_), Some(_)) => {
                return Err(format!("link {id} has source = \"etsi014\" and `fibre`; remove one of them"));
            }
        };
        Ok(Self { id, classical, initial_key, source })
    }
}

impl From<LinkConfig> for RawLink {
    fn from(link: LinkConfig) -> Self {
        let LinkConfig { id, classical, initial_key, source } = link;
        let (source, fibre, device) = match source {
            LinkSource::Simulated { fibre } => (RawSource::Simulated, Some(fibre), None),
            LinkSource::Etsi014(device) => (RawSource::Etsi014, None, Some(device)),
        };
        Self { id, classical, initial_key, source, fibre, device }
    }
}

impl RawSource {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
    fn is_simulated(&self) -> bool {
        *self == Self::Simulated
    }
}

impl HostPort {
    /// The host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no host and port; write it as host:port, [IPv6]:port or IPv4:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            None if rustls::pki_types::ServerName::try_from(host).is_ok() && !host.contains(':') => host,
            _ => return Err(wrong()),
        };
        if port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(at: HostPort) -> Self {
        at.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Half of it lies in each direction: 2,000 keys of 256 bits.
fn pool_target() -> BitLen {
    BitLen(1_024_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct File {
        link: Vec<LinkConfig>,
    }

    const COMMON: &str = "[[link]]\nid = \"a-b\"\nclassical = \"127.0.0.1:1\"\ninitial_key = \"k\"\n";
    const DEVICE: &str = "[link.device]\nkme = \"qkd:443\"\npeer_sae = \"west\"\n\
                          tls = { ca = \"ca\", certificate = \"c\", key = \"k\" }\n";

    fn parse(rest: &str) -> Result<File, String> {
        toml::from_str(&format!("{COMMON}{rest}")).map_err(|error| error.to_string())
    }

    #[test]
    fn both_sources_are_read_and_written_back() {
        let files = ["fibre = \"127.0.0.1:2\"\n", "source = \"simulated\"\nfibre = \"127.0.0.1:2\"\n"];
        for text in files {
            let file = parse(text).unwrap();
            assert!(matches!(file.link[0].source, LinkSource::Simulated { fibre } if fibre.port() == 2));
            assert!(!toml::to_string(&file).unwrap().contains("source"), "files stay as they were");
        }
        let file = parse(&format!("source = \"etsi014\"\n{DEVICE}")).unwrap();
        let again: File = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        let LinkSource::Etsi014(device) = &again.link[0].source else { panic!("a device") };
        assert_eq!((device.kme.host(), device.kme.port(), device.pool_target), ("qkd", 443, pool_target()));
    }

    #[test]
    fn wrong_combinations_name_line_link_and_remedy() {
        let wrong = [
            (String::new(), "has no `fibre`"),
            (DEVICE.to_owned(), "add that line"),
            (format!("fibre = \"127.0.0.1:2\"\n{DEVICE}"), "remove `fibre`"),
            ("source = \"etsi014\"\n".to_owned(), "no [link.device]"),
            ("source = \"etsi014\"\nfibre = \"127.0.0.1:2\"\n".to_owned(), "no [link.device]"),
            (format!("source = \"etsi014\"\nfibre = \"127.0.0.1:2\"\n{DEVICE}"), "remove one"),
        ];
        for (text, expected) in wrong {
            let error = parse(&text).unwrap_err();
            assert!(error.contains("line 1") && error.contains("link a-b") && error.contains(expected), "{error}");
        }
        let error = parse("source = \"etsi014\"\n[link.device]\nkme = \"qkd\"\n").unwrap_err();
        assert!(error.contains("line 7") && error.contains("host:port"), "{error}");
        let error = parse("source = \"etsi020\"\n").unwrap_err();
        assert!(error.contains("line 5") && error.contains("etsi014"), "{error}");
    }

    #[test]
    fn hosts_and_ports() {
        for text in ["10.0.0.1:443", "[::1]:8443", "qkd-east.utility.example:443"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in ["", "host", "host:", ":443", "host:0", "host:70000", "::1:443", "[host]:443", "a b:443"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
