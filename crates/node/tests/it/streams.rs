//! ETSI GS QKD 004: key streams between two sites, with clients of both dialects.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etsi::etsi004::{Client, Decoder, Dialect, GetResponse, Ksid, Mimetype, OpenResponse, Qos, Response, Status};
use node::config::TlsFiles;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::world::{World, str_of, wait_until};

/// A client of the dialect with terminated texts: a connection for every call.
pub struct Caller {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    client: Client,
}

impl Caller {
    pub fn new(world: &World, site: &str, sae: &str, other: &str) -> Self {
        let folder = world.sae(site, sae);
        let file = |name: &str| folder.join(name);
        let files = TlsFiles { ca: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem"), crl: None };
        let client = Client::new(Dialect::Terminated, &format!("qkd://{sae}"), &format!("qkd://{other}"));
        Self { address: stream_port(world, site), tls: node::tls::client(&files).unwrap(), client }
    }

    fn call(&mut self, frame: &[u8]) -> Response {
        let name = node::tls::server_name(self.address.ip());
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(70))).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(self.tls.clone(), name).unwrap(), tcp);
        stream.write_all(frame).unwrap();
        let mut decoder = Decoder::of_responses();
        let mut buffer = [0; 4_096];
        loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                return self.client.response(&frame).unwrap();
            }
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the server closed the connection");
            decoder.push(&buffer[..count]);
        }
    }

    pub fn open(&mut self, qos: Qos, ksid: Ksid) -> OpenResponse {
        let frame = self.client.open(qos, ksid).unwrap();
        match self.call(&frame) {
            Response::Open(open) => open,
            other => panic!("{other:?}"),
        }
    }

    fn try_get(&mut self, index: u32) -> GetResponse {
        let frame = self.client.get(index, 0).unwrap();
        match self.call(&frame) {
            Response::Get(get) => get,
            other => panic!("{other:?}"),
        }
    }

    /// A chunk, asked for again while key is being made.
    pub fn get(&mut self, index: u32) -> Vec<u8> {
        let begun = Instant::now();
        loop {
            let response = self.try_get(index);
            match response.status {
                Status::Success => return response.key.expose(<[u8]>::to_vec),
                Status::InsufficientKey | Status::Timeout => {}
                other => panic!("GET_KEY {index}: {other:?}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(90), "no key for chunk {index}");
        }
    }

    pub fn close(&mut self) -> Status {
        let frame = self.client.close().unwrap();
        self.call(&frame).status()
    }
}

fn stream_port(world: &World, site: &str) -> SocketAddr {
    let config: toml::Table = std::fs::read_to_string(world.node(site)).unwrap().parse().unwrap();
    config["etsi004"]["listen"].as_str().unwrap().parse().unwrap()
}

pub fn qos(chunk: u32) -> Qos {
    Qos { key_chunk_size: chunk, mimetype: Mimetype::json(), ..Qos::default() }
}

/// The client of the other dialect, as a process.
fn python(world: &World, ksid: Ksid, count: u32) -> Child {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/etsi004_client.py");
    let address = stream_port(world, "west").to_string();
    Command::new("python3")
        .args([str_of(&script), &address, str_of(&world.sae("west", "app-west"))])
        .args(["qkd://app-west", "qkd://app-east", &ksid.to_string(), "0", &count.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn two_dialects_read_one_stream_of_a_thousand_chunks() {
    const CHUNKS: u32 = 1_000;
    let world = World::start();
    let mut east = Caller::new(&world, "east", "app-east", "app-west");
    let opened = east.open(qos(16), Ksid::NULL);
    assert_eq!((opened.status, &opened.qos.mimetype), (Status::PeerNotConnected, &Mimetype::json()));
    assert_eq!(east.try_get(0).status, Status::GetPeerNotConnected);

    let west = python(&world, opened.ksid, CHUNKS);
    wait_until(Duration::from_secs(20), "the other application opens the stream", || {
        east.try_get(CHUNKS).status == Status::Success
    });
    let ours: Vec<_> = (0..CHUNKS).map(|index| hex::encode(east.get(index))).collect();
    let output = west.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(ours == theirs, "both read the same stream");
    assert_eq!(ours.iter().collect::<BTreeSet<_>>().len(), ours.len(), "no chunk twice");
    assert_eq!(east.try_get(CHUNKS + 1).status, Status::GetPeerNotConnected, "the other one has closed");
    assert_eq!(east.close(), Status::Success);
    two_of_one_dialect(&world);
}

/// A connection for every call at both ends, in different orders, and others who want in.
fn two_of_one_dialect(world: &World) {
    let mut east = Caller::new(world, "east", "app-east", "app-west");
    let mut west = Caller::new(world, "west", "app-west", "app-east");
    let opened = west.open(qos(32), Ksid::NULL);
    assert_eq!(opened.status, Status::PeerNotConnected);
    assert_eq!(east.open(Qos::default(), opened.ksid).status, Status::Success);
    let mut stranger = Caller::new(world, "middle", "app-middle", "app-west");
    assert_eq!(stranger.open(qos(32), opened.ksid).status, Status::KsidInUse);
    let forward: Vec<_> = (0..40).map(|index| east.get(index)).collect();
    let mut backward: Vec<_> = (0..40).rev().map(|index| west.get(index)).collect();
    backward.reverse();
    assert!(forward == backward);
    assert_eq!((west.close(), east.close()), (Status::Success, Status::Success));
}

#[test]
fn kill_9_of_a_site_ends_the_stream_and_repeats_no_chunk() {
    let mut world = World::start();
    let mut seen = BTreeSet::new();
    let mut read = |world: &World, ksid: Ksid, count: u32| {
        let mut east = Caller::new(world, "east", "app-east", "app-west");
        let mut west = Caller::new(world, "west", "app-west", "app-east");
        let first = east.open(qos(32), ksid);
        assert!(matches!(first.status, Status::PeerNotConnected | Status::Success), "{:?}", first.status);
        assert_eq!(west.open(Qos::default(), first.ksid).status, Status::Success);
        for index in 0..count {
            let chunk = west.get(index);
            assert_eq!(east.get(index), chunk, "chunk {index}");
            assert!(seen.insert(chunk), "chunk {index} came before");
        }
        // Ahead of the other end: what only one has got when the power fails is never given again.
        for index in count..count + 20 {
            assert!(seen.insert(east.get(index)), "chunk {index} came before");
        }
        (east, west, first.ksid)
    };
    for victim in ["west", "east"] {
        let (mut east, mut west, ksid) = read(&world, Ksid::NULL, 40);
        world.kill_9(victim);
        world.spawn_site(victim);
        world.wait_for_keys("east", "app-west", 8);
        world.wait_for_keys("west", "app-east", 8);
        for (name, caller) in [("east", &mut east), ("west", &mut west)] {
            wait_until(Duration::from_secs(30), &format!("{name} learns that the stream is gone"), || {
                caller.try_get(500).status == Status::NoConnection
            });
        }
        // The same name again: another stream.
        let (mut east, mut west, again) = read(&world, ksid, 40);
        assert_eq!(again, ksid);
        assert_eq!((east.close(), west.close()), (Status::Success, Status::Success));
    }
}
