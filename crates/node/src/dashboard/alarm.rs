//! What needs somebody's attention, worst first, in one sentence each.

use super::figures::{grouped, percent, shortened, span};
use super::view::{Age, LinkState, LinkView, Protection, QBER_LIMIT, QberGrade, View};

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alarm {
    /// How bad.
    pub(super) severity: Severity,
    /// What it is about.
    pub(super) subject: String,
    /// What is the matter.
    pub(super) text: String,
}

/// How bad, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Something does not work.
    Fault,
    /// Something is worse than it should be.
    Warning,
    /// Worth knowing.
    Notice,
}

impl Severity {
    /// The word on the page, also its class.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// All alarms, worst first, in a stable order.
pub(super) fn alarms(view: &View<'_>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    sites(view, &mut alarms);
    for link in view.links() {
        links(view, &link, &mut alarms);
    }
    pairs(view, &mut alarms);
    models(view, &mut alarms);
    sessions(view, &mut alarms);
    alarms.sort();
    alarms
}

fn sites(view: &View<'_>, alarms: &mut Vec<Alarm>) {
    for site in view.network.sites().values() {
        if view.report(&site.id).is_none() {
            alarms.push(Alarm::new(Severity::Warning, &site.name, "has not reported yet"));
        }
    }
    for report in view.reports() {
        let name = view.name(&report.site);
        match view.age(report) {
            Age::Fresh(_) => {}
            // The age itself stands in the table of sites: here it would change, and be read out, every second.
            Age::Stale(_) => {
                alarms.push(Alarm::new(Severity::Fault, name, "has stopped reporting; its figures are stale"))
            }
            Age::Ahead(seconds) => {
                let text = format!("has a clock more than {} ahead of this machine's", span(seconds / 10 * 10));
                alarms.push(Alarm::new(Severity::Warning, name, text));
            }
        }
    }
}

fn links(view: &View<'_>, link: &LinkView<'_>, alarms: &mut Vec<Alarm>) {
    let name = format!("{} – {}", view.name(&link.link.alice), view.name(&link.link.bob));
    match link.state() {
        LinkState::Down => alarms.push(Alarm::new(Severity::Fault, &name, "classical channel is down")),
        LinkState::Dark => alarms.push(Alarm::new(Severity::Warning, &name, "quantum channel is not lit")),
        LinkState::Working | LinkState::Unknown => {}
    }
    // The figure itself stands in the table of links, for the same reason as a site's age.
    let limit = percent(QBER_LIMIT);
    match link.qber().map(QberGrade::of) {
        Some(QberGrade::Near) => {
            alarms.push(Alarm::new(Severity::Warning, &name, format!("QBER is near the limit of {limit}")));
        }
        Some(QberGrade::Above) => {
            alarms.push(Alarm::new(Severity::Fault, &name, format!("QBER is above the limit of {limit}")));
        }
        Some(QberGrade::Good) | None => {}
    }
    if let Some(suspicion) = link.last_alarm() {
        let text = format!("looks attacked: {}", shortened(suspicion, CAUSE_CHARS_MAX));
        alarms.push(Alarm::new(Severity::Fault, &name, text));
    }
    if let (Some(aborted @ 1..), Some(cause)) = (link.aborted(), link.last_abort()) {
        let blocks = if aborted == 1 { "block" } else { "blocks" };
        let text = format!("gave up {} {blocks}; last cause: {}", grouped(aborted), shortened(cause, CAUSE_CHARS_MAX));
        alarms.push(Alarm::new(Severity::Notice, &name, text));
    }
}

fn pairs(view: &View<'_>, alarms: &mut Vec<Alarm>) {
    let pairs = view.pairs();
    let directions: Vec<_> = pairs.iter().flat_map(|pair| [pair.from_a, pair.from_b]).flatten().collect();
    let empty = directions.iter().filter(|pair| pair.ready == 0).count();
    let low_water = u64::from(view.network.stock().low_water_keys);
    let low = directions.iter().filter(|pair| (1..low_water).contains(&pair.ready)).count();
    let all = directions.len();
    if empty > 0 {
        alarms.push(Alarm::new(Severity::Warning, "End-to-end key", format!("{empty} of {all} directions have none")));
    }
    if low > 0 {
        let text = format!("{low} of {all} directions are below the low-water mark of {low_water} keys");
        alarms.push(Alarm::new(Severity::Warning, "End-to-end key", text));
    }
}

fn models(view: &View<'_>, alarms: &mut Vec<Alarm>) {
    for model in view.models().iter().filter(|model| model.disputed) {
        let subject = format!("{} version {}", model.model, model.version);
        let sites: Vec<_> = model.published.iter().chain(&model.fetched).map(|site| view.name(site)).collect();
        let manifest = shortened(model.manifest, DIGEST_CHARS_MAX);
        let text = format!("has more than one manifest: {manifest} at {}", sites.join(", "));
        alarms.push(Alarm::new(Severity::Fault, subject, text));
    }
}

fn sessions(view: &View<'_>, alarms: &mut Vec<Alarm>) {
    for (_, session) in view.sessions() {
        let end = shortened(&session.end, END_CHARS_MAX);
        let level = shortened(&session.level, LEVEL_CHARS_MAX);
        let severity = match Protection::of(&session.level) {
            Protection::InformationTheoretic => continue,
            Protection::Mixed | Protection::Idle => Severity::Notice,
            Protection::Computational | Protection::Unrated => Severity::Warning,
        };
        let text = match Protection::of(&session.level) {
            Protection::Idle => format!("{end} has no session"),
            protection => format!("{end} sends at level {level}: {}", protection.words()),
        };
        alarms.push(Alarm::new(severity, session.terminal.as_str(), text));
    }
}

impl Alarm {
    fn new(severity: Severity, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity, subject: subject.into(), text: text.into() }
    }
}

/// Longest text of an abort's cause that is shown.
pub(super) const CAUSE_CHARS_MAX: usize = 160;
/// Longest start of a digest that is shown.
pub(super) const DIGEST_CHARS_MAX: usize = 16;
/// Longest name of a session's end that is shown.
pub(super) const END_CHARS_MAX: usize = 16;
/// Longest name of a protection level that is shown.
pub(super) const LEVEL_CHARS_MAX: usize = 24;
