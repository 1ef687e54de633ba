//! Where the keys of a terminal come from: ordered at the gateway's KME, collected at the terminal's.

use std::future::Future;
use std::time::Duration;

use client::{Kme, SuppliedKey};
use tokio::time::{sleep, timeout};
use types::id::{KeyId, SaeId};

use crate::failure::{Context as _, Failure, Outcome};

/// Supplies keys that the other end collects under the same ids.
pub trait KeySupply: Send + Sync + 'static {
    /// Takes fresh keys to share with the other end (gateway).
    fn supply(&self, number: u32, size_bits: u32) -> impl Future<Output = Outcome<Vec<SuppliedKey>>> + Send;

    /// Collects keys that the other end took, in the order of the ids (terminal).
    fn collect(&self, ids: &[KeyId]) -> impl Future<Output = Outcome<Vec<SuppliedKey>>> + Send;
}

/// Keys from the SAE's key management entity (ETSI GS QKD 014).
pub struct KmeSupply {
    client: Kme,
    peer: SaeId,
}

impl KmeSupply {
    /// Keys shared with the other end's SAE.
    #[must_use]
    pub fn new(client: Kme, peer: SaeId) -> Self {
        Self { client, peer }
    }
}

impl KeySupply for KmeSupply {
    async fn supply(&self, number: u32, size_bits: u32) -> Outcome<Vec<SuppliedKey>> {
        let late = || "the key management entity does not answer".to_owned();
        Ok(timeout(ANSWER_TIMEOUT, self.client.encrypt(&self.peer, number, size_bits)).await.context(late)??)
    }

    async fn collect(&self, ids: &[KeyId]) -> Outcome<Vec<SuppliedKey>> {
        let mut failure = Failure::new("no key was asked for");
        for attempt in 0..ATTEMPTS {
            // The other end may be told of the keys before this end's KME is; a refusal consumes nothing.
            sleep(RETRY * attempt).await;
            let late = || "the key management entity does not answer".to_owned();
            match timeout(ANSWER_TIMEOUT, self.client.decrypt_all(&self.peer, ids)).await.context(late)? {
                Ok(keys) => return Ok(keys),
                Err(refused) => failure = refused.into(),
            }
        }
        Err(failure)
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 4;
const RETRY: Duration = Duration::from_millis(300);
