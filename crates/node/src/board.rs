//! The site's notice board: the newest state of everything, for reports and dashboards. Writers overwrite,
//! readers copy; nothing here decides anything.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use types::id::{LinkId, ModelId, SiteId, TerminalId};

use crate::report::{LinkReport, ModelReport, SiteReport, TerminalReport};

/// The board.
pub struct Board {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<LinkId, LinkReport>,
    models: BTreeMap<(ModelId, u64), ModelReport>,
    terminals: BTreeMap<(TerminalId, String), TerminalReport>,
    sites: BTreeMap<SiteId, SiteReport>,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Changes the state of one of this site's links.
    pub fn link(&self, link: &LinkId, change: impl FnOnce(&mut LinkReport)) {
        if let Some(report) = self.state().links.get_mut(link) {
            change(report);
        }
    }

    /// Puts a link of this site on the board.
    pub fn add_link(&self, report: LinkReport) {
        self.state().links.insert(report.link.clone(), report);
    }

    /// This site's links.
    #[must_use]
    pub fn links(&self) -> Vec<LinkReport> {
        self.state().links.values().cloned().collect()
    }

    /// Notes a model version at this site.
    pub fn add_model(&self, report: ModelReport) {
        self.state().models.insert((report.model.clone(), report.version), report);
    }

    /// This site's model versions.
    #[must_use]
    pub fn models(&self) -> Vec<ModelReport> {
        self.state().models.values().cloned().collect()
    }

    /// Notes the state of a telecontrol session; at most [`TERMINALS_MAX`] are kept.
    pub fn add_terminal(&self, report: TerminalReport) {
        let mut state = self.state();
        let key = (report.terminal.clone(), report.end.clone());
        if state.terminals.len() < TERMINALS_MAX || state.terminals.contains_key(&key) {
            state.terminals.insert(key, report);
        }
    }

    /// Telecontrol sessions served here.
    #[must_use]
    pub fn terminals(&self) -> Vec<TerminalReport> {
        self.state().terminals.values().cloned().collect()
    }

    /// Pins up a site's newest report and wakes the dashboards.
    pub fn add_site(&self, report: SiteReport) {
        self.state().sites.insert(report.site.clone(), report);
        self.changed.send_modify(|count| *count += 1);
    }

    /// The newest report of every site that sent one.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteReport> {
        self.state().sites.values().cloned().collect()
    }

    /// Wakes up whenever a site's report was pinned up.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

const TERMINALS_MAX: usize = 1_000;
