//! `qurrent link rate`: what a network's links are expected to make, from the analytic model and the finite-key
//! proof.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use sim::rate::expected_rate;

use super::print;
use crate::config::read_network;
use crate::failure::{Failure, Outcome};

/// QKD links: planning figures.
#[derive(Args, Debug)]
pub struct LinkArgs {
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Subcommand, Debug)]
enum LinkCommand {
    /// Expected secret rate, error rate and block time of every link of a network (analytic, finite key).
    #[command(after_help = "Example:\n  qurrent link rate --network networks/shanxi.toml")]
    Rate {
        /// The network file.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// Reconciliation leak over the Shannon limit that planning assumes.
        #[arg(long, default_value_t = 1.16, value_name = "FACTOR")]
        leak_factor: f64,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Row {
    link: String,
    length_km: f64,
    secret_bit_s: f64,
    qber: f64,
    phase_error: f64,
    clicks_per_s: f64,
    live_fraction: f64,
    sifted_per_s: f64,
    block_s: f64,
}

/// Runs a link command.
///
/// # Errors
/// If the network file is wrong or the factor is below 1.
pub fn run(args: LinkArgs) -> Outcome<()> {
    let LinkCommand::Rate { network, leak_factor, json } = args.command;
    if !(1.0..=2.0).contains(&leak_factor) {
        return Err(Failure::new("--leak-factor must be from 1 to 2"));
    }
    let network = read_network(&network)?;
    let mut links: Vec<_> = network.links().values().collect();
    links.sort_by(|a, b| a.length.0.total_cmp(&b.length.0));
    let security = network.security();
    let rows = links.into_iter().map(|link| {
        let point = expected_rate(link, &security, leak_factor);
        Row {
            link: link.id.to_string(),
            length_km: link.length.0,
            secret_bit_s: point.skr.0,
            qber: point.qber,
            phase_error: point.phase_error,
            clicks_per_s: point.clicks_per_s,
            live_fraction: point.live_fraction,
            sifted_per_s: point.sifted_per_s,
            block_s: point.block_s,
        }
    });
    let rows: Vec<_> = rows.collect();
    print(json, &rows, || table(&rows))
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["link", "km", "secret bit/s", "QBER %", "phase error %", "clicks/s", "sifted/s", "block s"]);
    for row in rows {
        table.add_row([
            row.link.clone(),
            format!("{:.0}", row.length_km),
            format!("{:.0}", row.secret_bit_s),
            format!("{:.2}", row.qber * 100.0),
            format!("{:.2}", row.phase_error * 100.0),
            format!("{:.0}", row.clicks_per_s),
            format!("{:.0}", row.sifted_per_s),
            format!("{:.0}", row.block_s),
        ]);
    }
    table.to_string()
}
