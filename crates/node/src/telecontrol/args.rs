//! Arguments of `qurrent gateway` and `qurrent terminal`, and what the commands do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use gateway::{Policy, Role, SupplyPlan};
use terminal::{Class, EpochLimits, Strength, Suite};
use tokio::sync::{mpsc, watch};
use types::event::Event;
use types::id::{SaeId, TerminalId};
use types::units::ByteLen;

use super::status::{self, TelecontrolStatus};
use super::{EndConfig, KmeSupply, PoolStore, Reports, Side, Sockets, serve};
use crate::commands::print;
use crate::config::SaeConfig;
use crate::failure::{Context as _, Failure, Outcome};
use crate::{sae, stop};

/// The end before the control center's master: protects telecontrol traffic of one terminal.
#[derive(Args, Debug)]
pub struct GatewayArgs {
    #[command(subcommand)]
    command: GatewayCommand,
}

#[derive(Subcommand, Debug)]
enum GatewayCommand {
    /// Run until SIGTERM.
    #[command(
        after_help = "Example:\n  qurrent gateway run --sae gateway/sae.toml --data gateway/pool --terminal ftu-7 \\\n    --plain-listen 127.0.0.1:2404 --cipher-connect 10.1.0.7:2414"
    )]
    Run(Box<GatewayRun>),
    /// Show the state of a running gateway.
    #[command(after_help = "Example:\n  qurrent gateway status --data gateway/pool")]
    Status(StatusArgs),
}

/// The end before or inside a field terminal: protects its telecontrol traffic.
#[derive(Args, Debug)]
pub struct TerminalArgs {
    #[command(subcommand)]
    command: TerminalCommand,
}

#[derive(Subcommand, Debug)]
enum TerminalCommand {
    /// Run until SIGTERM.
    #[command(
        after_help = "Example:\n  qurrent terminal run --sae ftu-7/sae.toml --data ftu-7/pool --terminal ftu-7 --gateway gateway-dispatch \\\n    --cipher-listen 0.0.0.0:2414 --plain-connect 127.0.0.1:2404"
    )]
    Run(Box<TerminalRun>),
    /// Show the state of a running terminal.
    #[command(after_help = "Example:\n  qurrent terminal status --data ftu-7/pool")]
    Status(StatusArgs),
}

#[derive(Args, Debug)]
struct GatewayRun {
    /// The terminal's SAE, if it is not named like the terminal.
    #[arg(long, value_name = "SAE")]
    terminal_sae: Option<SaeId>,
    /// Bytes of pad to hold for each direction.
    #[arg(long, default_value_t = POOL_TARGET, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..=1 << 23))]
    pool_target: u64,
    /// Bits of the keys to order.
    #[arg(long, default_value_t = 256, value_name = "BITS", value_parser = clap::value_parser!(u64).range(128..=8192))]
    key_bits: u64,
    /// Keys in one order, at most.
    #[arg(long, default_value_t = 64, value_name = "KEYS", value_parser = clap::value_parser!(u32).range(8..=128))]
    keys_per_order: u32,
    /// Openings of later sessions to hold keys for.
    #[arg(long, default_value_t = 4, value_name = "SLOTS", value_parser = clap::value_parser!(u32).range(0..=64))]
    opening_slots: u32,
    #[command(flatten)]
    end: EndArgs,
}

#[derive(Args, Debug)]
struct TerminalRun {
    /// The gateway's SAE.
    #[arg(long, value_name = "SAE")]
    gateway: SaeId,
    #[command(flatten)]
    end: EndArgs,
}

