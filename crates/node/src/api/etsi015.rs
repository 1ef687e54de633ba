//! ETSI GS QKD 015 V2.1.1 over RESTCONF (RFC 8040): what the controllers named in `node.toml` may read of this site.
//!
//! ```text
//! GET /restconf/data/etsi-qkd-sdn-node:qkd_node[/...]      the tree, or a part of it
//! GET /restconf/streams/etsi-qkd-sdn-node                  notifications, as server-sent events
//! ```
//!
//! Provided: reading; JSON (RFC 7951); notifications of links, applications and alarms. The tree is made anew every
//! second. Not provided: writing (405), XML (406), query parameters.

mod build;
mod changes;
mod meter;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use etsi::etsi015::{ErrorTag, MODULE, ResourceError, envelope, error_body, select};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use types::id::{LinkId, SaeId, SiteId, Uuid};
use types::network::Network;

use self::build::Facts;
use self::changes::Told;
use self::meter::Meter;
use super::ApiState;
use crate::board::Board;
use crate::clock;
use crate::config::NodeConfig;
use crate::keeper::{Keeper, Snapshot};
use crate::tls::Identity;

/// What controllers see of a site.
pub struct View {
    network: Network,
    site: SiteId,
    homes: BTreeMap<SaeId, SiteId>,
    controllers: Vec<SaeId>,
    tree: watch::Sender<Arc<Value>>,
    notifications: broadcast::Sender<Arc<str>>,
    listeners: Arc<Semaphore>,
}

impl View {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(network: &Network, config: &NodeConfig) -> Self {
        Self {
            network: network.clone(),
            site: config.site.clone(),
            homes: config.sae.clone(),
            controllers: config.controllers.clone(),
            tree: watch::Sender::new(Arc::new(Value::Null)),
            notifications: broadcast::Sender::new(NOTIFICATIONS_MAX),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
        }
    }

    /// Makes the tree anew every second until the token is cancelled. Without controllers there is nothing to do.
    pub async fn run(self: Arc<Self>, keeper: Keeper, board: Arc<Board>, stop: CancellationToken) {
        if self.controllers.is_empty() {
            return;
        }
        let (mut meters, mut told) = (BTreeMap::<LinkId, Meter>::new(), Told::default());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let Some(snapshot) = keeper.snapshot().await else { return };
            for stock in &snapshot.links {
                let bits = stock.bits_out.0 + stock.bits_in.0;
                meters.entry(stock.link.clone()).or_default().look(clock::now(), bits);
            }
            self.look(&keeper, &board, &snapshot, &meters, &mut told);
        }
    }

    fn look(
        &self,
        keeper: &Keeper,
        board: &Board,
        snapshot: &Snapshot,
        meters: &BTreeMap<LinkId, Meter>,
        told: &mut Told,
    ) {
        let links = board.links();
        let consumption = links.iter().map(|link| {
            let consumed =
                meters.get(&link.link).map_or(0.0, |meter| meter.consumption(link.secret_bit_s.unwrap_or_default()));
            (link.link.clone(), consumed)
        });
        let now = clock::utc_now();
        let facts = Facts {
            network: &self.network,
            site: &self.site,
            stocks: &snapshot.links,
            links: &links,
            sites: &board.sites(),
            pairs: &keeper.pairs().all(),
            homes: &self.homes,
            consumption: &consumption.collect(),
            now,
        };
        let tree = facts.tree();
        let alarms: BTreeMap<Uuid, String> =
            links.iter().filter_map(|link| Some((facts.link_id(&link.link), link.last_alarm.clone()?))).collect();
        for notification in told.changes(&tree, &alarms) {
            let text = envelope(&clock::rfc3339(now), &notification);
            let _nobody_listens = self.notifications.send(Arc::from(text));
        }
        self.tree.send_replace(Arc::new(serde_json::to_value(&tree).unwrap_or_default()));
    }
}

/// The routes of this module.
pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/restconf", any(restconf)).route("/restconf/{*path}", any(restconf))
}

