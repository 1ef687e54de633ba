//! What processes of a site tell it beside the standard: events for its audit log, states for its dashboard.

use hyper::Method;
use types::event::Event;

use crate::error::Error;
use crate::kme::Kme;

impl Kme {
    /// Hands an event of this SAE to the audit log of a site of this project; returns when it is durable.
    ///
    /// # Errors
    /// If the site cannot be reached or does not take this event from this SAE.
    pub async fn report(&self, event: &Event) -> Result<(), Error> {
        let body = serde_json::to_vec(event);
        let body = body.map_err(|error| Error::Setup { what: "event".to_owned(), source: Some(error.into()) })?;
        self.post("/qurrent/v1/events", body).await
    }

    /// Hands the state of a telecontrol session to the dashboard of a site of this project.
    ///
    /// # Errors
    /// If the site cannot be reached or refuses.
    pub async fn report_terminal(&self, state: &serde_json::Value) -> Result<(), Error> {
        self.post("/qurrent/v1/terminals", state.to_string().into_bytes()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Result<(), Error> {
        let answer = self.connections.exchange(Method::POST, path, body, false).await?;
        self.accepted(None, path, answer).map(drop)
    }
}
