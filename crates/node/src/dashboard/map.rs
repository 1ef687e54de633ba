//! The map: links coloured by state and weighted by rate, sites, dispatch centres, terminals. The tables say the
//! same in words, so the drawing is one image to a screen reader.

use maud::{Markup, html};
use types::network::Centre;

use super::figures::{ABSENT, percent, scaled, scaled_count, shortened};
use super::layout::{LINE, Layout, Leaf, NAME_CHARS_MAX, Point, SITE_RADIUS, TERMINALS_NAMED, WIDTH, between};
use super::view::{Age, LinkState, LinkView, QberGrade, View};

/// The drawing.
pub(super) fn map(view: &View<'_>, layout: &Layout) -> Markup {
    html! {
        svg class="map" role="img" aria-labelledby="map-title" viewBox=(format!("0 0 {WIDTH} {:.0}", layout.height)) {
            title id="map-title" { "Map of the network: sites, QKD links with their state, dispatch centres, terminals" }
            @for link in view.links() { (line(view, layout, &link)) }
            @for (centre, leaf) in view.network.centres().iter().zip(&layout.centres) { (dispatch(centre, leaf)) }
            (terminals(view, layout))
            @for link in view.links() { (figures(layout, &link)) }
            (sites(view, layout))
        }
    }
}

fn line(view: &View<'_>, layout: &Layout, link: &LinkView<'_>) -> Markup {
    let ends = layout.sites.get(&link.link.alice).zip(layout.sites.get(&link.link.bob));
    html! {
        @if let Some((from, to)) = ends {
            g class={ "link " (class(link)) } data-key={ "line " (link.link.id) } {
                title {
                    (view.name(&link.link.alice)) " to " (view.name(&link.link.bob)) ", " (link.link.length) ": "
                    (words(link.state()))
                }
                (segment("fibre", *from, *to, Some(weight(link))))
                @if link.state() == LinkState::Working { (segment("light", *from, *to, None)) }
                @if link.state() == LinkState::Down { (cross(between(*from, *to, 0.5))) }
            }
        }
    }
}

fn segment(class: &str, from: Point, to: Point, weight: Option<f64>) -> Markup {
    html! {
        line class=(class) x1=(coordinate(from.x)) y1=(coordinate(from.y)) x2=(coordinate(to.x)) y2=(coordinate(to.y))
            stroke-width=[weight.map(coordinate)] {}
    }
}

fn cross(at: Point) -> Markup {
    html! { path class="cross" d=(format!("M{:.1} {:.1}l14 14m0 -14l-14 14", at.x - 7.0, at.y - 7.0)) {} }
}

fn figures(layout: &Layout, link: &LinkView<'_>) -> Markup {
    let stock = |bits: Option<u64>| bits.map_or(ABSENT.to_owned(), |bits| scaled_count(bits, "bit"));
    html! {
        @if let Some(area) = layout.links.get(&link.link.id) {
            @let (x, y) = (area.centre.x, area.top() + LINE * 0.75);
            text class={ "figures " (class(link)) } data-key={ "figures " (link.link.id) } text-anchor="middle" {
                tspan class="rate" x=(coordinate(x)) y=(coordinate(y)) {
                    @match (link.state(), link.secret_bit_s()) {
                        (LinkState::Working, Some(rate)) => (scaled(rate, "bit/s")),
                        (state, _) => (words(state)),
                    }
                }
                tspan x=(coordinate(x)) y=(coordinate(y + LINE)) {
                    "QBER " (link.qber().map_or(ABSENT.to_owned(), percent)) " · " (link.link.length)
                }
                tspan class="stock" x=(coordinate(x)) y=(coordinate(y + 2.0 * LINE)) {
                    (stock(link.stock_to_bob_bits())) " ⇄ " (stock(link.stock_to_alice_bits()))
                }
            }
        }
    }
}

