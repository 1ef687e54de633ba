//! Events and telecontrol states from processes of the same site (vault, gateway, terminal), for the site's
//! audit log and dashboard. A process may only speak of what an SAE does; a site's own life is not its to tell.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use etsi::etsi014::{ErrorBody, Reason, text};
use serde_json::json;
use types::event::Event;

use super::ApiState;
use crate::provision::vault_sae;
use crate::report::{ModelReport, TerminalReport};
use crate::tls::Identity;

/// POST `/qurrent/v1/events`: appends one event; answers when it is durable.
pub(super) async fn event(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    event: Result<Json<Event>, JsonRejection>,
) -> Response {
    let Json(event) = match event {
        Ok(event) => event,
        Err(wrong) => return malformed(&wrong),
    };
    if !may_report(&state, &caller, &event) {
        return refused("this SAE may not report this event here");
    }
    if let Some(model) = model_of(&event) {
        state.board.add_model(model);
    }
    if state.keeper.record(vec![event]).await.is_none() {
        let body = ErrorBody::new("the site is stopping", Reason::Stopping);
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    Json(json!({})).into_response()
}

/// POST `/qurrent/v1/terminals`: pins up the state of a telecontrol session.
pub(super) async fn terminal(
    State(state): State<ApiState>,
    Extension(caller): Extension<Identity>,
    report: Result<Json<TerminalReport>, JsonRejection>,
) -> Response {
    let Json(report) = match report {
        Ok(report) => report,
        Err(wrong) => return malformed(&wrong),
    };
    if !served_here(&state, &caller) {
        return refused("this SAE is not served by this site");
    }
    state.board.add_terminal(report);
    Json(json!({})).into_response()
}

/// The model version that an event speaks of, for the board.
fn model_of(event: &Event) -> Option<ModelReport> {
    let (model, version, digest, bytes, published) = match event {
        Event::ModelPublished { model, version, manifest_sha256, bytes, .. } => {
            (model, version, manifest_sha256, bytes, true)
        }
        Event::ModelFetched { model, version, manifest_sha256, bytes } => {
            (model, version, manifest_sha256, bytes, false)
        }
        _ => return None,
    };
    let manifest = digest.chars().take(16).collect();
    Some(ModelReport { model: model.clone(), version: *version, published, bytes: *bytes, manifest })
}

/// Model events come from the site's vault alone, telecontrol events from gateways and terminals served here.
fn may_report(state: &ApiState, caller: &Identity, event: &Event) -> bool {
    let of_model =
        matches!(event, Event::ModelPublished { .. } | Event::ModelFetched { .. } | Event::ModelRefused { .. });
    let of_telecontrol =
        matches!(event, Event::BatchCut { .. } | Event::ProtectionChanged { .. } | Event::SessionClosed { .. });
    let vault = vault_sae(state.keeper.site()).ok();
    let from_vault = matches!(caller, Identity::Sae(sae) if Some(sae) == vault.as_ref());
    served_here(state, caller) && (of_model && from_vault || of_telecontrol)
}

fn served_here(state: &ApiState, caller: &Identity) -> bool {
    matches!(caller, Identity::Sae(sae) if state.keeper.serves(sae))
}

fn refused(message: &str) -> Response {
    (StatusCode::UNAUTHORIZED, Json(ErrorBody::new(message, Reason::NotAuthorised))).into_response()
}

fn malformed(wrong: &JsonRejection) -> Response {
    let body = ErrorBody::new(text::MALFORMED, Reason::Malformed).with("detail", wrong.body_text());
    (wrong.status(), Json(body)).into_response()
}
