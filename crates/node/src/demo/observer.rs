//! Sees the network as any user can: through the dashboard's JSON interface.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::failure::{Context as _, Failure, Outcome};
use crate::report::SiteReport;

/// Reads reports from one dashboard.
#[derive(Clone, Debug)]
pub struct Observer {
    dashboard: SocketAddr,
}

impl Observer {
    /// An observer of the dashboard at an address.
    #[must_use]
    pub fn new(dashboard: SocketAddr) -> Self {
        Self { dashboard }
    }

    /// The newest report of every site.
    ///
    /// # Errors
    /// If the dashboard does not answer.
    pub async fn reports(&self) -> Outcome<Vec<SiteReport>> {
        let what = || format!("dashboard at {}", self.dashboard);
        let tcp = TcpStream::connect(self.dashboard).await.context(what)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.context(what)?;
        tokio::spawn(connection);
        let request = Request::get("/api/report")
            .header(header::HOST, self.dashboard.to_string())
            .body(Empty::<Bytes>::new())
            .context(what)?;
        let answer = sender.send_request(request).await.context(what)?;
        let body = answer.into_body().collect().await.context(what)?.to_bytes();
        let view: View = serde_json::from_slice(&body).context(what)?;
        Ok(view.sites)
    }

    /// Polls until `enough` says yes; `describe` names what is missing when time is up.
    ///
    /// # Errors
    /// If time is up.
    pub async fn until(
        &self,
        limit: Duration,
        mut enough: impl FnMut(&[SiteReport]) -> bool,
        describe: impl FnOnce(&[SiteReport]) -> String,
    ) -> Outcome<Vec<SiteReport>> {
        let begun = Instant::now();
        loop {
            let reports = self.reports().await.unwrap_or_default();
            if enough(&reports) {
                return Ok(reports);
            }
            if begun.elapsed() > limit {
                return Err(Failure::new(format!("after {} s: {}", limit.as_secs(), describe(&reports)))
                    .remedy("look into the log files of the demo's folder"));
            }
            sleep(POLL).await;
        }
    }
}

/// The part of `/api/report` that the demo looks at.
#[derive(Deserialize)]
struct View {
    sites: Vec<SiteReport>,
}

const POLL: Duration = Duration::from_millis(200);
