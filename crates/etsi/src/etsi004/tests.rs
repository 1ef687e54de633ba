//! Pinned frames of both dialects, reject vectors, generated frames, a client against a server session.

use ::types::codec::CodecError;
use crypto::secret::SecretBytes;
use proptest::prelude::*;

use super::*;

fn qos(mimetype: &str) -> Qos {
    Qos {
        key_chunk_size: 32,
        max_bps: 40_000,
        min_bps: 5_000,
        jitter: 10,
        priority: 3,
        timeout_ms: 5_000,
        ttl_s: 3_600,
        mimetype: Mimetype::new(mimetype).unwrap(),
    }
}

fn ksid() -> Ksid {
    Ksid([0xab; 16])
}

fn frames(decoder: &mut Decoder, bytes: &[u8]) -> Result<RawFrame, Error> {
    decoder.push(bytes);
    Ok(decoder.next_frame()?.unwrap())
}

fn request(bytes: &[u8]) -> Result<(Request, ServerSession), Error> {
    let frame = frames(&mut Decoder::of_requests(), bytes)?;
    let mut session = ServerSession::new();
    Ok((session.request(&frame)?, session))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const NUMBERS: &str = "00000020 00009c40 00001388 0000000a 00000003 00001388 00000e10";
const JSON: &str = "6170706c69636174696f6e2f6a736f6e";
const ID: &str = "abababababababababababababababab";

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// `zeros(n)` as text.
fn zeros(count: usize) -> String {
    "00".repeat(count)
}

/// Frames written by hand after the two implementations: a call, the dialect that it tells, what it means.
fn pinned_requests() -> Vec<(String, Dialect, Version, Request)> {
    let open = |ksid| {
        Request::Open(OpenRequest {
            source: "qkd://a".to_owned(),
            destination: "qkd://b".to_owned(),
            qos: qos("application/json"),
            ksid,
        })
    };
    let get = |metadata_size, buffer: &[u8]| {
        Request::Get(GetRequest { ksid: ksid(), index: 7, metadata_size, buffer: buffer.to_vec() })
    };
    let uris = "716b643a2f2f6100 716b643a2f2f6200";
    vec![
        (
            format!("020101 02 0000004d {uris} {NUMBERS} {JSON}00 {}", zeros(16)),
            Dialect::Terminated,
            Version::STANDARD,
            open(Ksid::NULL),
        ),
        (
            format!("010001 02 0000013c {uris} {NUMBERS} {JSON}{} {ID}", zeros(240)),
            Dialect::Fixed,
            Version::FIXED,
            open(ksid()),
        ),
        (
            format!("020101 04 0000001a {ID} 00000007 00000002 0010"),
            Dialect::Terminated,
            Version::STANDARD,
            get(2, &[0, 0x10]),
        ),
        (format!("010001 04 00000018 {ID} 00000007 00000400"), Dialect::Fixed, Version::FIXED, get(1_024, &[])),
        (format!("020101 04 00000018 {ID} 00000007 00000000"), Dialect::Terminated, Version::STANDARD, get(0, &[])),
        (format!("010001 04 00000018 {ID} 00000007 00000000"), Dialect::Fixed, Version::FIXED, get(0, &[])),
        (format!("020101 08 00000010 {ID}"), Dialect::Terminated, Version::STANDARD, Request::Close { ksid: ksid() }),
        (format!("010001 08 00000010 {ID}"), Dialect::Fixed, Version::FIXED, Request::Close { ksid: ksid() }),
    ]
}

#[test]
fn pinned_requests_are_read_and_their_dialect_is_told() {
    for (frame, dialect, version, wanted) in pinned_requests() {
        let wire = bytes(&frame);
        let (found, session) = request(&wire).unwrap();
        assert_eq!((&found, session.dialect()), (&wanted, dialect), "{frame}");
        assert_eq!(hex(&super::frame::framed(version, wanted.service(), &wanted.encode(dialect))), hex(&wire));
    }
}

/// Answers to each dialect, byte by byte.
#[test]
fn pinned_responses_are_written_in_kind() {
    let open = |status| Response::Open(OpenResponse { status, qos: qos("application/json"), ksid: ksid() });
    let get = || {
        Response::Get(GetResponse {
            status: Status::Success,
            index: 7,
            key: SecretBytes::copy_of(&[1, 2, 3]),
            metadata: b"{}".to_vec(),
            needed: 0,
        })
    };
    let small = || Response::Get(GetResponse { needed: 3, ..GetResponse::refused(Status::MetadataTooSmall, 7) });
    let none = || Response::Get(GetResponse::refused(Status::InsufficientKey, 7));
    let (c, fixed) = (pinned_requests().remove(2).0, pinned_requests().remove(3).0);
    let cases = [
        (&c, open(Status::PeerNotConnected), format!("020101 03 00000041 00000001 {NUMBERS} {JSON}00 {ID}")),
        (&c, open(Status::KsidInUse), format!("020101 03 00000041 00000005 {NUMBERS} {JSON}00 {ID}")),
        (&fixed, open(Status::Success), format!("010001 03 00000130 00000000 {NUMBERS} {JSON}{} {ID}", zeros(240))),
        (
            &fixed,
            open(Status::PeerNotConnected),
            format!("010001 03 00000130 00000000 {NUMBERS} {JSON}{} {ID}", zeros(240)),
        ),
        (&fixed, open(Status::QosNotMet), format!("010001 03 00000130 00000007 {NUMBERS} {JSON}{} {ID}", zeros(240))),
        (&fixed, open(Status::KsidInUse), "010001 03 00000004 00000005".to_owned()),
        (&c, get(), "020101 05 00000015 00000000 00000007 00000003 010203 00000002 7b7d".to_owned()),
        (&fixed, get(), "010001 05 00000015 00000000 00000007 00000003 010203 00000002 7b7d".to_owned()),
        (&c, small(), "020101 05 00000013 00000008 00000007 00000000 00000003 000000".to_owned()),
        (&fixed, small(), "010001 05 00000008 00000008 00000003".to_owned()),
        (&c, none(), "020101 05 00000010 00000002 00000007 00000000 00000000".to_owned()),
        (&fixed, none(), "010001 05 00000004 00000002".to_owned()),
        (&c, Response::Close { status: Status::Success }, "020101 09 00000004 00000000".to_owned()),
        (&fixed, Response::Close { status: Status::NoConnection }, "010001 09 00000004 00000004".to_owned()),
    ];
    for (asked, response, wanted) in cases {
        let (_, session) = request(&bytes(asked)).unwrap();
        assert_eq!(hex(&session.respond(&response)), hex(&bytes(&wanted)), "{wanted}");
    }
}

#[test]
fn any_version_is_echoed_and_a_known_dialect_stays() {
    let mut decoder = Decoder::of_requests();
    let mut session = ServerSession::new();
    let get = frames(&mut decoder, &bytes(&format!("090807 04 00000018 {ID} 00000007 00000400"))).unwrap();
    session.request(&get).unwrap();
    let close = frames(&mut decoder, &bytes(&format!("090807 08 00000010 {ID}"))).unwrap();
    session.request(&close).unwrap();
    assert_eq!(session.dialect(), Dialect::Fixed);
    assert_eq!(session.respond(&Response::Close { status: Status::Success })[..4], [9, 8, 7, 9]);
    assert_eq!(hex(&session.fault()), "0908070000000000");
}

#[test]
fn reject_vectors() {
    let long_uri = format!("020101 02 00000449 {} 00 {NUMBERS} 00 {ID}", "61".repeat(1_052));
    let wrong = [
        ("a response where a request is due", "020101 03 00000004 00000000".to_owned(), "service 0x03"),
        ("an unknown service", "020101 07 00000000".to_owned(), "service 0x07"),
        ("an error frame from a client", "020101 00 00000000".to_owned(), "service 0x00"),
        ("a payload of 4 GiB", "020101 02 ffffffff".to_owned(), "a payload of 4294967295 bytes"),
        ("CLOSE with a byte too many", format!("020101 08 00000011 {ID} 00"), "a payload of 17 bytes"),
        ("CLOSE with half an id", "020101 08 00000008 abababababababab".to_owned(), "Key_stream_ID is cut short"),
        ("OPEN without any NUL", "020101 02 00000004 61616161".to_owned(), "source is cut short"),
        ("OPEN with a URI of 1,052 bytes", long_uri, "source says 1025"),
        ("OPEN with a URI that is no text", format!("020101 02 00000030 ff00 00 {NUMBERS} 00 {ID}"), "source has"),
        ("OPEN that ends in the QoS", format!("020101 02 0000001e 6100 6200 {}", zeros(26)), "TTL is cut short"),
        ("OPEN without id", format!("020101 02 00000021 6100 6200 {NUMBERS} 00"), "Key_stream_ID is cut short"),
        (
            "OPEN whose fixed mimetype has no NUL",
            format!("010001 02 00000130 6100 6200 {NUMBERS} {} {ID}", "61".repeat(256)),
            "mimetype has",
        ),
        (
            "OPEN whose fixed mimetype goes on after its NUL",
            format!("010001 02 00000130 6100 6200 {NUMBERS} 6100{} {ID}", "61".repeat(254)),
            "mimetype has",
        ),
        (
            "OPEN whose mimetype is longer than a field",
            format!("020101 02 00000140 6100 6200 {NUMBERS} {}00 {ID}", "61".repeat(271)),
            "mimetype says 256",
        ),
        (
            "GET with fewer metadata than it says",
            format!("020101 04 00000019 {ID} 00000000 00000002 00"),
            "Metadata_buffer is cut",
        ),
        (
            "GET with more metadata than it says",
            format!("020101 04 0000001b {ID} 00000000 00000002 000000"),
            "1 bytes stand after",
        ),
        (
            "GET with a buffer above the most",
            format!("020101 04 00000019 {ID} 00000000 00010001 00"),
            "Metadata_buffer says 65537",
        ),
        ("GET without index", format!("020101 04 00000010 {ID}"), "index is cut short"),
    ];
    for (name, frame, wanted) in wrong {
        let wire = bytes(&frame);
        let error = match request(&wire) {
            Err(Error::Malformed(why)) => why.to_string(),
            Err(other) => other.to_string(),
            Ok(request) => panic!("{name}: {request:?}"),
        };
        assert!(error.contains(wanted), "{name}: {error}");
    }
}

#[test]
fn a_response_of_any_wrong_length_is_refused() {
    for dialect in [Dialect::Terminated, Dialect::Fixed] {
        let response = Response::Get(GetResponse {
            status: Status::Success,
            index: 1,
            key: SecretBytes::copy_of(&[9; 32]),
            metadata: b"{\"age\":1}".to_vec(),
            needed: 0,
        });
        let wire = response.encode(dialect);
        for end in 0..wire.len() {
            assert!(Response::decode(Service::GetResponse, &wire[..end], dialect).is_err(), "cut at {end}");
        }
        let mut longer = wire.to_vec();
        longer.push(0);
        let error = Response::decode(Service::GetResponse, &longer, dialect).unwrap_err();
        assert_eq!(error, CodecError::Trailing { left: 1 });
    }
}

#[test]
fn frames_come_out_whole_however_the_bytes_arrive() {
    let wire: Vec<u8> = pinned_requests().iter().flat_map(|(frame, ..)| bytes(frame)).collect();
    for cut in [1, 2, 7, 8, 9, 100, 10_000] {
        let mut decoder = Decoder::of_requests();
        let mut found = Vec::new();
        for part in wire.chunks(cut) {
            decoder.push(part);
            while let Some(frame) = decoder.next_frame().unwrap() {
                found.push(ServerSession::new().request(&frame).unwrap());
            }
        }
        let wanted: Vec<_> = pinned_requests().into_iter().map(|(_, _, _, request)| request).collect();
        assert_eq!((found, decoder.waiting()), (wanted, 0), "in parts of {cut}");
    }
}

/// Every client against a server session: what is called is what arrives, what is answered is what is read.
#[test]
fn client_and_server_session_understand_each_other_in_both_dialects() {
    for dialect in [Dialect::Terminated, Dialect::Fixed] {
        let mut client = Client::new(dialect, "qkd://a", "qkd://b");
        let mut session = ServerSession::new();
        let mut call = |client: &mut Client, wire: Vec<u8>, response: Response| {
            let frame = frames(&mut Decoder::of_requests(), &wire).unwrap();
            session.request(&frame).unwrap();
            assert_eq!(session.dialect(), dialect);
            let answer = frames(&mut Decoder::of_responses(), &session.respond(&response)).unwrap();
            client.response(&answer)
        };
        assert!(matches!(client.get(0, 0), Err(Error::OutOfTurn(_))));
        let wire = client.open(qos(""), Ksid::NULL).unwrap();
        let opened = OpenResponse { status: Status::PeerNotConnected, qos: qos(""), ksid: ksid() };
        call(&mut client, wire, Response::Open(opened)).unwrap();
        assert_eq!((client.ksid(), client.qos()), (Some(ksid()), Some(&qos(""))));

        let wire = client.get(5, 9).unwrap();
        let small = GetResponse { needed: 40, ..GetResponse::refused(Status::MetadataTooSmall, 5) };
        let Response::Get(found) = call(&mut client, wire, Response::Get(small)).unwrap() else { panic!() };
        assert_eq!((found.status, found.needed), (Status::MetadataTooSmall, 40));

        let wire = client.get(5, 40).unwrap();
        let short = GetResponse { key: SecretBytes::copy_of(&[1; 31]), ..GetResponse::refused(Status::Success, 5) };
        assert!(matches!(call(&mut client, wire, Response::Get(short)), Err(Error::OutOfTurn(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn fuzz_bodies_hold_over_frames_with_flipped_bytes(
        which in 0_usize..8, place in 0_usize..400, value: u8, cut in 1_usize..64, tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut wire = bytes(&pinned_requests()[which].0);
        let place = place % wire.len();
        wire[place] = value;
        wire.extend(tail);
        fuzzing::requests(&wire, cut);
        fuzzing::responses(&wire);
    }

    #[test]
    fn fuzz_bodies_hold_over_any_payload(service in 0_u8..10, payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut wire = vec![2, 1, 1, service];
        wire.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        wire.extend(&payload);
        fuzzing::requests(&wire, 3);
        fuzzing::responses(&wire);
    }
}
