//! The client against a server on loopback that does what it is told.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{Credentials, Error, KeyRequest, Kme, Reason, Route, Timeouts, Wishes};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use types::id::SaeId;

const ID: &str = "6f1d3b0a-7c2e-4f59-9a56-2b1c0d3e4f50";

/// An authority and what it signed.
struct Pki {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn credentials(&self) -> Credentials {
        let (certificate, key) = self.issue("sae");
        Credentials::from_pem(self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

/// What the server does with a request.
#[derive(Clone)]
enum Act {
    /// Answers and keeps the connection.
    Answer(&'static str, String),
    /// Closes without an answer.
    Close,
    /// Does nothing.
    Hang,
}

/// A server that does one act after the other, over all its connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

async fn serve(pki: &Pki, acts: Vec<Act>) -> Server {
    let (certificate, key) = pki.issue("kme");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca.as_bytes()).unwrap()).unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Server { address, connections: connections.clone(), requests: requests.clone() };
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, acts) = (acceptor.clone(), acts.clone());
            let (connections, requests) = (connections.clone(), requests.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                connections.fetch_add(1, Ordering::SeqCst);
                let mut bytes = Vec::new();
                loop {
                    let mut chunk = [0; 4096];
                    match tls.read(&mut chunk).await {
                        Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                    if !is_whole(&bytes) {
                        continue;
                    }
                    bytes.clear();
                    let nth = requests.fetch_add(1, Ordering::SeqCst);
                    match acts.get(nth).or(acts.last()).unwrap() {
                        Act::Answer(head, body) => {
                            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                            tls.write_all(answer.as_bytes()).await.unwrap();
                        }
                        Act::Close => return,
                        Act::Hang => std::future::pending().await,
                    }
                }
            });
        }
    });
    server
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}

fn sae(text: &str) -> SaeId {
    SaeId::new(text).unwrap()
}

fn kme(pki: &Pki, server: &Server) -> Kme {
    Kme::new(server.address.into(), &pki.credentials()).unwrap()
}

