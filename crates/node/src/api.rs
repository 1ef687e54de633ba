//! HTTP interfaces of a site, over mutual TLS: ETSI GS QKD 014 for SAEs, and the intake of events and
//! telecontrol states from processes of the same site.

mod etsi014;
mod intake;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::board::Board;
use crate::keeper::Keeper;

/// What handlers need.
#[derive(Clone)]
pub struct ApiState {
    /// The site's keys and log.
    pub keeper: Keeper,
    /// The site's notice board.
    pub board: Arc<Board>,
}

/// All routes of a site.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/keys/{sae}/status", get(etsi014::status))
        .route("/api/v1/keys/{sae}/enc_keys", get(etsi014::get_key_simple).post(etsi014::get_key))
        .route("/api/v1/keys/{sae}/dec_keys", get(etsi014::get_key_by_id).post(etsi014::get_key_by_ids))
        .route("/qurrent/v1/events", post(intake::event))
        .route("/qurrent/v1/terminals", post(intake::terminal))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .fallback(etsi014::unknown_path)
        .method_not_allowed_fallback(etsi014::wrong_method)
        .with_state(state)
}

const BODY_MAX: usize = 256 * 1024;
