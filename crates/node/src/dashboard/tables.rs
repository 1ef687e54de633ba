//! The tables: links, end-to-end stock, telecontrol sessions, models, sites, audit entries.

use maud::{Markup, html};
use types::id::{SiteId, TerminalId};

use super::alarm::{CAUSE_CHARS_MAX, DIGEST_CHARS_MAX, END_CHARS_MAX, LEVEL_CHARS_MAX};
use super::figures::{ABSENT, grouped, percent, rfc3339, scaled, scaled_count, shortened, span, utc};
use super::map::words;
use super::view::{
    AUDIT_MAX, Age, LinkState, LinkView, MODELS_MAX, PAIRS_MAX, PairView, Protection, QberGrade, TERMINALS_MAX, View,
};
use crate::report::{PairReport, SiteReport, TerminalReport};

/// QKD links.
pub(super) fn links(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Link" }
        th scope="col" class="number" { "Length" }
        th scope="col" { "Classical" }
        th scope="col" { "Light" }
        th scope="col" class="number" { "QBER" }
        th scope="col" class="number" { "Secret rate " small { "simulated time" } }
        th scope="col" class="number" { "Time scale" }
        th scope="col" { "Block at work" }
        th scope="col" class="number" { "Filed" }
        th scope="col" class="number" { "Aborted" }
        th scope="col" { "Last abort" }
        th scope="col" class="number" { "Stock " small { "→ from first site" } small { "← to first site" } }
    };
    let body = html! { @for link in view.links() { (link_row(view, &link)) } };
    let note = html! {
        "Rates are bits per second of simulated time. The time scale says how many seconds of simulated light pass in "
        "one second while the light is on. Stock is link key ready at the sender."
    };
    table("links", "QKD links", note, head, body)
}

fn link_row(view: &View<'_>, link: &LinkView<'_>) -> Markup {
    let state = link.state();
    html! {
        tr class=[link.is_stale().then_some("stale")] data-key={ "link " (link.link.id) } {
            th scope="row" {
                (view.name(&link.link.alice)) " – " (view.name(&link.link.bob))
                @if link.is_stale() { " " (badge("stale", "stale")) }
                small { (link.link.id) }
            }
            td class="number" { (link.link.length) }
            td { (match state {
                LinkState::Unknown => badge("unrated", words(state)),
                LinkState::Down => badge("fault", "down"),
                LinkState::Dark | LinkState::Working => badge("good", "up"),
            }) }
            td { (match link.lit() {
                None => badge("unrated", ABSENT),
                Some(true) => badge("good", "on"),
                Some(false) => badge("warning", "off"),
            }) }
            td class="number" { (qber(link.qber())) }
            td class="number" { (link.secret_bit_s().map_or(ABSENT.to_owned(), |rate| scaled(rate, "bit/s"))) }
            td class="number" { (link.time_scale().map_or(ABSENT.to_owned(), |scale| scaled(scale, "×"))) }
            td { @if let Some(progress) = link.progress() { (bar(progress, &format!("{:.0} %", progress * 100.0))) } }
            td class="number" { (count(link.blocks())) }
            td class="number" { (count(link.aborted())) }
            td class="wrap" { (link.last_abort().map_or(ABSENT.to_owned(), |cause| shortened(cause, CAUSE_CHARS_MAX))) }
            td class="number stock" {
                span { "→ " (stock(link.stock_to_bob_bits())) }
                span { "← " (stock(link.stock_to_alice_bits())) }
            }
        }
    }
}

fn qber(qber: Option<f64>) -> Markup {
    html! {
        @if let Some(qber) = qber {
            (percent(qber))
            @match QberGrade::of(qber) {
                QberGrade::Good => {}
                QberGrade::Near => { " " (badge("warning", "high")) }
                QberGrade::Above => { " " (badge("fault", "too high")) }
            }
        } @else { (ABSENT) }
    }
}

