//! Round trips and reject vectors.

use types::quantum::{Basis, Intensity, Slot};

use super::*;
use crate::bits::Bits;
use crate::distil::Mode;
use crate::proof::BlockCounts;
use crate::reconcile::Question;
use crate::reconcile::cascade::{self, Section, Work};
use crate::record::AbortCause;
use crate::verify::KeyHash;

pub(crate) fn samples() -> Vec<Message> {
    let bits: Bits = (0..13).map(|i| i % 3 == 0).collect();
    let of_the_line = vec![
        Message::Hello(Hello {
            link: "a-b".to_owned(),
            role: Role::Bob,
            block_bits: 20_000,
            decoy: [1; 32],
            security: [2; 32],
            proof: "lim2014".to_owned(),
            beyond_one_way: "Off".to_owned(),
            next_block: BlockSeq(7),
            pending: Some(BlockSeq(6)),
        }),
        Message::OtherVersion(9),
        Message::Verdict(Verdict { up_to: BlockSeq(3), committed: None, counter: 5, tag: Tag([9; 16]) }),
    ];
    let steps = [
        Step::Sift(Announcement {
            session: 4,
            detections: vec![(Slot(0), Basis::Key), (Slot(1), Basis::Test), (Slot(u64::MAX - 1), Basis::Key)],
        }),
        Step::SiftAnswer(SiftAnswer {
            matched: [true, false, true].into_iter().collect(),
            intensities: vec![Intensity::new(2).unwrap(), Intensity::new(1).unwrap()],
        }),
        Step::Refused { session: Some(3) },
        Step::TestBits(bits.clone()),
        Step::Estimate(Box::new(Estimate {
            test_errors: [300, 2, 1],
            mode: Mode::AdvantageDistillation { group: 3 },
            seed: [3; 32],
            differences: bits.clone(),
        })),
        Step::Kept(bits.clone()),
        Step::Ask(Question::Cascade(cascade::Question {
            sections: vec![
                Section { frame: 0, pass: 1, work: Work::Begin { block_len: 80 } },
                Section { frame: 2, pass: 0, work: Work::Ranges(vec![(0, 4), (40, 1), (65_535, 1)]) },
                Section { frame: 2, pass: 3, work: Work::Ranges(vec![(9, 65_527)]) },
            ],
        })),
        Step::Parities(bits.clone()),
        Step::Corrected { parities: 1_000 },
        Step::Verify(KeyHash { hash_key: [5; 16], value: vec![1; 8] }),
        Step::Verified { equal: true, corrected: 400, key_errors: Some([100, 290, 10]) },
        Step::Finish(Box::new(Finish {
            counts: BlockCounts {
                key: [1, 2, 3],
                test: [4, 5, 6],
                test_errors: [0, 1, 2],
                key_errors: Some([1, 0, 2]),
            },
            leak: 77,
            secret_bits: 1_000,
            refill: [2, 1],
            counter: 5,
            seed: bits,
            tag: Tag([8; 16]),
        })),
        Step::Confirm { counter: 4, tag: Tag([7; 16]) },
        Step::Abort { cause: AbortCause::NoKey },
    ];
    let steps = steps.into_iter().map(|step| Message::Block(BlockSeq(7), step));
    of_the_line.into_iter().chain(steps).collect()
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
    let step = |kind: Kind, fields: &[u8]| [&[kind as u8][..], &[0; 8], fields].concat();
    let vectors: [(&str, Vec<u8>); 12] = [
        ("unknown kind", vec![99]),
        ("a block number cut short", vec![3, 0, 0]),
        ("more detections than a frame", step(Kind::Sift, &[&65_537_u32.to_be_bytes()[..], &[0; 20]].concat())),
        ("slots beyond the last", {
            let escape = [&[0xff; 5][..], &[0xff; 8]].concat();
            step(Kind::Sift, &[&[0, 0, 0, 2], &[0; 8][..], &[48], &escape, &escape, &[0, 0, 0, 0, 0, 0]].concat())
        }),
        ("marks told the long way", step(Kind::SiftAnswer, &[0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])),
        ("a tie told inverted", step(Kind::SiftAnswer, &[0, 0, 0, 2, 1, 0, 0, 0, 1, 0, 0])),
        ("a value without its flag", step(Kind::Refused, &[0, 0, 0, 0, 0, 0, 0, 0, 1])),
        (
            "a mode with a parameter that it has not",
            step(Kind::Estimate, &[&[0, 0, 0, 0, 0, 0, 0, 1], &[0; 36][..]].concat()),
        ),
        ("groups of one", step(Kind::Estimate, &[&[0, 0, 0, 2, 0, 0, 0, 1], &[0; 36][..]].concat())),
        ("a method that there is not", step(Kind::Ask, &[9, 0])),
        ("a hash of 17 bytes", step(Kind::Verify, &[&[0; 16][..], &[0, 17], &[0; 17]].concat())),
        ("abort without a cause", step(Kind::Abort, &[0])),
    ];
    for (name, wire) in vectors {
        assert!(Message::decode(&wire).is_err(), "{name}");
    }
}
