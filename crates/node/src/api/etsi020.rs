//! ETSI GS QKD 020 V1.1.1, the side that is called: versions, transfer, acknowledge, void.
//!
//! Provided: asynchronous and synchronous mode, a problem (RFC 9457) on every refusal, never a 500 for what came in.
//! What a request means is decided by the interworking core; here bytes become requests and replies become bytes.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use etsi::etsi020::{
    ACK_PATH, AckContainers, BODY_MAX, CONTENT_TYPE, EXT_KEYS_PATH, ExtKeyContainer, Problem, ProblemKind,
    SYNCHRONOUS_MODE, VERSION, VERSIONS_PATH, VOID_PATH, VersionContainer, VoidContainer,
};
use http_body_util::BodyExt as _;
use kms::interwork::{PeerRequest, Reply};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::keeper::Keeper;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The foreign KME, if its certificate names the configured one.
    pub peer: Option<String>,
}

/// All routes for one foreign KME.
pub fn router(keeper: Keeper) -> Router {
    Router::new()
        .route(VERSIONS_PATH, get(versions))
        .route(EXT_KEYS_PATH, post(transfer))
        .route(ACK_PATH, post(acknowledge))
        .route(VOID_PATH, post(void))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(keeper)
}

async fn versions(Extension(caller): Extension<Caller>) -> Response {
    if caller.peer.is_none() {
        return refused(&unauthorized());
    }
    let container = VersionContainer {
        versions: vec![VERSION.to_owned()],
        capabilities: vec![SYNCHRONOUS_MODE.to_owned()],
        extension: None,
    };
    json(StatusCode::OK, container.to_json())
}

async fn transfer(State(keeper): State<Keeper>, Extension(caller): Extension<Caller>, body: Body) -> Response {
    let parse =
        |body: &[u8]| ExtKeyContainer::parse(body).map(PeerRequest::Transfer).map_err(|why| Problem::of_transfer(&why));
    answer(&keeper, caller, body, parse).await
}

async fn acknowledge(State(keeper): State<Keeper>, Extension(caller): Extension<Caller>, body: Body) -> Response {
    let parse = |body: &[u8]| AckContainers::parse(body).map(PeerRequest::Ack).map_err(|why| Problem::of_ack(&why));
    answer(&keeper, caller, body, parse).await
}

async fn void(State(keeper): State<Keeper>, Extension(caller): Extension<Caller>, body: Body) -> Response {
    let parse = |body: &[u8]| VoidContainer::parse(body).map(PeerRequest::Void).map_err(|why| Problem::of_void(&why));
    answer(&keeper, caller, body, parse).await
}

async fn unknown_path() -> Response {
    let text = format!("This KME serves {VERSIONS_PATH}, {EXT_KEYS_PATH}, {ACK_PATH} and {VOID_PATH}.");
    refused(&Problem::new(404, ProblemKind::InvalidParameter, "unknown_path", text))
}

async fn wrong_method() -> Response {
    refused(&Problem::new(405, ProblemKind::InvalidParameter, "method", "This resource has no such method."))
}

async fn answer(
    keeper: &Keeper,
    caller: Caller,
    body: Body,
    parse: impl FnOnce(&[u8]) -> Result<PeerRequest, Problem>,
) -> Response {
    let Some(peer) = caller.peer else { return refused(&unauthorized()) };
    let request = match whole(body).await.and_then(|body| parse(&body)) {
        Ok(request) => request,
        Err(problem) => return refused(&problem),
    };
    match keeper.foreign_request(peer, request).await {
        Some(Reply::Accepted) => StatusCode::ACCEPTED.into_response(),
        Some(Reply::Taken) => StatusCode::OK.into_response(),
        Some(Reply::Resolved(acks)) => json(StatusCode::OK, acks.to_json()),
        Some(Reply::Refused(problem)) => refused(&problem),
        None => {
            let text = "The key management entity is stopping.";
            refused(&Problem::new(503, ProblemKind::ServerSide, "server_side_general_error", text))
        }
    }
}

/// The whole body, in memory that is wiped after use.
async fn whole(mut body: Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut all = Zeroizing::new(Vec::new());
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(late()) };
            let Ok(bytes) = frame.into_data() else { continue };
            if all.len() + bytes.len() > BODY_MAX {
                let text = format!("A body has at most {BODY_MAX} bytes.");
                return Err(Problem::new(400, ProblemKind::InvalidParameter, "malformed_property", text));
            }
            grow(&mut all, bytes.len());
            all.extend_from_slice(&bytes);
        }
        Ok(())
    };
    match timeout(BODY_TIME_MAX, read).await {
        Ok(Ok(())) => Ok(all),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(late()),
    }
}

/// Makes room without leaving an unwiped copy behind.
fn grow(all: &mut Zeroizing<Vec<u8>>, more: usize) {
    if all.capacity() - all.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity((2 * all.capacity()).max(all.len() + more)));
        larger.extend_from_slice(all);
        *all = larger;
    }
}

fn late() -> Problem {
    Problem::new(408, ProblemKind::Timeout, "timeout", "A complete request was not received in time.")
}

fn unauthorized() -> Problem {
    let text = "The certificate does not name the key management entity that is configured for this listener.";
    Problem::new(401, ProblemKind::Unauthorized, "unauthorized", text)
}

fn refused(problem: &Problem) -> Response {
    let status = problem.status.and_then(|status| StatusCode::from_u16(status).ok());
    json(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE), problem.to_json())
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], body).into_response()
}

const BODY_TIME_MAX: Duration = Duration::from_secs(10);
