//! `qurrent key status|get|fetch`: a client of ETSI GS QKD 014.

use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use types::id::{KeyId, SaeId};
use zeroize::Zeroizing;

use super::print;
use crate::client::{KmeClient, SuppliedKey};
use crate::config::SaeConfig;
use crate::failure::{Context as _, Outcome};

/// ETSI GS QKD 014 client: stock, keys for a peer, keys by id.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// Configuration of the SAE to act for, sae.toml.
    #[arg(long, value_name = "FILE", global = true, default_value = "sae.toml")]
    sae: PathBuf,
    /// Print as JSON (ETSI GS QKD 014 spelling).
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Debug)]
enum KeyCommand {
    /// How much key is in stock for a slave SAE.
    #[command(after_help = "Example:\n  qurrent key --sae sites/taiyuan/sae/app-taiyuan/sae.toml status app-linfen")]
    Status {
        /// The slave SAE.
        slave: SaeId,
    },
    /// Take fresh keys to share with a slave SAE.
    #[command(
        after_help = "Example:\n  qurrent key --sae sites/taiyuan/sae/app-taiyuan/sae.toml get app-linfen --number 2"
    )]
    Get {
        /// The slave SAE.
        slave: SaeId,
        /// How many keys.
        #[arg(long, default_value_t = 1)]
        number: u32,
        /// Bits of each.
        #[arg(long, default_value_t = 256)]
        size: u32,
    },
    /// Collect keys that a master SAE took, by their ids.
    #[command(
        after_help = "Example:\n  qurrent key --sae sites/linfen/sae/app-linfen/sae.toml fetch app-taiyuan 5c1f…"
    )]
    Fetch {
        /// The master SAE.
        master: SaeId,
        /// Key ids.
        #[arg(required = true)]
        ids: Vec<KeyId>,
    },
}

/// Runs a key command.
///
/// # Errors
/// If the KME cannot be reached or refuses.
pub async fn run(args: KeyArgs) -> Outcome<()> {
    let client = KmeClient::open(&SaeConfig::read(&args.sae)?)?;
    match args.command {
        KeyCommand::Status { slave } => {
            let status = client.status(&slave).await?;
            print(args.json, &status, || {
                format!(
                    "{} keys of {} bit ready for {slave} (at most {}); served by {} and {}",
                    status.stored_key_count,
                    status.key_size,
                    status.max_key_count,
                    status.source_kme_id,
                    status.target_kme_id
                )
            })
        }
        KeyCommand::Get { slave, number, size } => {
            print_keys(args.json, &client.encrypt_keys(&slave, number, size).await?)
        }
        KeyCommand::Fetch { master, ids } => print_keys(args.json, &client.decrypt_keys(&master, &ids).await?),
    }
}

/// Prints keys to standard output: that is what the user asked for.
fn print_keys(json: bool, keys: &[SuppliedKey]) -> Outcome<()> {
    let mut out = Zeroizing::new(String::new());
    for (index, key) in keys.iter().enumerate() {
        let encoded = Zeroizing::new(key.key.expose(|bits| STANDARD.encode(bits)));
        let line = if json {
            let separator = if index == 0 { "{\"keys\":[" } else { "," };
            Zeroizing::new(format!("{separator}{{\"key_ID\":\"{}\",\"key\":\"{}\"}}", key.id, *encoded))
        } else {
            Zeroizing::new(format!("{}  {}\n", key.id, *encoded))
        };
        out.push_str(&line);
    }
    if json {
        out.push_str("]}\n");
    }
    std::io::stdout().lock().write_all(out.as_bytes()).context(|| "cannot write to standard output".to_owned())
}
