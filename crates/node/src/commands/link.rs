//! `qurrent link`: one QKD link, computed, simulated and run.

mod plot;
mod rate;
mod run;
mod simulate;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// QKD links: key rates, photon simulation, both ends at work.
#[derive(Args, Debug)]
pub struct LinkArgs {
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Subcommand, Debug)]
enum LinkCommand {
    Rate(rate::RateArgs),
    Simulate(simulate::SimulateArgs),
    Run(run::RunArgs),
}

/// Runs a link command.
///
/// # Errors
/// As the command.
pub async fn run(args: LinkArgs) -> Outcome<()> {
    match args.command {
        LinkCommand::Rate(args) => rate::run(&args),
        LinkCommand::Simulate(args) => simulate::run(&args),
        LinkCommand::Run(args) => Box::pin(run::run(args)).await,
    }
}
