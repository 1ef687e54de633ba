//! The story: what the demo does, step by step, and what each step measured.

mod attack;
mod keys;
mod model;
mod network;
mod telecontrol;
mod trail;

use std::path::PathBuf;
use std::time::Instant;

use indicatif::ProgressBar;
use optics::Attack;
use serde::Serialize;
use types::id::LinkId;
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
    /// Eavesdroppers that the user wants to see, by link.
    pub attacks: Vec<(LinkId, Attack)>,
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
        self.step("sites start", network::sites_up).await?;
        self.step("quantum links make key", network::links_make_key).await?;
        self.step("end-to-end keys by relay", network::pairs_fill).await?;
        self.step("key supply (ETSI GS QKD 014)", keys::supply).await?;
        let published = self.step("model published", model::publish).await?;
        self.step("model fetched", async |stage: &mut Self| model::fetch(stage, &published).await).await?;
        self.step("telecontrol protected", telecontrol::protect).await?;
        if !self.attacks.is_empty() {
            self.step("eavesdroppers noticed", attack::notice).await?;
        }
        self.step("audit trail verified", trail::verify).await
    }

    /// Does one step, notes how it ended, and hands on what it made.
    async fn step<T>(
        &mut self,
        step: &'static str,
        act: impl AsyncFnOnce(&mut Self) -> Outcome<(String, T)>,
    ) -> Outcome<T> {
        self.progress.set_message(step);
        let begun = Instant::now();
        let result = act(self).await;
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
