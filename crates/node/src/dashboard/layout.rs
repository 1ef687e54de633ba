//! Where things stand on the map. Depends on the network's description alone, so nothing moves when figures do.
//!
//! Sites stand at their coordinates (equirectangular projection, true to scale in both directions). Everything
//! that has a text picks, in a fixed order, the candidate place that hides least of what already stands.

use std::collections::BTreeMap;

use types::id::{LinkId, SiteId, TerminalId};
use types::network::Network;

/// Width of the drawing.
pub(super) const WIDTH: f64 = 780.0;
/// Radius of a site's circle.
pub(super) const SITE_RADIUS: f64 = 10.0;
/// Height of one line of text.
pub(super) const LINE: f64 = 16.0;
/// Terminals shown by name at each site.
pub(super) const TERMINALS_NAMED: usize = 3;

/// The places.
#[derive(Debug)]
pub(super) struct Layout {
    /// Height of the drawing.
    pub(super) height: f64,
    /// Circle of each site.
    pub(super) sites: BTreeMap<SiteId, Point>,
    /// Name of each site.
    pub(super) names: BTreeMap<SiteId, Area>,
    /// Figures of each link; none on a map with more than [`LABELLED_LINKS_MAX`] links.
    pub(super) links: BTreeMap<LinkId, Area>,
    /// Dispatch centres in file order.
    pub(super) centres: Vec<Leaf>,
    /// Terminals by site.
    pub(super) terminals: Vec<(SiteId, Vec<TerminalId>, Leaf)>,
}

/// A point of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// To the right.
    pub(super) x: f64,
    /// Downwards.
    pub(super) y: f64,
}

/// A rectangle of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    /// Its centre.
    pub(super) centre: Point,
    /// Its width.
    pub(super) width: f64,
    /// Its height.
    pub(super) height: f64,
}

/// Something that hangs on a site, or stands alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Leaf {
    /// The site it hangs on.
    pub(super) at: Option<Point>,
    /// Its rectangle.
    pub(super) area: Area,
}

impl Layout {
    /// Places a network.
    pub(super) fn new(network: &Network) -> Self {
        let (projection, height) = Projection::fit(network);
        let sites: BTreeMap<SiteId, Point> = network
            .sites()
            .values()
            .map(|site| (site.id.clone(), projection.point(site.latitude, site.longitude)))
            .collect();
        let mut board = Placer::new(network, &sites, height);
        let names: BTreeMap<SiteId, Area> = network
            .sites()
            .values()
            .filter_map(|site| {
                let at = sites.get(&site.id)?;
                Some((site.id.clone(), board.beside(*at, text_width(&site.name, NAME_CHAR), LINE + 2.0, NAME_GAP)))
            })
            .collect();
        let labelled = network.links().len() <= LABELLED_LINKS_MAX;
        let links: BTreeMap<LinkId, Area> = network
            .links()
            .values()
            .filter(|_| labelled)
            .filter_map(|link| {
                let (from, to) = (sites.get(&link.alice)?, sites.get(&link.bob)?);
                Some((link.id.clone(), board.along(*from, *to)))
            })
            .collect();
        let centres = network
            .centres()
            .iter()
            .map(|centre| {
                let width = text_width(&centre.name, LEAF_CHAR) + LEAF_MARK;
                match centre.served_by.as_ref().and_then(|site| sites.get(site)) {
                    Some(at) => Leaf { at: Some(*at), area: board.beside(*at, width, LINE, LEAF_GAP) },
                    None => {
                        let wanted = projection.point(centre.latitude, centre.longitude);
                        Leaf { at: None, area: board.near(wanted, width, 2.0 * LINE) }
                    }
                }
            })
            .collect();
        let mut by_site: BTreeMap<&SiteId, Vec<TerminalId>> = BTreeMap::new();
        for terminal in network.terminals().values() {
            by_site.entry(&terminal.site).or_default().push(terminal.id.clone());
        }
        let terminals = by_site
            .into_iter()
            .filter_map(|(site, ids)| {
                let at = sites.get(site)?;
                let named = ids.iter().take(TERMINALS_NAMED);
                let width =
                    named.map(|id| text_width(id.as_str(), LEAF_CHAR)).fold(LEAF_WIDTH_MIN, f64::max) + LEAF_MARK;
                let lines = ids.len().min(TERMINALS_NAMED + 1);
                let area = board.beside(*at, width, LINE * as_f64(lines), LEAF_GAP);
                Some((site.clone(), ids, Leaf { at: Some(*at), area }))
            })
            .collect();
        Self { height, sites, names, links, centres, terminals }
    }
}

