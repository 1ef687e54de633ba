//! `cargo xtask tidy`: the project's rules that no compiler checks, as code.
//!
//! Every check is a function from the [`Tree`] (files and dependency graph) to findings. All of them run; any error
//! fails the task, warnings do not. Each check's tests hold a small bad example that it must refuse.
//!
//! | module | holds |
//! |---|---|
//! | [`layers`] | the table of crates; arrows of dependency only point down |
//! | [`cores`] | cores have no IO, clock, thread, environment or OS randomness |
//! | [`lints`] | every crate inherits the workspace's lints; `unsafe` and long functions are refused |
//! | [`size`] | lines of code per file |
//! | [`form`] | module docs, file and module names, markers of unfinished work, one integration binary |
//! | [`labels`] | no domain label outside `crypto::domain` |
//! | [`licences`] | licences of all dependencies, refused crates, DEPENDENCIES.md |
//! | [`documents`] | links, TOML and JSON files, paths of a developer's machine |
//! | [`invariants`] | ARCHITECTURE.md names the test of each invariant, and it exists |

use std::fmt;
use std::path::Path;
use std::time::Instant;

use crate::Failure;

use self::tree::Tree;

mod cores;
mod documents;
mod form;
mod graph;
mod invariants;
mod labels;
mod layers;
mod licences;
mod lints;
mod size;
mod source;
mod tree;

/// Runs every check over the workspace at `root` and prints what was found.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let tree = Tree::load(root)?;
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        println!("{finding}");
    }
    let mut errors = 0;
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Error) {
        println!("{finding}");
        errors += 1;
    }
    let (files, warnings) = (tree.files.len(), findings.len() - errors);
    let seconds = start.elapsed().as_secs_f64();
    println!("tidy: {files} files, {errors} errors, {warnings} warnings in {seconds:.1} s");
    if errors > 0 { Err(Failure(format!("tidy found {errors} errors"))) } else { Ok(()) }
}

type Check = fn(&Tree) -> Vec<Finding>;

const CHECKS: [Check; 9] = [
    layers::check,
    cores::check,
    lints::check,
    size::check,
    form::check,
    labels::check,
    licences::check,
    documents::check,
    invariants::check,
];

/// One place where a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    rule: &'static str,
    path: String,
    /// From 1; 0 when the whole file is meant.
    line: usize,
    message: String,
}

impl Finding {
    fn error(rule: &'static str, path: &str, line: usize, message: String) -> Self {
        Self { severity: Severity::Error, rule, path: path.to_owned(), line, message }
    }

    fn warning(rule: &'static str, path: &str, line: usize, message: String) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, path, line, message) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.rule, self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// For tests of checks: the rule and place of every finding, as `path:line`.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
}
