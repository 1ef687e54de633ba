//! What the stocks of all pairs do, asked of the core at most once a second however many clients want to know.

use std::time::{Duration, Instant};

use etsi::etsi014::StatusExtension;
use kms::{PAIR_KEY_BYTES, PairFlow, PairStatus};
use tokio::sync::Mutex;

use crate::keeper::Keeper;

/// The last answer of the core.
#[derive(Default)]
pub(super) struct Flows(Mutex<Option<(Instant, Vec<PairFlow>)>>);

impl Flows {
    /// What the stock behind a status does, in keys of the default size; `None` if both SAEs are of one site.
    pub(super) async fn of(&self, keeper: &Keeper, status: &PairStatus) -> Option<StatusExtension> {
        let mut last = self.0.lock().await;
        if last.as_ref().is_none_or(|(asked, _)| asked.elapsed() > KEPT) {
            *last = Some((Instant::now(), keeper.flows().await?));
        }
        let (_, flows) = last.as_ref()?;
        let flow = flows.iter().find(|flow| flow.peer == status.target_kme)?;
        let bits = f64::from(u32::try_from(PAIR_KEY_BYTES * 8).unwrap_or(u32::MAX));
        Some(StatusExtension {
            keys_per_second: Some(flow.made_per_second * bits / f64::from(status.key_size)),
            seconds_to_empty: flow.time_to_empty.map(|left| left.as_secs_f64()),
        })
    }
}

const KEPT: Duration = Duration::from_secs(1);
