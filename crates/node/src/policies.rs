//! What SAEs may draw, from `[policy]` of `node.toml` to the core: at the start, and whenever the file changes.
//!
//! Of a changed file only `[policy]` takes effect at once. A file that is wrong leaves everything as it is, with a
//! warning that names the line.

use crypto::hash::sha256;
use kms::Input;
use tokio_util::sync::CancellationToken;
use types::event::Event;

use crate::config::NodeConfig;
use crate::failure::{Context as _, Outcome};
use crate::fresh::{Seen, Watch};
use crate::keeper::Keeper;

/// What the core is told.
///
/// # Errors
/// If a policy names no SAE of the site.
pub fn inputs(config: &NodeConfig) -> Outcome<[Input; 2]> {
    let saes = config.policy.of_site(&config.site, &config.sae)?;
    let standard = || kms::Config::new(config.site.clone()).reserve_percent;
    let reserve = config.policy.reserve_percent().unwrap_or_else(standard);
    Ok([Input::Saes(saes), Input::Reserves(reserve)])
}

/// Hands changed policies to the core until the token is cancelled.
pub async fn keep_fresh(mut config: NodeConfig, keeper: Keeper, stop: CancellationToken) {
    let mut watch = Watch::new(Seen::now([config.file.clone()]));
    loop {
        // First without waiting: the site may have waited for its store since it read the file.
        let read = NodeConfig::read(&config.file);
        match read.and_then(|fresh| Ok((inputs(&fresh)?, changed(&fresh)?, fresh))) {
            Ok((_, _, fresh)) if fresh.policy == config.policy => {}
            Ok((inputs, event, fresh)) => {
                for input in inputs {
                    let _stopping = keeper.input(input).await;
                }
                let _stopping = keeper.record(vec![event]).await;
                tracing::info!(saes = fresh.policy.sae.len(), "what SAEs may draw was changed");
                config = fresh;
            }
            Err(failure) => {
                tracing::warn!(%failure, "what SAEs may draw was not changed; the policies from before stay in force");
            }
        }
        tokio::select! {
            () = watch.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}

fn changed(config: &NodeConfig) -> Outcome<Event> {
    let text = toml::to_string(&config.policy).context(|| "policies".to_owned())?;
    let policies_sha256 = hex::encode(sha256(text.as_bytes()));
    Ok(Event::PoliciesChanged { saes: config.policy.sae.len() as u64, policies_sha256 })
}
