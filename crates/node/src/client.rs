//! Typed client of a key management entity: ETSI GS QKD 014 v1.1.1 and the site's own event intake.
//!
//! Source of paths, members and errors: ETSI GS QKD 014 V1.1.1, clauses 5 and 6.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crypto::secret::SecretBytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::event::Event;
use types::id::{KeyId, SaeId};
use zeroize::Zeroizing;

use crate::config::{DeviceConfig, HostPort, SaeConfig};
use crate::failure::{Context as _, Failure, Outcome};
use crate::http::HttpsClient;
use crate::tls;

/// One SAE's view of the KME that serves it.
pub struct KmeClient {
    sae: SaeId,
    https: HttpsClient,
}

/// A key and its id.
#[derive(Debug)]
pub struct SuppliedKey {
    /// The id; public.
    pub id: KeyId,
    /// The bits.
    pub key: SecretBytes,
}

/// Answer of `status` (ETSI GS QKD 014, clause 6.1).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// KME that serves the caller.
    #[serde(rename = "source_KME_ID")]
    pub source_kme_id: String,
    /// KME that serves the slave SAE.
    #[serde(rename = "target_KME_ID")]
    pub target_kme_id: String,
    /// The caller.
    #[serde(rename = "master_SAE_ID")]
    pub master_sae_id: String,
    /// The slave SAE.
    #[serde(rename = "slave_SAE_ID")]
    pub slave_sae_id: String,
    /// Default key size in bits.
    pub key_size: u64,
    /// Keys of the default size that can be supplied now.
    pub stored_key_count: u64,
    /// Most keys that can be stored.
    pub max_key_count: u64,
    /// Most keys in one request.
    pub max_key_per_request: u64,
    /// Largest key in bits.
    pub max_key_size: u64,
    /// Smallest key in bits.
    pub min_key_size: u64,
    /// Most additional slave SAEs in one request.
    #[serde(rename = "max_SAE_ID_count")]
    pub max_sae_id_count: u64,
}

impl KmeClient {
    /// A client with the SAE's certificate; connects at its first request.
    ///
    /// # Errors
    /// If a certificate or key file is missing or does not fit.
    pub fn open(config: &SaeConfig) -> Outcome<Self> {
        Ok(Self { sae: config.id.clone(), https: HttpsClient::new(config.kme, tls::client(&config.tls)?) })
    }

    /// A client of a QKD device of another maker. Which SAE it acts for stands in its certificate.
    ///
    /// # Errors
    /// If a certificate or key file is missing or does not fit.
    pub fn of_device(device: &DeviceConfig) -> Outcome<Self> {
        let sae = tls::own_sae(&device.tls)?;
        Ok(Self { sae, https: HttpsClient::named(device.kme.clone(), tls::client(&device.tls)?)? })
    }

    /// The SAE that this client acts for.
    #[must_use]
    pub fn sae(&self) -> &SaeId {
        &self.sae
    }

    /// Where the KME is.
    #[must_use]
    pub fn server(&self) -> &HostPort {
        self.https.server()
    }

    /// Asks what is in stock for a slave SAE.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses.
    pub async fn status(&self, slave: &SaeId) -> Outcome<Status> {
        self.call(Method::GET, &format!("/api/v1/keys/{}/status", encode(slave)), None).await
    }

    /// Takes `number` fresh keys of `size_bits` to share with a slave SAE.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses; a refusal consumes nothing.
    pub async fn encrypt_keys(&self, slave: &SaeId, number: u32, size_bits: u32) -> Outcome<Vec<SuppliedKey>> {
        let body = serde_json::json!({ "number": number, "size": size_bits }).to_string();
        self.keys(&format!("/api/v1/keys/{}/enc_keys", encode(slave)), body).await
    }

    /// Collects the keys that a master SAE took, by their ids. Each can be collected once.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses; a refusal consumes nothing.
    pub async fn decrypt_keys(&self, master: &SaeId, ids: &[KeyId]) -> Outcome<Vec<SuppliedKey>> {
        let (path, body) = decrypt_request(master, ids);
        self.keys(&path, body).await
    }

