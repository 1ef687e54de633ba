//! Encodings, reject vectors, generated messages.

use proptest::prelude::*;

use super::*;

fn id(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

fn relay() -> Relay {
    Relay {
        relay: id(1),
        path: ["a", "b", "c"].map(|site| SiteId::new(site).unwrap()).to_vec(),
        hop: 1,
        link: LinkId::new("b-c").unwrap(),
        ranges: vec![
            PadRange { seq: BlockSeq(4), offset: 90, len: 10 },
            PadRange { seq: BlockSeq(5), offset: 0, len: 54 },
        ],
        sealed: vec![7; 32],
        tag: Tag([9; 16]),
    }
}

fn assign() -> Assign {
    Assign {
        assign: id(2),
        master: SaeId::new("scada master").unwrap(),
        slave: SaeId::new("rtu/1").unwrap(),
        size_bits: 256,
        ids: vec![id(3), id(4)],
        runs: vec![Run { relay: id(1), first: 0, count: 2 }],
    }
}

fn one_of_each() -> Vec<Message> {
    let (link, receive, send) = (LinkId::new("a-b").unwrap(), vec![BlockSeq(1), BlockSeq(2)], vec![BlockSeq(2)]);
    vec![
        Message::Pool(PoolState { link, next: 3, bits: 0b111, receive, send }),
        Message::Relay(relay()),
        Message::RelayAck { relay: id(1) },
        Message::RelayNack { relay: id(1), reason: RelayFailure::Full },
        Message::RelayVoid { sets: vec![KeySet::whole(id(1)), KeySet { relay: id(2), keys: 5 }] },
        Message::Held { sets: vec![] },
        Message::Assign(assign()),
        Message::AssignAck { assign: id(2) },
        Message::AssignNack { assign: id(2), reason: AssignFailure::Refused },
        Message::AssignVoid { assign: id(2), runs: assign().runs },
    ]
}

#[test]
fn every_message_comes_back_and_no_cut_or_longer_one_does() {
    for message in one_of_each() {
        let wire = message.encode();
        assert_eq!(Message::decode(&wire).unwrap(), message);
        for end in 0..wire.len() {
            assert!(Message::decode(&wire[..end]).is_err(), "{message:?} cut at {end}");
        }
        assert!(Message::decode(&[&wire[..], &[0]].concat()).is_err(), "{message:?} with a byte behind");
    }
}

#[test]
fn the_encodings_are_pinned() {
    let hex = |message: &Message| message.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let uuid = |n: u8| format!("{}4{:x}{:02x}{:02x}{}", hex_of(n, 6), n & 15, n, n & 0x3f | 0x80, hex_of(n, 7));
    let all = one_of_each();
    assert_eq!(hex(&all[2]), format!("0103{}", uuid(1)));
    assert_eq!(hex(&all[3]), format!("0104{}03", uuid(1)));
    assert_eq!(
        hex(&all[0]),
        "01010003612d6200000000000000030000000000000007000000020000000000000001000000000000000200000001\
         0000000000000002"
    );
    assert_eq!(
        hex(&all[1]),
        format!(
            "0102{}03000161000162000163010003622d6302000000000000000\
             40000005a0000000a000000000000000500000000000000360020{}{}",
            uuid(1),
            "07".repeat(32),
            "09".repeat(16)
        )
    );
    assert_eq!(hex(&all[4]), format!("010500000002{}ffffffffffffffff{}0000000000000005", uuid(1), uuid(2)));
    assert_eq!(hex(&all[9]), format!("010a{}00000001{}00000002", uuid(2), uuid(1)));
}

fn hex_of(n: u8, times: usize) -> String {
    format!("{n:02x}").repeat(times)
}

#[test]
fn a_wrong_message_is_refused() {
    let relay_with = |change: fn(&mut Relay)| {
        let mut relay = relay();
        change(&mut relay);
        Message::Relay(relay).encode()
    };
    let assign_with = |change: fn(&mut Assign)| {
        let mut assign = assign();
        change(&mut assign);
        Message::Assign(assign).encode()
    };
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("another version", vec![2, 3]),
        ("unknown type", vec![1, 11]),
        ("path of one site", relay_with(|r| r.path.truncate(1))),
        ("path in a circle", relay_with(|r| r.path[2] = r.path[0].clone())),
        ("hop beyond the path", relay_with(|r| r.hop = 2)),
        ("no ranges", relay_with(|r| r.ranges.clear())),
        ("an empty range", relay_with(|r| r.ranges.push(PadRange { seq: BlockSeq(6), offset: 0, len: 0 }))),
        ("more ranges than allowed", relay_with(|r| r.ranges = vec![r.ranges[0]; RANGES_MAX + 1])),
        ("pad shorter than the keys", relay_with(|r| r.ranges[1].len -= 1)),
        ("ranges that sum up beyond 32 bits", relay_with(|r| r.ranges[0].len = u32::MAX)),
        ("half a key", relay_with(|r| r.sealed.truncate(16))),
        ("no key", relay_with(|r| (r.sealed.clear(), r.ranges.truncate(1), r.ranges[0].len = 32).2)),
        ("more keys than a batch", relay_with(|r| r.sealed = vec![0; 65 * 32])),
        ("size not of whole bytes", assign_with(|a| a.size_bits = 255)),
        ("size too small", assign_with(|a| a.size_bits = 56)),
        ("size too large", assign_with(|a| a.size_bits = 65_544)),
        ("more ids than allowed", assign_with(|a| a.ids = vec![id(5); 129])),
        ("an empty run", assign_with(|a| a.runs[0].count = 0)),
        ("a run beyond a batch", assign_with(|a| a.runs[0].first = 63)),
        ("a run that overflows", assign_with(|a| a.runs[0].first = u16::MAX)),
        ("a set without keys", Message::Held { sets: vec![KeySet { relay: id(1), keys: 0 }] }.encode()),
        ("a count beyond the bytes", [&[1, 6][..], &[0, 0, 16, 0], &[0; 16]].concat()),
        ("a count beyond the limit", [&[1, 6][..], &[0, 0, 16, 1]].concat()),
        ("unknown reason of a relay", [&[1, 4][..], &[0; 16], &[4]].concat()),
        ("unknown reason of an assignment", [&[1, 9][..], &[0; 16], &[2]].concat()),
        ("too long", vec![1; MESSAGE_MAX + 1]),
    ];
    for (name, bytes) in vectors {
        assert!(Message::decode(&bytes).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzzing::message(&bytes);
    }

    #[test]
    fn a_changed_byte(which in 0..10_usize, at: prop::sample::Index, value: u8) {
        let mut wire = one_of_each()[which].encode();
        let at = at.index(wire.len());
        wire[at] = value;
        crate::fuzzing::message(&wire);
    }
}
