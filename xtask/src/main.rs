//! The project's own tooling: `cargo xtask tidy`, `cargo xtask ci`, `cargo xtask test`.
//!
//! Exit code 0 when everything held, 1 when something did not, 2 for wrong usage.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod ci;
mod command;
mod tidy;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("tidy") if rest.is_empty() => tidy::run(&root()),
        Some("ci") if rest.is_empty() => ci::run(&root()),
        Some("test") => ci::test(&root(), rest),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why a task did not succeed, in words for the person who ran it.
#[derive(Debug)]
struct Failure(String);

/// The workspace's folder: the one above this crate's.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate's folder lies in the workspace's").to_path_buf()
}

const USAGE: &str = "\
Usage: cargo xtask <TASK>

  tidy         the project's rules that no compiler checks: layers, cores, sizes, labels, licences, documents
  test [ARGS]  all tests; ARGS go to `cargo nextest run` (or `cargo test` where nextest is not installed)
  ci           everything a change must pass: format, tidy, clippy, peers, tests, doc tests

Example: cargo xtask test -p kms relay
";