    /// As [`KmeClient::decrypt_keys`]; `None` if the KME says that it does not know the ids.
    ///
    /// # Errors
    /// If the KME cannot be reached or refuses for another reason.
    pub async fn decrypt_known_keys(&self, master: &SaeId, ids: &[KeyId]) -> Outcome<Option<Vec<SuppliedKey>>> {
        let (path, body) = decrypt_request(master, ids);
        let (status, answer) = self.https.request(Method::POST, &path, Some(body.into())).await?;
        // ETSI GS QKD 014, 5.5: unknown keys are a bad request; some makers say 404.
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        self.parse::<KeyContainer>(&path, status, &answer)?.into_keys().map(Some)
    }

    /// Hands an event of this SAE to the site's audit log; returns when it is durable.
    ///
    /// # Errors
    /// If the site cannot be reached or does not take this event from this SAE.
    pub async fn report(&self, event: &Event) -> Outcome<()> {
        let body = serde_json::to_vec(event).context(|| "event".to_owned())?;
        let _: serde_json::Value = self.call(Method::POST, "/qurrent/v1/events", Some(body.into())).await?;
        Ok(())
    }

    /// Hands the state of a telecontrol session to the site's dashboard.
    ///
    /// # Errors
    /// If the site cannot be reached or refuses.
    pub async fn report_terminal(&self, state: &serde_json::Value) -> Outcome<()> {
        let body = state.to_string().into();
        let _: serde_json::Value = self.call(Method::POST, "/qurrent/v1/terminals", Some(body)).await?;
        Ok(())
    }

    async fn keys(&self, path: &str, body: String) -> Outcome<Vec<SuppliedKey>> {
        self.call::<KeyContainer>(Method::POST, path, Some(body.into())).await?.into_keys()
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Bytes>) -> Outcome<T> {
        let (status, answer) = self.https.request(method, path, body).await?;
        self.parse(path, status, &answer)
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, status: StatusCode, answer: &[u8]) -> Outcome<T> {
        if status == StatusCode::OK {
            let parsed = serde_json::from_slice(answer);
            return parsed
                .map_err(|_| Failure::new(format!("answer of {} to {path} is malformed", self.https.server())));
        }
        let said =
            serde_json::from_slice::<ErrorBody>(answer).map_or_else(|_| "no reason given".to_owned(), |e| e.text());
        Err(Failure::new(format!("{} refused {path} for {}: {status}: {said}", self.https.server(), self.sae)))
    }
}

#[derive(Deserialize)]
struct KeyContainer {
    keys: Vec<RawKey>,
}

impl KeyContainer {
    fn into_keys(self) -> Outcome<Vec<SuppliedKey>> {
        self.keys.into_iter().map(SuppliedKey::try_from).collect()
    }
}

#[derive(Deserialize)]
struct RawKey {
    #[serde(rename = "key_ID")]
    key_id: String,
    key: Zeroizing<String>,
}

impl TryFrom<RawKey> for SuppliedKey {
    type Error = Failure;
    fn try_from(raw: RawKey) -> Outcome<Self> {
        let id = raw.key_id.parse().context(|| "key id in the KME's answer".to_owned())?;
        let key = STANDARD.decode(raw.key.as_bytes()).map_err(|_| Failure::new(format!("key {id} is not base64")))?;
        Ok(Self { id, key: SecretBytes::from_vec(key) })
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
    #[serde(default)]
    details: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl ErrorBody {
    fn text(self) -> String {
        let details: Vec<_> = self
            .details
            .iter()
            .flat_map(|detail| detail.iter().map(|(name, value)| format!("{name} {value}")))
            .collect();
        if details.is_empty() { self.message } else { format!("{} ({})", self.message, details.join(", ")) }
    }
}

/// Path and body that ask for keys by their ids.
fn decrypt_request(master: &SaeId, ids: &[KeyId]) -> (String, String) {
    let ids: Vec<_> = ids.iter().map(|id| serde_json::json!({ "key_ID": id.to_string() })).collect();
    let body = serde_json::json!({ "key_IDs": ids }).to_string();
    (format!("/api/v1/keys/{}/dec_keys", encode(master)), body)
}

/// Percent-encodes an SAE id for use in a path (RFC 3986, unreserved characters stay).
#[must_use]
pub fn encode(sae: &SaeId) -> String {
    let mut out = String::new();
    for byte in sae.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
