//! Loss, reordering, duplicates and bit flips: every intact arrival opens once, nothing forged opens, no byte of a
//! batch is used twice.

use std::collections::BTreeSet;

use proptest::prelude::*;
use terminal::{Class, Direction, Floor, PadReceiver, PadSender, Suite, record, suite::UNIT};

use crate::{payload, shared_key, source};

/// What happens to one record on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Flipped(usize),
    FlippedThenArrives(usize),
    Late(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => any::<usize>().prop_map(Fate::Flipped),
        1 => any::<usize>().prop_map(Fate::FlippedThenArrives),
        2 => (1_usize..6).prop_map(Fate::Late),
    ]
}

#[derive(Clone, Debug)]
struct Message {
    otp: bool,
    plain: Vec<u8>,
    fate: Fate,
}

fn message() -> impl Strategy<Value = Message> {
    (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300), fate()).prop_map(|(otp, plain, fate)| Message {
        otp,
        plain,
        fate,
    })
}

/// Sends the messages one way; returns the offsets of suite 0 that were used, in units.
fn one_way(direction: Direction, messages: &[Message], chunk: usize) -> Result<BTreeSet<(u32, u64)>, TestCaseError> {
    let batch = direction.batch(1);
    let key = shared_key(1, 32 * 1024);
    let mut pads = source(batch, &key, chunk);
    let mut sender = PadSender::new(direction);
    let mut receiver = PadReceiver::new(direction, Floor::default());
    receiver.install(batch, &key).unwrap();

    let (mut used, mut wire) = (BTreeSet::new(), Vec::new());
    for (index, message) in messages.iter().enumerate() {
        let suite = if message.otp { Suite::OtpWc128 } else { Suite::Aes256Gcm };
        let record = sender.seal(&mut pads, payload(suite, Class::Telemetry), &[], &message.plain).unwrap();
        let header = record::Header::decode(record.first_chunk().unwrap()).unwrap();
        if message.otp {
            let units = suite.consumption(message.plain.len()) / UNIT;
            for unit in header.offset / UNIT..header.offset / UNIT + units {
                prop_assert!(used.insert((header.batch.0, unit)), "unit {unit} used twice");
            }
        } else {
            let (start, _) = record::split_epoch(header.offset);
            used.extend([(header.batch.0, start / UNIT), (header.batch.0, start / UNIT + 1)]);
        }
        let flipped = |bit: usize| {
            let mut bad = record.clone();
            let bit = bit % (bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        };
        match message.fate {
            Fate::Arrives => wire.push((index * 8, index, true, record)),
            Fate::Lost => {}
            Fate::Twice => {
                wire.push((index * 8, index, true, record.clone()));
                wire.push((index * 8 + 20, index, false, record));
            }
            Fate::Flipped(bit) => wire.push((index * 8, index, false, flipped(bit))),
            Fate::FlippedThenArrives(bit) => {
                wire.push((index * 8, index, false, flipped(bit)));
                wire.push((index * 8 + 1, index, true, record));
            }
            Fate::Late(by) => wire.push((index * 8 + 8 * by + 3, index, true, record)),
        }
    }
    wire.sort_by_key(|(at, ..)| *at);
    for (_, index, intact, record) in wire {
        let opened = receiver.open(&record, &[]);
        if intact {
            prop_assert_eq!(
                &opened.map_err(|error| TestCaseError::fail(error.to_string()))?.plain,
                &messages[index].plain
            );
        } else {
            prop_assert!(opened.is_err());
        }
    }
    prop_assert_eq!(receiver.counts().blocked, 0);
    Ok(used)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn intact_arrivals_open_and_nothing_else(
        down in proptest::collection::vec(message(), 1..40),
        up in proptest::collection::vec(message(), 1..40),
        chunk in prop_oneof![Just(1024_usize), Just(4096), Just(32 * 1024)],
    ) {
        let down = one_way(Direction::Down, &down, chunk)?;
        let up = one_way(Direction::Up, &up, chunk)?;
        prop_assert!(down.is_disjoint(&up), "two directions shared pad");
    }

    #[test]
    fn no_bytes_from_outside_open_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), shape in any::<bool>()) {
        let mut bytes = bytes;
        if shape && bytes.len() >= 8 {
            let head = [0x10, bytes[1] & 4, bytes[2] & 3, 0, 0, 0, 0, 1];
            bytes[..8].copy_from_slice(&head);
        }
        terminal::fuzzing::cipher_side(&bytes);
    }
}
