//! Key ids that SAEs tell each other through the KMEs of this project (`docs/formats/notice.md`).

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use types::id::{KeyId, SaeId};

use crate::error::Error;
use crate::kme::Kme;

/// What other SAEs told this one.
#[derive(Clone, Debug, Deserialize)]
pub struct Notices {
    /// In the order in which they came.
    pub notifications: Vec<Notice>,
    /// Where to go on reading.
    pub next: u64,
    /// Whether some were lost before the first of these.
    pub gap: bool,
}

/// One notification.
#[derive(Clone, Debug, Deserialize)]
pub struct Notice {
    /// Who said it, as its certificate names it.
    #[serde(rename = "from_SAE_ID")]
    pub from: SaeId,
    /// Counts up by one for each notification of this SAE to the reader.
    pub sequence: u64,
    /// The keys that it speaks of.
    #[serde(rename = "key_IDs")]
    pub keys: Vec<NoticedKey>,
    /// What it says of them.
    pub note: String,
}

/// A key in a notification: its id alone.
#[derive(Clone, Debug, Deserialize)]
pub struct NoticedKey {
    /// The id.
    #[serde(rename = "key_ID")]
    pub id: KeyId,
}

impl Kme {
    /// Tells another SAE the ids of keys that both hold; returns when its KME keeps them.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses.
    pub async fn notify(&self, slave: &SaeId, ids: &[KeyId], note: &str) -> Result<(), Error> {
        let path = format!("/qurrent/v1/notify/{}", etsi::etsi014::encode_segment(slave.as_str()));
        let ids: Vec<_> = ids.iter().map(|id| serde_json::json!({ "key_ID": id })).collect();
        let body = serde_json::json!({ "key_IDs": ids, "note": note });
        self.post(&path, body.to_string().into_bytes()).await
    }

    /// Reads what other SAEs told this one from a place on, waiting so long for something to come; without a place
    /// it only says where reading begins.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses.
    pub async fn notices(&self, from: Option<u64>, wait: Duration) -> Result<Notices, Error> {
        let path = match from {
            Some(from) => format!("/qurrent/v1/notifications?from={from}&wait={}", wait.as_secs()),
            None => "/qurrent/v1/notifications?wait=0".to_owned(),
        };
        let answer = self.connections.exchange(Method::GET, &path, Vec::new(), true).await?;
        let answer = self.accepted(None, &path, answer)?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.protocol(format!("notifications are malformed: {error}")))
    }
}
