//! Sites, links, end-to-end stock.

use std::time::Duration;

use types::quantum::Role;

use super::Stage;
use crate::failure::{Failure, Outcome};
use crate::report::{LinkReport, SiteReport};

/// Starts the fibres and every site, and waits until each sees all others.
pub(super) async fn sites_up(stage: &mut Stage) -> Outcome<(String, ())> {
    let fibre = ["fibre", "--config", &stage.layout.fibre().display().to_string()].map(str::to_owned);
    stage.processes.keep("fibre", &fibre)?;
    let sites: Vec<_> = stage.network.sites().keys().cloned().collect();
    for site in &sites {
        let config = stage.layout.node(site).display().to_string();
        let args = ["--log", "info", "node", "--stop-with-stdin", "--config", &config].map(str::to_owned);
        stage.processes.keep(site.as_str(), &args)?;
    }
    let all_links = stage.network.links().len() * 2;
    let up = |reports: &[SiteReport]| {
        reports.len() == sites.len() && links(reports).filter(|link| link.up && link.lit).count() == all_links
    };
    let missing = |reports: &[SiteReport]| {
        let ready = links(reports).filter(|link| link.up && link.lit).count();
        format!("{} of {} sites report, {ready} of {all_links} link ends are up", reports.len(), sites.len())
    };
    stage.observer.until(START_MAX, up, missing).await?;
    let resumed = if stage.resumed { ", resumed from their folders" } else { "" };
    Ok((format!("{} sites, {} links, one process a site{resumed}", sites.len(), all_links / 2), ()))
}

/// Waits until every link has filed a block since the start.
pub(super) async fn links_make_key(stage: &mut Stage) -> Outcome<(String, ())> {
    let progress = stage.progress.clone();
    let reports = stage
        .observer
        .until(
            BLOCK_MAX,
            |reports| {
                let waiting: Vec<_> = links(reports)
                    .filter(|link| link.role == Role::Bob && link.blocks == 0)
                    .map(|link| format!("{} {:.0} %", link.link, link.progress * 100.0))
                    .collect();
                progress.set_message(format!("quantum links make key: {}", waiting.join(", ")));
                !reports.is_empty() && waiting.is_empty()
            },
            |reports| {
                let stuck = links(reports)
                    .filter(|link| link.blocks == 0)
                    .map(|link| format!("{} ({})", link.link, link.last_abort.as_deref().unwrap_or("no block yet")));
                format!("links without key: {}", stuck.collect::<Vec<_>>().join(", "))
            },
        )
        .await?;
    let mut ends: Vec<_> = links(&reports).filter(|link| link.role == Role::Bob).collect();
    ends.sort_by(|a, b| a.length_km.total_cmp(&b.length_km));
    let rates: Vec<_> = ends.iter().map(|link| rate(link)).collect();
    let scale = ends.iter().filter_map(|link| link.time_scale).fold(f64::INFINITY, f64::min);
    if ends.iter().any(|link| link.secret_bit_s.is_none_or(|rate| rate <= 0.0)) {
        return Err(Failure::new(format!("a link has no positive rate: {}", rates.join("; "))));
    }
    Ok((format!("{}; simulated time runs {scale:.0} times as fast as the clock", rates.join("; ")), ()))
}

/// Waits until every ordered pair of sites has some end-to-end key.
pub(super) async fn pairs_fill(stage: &mut Stage) -> Outcome<(String, ())> {
    let sites = stage.network.sites().len();
    let pairs = sites * (sites - 1);
    let ready = |reports: &[SiteReport]| {
        reports.iter().flat_map(|site| &site.pairs).filter(|pair| pair.ready >= PAIR_KEYS_MIN).count()
    };
    let reports = stage
        .observer
        .until(
            PAIRS_MAX,
            |reports| ready(reports) == pairs,
            |reports| format!("{} of {pairs} ordered pairs have {PAIR_KEYS_MIN} keys", ready(reports)),
        )
        .await?;
    let keys: u64 = reports.iter().flat_map(|site| &site.pairs).map(|pair| pair.ready).sum();
    let hops = reports.iter().flat_map(|site| &site.pairs).map(|pair| pair.path.len().saturating_sub(1)).max();
    let longest = hops.unwrap_or_default();
    Ok((format!("{keys} keys of 256 bit ready over {pairs} ordered pairs, paths of up to {longest} hops"), ()))
}

fn links(reports: &[SiteReport]) -> impl Iterator<Item = &LinkReport> {
    reports.iter().flat_map(|site| &site.links)
}

fn rate(link: &LinkReport) -> String {
    let rate = link.secret_bit_s.unwrap_or_default();
    let qber = link.qber.unwrap_or_default() * 100.0;
    format!("{} km {rate:.0} bit/s, QBER {qber:.2} %", link.length_km)
}

const START_MAX: Duration = Duration::from_secs(30);
const BLOCK_MAX: Duration = Duration::from_secs(60);
const PAIRS_MAX: Duration = Duration::from_secs(40);
const PAIR_KEYS_MIN: u64 = 16;
