//! `cargo xtask ci`: everything a change must pass, in order, up to the first failure; and `cargo xtask test`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::CommandLine;
use crate::{Failure, tidy};

/// What a clean clone may take on two cores.
const BUDGET: Duration = Duration::from_secs(25 * 60);

/// Installs the third-party programs that tests talk to.
const PEERS: &str = "tests/peers/install.sh";

/// One step with its heading.
struct Step {
    title: &'static str,
    work: Work,
}

enum Work {
    /// A program that succeeds or not.
    Run(CommandLine),
    /// A test runner, whose closing lines are repeated at the end.
    Test(CommandLine),
    /// The checks of this crate.
    Tidy,
}

/// Runs every step.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let mut times = Vec::new();
    let mut summary = Vec::new();
    for step in steps(root) {
        println!("\n== {}: {}", step.title, step.work.command());
        let step_start = Instant::now();
        summary.extend(step.work.run(root).map_err(|Failure(reason)| {
            let repeat = step.work.command();
            Failure(format!("the step `{}` failed ({reason}); repeat it with\n\n    {repeat}\n", step.title))
        })?);
        times.push((step.title, step_start.elapsed()));
    }
    println!("\n== all steps passed");
    for (title, time) in times {
        println!("{title:<10} {}", in_words(time));
    }
    for line in summary {
        println!("{line}");
    }
    let total = start.elapsed();
    println!("total      {}", in_words(total));
    if total > BUDGET {
        println!("warning: that is more than the {} that CI gives it", in_words(BUDGET));
    }
    Ok(())
}

/// Runs the tests alone; `arguments` go to the runner.
pub(crate) fn test(root: &Path, arguments: &[String]) -> Result<(), Failure> {
    let base = if arguments.is_empty() { vec!["--workspace".to_owned()] } else { arguments.to_vec() };
    let command = test_command(root).with(&base);
    if command.passes(root)? { Ok(()) } else { Err(Failure(format!("`{command}` failed"))) }
}

fn steps(root: &Path) -> Vec<Step> {
    let cargo = |arguments: &[&str]| CommandLine::new("cargo", arguments);
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    vec![
        Step { title: "format", work: Work::Run(cargo(&["fmt", "--all", "--check"])) },
        Step { title: "tidy", work: Work::Tidy },
        Step { title: "clippy", work: Work::Run(cargo(&clippy)) },
        Step { title: "peers", work: Work::Run(CommandLine::new("bash", &[PEERS])) },
        Step { title: "tests", work: Work::Test(test_command(root).with(&["--workspace".to_owned()])) },
        Step { title: "doc tests", work: Work::Test(cargo(&["test", "--workspace", "--doc"])) },
    ]
}

/// `cargo nextest run` where it is installed, else `cargo test` for the same targets.
fn test_command(root: &Path) -> CommandLine {
    if CommandLine::new("cargo", &["nextest", "--version"]).read(root).is_ok() {
        CommandLine::new("cargo", &["nextest", "run"])
    } else {
        CommandLine::new("cargo", &["test", "--tests"])
    }
}

impl Work {
    fn run(&self, root: &Path) -> Result<Vec<String>, Failure> {
        match self {
            Self::Tidy => tidy::run(root).map(|()| Vec::new()),
            Self::Run(command) if command.passes(root)? => Ok(Vec::new()),
            Self::Test(command) => match command.watch(root, is_summary)? {
                (true, lines) => Ok(summed_up(lines)),
                (false, _) => Err(Failure("see above".to_owned())),
            },
            Self::Run(_) => Err(Failure("see above".to_owned())),
        }
    }

    fn command(&self) -> String {
        match self {
            Self::Tidy => "cargo xtask tidy".to_owned(),
            Self::Run(command) | Self::Test(command) => command.to_string(),
        }
    }
}

/// A line with which nextest closes, or one of the many of `cargo test`.
fn is_summary(line: &str) -> bool {
    line.trim_start().starts_with("Summary [") || line.starts_with("test result: ")
}

/// Adds the results of the test binaries up; nextest's line stays as it is.
fn summed_up(lines: Vec<String>) -> Vec<String> {
    let (results, mut summary): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.starts_with("test result: "));
    let number = |line: &str, word: &str| -> Option<u64> {
        line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    let count = |word: &str| -> u64 { results.iter().filter_map(|line| number(line, word)).sum() };
    if !results.is_empty() {
        let (passed, failed, ignored) = (count("passed"), count("failed"), count("ignored"));
        summary.push(format!("test result: {passed} passed, {failed} failed, {ignored} ignored"));
    }
    summary
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "     Summary [   3.2s] 20 tests run: 20 passed, 0 skipped",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        assert!(lines.iter().all(|line| is_summary(line)) && !is_summary("running 3 tests"));
        let summed = summed_up(lines.map(str::to_owned).to_vec());
        assert_eq!(summed, [lines[1], "test result: 15 passed, 0 failed, 1 ignored"]);
    }

    #[test]
    fn a_failing_step_names_the_command_to_repeat_it() {
        let work = Work::Run(CommandLine::new("sh", &["-c", "exit 1"]));
        assert!(work.run(Path::new(".")).is_err());
        assert_eq!(work.command(), "sh -c exit 1");
        assert_eq!(Work::Tidy.command(), "cargo xtask tidy");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(in_words(Duration::from_millis(1_540)), "1.5 s");
        assert_eq!(in_words(Duration::from_secs(61)), "1 min 1 s");
    }
}