fn sites(view: &View<'_>, layout: &Layout) -> Markup {
    html! {
        @for (id, at) in &layout.sites {
            @let report = view.report(id);
            @let state = match report.map(|report| view.age(report)) {
                None => "silent",
                Some(Age::Fresh(_)) => "fresh",
                Some(Age::Stale(_) | Age::Ahead(_)) => "stale",
            };
            g class={ "site " (state) } data-key={ "spot " (id) } {
                title { (view.name(id)) ": " (match state { "fresh" => "reporting", "stale" => "stale", _ => "no report" }) }
                circle class="halo" cx=(coordinate(at.x)) cy=(coordinate(at.y)) r=(SITE_RADIUS + 4.0) {}
                circle class="body" cx=(coordinate(at.x)) cy=(coordinate(at.y)) r=(SITE_RADIUS) {}
                circle class="core" cx=(coordinate(at.x)) cy=(coordinate(at.y)) r="4" {}
                @if let Some(area) = layout.names.get(id) {
                    text class="name" text-anchor="middle" x=(coordinate(area.centre.x)) y=(coordinate(area.centre.y + 5.0)) {
                        (shortened(view.name(id), NAME_CHARS_MAX))
                    }
                }
            }
        }
    }
}

fn dispatch(centre: &Centre, leaf: &Leaf) -> Markup {
    let (x, y) = (leaf.area.left(), leaf.area.top());
    html! {
        g class={ "leaf centre" @if centre.served_by.is_none() { " unserved" } } data-key={ "centre " (centre.id) } {
            (stem(leaf))
            rect class="mark" x=(coordinate(x)) y=(coordinate(y + 3.0)) width="10" height="10" rx="2" {}
            text x=(coordinate(x + 15.0)) y=(coordinate(y + LINE * 0.75)) { (shortened(&centre.name, NAME_CHARS_MAX)) }
            @if centre.served_by.is_none() {
                text class="note" x=(coordinate(x + 15.0)) y=(coordinate(y + LINE * 1.7)) { "no quantum link" }
            }
        }
    }
}

fn terminals(view: &View<'_>, layout: &Layout) -> Markup {
    html! {
        @for (site, ids, leaf) in &layout.terminals {
            @let (x, y) = (leaf.area.left(), leaf.area.top());
            g class="leaf terminals" data-key={ "terminals " (site) } {
                (stem(leaf))
                @for (row, id) in ids.iter().take(TERMINALS_NAMED).enumerate() {
                    @let protection = view.protection(id);
                    @let y = y + LINE * f64::from(u8::try_from(row).unwrap_or(u8::MAX));
                    path class={ "mark " (protection.map_or("idle", |protection| protection.class())) }
                        d=(format!("M{:.1} {:.1}l6 6l-6 6l-6 -6z", x + 6.0, y + 2.0)) {
                        title { (id) ": " (protection.map_or("no session", |protection| protection.words())) }
                    }
                    text x=(coordinate(x + 16.0)) y=(coordinate(y + LINE * 0.75)) { (id) }
                }
                @if ids.len() > TERMINALS_NAMED {
                    text class="note" x=(coordinate(x + 16.0)) y=(coordinate(y + LINE * 3.75)) {
                        "and " (ids.len() - TERMINALS_NAMED) " more"
                    }
                }
            }
        }
    }
}

/// The thin line from a site to what hangs on it.
fn stem(leaf: &Leaf) -> Markup {
    html! { @if let Some(at) = leaf.at { (segment("stem", at, leaf.area.nearest(at), None)) } }
}

fn class(link: &LinkView<'_>) -> &'static str {
    match (link.state(), link.qber().map(QberGrade::of)) {
        (LinkState::Down, _) => "down",
        (LinkState::Unknown, _) => "unknown",
        (LinkState::Dark, _) => "dark",
        (LinkState::Working, Some(QberGrade::Above)) => "above",
        (LinkState::Working, Some(QberGrade::Near)) => "near",
        (LinkState::Working, _) => "working",
    }
}

/// A link's state in words.
pub(super) fn words(state: LinkState) -> &'static str {
    match state {
        LinkState::Working => "working",
        LinkState::Dark => "light off",
        LinkState::Down => "down",
        LinkState::Unknown => "no report",
    }
}

/// Width of a link's line: one step for each factor of ten of its rate.
fn weight(link: &LinkView<'_>) -> f64 {
    let rate = link.secret_bit_s().filter(|_| link.state() == LinkState::Working);
    rate.map_or(2.5, |rate| (1.5 + rate.max(1.0).log10() * 1.25).clamp(2.5, 11.0))
}

fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}
