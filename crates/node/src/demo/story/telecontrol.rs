//! Telecontrol traffic through gateway and terminal: one-time pad while key lasts, AES-256-GCM when it does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;

use super::Stage;
use crate::demo::iec104::{self, Dialogue};
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::gateway_sae;
use crate::report::TerminalReport;

/// Starts a gateway at the dispatch centre and the network's first terminal, lets an IEC 104 master and an
/// outstation talk through them, and checks that nothing was lost and both protection levels carried records.
pub(super) async fn protect(stage: &mut Stage) -> Outcome<(String, ())> {
    let outstation = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context(|| "outstation".to_owned())?;
    let target = outstation.local_addr().context(|| "outstation".to_owned())?;
    let plain = start(stage, target).await?;
    let length = TALK;
    stage.progress.set_message("telecontrol protected: IEC 104 dialogue");
    let dialogue = iec104::run(outstation, plain, length, RATE_HZ).await?;
    let reports = stage
        .observer
        .until(
            REPORT_MAX,
            |reports| {
                gateway_of(reports)
                    .is_some_and(|gateway| gateway.otp_records + gateway.aead_records >= dialogue.commands)
            },
            |_| "the gateway does not report its session".to_owned(),
        )
        .await?;
    let Some(gateway) = gateway_of(&reports) else {
        return Err(Failure::new("the gateway's report is gone"));
    };
    judge(&dialogue, &gateway)?;
    Ok((
        format!(
            "IEC 104 through gateway and terminal: {} of {} values in order, {} commands confirmed (median {:.1} ms), \
             byte streams equal; {} records under one-time pad, {} under AES-256-GCM when the pool ran low, {} refused",
            dialogue.received,
            dialogue.sent,
            dialogue.commands,
            dialogue.command_ms_p50,
            gateway.otp_records,
            gateway.aead_records,
            gateway.refused,
        ),
        (),
    ))
}

fn judge(dialogue: &Dialogue, gateway: &TerminalReport) -> Outcome<()> {
    let faults = [
        (dialogue.sent == 0 || dialogue.sent != dialogue.received, "values were lost"),
        (!dialogue.streams_equal, "bytes changed on the way"),
        (dialogue.commands == 0, "no command was confirmed"),
        (gateway.otp_records == 0, "no record went under one-time pad"),
        (gateway.aead_records == 0, "the pool never ran low, so the fallback was not shown"),
        (gateway.refused != 0, "records were refused"),
    ];
    match faults.iter().find(|(there, _)| *there) {
        Some((_, fault)) => Err(Failure::new(format!("{fault}: {dialogue:?} {gateway:?}"))),
        None => Ok(()),
    }
}

/// Starts both processes; gives the address that the master connects to.
async fn start(stage: &mut Stage, outstation: SocketAddr) -> Outcome<SocketAddr> {
    let (centre, site) = stage
        .network
        .centres()
        .iter()
        .find_map(|centre| centre.served_by.clone().map(|site| (centre.id.clone(), site)))
        .ok_or_else(|| Failure::new("no dispatch centre is served by a site"))?;
    let terminal = stage.network.terminals().values().next().cloned();
    let terminal = terminal.ok_or_else(|| Failure::new("the network has no [[terminal]]"))?;
    let gateway = gateway_sae(&centre)?;
    let terminal_sae = types::id::SaeId::new(terminal.id.as_str()).context(|| "terminal".to_owned())?;
    let (plain, cipher) = (free_port().await?, free_port().await?);
    let gateway_dir = stage.layout.sae(&site, &gateway);
    let terminal_dir = stage.layout.sae(&terminal.site, &terminal_sae);
    let args = |words: &[&str], dir: &std::path::Path, ports: &[(&str, SocketAddr)]| {
        let mut args: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        args.extend(["--sae".to_owned(), dir.join("sae.toml").display().to_string()]);
        args.extend(["--data".to_owned(), dir.join("pool").display().to_string()]);
        args.push("--stop-with-stdin".to_owned());
        for (name, address) in ports {
            args.extend([(*name).to_owned(), address.to_string()]);
        }
        args
    };
    let run_terminal = args(
        &["--log", "info", "terminal", "run", "--terminal", terminal.id.as_str(), "--gateway", gateway.as_str()],
        &terminal_dir,
        &[("--cipher-listen", cipher), ("--plain-connect", outstation)],
    );
    let run_gateway = args(
        &["--log", "info", "gateway", "run", "--pool-target", POOL_BYTES, "--terminal", terminal.id.as_str()],
        &gateway_dir,
        &[("--plain-listen", plain), ("--cipher-connect", cipher)],
    );
    stage.processes.keep("terminal", &run_terminal)?;
    stage.processes.keep("gateway", &run_gateway)?;
    stage
        .observer
        .until(
            SESSION_MAX,
            |reports| gateway_of(reports).is_some_and(|gateway| gateway.pool_out_bytes > 0),
            |_| "gateway and terminal have no session with key yet".to_owned(),
        )
        .await?;
    Ok(plain)
}

fn gateway_of(reports: &[crate::report::SiteReport]) -> Option<TerminalReport> {
    reports.iter().flat_map(|site| &site.terminals).find(|report| report.end == "gateway").cloned()
}

async fn free_port() -> Outcome<SocketAddr> {
    let what = || "no free port on the loopback interface".to_owned();
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context(what)?.local_addr().context(what)
}

const TALK: Duration = Duration::from_secs(8);
/// Small, so that the pool runs low within the dialogue and other applications find key in stock afterwards.
const POOL_BYTES: &str = "16384";
const RATE_HZ: u32 = 300;
const SESSION_MAX: Duration = Duration::from_secs(20);
const REPORT_MAX: Duration = Duration::from_secs(10);
