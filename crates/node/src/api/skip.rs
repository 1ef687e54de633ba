//! SKIP (draft-cisco-skip-02): the site as key provider of an encryptor. The encryptor's certificate says which SAE it
//! is; system ids are SAE ids or aliases of them.
//!
//! Provided: capabilities, keys with size, keys by id (once), entropy from the operating system; any `Host`.
//! Not provided: TLS with a pre-shared key; the guide says how to put stunnel in front.

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use crypto::secret::SecretBytes;
use etsi::etsi014::Reason;
use etsi::skip::{self, Capabilities, KeyById, Malformed, NewKey};
use kms::{Refusal, SuppliedKey, SupplyReply, SupplyRequest, Wishes};
use serde_json::json;
use types::id::SaeId;
use zeroize::Zeroizing;

use super::{ApiState, etsi014};
use crate::config::SkipConfig;
use crate::entropy::os_rng;
use crate::tls::Identity;

/// The routes of this module. HEAD is refused: it would consume a key and give none.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/capabilities", get(capabilities).head(etsi014::wrong_method))
        .route("/key", get(new_key).head(etsi014::wrong_method))
        .route("/key/{id}", get(key_by_id).head(etsi014::wrong_method))
        .route("/entropy", get(entropy).head(etsi014::wrong_method))
}

async fn capabilities(State(state): State<ApiState>, Extension(caller): Extension<Identity>) -> Response {
    let sae = match served(&state, caller) {
        Ok(sae) => sae,
        Err(refused) => return refused,
    };
    Json(Capabilities {
        entropy: true,
        key: true,
        algorithm: ALGORITHM.to_owned(),
        local_system_id: state.skip.system_of(&sae).to_owned(),
        remote_system_id: remote_systems(&state, &sae),
    })
    .into_response()
}

async fn new_key(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Response {
    let request = NewKey::parse(query.as_deref().unwrap_or_default()).and_then(|wanted| {
        let slave = remote(&state.skip, &wanted.remote)?;
        Ok(SupplyRequest::Encrypt {
            slave,
            additional: Vec::new(),
            number: 1,
            size_bits: wanted.size_bits,
            wishes: Wishes::default(),
        })
    });
    answer(&state, caller, request).await
}

async fn key_by_id(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let request = KeyById::parse(&id, query.as_deref().unwrap_or_default()).and_then(|wanted| {
        let master = remote(&state.skip, &wanted.remote)?;
        Ok(SupplyRequest::Decrypt { master, ids: vec![wanted.id] })
    });
    answer(&state, caller, request).await
}

async fn entropy(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(refused) = served(&state, caller) {
        return refused;
    }
    match skip::entropy_bits(query.as_deref().unwrap_or_default()) {
        Ok(bits) => {
            let bytes = usize::try_from(bits.div_ceil(8)).expect("it was checked to be small");
            secret(skip::entropy_body(&SecretBytes::random(bytes, &mut os_rng()), bits))
        }
        Err(Malformed(why)) => error(StatusCode::BAD_REQUEST, &why),
    }
}

async fn answer(state: &ApiState, caller: Identity, request: Result<SupplyRequest, Malformed>) -> Response {
    let sae = match served(state, caller) {
        Ok(sae) => sae,
        Err(refused) => return refused,
    };
    let request = match request {
        Ok(request) => request,
        Err(Malformed(why)) => {
            etsi014::count(state, "skip", Reason::Malformed);
            return error(StatusCode::BAD_REQUEST, &why);
        }
    };
    match state.keeper.request(sae, request).await {
        Some(Ok(SupplyReply::Keys(keys))) => match keys.as_slice() {
            [SuppliedKey { id, key, .. }] => secret(skip::key_body(*id, key)),
            _ => error(StatusCode::INTERNAL_SERVER_ERROR, "not one key"),
        },
        Some(Ok(SupplyReply::Status(_))) => error(StatusCode::INTERNAL_SERVER_ERROR, "no key"),
        Some(Err(refusal)) => {
            etsi014::count(state, "skip", etsi014::reason_of(&refusal));
            refused(&refusal)
        }
        None => error(StatusCode::SERVICE_UNAVAILABLE, "the key provider is stopping"),
    }
}

/// The caller, if this site serves it.
#[expect(clippy::result_large_err, reason = "the error is the answer and goes straight out")]
fn served(state: &ApiState, caller: Identity) -> Result<SaeId, Response> {
    match caller {
        Identity::Sae(sae) if state.keeper.serves(&sae) => Ok(sae),
        other => {
            let message = "the certificate names no system that this key provider serves";
            etsi014::count(state, "skip", Reason::NotAuthorised);
            state.keeper.note_refused(&other, message);
            Err(error(StatusCode::UNAUTHORIZED, message))
        }
    }
}

/// The SAE that a remote system id names. What is unknown to the network the KME refuses.
fn remote(config: &SkipConfig, system: &str) -> Result<SaeId, Malformed> {
    config.sae_of(system).ok_or_else(|| Malformed(format!("remoteSystemID {system:?} is not known here")))
}

/// The configured patterns, or every other system by name.
fn remote_systems(state: &ApiState, own: &SaeId) -> Vec<String> {
    let config = &state.skip;
    if !config.remote.is_empty() {
        return config.remote.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    }
    let others = state.keeper.saes().filter(|sae| *sae != own);
    others.map(|sae| config.system_of(sae).to_owned()).take(SYSTEMS_MAX).collect()
}

fn refused(refusal: &Refusal) -> Response {
    let message = refusal.to_string();
    match refusal {
        Refusal::NotEnoughKey { retry_after }
        | Refusal::PeerDown { retry_after }
        | Refusal::OverQuota { retry_after }
        | Refusal::NotExported { retry_after }
        | Refusal::Busy { retry_after } => {
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, &message);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            response
        }
        // The drafts know 400 for whatever the client got wrong, also for keys of others.
        _ => error(StatusCode::BAD_REQUEST, &message),
    }
}

/// The body is wiped when the HTTP library is done with it.
fn secret(mut body: Zeroizing<String>) -> Response {
    let bytes = Zeroizing::new(std::mem::take(&mut *body).into_bytes());
    let body = Body::from(Bytes::from_owner(bytes));
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

/// How keys come to both ends, for `/capabilities`.
const ALGORITHM: &str = "QKD";
/// System ids listed in `/capabilities` when no patterns are configured.
const SYSTEMS_MAX: usize = 256;
