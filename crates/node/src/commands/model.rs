//! `qurrent model plan|publish|list|show|fetch|verify`: models, sealed and distributed.
//!
//! | module | holds |
//! |---|---|
//! | [`local`] | the site that the command acts for, from its configuration |
//! | [`wrapping`] | wrapping keys over ETSI GS QKD 014 |
//! | [`watch`] | progress on a terminal, quiet lines otherwise; events to the site's audit log |
//! | [`planning`], [`sending`], [`looking`] | the commands |

use std::path::PathBuf;

use clap::{Args, Subcommand};
use types::id::{ModelId, SiteId};
use vault::Rule;

use crate::failure::{Failure, Outcome};

pub mod local;
pub mod looking;
pub mod planning;
pub mod sending;
pub mod watch;
pub mod wrapping;

/// Models: plan their protection, publish, list, show, fetch, verify.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Configuration of the site to act for, node.toml.
    #[arg(long, value_name = "FILE", global = true, default_value = "node.toml")]
    config: PathBuf,
    /// Print as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Subcommand, Debug)]
enum ModelCommand {
    /// Show how much quantum key each tensor would get. Spends nothing.
    #[command(
        after_help = "Examples:\n  qurrent model plan model.safetensors\n  qurrent model plan model.safetensors --budget 32 --rule '*attn*=own-key' --rate 4500"
    )]
    Plan(PlanArgs),
    /// Seal a model file and publish it as the next version.
    #[command(
        after_help = "Examples:\n  qurrent model publish --config shanxi/sites/taiyuan/node.toml grid-model model.safetensors\n  qurrent model publish grid-model model.gguf --opaque --site linfen --site luliang"
    )]
    Publish(PublishArgs),
    /// List what the store holds, with every signature checked.
    #[command(after_help = "Example:\n  qurrent model list --config shanxi/sites/linfen/node.toml")]
    List,
    /// Show one version: protection, receivers, tensors.
    #[command(after_help = "Example:\n  qurrent model show grid-model --tensors")]
    Show(ShowArgs),
    /// Fetch, open and verify a model. Goes on where an interrupted run stopped.
    #[command(
        after_help = "Example:\n  qurrent model fetch --config shanxi/sites/linfen/node.toml grid-model --out model.safetensors"
    )]
    Fetch(FetchArgs),
    /// Check every object of a version against its signed manifest. Needs no key.
    #[command(after_help = "Example:\n  qurrent model verify grid-model")]
    Verify(VerifyArgs),
}

/// How to map key to tensors.
#[derive(Args, Debug)]
pub struct MappingArgs {
    /// A rule PATTERN=own-key or PATTERN=derived; repeat for several, the first that matches counts. Default: own
    /// keys for adapters, heads and embeddings.
    #[arg(long, value_name = "RULE")]
    rule: Vec<Rule>,
    /// Take the file as it is, whatever its format.
    #[arg(long)]
    opaque: bool,
    /// Most 256-bit quantum keys to spend for each receiving site.
    #[arg(long, value_name = "KEYS")]
    budget: Option<u32>,
}

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The model file.
    file: PathBuf,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Secret key rate of a link in bit/s, for the time to gather the key; repeat for several.
    #[arg(long, value_name = "BIT_S", default_values_t = [500.0, 4500.0])]
    rate: Vec<f64>,
    /// Show every tensor, not only those with a key of their own.
    #[arg(long)]
    all: bool,
}

/// Arguments of `publish`.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// The model's name.
    model: ModelId,
    /// The model file.
    file: PathBuf,
    /// A receiving site; repeat for several. Default: every other site of the network.
    #[arg(long, value_name = "SITE")]
    site: Vec<SiteId>,
    #[command(flatten)]
    mapping: MappingArgs,
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The model's name.
    model: ModelId,
    /// The version; without it, the newest.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
    /// List the tensors too.
    #[arg(long)]
    tensors: bool,
}

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// The model's name.
    model: ModelId,
    /// The version; without it, the newest.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
    /// File to write; it takes its name only when it is complete and verified.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The model's name.
    model: ModelId,
    /// The version; without it, the newest.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
}

/// Runs a model command.
///
/// # Errors
/// With what went wrong, with which thing, and what to do.
pub async fn run(args: ModelArgs) -> Outcome<()> {
    let local = || local::LocalSite::read(&args.config);
    match args.command {
        ModelCommand::Plan(plan) => planning::plan(&plan, args.json),
        ModelCommand::Publish(publish) => sending::publish(&local()?, &publish, args.json).await,
        ModelCommand::List => looking::list(&local()?, args.json).await,
        ModelCommand::Show(show) => looking::show(&local()?, &show, args.json).await,
        ModelCommand::Fetch(fetch) => sending::fetch(&local()?, &fetch, args.json).await,
        ModelCommand::Verify(verify) => looking::verify(&local()?, &verify, args.json).await,
    }
}

/// An error of the vault as a command says it.
pub(crate) fn failed(error: vault::Error) -> Failure {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(&error);
    while let Some(cause) = below {
        text.push_str(&format!(": {cause}"));
        below = cause.source();
    }
    let failure = Failure::new(text);
    match error.hint() {
        Some(hint) => failure.remedy(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: ModelArgs,
    }

    #[test]
    fn the_arguments_hold_together() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.args);
        let args =
            parse("x publish --config a/node.toml --json grid-model m.safetensors --site linfen --rule *x*=own-key");
        let args = args.unwrap();
        assert!(args.json);
        let ModelCommand::Publish(publish) = args.command else { panic!("not publish") };
        assert_eq!((publish.site.len(), publish.mapping.rule.len(), publish.mapping.budget), (1, 1, None));
        parse("x fetch --config n --version 3 --out f --json grid-model").unwrap();
        parse("x list --config n --json").unwrap();
        assert!(parse("x fetch grid-model").is_err());
        let wrong = parse("x plan m --rule embed=otp").unwrap_err().to_string();
        assert!(wrong.contains("the class is own-key or derived"), "{wrong}");
    }

    #[test]
    fn a_failure_says_what_and_what_to_do() {
        let error = vault::ModelFile::open(std::path::Path::new("/nowhere/m.safetensors")).unwrap_err();
        assert_eq!(
            failed(error).to_string(),
            "cannot read /nowhere/m.safetensors: No such file or directory (os error 2)\n  what to do: check the path"
        );
    }
}
