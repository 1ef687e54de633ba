//! `qurrent link rate`: what links are expected to make, from the analytic models and their key-rate bounds: the
//! links of a network as a table, or protocols over distance as curves.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use link::proof::Proof;
use serde::Serialize;
use sim::rate::{Conditions, HardwareSet, Protocol, Setting, optimise};
use types::network::{DecoySettings, Link, Network, Security};
use types::units::Kilometres;

use super::plot::{Chart, Picture};
use crate::commands::print;
use crate::config::read_network;
use crate::failure::{Failure, Outcome};

/// Expected secret rate, error rate and block time: of every link of a network, or of protocols over distance.
#[derive(Args, Debug)]
#[command(after_help = help())]
pub(super) struct RateArgs {
    /// The network file. Alone: the table of its links. With curve options: their
    /// hardware and settings, on a fibre of its own in calm weather.
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Curves over distance, also with a network file.
    #[arg(long)]
    curve: bool,
    /// Whose hardware and settings the curves have; the shortest link if not given.
    #[arg(long, value_name = "LINK", requires = "network")]
    link: Option<String>,
    /// Protocol of a curve; may be given again.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Protocol::ALL.map(Protocol::name)))]
    protocol: Vec<String>,
    /// Proof of a curve of decoy-state BB84 with finite blocks; may be given again.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Proof::ALL.map(Proof::name)))]
    proof: Vec<String>,
    /// First distance of a curve; 0 if not given.
    #[arg(long, value_name = "KM", value_parser = distance)]
    from: Option<f64>,
    /// Last distance of a curve; 200 if not given.
    #[arg(long, value_name = "KM", value_parser = distance)]
    to: Option<f64>,
    /// Between two points of a curve; 5 if not given.
    #[arg(long, value_name = "KM", value_parser = step)]
    step: Option<f64>,
    /// Named hardware of the curves; s1 if nothing is given.
    #[arg(long, value_name = "SET", conflicts_with = "network", value_parser = hardware_names())]
    hardware: Option<String>,
    /// Sifted key-basis bits in a block; otherwise the network's, or a million.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10_000..=1_000_000_000))]
    block_bits: Option<u32>,
    /// Reconciliation leak over the Shannon limit that planning assumes.
    #[arg(long, default_value_t = 1.16, value_name = "FACTOR", value_parser = leak_factor)]
    leak_factor: f64,
    /// Choose intensities, probabilities and bases anew for each link or distance.
    #[arg(long)]
    optimise: bool,
    /// Draw the curves into an SVG file.
    #[arg(long, value_name = "FILE", value_parser = svg_file)]
    svg: Option<PathBuf>,
    /// Draw the curves into a PNG file.
    #[arg(long, value_name = "FILE", value_parser = png_file)]
    png: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the table of a network, or curves.
pub(super) fn run(args: &RateArgs) -> Outcome<()> {
    let network = args.network.as_deref().map(read_network).transpose()?;
    match network {
        Some(network) if !args.asks_for_curves() => links(args, &network),
        network => curves(args, network.as_ref()),
    }
}

impl RateArgs {
    fn asks_for_curves(&self) -> bool {
        let ranged = self.from.is_some() || self.to.is_some() || self.step.is_some();
        let named = self.link.is_some() || !self.protocol.is_empty() || !self.proof.is_empty();
        self.curve || ranged || named || self.svg.is_some() || self.png.is_some()
    }
}

#[derive(Serialize)]
struct LinkRow {
    link: String,
    length_km: f64,
    proof: &'static str,
    secret_bit_s: f64,
    qber: f64,
    phase_error: f64,
    clicks_per_s: f64,
    live_fraction: f64,
    sifted_per_s: f64,
    block_s: f64,
}

fn links(args: &RateArgs, network: &Network) -> Outcome<()> {
    let mut links: Vec<_> = network.links().values().collect();
    links.sort_by(|a, b| a.length.0.total_cmp(&b.length.0));
    let security = network.security();
    let rows: Vec<_> = links.into_iter().map(|link| link_row(args, link, &security)).collect();
    print(args.json, &rows, || link_table(&rows))
}

fn link_row(args: &RateArgs, link: &Link, security: &Security) -> LinkRow {
    let given = Setting::of(link, security, args.leak_factor);
    let block_bits = args.block_bits.unwrap_or(link.decoy.block_bits);
    let decoy = DecoySettings { block_bits, ..link.decoy.clone() };
    let setting = Setting { decoy: &decoy, ..given };
    let best = args.optimise.then(|| optimise(&setting));
    let point = Setting { decoy: best.as_ref().unwrap_or(&decoy), ..setting }.rate();
    LinkRow {
        link: link.id.to_string(),
        length_km: link.length.0,
        proof: link.proof.name(),
        secret_bit_s: point.skr.0,
        qber: point.qber,
        phase_error: point.phase_error,
        clicks_per_s: point.clicks_per_s,
        live_fraction: point.live_fraction,
        sifted_per_s: point.sifted_per_s,
        block_s: point.block_s,
    }
}

fn link_table(rows: &[LinkRow]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "link",
        "km",
        "proof",
        "secret bit/s",
        "QBER %",
        "phase error %",
        "clicks/s",
        "sifted/s",
        "block s",
    ]);
    for row in rows {
        table.add_row([
            row.link.clone(),
            format!("{:.0}", row.length_km),
            row.proof.to_owned(),
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

/// Curves, as JSON shows them.
#[derive(Serialize)]
struct Curves {
    hardware: String,
    leak_factor: f64,
    block_bits: u32,
    optimised: bool,
    curves: Vec<Curve>,
}

#[derive(Serialize)]
struct Curve {
    protocol: &'static str,
    about: &'static str,
    sifting: &'static str,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    km: f64,
    secret_bit_per_pulse: f64,
    secret_bit_s: f64,
    qber: Option<f64>,
}

fn curves(args: &RateArgs, network: Option<&Network>) -> Outcome<()> {
    let distances = distances(args);
    let (hardware, conditions, usual) = conditions(args, network)?;
    let protocols = protocols(args, usual);
    let curve = |protocol: Protocol| Curve {
        protocol: protocol.name(),
        about: protocol.about(),
        sifting: protocol.sifting(),
        points: distances.iter().map(|km| point(protocol, &conditions, *km)).collect(),
    };
    let shown = Curves {
        hardware,
        leak_factor: args.leak_factor,
        block_bits: conditions.block_bits,
        optimised: args.optimise,
        curves: protocols.iter().copied().map(curve).collect(),
    };
    let pictures = [args.svg.as_ref().map(|file| Picture::Svg(file)), args.png.as_ref().map(|file| Picture::Png(file))];
    let mut drawn = String::new();
    for picture in pictures.into_iter().flatten() {
        chart(&shown, &curve(Protocol::Plob)).draw(&picture)?;
        drawn.push_str(&format!("\ndrawn: {}", picture.file().display()));
    }
    print(args.json, &shown, || curve_table(&shown) + &drawn)
}

fn point(protocol: Protocol, conditions: &Conditions, km: f64) -> Point {
    let point = protocol.rate(conditions, Kilometres(km));
    Point { km, secret_bit_per_pulse: point.bits_per_pulse, secret_bit_s: point.skr.0, qber: point.qber }
}

/// The distances of the curves; says what is wrong with them and ends the process with the code for wrong usage.
fn distances(args: &RateArgs) -> Vec<f64> {
    let (from, to, step) = (args.from.unwrap_or(0.0), args.to.unwrap_or(200.0), args.step.unwrap_or(5.0));
    if from > to {
        wrong_usage(format!("--from {from} is beyond --to {to}: swap them"));
    }
    let mut distances = Vec::new();
    for i in 0..=POINTS_MAX {
        // Not by adding up: rounding errors would lose the last point.
        let km = from + f64::from(i) * step;
        if km > to * (1.0 + 1e-12) {
            return distances;
        }
        distances.push(km);
    }
    wrong_usage(format!("a curve has at most {POINTS_MAX} points: give a larger --step or a smaller --to"))
}

/// What the curves are for, its name, and the proof that they have if none is named.
fn conditions(args: &RateArgs, network: Option<&Network>) -> Outcome<(String, Conditions, Proof)> {
    let conditions = |hardware, security, decoy: Option<DecoySettings>| {
        let given = decoy.as_ref().map_or(BLOCK_BITS, |decoy| decoy.block_bits);
        let block_bits = args.block_bits.unwrap_or(given);
        Conditions { hardware, security, f_ec: args.leak_factor, block_bits, decoy, optimise: args.optimise }
    };
    let Some(network) = network else {
        let name = args.hardware.as_deref().unwrap_or("s1");
        let Some(set) = HardwareSet::named(name) else {
            return Err(Failure::new(format!("no hardware set is named {name}")).remedy("see --help for their names"));
        };
        return Ok((set.name.to_owned(), conditions(set.hardware, SECURITY, None), Proof::Lim2014));
    };
    let link = chosen_link(args, network)?;
    let name = format!("that of link {}", link.id);
    Ok((name, conditions(link.hardware.clone(), network.security(), Some(link.decoy.clone())), link.proof))
}

fn chosen_link<'a>(args: &RateArgs, network: &'a Network) -> Outcome<&'a Link> {
    let links = network.links();
    let shortest = links.values().min_by(|a, b| a.length.0.total_cmp(&b.length.0));
    match &args.link {
        None => shortest.ok_or_else(|| Failure::new("the network has no link").remedy("name a set with --hardware")),
        Some(name) => links.values().find(|link| link.id.to_string() == *name).ok_or_else(|| {
            let names: Vec<_> = links.keys().map(ToString::to_string).collect();
            Failure::new(format!("the network has no link {name}")).remedy(format!("take one of {}", names.join(", ")))
        }),
    }
}

/// The protocols in the order given, proofs after them; `usual` if there is none.
fn protocols(args: &RateArgs, usual: Proof) -> Vec<Protocol> {
    let named = args.protocol.iter().filter_map(|name| name.parse().ok());
    let proofs = args.proof.iter().filter_map(|name| name.parse().ok()).map(Protocol::DecoyBb84);
    let mut all: Vec<Protocol> = Vec::new();
    for protocol in named.chain(proofs) {
        if !all.contains(&protocol) {
            all.push(protocol);
        }
    }
    if all.is_empty() {
        all.push(Protocol::DecoyBb84(usual));
    }
    all
}

fn curve_table(shown: &Curves) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let columns = shown.curves.iter().flat_map(|curve| {
        let qber = curve.points.iter().any(|point| point.qber.is_some());
        [Some(format!("{}\nsecret bit/s", curve.protocol)), qber.then(|| "\nQBER %".to_owned())]
    });
    table.set_header(["km".to_owned()].into_iter().chain(columns.flatten()));
    let rows = shown.curves.first().map_or(0, |curve| curve.points.len());
    for row in 0..rows {
        let mut cells = vec![shown.curves[0].points[row].km.to_string()];
        for curve in &shown.curves {
            let point = &curve.points[row];
            cells.push(if point.secret_bit_s > 0.0 { rounded(point.secret_bit_s) } else { "no key".to_owned() });
            cells.extend(point.qber.map(|qber| format!("{:.2}", qber * 100.0)));
        }
        table.add_row(cells);
    }
    let blocks = shown.curves.iter().any(|curve| curve.about.contains("finite"));
    let blocks = if blocks { format!(", blocks of {} bits", shown.block_bits) } else { String::new() };
    let settings = if shown.optimised { ", settings optimised at each distance" } else { "" };
    let mut text =
        format!("Hardware {}, leak factor {}{blocks}{settings}.\n{table}", shown.hardware, shown.leak_factor);
    for curve in &shown.curves {
        text.push_str(&format!("\n{}: {}. Sifted: {}.", curve.protocol, curve.about, curve.sifting));
    }
    text
}