fn container(keys: usize) -> Act {
    let key = format!(r#"{{"key_ID":"{ID}","key":"{}"}}"#, "AAAAAAAAAAA=");
    Act::Answer("200 OK", format!(r#"{{"keys":[{}]}}"#, vec![key; keys].join(",")))
}

fn refused(head: &'static str, body: &str) -> Act {
    Act::Answer(head, body.to_owned())
}

#[tokio::test]
async fn calls_share_a_connection_and_calls_at_once_have_their_own() {
    let pki = Pki::new();
    let server = serve(&pki, vec![container(1)]).await;
    let kme = kme(&pki, &server);
    for _ in 0..5 {
        assert_eq!(kme.encrypt(&sae("peer"), 1, 64).await.unwrap().len(), 1);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let peer = sae("peer");
    let (one, two, three) =
        tokio::join!(kme.encrypt(&peer, 1, 64), kme.encrypt(&peer, 1, 64), kme.encrypt(&peer, 1, 64));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert!(server.connections.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn keys_are_asked_for_once_and_a_status_again() {
    let pki = Pki::new();
    let server = serve(&pki, vec![container(1), Act::Close, container(1)]).await;
    let kme = kme(&pki, &server);
    kme.encrypt(&sae("peer"), 1, 64).await.unwrap();
    let lost = kme.encrypt(&sae("peer"), 1, 64).await.unwrap_err();
    assert!(matches!(lost, Error::Unavailable { sent: true, .. }), "{lost:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 2, "the lost request was not sent again");
    kme.encrypt(&sae("peer"), 1, 64).await.unwrap();

    let status = r#"{"source_KME_ID":"a","target_KME_ID":"b","master_SAE_ID":"c","slave_SAE_ID":"d","key_size":256,
        "stored_key_count":1,"max_key_count":2,"max_key_per_request":3,"max_key_size":4,"min_key_size":5,
        "max_SAE_ID_count":0,"status_extension":{"qurrent_keys_per_second":1.5,"other":[]}}"#;
    let good = refused("200 OK", status);
    let server = serve(&pki, vec![good.clone(), Act::Close, good]).await;
    let kme = self::kme(&pki, &server);
    assert_eq!(kme.status(&sae("d")).await.unwrap().stored_key_count, 1);
    let said = kme.status(&sae("d")).await.unwrap();
    assert_eq!(said.status_extension.unwrap().keys_per_second, Some(1.5));
}

#[tokio::test]
async fn refusals_are_sorted_by_what_can_be_done() {
    let not_found = r#"{"message":"one or more keys specified are not found on KME"}"#;
    let of = |reason: &str| format!(r#"{{"message":"no","details":[{{"reason":"{reason}"}}]}}"#);
    type Check = fn(&Error) -> bool;
    let cases: [(Act, Check); 12] = [
        (refused("401 Unauthorized", ""), |e| matches!(e, Error::Unauthorised(_))),
        (refused("400 Bad Request", not_found), |e| matches!(e, Error::KeysNotFound(_))),
        (refused("400 Bad Request", &of("key_not_found")), |e| matches!(e, Error::KeysNotFound(_))),
        (refused("404 Not Found", "<html>"), |e| matches!(e, Error::KeysNotFound(_))),
        (refused("404 Not Found", &of("no_such_path")), |e| matches!(e, Error::Malformed(_))),
        (refused("400 Bad Request", "{}"), |e| matches!(e, Error::Malformed(_))),
        (
            refused("400 Bad Request", &of("extension_unmet")),
            |e| matches!(e, Error::Malformed(refused) if refused.body.reason() == Some(Reason::ExtensionUnmet)),
        ),
        (
            refused("503 Service Unavailable\r\nretry-after: 7", &of("not_enough_key")),
            |e| matches!(e, Error::NotEnough { retry_after, .. } if retry_after.as_secs() == 7),
        ),
        (refused("503 Service Unavailable", &of("peer_down")), |e| matches!(e, Error::Busy { retry_after: None, .. })),
        (refused("500 Oops", ""), |e| matches!(e, Error::Busy { .. })),
        (refused("200 OK", "[]"), |e| matches!(e, Error::Protocol { .. })),
        (container(0), |e| matches!(e, Error::Protocol { .. })),
    ];
    let pki = Pki::new();
    for (act, check) in cases {
        let server = serve(&pki, vec![act]).await;
        let error = kme(&pki, &server).decrypt(&sae("peer"), ID.parse().unwrap()).await.unwrap_err();
        assert!(check(&error), "{error:?}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn other_keys_than_asked_for_are_refused() {
    let pki = Pki::new();
    let server = serve(&pki, vec![container(2)]).await;
    let kme = kme(&pki, &server);
    assert!(matches!(kme.encrypt(&sae("peer"), 1, 64).await, Err(Error::Protocol { .. })), "too many");
    assert!(matches!(kme.encrypt(&sae("peer"), 2, 128).await, Err(Error::Protocol { .. })), "too short");
    let wishes = Wishes { route: Some(Route::Direct), ..Wishes::default() };
    let request = KeyRequest { number: 2, mandatory: wishes, ..KeyRequest::default() };
    assert_eq!(kme.encrypt_with(&sae("peer"), &request, &[], &[]).await.unwrap().len(), 2);
    let other = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert!(matches!(kme.decrypt(&sae("peer"), other).await, Err(Error::Protocol { .. })), "another id");
}

#[tokio::test]
async fn a_kme_that_is_not_there_or_mute_or_a_stranger_is_told_apart() {
    let pki = Pki::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Kme::new(nobody.into(), &pki.credentials()).unwrap();
    assert!(matches!(gone.status(&sae("d")).await, Err(Error::Unavailable { sent: false, .. })));

    let server = serve(&pki, vec![Act::Hang]).await;
    let short = Timeouts { answer: Duration::from_millis(50), ..Timeouts::default() };
    let mute = kme(&pki, &server).with_timeouts(short).encrypt(&sae("d"), 1, 64).await;
    assert!(matches!(mute, Err(Error::Unavailable { sent: true, .. })), "{mute:?}");

    let stranger = Pki::new();
    let refused = kme(&stranger, &server).status(&sae("d")).await;
    assert!(matches!(refused, Err(Error::Handshake { .. })), "{refused:?}");
    // The server is trusted, and does not trust the client: TLS 1.3 tells it late.
    let (certificate, key) = stranger.issue("sae");
    let theirs = Credentials::from_pem(pki.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
    let refused = Kme::new(server.address.into(), &theirs).unwrap().status(&sae("d")).await;
    assert!(matches!(refused, Err(Error::Handshake { .. })), "{refused:?}");
}

#[test]
fn addresses_are_read_as_people_write_them() {
    for text in ["kme.example:8443", "192.0.2.1:443", "[2001:db8::1]:443"] {
        assert_eq!(text.parse::<client::Server>().unwrap().to_string(), text);
    }
    for text in ["", "kme", ":1", "kme:x", "kme:70000"] {
        assert!(text.parse::<client::Server>().is_err(), "{text}");
    }
    let setup = Credentials::from_pem(b"", b"", b"").map(drop).unwrap_err();
    assert!(matches!(setup, Error::Setup { .. }), "{setup}");
}
