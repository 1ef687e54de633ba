//! ETSI GS QKD 014 V1.1.1: status, get key, get key with key IDs.
//!
//! Provided: GET and POST forms, exact error texts, a JSON body on every error, all or nothing.
//! Not provided yet: additional slave SAEs (`max_SAE_ID_count` is 0) and extensions of our own; a mandatory
//! extension is refused with the standard's text, an optional one is ignored.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms::{PairStatus, Refusal, SuppliedKey, SupplyReply, SupplyRequest};
use serde_json::{Map, Value, json};
use types::id::{KeyId, SaeId};
use zeroize::Zeroizing;

use super::ApiState;
use crate::client::Status;
use crate::tls::Identity;

/// GET `/api/v1/keys/{slave_SAE_ID}/status`.
pub(super) async fn status(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(slave): Path<String>,
) -> Response {
    let request = sae(&slave).map(|slave| SupplyRequest::Status { slave });
    answer(&state, caller, request).await
}

/// POST `/api/v1/keys/{slave_SAE_ID}/enc_keys`.
pub(super) async fn get_key(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(slave): Path<String>,
    body: Bytes,
) -> Response {
    let request = sae(&slave).and_then(|slave| key_request(slave, &body));
    answer(&state, caller, request).await
}

/// GET `/api/v1/keys/{slave_SAE_ID}/enc_keys?number=N&size=BITS`.
pub(super) async fn get_key_simple(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(slave): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let request = sae(&slave).and_then(|slave| simple_key_request(slave, query.as_deref().unwrap_or_default()));
    answer(&state, caller, request).await
}

/// GET `/api/v1/keys/{master_SAE_ID}/dec_keys?key_ID=UUID`.
pub(super) async fn get_key_by_id(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(master): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let request = sae(&master).and_then(|master| {
        let id = match pairs(query.as_deref().unwrap_or_default()).as_slice() {
            [(name, id)] if name == "key_ID" => key_id(id)?,
            _ => return Err(Bad::new("exactly one key_ID is needed", "use POST for several")),
        };
        Ok(SupplyRequest::Decrypt { master, ids: vec![id] })
    });
    answer(&state, caller, request).await
}

/// POST `/api/v1/keys/{master_SAE_ID}/dec_keys`.
pub(super) async fn get_key_by_ids(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(master): Path<String>,
    body: Bytes,
) -> Response {
    let request = sae(&master).and_then(|master| Ok(SupplyRequest::Decrypt { master, ids: key_ids(&body)? }));
    answer(&state, caller, request).await
}

/// Any other path.
pub(super) async fn unknown_path() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "no such resource",
        &json!({ "paths": "/api/v1/keys/{SAE_ID}/status, enc_keys, dec_keys" }),
    )
}

/// Any other verb on a known path.
pub(super) async fn wrong_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this resource has no such method", &json!({}))
}

/// A request that is wrong in itself; answered 400 without asking the KME.
struct Bad {
    message: String,
    detail: String,
}

impl Bad {
    fn new(message: &str, detail: impl Into<String>) -> Self {
        Self { message: message.to_owned(), detail: detail.into() }
    }
}

async fn answer(state: &ApiState, caller: Identity, request: Result<SupplyRequest, Bad>) -> Response {
    let Identity::Sae(sae) = caller else {
        return error(StatusCode::UNAUTHORIZED, "the certificate names a KME, not an SAE", &json!({}));
    };
    let request = match request {
        Ok(request) => request,
        Err(bad) => return error(StatusCode::BAD_REQUEST, &bad.message, &json!({ "reason": bad.detail })),
    };
    match state.keeper.request(sae, request).await {
        Some(Ok(SupplyReply::Status(status))) => Json(status_body(status)).into_response(),
        Some(Ok(SupplyReply::Keys(keys))) => key_container(&keys),
        Some(Err(refusal)) => refused(&refusal),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "the key management entity is stopping", &json!({})),
    }
}

/// Key request (ETSI GS QKD 014, 6.2): every member optional, unknown members ignored.
fn key_request(slave: SaeId, body: &[u8]) -> Result<SupplyRequest, Bad> {
    let members = object(body)?;
    let mandatory = list(&members, "extension_mandatory")?;
    if !mandatory.is_empty() {
        return Err(Bad::new("not all extension_mandatory parameters are supported", "this KME supports none"));
    }
    list(&members, "extension_optional")?;
    let additional = list(&members, "additional_slave_SAE_IDs")?
        .iter()
        .map(|id| sae(id.as_str().unwrap_or_default()))
        .collect::<Result<_, _>>()?;
    let number = number(&members, "number")?.unwrap_or(1);
    Ok(SupplyRequest::Encrypt { slave, additional, number, size_bits: self::number(&members, "size")? })
}

