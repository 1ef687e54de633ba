//! `qurrent key status|get|fetch`: a client of ETSI GS QKD 014.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use client::{Class, KeyRequest, Route, Status, SuppliedKey, Wishes};
use etsi::etsi014::write_container;
use types::id::{KeyId, SaeId};
use zeroize::Zeroizing;

use super::print;
use crate::config::SaeConfig;
use crate::failure::{Context as _, Outcome};
use crate::sae;

/// ETSI GS QKD 014 client: stock, keys for a peer, keys by id.
///
/// Exit codes: 3 refused for good, 4 key not found, 5 not enough key or busy (try again), 6 not reached.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// Configuration of the SAE to act for, sae.toml.
    #[arg(long, value_name = "FILE", global = true, default_value = "sae.toml")]
    sae: PathBuf,
    /// Print as JSON (ETSI GS QKD 014 spelling).
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Debug)]
enum KeyCommand {
    /// How much key is in stock for a slave SAE.
    #[command(after_help = "Example:\n  qurrent key --sae sites/taiyuan/sae/app-taiyuan/sae.toml status app-linfen")]
    Status {
        /// The slave SAE.
        slave: SaeId,
    },
    /// Take fresh keys to share with a slave SAE.
    #[command(
        after_help = "Examples:\n  qurrent key --sae sites/taiyuan/sae/app-taiyuan/sae.toml get app-linfen --number 2\n  qurrent key get app-linfen --route indirect --paths 2 --max-age 60000 --wait 5000"
    )]
    Get(GetArgs),
    /// Collect keys that a master SAE took, by their ids.
    #[command(
        after_help = "Example:\n  qurrent key --sae sites/linfen/sae/app-linfen/sae.toml fetch app-taiyuan 0b2d9c1e-6f0a-4f58-9d3e-2a7b54c1f0aa"
    )]
    Fetch {
        /// The master SAE.
        master: SaeId,
        /// Key ids.
        #[arg(required = true)]
        ids: Vec<KeyId>,
    },
}

#[derive(Args, Debug)]
struct GetArgs {
    /// The slave SAE.
    slave: SaeId,
    /// How many keys.
    #[arg(long, default_value_t = 1)]
    number: u32,
    /// Bits of each.
    #[arg(long, default_value_t = 256)]
    size: u32,
    /// A further slave SAE of the same keys; may be repeated.
    #[arg(long = "also", value_name = "SAE")]
    additional: Vec<SaeId>,
    /// Over which kind of way the keys came.
    #[arg(long)]
    route: Option<RouteArg>,
    /// Trusted nodes crossed, at least.
    #[arg(long, value_name = "NODES")]
    min_hops: Option<u8>,
    /// Trusted nodes crossed, at most.
    #[arg(long, value_name = "NODES")]
    max_hops: Option<u8>,
    /// From how many node-disjoint ways the keys are combined.
    #[arg(long, value_name = "WAYS")]
    paths: Option<u8>,
    /// No part of a key is older, in milliseconds.
    #[arg(long, value_name = "MS")]
    max_age: Option<u64>,
    /// How long to wait for key to be made, in milliseconds.
    #[arg(long, value_name = "MS")]
    wait: Option<u64>,
    /// Lower the SAE's class for this request.
    #[arg(long)]
    priority: Option<PriorityArg>,
    /// Take other keys if there are none as asked by route, hops, paths and age.
    #[arg(long)]
    prefer: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RouteArg {
    Direct,
    Indirect,
    Any,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PriorityArg {
    Telecontrol,
    Telemetry,
    Model,
    Other,
}

/// Runs a key command.
///
/// # Errors
/// If the KME cannot be reached or refuses.
pub async fn run(args: KeyArgs) -> Outcome<()> {
    let config = SaeConfig::read(&args.sae).map_err(|failure| match args.sae.exists() {
        true => failure,
        false => failure.remedy("name the SAE's sae.toml with --sae; `qurrent network init` writes one for each SAE"),
    })?;
    let client = sae::client(&config)?;
    match args.command {
        KeyCommand::Status { slave } => {
            let status = client.status(&slave).await?;
            print(args.json, &status, || line(&status))
        }
        KeyCommand::Get(get) => {
            let slave = get.slave.clone();
            print_keys(args.json, &client.encrypt_with(&slave, &get.request(), &[], &[]).await?)
        }
        KeyCommand::Fetch { master, ids } => print_keys(args.json, &client.decrypt_all(&master, &ids).await?),
    }
}

impl GetArgs {
    fn request(self) -> KeyRequest {
        let wishes = Wishes {
            max_age_ms: self.max_age,
            route: self.route.map(|route| match route {
                RouteArg::Direct => Route::Direct,
                RouteArg::Indirect => Route::Indirect,
                RouteArg::Any => Route::Any,
            }),
            min_hops: self.min_hops,
            max_hops: self.max_hops,
            paths: self.paths,
            wait_ms: self.wait,
            priority: self.priority.map(|class| match class {
                PriorityArg::Telecontrol => Class::Telecontrol,
                PriorityArg::Telemetry => Class::Telemetry,
                PriorityArg::Model => Class::Model,
                PriorityArg::Other => Class::Other,
            }),
        };
        let none = Wishes::default();
        let (mandatory, optional) = if self.prefer { (none, wishes) } else { (wishes, none) };
        let (size, additional) = (Some(self.size), self.additional);
        KeyRequest { number: self.number, size, additional, mandatory, optional, others: Vec::new() }
    }
}

fn line(status: &Status) -> String {
    let stock = format!(
        "{} keys of {} bit ready for {} (at most {}); served by {} and {}",
        status.stored_key_count,
        status.key_size,
        status.slave_sae_id,
        status.max_key_count,
        status.source_kme_id,
        status.target_kme_id
    );
    let more = status.status_extension.as_ref();
    let rate = more.and_then(|more| more.keys_per_second).map(|rate| format!("; {rate:.1} keys/s"));
    let empty = more.and_then(|more| more.seconds_to_empty).map(|left| format!("; empty in {left:.0} s at this use"));
    [Some(stock), rate, empty].into_iter().flatten().collect()
}

/// Prints keys to standard output: that is what the user asked for.
fn print_keys(json: bool, keys: &[SuppliedKey]) -> Outcome<()> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut out = Zeroizing::new(Vec::new());
    if json {
        out = write_container(keys);
        out.push(b'\n');
    } else {
        for key in keys {
            let encoded = Zeroizing::new(key.key.expose(|bits| STANDARD.encode(bits)));
            let line = Zeroizing::new(format!("{}  {}\n", key.id, *encoded));
            out.extend_from_slice(line.as_bytes());
        }
    }
    std::io::stdout().lock().write_all(&out).context(|| "cannot write to standard output".to_owned())
}
