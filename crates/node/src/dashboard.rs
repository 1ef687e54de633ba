//! The dashboard: a read-only web page of the whole network, rendered here and renewed live, without anything
//! from the internet and complete without JavaScript.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page |
//! | `/events` | Server-Sent Events: the page's changing part, at most once a second |
//! | `/api/report` | reports of all sites, JSON |
//! | `/metrics` | the same as metrics, OpenMetrics text |
//! | `/healthz` | `ok` while this process serves |
//! | `/style.css`, `/live.js`, `/icon.svg` | what the page loads |
//!
//! Provided: bounds on connections, header time, open pages and the life of a connection; a content security
//! policy that allows own files only; every text of a report escaped and cut. Not provided: TLS and sign-in. It
//! shows counts and times, never key, and listens where the configuration says: keep that inside the control
//! network, or put a reverse proxy before it.

mod alarm;
mod figures;
mod layout;
mod live;
mod map;
mod page;
#[cfg(test)]
mod sample;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::id::SiteId;
use types::network::Network;
use types::units::UtcNanos;

use self::layout::Layout;
use self::live::Live;
use self::view::View;
use crate::board::Board;
use crate::report::SiteReport;
use crate::serve::accept;
use crate::{clock, metrics};

/// Serves the dashboard until the token is cancelled; open requests then have two seconds to end.
pub async fn serve(listener: TcpListener, board: Arc<Board>, network: Network, stop: CancellationToken) {
    let layout = Layout::new(&network);
    let dashboard = Arc::new(Dashboard { board, network, layout, live: Live::new(), stop: stop.clone() });
    let tasks = TaskTracker::new();
    tasks.spawn(live::render(dashboard.clone()));
    plain_http(listener, router(dashboard), tasks, stop).await;
}

/// Serves the metrics of one site alone until the token is cancelled: `/metrics` and `/healthz`.
pub async fn serve_metrics(listener: TcpListener, board: Arc<Board>, site: SiteId, stop: CancellationToken) {
    let own = async move || {
        let reports: Vec<_> = board.sites().into_iter().filter(|report| report.site == site).collect();
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&reports, clock::utc_now()))
    };
    let router = Router::new()
        .route("/metrics", get(own))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(map_response(secured));
    plain_http(listener, router, TaskTracker::new(), stop).await;
}

async fn plain_http(listener: TcpListener, router: Router, tasks: TaskTracker, stop: CancellationToken) {
    let handle = |tcp| connection(tcp, router.clone(), stop.clone());
    accept(&listener, CONNECTIONS_MAX, &stop, &tasks, || {}, handle).await;
    drop(listener);
    tasks.close();
    drop(timeout(DRAIN_MAX, tasks.wait()).await);
}

struct Dashboard {
    board: Arc<Board>,
    network: Network,
    layout: Layout,
    live: Live,
    stop: CancellationToken,
}

impl Dashboard {
    fn page(&self) -> String {
        let reports = self.board.sites();
        page::document(&View::new(&self.network, &reports, clock::utc_now()), &self.layout).into_string()
    }

    fn fragment(&self) -> String {
        let reports = self.board.sites();
        page::fragment(&View::new(&self.network, &reports, clock::utc_now()), &self.layout).into_string()
    }
}

fn router(dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/", get(async |State(dashboard): State<Arc<Dashboard>>| Html(dashboard.page())))
        .route("/events", get(live::events))
        .route("/api/report", get(report))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/style.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)))
        .route("/live.js", get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)))
        .route("/icon.svg", get(async || ([(header::CONTENT_TYPE, "image/svg+xml")], ICON)))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(map_response(secured))
        .with_state(dashboard)
}

/// Everything that the dashboard knows, for programs.
#[derive(Serialize)]
struct Report<'a> {
    network: &'a str,
    made: UtcNanos,
    sites: Vec<SiteReport>,
}

async fn report(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let (made, sites) = (clock::utc_now(), dashboard.board.sites());
    Json(Report { network: dashboard.network.name(), made, sites }).into_response()
}

async fn metrics_text(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let text = metrics::text(&dashboard.board.sites(), clock::utc_now());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn connection(tcp: TcpStream, router: Router, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return drop(ended),
        // A reader that stands still would otherwise hold its place for ever.
        () = sleep(CONNECTION_MAX) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(DRAIN_MAX, connection).await);
}

const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = include_str!("dashboard/live.js");
const ICON: &str = include_str!("dashboard/icon.svg");

const SECURITY_HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

const CONNECTIONS_MAX: usize = 256;
const CONNECTION_MAX: Duration = Duration::from_secs(900);
const HEADER_MAX: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 16 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(2);
