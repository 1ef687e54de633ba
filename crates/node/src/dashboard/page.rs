//! The page: a frame that is sent once, and the part inside it that is rendered again whenever a report comes.

use maud::{DOCTYPE, Markup, html};
use types::network::Network;

use super::alarm::{Alarm, alarms};
use super::figures::{grouped, rfc3339, scaled, scaled_count, utc};
use super::layout::Layout;
use super::map::map;
use super::tables;
use super::view::{LinkState, View};

/// The whole document.
pub(super) fn document(view: &View<'_>, layout: &Layout) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(view.network))
            body {
                a class="skip" href="#live" { "To the figures" }
                header class="top" {
                    div class="brand" {
                        (mark())
                        h1 { "Qurrent " span { (view.network.name()) } }
                    }
                    // The script says here whether updates arrive; without it the page renews itself.
                    p id="connection" class="connection" role="status" {
                        span class="dot" {}
                        span id="connection-text" { noscript { "Without JavaScript: reloads every 5 s" } }
                    }
                }
                main id="live" tabindex="-1" { (fragment(view, layout)) }
                footer {
                    p {
                        "Read-only. Also here: " a href="api/report" { "reports as JSON" } ", "
                        a href="metrics" { "metrics" } ". Photons are simulated unless a link is fed by a device; "
                        "counts, rates and times only, never key."
                    }
                }
            }
        }
    }
}

fn head(network: &Network) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { "Qurrent: " (network.name()) }
            link rel="icon" href="icon.svg" type="image/svg+xml";
            link rel="stylesheet" href="style.css";
            script src="live.js" defer {}
            noscript { meta http-equiv="refresh" content="5"; }
        }
    }
}

fn mark() -> Markup {
    html! {
        svg class="brand-mark" viewBox="0 0 32 32" width="32" height="32" aria-hidden="true" {
            circle cx="15" cy="15" r="10" fill="none" stroke="currentColor" stroke-width="3.5" {}
            path d="M15 15L28 28" stroke="currentColor" stroke-width="3.5" stroke-linecap="round" {}
            circle cx="15" cy="15" r="3.5" fill="currentColor" {}
        }
    }
}

/// What changes with the reports.
pub(super) fn fragment(view: &View<'_>, layout: &Layout) -> Markup {
    let alarms = alarms(view);
    html! {
        (tiles(view))
        div class="overview" data-key="overview" {
            section class="panel" aria-labelledby="network-title" {
                h2 id="network-title" { "Network" }
                div class="scroll" tabindex="0" role="region" aria-labelledby="network-title" { (map(view, layout)) }
                (legend())
            }
            (attention(view, &alarms))
        }
        (tables::links(view))
        (tables::pairs(view))
        (tables::sessions(view))
        (tables::models(view))
        (tables::sites(view))
        (tables::audit(view))
    }
}

fn tiles(view: &View<'_>) -> Markup {
    let sites = view.network.sites().len();
    let links: Vec<_> = view.links().collect();
    let working = links.iter().filter(|link| link.state() == LinkState::Working).count();
    let rate: f64 =
        links.iter().filter(|link| link.state() == LinkState::Working).filter_map(|link| link.secret_bit_s()).sum();
    let stock = links
        .iter()
        .flat_map(|link| [link.stock_to_bob_bits(), link.stock_to_alice_bits()])
        .flatten()
        .fold(0, u64::saturating_add);
    let pairs = view.pairs();
    let ready = pairs.iter().flat_map(|pair| [pair.from_a, pair.from_b]).flatten().map(|pair| pair.ready);
    let ready = ready.fold(0, u64::saturating_add);
    let sum = |count: fn(&crate::report::SiteReport) -> u64| view.reports().map(count).fold(0, u64::saturating_add);
    html! {
        dl class="tiles" aria-label="Summary" data-key="tiles" {
            (tile("Sites reporting", &format!("{} / {sites}", view.sites_reporting()), ""))
            (tile("Links working", &format!("{working} / {}", links.len()), ""))
            (tile("Secret rate", &scaled(rate, "bit/s"), "all links, simulated time"))
            (tile("Link stock", &scaled_count(stock, "bit"), "both directions"))
            (tile("End-to-end keys", &grouped(ready), "ready, 256 bit each"))
            (tile("Keys supplied", &grouped(sum(|report| report.keys.supplied)), "to master SAEs"))
            (tile("Audit entries", &grouped(sum(|report| report.audit_entries)), "all sites"))
        }
    }
}

fn tile(name: &str, figure: &str, note: &str) -> Markup {
    html! {
        div class="tile" {
            dt { (name) }
            dd { (figure) @if !note.is_empty() { small { (note) } } }
        }
    }
}

fn attention(view: &View<'_>, alarms: &[Alarm]) -> Markup {
    html! {
        section class="panel attention" aria-labelledby="attention-title" {
            h2 id="attention-title" { "Attention" }
            // Texts in here change only when something happens, so that a screen reader stays quiet otherwise.
            ul aria-live="polite" aria-relevant="additions text" {
                @if view.reports().next().is_none() {
                    li class="notice" data-key="waiting" { p { "Waiting for the first report of a site." } }
                } @else if alarms.is_empty() {
                    li class="fine" data-key="fine" { p { "Nothing needs attention." } }
                }
                @for alarm in alarms.iter().take(ALARMS_MAX) {
                    li class=(alarm.severity.word()) data-key={ (alarm.severity.word()) " " (alarm.subject) " " (alarm.text) } {
                        p { (tables::badge(alarm.severity.word(), alarm.severity.word())) " " b { (alarm.subject) } " " (alarm.text) }
                    }
                }
            }
            @if alarms.len() > ALARMS_MAX { p class="note" { "and " (alarms.len() - ALARMS_MAX) " more" } }
            p class="note rendered" {
                "As of " time datetime=(rfc3339(view.now)) { (utc(view.now)) } " UTC"
            }
        }
    }
}

fn legend() -> Markup {
    let line = |class: &str, text: &str| {
        html! {
            li {
                svg class="key" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true" {
                    g class={ "link " (class) } { line class="fibre" x1="1" y1="6" x2="33" y2="6" stroke-width="4" {} }
                }
                (text)
            }
        }
    };
    html! {
        ul class="legend" aria-label="Legend" {
            (line("working", "working, thicker is faster"))
            (line("near", "QBER near the limit"))
            (line("above", "QBER above the limit"))
            (line("dark", "light off"))
            (line("down", "down"))
            (line("unknown", "no report"))
            li { svg class="key" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" {
                g class="leaf centre" { rect class="mark" x="1" y="1" width="10" height="10" rx="2" {} }
            } "dispatch centre" }
            (diamond("its", "terminal, information-theoretic"))
            (diamond("mixed", "terminal, partly"))
            (diamond("comp", "terminal, computational"))
        }
    }
}

fn diamond(class: &str, text: &str) -> Markup {
    html! {
        li { svg class="key" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" {
            g class="leaf terminals" { path class={ "mark " (class) } d="M6 0l6 6l-6 6l-6 -6z" {} }
        } (text) }
    }
}

const ALARMS_MAX: usize = 10;
