//! `qurrent link run`: both ends of one link on this machine, each a site process of its own, with live progress.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indicatif::ProgressBar;
use optics::Attack;
use serde::Serialize;
use tokio::time::sleep;
use types::id::LinkId;
use types::network::Network;
use types::quantum::Role;

use crate::commands::{print, say, spinner};
use crate::config::{FibreConfig, read_network, write_toml};
use crate::demo::observer::Observer;
use crate::demo::processes::{self, Processes};
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::{Layout, provision, reassign_ports};
use crate::report::{BlockReport, LinkReport, SiteReport};
use crate::stop;

/// Both ends of one link, each in its own process over a real connection, from light to filed key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  qurrent link run --network networks/shanxi.toml --link changzhi-linfen --blocks 3
  qurrent link run --network networks/shanxi.toml --attack blinding --blocks 1
Without --blocks or --seconds it runs until Ctrl-C. The folder keeps both sites: a second run resumes with their keys.
While it runs, an attack in DIR/fibre.toml takes effect within a second.")]
pub(super) struct RunArgs {
    /// The network file.
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// Which link; default: the first.
    #[arg(long, value_name = "ID")]
    link: Option<LinkId>,
    /// Folder of both sites' data.
    #[arg(long, value_name = "DIR", default_value = "qurrent-link")]
    dir: PathBuf,
    /// End after so many blocks filed or given up.
    #[arg(long, value_name = "N")]
    blocks: Option<u64>,
    /// End after so many seconds of the wall clock.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Simulated seconds per second of the wall clock.
    #[arg(long, default_value_t = 30.0, value_name = "FACTOR")]
    time_scale: f64,
    /// What an eavesdropper does, for example `intercept-resend:0.5`.
    #[arg(long)]
    attack: Option<Attack>,
    /// Print the result as JSON, and no progress.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ran {
    link: String,
    length_km: f64,
    seconds: f64,
    blocks: Vec<BlockReport>,
    aborted: u64,
    last_abort: Option<String>,
    alarms: Vec<String>,
}

/// Runs until enough blocks are decided, or Ctrl-C.
///
/// # Errors
/// If the link is unknown, the folder belongs to another network, or a process does not work.
pub(super) async fn run(args: RunArgs) -> Outcome<()> {
    let cancel = stop::on_signal()?;
    fs::create_dir_all(&args.dir).context(|| format!("cannot make folder {}", args.dir.display()))?;
    let dir = args.dir.canonicalize().context(|| format!("folder {}", args.dir.display()))?;
    let _lock = processes::lock(&dir, "run.lock")?;
    let (layout, network) = prepare(&args, &dir)?;
    let mut processes = Processes::new(&dir.join("logs"))?;
    let fibre = ["--log", "info", "fibre", "--config", &layout.fibre().display().to_string()].map(str::to_owned);
    processes.keep("fibre", &fibre)?;
    for site in network.sites().keys() {
        let config = layout.node(site).display().to_string();
        let node = ["--log", "info", "node", "--stop-with-stdin", "--config", &config].map(str::to_owned);
        processes.keep(site.as_str(), &node)?;
    }
    let link = network.links().values().next().expect("the file was cut down to one link");
    let mut watch = Watch::new(link.id.to_string(), link.length.0, spinner(args.json));
    let observer = Observer::new(layout.dashboard(&network)?);
    let outcome = tokio::select! {
        outcome = watch.until(&observer, args.blocks) => outcome,
        () = sleep(Duration::from_secs(args.seconds.unwrap_or(u64::MAX))) => Ok(()),
        () = cancel.cancelled() => Ok(()),
    };
    watch.progress.finish_and_clear();
    let clean = processes.stop().await;
    let ran = watch.ran;
    print(args.json, &ran, || table(&ran))?;
    outcome?;
    if clean { Ok(()) } else { Err(Failure::new("a process did not stop cleanly").remedy("look into DIR/logs")) }
}

/// Makes or reopens the folder of the two sites.
fn prepare(args: &RunArgs, dir: &Path) -> Outcome<(Layout, Network)> {
    let layout = Layout::new(dir);
    let whole = read_network(&args.network)?;
    let id = match &args.link {
        Some(id) => id.clone(),
        None => whole.links().keys().next().cloned().ok_or_else(|| Failure::new("the network file has no link"))?,
    };
    if !whole.links().contains_key(&id) {
        return Err(
            Failure::new(format!("the network file has no link {id}")).remedy("`qurrent network show` lists its links")
        );
    }
    let file = dir.join("link.toml");
    if layout.exists() {
        let network = read_network(&layout.network())?;
        if network.links().keys().ne([&id]) {
            return Err(Failure::new(format!("{} holds another link's sites", dir.display()))
                .remedy("choose another folder with --dir"));
        }
        reassign_ports(&network, &layout)?;
    } else {
        cut_down(&args.network, &whole, &id, &file)?;
        provision(&file, &layout, args.time_scale)?;
    }
    let mut fibre = FibreConfig::read(&layout.fibre())?;
    fibre.network = "network.toml".into();
    fibre.time_scale = args.time_scale;
    fibre.link.values_mut().for_each(|link| link.attack = args.attack);
    write_toml(&layout.fibre(), &fibre)?;
    let network = read_network(&layout.network())?;
    Ok((layout, network))
}

