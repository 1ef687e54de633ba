//! Encodings, reject vectors, generated messages.

use proptest::prelude::*;

use super::*;
use crate::config::REQUEST_BYTES_MAX;

fn id(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

fn slave(n: u8) -> SaeId {
    SaeId::new(&format!("s{n}")).unwrap()
}

fn relay() -> Relay {
    Relay {
        relay: id(1),
        share: ShareOf { index: 1, count: 2 },
        path: ["a", "b", "c"].map(|site| SiteId::new(site).unwrap()).to_vec(),
        hop: 1,
        link: LinkId::new("b-c").unwrap(),
        ranges: vec![
            PadRange { seq: BlockSeq(4), offset: 90, len: 10 },
            PadRange { seq: BlockSeq(5), offset: 0, len: 86 },
        ],
        sealed: vec![7; 64],
        tag: Tag([9; 16]),
    }
}

fn assign() -> Assign {
    Assign {
        assign: id(2),
        master: SaeId::new("scada master").unwrap(),
        slaves: vec![SaeId::new("rtu/1").unwrap(), SaeId::new("rtu/2").unwrap()],
        size_bits: 256,
        ids: vec![id(3), id(4)],
        runs: vec![Run { relay: id(1), first: 0, count: 2 }],
        carried: None,
        passed_on: None,
    }
}

fn carried() -> Assign {
    let runs = vec![Run { relay: id(1), first: 0, count: 3 }];
    let carried = Some(Carried { imported: true, sealed: vec![6; 64], tag: Tag([8; 16]) });
    Assign { runs, carried, ..assign() }
}

fn passed_on() -> Assign {
    Assign { passed_on: crate::PassedOn::new(r#"{"E32473_x":1}"#), ..assign() }
}

fn one_of_each() -> Vec<Message> {
    let link = LinkId::new("a-b").unwrap();
    let (receive, send) = (vec![(BlockSeq(1), 5), (BlockSeq(2), 0)], vec![(BlockSeq(2), 6)]);
    vec![
        Message::Pool(PoolState { link, next: 3, bits: 0b111, receive, send }),
        Message::Relay(relay()),
        Message::RelayAck { relay: id(1), proof: None },
        Message::RelayNack { relay: id(1), reason: RelayFailure::Full },
        Message::RelayVoid { sets: vec![KeySet::whole(id(1)), KeySet { relay: id(2), keys: 5 }] },
        held(),
        Message::Assign(assign()),
        Message::AssignAck { assign: id(2) },
        Message::AssignNack { assign: id(2), reason: AssignFailure::Refused },
        Message::AssignVoid { assign: id(2), runs: assign().runs },
        Message::Assign(carried()),
        Message::AssignPending { assign: id(2) },
        Message::Withdraw {
            withdraw: id(6),
            step: WithdrawStep::Destroy,
            initiator: SaeId::new("m").unwrap(),
            ids: vec![id(3)],
        },
        Message::Withdrawn { withdraw: id(6), step: WithdrawStep::Hold, state: WithdrawState::Delivered },
        Message::RelayWait { waits: vec![(id(1), 0), (id(2), 7)] },
        Message::HeldDigest(Box::new(Digest(std::array::from_fn(|part| part as u64)))),
        Message::HeldAsk { range: KeyRange { from: id(1), upto: id(1) } },
        Message::Standing(Standing { run: 1, began: 2, at: 3, heard_run: 4, heard: 5 }),
        Message::RelayAck { relay: id(1), proof: Some([4; 16]) },
        Message::Assign(passed_on()),
    ]
}

fn held() -> Message {
    let sets = vec![KeySet { relay: id(1), keys: 3 }, KeySet { relay: id(2), keys: 1 }];
    Message::Held { range: KeyRange { from: id(1), upto: id(2) }, end: id(9), sets }
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
    assert_eq!(hex(&all[2]), format!("0303{}00", uuid(1)));
    assert_eq!(hex(&all[18]), format!("0303{}01{}", uuid(1), "04".repeat(16)));
    assert_eq!(hex(&all[3]), format!("0304{}03", uuid(1)));
    assert_eq!(
        hex(&all[0]),
        "03010003612d620000000000000003000000000000000700000002000000000000000100000005000000000000000200000000\
         00000001000000000000000200000006"
    );
    assert_eq!(
        hex(&all[1]),
        format!(
            "0302{}010203000161000162000163010003622d6302000000000000000\
             40000005a0000000a000000000000000500000000000000560040{}{}",
            uuid(1),
            "07".repeat(64),
            "09".repeat(16)
        )
    );
    assert_eq!(hex(&all[4]), format!("030500000002{}ffffffffffffffff{}0000000000000005", uuid(1), uuid(2)));
    let assigned = "000c7363616461206d6173746572";
    let slaves = "0200057274752f3100057274752f32";
    assert_eq!(
        hex(&all[10]),
        format!(
            "0307{}{assigned}{slaves}0000010000000002{}{}00000001{}000000030200000040{}{}",
            uuid(2),
            uuid(3),
            uuid(4),
            uuid(1),
            "06".repeat(64),
            "08".repeat(16)
        )
    );
    assert_eq!(
        hex(all.last().unwrap()),
        format!(
            "0307{}{assigned}{slaves}0000010000000002{}{}00000001{}0000000203{}",
            uuid(2),
            uuid(3),
            uuid(4),
            uuid(1),
            "000e7b224533323437335f78223a317d"
        )
    );
    assert_eq!(hex(&all[11]), format!("0310{}", uuid(2)));
    assert_eq!(hex(&all[12]), format!("0311{}0100016d00000001{}", uuid(6), uuid(3)));
    assert_eq!(hex(&all[13]), format!("0312{}0002", uuid(6)));
    assert_eq!(
        hex(&all[5]),
        format!("0306{}{}{}00000002{}0000000000000003{}0000000000000001", uuid(1), uuid(2), uuid(9), uuid(1), uuid(2))
    );
    assert_eq!(hex(&all[14]), format!("032000000002{}00{}07", uuid(1), uuid(2)));
    let parts: String = (0..64).map(|part| format!("{part:016x}")).collect();
    assert_eq!(hex(&all[15]), format!("0321{parts}"));
    assert_eq!(hex(&all[16]), format!("0322{}{}", uuid(1), uuid(1)));
    let standing: String = (1..=5).map(|n| format!("{n:016x}")).collect();
    assert_eq!(hex(&all[17]), format!("0323{standing}"));
    assert_eq!(hex(&all[9]), format!("030a{}00000001{}00000002", uuid(2), uuid(1)));
}

fn hex_of(n: u8, times: usize) -> String {
    format!("{n:02x}").repeat(times)
}

#[test]
fn a_wrong_relay_is_refused() {
    let relay_with = |change: fn(&mut Relay)| {
        let mut relay = relay();
        change(&mut relay);
        Message::Relay(relay).encode()
    };
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("a share beyond the number of shares", relay_with(|r| r.share.index = 2)),
        ("no shares", relay_with(|r| r.share = ShareOf { index: 0, count: 0 })),
        ("more shares than allowed", relay_with(|r| r.share.count = SHARES_MAX + 1)),
        ("path of one site", relay_with(|r| r.path.truncate(1))),
        ("path in a circle", relay_with(|r| r.path[2] = r.path[0].clone())),
        ("hop beyond the path", relay_with(|r| r.hop = 2)),
        ("no ranges", relay_with(|r| r.ranges.clear())),
        ("an empty range", relay_with(|r| r.ranges.push(PadRange { seq: BlockSeq(6), offset: 0, len: 0 }))),
        ("more ranges than allowed", relay_with(|r| r.ranges = vec![r.ranges[0]; RANGES_MAX + 1])),
        ("pad shorter than the keys", relay_with(|r| r.ranges[1].len -= 1)),
        ("ranges that sum up beyond 32 bits", relay_with(|r| r.ranges[0].len = u32::MAX)),
        ("half a key", relay_with(|r| (r.sealed.truncate(48), r.ranges[1].len = 70).0)),
        ("no key", relay_with(|r| (r.sealed.clear(), r.ranges.truncate(1), r.ranges[0].len = 32).2)),
        ("a check without a key", relay_with(|r| (r.sealed.truncate(32), r.ranges[1].len = 54).0)),
        ("no key of a plain batch", {
            relay_with(|r| (r.share = ShareOf::WHOLE, r.sealed.clear(), r.ranges.truncate(1), r.ranges[0].len = 32).0)
        }),
        ("more keys than a batch", relay_with(|r| (r.sealed = vec![0; 66 * 32], r.ranges[1].len = 67 * 32 - 10).0)),
        ("more keys than a plain batch", {
            relay_with(|r| {
                (r.share, r.sealed) = (ShareOf::WHOLE, vec![0; 65 * 32]);
                r.ranges[1].len = 66 * 32 - 10;
            })
        }),
    ];
    for (name, bytes) in vectors {
        assert!(Message::decode(&bytes).is_err(), "{name}");
    }
}

#[test]
fn a_wrong_message_is_refused() {
    let assign_with = |change: fn(&mut Assign)| {
        let mut assign = assign();
        change(&mut assign);
        Message::Assign(assign).encode()
    };
    let carried_with = |change: fn(&mut Carried)| {
        let mut assign = carried();
        change(assign.carried.as_mut().unwrap());
        Message::Assign(assign).encode()
    };
    let withdraw = |ids| {
        let (withdraw, initiator) = (id(6), SaeId::new("m").unwrap());
        Message::Withdraw { withdraw, step: WithdrawStep::Hold, initiator, ids }.encode()
    };
    let held_with = |change: fn(&mut KeyRange, &mut KeyId, &mut Vec<KeySet>)| {
        let Message::Held { mut range, mut end, mut sets } = held() else { unreachable!() };
        change(&mut range, &mut end, &mut sets);
        Message::Held { range, end, sets }.encode()
    };
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("another version", vec![2, 3]),
        ("unknown type", vec![3, 99]),
        (
            "a range that ends before it begins",
            held_with(|range, _, _| std::mem::swap(&mut range.from, &mut range.upto)),
        ),
        ("a range beyond what was asked", held_with(|_, end, _| *end = id(1))),
        ("a set outside its range", held_with(|range, _, _| range.upto = id(1))),
        ("sets that do not ascend", held_with(|_, _, sets| sets.swap(0, 1))),
        (
            "an ask that ends before it begins",
            Message::HeldAsk { range: KeyRange { from: id(2), upto: id(1) } }.encode(),
        ),
        ("spendings that went back", {
            Message::Standing(Standing { began: 5, at: 4, ..Standing::default() }).encode()
        }),
        ("unknown kind of proof", [&[3, 3][..], &[0; 16], &[2]].concat()),
        ("size not of whole bytes", assign_with(|a| a.size_bits = 255)),
        ("size too small", assign_with(|a| a.size_bits = 56)),
        ("size too large", assign_with(|a| a.size_bits = 65_544)),
        ("more ids than allowed", assign_with(|a| a.ids = vec![id(5); 129])),
        ("an empty run", assign_with(|a| a.runs[0].count = 0)),
        ("a run beyond a batch", assign_with(|a| a.runs[0].first = 63)),
        ("a run that overflows", assign_with(|a| a.runs[0].first = u16::MAX)),
        ("no slave", assign_with(|a| a.slaves.clear())),
        ("a slave twice", assign_with(|a| a.slaves[1] = a.slaves[0].clone())),
        ("more slaves than allowed", assign_with(|a| a.slaves = (0..18).map(slave).collect())),
        ("carried keys of another length", carried_with(|c| c.sealed.truncate(63))),
        ("more carried bytes than allowed", carried_with(|c| c.sealed = vec![0; REQUEST_BYTES_MAX + 1])),
        ("unknown kind of carrying", {
            let mut wire = Message::Assign(assign()).encode();
            *wire.last_mut().unwrap() = 3;
            wire
        }),
        ("a withdrawal of nothing", withdraw(vec![])),
        ("a withdrawal of too much", withdraw(vec![id(1); 1_025])),
        ("unknown step of a withdrawal", [&[3, 18][..], &[0; 16], &[3, 0]].concat()),
        ("unknown state of a withdrawal", [&[3, 18][..], &[0; 16], &[0, 3]].concat()),
        ("a set without keys", Message::RelayVoid { sets: vec![KeySet { relay: id(1), keys: 0 }] }.encode()),
        ("a count beyond the bytes", [&[3, 5][..], &[0, 0, 4, 0], &[0; 16]].concat()),
        ("a count beyond the limit", [&[3, 5][..], &[0, 0, 4, 1]].concat()),
        ("more waits than allowed", [&[3, 32][..], &[0, 0, 4, 1]].concat()),
        ("unknown reason of a relay", [&[3, 4][..], &[0; 16], &[5]].concat()),
        ("unknown reason of an assignment", [&[3, 9][..], &[0; 16], &[5]].concat()),
        ("too long", vec![3; MESSAGE_MAX + 1]),
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
    fn a_changed_byte(which in 0..14_usize, at: prop::sample::Index, value: u8) {
        let mut wire = one_of_each()[which].encode();
        let at = at.index(wire.len());
        wire[at] = value;
        crate::fuzzing::message(&wire);
    }
}

#[test]
fn a_wrong_extension_is_refused() {
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("an extension that is no JSON", replaced(&Message::Assign(passed_on()).encode(), b"{\"E3", b"[\"E3")),
        (
            "an extension with a name of no maker",
            replaced(&Message::Assign(passed_on()).encode(), b"E32473", b"F32473"),
        ),
        ("an extension that is cut", Message::Assign(passed_on()).encode().split_last().unwrap().1.to_vec()),
        ("an unknown way of carrying", {
            let mut bytes = Message::Assign(assign()).encode();
            *bytes.last_mut().unwrap() = 4;
            bytes
        }),
    ];
    for (how, bytes) in vectors {
        assert!(Message::decode(&bytes).is_err(), "{how}");
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
