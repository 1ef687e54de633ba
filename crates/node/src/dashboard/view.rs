//! One look at the network: its description, the newest report of every site, and the time. Joins what the two
//! ends of a link and of a pair say, and says how old it is.

use std::collections::{BTreeMap, BTreeSet};

use gateway::Level;
use types::id::{ModelId, SiteId, TerminalId};
use types::network::{Link, Network};
use types::units::UtcNanos;

use crate::report::{AuditLine, LinkReport, PairReport, SiteReport, TerminalReport};

/// The look.
pub(super) struct View<'a> {
    /// The network's description.
    pub(super) network: &'a Network,
    /// When the look was taken.
    pub(super) now: UtcNanos,
    reports: BTreeMap<&'a SiteId, &'a SiteReport>,
}

/// How old a report is, by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Young enough, with its age in seconds.
    Fresh(u64),
    /// Older than [`STALE_SECONDS`].
    Stale(u64),
    /// Made that many seconds in the future: one of the two clocks is wrong.
    Ahead(u64),
}

/// Both ends of one link.
pub(super) struct LinkView<'a> {
    /// The link's description.
    pub(super) link: &'a Link,
    alice: Option<End<'a>>,
    bob: Option<End<'a>>,
}

/// What one end says.
#[derive(Clone, Copy)]
struct End<'a> {
    report: &'a LinkReport,
    fresh: bool,
}

/// State of a link as both ends tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Both channels work.
    Working,
    /// The classical channel is up, the quantum channel is not lit.
    Dark,
    /// An end says that the classical channel is down.
    Down,
    /// No end has a fresh report.
    Unknown,
}

/// How an error rate is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QberGrade {
    /// Well below the limit.
    Good,
    /// Near the limit of one-way post-processing.
    Near,
    /// Above the limit.
    Above,
}

/// Both directions of the end-to-end stock of two sites.
pub(super) struct PairView<'a> {
    /// The site first in order.
    pub(super) a: &'a SiteId,
    /// The other one.
    pub(super) b: &'a SiteId,
    /// What `a` owns towards `b`.
    pub(super) from_a: Option<&'a PairReport>,
    /// What `b` owns towards `a`.
    pub(super) from_b: Option<&'a PairReport>,
}

/// One manifest of one model version and the sites that report it.
pub(super) struct ModelView<'a> {
    /// The model.
    pub(super) model: &'a ModelId,
    /// Its version.
    pub(super) version: u64,
    /// Start of the manifest's digest.
    pub(super) manifest: &'a str,
    /// Plaintext bytes.
    pub(super) bytes: u64,
    /// Sites that published it.
    pub(super) published: Vec<&'a SiteId>,
    /// Sites that fetched it.
    pub(super) fetched: Vec<&'a SiteId>,
    /// Whether another manifest claims the same version.
    pub(super) disputed: bool,
}

/// What protects the frames that one end of a session sends, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protection {
    /// One-time pad and Wegman-Carter tags for all but keep-alive frames.
    InformationTheoretic,
    /// One-time pad for some classes of frames, a cipher for the others.
    Mixed,
    /// A cipher for all: rests on a computational assumption.
    Computational,
    /// No session is open.
    Idle,
    /// A level that this page does not know; nothing is claimed for it.
    Unrated,
}

impl<'a> View<'a> {
    /// A look at these reports.
    pub(super) fn new(network: &'a Network, reports: &'a [SiteReport], now: UtcNanos) -> Self {
        Self { network, now, reports: reports.iter().map(|report| (&report.site, report)).collect() }
    }