#[derive(Args, Debug)]
struct EndArgs {
    /// The terminal.
    #[arg(long, value_name = "ID")]
    terminal: TerminalId,
    /// Configuration of this end's SAE.
    #[arg(long, value_name = "FILE", default_value = "sae.toml")]
    sae: PathBuf,
    /// Folder of this end's pools and state.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// 32-byte file that seals the pools; without it one is made in the data folder.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    #[command(flatten)]
    plain: PlainSide,
    #[command(flatten)]
    cipher: CipherSide,
    /// What commands must have at least; `otp` stops them when there is no pad.
    #[arg(long, value_enum, default_value = "aead", value_name = "FLOOR")]
    command_floor: FloorArg,
    /// How keep-alive frames go while the pool is full.
    #[arg(long, value_enum, default_value = "aead", value_name = "SUITE")]
    supervisory: FloorArg,
    /// Print the state every so many seconds; 0 for never.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    status_every: u64,
    /// Print states as JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Stop when standard input ends; for supervisors that may die themselves.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct PlainSide {
    /// Wait for plain connections here.
    #[arg(long, value_name = "ADDRESS")]
    plain_listen: Option<String>,
    /// Make a plain connection to here for each that the other end accepts.
    #[arg(long, value_name = "ADDRESS")]
    plain_connect: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct CipherSide {
    /// Wait for the other end here.
    #[arg(long, value_name = "ADDRESS")]
    cipher_listen: Option<String>,
    /// Connect to the other end here.
    #[arg(long, value_name = "ADDRESS")]
    cipher_connect: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FloorArg {
    /// AES-256-GCM under an epoch key.
    Aead,
    /// One-time pad.
    Otp,
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// The data folder of the running process.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a gateway command.
///
/// # Errors
/// If the end cannot start or its disk fails; if there is no state to show.
pub async fn run_gateway(args: GatewayArgs) -> Outcome<()> {
    match args.command {
        GatewayCommand::Status(args) => show(&args),
        GatewayCommand::Run(args) => {
            let args = *args;
            let sae = SaeConfig::read(&args.end.sae)?;
            let peer = match args.terminal_sae {
                Some(sae) => sae,
                None => SaeId::new(args.end.terminal.as_str()).context(|| "terminal".to_owned())?,
            };
            let plan = SupplyPlan {
                key_len: ByteLen(args.key_bits.div_ceil(8)),
                keys_max: args.keys_per_order,
                opening_slots: args.opening_slots,
            };
            let config = args.end.config(sae.id.clone(), args.pool_target, plan);
            Box::pin(run(Role::Gateway, args.end, config, sae, peer)).await
        }
    }
}

/// Runs a terminal command.
///
/// # Errors
/// As [`run_gateway`].
pub async fn run_terminal(args: TerminalArgs) -> Outcome<()> {
    match args.command {
        TerminalCommand::Status(args) => show(&args),
        TerminalCommand::Run(args) => {
            let args = *args;
            let sae = SaeConfig::read(&args.end.sae)?;
            let config = args.end.config(args.gateway.clone(), POOL_TARGET, SupplyPlan::default());
            Box::pin(run(Role::Terminal, args.end, config, sae, args.gateway)).await
        }
    }
}

impl EndArgs {
    fn config(&self, center: SaeId, pool_target: u64, supply: SupplyPlan) -> EndConfig {
        let mut policy = Policy::new(pool_target);
        if self.command_floor == FloorArg::Otp {
            policy.floor = policy.floor.with(Class::Command, Strength::InformationTheoretic);
        }
        if self.supervisory == FloorArg::Otp {
            policy.supervisory = Suite::OtpWc128;
        }
        let side = |listen: &Option<String>, connect: &Option<String>| match (listen, connect) {
            (Some(address), _) => Side::Listen(address.clone()),
            (None, address) => Side::Connect(address.clone().unwrap_or_default()),
        };
        EndConfig {
            center,
            plain: side(&self.plain.plain_listen, &self.plain.plain_connect),
            cipher: side(&self.cipher.cipher_listen, &self.cipher.cipher_connect),
            policy,
            supply,
            limits: EpochLimits::default(),
        }
    }
}

async fn run(role: Role, args: EndArgs, config: EndConfig, own: SaeConfig, peer: SaeId) -> Outcome<()> {
    let stop = stop::on_signal()?;
    if args.stop_with_stdin {
        stop::with_stdin(&stop);
    }
    let sockets = Sockets::bind(&config).await?;
    let store = PoolStore::open(&args.data, args.root_key.as_deref(), role, &args.terminal)?;
    let reporting = Arc::new(sae::client(&own)?);
    let supply = Arc::new(KmeSupply::new(sae::client(&own)?, peer));
    let (status, shown) = watch::channel(TelecontrolStatus::new(role, args.terminal));
    let (events, to_report) = mpsc::channel(status::EVENTS_MAX);
    let file = status::file_in(&args.data);
    let mut side_tasks = vec![
        tokio::spawn(status::to_file(file.clone(), shown.clone())),
        tokio::spawn(status::to_site(Arc::clone(&reporting), shown.clone())),
        tokio::spawn(status::events_to_site(reporting, to_report)),
    ];
    if args.status_every > 0 {
        let every = Duration::from_secs(args.status_every);
        side_tasks.push(tokio::spawn(status::to_people(every, args.json, shown.clone())));
    }
    let reports = Reports { events: Box::new(move |event| report(&events, event)), status };
    let outcome = Box::pin(serve(config, sockets, supply, store, reports, stop)).await;
    side_tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let last = shown.borrow().clone();
    status::write_file(&file, &last)?;
    status::print(args.json, &last)?;
    outcome
}

/// Logs an event and queues it for the site's audit log.
fn report(events: &mpsc::Sender<Event>, event: Event) {
    tracing::info!(event = event.code(), fields = ?event.fields(), "telecontrol");
    let wanted =
        matches!(event, Event::BatchCut { .. } | Event::ProtectionChanged { .. } | Event::SessionClosed { .. });
    if wanted && let Err(error) = events.try_send(event) {
        tracing::error!(%error, "an event is not in the site's audit log");
    }
}

fn show(args: &StatusArgs) -> Outcome<()> {
    let file = status::file_in(&args.data);
    let text = std::fs::read(&file).context(|| format!("cannot read {}", file.display())).map_err(|failure| {
        failure.remedy("name the --data folder of a running `qurrent gateway run` or `qurrent terminal run`")
    })?;
    let status: TelecontrolStatus = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("status file {}", file.display())).source(error))?;
    print(args.json, &status, || status.line())
}

// The terminal takes over what the gateway says.
const POOL_TARGET: u64 = 65_536;
