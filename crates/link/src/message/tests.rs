//! Round trips and reject vectors.

use super::*;
use crate::reconcile::cascade::{Section, Work};

pub(crate) fn samples() -> Vec<Message> {
    let bits: Bits = (0..13).map(|i| i % 3 == 0).collect();
    vec![
        Message::Hello(Hello {
            link: "a-b".to_owned(),
            role: Role::Bob,
            block_bits: 20_000,
            decoy: [1; 32],
            security: [2; 32],
            proof: "lim2014".to_owned(),
            next_block: BlockSeq(7),
            pending: Some(BlockSeq(6)),
        }),
        Message::OtherVersion(9),
        Message::Verdict(Verdict { up_to: BlockSeq(3), committed: None, counter: 5, tag: Tag([9; 16]) }),
        Message::Open { block: BlockSeq(1), counter: 2 },
        Message::Opened { block: BlockSeq(1), counter: 2 },
        Message::Sift(Announcement {
            session: 4,
            detections: vec![(Slot(0), Basis::Key), (Slot(1), Basis::Test), (Slot(u64::MAX), Basis::Key)],
        }),
        Message::SiftAnswer(SiftAnswer {
            matched: [true, false, true].into_iter().collect(),
            intensities: vec![Intensity::new(2).unwrap(), Intensity::new(1).unwrap()],
        }),
        Message::Refused { session: Some(3) },
        Message::TestBits(bits.clone()),
        Message::Estimate { test_errors: [300, 2, 1], seed: [3; 32] },
        Message::Ask(Question {
            sections: vec![
                Section { frame: 0, pass: 1, work: Work::Begin { block_len: 80 } },
                Section { frame: 2, pass: 0, work: Work::Ranges(vec![(0, 4), (40, 1), (65_535, 1)]) },
                Section { frame: 2, pass: 3, work: Work::Ranges(vec![(9, 65_527)]) },
            ],
        }),
        Message::Parities(bits.clone()),
        Message::Corrected { parities: 1_000 },
        Message::Verify(KeyHash { hash_key: [5; 16], value: vec![1; 8] }),
        Message::Verified { equal: true, corrected: 400 },
        Message::Finish(Box::new(Finish {
            counts: BlockCounts { key: [1, 2, 3], test: [4, 5, 6], test_errors: [0, 1, 2] },
            leak: 77,
            secret_bits: 1_000,
            refill: [2, 1],
            seed: bits,
            tag: Tag([8; 16]),
        })),
        Message::Confirm { tag: Tag([7; 16]) },
        Message::Abort { cause: AbortCause::NoKey },
    ]
}

#[test]
fn every_kind_round_trips_and_no_prefix_or_suffix_does() {
    let mut kinds: Vec<Kind> = samples().iter().map(Message::kind).collect();
    kinds.dedup();
    assert_eq!(kinds, Kind::ALL);
    for message in samples() {
        let wire = message.encode();
        assert_eq!(Message::decode(&wire).as_ref(), Ok(&message));
        if !matches!(message, Message::OtherVersion(_)) {
            assert!((0..wire.len()).all(|len| Message::decode(&wire[..len]).is_err()), "{:?}", message.kind());
            assert!(Message::decode(&[wire.as_slice(), &[0]].concat()).is_err(), "{:?}", message.kind());
        }
    }
}

#[test]
fn named_ways_to_be_wrong_are_refused() {
    let vectors: [(&str, Vec<u8>); 9] = [
        ("unknown kind", vec![99]),
        ("more detections than a frame", [vec![5], 8_193_u32.to_be_bytes().to_vec(), vec![0; 20]].concat()),
        ("slots beyond the last", {
            let mut wire = vec![5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
            wire.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0]);
            wire
        }),
        ("a basis beyond the last", vec![5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0b10]),
        ("intensity 3", vec![6, 0, 0, 0, 1, 1, 3]),
        ("a value without its flag", vec![7, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("a hash of 17 bytes", [vec![13], vec![0; 16], vec![0, 17], vec![0; 17]].concat()),
        ("abort without a cause", vec![17, 0]),
        ("an empty range", vec![10, 1, 0, 0, 0, 1, 0, 0]),
    ];
    for (name, wire) in vectors {
        assert!(Message::decode(&wire).is_err(), "{name}");
    }
}