    /// All reports by site.
    pub(super) fn reports(&self) -> impl Iterator<Item = &'a SiteReport> {
        self.reports.values().copied()
    }

    /// The newest report of a site.
    pub(super) fn report(&self, site: &SiteId) -> Option<&'a SiteReport> {
        self.reports.get(site).copied()
    }

    /// How old a report is.
    pub(super) fn age(&self, report: &SiteReport) -> Age {
        let since = self.now.0.saturating_sub(report.made.0) / NANOS_PER_SECOND;
        let ahead = report.made.0.saturating_sub(self.now.0) / NANOS_PER_SECOND;
        match (since, ahead) {
            (_, ahead) if ahead > STALE_SECONDS => Age::Ahead(ahead),
            (since, _) if since > STALE_SECONDS => Age::Stale(since),
            (since, _) => Age::Fresh(since),
        }
    }

    /// Name of a site or dispatch centre for people; the id when the network file does not know it.
    pub(super) fn name(&self, site: &'a SiteId) -> &'a str {
        let centre = || self.network.centres().iter().find(|centre| centre.id == *site).map(|centre| &centre.name);
        let name = self.network.sites().get(site).map(|site| &site.name).or_else(centre);
        name.map_or(site.as_str(), String::as_str)
    }

    /// Sites of the network with a report that is neither stale nor ahead.
    pub(super) fn sites_reporting(&self) -> usize {
        self.network.sites().keys().filter(|site| self.fresh(site)).count()
    }

    /// Every link of the network.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkView<'a>> {
        self.network.links().values().map(|link| LinkView {
            link,
            alice: self.end(link, &link.alice),
            bob: self.end(link, &link.bob),
        })
    }

    fn end(&self, link: &Link, site: &SiteId) -> Option<End<'a>> {
        let site = self.report(site)?;
        let report = site.links.iter().find(|end| end.link == link.id)?;
        Some(End { report, fresh: matches!(self.age(site), Age::Fresh(_)) })
    }

    fn fresh(&self, site: &SiteId) -> bool {
        self.report(site).is_some_and(|report| matches!(self.age(report), Age::Fresh(_)))
    }

    /// Every pair of sites that some site reports, at most [`PAIRS_MAX`].
    pub(super) fn pairs(&self) -> Vec<PairView<'a>> {
        let owned = |owner: &SiteId, peer: &SiteId| self.report(owner)?.pairs.iter().find(|pair| pair.peer == *peer);
        let named: BTreeSet<(&SiteId, &SiteId)> = self
            .reports()
            .flat_map(|report| report.pairs.iter().map(|pair| (&report.site, &pair.peer)))
            .map(|(owner, peer)| if owner <= peer { (owner, peer) } else { (peer, owner) })
            .take(2 * PAIRS_MAX)
            .collect();
        let joined = |(a, b)| PairView { a, b, from_a: owned(a, b), from_b: owned(b, a) };
        named.into_iter().take(PAIRS_MAX).map(joined).collect()
    }

    /// Model versions, newest version of a model first, at most [`MODELS_MAX`].
    pub(super) fn models(&self) -> Vec<ModelView<'a>> {
        let mut found: BTreeMap<_, ModelView<'a>> = BTreeMap::new();
        for report in self.reports() {
            for model in report.models.iter().take(MODELS_MAX) {
                let key = (&model.model, u64::MAX - model.version, model.manifest.as_str());
                let view = found.entry(key).or_insert_with(|| ModelView {
                    model: &model.model,
                    version: model.version,
                    manifest: &model.manifest,
                    bytes: model.bytes,
                    published: Vec::new(),
                    fetched: Vec::new(),
                    disputed: false,
                });
                if model.published { view.published.push(&report.site) } else { view.fetched.push(&report.site) }
            }
        }
        let mut models: Vec<_> = found.into_values().take(MODELS_MAX).collect();
        for at in 1..models.len() {
            if let [.., before, here] = &mut models[..=at]
                && (before.model, before.version) == (here.model, here.version)
            {
                (before.disputed, here.disputed) = (true, true);
            }
        }
        models
    }

    /// Telecontrol sessions with the site that reports them, at most [`TERMINALS_MAX`].
    pub(super) fn sessions(&self) -> Vec<(&'a SiteReport, &'a TerminalReport)> {
        let mut sessions: Vec<_> = self
            .reports()
            .flat_map(|report| report.terminals.iter().map(move |session| (report, session)))
            .take(TERMINALS_MAX)
            .collect();
        sessions.sort_by_key(|(report, session)| (&session.terminal, &session.end, &report.site));
        sessions
    }

    /// What a terminal's sessions are worth: the weakest of them; `None` without a session.
    pub(super) fn protection(&self, terminal: &TerminalId) -> Option<Protection> {
        self.reports()
            .flat_map(|report| &report.terminals)
            .filter(|session| session.terminal == *terminal)
            .map(|session| Protection::of(&session.level))
            .max()
    }

    /// Last audit entries of all sites, newest first, at most [`AUDIT_MAX`].
    pub(super) fn audit(&self) -> Vec<(&'a SiteId, &'a AuditLine)> {
        let mut lines: Vec<_> = self
            .reports()
            .flat_map(|report| report.audit.iter().take(AUDIT_MAX).map(move |line| (&report.site, line)))
            .collect();
        lines.sort_by(|(site_a, a), (site_b, b)| (b.time, site_a, b.seq).cmp(&(a.time, site_b, a.seq)));
        lines.truncate(AUDIT_MAX);
        lines
    }
}

impl<'a> LinkView<'a> {
    /// State as the ends with a fresh report tell it.
    pub(super) fn state(&self) -> LinkState {
        let mut fresh = self.ends().filter(|end| end.fresh).peekable();
        if fresh.peek().is_none() {
            return LinkState::Unknown;
        }
        let (up, lit) = fresh.fold((true, false), |(up, lit), end| (up && end.report.up, lit || end.report.lit));
        match (up, lit) {
            (false, _) => LinkState::Down,
            (true, false) => LinkState::Dark,
            (true, true) => LinkState::Working,
        }
    }

    /// Whether the figures come from a stale report.
    pub(super) fn is_stale(&self) -> bool {
        self.state() == LinkState::Unknown && self.ends().next().is_some()
    }

    /// Whether the light is on, as far as known.
    pub(super) fn lit(&self) -> Option<bool> {
        match self.state() {
            LinkState::Unknown => None,
            _ => Some(self.ends().any(|end| end.fresh && end.report.lit)),
        }
    }