impl Area {
    /// Its left edge.
    pub(super) fn left(&self) -> f64 {
        self.centre.x - self.width / 2.0
    }

    /// Its upper edge.
    pub(super) fn top(&self) -> f64 {
        self.centre.y - self.height / 2.0
    }

    /// Where a line from `at` ends at the rectangle.
    pub(super) fn nearest(&self, at: Point) -> Point {
        let (left, top) = (self.left() - CLEARANCE, self.top());
        Point { x: at.x.clamp(left, left + self.width + 2.0 * CLEARANCE), y: at.y.clamp(top, top + self.height) }
    }

    fn overlap(&self, other: &Self) -> f64 {
        let side = |a: f64, b: f64, extent: f64| (extent - (a - b).abs()).max(0.0);
        side(self.centre.x, other.centre.x, f64::midpoint(self.width, other.width))
            * side(self.centre.y, other.centre.y, f64::midpoint(self.height, other.height))
    }

    fn holds(&self, point: Point) -> bool {
        (point.x - self.centre.x).abs() < self.width / 2.0 + CLEARANCE
            && (point.y - self.centre.y).abs() < self.height / 2.0 + CLEARANCE
    }
}

struct Projection {
    longitude: f64,
    latitude: f64,
    shrink: f64,
    scale: f64,
    middle: Point,
}

impl Projection {
    /// Fits the sites into the drawing; its height follows the network's shape.
    fn fit(network: &Network) -> (Self, f64) {
        let sites = || network.sites().values();
        let (south, north) = bounds(sites().map(|site| site.latitude));
        let (west, east) = bounds(sites().map(|site| site.longitude));
        let (latitude, longitude) = (f64::midpoint(south, north), f64::midpoint(west, east));
        let shrink = latitude.to_radians().cos().max(0.05);
        let across = ((east - west) * shrink).max(SPAN_MIN);
        let down = (north - south).max(SPAN_MIN);
        let scale = ((WIDTH - 2.0 * MARGIN_X) / across).min((HEIGHT_MAX - 2.0 * MARGIN_Y) / down);
        let height = (down * scale + 2.0 * MARGIN_Y).clamp(HEIGHT_MIN, HEIGHT_MAX);
        let middle = Point { x: WIDTH / 2.0, y: height / 2.0 };
        (Self { longitude, latitude, shrink, scale, middle }, height)
    }

    fn point(&self, latitude: f64, longitude: f64) -> Point {
        Point {
            x: self.middle.x + (longitude - self.longitude) * self.shrink * self.scale,
            y: self.middle.y - (latitude - self.latitude) * self.scale,
        }
    }
}

/// Chooses places one after the other.
struct Placer {
    height: f64,
    middle: Point,
    taken: Vec<Area>,
    lines: Vec<Point>,
}

impl Placer {
    fn new(network: &Network, sites: &BTreeMap<SiteId, Point>, height: f64) -> Self {
        let side = 2.0 * (SITE_RADIUS + CLEARANCE);
        let taken: Vec<Area> =
            sites.values().map(|centre| Area { centre: *centre, width: side, height: side }).collect();
        let count = as_f64(sites.len().max(1));
        let sum = sites.values().fold(Point { x: 0.0, y: 0.0 }, |sum, at| Point { x: sum.x + at.x, y: sum.y + at.y });
        let mut lines = Vec::new();
        for link in network.links().values().take(SAMPLED_LINKS_MAX) {
            if let (Some(from), Some(to)) = (sites.get(&link.alice), sites.get(&link.bob)) {
                lines.extend(
                    (1..LINE_SAMPLES).map(|step| between(*from, *to, f64::from(step) / f64::from(LINE_SAMPLES))),
                );
            }
        }
        Self { height, middle: Point { x: sum.x / count, y: sum.y / count }, taken, lines }
    }

