//! `qurrent backup create|restore|inspect`: backups of a site's store, without one-time key.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use store::BackupInfo;

use super::print;
use crate::backups::seconds_since_1970;
use crate::config::NodeConfig;
use crate::failure::{Context as _, Outcome};

/// Back a site's store up, and bring it back. One-time key is never in a backup.
#[derive(Args, Debug)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Subcommand, Debug)]
enum BackupCommand {
    /// Back up a stopped site. A running one does it by itself with `backup` in `[store]` of node.toml.
    #[command(
        after_help = "Example:\n  qurrent backup create --config sites/taiyuan/node.toml --to /media/usb/taiyuan.backup"
    )]
    Create {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The file to make; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a site's store anew from a backup. The old store must be gone, and must never be started again.
    #[command(
        after_help = "Example:\n  mv sites/taiyuan/data/store /media/broken\n  qurrent backup restore --config sites/taiyuan/node.toml --from /media/usb/taiyuan.backup"
    )]
    Restore {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what a backup is of. With the site's configuration, prove it too.
    #[command(after_help = "Example:\n  qurrent backup inspect /media/usb/taiyuan.backup")]
    Inspect {
        /// The backup.
        file: PathBuf,
        /// The site's configuration, for its root key.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs a backup command.
///
/// # Errors
/// If a file or the store cannot be read or written, or the site is running.
pub fn run(args: BackupArgs) -> Outcome<()> {
    match args.command {
        BackupCommand::Create { config, to, json } => {
            let config = NodeConfig::read(&config)?;
            let mut store = config.open_store_now()?;
            let info = store.backup(&config.site, seconds_since_1970(), &to);
            let info = info.context(|| format!("backup of site {}", config.site))?;
            show(json, &info, &format!("{} holds", to.display()))
        }
        BackupCommand::Restore { config, from, json } => {
            let config = NodeConfig::read(&config)?;
            let mut store = config.open_store_now()?;
            let info = store.restore(&config.site, &from).context(|| format!("site {}", config.site))?;
            let mut text = format!("site {} has its store again, from", config.site);
            if !json {
                for link in &config.link {
                    super::say(&format!(
                        "link {id} has no authentication key now: run `qurrent network rekey --link {id}` where the \
                         network was made, take the two files to both ends, and start both sites anew",
                        id = link.id
                    ))?;
                }
                text = format!("Key stocks and pools are empty and fill again.\n{text}");
            }
            show(json, &info, &text)
        }
        BackupCommand::Inspect { file, config, json } => match config {
            Some(config) => {
                let root = NodeConfig::read(&config)?.open_root_key()?;
                let info = BackupInfo::verify(&file, &root).context(|| "the backup does not hold".to_owned())?;
                show(json, &info, "whole, and sealed by this site's root key:")
            }
            None => {
                let info = BackupInfo::read(&file).context(|| "no backup".to_owned())?;
                show(json, &info, "whole; who made it is not proved without the root key:")
            }
        },
    }
}

fn show(json: bool, info: &BackupInfo, text: &str) -> Outcome<()> {
    let time = i64::try_from(info.made).ok().and_then(|made| jiff::Timestamp::from_second(made).ok());
    let made = time.map_or_else(|| info.made.to_string(), |time| time.to_string());
    let value = json!({
        "site": info.site, "store": hex::encode(info.from.store), "incarnation": info.from.number,
        "sequence": info.sequence, "made": made, "records": info.records,
    });
    print(json, &value, || {
        format!(
            "{text} backup {} of site {}, incarnation {}, {} records, made {made}",
            info.sequence, info.site, info.from.number, info.records
        )
    })
}