    /// Error rate of the last block.
    pub(super) fn qber(&self) -> Option<f64> {
        self.ends().find_map(|end| end.report.qber).filter(|qber| qber.is_finite())
    }

    /// Secret bits per second of simulated time.
    pub(super) fn secret_bit_s(&self) -> Option<f64> {
        self.ends().find_map(|end| end.report.secret_bit_s).filter(|rate| rate.is_finite())
    }

    /// Simulated seconds per second.
    pub(super) fn time_scale(&self) -> Option<f64> {
        self.ends().find_map(|end| end.report.time_scale).filter(|scale| scale.is_finite())
    }

    /// Share of the block at work, 0 to 1.
    pub(super) fn progress(&self) -> Option<f64> {
        self.ends().map(|end| end.report.progress.clamp(0.0, 1.0)).reduce(f64::max)
    }

    /// Blocks filed.
    pub(super) fn blocks(&self) -> Option<u64> {
        self.ends().map(|end| end.report.blocks).max()
    }

    /// Blocks given up.
    pub(super) fn aborted(&self) -> Option<u64> {
        self.ends().map(|end| end.report.aborted).max()
    }

    /// Why the last block was given up.
    pub(super) fn last_abort(&self) -> Option<&'a str> {
        self.ends().find_map(|end| end.report.last_abort.as_deref())
    }

    /// What the link looks attacked by, until it gives key again.
    pub(super) fn last_alarm(&self) -> Option<&'a str> {
        self.ends().find_map(|end| end.report.last_alarm.as_deref())
    }

    /// Bits ready to carry from Alice to Bob: the sender's count, else the receiver's.
    pub(super) fn stock_to_bob_bits(&self) -> Option<u64> {
        let sender = self.alice.map(|end| end.report.stock_out_bits);
        sender.or_else(|| self.bob.map(|end| end.report.stock_in_bits))
    }

    /// Bits ready to carry from Bob to Alice.
    pub(super) fn stock_to_alice_bits(&self) -> Option<u64> {
        let sender = self.bob.map(|end| end.report.stock_out_bits);
        sender.or_else(|| self.alice.map(|end| end.report.stock_in_bits))
    }

    /// Ends with a report: fresh before stale, Bob (who sees the clicks) before Alice.
    fn ends(&self) -> impl Iterator<Item = End<'a>> {
        let pick = move |fresh| [self.bob, self.alice].into_iter().flatten().filter(move |end| end.fresh == fresh);
        pick(true).chain(pick(false))
    }
}

impl QberGrade {
    /// The grade of an error rate.
    pub(super) fn of(qber: f64) -> Self {
        match qber {
            qber if qber >= QBER_LIMIT => Self::Above,
            qber if qber >= QBER_NEAR => Self::Near,
            _ => Self::Good,
        }
    }
}

impl Protection {
    /// What a level's name stands for. Only names of the policy are claimed to be anything.
    pub(super) fn of(level: &str) -> Self {
        match Level::ALL.into_iter().find(|known| known.name() == level) {
            Some(Level::Otp) => Self::InformationTheoretic,
            Some(Level::Economy | Level::Commands) => Self::Mixed,
            Some(Level::Aead) => Self::Computational,
            None if level == "none" => Self::Idle,
            None => Self::Unrated,
        }
    }

    /// The classes of frames of a level that are under one-time pad, and those under a cipher.
    pub(super) fn classes(level: &str) -> (Option<&'static str>, Option<&'static str>) {
        match Level::ALL.into_iter().find(|known| known.name() == level) {
            Some(Level::Otp) => (Some("commands, interrogation, telemetry"), Some("keep-alive")),
            Some(Level::Economy) => (Some("commands, interrogation"), Some("telemetry, keep-alive")),
            Some(Level::Commands) => (Some("commands"), Some("all else")),
            Some(Level::Aead) => (None, Some("everything")),
            None => (None, None),
        }
    }

    /// The words on the page.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::InformationTheoretic => "information-theoretic",
            Self::Mixed => "partly information-theoretic",
            Self::Computational => "computational",
            Self::Idle => "no session",
            Self::Unrated => "not rated",
        }
    }

    /// Class of its mark.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::InformationTheoretic => "its",
            Self::Mixed => "mixed",
            Self::Computational => "comp",
            Self::Idle | Self::Unrated => "unrated",
        }
    }
}

/// A report older than this is stale.
pub(super) const STALE_SECONDS: u64 = 10;
/// Error rate above which one-way post-processing makes no key.
pub(super) const QBER_LIMIT: f64 = 0.11;
/// Rows of the pair table.
pub(super) const PAIRS_MAX: usize = 300;
/// Rows of the model table.
pub(super) const MODELS_MAX: usize = 200;
/// Rows of the session table.
pub(super) const TERMINALS_MAX: usize = 200;
/// Rows of the audit table.
pub(super) const AUDIT_MAX: usize = 40;

const QBER_NEAR: f64 = 0.08;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
