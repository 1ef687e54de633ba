//! Key-id notifications: an SAE tells another which keys they share, through the KMEs that gave them the keys, so that
//! they need no channel of their own. ETSI GS QKD 014 leaves this out.
//!
//! ```text
//! POST /qurrent/v1/notify/{SAE_ID}          {"key_IDs":[{"key_ID":ID}],"note":"..."} -> {"sequence":N}
//! GET  /qurrent/v1/notifications            ?from=CURSOR&wait=SECONDS -> {"notifications":[...],"next":CURSOR,"gap":false}
//! GET  /qurrent/v1/notifications            with Accept: text/event-stream -> server-sent events
//! ```
//!
//! Provided: only SAEs that hold the keys may tell; who tells stands in the certificate; ids and notes, never keys;
//! bounds for each pair; lost and displaced notifications show as a gap.
//! Not provided: notifications that outlive the site's process.

mod exchange;
mod frame;
mod inbox;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use types::id::{KeyId, SaeId};

pub use self::exchange::{NotTold, Notices};
#[doc(hidden)]
pub use self::frame::fuzz as fuzz_frame;
use self::inbox::{Notification, Page};
use super::ApiState;
use crate::clock::rfc3339;
use crate::tls::Identity;

/// The routes of this module.
pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/qurrent/v1/notify/{sae}", post(tell)).route("/qurrent/v1/notifications", get(read))
}

#[derive(Deserialize)]
struct Telling {
    #[serde(rename = "key_IDs")]
    key_ids: Vec<NamedKey>,
    #[serde(default)]
    note: String,
}

/// A key id as ETSI GS QKD 014 writes it, or plain.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedKey {
    Object {
        #[serde(rename = "key_ID")]
        key_id: KeyId,
    },
    Plain(KeyId),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    from: Option<u64>,
    #[serde(default)]
    wait: u64,
}

/// POST `/qurrent/v1/notify/{SAE_ID}`.
async fn tell(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    Path(to): Path<String>,
    body: Bytes,
) -> Response {
    let Identity::Sae(from) = caller else { return not_an_sae() };
    let Ok(to) = SaeId::new(&to) else { return error(StatusCode::BAD_REQUEST, "malformed SAE id") };
    let telling: Telling = match serde_json::from_slice(&body) {
        Ok(telling) => telling,
        Err(_) => return error(StatusCode::BAD_REQUEST, "the body needs key_IDs, a list of key ids"),
    };
    let ids = telling.key_ids.into_iter().map(|key| match key {
        NamedKey::Object { key_id } | NamedKey::Plain(key_id) => key_id,
    });
    match state.notices.announce(&from, &to, ids.collect(), &telling.note).await {
        Ok(sequence) => Json(json!({ "sequence": sequence })).into_response(),
        Err(not_told) => {
            let message = not_told.to_string();
            match not_told {
                NotTold::Malformed(_) => error(StatusCode::BAD_REQUEST, &message),
                NotTold::NotHolders => error(StatusCode::UNAUTHORIZED, &message),
                NotTold::PeerDown | NotTold::Refused => busy(&message),
            }
        }
    }
}

/// GET `/qurrent/v1/notifications`: what is there, or what comes within `wait` seconds; or a stream.
async fn read(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    query: Result<Query<Reading>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Identity::Sae(sae) = caller else { return not_an_sae() };
    if !state.notices.serves(&sae) {
        return error(StatusCode::UNAUTHORIZED, "this SAE is not served by this site");
    }
    let Ok(Query(reading)) = query else {
        return error(StatusCode::BAD_REQUEST, "from is a cursor and wait a number of seconds");
    };
    let mut page = state.notices.read(&sae, reading.from);
    let streams = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"));
    if !streams && (!page.notifications.is_empty() || page.gap || reading.wait == 0) {
        return Json(page_body(&page)).into_response();
    }
    let Ok(slot) = state.notices.slots(&sae).try_acquire_owned() else {
        return busy("too many readers of this SAE wait already");
    };
    if streams {
        // Reconnecting, a client says which event it saw last (HTML Living Standard, 9.2).
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
        let cursor = last.map(|last| last.saturating_add(1)).or(reading.from);
        return follow(Follower { notices: state.notices, sae, cursor, _slot: slot });
    }
    let wait = Duration::from_secs(reading.wait).min(WAIT_MAX);
    let mut follower = Follower { notices: state.notices, sae, cursor: Some(page.next), _slot: slot };
    if let Ok(Some(arrived)) = timeout(wait, follower.next()).await {
        page = arrived;
    }
    Json(page_body(&page)).into_response()
}

/// A reader that waits.
struct Follower {
    notices: Arc<Notices>,
    sae: SaeId,
    cursor: Option<u64>,
    _slot: OwnedSemaphorePermit,
}

impl Follower {
    /// The next page that holds something; `None` when the site stops.
    async fn next(&mut self) -> Option<Page> {
        let arrival = self.notices.arrival(&self.sae);
        loop {
            let arrived = arrival.notified();
            let mut arrived = std::pin::pin!(arrived);
            // Counts from here on, before the look, so that nothing falls between.
            arrived.as_mut().enable();
            let page = self.notices.read(&self.sae, self.cursor);
            if page.gap || !page.notifications.is_empty() {
                self.cursor = Some(page.next);
                return Some(page);
            }
            tokio::select! {
                () = arrived => {}
                () = self.notices.stop.cancelled() => return None,
            }
        }
    }
}

fn follow(follower: Follower) -> Response {
    let pages = stream::unfold(follower, |mut follower| async {
        let page = follower.next().await?;
        Some((stream::iter(events(&page)), follower))
    });
    Sse::new(futures_util::StreamExt::flatten(pages)).keep_alive(KeepAlive::default()).into_response()
}

fn events(page: &Page) -> Vec<Result<Event, Infallible>> {
    let gap = page.gap.then(|| Event::default().event("gap").data("{}"));
    let each = page.notifications.iter().map(|notification| {
        let event = Event::default().event("notification").id(notification.cursor.to_string());
        event.data(notification_body(notification).to_string())
    });
    gap.into_iter().chain(each).map(Ok).collect()
}

fn page_body(page: &Page) -> Value {
    let notifications: Vec<_> = page.notifications.iter().map(notification_body).collect();
    json!({ "notifications": notifications, "next": page.next, "gap": page.gap })
}

fn notification_body(notification: &Notification) -> Value {
    let Notification { cursor, from, told, received } = notification;
    let ids: Vec<_> = told.ids.iter().map(|id| json!({ "key_ID": id.to_string() })).collect();
    json!({
        "cursor": cursor,
        "from_SAE_ID": from,
        "sequence": told.sequence,
        "key_IDs": ids,
        "note": told.note,
        "received": rfc3339(*received),
    })
}

fn not_an_sae() -> Response {
    error(StatusCode::UNAUTHORIZED, "the certificate names a KME, not an SAE")
}

fn busy(message: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Error body as in ETSI GS QKD 014, 6.5.
fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message, "details": [] }))).into_response()
}

/// Longest wait of one long poll.
const WAIT_MAX: Duration = Duration::from_secs(25);
