//! The clean stop: SIGTERM or Ctrl-C cancels one token, and everything that runs listens to it.

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Context as _, Outcome};

/// A token that SIGTERM and SIGINT cancel.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn on_signal() -> Outcome<CancellationToken> {
    let what = || "cannot listen for signals".to_owned();
    let mut term = signal(SignalKind::terminate()).context(what)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(what)?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
        }
        cancel.cancel();
    });
    Ok(token)
}

/// Cancels a token when standard input ends, for processes whose supervisor may die itself.
pub fn with_stdin(stop: &CancellationToken) {
    let cancel = stop.clone();
    tokio::spawn(async move {
        let mut rest = Vec::new();
        drop(tokio::io::stdin().read_to_end(&mut rest).await);
        cancel.cancel();
    });
}
