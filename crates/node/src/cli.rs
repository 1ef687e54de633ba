//! The command line: parses, sets up logging and the runtime, runs one command, and says how it ended.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands::{audit, backup, bench, bridge, demo, fibre, key, link, model, network, node, store};
use crate::failure::{Context as _, Outcome};
use crate::telecontrol::{self, GatewayArgs, TerminalArgs};

/// Quantum-key-secured communication for power grids.
#[derive(Parser, Debug)]
#[command(name = "qurrent", version)]
#[command(
    after_help = "Start here:\n  qurrent demo          five substations on this machine, with a dashboard\n  qurrent demo --help   what it does and how to look inside\n\nExit codes: 0 done, or stopped by SIGTERM or Ctrl-C; 1 failed, and the message says what to do; 2 wrong arguments.\n`key`, `bridge` and `bench` have more; their --help says which."
)]
struct Cli {
    /// What to log, for example `info`, `debug` or `node=debug,kms=trace`.
    #[arg(long, global = true, env = "QURRENT_LOG", default_value = "warn", value_name = "FILTER", value_parser = filter)]
    log: String,
    /// Log as JSON, one object a line.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Node(node::NodeArgs),
    Network(network::NetworkArgs),
    Link(link::LinkArgs),
    Key(key::KeyArgs),
    Model(model::ModelArgs),
    Gateway(GatewayArgs),
    Terminal(TerminalArgs),
    Bridge(bridge::BridgeArgs),
    Audit(audit::AuditArgs),
    Backup(backup::BackupArgs),
    Store(store::StoreArgs),
    Fibre(fibre::FibreArgs),
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    BenchEnd(bench::EndArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(&cli.log, cli.log_json);
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            drop(writeln!(std::io::stderr().lock(), "qurrent: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context(|| "cannot start the runtime".to_owned())?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Node(args) => Box::pin(node::run(args)).await,
            Command::Network(args) => network::run(args),
            Command::Link(args) => Box::pin(link::run(args)).await,
            Command::Key(args) => key::run(args).await,
            Command::Model(args) => Box::pin(model::run(args)).await,
            Command::Gateway(args) => Box::pin(telecontrol::run_gateway(args)).await,
            Command::Terminal(args) => Box::pin(telecontrol::run_terminal(args)).await,
            Command::Bridge(args) => Box::pin(bridge::run(args)).await,
            Command::Audit(args) => audit::run(args),
            Command::Backup(args) => tokio::task::block_in_place(|| backup::run(args)),
            Command::Store(args) => tokio::task::block_in_place(|| store::run(args)),
            Command::Fibre(args) => fibre::run(args).await,
            Command::Bench(args) => tokio::task::block_in_place(|| bench::run(&args)),
            Command::BenchEnd(args) => tokio::task::block_in_place(|| bench::run_end(&args)),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// A filter that is no filter must not pass for another one.
fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write a level, or CRATE=LEVEL with commas between")),
    }
}

fn log_to_stderr(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn every_command_is_well_formed_and_explains_each_option() {
        let mut all = vec![Cli::command()];
        Cli::command().debug_assert();
        while let Some(command) = all.pop() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            assert!(command.get_about().is_some(), "{}", command.get_name());
            all.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        }
    }

    #[test]
    fn the_examples_in_help_texts_are_right() {
        let (mut all, mut tried) = (vec![Cli::command()], 0);
        while let Some(command) = all.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = help.split("\\\n").map(str::trim).collect::<Vec<_>>().join(" ");
            for line in help.lines().filter(|line| line.trim_start().starts_with("qurrent ")) {
                // What an example does stands behind it, some spaces off.
                let example = line.trim_start().split("   ").next().unwrap_or_default();
                match Cli::try_parse_from(example.split_whitespace().map(|word| word.trim_matches('\''))) {
                    Err(error) if error.kind() != ErrorKind::DisplayHelp => panic!("{example}: {error}"),
                    _ => tried += 1,
                }
            }
            all.extend(command.get_subcommands().cloned());
        }
        assert!(tried > 30, "{tried} examples");
    }

    #[test]
    fn commands_in_documents_are_right() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = vec![root.join("README.md")];
        for folder in ["guide", "operations", "api"] {
            files.extend(fs::read_dir(root.join("docs").join(folder)).unwrap().map(|entry| entry.unwrap().path()));
        }
        files.retain(|file| file.extension().is_some_and(|end| end == "md"));
        let mut tried = 0;
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            // What stands between fences, each as its language and its lines.
            for block in
                text.split("```").skip(1).step_by(2).filter_map(|block| block.trim_start().strip_prefix("sh\n"))
            {
                let joined = block.replace("\\\n", " ");
                for line in joined.lines().filter_map(|line| line.trim_start().strip_prefix("qurrent ")) {
                    // A comment, a pipe, a file to write to or a second command ends it.
                    let ends = |word: &&str| !["#", "|", ">", "<", "&", "&&", ";"].contains(word);
                    // What a shell puts in is one word here; a list of options is none.
                    let line = match line.split_once("$(") {
                        Some((_, list)) if list.contains("--") => continue,
                        Some((before, _)) => format!("{before}$(…)"),
                        None => line.to_owned(),
                    };
                    let words = line.split_whitespace().take_while(ends).map(|word| word.trim_matches('\''));
                    match Cli::try_parse_from(["qurrent"].into_iter().chain(words)) {
                        Ok(_) => tried += 1,
                        // A place to put something in, as ID or $(…), is no value of its kind.
                        Err(error) if error.kind() == ErrorKind::ValueValidation => tried += 1,
                        Err(error) if error.kind() == ErrorKind::DisplayVersion => tried += 1,
                        Err(error) => panic!("{}: qurrent {line}: {error}", file.display()),
                    }
                }
            }
        }
        assert!(tried > 30, "{tried} commands");
    }

    #[test]
    fn a_wrong_filter_is_refused() {
        assert!(filter("node=debug,kms=trace").is_ok());
        assert!(filter("node=x=y").is_err());
    }
}