    /// A place around a point, outwards of the network's middle where possible.
    fn beside(&mut self, at: Point, width: f64, height: f64, gap: f64) -> Area {
        let outward = (at.y - self.middle.y).atan2(at.x - self.middle.x);
        let mut candidates = Vec::new();
        for reach in [1.0, 1.8, 2.8] {
            for turn in TURNS {
                let (sin, cos) = (outward + f64::from(turn).to_radians()).sin_cos();
                // The nearest point of the rectangle's edge, not its centre, keeps the distance.
                let distance = SITE_RADIUS + gap * reach;
                let x = at.x + cos * distance + soft_sign(cos) * width / 2.0;
                let y = at.y + sin * distance + soft_sign(sin) * height / 2.0;
                let area = Area { centre: Point { x, y }, width, height };
                let stem = self.hidden_by_stem(at, area.nearest(at)) * 30.0;
                candidates.push((area, f64::from(turn.abs()) * 0.3 + (reach - 1.0) * 60.0 + stem));
            }
        }
        self.choose(&candidates)
    }

    /// How much of a line from a site outwards runs through texts.
    fn hidden_by_stem(&self, from: Point, to: Point) -> f64 {
        let on_stem = |area: &Area| {
            let away = (area.centre.x - from.x).hypot(area.centre.y - from.y) > SITE_RADIUS;
            let mut points = (1..8_u8).map(|step| between(from, to, f64::from(step) / 8.0));
            away && points.any(|point| area.holds(point))
        };
        as_f64(self.taken.iter().filter(|area| on_stem(area)).count())
    }

    /// A place for the figures of a link, beside its line.
    fn along(&mut self, from: Point, to: Point) -> Area {
        let (width, height) = (LINK_LABEL_WIDTH, 3.0 * LINE);
        let (dx, dy) = (to.x - from.x, to.y - from.y);
        let length = dx.hypot(dy).max(1.0);
        let (nx, ny) = (-dy / length, dx / length);
        // Distance at which the rectangle's corner clears the line.
        let clear = nx.abs() * width / 2.0 + ny.abs() * height / 2.0 + LINK_LABEL_GAP;
        let mut candidates = Vec::new();
        for (preference, along) in [(0.0, 0.5), (8.0, 0.42), (8.0, 0.58), (20.0, 0.32), (20.0, 0.68)] {
            for side in [1.0, -1.0] {
                let at = between(from, to, along);
                let centre = Point { x: at.x + side * nx * clear, y: at.y + side * ny * clear };
                let inward = (centre.x - self.middle.x).hypot(centre.y - self.middle.y)
                    < (at.x - self.middle.x).hypot(at.y - self.middle.y);
                let area = Area { centre, width, height };
                candidates.push((area, preference + if inward { 4.0 } else { 0.0 }));
            }
        }
        self.choose(&candidates)
    }

    /// A place as near as possible to a point that may lie off the drawing.
    fn near(&mut self, wanted: Point, width: f64, height: f64) -> Area {
        let inside = |value: f64, extent: f64, most: f64| {
            let least = extent / 2.0 + EDGE;
            value.clamp(least, (most - least).max(least))
        };
        let mut candidates = Vec::new();
        for step in 0..9_i32 {
            for side in [-1.0, 1.0] {
                let shift = side * f64::from(step) * 40.0;
                let centre =
                    Point { x: inside(wanted.x + shift, width, WIDTH), y: inside(wanted.y, height, self.height) };
                candidates.push((Area { centre, width, height }, f64::from(step) * 5.0));
            }
        }
        self.choose(&candidates)
    }

    /// Takes the candidate with the least cost; the first of equals.
    fn choose(&mut self, candidates: &[(Area, f64)]) -> Area {
        let cost = |area: &Area, preference: f64| {
            let hidden: f64 = self.taken.iter().map(|other| area.overlap(other)).sum();
            let crossed = self.lines.iter().filter(|point| area.holds(**point)).count();
            preference + hidden * 2.0 + as_f64(crossed) * 25.0 + self.outside(area) * 50.0
        };
        let best = candidates
            .iter()
            .map(|(area, preference)| (*area, cost(area, *preference)))
            .reduce(|best, next| if next.1 < best.1 { next } else { best });
        let origin = Area { centre: self.middle, width: 0.0, height: 0.0 };
        let area = best.map_or(origin, |(area, _)| area);
        self.taken.push(area);
        area
    }