/// End-to-end stock of pairs of sites.
pub(super) fn pairs(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Sites" }
        th scope="col" { "Keys ready out " small { "owned by the first" } }
        th scope="col" { "Keys ready in " small { "owned by the second" } }
        th scope="col" { "Path in use" }
    };
    let pairs = view.pairs();
    let body = html! {
        @for pair in &pairs { (pair_row(view, pair)) }
        @if pairs.is_empty() { (nothing(4, "No end-to-end key yet.")) }
    };
    let note = html! {
        "256-bit keys that the background relay keeps ready; every site in the middle of a path is a trusted relay. "
        (at_most(pairs.len(), PAIRS_MAX))
    };
    table("pairs", "End-to-end stock", note, head, body)
}

fn pair_row(view: &View<'_>, pair: &PairView<'_>) -> Markup {
    let path = |report: Option<&PairReport>| report.map(|report| report.path.clone()).unwrap_or_default();
    let (out, mut back) = (path(pair.from_a), path(pair.from_b));
    back.reverse();
    html! {
        tr data-key={ "pair " (pair.a) " " (pair.b) } {
            th scope="row" { (view.name(pair.a)) " – " (view.name(pair.b)) }
            td { (ready(view, pair.from_a)) }
            td { (ready(view, pair.from_b)) }
            td class="wrap" {
                @if !out.is_empty() || back.is_empty() { (sites_of(view, &out)) }
                @if !back.is_empty() && back != out {
                    @if !out.is_empty() { br; }
                    (sites_of(view, &back)) small { "from " (view.name(pair.b)) }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
fn ready(view: &View<'_>, report: Option<&PairReport>) -> Markup {
    html! {
        @if let Some(report) = report {
            @let share = if report.target == 0 { 1.0 } else { report.ready as f64 / report.target as f64 };
            (bar(share, &format!("{} / {}", grouped(report.ready), grouped(report.target))))
            @if report.ready == 0 { " " (badge("warning", "none")) }
            @else if report.ready < u64::from(view.network.stock().low_water_keys) { " " (badge("warning", "low")) }
        } @else { (ABSENT) }
    }
}

fn sites_of(view: &View<'_>, path: &[SiteId]) -> Markup {
    html! {
        @if path.is_empty() { (badge("warning", "no path")) }
        @for (at, site) in path.iter().take(PATH_SITES_MAX).enumerate() {
            @if at > 0 { " → " }
            (view.network.sites().get(site).map_or(site.as_str(), |site| site.name.as_str()))
        }
    }
}

/// Telecontrol sessions, and terminals without one.
pub(super) fn sessions(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Terminal" }
        th scope="col" { "Reported by" }
        th scope="col" { "Protection of what it sends" }
        th scope="col" class="number" { "Connections" }
        th scope="col" class="number" { "OTP records" }
        th scope="col" class="number" { "Cipher records" }
        th scope="col" class="number" { "Refused" }
        th scope="col" class="number" { "Pad left " small { "→ to send" } small { "← to receive" } }
    };
    let sessions = view.sessions();
    let idle = view.network.terminals().values().filter(|place| view.protection(&place.id).is_none());
    let body = html! {
        @for (site, session) in &sessions { (session_row(view, site, session)) }
        @for place in idle.take(TERMINALS_MAX) {
            tr data-key={ "idle " (place.id) } {
                th scope="row" { (place.name) small { (place.id) } }
                td { (view.name(&place.site)) }
                td { (badge("unrated", "no session")) }
                @for _ in 0..5 { td class="number" { (ABSENT) } }
            }
        }
        @if sessions.is_empty() && view.network.terminals().is_empty() { (nothing(8, "No terminals.")) }
    };
    let note = html! {
        (badge("its", "information-theoretic")) " is one-time pad with Wegman-Carter tags: no assumption on the attacker's "
        "computer. " (badge("comp", "computational")) " is a cipher, AES-256-GCM, under quantum key. "
        (at_most(sessions.len(), TERMINALS_MAX))
    };
    table("terminals", "Telecontrol sessions", note, head, body)
}

fn session_row(view: &View<'_>, site: &SiteReport, session: &TerminalReport) -> Markup {
    let end = shortened(&session.end, END_CHARS_MAX);
    html! {
        tr class=[stale(view, site)] data-key={ "session " (site.site) " " (session.terminal) " " (end) } {
            th scope="row" { (terminal_name(view, &session.terminal)) small { (session.terminal) } }
            td { (end) small { "at " (view.network.sites().get(&site.site).map_or(site.site.as_str(), |site| &site.name)) } }
            td { (protection(&session.level)) }
            td class="number" { (grouped(session.connections)) }
            td class="number" { (grouped(session.otp_records)) }
            td class="number" { (grouped(session.aead_records)) }
            td class="number" { (grouped(session.refused)) }
            td class="number stock" {
                span { "→ " (scaled_count(session.pool_out_bytes, "B")) }
                span { "← " (scaled_count(session.pool_in_bytes, "B")) }
            }
        }
    }
}

fn protection(level: &str) -> Markup {
    let (otp, cipher) = Protection::classes(level);
    html! {
        @if let Some(classes) = otp {
            span class="share" { (badge("its", "information-theoretic")) " " (classes) }
        }
        @if let Some(classes) = cipher {
            span class="share" { (badge("comp", "computational")) " " (classes) }
        }
        @if otp.or(cipher).is_none() { (badge("unrated", Protection::of(level).words())) }
        small { "level " (shortened(level, LEVEL_CHARS_MAX)) }
    }
}

fn terminal_name<'a>(view: &View<'a>, terminal: &'a TerminalId) -> &'a str {
    view.network.terminals().get(terminal).map_or(terminal.as_str(), |place| &place.name)
}

/// Which site has which model version.
pub(super) fn models(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Model" }
        th scope="col" class="number" { "Version" }
        th scope="col" class="number" { "Size" }
        th scope="col" { "Manifest" }
        th scope="col" { "Published by" }
        th scope="col" { "Fetched and verified by" }
    };
    let models = view.models();
    let names = |sites: &[&SiteId]| match sites {
        [] => ABSENT.to_owned(),
        sites => sites.iter().map(|site| site_name(view, site)).collect::<Vec<_>>().join(", "),
    };
    let body = html! {
        @for model in &models {
            tr data-key={ "model " (model.model) " " (model.version) " " (shortened(model.manifest, DIGEST_CHARS_MAX)) } {
                th scope="row" { (model.model) }
                td class="number" { (model.version) }
                td class="number" { (scaled_count(model.bytes, "B")) }
                td {
                    code { (shortened(model.manifest, DIGEST_CHARS_MAX)) }
                    @if model.disputed { " " (badge("fault", "disputed")) }
                }
                td class="wrap" { (names(&model.published)) }
                td class="wrap" { (names(&model.fetched)) }
            }
        }
        @if models.is_empty() { (nothing(6, "No model was published yet.")) }
    };
    let note = html! {
        "Count models as " (badge("comp", "computational")) "; the manifest says what each tensor got. "
        (at_most(models.len(), MODELS_MAX))
    };
    table("models", "Models", note, head, body)
}

/// Sites and what their KMEs did.
pub(super) fn sites(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Site" }
        th scope="col" { "Report" }
        th scope="col" { "Version" }
        th scope="col" class="number" { "Relayed" }
        th scope="col" class="number" { "In transit for others" }
        th scope="col" class="number" { "Supplied " small { "to master SAEs" } }
        th scope="col" class="number" { "Delivered " small { "to slave SAEs" } }
        th scope="col" class="number" { "Refused " small { "requests" } }
        th scope="col" class="number" { "Audit entries" }
    };
    let silent = view.network.sites().values().filter(|site| view.report(&site.id).is_none());
    let body = html! {
        @for report in view.reports() {
            tr class=[stale(view, report)] data-key={ "site " (report.site) } {
                th scope="row" { (site_name(view, &report.site)) small { (report.site) } }
                td { (match view.age(report) {
                    Age::Fresh(seconds) => html! { (badge("good", "fresh")) small { (span(seconds)) " old" } },
                    Age::Stale(seconds) => html! { (badge("stale", "stale")) small { (span(seconds)) " old" } },
                    Age::Ahead(seconds) => html! { (badge("warning", "clock")) small { (span(seconds)) " ahead" } },
                }) }
                td { (shortened(&report.version, VERSION_CHARS_MAX)) }
                td class="number" { (grouped(report.keys.relayed)) }
                td class="number" { (grouped(report.keys.transit)) }
                td class="number" { (grouped(report.keys.supplied)) }
                td class="number" { (grouped(report.keys.delivered)) }
                td class="number" { (grouped(report.keys.refused)) }
                td class="number" { (grouped(report.audit_entries)) }
            }
        }
        @for site in silent {
            tr data-key={ "silent " (site.id) } {
                th scope="row" { (site.name) small { (site.id) } }
                td { (badge("unrated", "no report")) }
                td { (ABSENT) }
                @for _ in 0..6 { td class="number" { (ABSENT) } }
            }
        }
    };
    let note = html! { "Keys since each site's process started. A report older than 10 seconds is stale." };
    table("sites", "Sites and keys", note, head, body)
}

/// Last entries of all audit logs.
pub(super) fn audit(view: &View<'_>) -> Markup {
    let head = html! {
        th scope="col" { "Time (UTC)" }
        th scope="col" { "Site" }
        th scope="col" class="number" { "Entry" }
        th scope="col" { "Event" }
        th scope="col" { "Content" }
    };
    let lines = view.audit();
    let body = html! {
        @for (site, line) in &lines {
            tr data-key={ "audit " (site) " " (line.seq) } {
                td { time datetime=(rfc3339(line.time)) { (utc(line.time)) } }
                td { (site_name(view, site)) }
                td class="number" { (grouped(line.seq)) }
                td { code { (shortened(&line.code, CODE_CHARS_MAX)) } }
                td class="wrap content" { (shortened(&line.text, TEXT_CHARS_MAX)) }
            }
        }
        @if lines.is_empty() { (nothing(5, "No audit entry yet.")) }
    };
    let note = html! { "The last " (AUDIT_MAX) " entries of all sites' logs, newest first. " code { "qurrent audit" } " proves them." };
    table("audit", "Audit log", note, head, body)
}

fn table(id: &str, title: &str, note: Markup, head: Markup, body: Markup) -> Markup {
    html! {
        section class="panel" aria-labelledby={ (id) "-title" } data-key=(id) {
            h2 id={ (id) "-title" } { (title) }
            // A region that scrolls must be reachable from the keyboard.
            div class="scroll" tabindex="0" role="region" aria-labelledby={ (id) "-title" } {
                table aria-describedby={ (id) "-note" } {
                    thead { tr { (head) } }
                    tbody { (body) }
                }
            }
            p class="note" id={ (id) "-note" } { (note) }
        }
    }
}

fn nothing(columns: usize, text: &str) -> Markup {
    html! { tr class="nothing" { td colspan=(columns) { (text) } } }
}

fn at_most(shown: usize, most: usize) -> Markup {
    html! { @if shown >= most { "Only the first " (most) " are shown." } }
}

/// A short word on a coloured ground; the word alone says it all.
pub(super) fn badge(class: &str, text: &str) -> Markup {
    html! { span class={ "badge " (class) } { (text) } }
}

fn bar(share: f64, text: &str) -> Markup {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    html! {
        span class="bar" {
            progress max="1" value=(format!("{share:.3}")) aria-hidden="true" {}
            span { (text) }
        }
    }
}

fn stale(view: &View<'_>, report: &SiteReport) -> Option<&'static str> {
    (!matches!(view.age(report), Age::Fresh(_))).then_some("stale")
}

fn site_name<'a>(view: &'a View<'_>, site: &'a SiteId) -> &'a str {
    view.network.sites().get(site).map_or(site.as_str(), |site| &site.name)
}

fn stock(bits: Option<u64>) -> String {
    bits.map_or(ABSENT.to_owned(), |bits| scaled_count(bits, "bit"))
}

fn count(count: Option<u64>) -> String {
    count.map_or(ABSENT.to_owned(), grouped)
}

const PATH_SITES_MAX: usize = 32;
const VERSION_CHARS_MAX: usize = 32;
const CODE_CHARS_MAX: usize = 40;
const TEXT_CHARS_MAX: usize = 300;