/// Whole bits per second, or three digits of less.
fn rounded(rate: f64) -> String {
    if rate.is_infinite() {
        "no limit".to_owned()
    } else if rate >= 100.0 {
        format!("{rate:.0}")
    } else if rate >= 0.01 {
        format!("{rate:.2}")
    } else {
        format!("{rate:.1e}")
    }
}

fn chart(shown: &Curves, limit: &Curve) -> Chart {
    let line = |curve: &Curve| curve.points.iter().map(|point| (point.km, point.secret_bit_s)).collect();
    let others = shown.curves.iter().filter(|curve| curve.protocol != limit.protocol);
    Chart {
        title: format!("Secret key rate over distance: hardware {}, leak factor {}", shown.hardware, shown.leak_factor),
        lines: others.map(|curve| (curve.about.to_owned(), line(curve))).collect(),
        limit: (limit.about.to_owned(), line(limit)),
    }
}

fn help() -> String {
    let list = |rows: Vec<(&'static str, &'static str)>| {
        rows.into_iter().map(|(name, about)| format!("  {name:<20}{about}\n")).collect::<String>()
    };
    let protocols = list(Protocol::ALL.map(|protocol| (protocol.name(), protocol.about())).to_vec());
    let sets = list(HardwareSet::all().into_iter().map(|set| (set.name, set.about)).collect());
    format!(
        "Protocols:\n{protocols}\nHardware sets:\n{sets}\nExamples:\n  \
         qurrent link rate --network networks/shanxi.toml\n  \
         qurrent link rate --hardware gys --protocol bb84-asymptotic --protocol bb84-distilled --optimise --leak-factor 1.22\n  \
         qurrent link rate --proof lim2014 --proof wiesemann2026 --optimise --to 200 --step 2 --png rates.png"
    )
}

