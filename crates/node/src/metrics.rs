//! Metrics of the whole network, as OpenMetrics text for Prometheus. Made from the sites' reports at each scrape:
//! labels are ids of sites, links, terminals and models, never key.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use kms::Priority;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};
use types::quantum::Role;
use types::units::UtcNanos;

use crate::report::{SiteReport, Timing};

/// Media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of these reports.
#[must_use]
pub fn text(reports: &[SiteReport], now: UtcNanos) -> String {
    let mut registry = Registry::with_prefix("qurrent");
    sites(&mut registry, reports, now);
    links(&mut registry, reports);
    stocks(&mut registry, reports);
    pairs(&mut registry, reports);
    interfaces(&mut registry, reports);
    disk(&mut registry, reports);
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
    let failed = counters(registry, "relays_failed", "Relays from a site that failed");
    let burned = counters(registry, "keys_burned_bits", "Key destroyed unused");
    let messages = counters(registry, "messages_refused", "Messages of other sites refused");
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
            (&failed, report.service.relays_failed),
            (&burned, report.service.burned_bits),
            (&messages, report.service.messages_refused),
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

/// How end-to-end stocks move, by pair and class.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; stocks stay below 2^53")]
fn pairs(registry: &mut Registry, reports: &[SiteReport]) {
    let keys = || Unit::Other("keys".to_owned());
    let rate = || Unit::Other("keys_per_second".to_owned());
    let held = gauges(registry, "pair_held", "Keys held for supply by the other site", keys());
    let waiting = gauges(registry, "pair_waiting_requests", "Requests that wait for key", None);
    let made = counters(registry, "pair_keys_made", "Keys of 256 bit made for a pair");
    let making = gauges(registry, "pair_made", "Keys made while keys are lacking", rate());
    let taken = counters(registry, "pair_keys_taken", "Keys of 256 bit taken from a stock, by class of SAE");
    let taking = gauges(registry, "pair_taken", "Keys taken from a stock, by class of SAE", rate());
    let empty = gauges(registry, "pair_time_to_empty", "When a stock is empty if it goes on like this", Unit::Seconds);
    for (report, pair) in
        reports.iter().flat_map(|site| site.pairs.iter().take(PAIRS_MAX).map(move |pair| (site, pair)))
    {
        let series = labels(report, [("peer", &pair.peer)]);
        held.get_or_create(&series).set(pair.flow.held as f64);
        waiting.get_or_create(&series).set(pair.flow.waiting as f64);
        made.get_or_create(&series).inc_by(pair.flow.made);
        making.get_or_create(&series).set(pair.flow.made_per_second);
        // A stock that does not shrink is never empty.
        empty.get_or_create(&series).set(pair.flow.seconds_to_empty.unwrap_or(f64::INFINITY));
        for (place, class) in Priority::ALL.iter().enumerate() {
            let series = labels(report, [("peer", &pair.peer), ("class", &class.name())]);
            taken.get_or_create(&series).inc_by(pair.flow.taken[place]);
            taking.get_or_create(&series).set(pair.flow.taken_per_second[place]);
        }
    }
}

/// Key streams, other networks, handshakes, refusals.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts stay below 2^53")]
fn interfaces(registry: &mut Registry, reports: &[SiteReport]) {
    let ends = gauges(registry, "stream_ends", "Ends of key streams open", None);
    let waiting = gauges(registry, "stream_waiting_calls", "Calls of key streams that wait", None);
    let opened = counters(registry, "streams_opened", "Key streams opened");
    let chunks = counters(registry, "stream_chunks", "Chunks of key streams given to SAEs");
    let bytes = counters(registry, "stream_key_bytes", "Key given to SAEs by key streams");
    let calls = counters(registry, "stream_calls_refused", "Calls of key streams refused");
    let exported = counters(registry, "interwork_keys_exported", "Keys that other networks have taken");
    let imported = counters(registry, "interwork_keys_imported", "Keys of other networks brought to their SAEs");
    let voided = counters(registry, "interwork_keys_voided", "Keys voided on request of other networks");
    let failed = counters(registry, "interwork_exports_failed", "Transfers to other networks that failed");
    let refused = counters(registry, "interwork_requests_refused", "Requests of other networks refused");
    let calls_failed = counters(registry, "interwork_calls_failed", "Calls to other networks that failed");
    let handshakes = counters(registry, "tls_handshakes", "TLS handshakes, by how they ended");
    let refusals = counters(registry, "refusals", "Requests refused, by interface and reason");
    for report in reports {
        let (site, service) = (labels(report, []), &report.service);
        ends.get_or_create(&site).set(service.streams.ends as f64);
        waiting.get_or_create(&site).set(service.streams.waiting as f64);
        let mut counts = vec![
            (&opened, service.streams.opened),
            (&chunks, service.streams.chunks),
            (&bytes, service.streams.bytes),
            (&calls, service.streams.refused),
        ];
        if let Some(interwork) = &service.interwork {
            counts.extend([
                (&exported, interwork.exported),
                (&imported, interwork.imported),
                (&voided, interwork.voided),
                (&failed, interwork.exports_failed),
                (&refused, interwork.refused),
                (&calls_failed, interwork.calls_failed),
            ]);
        }
        for (family, count) in counts {
            family.get_or_create(&site).inc_by(count);
        }
        for (ended, count) in service.handshakes.iter().filter(|(ended, _)| is_word(ended)).take(WORDS_MAX) {
            handshakes.get_or_create(&labels(report, [("ended", ended)])).inc_by(*count);
        }
        let known = service.refusals.iter().filter(|(interface, reason, _)| is_word(interface) && is_word(reason));
        for (interface, reason, count) in known.take(WORDS_MAX) {
            let series = labels(report, [("interface", interface), ("reason", reason)]);
            refusals.get_or_create(&series).inc_by(*count);
        }
    }
}

fn disk(registry: &mut Registry, reports: &[SiteReport]) {
    let timings = |registry: &mut Registry, name: &str, help: &str| {
        let family = Family::<Labels, Told>::default();
        registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        family
    };
    let commits = timings(registry, "store_commit", "How long the store takes to make a group of changes durable");
    let appends = timings(registry, "log_append", "How long the audit log takes to make a group of entries durable");
    let changes = counters(registry, "store_changes", "Changes of records made durable");
    for report in reports {
        let site = labels(report, []);
        commits.get_or_create(&site).set(&report.service.store_commits);
        appends.get_or_create(&site).set(&report.service.log_appends);
        changes.get_or_create(&site).inc_by(report.service.store_changes);
    }
}

/// A histogram that another process counted.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Timing>>);

impl Told {
    fn set(&self, timing: &Timing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = timing.clone();
    }
}

impl EncodeMetric for Told {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let timing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = Timing::BOUNDS_MS.iter().map(|ms| ms / 1e3).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(timing.counts).collect();
        let count = timing.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        encoder.encode_histogram::<NoLabelSet>(timing.seconds, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for Told {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Whether a text of another site's report may become a label.
fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
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
/// Most ways for a handshake to end, and most pairs of interface and reason, of one site.
const WORDS_MAX: usize = 128;
const TERMINALS_MAX: usize = 1_000;
const MODELS_MAX: usize = 1_000;

#[cfg(test)]
mod openmetrics;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use types::id::{LinkId, SiteId, TerminalId};

    use super::*;
    use crate::report::{
        FlowReport, InterworkReport, KeyCounters, LinkReport, ModelReport, PairReport, ServiceReport, StreamReport,
        TerminalReport,
    };

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
            pairs: vec![PairReport { peer: site("linfen"), ready: 17, target: 256, path: Vec::new(), flow: flow() }],
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
            service: service(),
        }
    }

    fn flow() -> FlowReport {
        FlowReport {
            held: 18,
            made: 19,
            made_per_second: 2.5,
            taken: [20, 21, 22, 23],
            taken_per_second: [1.5, 0.0, 3.5, 0.0],
            waiting: 24,
            seconds_to_empty: Some(6.8),
        }
    }

    fn service() -> ServiceReport {
        let mut store_commits = Timing::default();
        [1, 1, 4, 9_000].into_iter().for_each(|ms| store_commits.note(Duration::from_millis(ms)));
        let count = |interface: &str, reason: &str, count| (interface.to_owned(), reason.to_owned(), count);
        ServiceReport {
            streams: StreamReport { ends: 1, waiting: 2, opened: 3, chunks: 4, bytes: 5, refused: 6 },
            interwork: Some(InterworkReport {
                exported: 11,
                exports_failed: 12,
                imported: 13,
                voided: 14,
                refused: 15,
                calls_failed: 16,
            }),
            handshakes: vec![("accepted".to_owned(), 7), ("{evil=\"".to_owned(), 8)],
            refusals: vec![count("etsi014", "over_quota", 9), count("etsi014", "not a word\n", 10)],
            store_commits,
            log_appends: Timing::default(),
            store_changes: 41,
            relays_failed: 42,
            burned_bits: 43,
            messages_refused: 44,
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
            "qurrent_pair_held_keys{site=\"taiyuan\",peer=\"linfen\"} 18.0",
            "qurrent_pair_keys_made_total{site=\"taiyuan\",peer=\"linfen\"} 19",
            "qurrent_pair_made_keys_per_second{site=\"taiyuan\",peer=\"linfen\"} 2.5",
            "qurrent_pair_keys_taken_total{site=\"taiyuan\",peer=\"linfen\",class=\"model\"} 22",
            "qurrent_pair_taken_keys_per_second{site=\"taiyuan\",peer=\"linfen\",class=\"telecontrol\"} 1.5",
            "qurrent_pair_waiting_requests{site=\"taiyuan\",peer=\"linfen\"} 24.0",
            "qurrent_pair_time_to_empty_seconds{site=\"taiyuan\",peer=\"linfen\"} 6.8",
            "qurrent_stream_ends{site=\"taiyuan\"} 1.0",
            "qurrent_stream_key_bytes_total{site=\"taiyuan\"} 5",
            "qurrent_stream_calls_refused_total{site=\"taiyuan\"} 6",
            "qurrent_interwork_keys_exported_total{site=\"taiyuan\"} 11",
            "qurrent_interwork_calls_failed_total{site=\"taiyuan\"} 16",
            "qurrent_tls_handshakes_total{site=\"taiyuan\",ended=\"accepted\"} 7",
            "qurrent_refusals_total{site=\"taiyuan\",interface=\"etsi014\",reason=\"over_quota\"} 9",
            "qurrent_store_commit_seconds_bucket{le=\"0.001\",site=\"taiyuan\"} 2",
            "qurrent_store_commit_seconds_bucket{le=\"0.005\",site=\"taiyuan\"} 3",
            "qurrent_store_commit_seconds_bucket{le=\"+Inf\",site=\"taiyuan\"} 4",
            "qurrent_store_commit_seconds_count{site=\"taiyuan\"} 4",
            "qurrent_store_changes_total{site=\"taiyuan\"} 41",
            "qurrent_relays_failed_total{site=\"taiyuan\"} 42",
            "qurrent_keys_burned_bits_total{site=\"taiyuan\"} 43",
            "qurrent_messages_refused_total{site=\"taiyuan\"} 44",
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
        assert!(!text.contains("evil") && !text.contains("not a word"));
    }

    #[test]
    fn the_text_is_openmetrics_and_every_family_is_documented() {
        let mut report = report();
        (report.links[0].secret_bit_s, report.links[0].time_scale) = (Some(1.0), Some(2.0));
        let model = types::id::ModelId::new("m").unwrap();
        report.models =
            vec![ModelReport { model, version: 1, published: true, bytes: 1, manifest: "hidden".to_owned() }];
        report.service.handshakes.truncate(1);
        let text = text(&[report], UtcNanos(0));
        let families = openmetrics::families(&text);
        let documented = include_str!("../../../docs/operations/metrics.md");
        let named: BTreeSet<&str> = documented
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("qurrent_"))
            .collect();
        assert_eq!(families.iter().map(String::as_str).collect::<BTreeSet<_>>(), named);
    }

    #[test]
    fn many_pairs_links_and_words_do_not_make_endless_series() {
        let mut report = report();
        let id = |n: usize| SiteId::new(&format!("s{n}")).unwrap();
        let pair = |n| PairReport { peer: id(n), ready: 1, target: 1, path: Vec::new(), flow: flow() };
        report.pairs = (0..5_000).map(pair).collect();
        report.service.handshakes = (0..5_000).map(|n| (format!("x{n}"), 1)).collect();
        report.service.refusals = (0..5_000).map(|n| ("i".to_owned(), format!("x{n}"), 1)).collect();
        let text = text(&[report], UtcNanos(0));
        let series = |family: &str| text.lines().filter(|line| line.starts_with(&format!("{family}{{"))).count();
        assert_eq!(series("qurrent_pair_keys_taken_total"), 4 * PAIRS_MAX);
        assert_eq!((series("qurrent_tls_handshakes_total"), series("qurrent_refusals_total")), (WORDS_MAX, WORDS_MAX));
    }
}
