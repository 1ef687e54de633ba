//! Child processes: one command line, run where the workspace is, its output read or passed through.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::Failure;

/// A program with its arguments, printable so that it can be typed again.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    program: String,
    arguments: Vec<String>,
}

impl CommandLine {
    pub(crate) fn new(program: &str, arguments: &[&str]) -> Self {
        Self { program: program.to_owned(), arguments: arguments.iter().map(|&part| part.to_owned()).collect() }
    }

    pub(crate) fn with(mut self, more: &[String]) -> Self {
        self.arguments.extend_from_slice(more);
        self
    }

    /// Runs it with this process's own input and output. True if it succeeded.
    pub(crate) fn passes(&self, folder: &Path) -> Result<bool, Failure> {
        let status = self.command(folder).status().map_err(|error| self.not_started(&error))?;
        Ok(status.success())
    }

    /// Runs it, passes every line on and gives back those that `keep` picks. True if it succeeded.
    pub(crate) fn watch(&self, folder: &Path, keep: fn(&str) -> bool) -> Result<(bool, Vec<String>), Failure> {
        let mut child = self
            .command(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        let errors = thread::spawn(move || pass_on(stderr, io::stderr(), keep));
        let mut kept = pass_on(stdout, io::stdout(), keep);
        kept.extend(errors.join().expect("passing lines on does not panic"));
        let status = child.wait().map_err(|error| Failure(format!("waiting for `{self}`: {error}")))?;
        Ok((status.success(), kept))
    }

    /// Runs it and gives back its standard output.
    pub(crate) fn read(&self, folder: &Path) -> Result<String, Failure> {
        let output = self.command(folder).output().map_err(|error| self.not_started(&error))?;
        if !output.status.success() {
            return Err(Failure(format!("`{self}` failed:\n{}", String::from_utf8_lossy(&output.stderr))));
        }
        String::from_utf8(output.stdout).map_err(|_| Failure(format!("`{self}` printed something that is not UTF-8")))
    }

    fn command(&self, folder: &Path) -> Command {
        // Cargo says which cargo runs this task; the same one runs the rest.
        let program = match self.program.as_str() {
            "cargo" => env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            other => other.into(),
        };
        let mut command = Command::new(program);
        command.args(&self.arguments).current_dir(folder).env("CI", "true");
        command
    }

    fn not_started(&self, error: &io::Error) -> Failure {
        Failure(format!("`{self}` could not be started: {error}"))
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

/// Copies lines until the input ends. A reader that went away is no reason to stop: the child must not block.
fn pass_on(input: impl Read, mut output: impl Write, keep: fn(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(input).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        writeln!(output, "{line}").ok();
        if keep(&line) && kept.len() < KEPT_LINES_MAX {
            kept.push(line.into_owned());
        }
    }
    kept
}

const KEPT_LINES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_outputs_are_watched_and_the_exit_code_is_seen() {
        let line = CommandLine::new("sh", &["-c", "echo keep out; echo drop; echo keep err >&2; exit 3"]);
        let (succeeded, mut kept) = line.watch(Path::new("."), |line| line.starts_with("keep")).unwrap();
        kept.sort();
        assert!(!succeeded);
        assert_eq!(kept, ["keep err", "keep out"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let Failure(message) = CommandLine::new("no-such-program", &["x"]).passes(Path::new(".")).unwrap_err();
        assert!(message.starts_with("`no-such-program x` could not be started"), "{message}");
    }
}
