//! `qurrent bridge run|wireguard|ike|hook`: keys for programs that know nothing of QKD.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use types::id::SaeId;

use crate::bridge::config::{BridgeConfig, Fallback, HookConfig, IkeConfig, Role, WireGuardConfig};
use crate::bridge::{self, Manner};
use crate::failure::Outcome;
use crate::stop;

/// Keep WireGuard, IKEv2 or your own program supplied with fresh keys, in step with another site.
#[derive(Args, Debug)]
pub struct BridgeArgs {
    /// Print events as JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// End after the first change of key; exit code 3 if there is none in time.
    #[arg(long, global = true)]
    once: bool,
    #[command(subcommand)]
    command: BridgeCommand,
}

#[derive(Subcommand, Debug)]
enum BridgeCommand {
    /// Run one end as its file says.
    #[command(after_help = "Example:\n  qurrent bridge run --config bridge.toml")]
    Run {
        /// The file; docs/guide/bridges.md has examples.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Change the preshared key of a WireGuard peer.
    #[command(
        after_help = "Example, at one site; the other has --role responder and its own interface and peer:\n  qurrent bridge wireguard --sae sae.toml --peer app-linfen --role initiator --interface wg0 --wg-peer xTIBA5rb…="
    )]
    Wireguard {
        #[command(flatten)]
        end: EndArgs,
        #[command(flatten)]
        target: WireGuardConfig,
    },
    /// Write the post-quantum preshared key of IKEv2 (RFC 8784).
    #[command(
        after_help = "Example:\n  qurrent bridge ike --sae sae.toml --peer app-linfen --role initiator --ppk-id grid --file /etc/swanctl/conf.d/qurrent.conf --reload swanctl --load-creds --noprompt"
    )]
    Ike {
        #[command(flatten)]
        end: EndArgs,
        #[command(flatten)]
        target: IkeConfig,
    },
    /// Write a file, run a command, or both, for each key.
    #[command(
        after_help = "Example:\n  qurrent bridge hook --sae sae.toml --peer app-linfen --role initiator --file key.b64 --command systemctl reload my-program"
    )]
    Hook {
        #[command(flatten)]
        end: EndArgs,
        #[command(flatten)]
        target: HookConfig,
    },
}

/// What every bridge needs.
#[derive(Args, Debug)]
struct EndArgs {
    /// Configuration of the SAE to act for, sae.toml.
    #[arg(long, value_name = "FILE", default_value = "sae.toml")]
    sae: PathBuf,
    /// The SAE of the other end.
    #[arg(long, value_name = "SAE")]
    peer: SaeId,
    /// Which end leads; the other end has the other role.
    #[arg(long, value_enum)]
    role: Role,
    /// Name of the bridge, the same at both ends.
    #[arg(long, value_name = "NAME", default_value = "bridge")]
    name: String,
    /// Seconds from one key to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    interval: u64,
    /// Seconds after which a key is too old; three intervals, at least 60, when left out.
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u64>,
    /// What is done then.
    #[arg(long, value_enum, default_value_t)]
    fallback: Fallback,
}

impl EndArgs {
    fn config(self) -> BridgeConfig {
        BridgeConfig {
            name: self.name,
            sae: self.sae,
            peer: self.peer,
            role: self.role,
            interval_s: self.interval,
            max_age_s: self.max_age,
            fallback: self.fallback,
            wireguard: None,
            ike: None,
            hook: None,
        }
    }
}

/// Runs until SIGTERM.
///
/// # Errors
/// If the bridge cannot start.
pub async fn run(args: BridgeArgs) -> Outcome<()> {
    let config = match args.command {
        BridgeCommand::Run { config } => BridgeConfig::read(&config)?,
        BridgeCommand::Wireguard { end, target } => {
            BridgeConfig { wireguard: Some(target), ..end.config() }.checked()?
        }
        BridgeCommand::Ike { end, target } => BridgeConfig { ike: Some(target), ..end.config() }.checked()?,
        BridgeCommand::Hook { end, target } => BridgeConfig { hook: Some(target), ..end.config() }.checked()?,
    };
    let manner = Manner { json: args.json, once: args.once };
    Box::pin(bridge::run(config, manner, stop::on_signal()?)).await
}
