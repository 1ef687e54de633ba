//! Reports of the reference network for tests: every state that the page can show.

use types::id::{ModelId, SiteId, TerminalId};
use types::network::Network;
use types::units::UtcNanos;

use crate::report::{
    AuditLine, FlowReport, KeyCounters, LinkReport, ModelReport, PairReport, ServiceReport, SiteReport, TerminalReport,
};

/// The reference network's file.
pub(super) const NETWORK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));

/// The reference network.
pub(super) fn network() -> Network {
    Network::parse(NETWORK).expect("a file of this repository")
}

/// A report of every site, made at `now`.
pub(super) fn reports(now: UtcNanos) -> Vec<SiteReport> {
    let network = network();
    (0..).zip(network.sites().keys()).map(|(index, site)| report(&network, site, index, now)).collect()
}

fn report(network: &Network, site: &SiteId, index: u64, now: UtcNanos) -> SiteReport {
    let links = network
        .links_of(site)
        .map(|(link, role)| LinkReport {
            link: link.id.clone(),
            role,
            peer: link.other_end(site).expect("the link ends here").clone(),
            length_km: link.length.0,
            up: link.id.as_str() != "linfen-luliang",
            lit: !matches!(link.id.as_str(), "linfen-luliang" | "jinzhong-changzhi"),
            qber: Some(0.027 + link.length.0 * 0.00033),
            secret_bit_s: Some(9_000.0 * 0.9844_f64.powf(link.length.0)),
            progress: link.length.0 / 200.0,
            blocks: 40 - index,
            aborted: u64::from(link.id.as_str() == "taiyuan-jinzhong"),
            last_abort: (link.id.as_str() == "taiyuan-jinzhong")
                .then(|| "QBER 25.1 % of the key basis is above the limit".to_owned()),
            last_alarm: None,
            last_block: None,
            stock_out_bits: 1_250_000 - 5_000 * index,
            stock_in_bits: 980_000 + 5_000 * index,
            time_scale: Some(14.2),
        })
        .collect();
    let pairs = (0..)
        .zip(network.sites().keys().filter(|peer| *peer != site))
        .map(|(at, peer)| PairReport {
            peer: peer.clone(),
            ready: [256, 201, 17, 256][at % 4],
            target: 256,
            path: vec![site.clone(), id("taiyuan"), peer.clone()].into_iter().fold(Vec::new(), |mut path, site| {
                if !path.contains(&site) {
                    path.push(site);
                }
                path
            }),
            flow: FlowReport::default(),
        })
        .collect();
    SiteReport {
        site: site.clone(),
        made: now,
        version: "0.1.0".to_owned(),
        links,
        pairs,
        keys: KeyCounters {
            relayed: 1_024 + index,
            transit: 311 * index,
            supplied: 87 * index,
            delivered: 86 * index,
            refused: index / 2,
        },
        models: models(index),
        terminals: terminals(site),
        audit: audit(index, now),
        audit_entries: 12_345 + index,
        service: ServiceReport::default(),
    }
}

fn models(index: u64) -> Vec<ModelReport> {
    let model = |version, manifest: &str| ModelReport {
        model: ModelId::new("grid-transformer-500m").expect("a model name"),
        version,
        published: index == 0,
        bytes: 1_998_000_000,
        manifest: manifest.to_owned(),
    };
    if index == 3 {
        vec![model(1, "8f03c2a19be47d50")]
    } else {
        vec![model(1, "8f03c2a19be47d50"), model(2, "c19e5501aa02f7bd")]
    }
}

fn terminals(site: &SiteId) -> Vec<TerminalReport> {
    let session = |end: &str, level: &str| TerminalReport {
        terminal: TerminalId::new("rtu-linfen-1").expect("a terminal id"),
        end: end.to_owned(),
        level: level.to_owned(),
        connections: 1,
        otp_records: 4_312,
        aead_records: if end == "gateway" { 96 } else { 0 },
        refused: 0,
        pool_out_bytes: 211_000,
        pool_in_bytes: 187_500,
    };
    match site.as_str() {
        "linfen" => vec![session("terminal", "otp")],
        "taiyuan" => vec![session("gateway", "otp-commands")],
        _ => Vec::new(),
    }
}

fn audit(index: u64, now: UtcNanos) -> Vec<AuditLine> {
    let events = [
        (
            "BLOCK_FILED",
            "link=taiyuan-jinzhong block=39 secret=184320 authentication=4096 qber_ppm=43215 proof=lim2014",
        ),
        ("KEYS_STORED", "relay=0191d6aa-70f2-4d4e-9c1e-8b5c6a0b4a10 peer=linfen keys=64"),
        ("RELAY_HOP", "relay=0191d6aa-70f2-4d4e-9c1e-8b5c6a0b4a10 from=taiyuan to=linfen hop=1 keys=64 spent=16512"),
        ("MODEL_PUBLISHED", "model=grid-transformer-500m version=2 sites=5 bytes=1998000000"),
        ("PROTECTION_CHANGED", "terminal=rtu-linfen-1 from=otp to=otp-commands reason=stock"),
    ];
    (0..)
        .zip(events)
        .map(|(at, (code, text))| AuditLine {
            seq: 12_344 + index - at,
            time: UtcNanos(now.0.saturating_sub((at * 7 + index) * 1_000_000_000)),
            code: code.to_owned(),
            text: text.to_owned(),
        })
        .collect()
}

/// A site's id.
pub(super) fn id(site: &str) -> SiteId {
    SiteId::new(site).expect("a site id")
}
