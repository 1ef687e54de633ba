//! The commands of `qurrent`: arguments, what they do, what they print.

pub mod audit;
pub mod backup;
pub mod bench;
pub mod bridge;
pub mod demo;
pub mod fibre;
pub mod key;
pub mod link;
pub mod model;
pub mod network;
pub mod node;
pub mod store;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Context as _, Outcome};

/// Prints a result: for people, or as one JSON document with `--json`.
///
/// # Errors
/// If standard output is closed.
pub fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Outcome<()> {
    use std::io::Write as _;
    let what = || "cannot write to standard output".to_owned();
    let out = if json { serde_json::to_string_pretty(value).context(what)? } else { text() };
    writeln!(std::io::stdout().lock(), "{}", out.trim_end()).context(what)
}

/// Prints one line for people.
///
/// # Errors
/// If standard output is closed.
pub fn say(line: &str) -> Outcome<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{line}").context(|| "cannot write to standard output".to_owned())
}

/// Progress of long work, on a terminal; nothing for `--json`.
pub(crate) fn spinner(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}