fn hardware_names() -> PossibleValuesParser {
    PossibleValuesParser::new(HardwareSet::all().into_iter().map(|set| set.name))
}

fn distance(text: &str) -> Result<f64, String> {
    number(text, |km| (0.0..=2_000.0).contains(&km), "from 0 to 2,000 km")
}

fn step(text: &str) -> Result<f64, String> {
    number(text, |km| (0.01..=1_000.0).contains(&km), "from 0.01 to 1,000 km")
}

fn leak_factor(text: &str) -> Result<f64, String> {
    number(text, |factor| (1.0..=2.0).contains(&factor), "from 1 to 2")
}

fn number(text: &str, allowed: impl Fn(f64) -> bool, rule: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| allowed(*value)).ok_or_else(|| format!("must be a number {rule}"))
}

fn svg_file(text: &str) -> Result<PathBuf, String> {
    file(text, "svg")
}

fn png_file(text: &str) -> Result<PathBuf, String> {
    file(text, "png")
}

fn file(text: &str, extension: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let right = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
    if right { Ok(path) } else { Err(format!("must end in .{extension}")) }
}

/// Says what is wrong with options that are right one by one, as clap does.
fn wrong_usage(message: String) -> ! {
    /// Stands for `qurrent link rate` in the message.
    #[derive(Parser, Debug)]
    #[command(name = "qurrent link rate")]
    struct Rate {
        #[command(flatten)]
        args: RateArgs,
    }
    Rate::command().error(ErrorKind::ValueValidation, message).exit()
}

/// Of a curve without a network file: those of the reference network.
const SECURITY: Security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
const BLOCK_BITS: u32 = 1_000_000;
const POINTS_MAX: u32 = 10_000;
