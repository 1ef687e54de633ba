//! Interfaces of a site over mutual TLS: ETSI GS QKD 014, 004 and SKIP for SAEs, key-id notifications between them,
//! ETSI GS QKD 020 for KMEs of other networks, the view of ETSI GS QKD 015 for controllers, and the intake of events
//! and telecontrol states from processes of the same site.

pub mod etsi004;
mod etsi014;
pub mod etsi015;
pub mod etsi020;
mod flows;
mod intake;
pub mod notify;
mod skip;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, post};
use etsi::etsi014::BODY_MAX;

use self::etsi015::View;
use self::flows::Flows;
use self::notify::Notices;
use crate::board::Board;
use crate::config::SkipConfig;
use crate::keeper::Keeper;
use crate::tls::Identity;

/// What handlers need.
#[derive(Clone)]
pub struct ApiState {
    /// The site's keys and log.
    pub keeper: Keeper,
    /// The site's notice board.
    pub board: Arc<Board>,
    /// Key ids that SAEs tell each other.
    pub notices: Arc<Notices>,
    /// Names of systems for SKIP.
    pub skip: Arc<SkipConfig>,
    /// What controllers see.
    pub view: Arc<View>,
    /// How long a request's body may take.
    body_time: Duration,
    flows: Arc<Flows>,
}

impl ApiState {
    /// What handlers of a site need; `body_time` is how long a request's body may take.
    #[must_use]
    pub fn new(
        keeper: Keeper,
        board: Arc<Board>,
        (notices, skip, view): (Arc<Notices>, Arc<SkipConfig>, Arc<View>),
        body_time: Duration,
    ) -> Self {
        Self { keeper, board, notices, skip, view, body_time, flows: Arc::default() }
    }
}

/// Counts and notes who may not do what it asked.
async fn note_refused(
    State((state, interface)): State<(ApiState, &'static str)>,
    caller: Option<Extension<Identity>>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        && let Some(Extension(caller)) = caller
    {
        state.keeper.refusals().request(interface, "not_authorised");
        state.keeper.note_refused(&caller, &format!("not authorised ({interface})"));
    }
    response
}

/// All routes of a site.
pub fn router(state: ApiState) -> Router {
    let events = Router::new()
        .route("/qurrent/v1/events", post(intake::event))
        .route("/qurrent/v1/terminals", post(intake::terminal));
    let watched =
        |routes: Router<ApiState>, name| routes.route_layer(from_fn_with_state((state.clone(), name), note_refused));
    Router::new()
        .merge(skip::routes())
        .merge(watched(etsi015::routes(), "etsi015"))
        .merge(watched(notify::routes(), "notifications"))
        .merge(watched(events, "events"))
        .route("/api/v1/keys/{*resource}", any(etsi014::serve))
        .route("/api/v1/openapi.yaml", any(etsi014::description))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .fallback(etsi014::unknown_path)
        .method_not_allowed_fallback(etsi014::wrong_method)
        .with_state(state)
}
