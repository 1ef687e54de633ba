//! The other bridge, through the KMEs: key-id notifications whose note is the bridge's name and a verb. Who speaks stands
//! in the certificate that its KME checked; only an SAE that holds the key can speak of it.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Error, Kme, Notices};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::id::{KeyId, SaeId};

use super::config::BridgeConfig;
use super::rotation::Verb;
use crate::config::SaeConfig;
use crate::failure::Outcome;

/// Speaks to the other bridge.
pub(super) struct Channel {
    sae: SaeConfig,
    peer: SaeId,
    name: String,
    kme: Kme,
}

/// What comes from the other bridge.
#[derive(Debug)]
pub(super) enum Heard {
    /// It said something of a key.
    Said(Verb, KeyId),
    /// Notifications may be missing.
    Gap,
    /// Nothing can be heard, and why.
    Deaf(String),
}

impl Channel {
    pub(super) fn open(sae: &SaeConfig, bridge: &BridgeConfig) -> Outcome<Self> {
        let kme = crate::sae::client(sae)?;
        Ok(Self { sae: sae.clone(), peer: bridge.peer.clone(), name: bridge.name.clone(), kme })
    }

    /// Says something of a key; returns when the other SAE's KME keeps it.
    pub(super) async fn tell(&self, verb: Verb, id: KeyId) -> Outcome<()> {
        Ok(self.kme.notify(&self.peer, &[id], &format!("{} {}", self.name, verb.text())).await?)
    }

    /// Hears what the other bridge says, over a connection of its own.
    pub(super) fn listener(&self) -> Outcome<Listener> {
        let (peer, name) = (self.peer.clone(), self.name.clone());
        Ok(Listener { peer, name, kme: crate::sae::client(&self.sae)?, cursor: None, sequences: BTreeMap::new() })
    }
}

/// Hears what the other bridge says.
pub(super) struct Listener {
    peer: SaeId,
    name: String,
    kme: Kme,
    /// `None` until the first answer: what was said before this end started is old.
    cursor: Option<u64>,
    sequences: BTreeMap<SaeId, u64>,
}

impl Listener {
    pub(super) async fn run(mut self, heard: mpsc::Sender<Heard>, stop: CancellationToken) {
        let mut deaf = false;
        loop {
            let page = tokio::select! {
                page = self.read() => page,
                () = stop.cancelled() => return,
            };
            let said = match page {
                Ok(page) => {
                    deaf = false;
                    self.take(page)
                }
                // Said once, until something is heard again.
                Err(failure) => {
                    let first = !std::mem::replace(&mut deaf, true);
                    sleep(RETRY_AFTER).await;
                    if first { vec![Heard::Deaf(failure.to_string())] } else { Vec::new() }
                }
            };
            for each in said {
                if heard.send(each).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn read(&self) -> Result<Notices, Error> {
        self.kme.notices(self.cursor, WAIT).await
    }

    fn take(&mut self, page: Notices) -> Vec<Heard> {
        let started = self.cursor.is_some();
        self.cursor = Some(page.next);
        let mut said = Vec::new();
        let mut gap = page.gap;
        for notification in page.notifications {
            let before = self.sequences.insert(notification.from.clone(), notification.sequence);
            gap |= before.is_some_and(|before| before + 1 != notification.sequence);
            if notification.from == self.peer && started {
                let verb = notification.note.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix(' '));
                let verb = verb.and_then(Verb::parse);
                said.extend(verb.zip(notification.keys.first()).map(|(verb, key)| Heard::Said(verb, key.id)));
            }
        }
        if gap && started {
            said.insert(0, Heard::Gap);
        }
        said
    }
}

/// How long one poll waits; below the client's own limit.
const WAIT: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_secs(1);