    fn outside(&self, area: &Area) -> f64 {
        let beyond = |centre: f64, extent: f64, most: f64| {
            (extent / 2.0 + EDGE - centre).max(0.0) + (centre + extent / 2.0 + EDGE - most).max(0.0)
        };
        beyond(area.centre.x, area.width, WIDTH) + beyond(area.centre.y, area.height, self.height)
    }
}

/// A point of the line from `from` to `to`.
pub(super) fn between(from: Point, to: Point, share: f64) -> Point {
    Point { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .fold(None, |seen: Option<(f64, f64)>, value| {
            let (least, most) = seen.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        })
        .unwrap_or((0.0, 0.0))
}

/// -1 or 1 when clearly to one side, between them when nearly straight up, down, left or right.
fn soft_sign(value: f64) -> f64 {
    (value * 2.0).clamp(-1.0, 1.0)
}

fn text_width(text: &str, char_width: f64) -> f64 {
    as_f64(text.chars().count().min(NAME_CHARS_MAX)) * char_width
}

#[expect(clippy::cast_precision_loss, reason = "counts of things on a map")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// A map with more links than this has no figures beside them: the table has.
pub(super) const LABELLED_LINKS_MAX: usize = 24;
/// Longest name that is shown on the map.
pub(super) const NAME_CHARS_MAX: usize = 28;

const HEIGHT_MIN: f64 = 360.0;
const HEIGHT_MAX: f64 = 620.0;
const MARGIN_X: f64 = 150.0;
const MARGIN_Y: f64 = 96.0;
const SPAN_MIN: f64 = 0.05;
const EDGE: f64 = 8.0;
const CLEARANCE: f64 = 4.0;
const NAME_CHAR: f64 = 9.2;
const NAME_GAP: f64 = 5.0;
const LEAF_CHAR: f64 = 6.0;
const LEAF_MARK: f64 = 16.0;
const LEAF_GAP: f64 = 26.0;
const LEAF_WIDTH_MIN: f64 = 60.0;
const LINK_LABEL_WIDTH: f64 = 148.0;
const LINK_LABEL_GAP: f64 = 6.0;
const TURNS: [i16; 12] = [0, 30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180];
const LINE_SAMPLES: u16 = 24;
const SAMPLED_LINKS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_reference_network_has_no_overlaps_and_fits() {
        let layout = Layout::new(&sample::network());
        let mut areas: Vec<Area> = layout.names.values().chain(layout.links.values()).copied().collect();
        areas.extend(layout.centres.iter().map(|leaf| leaf.area));
        areas.extend(layout.terminals.iter().map(|(_, _, leaf)| leaf.area));
        assert_eq!(areas.len(), 5 + 5 + 2 + 1);
        for (at, area) in areas.iter().enumerate() {
            assert!(area.left() >= 0.0 && area.left() + area.width <= WIDTH, "{area:?}");
            assert!(area.top() >= 0.0 && area.top() + area.height <= layout.height, "{area:?}");
            for other in &areas[at + 1..] {
                assert!(area.overlap(other) < 1.0, "{area:?} hides {other:?}");
            }
        }
    }

    #[test]
    fn directions_are_those_of_a_map() {
        let layout = Layout::new(&sample::network());
        let at = |site: &str| layout.sites[&SiteId::new(site).unwrap()];
        assert!(at("taiyuan").y < at("linfen").y, "north is up");
        assert!(at("luliang").x < at("changzhi").x, "east is right");
    }

    #[test]
    fn sites_at_one_place_stay_on_the_drawing() {
        let mut text = sample::NETWORK.to_owned();
        for line in sample::NETWORK.lines().filter(|line| line.starts_with("latitude") || line.starts_with("longitude"))
        {
            let (field, _) = line.split_once('=').unwrap();
            text = text.replace(line, &format!("{field}= 0.0"));
        }
        let layout = Layout::new(&Network::parse(&text).unwrap());
        for point in layout.sites.values() {
            assert!(point.x.is_finite() && point.y.is_finite());
            assert!((0.0..=WIDTH).contains(&point.x) && (0.0..=layout.height).contains(&point.y));
        }
    }
}
