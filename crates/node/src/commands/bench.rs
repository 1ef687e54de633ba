//! `qurrent bench`: measures published figures again.

use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use types::quantum::Role;

use super::print;
use crate::bench::{self, Effort, Row};
use crate::failure::{Failure, Outcome};

/// Measure every published figure again, each beside the bar that it has to reach.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cargo run --release -- bench link
  cargo run --release -- bench kms --markdown
Exit code 0 when every bar is reached, 1 when one is not, 2 when something could not be measured.
Figures of a development build mean nothing.")]
pub struct BenchArgs {
    /// Groups of figures; default: all.
    #[arg(value_name = "GROUP")]
    groups: Vec<Group>,
    /// Only show that every measurement works; its figures mean nothing, and bars do not count.
    #[arg(long)]
    smoke: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    /// Print as the table of docs/benchmarks.md.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The quantum layer.
    Link,
    /// Key management.
    Kms,
}

/// One end of the measurement from end to end; started by the bench itself.
#[derive(Args, Debug)]
pub struct EndArgs {
    role: String,
    address: std::net::SocketAddr,
    blocks: u64,
}

/// Measures and prints.
///
/// # Errors
/// If a bar is not reached, or something could not be measured.
pub fn run(args: &BenchArgs) -> Outcome<()> {
    let effort = if args.smoke { Effort::Smoke } else { Effort::Full };
    let groups = if args.groups.is_empty() { Group::value_variants().to_vec() } else { args.groups.clone() };
    let mut rows = Vec::new();
    for group in groups {
        match group {
            Group::Link => rows.extend(bench::link(effort)?),
            Group::Kms => rows.extend(bench::kms(effort)?),
        }
    }
    print(args.json, &rows, || if args.markdown { markdown(&rows) } else { table(&rows) })?;
    if let Some(row) = rows.iter().find(|row| row.value.is_none()) {
        return Err(Failure::new(format!("{} could not be measured: {}", row.name, row.how)).exit_code(2));
    }
    let missed: Vec<_> = rows.iter().filter(|row| row.met == Some(false)).map(|row| row.name.as_str()).collect();
    if missed.is_empty() || args.smoke {
        return Ok(());
    }
    Err(Failure::new(format!("bars not reached: {}", missed.join(", "))))
}

/// Runs one end.
///
/// # Errors
/// As the end.
pub fn run_end(args: &EndArgs) -> Outcome<()> {
    let role = match args.role.as_str() {
        "alice" => Role::Alice,
        "bob" => Role::Bob,
        other => return Err(Failure::new(format!("no role is called {other}"))),
    };
    bench::end::run(role, args.address, args.blocks)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["figure", "value", "bar", "anchor", "", "how"]);
    for row in rows {
        let mark = match row.met {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "-",
        };
        let [name, value, bar, anchor, how] = cells(row);
        table.add_row([name, value, bar, anchor, mark.to_owned(), how]);
    }
    format!("{}\n{table}", machine())
}

/// The rows as `docs/benchmarks.md` has them. A bar that was not reached says so.
fn markdown(rows: &[Row]) -> String {
    let mut text = format!("{}.\n\n| figure | value | bar | anchor | ours / anchor | how |\n", machine());
    text.push_str("|---|---|---|---|---|---|\n");
    for row in rows {
        let [name, value, bar, anchor, how] = cells(row);
        let missed = if row.met == Some(false) { " **missed**" } else { "" };
        let ratio = row.value.zip(row.anchor).map_or(String::new(), |(value, anchor)| short(value / anchor));
        let cells = [value, format!("{bar}{missed}"), anchor, ratio, how.replace('\n', "; ").replace('|', "\\|")];
        text.push_str(&format!("| `{name}` | {} |\n", cells.map(|cell| cell.trim().to_owned()).join(" | ")));
    }
    text
}

/// Name, value, bar, anchor and how of a row.
fn cells(row: &Row) -> [String; 5] {
    let limit = |bar: f64| match row.better {
        bench::Better::Higher => format!("≥ {}", short(bar)),
        bench::Better::Lower => format!("≤ {}", short(bar)),
    };
    [
        row.name.clone(),
        row.value.map_or("not measured".to_owned(), |value| format!("{} {}", short(value), row.unit)),
        row.bar.map_or(String::new(), limit),
        row.anchor.map_or(String::new(), |anchor| format!("{} ({})", short(anchor), row.anchor_source)),
        row.how.clone(),
    ]
}

/// Processor and load, so that a figure can be judged.
fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let build = if cfg!(debug_assertions) { "DEVELOPMENT BUILD" } else { "release build" };
    format!("{}, {cores} cores, load {load}, {build}", model.trim_start_matches([' ', '\t', ':']))
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{value:.3e}"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
