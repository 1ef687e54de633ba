//! What one caller cannot do to the others: be silent, be many, be slow; and what a wrong request gets.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::raw::{Https, tls};
use crate::world::{World, wait_until};

/// A site alone, with keys between its own SAEs and other limits than the usual.
fn alone(limits: &[(&str, i64)]) -> World {
    let mut world = World::provision();
    world.configure("east", |config| {
        for (name, limit) in limits {
            config["limits"][*name] = (*limit).into();
        }
    });
    world.start_alone("east");
    world
}

#[test]
fn silent_clients_do_not_delay_others() {
    let world = alone(&[("handshake_s", 120), ("body_s", 120)]);
    let address = world.listen("east", "kme");
    let mut silent: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(address).unwrap()).collect();
    // Half of them begin a handshake and stop in its middle: a record's head and a part of a ClientHello.
    for half in silent.iter_mut().skip(200) {
        half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7]).unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut open = Https::connect(&world, "east", "app-east");
        open.send(b"POST /api/v1/keys/vault-east/enc_keys HTTP/1.1\r\nhost: kme\r\ncontent-length: 9\r\n\r\n{")
            .unwrap();
        held.push(open);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        let mut client = Https::connect(&world, "east", "vault-east");
        for _ in 0..10 {
            assert_eq!(client.request("GET", "/api/v1/keys/app-east/enc_keys", None).unwrap().status, 200);
        }
    }
    // The silent ones are let go after two minutes; who waited for one of them would be later.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_caller_and_an_address_have_no_more_connections_than_they_may() {
    let world = alone(&[("connections_per_caller", 4), ("connections_per_address", 12)]);
    let status = |client: &mut Https| client.request("GET", "/api/v1/keys/vault-east/status", None);
    let mut of_app: Vec<_> = (0..4).map(|_| Https::connect(&world, "east", "app-east")).collect();
    of_app.iter_mut().for_each(|client| assert_eq!(status(client).unwrap().status, 200));
    assert!(status(&mut Https::connect(&world, "east", "app-east")).is_err(), "a fifth of one caller");
    let mut of_vault = Https::connect(&world, "east", "vault-east");
    assert_eq!(of_vault.request("GET", "/api/v1/keys/app-east/status", None).unwrap().status, 200);
    of_app.pop();
    wait_until(Duration::from_secs(10), "the place of a connection that ended", || {
        status(&mut Https::connect(&world, "east", "app-east")).is_ok_and(|answer| answer.status == 200)
    });

    let address = world.listen("east", "kme");
    let _silent: Vec<_> = (0..12).map(|_| TcpStream::connect(address).unwrap()).collect();
    let config = tls(&world.sae("east", "vault-east"));
    wait_until(Duration::from_secs(10), "a client turned away", || {
        let opened = Https::open(address, config.clone());
        opened.and_then(|mut client| client.request("GET", "/api/v1/keys/app-east/status", None)).is_err()
    });
    assert_eq!(of_vault.request("GET", "/api/v1/keys/app-east/status", None).unwrap().status, 200);
}

#[test]
fn slow_heads_and_bodies_are_not_waited_for() {
    let world = alone(&[("head_s", 1), ("body_s", 1), ("handshake_s", 1)]);
    let mut slow = Https::connect(&world, "east", "app-east");
    slow.send(b"POST /api/v1/keys/vault-east/enc_keys HTTP/1.1\r\nhost: kme\r\ncontent-length: 9\r\n\r\n{").unwrap();
    let answer = slow.answer(false).unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (408, "too_slow"));

    let mut slow = Https::connect(&world, "east", "app-east");
    slow.send(b"GET /api/v1/keys/vault-east/status HTTP/1.1\r\nhos").unwrap();
    assert!(slow.answer(false).is_err(), "a head that never ends is closed");

    let mut idle = Https::connect(&world, "east", "app-east");
    assert_eq!(idle.request("GET", "/api/v1/keys/vault-east/status", None).unwrap().status, 200);
    assert!(idle.answer(false).is_err(), "an idle connection is closed");

    use std::io::Read as _;
    let mut mute = TcpStream::connect(world.listen("east", "kme")).unwrap();
    assert_eq!(mute.read(&mut [0]).unwrap_or(0), 0, "a handshake that never begins is closed");
}

