//! `qurrent network init|check|rekey|show`: network files and the folders made from them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use types::id::LinkId;

use super::print;
use crate::config::read_network;
use crate::failure::Outcome;
use crate::provision::{Layout, provision, rekey};

/// Network file, certificates, first keys.
#[derive(Args, Debug)]
pub struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Subcommand, Debug)]
enum NetworkCommand {
    /// Make a folder with certificates, first keys and configurations for every site.
    #[command(
        after_help = "Example:\n  qurrent network init --network networks/shanxi.toml --dir shanxi\nAddresses are free ports of this machine's loopback interface, and certificates name them; docs/operations/install.md\nsays how to give each site its own."
    )]
    Init {
        /// The network file.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// The folder to make.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Simulated seconds per second of the wall clock on the simulated fibres.
        #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
        time_scale: f64,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a network file; says the line and field of what is wrong.
    #[command(after_help = "Example:\n  qurrent network check networks/shanxi.toml")]
    Check {
        /// The network file.
        file: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a new initial key for a link, for both ends, after one of them lost its store or a key is in doubt.
    #[command(
        after_help = "Example:\n  qurrent network rekey --dir shanxi --link linfen-taiyuan\nStop both sites, take each file to its site, start both: what the link had is given up at both ends."
    )]
    Rekey {
        /// The folder that `init` made.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The link.
        #[arg(long)]
        link: LinkId,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show sites, links and terminals of a network file.
    #[command(after_help = "Example:\n  qurrent network show networks/shanxi.toml --json")]
    Show {
        /// The network file.
        file: PathBuf,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Summary {
    name: String,
    sites: Vec<String>,
    links: Vec<LinkSummary>,
    centres: Vec<String>,
    terminals: Vec<String>,
    fibre_km: f64,
}

#[derive(Serialize)]
struct LinkSummary {
    id: String,
    alice: String,
    bob: String,
    length_km: f64,
}

/// Runs a network command.
///
/// # Errors
/// If the file is wrong or the folder cannot be made.
pub fn run(args: NetworkArgs) -> Outcome<()> {
    match args.command {
        NetworkCommand::Init { network, dir, time_scale, json } => {
            let layout = Layout::new(&dir);
            let made = provision(&network, &layout, time_scale)?;
            let nodes: Vec<_> = made.sites().keys().map(|site| layout.node(site)).collect();
            print(json, &serde_json::json!({ "dir": dir, "nodes": nodes }), || {
                let mut text = format!(
                    "{} is ready for network {}. Each folder under sites/ goes to its site; authority/ca.key stays offline.\n\
                     Start the simulated fibres, then each site:\n  qurrent fibre --config {}\n",
                    dir.display(),
                    made.name(),
                    layout.fibre().display(),
                );
                for node in &nodes {
                    text.push_str(&format!("  qurrent node --config {}\n", node.display()));
                }
                text
            })
        }
        NetworkCommand::Check { file, json } => {
            let network = read_network(&file)?;
            print(json, &serde_json::json!({ "ok": true, "name": network.name() }), || {
                format!("{}: network {} is well formed", file.display(), network.name())
            })
        }
        NetworkCommand::Rekey { dir, link, json } => {
            let files = rekey(&Layout::new(&dir), &link)?;
            print(json, &serde_json::json!({ "link": link, "files": files }), || {
                let mut text =
                    format!("link {link} has a new initial key. Stop both sites and take each file to its site:\n");
                for file in &files {
                    text.push_str(&format!("  {}\n", file.display()));
                }
                text.push_str("Then start both. What the link had at either end is given up; its pool fills again.");
                text
            })
        }
        NetworkCommand::Show { file, json } => show(&file, json),
    }
}

fn show(file: &std::path::Path, json: bool) -> Outcome<()> {
    let network = read_network(file)?;
    let links = network.links().values().map(|link| LinkSummary {
        id: link.id.to_string(),
        alice: link.alice.to_string(),
        bob: link.bob.to_string(),
        length_km: link.length.0,
    });
    let summary = Summary {
        name: network.name().to_owned(),
        sites: network.sites().keys().map(ToString::to_string).collect(),
        links: links.collect(),
        centres: network.centres().iter().map(|centre| centre.id.to_string()).collect(),
        terminals: network.terminals().keys().map(ToString::to_string).collect(),
        fibre_km: network.links().values().map(|link| link.length.0).sum(),
    };
    print(json, &summary, || {
        let mut text = format!("network {}: {} km of fibre\n", summary.name, summary.fibre_km);
        text.push_str(&format!("sites: {}\n", summary.sites.join(", ")));
        for link in &summary.links {
            text.push_str(&format!("  {:<20} {} -> {}  {} km\n", link.id, link.alice, link.bob, link.length_km));
        }
        text.push_str(&format!(
            "centres: {}\nterminals: {}\n",
            summary.centres.join(", "),
            summary.terminals.join(", ")
        ));
        text
    })
}
