//! The story: what the demo does, step by step, and what each step measured.

mod keys;
mod model;
mod network;
mod telecontrol;
mod trail;

use std::path::PathBuf;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::Serialize;
use types::network::Network;

use super::observer::Observer;
use super::processes::Processes;
use crate::failure::Outcome;
use crate::provision::Layout;

/// One step of the story, told.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// What was done.
    pub step: &'static str,
    /// What came of it, with measured figures.
    pub result: String,
    /// Whether everything was as it should be.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
}

/// What the steps share.
pub struct Stage {
    /// The folder.
    pub layout: Layout,
    /// The network.
    pub network: Network,
    /// The processes.
    pub processes: Processes,
    /// The network's state.
    pub observer: Observer,
    /// Model file that the user named.
    pub model: Option<PathBuf>,
    /// Simulated seconds per second.
    pub time_scale: f64,
    /// Whether the folder was there before.
    pub resumed: bool,
    /// What was told so far.
    pub told: Vec<Told>,
    /// Where progress is shown.
    pub progress: ProgressBar,
}

impl Stage {
    /// Tells the whole story; stops at the first step that fails.
    ///
    /// # Errors
    /// What the failed step says. What was told before stays in [`Stage::told`].
    pub async fn tell(&mut self) -> Outcome<()> {
        let begun = self.begin("sites start");
        let result = network::sites_up(self).await;
        self.end(begun, "sites start", result)?;
        let begun = self.begin("quantum links make key");
        let result = network::links_make_key(self).await;
        self.end(begun, "quantum links make key", result)?;
        let begun = self.begin("end-to-end keys by relay");
        let result = network::pairs_fill(self).await;
        self.end(begun, "end-to-end keys by relay", result)?;
        let begun = self.begin("key supply (ETSI GS QKD 014)");
        let result = keys::supply(self).await;
        self.end(begun, "key supply (ETSI GS QKD 014)", result)?;
        let begun = self.begin("model published");
        let result = model::publish(self).await;
        let published = self.end(begun, "model published", result)?;
        let begun = self.begin("model fetched");
        let result = model::fetch(self, &published).await;
        self.end(begun, "model fetched", result)?;
        let begun = self.begin("telecontrol protected");
        let result = telecontrol::protect(self).await;
        self.end(begun, "telecontrol protected", result)?;
        let begun = self.begin("audit trail verified");
        let result = trail::verify(self).await;
        self.end(begun, "audit trail verified", result)
    }

    fn begin(&self, step: &'static str) -> Instant {
        self.progress.set_message(step);
        Instant::now()
    }

    /// Notes how a step ended and hands on what it made.
    fn end<T>(&mut self, begun: Instant, step: &'static str, result: Outcome<(String, T)>) -> Outcome<T> {
        let seconds = begun.elapsed().as_secs_f64();
        let (ok, text, made) = match result {
            Ok((text, made)) => (true, text, Ok(made)),
            Err(failure) => (false, failure.to_string(), Err(failure)),
        };
        if !self.progress.is_hidden() {
            let line = format!("{} {step}: {text} ({seconds:.1} s)", if ok { "✓" } else { "✗" });
            self.progress.suspend(|| drop(crate::commands::say(&line)));
        }
        self.told.push(Told { step, result: text, ok, seconds });
        made
    }
}