#[test]
fn every_wrong_request_has_a_json_body_with_its_code() {
    let world = alone(&[]);
    let connect = || Https::connect(&world, "east", "app-east");
    let mut client = connect();
    for (method, path, status, reason, allow) in [
        ("GET", "/", 404, "no_such_path", None),
        ("GET", "/api/v1/keys", 404, "no_such_path", None),
        ("GET", "/api/v1/keys/", 404, "no_such_path", None),
        ("GET", "/api/v1/keys/vault-east", 404, "no_such_path", None),
        ("GET", "/api/v1/keys/vault-east/keys", 404, "no_such_path", None),
        ("GET", "/api/v1/keys//status", 404, "no_such_path", None),
        ("POST", "/api/v1/keys/vault-east/status", 405, "method_not_allowed", Some("GET")),
        ("DELETE", "/api/v1/keys/vault-east/enc_keys", 405, "method_not_allowed", Some("GET, POST")),
        ("PUT", "/api/v1/keys/vault-east/dec_keys", 405, "method_not_allowed", Some("GET, POST")),
        ("POST", "/api/v1/openapi.yaml", 405, "method_not_allowed", Some("GET")),
        ("GET", "/qurrent/v1/events", 405, "method_not_allowed", Some("POST")),
        ("POST", "/qurrent/v1/events", 415, "malformed", None),
        ("GET", "/api/v1/keys/%ff/status", 400, "malformed", None),
        ("GET", "/api/v1/keys/%20/status", 400, "malformed", None),
        ("GET", "/api/v1/keys/nobody/status", 400, "unknown_sae", None),
        ("GET", "/api/v1/keys/no%2Fbody%20%C3%A4/status", 400, "unknown_sae", None),
        ("GET", "/api/v1/keys/app-east/enc_keys", 400, "out_of_range", None),
        ("GET", "/api/v1/keys/vault-east/enc_keys?number=1&number=1", 400, "malformed", None),
        ("GET", "/api/v1/keys/vault-east/enc_keys?size=257", 400, "out_of_range", None),
        ("GET", "/api/v1/keys/vault-east/dec_keys", 400, "malformed", None),
        ("GET", "/api/v1/keys/vault-east/dec_keys?key_ID=0", 400, "malformed", None),
    ] {
        let answer = client.request(method, path, None).unwrap();
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{method} {path}");
        assert_eq!(answer.header("allow").as_deref(), allow, "{method} {path}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"), "{method} {path}");
    }

    // HEAD would take a key and show none.
    let answer = client.request("HEAD", "/api/v1/keys/vault-east/enc_keys", None).unwrap();
    assert_eq!(answer.status, 405);

    let large = format!(r#"{{"x":"{}"}}"#, "a".repeat(300_000));
    let answer = client.request("POST", "/api/v1/keys/vault-east/enc_keys", Some(&large)).unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (413, "too_large"));

    let sent = |head: &str, body: &str| {
        let mut client = connect();
        client.send(format!("{head}\r\nhost: kme\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        client.answer(false).unwrap()
    };
    let post = "POST /api/v1/keys/vault-east/enc_keys HTTP/1.1";
    for (kind, status) in [
        ("application/xml", 415),
        ("image/png", 415),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
        ("application/vnd.x+json", 200),
        ("", 200),
    ] {
        let answer = sent(&format!("{post}\r\ncontent-type: {kind}"), "{}");
        assert_eq!(answer.status, status, "{kind}: {answer:?}");
        assert!(status == 200 || answer.reason() == "not_json");
    }
    assert_eq!(sent(post, "").status, 200, "no body and no type: all defaults");
    assert_eq!(sent(post, " \n").status, 200);

    // What is no HTTP at all is answered by the library below, and in the same form.
    for (head, status) in [
        ("G\u{7}T / HTTP/1.1".to_owned(), 400),
        ("GET / HTTP/9.9".to_owned(), 400),
        (format!("GET / HTTP/1.1{}", "\r\nx: y".repeat(200)), 431),
    ] {
        let answer = sent(&head, "");
        assert_eq!((answer.status, answer.reason().as_str()), (status, "bad_http"), "{head:.40}");
    }
}
