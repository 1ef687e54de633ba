//! ETSI GS QKD 014 V1.1.1: status, get key, get key with key IDs.
//!
//! Provided: GET and POST forms, exact error texts, a JSON body with a code on every error, all or nothing. The
//! messages themselves are in [`etsi::etsi014`].
//!
//! | status | when |
//! |---|---|
//! | 400 | malformed, out of range, unknown SAE or key, an extension that must be refused |
//! | 401 | the certificate names no SAE of this site, or the key is another SAE's |
//! | 503 | not enough key, other KME down, busy: with `Retry-After` |
//! | 404, 405, 408, 413, 415 | no such path; no such method; body late, too large, said to be no JSON |

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use etsi::etsi014::{
    self, BODY_MAX, BadRequest, Call, ErrorBody, KeyIds, KeyRequest, Reason, Resource, Status, StatusExtension,
    write_container,
};
use http_body_util::BodyExt as _;
use kms::{PairStatus, Refusal, SupplyReply, SupplyRequest, Wishes};
use tokio::time::timeout;
use types::id::SaeId;

use super::ApiState;
use crate::tls::Identity;

mod wishes;

/// Every resource of the standard. One handler for all, so that path, method and body are judged in one order and
/// answered in one form.
pub(super) async fn serve(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    request: Request,
) -> Response {
    match respond(&state, &caller, request).await {
        Ok(response) => response,
        Err(refused) => {
            count(&state, "etsi014", refused.body.reason().unwrap_or(Reason::Malformed));
            // Codes only: what a client sent may hold a key.
            tracing::info!(?caller, status = %refused.status, reason = ?refused.body.reason(), "request refused");
            refused.into_response()
        }
    }
}

/// Counts a refusal for metrics.
pub(super) fn count(state: &ApiState, interface: &'static str, reason: Reason) {
    let word = serde_json::to_value(reason).ok();
    state.keeper.refusals().request(interface, word.as_ref().and_then(|word| word.as_str()).unwrap_or("other"));
}

/// Description of the resources for programs (OpenAPI).
pub(super) async fn description(method: Method) -> Response {
    if method != Method::GET {
        return Refused::method("GET").into_response();
    }
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

/// Any other path.
pub(super) async fn unknown_path() -> Response {
    Refused::path().into_response()
}

/// Any other method on a known path.
pub(super) async fn wrong_method() -> Response {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this resource has no such method", Reason::MethodNotAllowed)
        .into_response()
}

async fn respond(state: &ApiState, caller: &Identity, request: Request) -> Result<Response, Refused> {
    let resource = Resource::parse(request.uri().path()).ok_or_else(Refused::path)?;
    let call = resource.call;
    let is_post = match *request.method() {
        Method::GET => false,
        Method::POST if call != Call::Status => true,
        // HEAD as well: it would take keys and show none.
        _ => return Err(Refused::method(call.methods())),
    };
    let Identity::Sae(sae) = caller else {
        let message = "the certificate names a KME, not an SAE";
        state.keeper.note_refused(caller, message);
        return Err(Refused::new(StatusCode::UNAUTHORIZED, message, Reason::NotAuthorised));
    };
    let other = resource.sae()?;
    let query = request.uri().query().unwrap_or_default().to_owned();
    match call {
        Call::Status => supply(state, sae, SupplyRequest::Status { slave: other }).await,
        Call::EncKeys => {
            let asked = match is_post {
                true => KeyRequest::read(&other, &body(state, request).await?)?,
                false => KeyRequest::read_query(&query)?,
            };
            encrypt(state, sae, other, asked).await
        }
        Call::DecKeys => {
            let KeyIds(ids) = match is_post {
                true => KeyIds::read(&body(state, request).await?)?,
                false => KeyIds::read_query(&query)?,
            };
            supply(state, sae, SupplyRequest::Decrypt { master: other, ids }).await
        }
    }
}

/// Get key. What is optional is tried first, without waiting for it.
async fn encrypt(state: &ApiState, sae: &SaeId, slave: SaeId, asked: KeyRequest) -> Result<Response, Refused> {
    let passed_on = wishes::passed_on(&asked.others);
    let request = |wishes: Wishes| SupplyRequest::Encrypt {
        slave: slave.clone(),
        additional: asked.additional.clone(),
        number: asked.number,
        size_bits: asked.size,
        wishes: Wishes { passed_on: passed_on.clone(), ..wishes },
    };
    if let Some(wishes) = wishes::with_optional(&asked.mandatory, &asked.optional) {
        let first = supply(state, sae, request(wishes)).await;
        let unmet =
            |refused: &Refused| matches!(refused.body.reason(), Some(Reason::ExtensionUnmet | Reason::NotEnoughKey));
        if !first.as_ref().is_err_and(unmet) {
            return first;
        }
    }
    supply(state, sae, request(wishes::needed(&asked.mandatory, &asked.optional))).await
}

async fn supply(state: &ApiState, sae: &SaeId, request: SupplyRequest) -> Result<Response, Refused> {
    match state.keeper.request(sae.clone(), request).await {
        Some(Ok(SupplyReply::Status(status))) => {
            let flow = state.flows.of(&state.keeper, &status).await;
            Ok(axum::Json(status_body(status, flow)).into_response())
        }
        Some(Ok(SupplyReply::Keys(keys))) => Ok(key_container(keys)),
        Some(Err(refusal)) => Err(refusal.into()),
        None => {
            let message = "the key management entity is stopping";
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, message, Reason::Stopping))
        }
    }
}

