//! Encodings of the messages between two stream cores: pinned, refused, generated.

use etsi::etsi004::{Ksid, Mimetype, Qos};
use proptest::prelude::*;
use types::id::{KeyId, SaeId};

use super::message::{Body, Lack, Message, Objection, Party, Role};
use crate::fuzzing;

fn key(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

fn message(body: Body) -> Message {
    Message { ksid: Ksid([0xab; 16]), run: 0x0102_0304_0506_0708, body }
}

fn pair() -> (SaeId, SaeId) {
    (SaeId::new("m").unwrap(), SaeId::new("s").unwrap())
}

/// One of each kind with the bytes after the stream's name.
fn one_of_each() -> Vec<(Message, &'static str, &'static str)> {
    let (owner, guest) = pair();
    let qos = Qos {
        key_chunk_size: 32,
        max_bps: 1,
        min_bps: 2,
        jitter: 3,
        priority: 4,
        timeout_ms: 5,
        ttl_s: 6,
        mimetype: Mimetype::new("x/y").unwrap(),
    };
    let announce = Body::Announce { known: true, owner: owner.clone(), guest: guest.clone(), qos };
    let chunks = Body::Chunks { owner, guest, first: 7, per: 1, ids: vec![key(0x11)] };
    vec![
        (
            message(announce),
            "01",
            "01 00016d 000173 00000020 00000001 00000002 00000003 00000004 00000005 00000006 0003782f79",
        ),
        (message(Body::Announced), "02", ""),
        (message(Body::Refused { reason: Objection::NotServed }), "03", "01"),
        (message(Body::Presence { to: Role::Guest, party: Party::Closed }), "04", "0102"),
        (message(Body::Noted { to: Role::Owner, party: Party::Open }), "05", "0001"),
        (message(Body::Want { index: 9 }), "06", "00000009"),
        (message(Body::Unmet { lack: Lack::Connection }), "07", "01"),
        (message(chunks), "08", "00016d 000173 00000007 01 00000001 11111111111141119111111111111111"),
        (message(Body::Accepted { first: 7, taken: true }), "09", "00000007 01"),
        (message(Body::Gone { to: Role::Owner }), "0a", "00"),
    ]
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn every_message_is_as_written_down_and_no_cut_or_longer_one_is_read() {
    for (message, kind, body) in one_of_each() {
        let wire = bytes(&format!("01 {kind} {} 0102030405060708 {body}", "ab".repeat(16)));
        assert_eq!(message.encode(), wire, "{message:?}");
        assert_eq!(Message::decode(&wire).unwrap(), message);
        for end in 0..wire.len() {
            assert!(Message::decode(&wire[..end]).is_err(), "{message:?} cut at {end}");
        }
        let mut longer = wire;
        longer.push(0);
        assert!(Message::decode(&longer).is_err(), "{message:?} with a byte too many");
    }
}

#[test]
fn reject_vectors() {
    let head = |kind: &str| format!("01 {kind} {} 0102030405060708", "ab".repeat(16));
    let wrong = [
        ("another version", format!("02 02 {} 0102030405060708", "ab".repeat(16))),
        ("an unknown type", head("0b")),
        ("type 0", head("00")),
        ("a null stream", format!("01 02 {} 0102030405060708", "00".repeat(16))),
        ("a flag that is 2", format!("{} 02 00016d 000173 {} 0000", head("01"), "00".repeat(28))),
        ("an application without name", format!("{} 00 0000 000173 {} 0000", head("01"), "00".repeat(28))),
        (
            "a mimetype of 256 bytes",
            format!("{} 00 00016d 000173 {} 0100 {}", head("01"), "00".repeat(28), "61".repeat(256)),
        ),
        ("a mimetype with NUL", format!("{} 00 00016d 000173 {} 0001 00", head("01"), "00".repeat(28))),
        ("a role that is 2", format!("{} 02 00", head("04"))),
        ("a party that is 3", format!("{} 00 03", head("04"))),
        ("an unknown objection", format!("{} 02", head("03"))),
        ("an unknown lack", format!("{} 02", head("07"))),
        ("no key", format!("{} 00016d 000173 00000000 01 00000000", head("08"))),
        ("no key in a chunk", format!("{} 00016d 000173 00000000 00 00000001 {}", head("08"), "11".repeat(16))),
        ("half a chunk", format!("{} 00016d 000173 00000000 02 00000001 {}", head("08"), "11".repeat(16))),
        ("129 keys", format!("{} 00016d 000173 00000000 01 00000081 {}", head("08"), "11".repeat(16 * 129))),
        ("4 billion keys", format!("{} 00016d 000173 00000000 01 ffffffff", head("08"))),
        (
            "chunks past the last index",
            format!("{} 00016d 000173 ffffffff 01 00000002 {}", head("08"), "11".repeat(32)),
        ),
    ];
    for (name, text) in wrong {
        assert!(Message::decode(&bytes(&text)).is_err(), "{name}");
    }
    assert!(Message::decode(&bytes(&head("02"))).is_ok());
}

proptest! {
    #[test]
    fn whatever_decodes_encodes_to_the_same(
        which in 0_usize..10, flips in prop::collection::vec((0_usize..200, any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut wire = one_of_each()[which].0.encode();
        for (place, value) in flips {
            let place = place % wire.len();
            wire[place] = value;
        }
        fuzzing::stream_message(&wire);
        fuzzing::stream_message(&noise);
    }
}
