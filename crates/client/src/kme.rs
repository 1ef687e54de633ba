//! The client itself: one SAE's view of the KME that serves it.

use etsi::etsi014::{Call, ErrorBody, Extension, KeyIds, KeyRequest, Resource, Status, SuppliedKey, read_container};
use hyper::Method;
use types::id::{KeyId, SaeId};

use crate::connection::{Answer, Connections, Server, Timeouts};
use crate::credentials::Credentials;
use crate::error::{Error, Refused};

/// A client of one KME. Calls may run at the same time; each uses a connection of its own.
pub struct Kme {
    pub(crate) connections: Connections,
}

impl Kme {
    /// A client that connects at its first call. A host name is looked up at every connection.
    ///
    /// # Errors
    /// If the host is neither a name nor an address.
    pub fn new(server: Server, credentials: &Credentials) -> Result<Self, Error> {
        Ok(Self { connections: Connections::new(server, credentials.tls.clone())? })
    }

    /// The same client with other time-outs.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.connections.timeouts = timeouts;
        self
    }

    /// Where the KME is.
    #[must_use]
    pub fn server(&self) -> &Server {
        self.connections.server()
    }

    /// Get status (ETSI GS QKD 014, 5.3): what is in stock for a slave SAE.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses.
    pub async fn status(&self, slave: &SaeId) -> Result<Status, Error> {
        let path = Resource::path(Call::Status, slave);
        let answer = self.call(Call::Status, Method::GET, &path, Vec::new()).await?;
        serde_json::from_slice(&answer.body).map_err(|error| self.protocol(format!("status is malformed: {error}")))
    }

    /// Get key (5.4): `number` fresh keys of `size_bits` to share with a slave SAE.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses; a refusal consumes nothing. Keys whose answer is lost are lost.
    pub async fn encrypt(&self, slave: &SaeId, number: u32, size_bits: u32) -> Result<Vec<SuppliedKey>, Error> {
        let request = KeyRequest { number, size: Some(size_bits), ..KeyRequest::default() };
        self.encrypt_with(slave, &request, &[], &[]).await
    }

    /// As [`Kme::encrypt`] with all that a request can hold: further slaves, our extensions, and in the two lists
    /// extensions of other makers.
    ///
    /// # Errors
    /// As [`Kme::encrypt`].
    pub async fn encrypt_with(
        &self,
        slave: &SaeId,
        request: &KeyRequest,
        mandatory: &[Extension],
        optional: &[Extension],
    ) -> Result<Vec<SuppliedKey>, Error> {
        let keys = self.keys(Call::EncKeys, slave, request.write(mandatory, optional)).await?;
        let size = request.size.map(|bits| usize::try_from(bits / 8).unwrap_or(usize::MAX));
        let wrong_size = size.is_some_and(|size| keys.iter().any(|key| key.key.len() != size));
        if u32::try_from(keys.len()).ok() != Some(request.number) || wrong_size {
            return Err(self.protocol("other keys came than were asked for".to_owned()));
        }
        Ok(keys)
    }

    /// Get key with key IDs (5.5): one key that a master SAE took, by its id. It can be collected once.
    ///
    /// # Errors
    /// As [`Kme::decrypt_all`].
    pub async fn decrypt(&self, master: &SaeId, id: KeyId) -> Result<SuppliedKey, Error> {
        let mut keys = self.decrypt_all(master, &[id]).await?;
        keys.pop().ok_or_else(|| self.protocol("no key came".to_owned()))
    }

    /// Get key with key IDs (5.5): all of these or none, in the order of the ids. Each can be collected once.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses; a refusal consumes nothing.
    pub async fn decrypt_all(&self, master: &SaeId, ids: &[KeyId]) -> Result<Vec<SuppliedKey>, Error> {
        let mut keys = self.keys(Call::DecKeys, master, KeyIds(ids.to_vec()).write()).await?;
        let mut ordered = Vec::with_capacity(ids.len());
        for id in ids {
            let at = keys.iter().position(|key| key.id == *id);
            let at = at.ok_or_else(|| self.protocol(format!("key {id} is not among the keys that came")))?;
            ordered.push(keys.swap_remove(at));
        }
        Ok(ordered)
    }

    async fn keys(&self, call: Call, sae: &SaeId, body: Vec<u8>) -> Result<Vec<SuppliedKey>, Error> {
        let path = Resource::path(call, sae);
        let answer = self.call(call, Method::POST, &path, body).await?;
        read_container(&answer.body).map_err(|bad| self.protocol(bad.detail))
    }

    async fn call(&self, call: Call, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, Error> {
        let answer = self.connections.exchange(method, path, body, call == Call::Status).await?;
        self.accepted(Some(call), path, answer)
    }

    /// The answer if it is 200.
    pub(crate) fn accepted(&self, call: Option<Call>, path: &str, answer: Answer) -> Result<Answer, Error> {
        if answer.status == 200 {
            return Ok(answer);
        }
        let body = ErrorBody::read(&answer.body).unwrap_or_default();
        let refused = Refused { server: self.server().to_string(), path: path.to_owned(), status: answer.status, body };
        Err(Error::of_answer(call, answer.retry_after, refused))
    }

    pub(crate) fn protocol(&self, what: String) -> Error {
        Error::Protocol { server: self.server().to_string(), what }
    }
}
