//! `qurrent node`: one site's process.

use std::path::PathBuf;

use clap::Args;

use crate::config::NodeConfig;
use crate::failure::Outcome;
use crate::{site, stop};

/// Run one site: its links, key management entity, audit log and dashboard.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  qurrent node --config shanxi/sites/taiyuan/node.toml")]
pub struct NodeArgs {
    /// The site's configuration, written by `qurrent network init`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop when standard input ends; for supervisors that may die themselves.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs until SIGTERM.
///
/// # Errors
/// If the site cannot start, or its disk fails.
pub async fn run(args: NodeArgs) -> Outcome<()> {
    raise_file_limit();
    let stop = stop::on_signal()?;
    if args.stop_with_stdin {
        stop::with_stdin(&stop);
    }
    site::run(NodeConfig::read(&args.config)?, stop).await
}

/// As many open files as this process may have: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(?current, %error, "the limit of open files stays; it also limits connections");
    }
}
