//! The preshared key of a WireGuard peer, set with `wg set`. The key goes through a pipe.
//!
//! WireGuard uses a new preshared key from its next handshake on, which comes within two minutes while there is traffic;
//! a session that was set up before goes on until then. So nothing is lost while both ends change.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::secret::SecretBytes;
use tokio::process::Command;
use zeroize::Zeroizing;

use super::config::{Fallback, WireGuardConfig};
use super::target::run;
use crate::entropy::os_rng;
use crate::failure::{Failure, Outcome};

/// One peer of one interface.
pub(super) struct WireGuard {
    config: WireGuardConfig,
}

impl WireGuard {
    pub(super) fn new(config: &WireGuardConfig) -> Self {
        Self { config: config.clone() }
    }

    pub(super) fn describe(&self) -> String {
        format!("preshared key of peer {} of {}", self.config.peer, self.config.interface)
    }

    /// The interface is there and has the peer.
    pub(super) async fn check(&self) -> Outcome<()> {
        let WireGuardConfig { interface, peer, program } = &self.config;
        let peers = run(Command::new(program).args(["show", interface, "peers"]), b"").await.map_err(|failure| {
            Failure::new(format!("WireGuard interface {interface}"))
                .source(failure)
                .remedy(format!("set it up first; `{} show {interface}` must work for this user", program.display()))
        })?;
        if String::from_utf8_lossy(&peers).lines().any(|line| line.trim() == peer) {
            return Ok(());
        }
        Err(Failure::new(format!("interface {interface} has no peer {peer}"))
            .remedy(format!("`wg set {interface} peer {peer} endpoint ... allowed-ips ...`, then start again")))
    }

    pub(super) async fn apply(&self, key: &SecretBytes) -> Outcome<()> {
        let mut text = Zeroizing::new(key.expose(|bits| STANDARD.encode(bits)));
        text.push('\n');
        self.set("/dev/stdin", text.as_bytes()).await
    }

    pub(super) async fn fall_back(&self, policy: Fallback) -> Outcome<()> {
        match policy {
            Fallback::Keep => Ok(()),
            // wg(8): an empty file takes the key away.
            Fallback::Remove => self.set("/dev/null", b"").await,
            Fallback::Shut => self.apply(&SecretBytes::random(32, &mut os_rng())).await,
        }
    }

    async fn set(&self, from: &str, input: &[u8]) -> Outcome<()> {
        let WireGuardConfig { interface, peer, program } = &self.config;
        // `wg set` would make the peer anew, without endpoint and addresses, if it were gone.
        self.check().await?;
        let mut command = Command::new(program);
        run(command.args(["set", interface, "peer", peer, "preshared-key", from]), input).await.map(drop)
    }
}