fn simple_key_request(slave: SaeId, query: &str) -> Result<SupplyRequest, Bad> {
    let (mut count, mut size_bits) = (1, None);
    for (name, value) in pairs(query) {
        let parsed = value.parse().map_err(|_| Bad::new("malformed request", format!("{name} is no number")))?;
        match name.as_str() {
            "number" => count = parsed,
            "size" => size_bits = Some(parsed),
            _ => return Err(Bad::new("malformed request", format!("{name} needs the POST form"))),
        }
    }
    Ok(SupplyRequest::Encrypt { slave, additional: Vec::new(), number: count, size_bits })
}

/// Key IDs (ETSI GS QKD 014, 6.4). Plain strings are taken as well as objects; some vendors send them.
fn key_ids(body: &[u8]) -> Result<Vec<KeyId>, Bad> {
    let members = object(body)?;
    let ids = list(&members, "key_IDs")?;
    if ids.is_empty() || ids.len() > KEY_IDS_MAX {
        return Err(Bad::new("malformed request", format!("key_IDs needs 1 to {KEY_IDS_MAX} members")));
    }
    ids.iter().map(|id| key_id(id.get("key_ID").unwrap_or(id).as_str().unwrap_or_default())).collect()
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Bad> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| Bad::new("malformed request", "the body is no JSON object"))
}

fn number(members: &Map<String, Value>, name: &str) -> Result<Option<u32>, Bad> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| Bad::new("malformed request", format!("{name} must be a whole number")))
}

fn list<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], Bad> {
    match members.get(name) {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Bad::new("malformed request", format!("{name} must be an array"))),
    }
}

fn sae(text: &str) -> Result<SaeId, Bad> {
    SaeId::new(text).map_err(|error| Bad::new("malformed request", error.to_string()))
}

fn key_id(text: &str) -> Result<KeyId, Bad> {
    text.parse().map_err(|_| Bad::new("malformed request", "key_ID must be a UUID"))
}

/// Members of a query string. The values that we take need no percent-decoding.
fn pairs(query: &str) -> Vec<(String, String)> {
    let members = query.split('&').filter(|member| !member.is_empty());
    members
        .map(|member| member.split_once('=').unwrap_or((member, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn status_body(status: PairStatus) -> Status {
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
    }
}

/// Key container (ETSI GS QKD 014, 6.3). Written by hand so that no copy of a key stays behind in a JSON tree;
/// ids and base64 need no escaping.
fn key_container(keys: &[SuppliedKey]) -> Response {
    let mut body = Zeroizing::new(String::from(r#"{"keys":["#));
    for (index, key) in keys.iter().enumerate() {
        let encoded = Zeroizing::new(key.key.expose(|bits| STANDARD.encode(bits)));
        let separator = if index == 0 { "" } else { "," };
        body.push_str(&format!(r#"{separator}{{"key_ID":"{}","key":""#, key.id));
        body.push_str(&encoded);
        body.push_str(r#""}"#);
    }
    body.push_str("]}");
    // Owned by the response from here on; the bytes go to the SAE that they are for.
    let bytes = std::mem::take(&mut *body).into_bytes();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], bytes).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let message = refusal.to_string();
    match refusal {
        Refusal::NotAuthorised { .. } => error(StatusCode::UNAUTHORIZED, &message, &json!({})),
        Refusal::NotEnoughKey { retry_after } | Refusal::PeerDown { retry_after } | Refusal::Busy { retry_after } => {
            let seconds = retry_after.as_secs().max(1);
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, &message, &json!({ "retry_after_s": seconds }));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
        _ => error(StatusCode::BAD_REQUEST, &message, &json!({})),
    }
}

/// Error body (ETSI GS QKD 014, 6.5): a message and a list of name/value details.
fn error(status: StatusCode, message: &str, detail: &Value) -> Response {
    let details: Vec<_> = detail.as_object().filter(|detail| !detail.is_empty()).into_iter().collect();
    (status, Json(json!({ "message": message, "details": details }))).into_response()
}

const KEY_IDS_MAX: usize = 1_024;