/// Everything below `/restconf`: for controllers alone, reading alone.
async fn restconf(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if !matches!(&caller, Identity::Sae(id) if state.view.controllers.contains(id)) {
        return error(ErrorTag::AccessDenied, "this certificate is no controller of this node");
    }
    if method == Method::OPTIONS {
        return (StatusCode::OK, [(header::ALLOW, READING)]).into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        let refused =
            error(ErrorTag::OperationNotSupported, "this node is read by controllers and not configured by them");
        return ([(header::ALLOW, READING)], refused).into_response();
    }
    if query.is_some_and(|query| !query.is_empty() && query != "content=all") {
        return error(ErrorTag::InvalidValue, "no query parameter but content=all is known here");
    }
    // As it was sent: keys of lists are percent-decoded one by one.
    let path = uri.path().trim_start_matches("/restconf").trim_matches('/');
    if let Some(stream) = path.strip_prefix("streams/") {
        return if stream == MODULE { listen(state.view) } else { error(ErrorTag::UnknownElement, "no such stream") };
    }
    if !accepts_json(&headers) {
        let body = error_body(ErrorTag::InvalidValue, "application/yang-data+json is all that is written here");
        return yang(StatusCode::NOT_ACCEPTABLE, &body);
    }
    let tree = state.view.tree.borrow().clone();
    if tree.is_null() {
        return error(ErrorTag::ResourceDenied, "the node has just started; ask again in a second");
    }
    match path {
        "" => yang(StatusCode::OK, &json!({ "ietf-restconf:restconf": { "data": {}, "operations": {} } })),
        "operations" => yang(StatusCode::OK, &json!({ "ietf-restconf:operations": {} })),
        "data" => {
            let content = json!({ format!("{MODULE}:qkd_node"): *tree, STREAMS_STATE: streams() });
            yang(StatusCode::OK, &json!({ "ietf-restconf:data": content }))
        }
        "data/ietf-restconf-monitoring:restconf-state" => yang(StatusCode::OK, &json!({ STREAMS_STATE: streams() })),
        _ => match path.strip_prefix("data/").map(|path| select(&tree, path)) {
            Some(Ok(body)) => yang(StatusCode::OK, &body),
            Some(Err(wrong @ ResourceError::Malformed(_))) => error(ErrorTag::InvalidValue, &wrong.to_string()),
            Some(Err(missing)) => error(ErrorTag::UnknownElement, &missing.to_string()),
            None => error(ErrorTag::UnknownElement, "no such resource"),
        },
    }
}

/// Streams notifications from now on; a slow listener loses the oldest and is told how many.
fn listen(view: Arc<View>) -> Response {
    let Ok(slot) = view.listeners.clone().try_acquire_owned() else {
        return error(ErrorTag::ResourceDenied, "too many controllers listen already");
    };
    let listener = Listener { receiver: view.notifications.subscribe(), _slot: slot };
    let events = stream::unfold(listener, |mut listener| async {
        let event = match listener.receiver.recv().await {
            Ok(text) => Event::default().data(&*text),
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                Event::default().comment(format!("{lost} notifications lost"))
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

struct Listener {
    receiver: broadcast::Receiver<Arc<str>>,
    _slot: OwnedSemaphorePermit,
}

/// What streams there are (RFC 8040, 9.1).
fn streams() -> Value {
    let access = json!([{ "encoding": "json", "location": format!("/restconf/streams/{MODULE}") }]);
    let stream = json!({ "name": MODULE, "replay-support": false, "access": access });
    json!({ "streams": { "stream": [stream] } })
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()) else { return true };
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let mut kinds = kinds.filter(|kind| !kind.is_empty()).peekable();
    kinds.peek().is_none() || kinds.any(|kind| matches!(kind, "*/*" | "application/*" | "application/json" | YANG_JSON))
}

fn error(tag: ErrorTag, message: &str) -> Response {
    let status = StatusCode::from_u16(tag.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    yang(status, &error_body(tag, message))
}

fn yang(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, YANG_JSON), (header::CACHE_CONTROL, "no-cache")];
    (status, kind, body.to_string()).into_response()
}

const YANG_JSON: &str = "application/yang-data+json";
const READING: &str = "GET, HEAD, OPTIONS";
const STREAMS_STATE: &str = "ietf-restconf-monitoring:restconf-state";
const TICK: Duration = Duration::from_secs(1);
const NOTIFICATIONS_MAX: usize = 256;
const LISTENERS_MAX: usize = 16;

#[cfg(test)]
mod tests;
