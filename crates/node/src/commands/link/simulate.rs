//! `qurrent link simulate`: the photon Monte Carlo of a link against its analytic model.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indicatif::{ProgressBar, ProgressStyle};
use optics::Attack;
use serde::Serialize;
use sim::photons::{Compared, Photons};
use types::id::LinkId;

use crate::commands::print;
use crate::config::read_network;
use crate::failure::{Failure, Outcome};

/// Photon by photon: every count beside what the analytic model expects, in standard deviations.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  qurrent link simulate --network networks/shanxi.toml --seconds 20
  qurrent link simulate --network networks/shanxi.toml --link taiyuan-jinzhong --attack intercept-resend:0.5
Exit code 1 if a count is more than --sigmas away, without an attack.")]
pub(super) struct SimulateArgs {
    /// The network file.
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// Which link; default: all.
    #[arg(long, value_name = "ID")]
    link: Option<LinkId>,
    /// Seconds of light.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
    /// Seed of the light and of nature.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What an eavesdropper does, for example `intercept-resend:0.5` or `photon-number-splitting`.
    #[arg(long)]
    attack: Option<Attack>,
    /// Standard deviations that a count may be away from the model.
    #[arg(long, default_value_t = 4.5)]
    sigmas: f64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Simulated {
    link: String,
    length_km: f64,
    seconds: f64,
    qber: f64,
    counts: Vec<Row>,
    /// Possible detections that the simulation looked at, per second of processor time.
    points_per_s: f64,
    /// Simulated seconds per second.
    times_real_time: f64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    expected: f64,
    counted: f64,
    sigmas: f64,
}

/// Simulates and compares.
///
/// # Errors
/// If the link is unknown or a count is too far away.
pub(super) fn run(args: &SimulateArgs) -> Outcome<()> {
    if !(args.seconds > 0.0 && args.seconds <= 1e6) {
        return Err(Failure::new("--seconds must be above 0 and at most 1,000,000"));
    }
    let network = read_network(&args.network)?;
    let mut links: Vec<_> =
        network.links().values().filter(|link| args.link.as_ref().is_none_or(|id| *id == link.id)).collect();
    links.sort_by(|a, b| a.length.0.total_cmp(&b.length.0));
    if links.is_empty() {
        return Err(Failure::new("the network file has no such link").remedy("`qurrent network show` lists them"));
    }
    let progress = progress_bar(args.json, links.len());
    let mut simulated = Vec::new();
    for link in links {
        progress.set_message(link.id.to_string());
        simulated.push(simulate(args, link, &progress));
    }
    progress.finish_and_clear();
    print(args.json, &simulated, || simulated.iter().map(table).collect())?;
    let away = simulated.iter().flat_map(|link| &link.counts).filter(|row| row.sigmas.abs() > args.sigmas).count();
    if away > 0 && args.attack.is_none() {
        return Err(Failure::new(format!("{away} counts are more than {} standard deviations away", args.sigmas)));
    }
    Ok(())
}

fn simulate(args: &SimulateArgs, link: &types::network::Link, progress: &ProgressBar) -> Simulated {
    let mut photons = Photons::new(link, args.seed, args.attack);
    let begun = Instant::now();
    let step = args.seconds / f64::from(STEPS);
    for _ in 0..STEPS {
        photons.shine(slots(step * link.hardware.clock_hz));
        progress.inc(1);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let row = |row: Compared| {
        let Compared { name, expected, counted, sigmas } = row;
        Row { name, expected, counted, sigmas }
    };
    Simulated {
        link: link.id.to_string(),
        length_km: link.length.0,
        seconds: args.seconds,
        qber: photons.qber(),
        counts: photons.compare().into_iter().map(row).collect(),
        points_per_s: photons.counts().points as f64 / elapsed,
        times_real_time: args.seconds / elapsed,
    }
}

fn table(link: &Simulated) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["count", "expected", "counted", "sigmas"]);
    for row in &link.counts {
        let digits = if row.expected < 1.0 { 5 } else { 0 };
        table.add_row([
            row.name.clone(),
            format!("{:.digits$}", row.expected),
            format!("{:.digits$}", row.counted),
            format!("{:+.2}", row.sigmas),
        ]);
    }
    format!(
        "{}, {} km, {} s of light, QBER {:.2} %; {:.1} M points/s, {:.1} times real time\n{table}\n",
        link.link,
        link.length_km,
        link.seconds,
        100.0 * link.qber,
        link.points_per_s / 1e6,
        link.times_real_time
    )
}

fn progress_bar(quiet: bool, links: usize) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::from(STEPS) * links as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1e17 slots")]
fn slots(number: f64) -> u64 {
    number as u64
}

const STEPS: u32 = 100;