/// The whole body, if it is short, comes in time, and is not said to be something else.
async fn body(state: &ApiState, request: Request) -> Result<Vec<u8>, Refused> {
    let stated = request.headers().get(header::CONTENT_TYPE).map(|stated| stated.to_str().unwrap_or_default());
    if stated.is_some_and(|stated| !may_be_json(stated)) {
        let message = "the body must be application/json";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message, Reason::NotJson));
    }
    match timeout(state.body_time, whole(request.into_body())).await {
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => {
            let refused = Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", Reason::TooLarge);
            Err(refused.with("max_bytes", BODY_MAX))
        }
        Ok(Err(_)) => Err(BadRequest::from_transport("the body ended early").into()),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time", Reason::TooSlow)),
    }
}

/// All bytes of a body; `None` if they are too many. Some of what is too much is read and dropped, because a client
/// that is still writing would not see its answer.
async fn whole(mut body: Body) -> Result<Option<Vec<u8>>, axum::Error> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let chunk = frame.data_ref().map_or(&[][..], |chunk| chunk);
        length += chunk.len();
        if length <= BODY_MAX {
            bytes.extend_from_slice(chunk);
        } else if length > DRAINED_MAX {
            break;
        }
    }
    Ok((length <= BODY_MAX).then_some(bytes))
}

/// Whether a stated media type can be JSON. Clients that state none, or what their HTTP library states unasked, are
/// taken at their body's word.
fn may_be_json(stated: &str) -> bool {
    let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty()
        || ["application/json", "text/json", "text/plain", "application/x-www-form-urlencoded"]
            .contains(&essence.as_str())
        || essence.ends_with("+json")
}

fn status_body(status: PairStatus, flow: Option<StatusExtension>) -> Status {
    Status {
        source_kme_id: status.source_kme.to_string(),
        target_kme_id: status.target_kme.to_string(),
        master_sae_id: status.master.to_string(),
        slave_sae_id: status.slave.to_string(),
        key_size: status.key_size.into(),
        stored_key_count: status.stored_key_count.into(),
        max_key_count: status.max_key_count.into(),
        max_key_per_request: status.max_key_per_request.into(),
        max_key_size: status.max_key_size.into(),
        min_key_size: status.min_key_size.into(),
        max_sae_id_count: status.max_sae_id_count.into(),
        status_extension: flow,
    }
}

/// Keys on their way out: the body is wiped when the HTTP library is done with it.
fn key_container(keys: Vec<kms::SuppliedKey>) -> Response {
    let keys: Vec<_> = keys.into_iter().map(told).collect();
    let body = Body::from(Bytes::from_owner(write_container(&keys)));
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn told(supplied: kms::SuppliedKey) -> etsi014::SuppliedKey {
    let kms::SuppliedKey { id, key, origin } = supplied;
    let origin = etsi014::KeyOrigin {
        hops: u32::try_from(origin.hops()).unwrap_or(u32::MAX),
        combined: origin.combined.into(),
        age_ms: u64::try_from(origin.age.as_millis()).unwrap_or(u64::MAX),
        paths: origin.paths,
    };
    etsi014::SuppliedKey { id, key, origin: Some(origin) }
}

/// An answer that is not 200.
struct Refused {
    status: StatusCode,
    body: ErrorBody,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
}

impl Refused {
    fn new(status: StatusCode, message: &str, reason: Reason) -> Self {
        Self { status, body: ErrorBody::new(message, reason), retry_after_s: None, allow: None }
    }

    fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.body = self.body.with(name, value);
        self
    }

    fn path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such resource", Reason::NoSuchPath)
            .with("paths", "/api/v1/keys/{SAE_ID}/status, enc_keys, dec_keys")
    }

    fn method(allow: &'static str) -> Self {
        let message = "this resource has no such method";
        let refused = Self::new(StatusCode::METHOD_NOT_ALLOWED, message, Reason::MethodNotAllowed);
        Self { allow: Some(allow), ..refused }
    }
}

/// The code of a refusal of the core.
pub(super) fn reason_of(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::NotAuthorised { .. } => Reason::NotAuthorised,
        Refusal::UnknownSae { .. } => Reason::UnknownSae,
        Refusal::KeysNotFound => Reason::KeyNotFound,
        Refusal::WishUnmeetable => Reason::ExtensionUnmet,
        Refusal::NotEnoughKey { .. } => Reason::NotEnoughKey,
        Refusal::PeerDown { .. } => Reason::PeerDown,
        Refusal::OverQuota { .. } => Reason::OverQuota,
        Refusal::NotExported { .. } => Reason::NotExported,
        Refusal::Busy { .. } => Reason::Busy,
        _ => Reason::OutOfRange,
    }
}

impl From<BadRequest> for Refused {
    fn from(bad: BadRequest) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: bad.body(), retry_after_s: None, allow: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let reason = reason_of(&refusal);
        let status = match reason {
            Reason::NotAuthorised => StatusCode::UNAUTHORIZED,
            Reason::NotEnoughKey | Reason::PeerDown | Reason::OverQuota | Reason::NotExported | Reason::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let refused = Self::new(status, &refusal.to_string(), reason);
        match refusal {
            Refusal::NotEnoughKey { retry_after }
            | Refusal::PeerDown { retry_after }
            | Refusal::OverQuota { retry_after }
            | Refusal::NotExported { retry_after }
            | Refusal::Busy { retry_after } => {
                let seconds = retry_after.as_millis().div_ceil(1_000).max(1);
                let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
                Self { retry_after_s: Some(seconds), ..refused.with("retry_after_s", seconds) }
            }
            _ => refused,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// Bytes of a body that is too large that are read all the same.
const DRAINED_MAX: usize = 4 * BODY_MAX;
const OPENAPI: &str = include_str!("../../../../docs/api/etsi014.yaml");
