//! Configuration of interworking with the KME of another maker or network in the same trusted node.

use std::net::SocketAddr;
use std::path::Path;

use etsi::etsi020::{ACK_PATH, CallbackUrl};
use serde::{Deserialize, Serialize};
use types::id::SaeId;

use super::TlsFiles;
use crate::failure::{Context as _, Outcome};

/// `[[interwork]]`: one foreign KME beside this site (ETSI GS QKD 020).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterworkConfig {
    /// What this site calls it.
    pub name: String,
    /// Where it finds this site; a listener of its own, for it alone.
    pub listen: SocketAddr,
    /// Where it listens: `https://HOST:PORT`. Its acknowledgements may be asked for there and nowhere else.
    pub url: String,
    /// Where it shall send acknowledgements, if not to `https://` and the address of `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// The name in its certificate: a URI or DNS name of its subject alternative names, or its common name.
    pub identity: String,
    /// The SAEs that lie behind it.
    pub saes: Vec<SaeId>,
    /// Own certificate and key towards it, and the authorities that its certificate must chain to.
    pub tls: TlsFiles,
}

impl InterworkConfig {
    pub(super) fn resolve(&mut self, base: &Path) {
        self.tls.resolve(base);
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If `url` is no such URL.
    pub fn base(&self) -> Outcome<CallbackUrl> {
        CallbackUrl::new(&self.url).context(|| format!("url of interwork {}", self.name))
    }

    /// The URL of this site that it is given.
    ///
    /// # Errors
    /// If `callback` is no such URL.
    pub fn own_callback(&self) -> Outcome<CallbackUrl> {
        let url = match &self.callback {
            Some(url) => CallbackUrl::new(url),
            None => CallbackUrl::of(&self.listen.to_string(), ACK_PATH),
        };
        url.context(|| format!("callback of interwork {}", self.name))
    }
}
