//! Metrics of the whole network, as OpenMetrics text for Prometheus. Made from the sites' reports at each scrape:
//! labels are ids of sites, links, terminals and models, never key.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use types::quantum::Role;
use types::units::UtcNanos;

use crate::report::SiteReport;

/// Media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of these reports.
#[must_use]
pub fn text(reports: &[SiteReport], now: UtcNanos) -> String {
    let mut registry = Registry::with_prefix("qurrent");
    sites(&mut registry, reports, now);
    links(&mut registry, reports);
    stocks(&mut registry, reports);
    terminals(&mut registry, reports);
    models(&mut registry, reports);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

#[expect(clippy::cast_precision_loss, reason = "ages of years at microseconds")]
fn sites(registry: &mut Registry, reports: &[SiteReport], now: UtcNanos) {
    let age = gauges(registry, "report_age", "Age of a site's newest report", Unit::Seconds);
    let audit = counters(registry, "audit_entries", "Entries in a site's audit log");
    let relayed = counters(registry, "keys_relayed", "End-to-end keys made at a site and relayed");
    let transit = counters(registry, "keys_transit", "Keys carried for others on their way");
    let supplied = counters(registry, "keys_supplied", "Keys supplied to master SAEs");
    let delivered = counters(registry, "keys_delivered", "Keys delivered to slave SAEs");
    let refused = counters(registry, "requests_refused", "Key requests refused");
    for report in reports {
        let site = labels(report, []);
        age.get_or_create(&site).set(now.0.saturating_sub(report.made.0) as f64 / 1e9);
        for (family, count) in [
            (&audit, report.audit_entries),
            (&relayed, report.keys.relayed),
            (&transit, report.keys.transit),
            (&supplied, report.keys.supplied),
            (&delivered, report.keys.delivered),
            (&refused, report.keys.refused),
        ] {
            family.get_or_create(&site).inc_by(count);
        }
    }
}

fn links(registry: &mut Registry, reports: &[SiteReport]) {
    let up = gauges(registry, "link_classical_up", "Whether the classical channel is up", None);
    let lit = gauges(registry, "link_quantum_lit", "Whether the quantum channel is lit", None);
    let qber = gauges(registry, "link_qber", "Error rate of the last block's key basis", Unit::Ratios);
    let rate = gauges(
        registry,
        "link_secret_rate",
        "Secret bits per second of the last block, in simulated time",
        Unit::Other("bits_per_second".to_owned()),
    );
    let scale = gauges(registry, "link_time_scale", "Simulated seconds per second of light", Unit::Ratios);
    let progress = gauges(registry, "link_block_progress", "Share of the block at work", Unit::Ratios);
    let filed = counters(registry, "link_blocks_filed", "Blocks filed");
    let aborted = counters(registry, "link_blocks_aborted", "Blocks given up");
    for (report, link) in
        reports.iter().flat_map(|site| site.links.iter().take(LINKS_MAX).map(move |link| (site, link)))
    {
        let series = labels(report, [("link", &link.link), ("role", &role(link.role))]);
        up.get_or_create(&series).set(f64::from(u8::from(link.up)));
        lit.get_or_create(&series).set(f64::from(u8::from(link.lit)));
        progress.get_or_create(&series).set(link.progress);
        for (family, value) in [(&qber, link.qber), (&rate, link.secret_bit_s), (&scale, link.time_scale)] {
            if let Some(value) = value {
                family.get_or_create(&series).set(value);
            }
        }
        filed.get_or_create(&series).inc_by(link.blocks);
        aborted.get_or_create(&series).inc_by(link.aborted);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; stocks stay below 2^53")]
fn stocks(registry: &mut Registry, reports: &[SiteReport]) {
    let link_stock = gauges(registry, "link_stock", "Link key ready at a site", Unit::Other("bits".to_owned()));
    let ready = gauges(registry, "pair_ready", "End-to-end keys of 256 bit ready", Unit::Other("keys".to_owned()));
    let target = gauges(registry, "pair_target", "Keys that the relay fills up to", Unit::Other("keys".to_owned()));
    for report in reports {
        for link in report.links.iter().take(LINKS_MAX) {
            for (direction, bits) in [("out", link.stock_out_bits), ("in", link.stock_in_bits)] {
                let series = labels(report, [("link", &link.link), ("direction", &direction)]);
                link_stock.get_or_create(&series).set(bits as f64);
            }
        }
        for pair in report.pairs.iter().take(PAIRS_MAX) {
            let series = labels(report, [("peer", &pair.peer)]);
            ready.get_or_create(&series).set(pair.ready as f64);
            target.get_or_create(&series).set(pair.target as f64);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; pads stay below 2^53")]
fn terminals(registry: &mut Registry, reports: &[SiteReport]) {
    let connections = gauges(registry, "terminal_plain_connections", "Plain connections open", None);
    let pad = gauges(registry, "terminal_pad", "Pad left", Unit::Bytes);
    let records = counters(registry, "terminal_records_sealed", "Records sealed");
    let refused = counters(registry, "terminal_records_refused", "Records refused");
    for report in reports {
        for session in report.terminals.iter().take(TERMINALS_MAX) {
            // What an end calls itself is its own text; only known words become labels.
            let end = match session.end.as_str() {
                "gateway" => "gateway",
                "terminal" => "terminal",
                _ => "other",
            };
            let session_labels = labels(report, [("terminal", &session.terminal), ("end", &end)]);
            connections.get_or_create(&session_labels).set(session.connections as f64);
            refused.get_or_create(&session_labels).inc_by(session.refused);
            for (suite, count) in [("otp", session.otp_records), ("aead", session.aead_records)] {
                let series = labels(report, [("terminal", &session.terminal), ("end", &end), ("suite", &suite)]);
                records.get_or_create(&series).inc_by(count);
            }
            for (direction, bytes) in [("out", session.pool_out_bytes), ("in", session.pool_in_bytes)] {
                let series =
                    labels(report, [("terminal", &session.terminal), ("end", &end), ("direction", &direction)]);
                pad.get_or_create(&series).set(bytes as f64);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; models stay below 2^53 bytes")]
fn models(registry: &mut Registry, reports: &[SiteReport]) {
    let size = gauges(registry, "model_size", "Plaintext of a model version held at a site", Unit::Bytes);
    for report in reports {
        for model in report.models.iter().take(MODELS_MAX) {
            let series = labels(report, [("model", &model.model), ("version", &model.version)]);
            size.get_or_create(&series).set(model.bytes as f64);
        }
    }
}

/// Names and values of one series' labels.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

fn gauges(registry: &mut Registry, name: &str, help: &str, unit: impl Into<Option<Unit>>) -> Gauges {
    let family = Gauges::default();
    match unit.into() {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    family
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Alice => "alice",
        Role::Bob => "bob",
    }
}

/// Labels that begin with the reporting site.
fn labels<const N: usize>(report: &SiteReport, more: [(&'static str, &dyn ToString); N]) -> Labels {
    let more = more.into_iter().map(|(name, value)| (name, value.to_string()));
    [("site", report.site.to_string())].into_iter().chain(more).collect()
}

const LINKS_MAX: usize = 256;
const PAIRS_MAX: usize = 1_000;
const TERMINALS_MAX: usize = 1_000;
const MODELS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use types::id::{LinkId, SiteId, TerminalId};

    use super::*;
    use crate::report::{KeyCounters, LinkReport, PairReport, TerminalReport};

    fn report() -> SiteReport {
        let site = |name| SiteId::new(name).unwrap();
        SiteReport {
            site: site("taiyuan"),
            made: UtcNanos(1_000_000_000),
            version: "hidden".to_owned(),
            links: vec![LinkReport {
                link: LinkId::new("taiyuan-jinzhong").unwrap(),
                role: Role::Alice,
                peer: site("jinzhong"),
                length_km: 50.0,
                up: true,
                lit: false,
                qber: Some(0.032),
                secret_bit_s: None,
                progress: 0.25,
                blocks: 7,
                aborted: 2,
                last_abort: Some("hidden".to_owned()),
                last_alarm: None,
                last_block: None,
                stock_out_bits: 1_000,
                stock_in_bits: 2_000,
                time_scale: None,
            }],
            pairs: vec![PairReport { peer: site("linfen"), ready: 17, target: 256, path: Vec::new() }],
            keys: KeyCounters { relayed: 1, transit: 2, supplied: 3, delivered: 4, refused: 5 },
            models: Vec::new(),
            terminals: vec![TerminalReport {
                terminal: TerminalId::new("rtu-1").unwrap(),
                end: "an end's own words\"}".to_owned(),
                level: "hidden".to_owned(),
                connections: 1,
                otp_records: 10,
                aead_records: 11,
                refused: 12,
                pool_out_bytes: 13,
                pool_in_bytes: 14,
            }],
            audit: Vec::new(),
            audit_entries: 99,
        }
    }

    #[test]
    fn every_figure_of_a_report() {
        let text = text(&[report()], UtcNanos(3_500_000_000));
        for line in [
            "qurrent_report_age_seconds{site=\"taiyuan\"} 2.5",
            "qurrent_audit_entries_total{site=\"taiyuan\"} 99",
            "qurrent_keys_relayed_total{site=\"taiyuan\"} 1",
            "qurrent_keys_transit_total{site=\"taiyuan\"} 2",
            "qurrent_keys_supplied_total{site=\"taiyuan\"} 3",
            "qurrent_keys_delivered_total{site=\"taiyuan\"} 4",
            "qurrent_requests_refused_total{site=\"taiyuan\"} 5",
            "qurrent_link_classical_up{site=\"taiyuan\",link=\"taiyuan-jinzhong\",role=\"alice\"} 1.0",
            "qurrent_link_quantum_lit{site=\"taiyuan\",link=\"taiyuan-jinzhong\",role=\"alice\"} 0.0",
            "qurrent_link_qber_ratios{site=\"taiyuan\",link=\"taiyuan-jinzhong\",role=\"alice\"} 0.032",
            "qurrent_link_blocks_aborted_total{site=\"taiyuan\",link=\"taiyuan-jinzhong\",role=\"alice\"} 2",
            "qurrent_link_stock_bits{site=\"taiyuan\",link=\"taiyuan-jinzhong\",direction=\"in\"} 2000.0",
            "qurrent_pair_ready_keys{site=\"taiyuan\",peer=\"linfen\"} 17.0",
            "qurrent_terminal_pad_bytes{site=\"taiyuan\",terminal=\"rtu-1\",end=\"other\",direction=\"out\"} 13.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_or_not_ours_is_left_out() {
        let text = text(&[report()], UtcNanos(0));
        assert!(!text.contains("secret_rate_bits_per_second{"), "no rate before the first block");
        assert!(
            text.contains("qurrent_report_age_seconds{site=\"taiyuan\"} 0.0"),
            "a clock behind gives no negative age"
        );
        assert!(!text.contains("hidden") && !text.contains("own words"));
    }
}
