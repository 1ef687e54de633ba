//! Live updates: one task renders the changing part of the page, at most once a second, and every open page gets
//! the newest rendering over Server-Sent Events. A slow page skips renderings; it never queues them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Dashboard;

/// The newest rendering and who gets it.
pub(super) struct Live {
    newest: watch::Sender<Arc<str>>,
    pages: Arc<Semaphore>,
}

impl Live {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self { newest: watch::Sender::new(Arc::from("")), pages: Arc::new(Semaphore::new(PAGES_MAX)) }
    }
}

/// Renders whenever a report came, and now and then without one so that ages grow, as long as somebody watches.
pub(super) async fn render(dashboard: Arc<Dashboard>) {
    let mut changed = dashboard.board.watch();
    loop {
        tokio::select! {
            // The board is never dropped while the dashboard holds it.
            _ = changed.changed() => {}
            () = sleep(QUIET_MAX) => {}
            () = dashboard.stop.cancelled() => return,
        }
        if dashboard.live.newest.receiver_count() > 0 {
            dashboard.live.newest.send_replace(Arc::from(dashboard.fragment()));
        }
        tokio::select! {
            () = sleep(PUSH_GAP) => {}
            () = dashboard.stop.cancelled() => return,
        }
    }
}

/// `GET /events`: the rendering of now, then each newer one, as events named `fragment`.
pub(super) async fn events(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let Ok(page) = dashboard.live.pages.clone().try_acquire_owned() else {
        tracing::info!("more than {PAGES_MAX} pages are open; one more was turned away");
        let wait = [(header::RETRY_AFTER, HeaderValue::from_static("10"))];
        return (StatusCode::SERVICE_UNAVAILABLE, wait, "too many open pages\n").into_response();
    };
    // Subscribed before rendered: a report in between is sent again, not lost.
    let mut newest = dashboard.live.newest.subscribe();
    newest.mark_unchanged();
    let first = Some(dashboard.fragment());
    let open = OpenPage { dashboard, newest, first, ends: Instant::now() + STREAM_MAX, _page: page };
    Sse::new(stream::unfold(open, |mut open| async {
        let event = open.next().await?;
        Some((Ok::<_, Infallible>(event), open))
    }))
    .into_response()
}

struct OpenPage {
    dashboard: Arc<Dashboard>,
    newest: watch::Receiver<Arc<str>>,
    first: Option<String>,
    ends: Instant,
    _page: OwnedSemaphorePermit,
}

impl OpenPage {
    /// The next event; `None` ends the stream, and the page connects anew.
    async fn next(&mut self) -> Option<Event> {
        let event = Event::default().event("fragment").retry(RETRY_AFTER);
        if let Some(first) = self.first.take() {
            return Some(event.data(first));
        }
        tokio::select! {
            changed = self.newest.changed() => changed.ok()?,
            () = sleep_until(self.ends) => return None,
            () = self.dashboard.stop.cancelled() => return None,
        }
        let html = self.newest.borrow_and_update().clone();
        Some(event.data(&*html))
    }
}

/// Open pages with live updates.
pub(super) const PAGES_MAX: usize = 64;

const PUSH_GAP: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const STREAM_MAX: Duration = Duration::from_secs(600);
