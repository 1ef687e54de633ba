//! `qurrent fibre`: the process that stands for the quantum channels of a network.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Outcome;
use crate::{quantum, stop};

/// Run the simulated quantum channels that fibre.toml names.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  qurrent fibre --config shanxi/fibre.toml")]
pub struct FibreArgs {
    /// The fibres' configuration, written by `qurrent network init`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM.
///
/// # Errors
/// If the configuration is wrong or a port is taken.
pub async fn run(args: FibreArgs) -> Outcome<()> {
    quantum::fibre::run(args.config, stop::on_signal()?).await
}
