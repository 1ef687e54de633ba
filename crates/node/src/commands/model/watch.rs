//! Watching a publish or fetch: a bar on a terminal, a line for each stage otherwise; events go to the site's log.

use std::io::{IsTerminal as _, Write as _};

use client::Kme;
use futures_util::future::BoxFuture;
use indicatif::{ProgressBar, ProgressStyle};
use types::event::Event;
use vault::{AuditError, Observer, Progress, Stage};

/// Shows progress on standard error and reports events.
pub struct Watch<'a> {
    client: Option<&'a Kme>,
    what: String,
    stage: Option<Stage>,
    bar: Option<ProgressBar>,
}

impl<'a> Watch<'a> {
    /// Watches `what`; events go to `client`, if there is one.
    #[must_use]
    pub fn new(what: String, client: Option<&'a Kme>) -> Self {
        Self { client, what, stage: None, bar: None }
    }

    fn begin(&mut self, progress: Progress) {
        self.end();
        self.stage = Some(progress.stage);
        let verb = match progress.stage {
            Stage::Sealing => "sealing",
            Stage::Wrapping => "wrapping keys of",
            Stage::Opening => "opening",
            Stage::Verifying => "verifying",
        };
        if !std::io::stderr().is_terminal() {
            // Standard error may be closed; that must not stop the work.
            drop(writeln!(std::io::stderr().lock(), "{verb} {}", self.what));
            return;
        }
        let unit = match progress.stage {
            Stage::Wrapping => "{msg} {bar:32} {pos}/{len} sites",
            _ => "{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        };
        let style = ProgressStyle::with_template(unit).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(progress.total).with_style(style);
        self.bar = Some(bar.with_message(format!("{verb} {}", self.what)));
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: Progress) {
        if self.stage != Some(progress.stage) {
            self.begin(progress);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(progress.done);
        }
    }

    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), AuditError>> {
        Box::pin(async move {
            match self.client {
                Some(client) => client.report(&event).await.map_err(AuditError::from),
                None => Ok(()),
            }
        })
    }
}