/// Writes a network file with one link, its two sites, and a place to look from.
fn cut_down(from: &Path, whole: &Network, id: &LinkId, to: &Path) -> Outcome<()> {
    let what = || format!("network file {}", from.display());
    let text = fs::read_to_string(from).context(what)?;
    let mut table: toml::Table = text.parse().context(what)?;
    let link = &whole.links()[id];
    let keep = |table: &mut toml::Table, part: &str, ids: &[&str]| {
        if let Some(toml::Value::Array(entries)) = table.get_mut(part) {
            entries.retain(|entry| entry.get("id").and_then(toml::Value::as_str).is_some_and(|id| ids.contains(&id)));
        }
    };
    keep(&mut table, "site", &[link.alice.as_str(), link.bob.as_str()]);
    keep(&mut table, "link", &[id.as_str()]);
    table.remove("terminal");
    // The key stays with the link: next to nothing is relayed to pairs.
    let stock: toml::Table = "target_keys = 1\nlow_water_keys = 0".parse().context(what)?;
    table.insert("stock".to_owned(), stock.into());
    let centre = format!(
        "id = \"observer\"\nname = \"Observer\"\nserved_by = \"{}\"\nlatitude = 0.0\nlongitude = 0.0",
        link.bob
    );
    let centre: toml::Table = centre.parse().context(what)?;
    table.insert("centre".to_owned(), vec![centre].into());
    let text = toml::to_string(&table).context(what)?;
    fs::write(to, text).context(|| format!("cannot write {}", to.display()))
}

/// Follows both ends' reports.
struct Watch {
    ran: Ran,
    begun: Instant,
    progress: ProgressBar,
}

impl Watch {
    fn new(link: String, length_km: f64, progress: ProgressBar) -> Self {
        let (blocks, alarms) = (Vec::new(), Vec::new());
        let ran = Ran { link, length_km, seconds: 0.0, blocks, aborted: 0, last_abort: None, alarms };
        Self { ran, begun: Instant::now(), progress }
    }

    /// Until so many blocks are filed or given up.
    async fn until(&mut self, observer: &Observer, blocks: Option<u64>) -> Outcome<()> {
        loop {
            for report in observer.reports().await.unwrap_or_default() {
                self.look(&report)?;
            }
            self.ran.seconds = self.begun.elapsed().as_secs_f64();
            let decided = self.ran.blocks.len() as u64 + self.ran.aborted;
            if blocks.is_some_and(|blocks| decided >= blocks) {
                // Alice's report comes by way of Bob's site: what she says of the last block takes a moment.
                sleep(REPORT_DELAY).await;
                for report in observer.reports().await.unwrap_or_default() {
                    self.look(&report)?;
                }
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    fn look(&mut self, report: &SiteReport) -> Outcome<()> {
        let Some(link) = report.links.first() else { return Ok(()) };
        if let Some(alarm) = &link.last_alarm
            && !self.ran.alarms.contains(alarm)
        {
            self.tell(&format!("ALARM at {:?}: {alarm}", link.role))?;
            self.ran.alarms.push(alarm.clone());
        }
        if link.role == Role::Alice {
            return Ok(());
        }
        self.progress.set_message(state(link));
        if link.aborted > self.ran.aborted {
            let cause = link.last_abort.clone().unwrap_or_default();
            self.tell(&format!("block given up: {cause}"))?;
            (self.ran.aborted, self.ran.last_abort) = (link.aborted, Some(cause));
        }
        if let Some(block) = &link.last_block
            && self.ran.blocks.last().is_none_or(|last| last.block < block.block)
        {
            self.tell(&line(block))?;
            self.ran.blocks.push(block.clone());
        }
        Ok(())
    }

    /// A line above the progress, unless the output is for a machine.
    fn tell(&self, text: &str) -> Outcome<()> {
        if self.progress.is_hidden() { Ok(()) } else { self.progress.suspend(|| say(text)) }
    }
}

fn state(link: &LinkReport) -> String {
    let word = |on, yes: &'static str, no: &'static str| if on { yes } else { no };
    format!(
        "{}, {}; block {:.0} % full, {} filed, {} given up",
        word(link.up, "ends connected", "ends not connected"),
        word(link.lit, "light on", "no light"),
        100.0 * link.progress,
        link.blocks,
        link.aborted
    )
}

fn line(block: &BlockReport) -> String {
    let leak = block.leak_factor.map_or("-".to_owned(), |factor| format!("{factor:.3}"));
    format!(
        "block {}: {} sifted in {:.0} s of light, QBER {:.2} %, leak {leak} of the Shannon limit, {} secret bits ({})",
        block.block,
        block.sifted,
        block.light_s,
        100.0 * block.qber,
        block.secret,
        block.rule
    )
}

fn table(ran: &Ran) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["block", "sifted", "QBER %", "leak factor", "secret", "kept", "bit/s", "light s", "rule"]);
    for block in &ran.blocks {
        table.add_row([
            block.block.to_string(),
            block.sifted.to_string(),
            format!("{:.2}", 100.0 * block.qber),
            block.leak_factor.map_or("-".to_owned(), |factor| format!("{factor:.3}")),
            block.secret.to_string(),
            block.kept.to_string(),
            format!("{:.0}", block.secret as f64 / block.light_s.max(1e-9)),
            format!("{:.1}", block.light_s),
            block.rule.clone(),
        ]);
    }
    let mut text = format!("{}, {} km, {:.0} s\n{table}\n", ran.link, ran.length_km, ran.seconds);
    if let Some(cause) = &ran.last_abort {
        text.push_str(&format!("given up: {}; last cause: {cause}\n", ran.aborted));
    }
    for alarm in &ran.alarms {
        text.push_str(&format!("alarm: {alarm}\n"));
    }
    text
}

const REPORT_DELAY: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(200);
