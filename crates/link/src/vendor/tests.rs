//! Two ends and two devices under virtual time: agreement, faults of devices, tampering, crashes, cuts.
#![expect(clippy::cast_possible_truncation, reason = "toy numbers")]

mod pair;

use self::pair::{BendKeys, Fate, Pair, apply, config, initial_key, records};
use super::message::{Hello, Offer};
use super::shared::RESERVE_TAGS;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn blocks_come_out_equal_and_keep_up_the_reserve() {
    let mut pair = Pair::new();
    pair.run_blocks(200, HOUR);
    pair.check_settled();
    for node in &pair.nodes {
        assert!(node.errors.is_empty() && node.alarms.is_empty() && node.dropped.is_empty(), "{:?}", node.errors);
        let numbers: Vec<_> = node.pool.keys().map(|block| block.0).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "numbers have no gaps");
        let (ours, theirs) = node.end.tags_left();
        assert!((RESERVE_TAGS / 2 - 1..=RESERVE_TAGS).contains(&ours.min(theirs)), "{ours} {theirs}");
        assert!(node.disk.len() < 12, "spent pieces and filed blocks are forgotten: {}", node.disk.len());
    }
    // Refills take 2 x 496 bytes of a 2,048-byte block, but only when the reserve has room for them.
    let records = pair.nodes[0].records.values();
    let kept: u64 = records.clone().map(|record| record.kept.0).sum();
    let secret: u64 = records.map(|record| record.secret.0).sum();
    assert_eq!(secret, 200 * 8 * 2_048);
    assert!(kept * 25 < secret, "{kept} of {secret} bits went to authentication");
    // 200 blocks of 64 keys, 16 per request: a status and four requests for each.
    assert!((200 * 5..=200 * 5 + 5).contains(&pair.nodes[0].asked), "{} requests", pair.nodes[0].asked);
}

#[test]
fn the_device_is_not_drained_without_need() {
    let mut pair = Pair::new();
    pair.run_blocks(1, MINUTE);
    let left = pair.devices.stock;
    let level = pair.nodes[0].end.config().pool_target;
    let tell = |pair: &mut Pair, bits| {
        pair.nodes[0].end.handle_input(pair.now, Input::PoolLevel(BitLen(bits))).unwrap();
    };
    tell(&mut pair, level.0);
    let asked = pair.nodes[0].asked;
    pair.run_for(10 * MINUTE);
    assert!(pair.devices.stock >= left - 64, "what was under way at most");
    assert!(pair.nodes[0].asked - asked <= 25, "its health is still asked for, {} times", pair.nodes[0].asked - asked);
    assert!(pair.nodes.iter().all(|node| node.errors.is_empty()), "signs of life keep the idle line");
    tell(&mut pair, level.0 - 1);
    pair.run_blocks(1, MINUTE);
    pair.check_settled();
    assert!(pair.devices.stock <= left - 64);
}

#[test]
fn a_scarce_device_makes_small_blocks_and_an_empty_one_none() {
    let mut pair = Pair::new();
    pair.devices.stock = 15;
    pair.run_for(MINUTE);
    assert_eq!((pair.nodes[0].pool.len(), pair.devices.stock), (0, 15), "480 bytes are no block");
    pair.devices.stock = 20;
    pair.run_for(MINUTE);
    pair.check_settled();
    assert_eq!((pair.nodes[1].pool.len(), pair.devices.stock), (1, 0));
    assert_eq!(pair.nodes[1].records[&BlockSeq(0)].keys, 20);
    // One key per request, and keys of another size.
    (pair.devices.stock, pair.devices.per_request, pair.devices.key_bits) = (1_000, 1, 1_024);
    pair.run_blocks(2, MINUTE);
    pair.check_settled();
    assert_eq!(pair.nodes[1].records[&BlockSeq(1)].keys, 16);
}

#[test]
fn a_pool_that_does_not_file_holds_the_link_up_and_loses_nothing() {
    for at in 0..2 {
        let mut pair = Pair::new();
        pair.nodes[at].files = false;
        pair.run_for(10 * MINUTE);
        pair.check_settled();
        assert_eq!(pair.nodes[at].pool.len(), 16, "{at}");
        let causes: Vec<_> = pair.nodes[0].dropped.iter().filter(|cause| **cause != VendorCause::Backlog).collect();
        assert!(causes.is_empty() && pair.nodes[0].dropped.is_empty() == (at == 0), "{at}: {causes:?}");
        let before = pair.nodes[at].pool.clone();
        // After a restart every block comes out again.
        pair.nodes[at].pool.clear();
        pair.nodes[at].files = true;
        pair.restart(at);
        pair.run_blocks(2, 2 * HOUR);
        pair.check_settled();
        assert!(before.iter().all(|(block, key)| pair.nodes[at].pool.get(block) == Some(key)), "{at}");
    }
}

#[test]
fn a_device_that_is_down_or_slow_is_waited_for() {
    for (at, fault) in [(0, DeviceFault::Unavailable), (0, DeviceFault::Unknown), (1, DeviceFault::Unavailable)] {
        for healthy in 0..6 {
            let mut pair = Pair::new();
            pair.run_blocks(1, MINUTE);
            // A few answers more, then eight failures in a row: a pause of two minutes.
            for _ in 0..healthy {
                pair.run_for(Duration::from_millis(20));
            }
            pair.devices.faults[at].extend([fault; 8]);
            let before = pair.nodes[at].asked;
            pair.run_for(MINUTE);
            assert!(pair.nodes[at].asked - before < 40, "no storm of requests: {}", pair.nodes[at].asked - before);
            pair.run_blocks(5, 10 * MINUTE);
            pair.check_settled();
            assert!(pair.nodes[0].pool.len() >= 6, "{at} {fault:?} {healthy}");
            assert!(pair.nodes.iter().all(|node| node.errors.is_empty() && node.dropped.is_empty()));
        }
    }
    let mut pair = Pair::new();
    pair.devices.delay = Duration::from_secs(40);
    pair.run_blocks(2, HOUR);
    pair.check_settled();
    assert_eq!(pair.nodes[0].pool.len(), 2, "longer than the peer's timeout, and nobody was silent");
    assert!(pair.nodes.iter().all(|node| node.errors.is_empty()));
}

#[test]
fn ids_that_bobs_device_does_not_know_cost_no_tag_and_little_key() {
    let mut pair = Pair::new();
    pair.run_blocks(1, MINUTE);
    let (tags, stock) = (pair.nodes[0].end.tags_left(), pair.devices.stock);
    // A moment of ignorance is nothing.
    pair.devices.faults[1].extend([DeviceFault::Unknown; 3]);
    pair.run_blocks(1, MINUTE);
    pair.check_settled();
    assert!(pair.nodes.iter().all(|node| node.dropped.is_empty() && node.aborted.is_empty()));
    // Lasting ignorance, as after a reset, drops each offer at both ends.
    pair.devices.forget();
    let spent_before = stock - pair.devices.stock;
    pair.devices.faults[1].extend([DeviceFault::Unknown; 4_000]);
    pair.run_for(24 * HOUR);
    pair.check();
    let [alice, bob] = &pair.nodes;
    assert!(alice.dropped.len() > 20 && alice.dropped.iter().all(|cause| *cause == VendorCause::UnknownIds));
    assert!(alice.aborted.is_empty() && bob.aborted.is_empty() && bob.dropped.is_empty());
    assert_eq!((alice.end.tags_left().0 + 2, alice.end.tags_left().1 + 1), tags, "only the good block's tags");
    let wasted = stock - pair.devices.stock - spent_before;
    assert!(wasted < 64 + 16 * 50, "a day of it wasted {wasted} keys");
    pair.devices.faults[1].clear();
    pair.run_blocks(3, 2 * HOUR);
    pair.check_settled();
    assert!(pair.nodes[0].pool.len() >= 5);
}

#[test]
fn different_bits_are_noticed_before_use_at_both_ends() {
    let mut pair = Pair::new();
    pair.run_blocks(1, MINUTE);
    let tags = pair.nodes[0].end.tags_left();
    pair.devices.bend = Some(|keys| keys.last_mut().unwrap().1.expose_mut(|key| key[31] ^= 1));
    pair.run_for(MINUTE);
    pair.check();
    for node in &pair.nodes {
        let last = node.pool.keys().next_back().unwrap();
        assert!(!node.aborted.is_empty() && node.aborted.iter().all(|record| record.block > *last));
        let cause = Some(VendorCause::DifferentBits);
        assert!(node.aborted.iter().all(|record| record.given_up == cause), "{:?}", node.aborted);
        assert!(node.alarms.iter().all(|alarm| *alarm == "devices disagree"));
        assert_eq!(node.alarms.len(), node.aborted.len());
        assert!(node.errors.is_empty());
    }
    assert_eq!(pair.nodes[0].aborted.len(), pair.nodes[1].aborted.len());
    assert!(pair.nodes[0].aborted[1..].iter().all(|record| record.keys == 16), "then the smallest block is tried");
    assert!(pair.nodes[0].aborted.len() < 8, "with longer and longer pauses");
    let left = pair.nodes[0].end.tags_left();
    assert!(tags.0 - left.0 >= 2 * pair.nodes[0].aborted.len() as u64);
    pair.devices.bend = None;
    pair.run_blocks(3, 10 * MINUTE);
    pair.check_settled();
}

#[test]
fn the_reserve_survives_a_week_of_disagreement() {
    let mut pair = Pair::new();
    pair.run_blocks(40, HOUR);
    pair.devices.bend = Some(|keys| keys[0].1.expose_mut(|key| key[0] ^= 0x80));
    pair.run_for(24 * HOUR);
    pair.check();
    assert!(pair.nodes[0].end.tags_left().0 >= 2, "{:?}", pair.nodes[0].end.tags_left());
    // Another two days, and Alice asks for help instead of draining the device.
    pair.run_for(48 * HOUR);
    pair.check();
    let stock = pair.devices.stock;
    assert!(pair.nodes[0].alarms.contains(&"authentication key used up"), "{:?}", pair.nodes[0].end.tags_left());
    pair.run_for(HOUR);
    assert_eq!(pair.devices.stock, stock);
    assert_eq!(pair.nodes[0].alarms.iter().filter(|alarm| alarm.contains("used up")).count(), 1);
}

#[test]
fn a_device_that_delivers_other_keys_than_asked_makes_none() {
    let wrong: [BendKeys; 5] = [
        |keys| keys.truncate(1),
        |keys| keys.push((KeyId(types::id::Uuid::from_u128(77)), SecretBytes::copy_of(&[1; 32]))),
        |keys| keys[0].0 = KeyId(types::id::Uuid::from_u128(78)),
        |keys| keys[0].1 = SecretBytes::copy_of(&[1; 31]),
        |keys| keys[0].1 = SecretBytes::copy_of(&[1; 33]),
    ];
    for (number, bend) in wrong.into_iter().enumerate() {
        let mut pair = Pair::new();
        pair.devices.bend = Some(bend);
        pair.run_for(MINUTE);
        pair.check_settled();
        assert!(pair.nodes[0].pool.is_empty(), "{number}");
        assert!(pair.nodes[0].dropped.iter().all(|cause| *cause == VendorCause::WrongKeys), "{number}");
        assert!(pair.nodes[1].errors.is_empty() && !pair.nodes[1].dropped.is_empty(), "{number}");
        pair.devices.bend = None;
        pair.run_blocks(2, 10 * MINUTE);
        pair.check_settled();
        assert!(pair.nodes[0].pool.len() >= 2, "{number}");
    }
    let wrong: [BendKeys; 4] = [
        |keys| keys.push((KeyId(types::id::Uuid::from_u128(77)), SecretBytes::copy_of(&[1; 32]))),
        |keys| keys[0].0 = keys[1].0,
        |keys| keys[0].1 = SecretBytes::copy_of(&[1; 31]),
        |keys| keys.clear(),
    ];
    for (number, bend) in wrong.into_iter().enumerate() {
        let mut pair = Pair::new();
        pair.devices.bend_new = Some(bend);
        pair.run_for(MINUTE);
        assert!(pair.nodes.iter().all(|node| node.pool.is_empty() && node.errors.is_empty()), "{number}");
        pair.devices.bend_new = None;
        pair.run_blocks(2, 10 * MINUTE);
        pair.check_settled();
        assert_eq!(pair.nodes[0].pool.len(), 2, "{number}");
    }
}

#[test]
fn a_crash_of_either_end_at_any_step_files_at_both_or_neither() {
    let steps = {
        let mut pair = Pair::new();
        pair.run_blocks(3, MINUTE);
        pair.steps
    };
    for (at, steps) in steps.into_iter().enumerate() {
        for step in 1..=steps {
            let mut pair = Pair::new();
            pair.crash = Some((at, step));
            pair.run_blocks(3, 10 * MINUTE);
            pair.check_settled();
            assert!(pair.nodes[0].pool.len() >= 3, "{at} step {step}");
            let alarms: Vec<_> = pair.nodes.iter().map(|node| (&node.alarms, &node.errors)).collect();
            assert!(alarms.iter().all(|(alarms, _)| alarms.is_empty()), "{at} step {step}: {alarms:?}");
            for node in &pair.nodes {
                assert!(node.errors.is_empty(), "{at} step {step}: {:?}", node.errors);
                assert!(node.aborted.len() <= 1);
            }
        }
    }
}

#[test]
fn a_crash_of_both_ends_at_any_steps_files_at_both_or_neither() {
    let mut seed = 1_u64;
    for _ in 0..200 {
        let mut pair = Pair::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, ahead) = ((seed >> 33) as usize % 2, (seed >> 40) as usize % 30);
            pair.crash = Some((at, pair.steps[at] + 1 + ahead));
            pair.run_blocks(1, 20 * MINUTE);
            pair.check();
        }
        pair.crash = None;
        pair.run_blocks(2, 10 * MINUTE);
        pair.check_settled();
        assert!(pair.nodes[0].pool.len() >= 14, "{}", pair.nodes[0].pool.len());
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((word ^ word >> 31) >> 16) as usize
}

#[test]
fn whatever_crashes_is_cut_bent_or_faulty_at_once_files_at_both_or_neither() {
    for seed in 0..80 {
        let mut state = seed;
        let mut pair = Pair::new();
        let mut wire_state = seed ^ 0xabcd;
        pair.bend = Some(Box::new(move |_, _, wire| match random(&mut wire_state) % 40 {
            0 => Fate::Cut,
            1 => {
                let at = random(&mut wire_state) % wire.len();
                wire[at] ^= 1 << (random(&mut wire_state) % 8);
                Fate::Arrives
            }
            _ => Fate::Arrives,
        }));
        for _ in 0..25 {
            let at = random(&mut state) % 2;
            match random(&mut state) % 5 {
                0 => pair.devices.faults[at].extend([DeviceFault::Unavailable; 2]),
                1 => pair.devices.faults[1].extend([DeviceFault::Unknown; 5]),
                2 => pair.devices.bend = Some(|keys| keys[0].1.expose_mut(|key| key[3] ^= 4)),
                3 => pair.devices.forget(),
                _ => pair.crash = Some((at, pair.steps[at] + 1 + random(&mut state) % 40)),
            }
            pair.run_for(Duration::from_millis(random(&mut state) as u64 % 2_000));
            pair.devices.bend = None;
            pair.check();
        }
        (pair.crash, pair.bend) = (None, None);
        pair.devices.faults.iter_mut().for_each(std::collections::VecDeque::clear);
        pair.run_blocks(2, 24 * HOUR);
        pair.check_settled();
        assert!(pair.nodes[0].pool.len() >= 2, "seed {seed}: the link goes on");
    }
}

#[test]
fn a_cut_at_any_message_loses_nothing_that_was_fetched() {
    let messages = {
        let mut pair = Pair::new();
        pair.run_blocks(3, MINUTE);
        pair.sent
    };
    for cut in 0..messages {
        let mut pair = Pair::new();
        pair.bend = Some(Box::new(move |number, _, _| if number == cut { Fate::Cut } else { Fate::Arrives }));
        pair.run_blocks(3, 10 * MINUTE);
        pair.check_settled();
        assert!(pair.nodes[0].pool.len() >= 3, "cut at {cut}");
        for node in &pair.nodes {
            assert!(node.errors.is_empty() && node.dropped.is_empty() && node.aborted.is_empty(), "cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_bit_in_any_message_files_no_different_key_and_the_link_goes_on() {
    let messages = {
        let mut pair = Pair::new();
        pair.run_blocks(2, MINUTE);
        pair.names
    };
    for (target, name) in messages.iter().enumerate() {
        let mut pair = Pair::new();
        let length = std::rc::Rc::new(core::cell::Cell::new(0));
        let seen = length.clone();
        pair.bend = Some(Box::new(move |number, _, wire| {
            if number == target {
                seen.set(wire.len());
            }
            Fate::Arrives
        }));
        pair.run_blocks(2, MINUTE);
        let bits = 8 * length.get();
        // Every bit of the short messages; of the list of ids, its beginning and samples.
        for bit in (0..bits).filter(|bit| *bit < 400 || bit % 331 == 0) {
            let mut pair = Pair::new();
            pair.bend = Some(Box::new(move |number, _, wire| {
                if number == target && bit / 8 < wire.len() {
                    wire[bit / 8] ^= 1 << (bit % 8);
                }
                Fate::Arrives
            }));
            pair.run_blocks(2, 10 * MINUTE);
            pair.check_settled();
            assert!(pair.nodes[0].pool.len() >= 2, "{name} bit {bit}");
            let noticed = pair.nodes.iter().any(|node| !node.errors.is_empty() || !node.dropped.is_empty());
            // Keys per request may be bent without harm, and that Alice waits for an answer when she does not.
            let harmless = *name == "Offer" || (*name == "Hello" && bit == 8 * 17);
            assert!(noticed || harmless, "{name} bit {bit} was noticed");
            assert!(pair.nodes.iter().all(|node| node.aborted.is_empty()), "{name} bit {bit} cost no block's tags");
            assert!(pair.nodes.iter().all(|node| !node.alarms.contains(&"devices disagree")), "{name} bit {bit}");
        }
    }
}

#[test]
fn a_forged_fetched_or_missing_does_no_more_than_waste() {
    let forged: [fn(BlockSeq) -> Message; 2] =
        [|block| Message::Fetched { block }, |block| Message::Missing { block, cause: VendorCause::UnknownIds }];
    for forge in forged {
        let mut pair = Pair::new();
        pair.run_blocks(1, MINUTE);
        pair.devices.faults[1].extend([DeviceFault::Unavailable; 3]);
        // Alice has offered, Bob's device is down, and somebody answers in his place.
        while pair.names.last() != Some(&"Offer") {
            pair.run_for(Duration::from_millis(1));
        }
        let block = pair.nodes[0].end.shared.next_block;
        pair.inject(0, &forge(block));
        pair.run_blocks(2, 10 * MINUTE);
        pair.check_settled();
        assert!(pair.nodes[0].pool.len() >= 3);
        assert!(pair.nodes.iter().all(|node| node.aborted.is_empty()), "Bob decides when he has fetched");
    }
}

#[test]
fn a_greeting_shows_what_does_not_fit() {
    let greet = |hello: Hello| {
        let mut alice = fresh(Role::Alice);
        alice.handle_input(Time::ZERO, Input::Connected).unwrap();
        alice.handle_input(Time::ZERO, Input::Message(Message::Hello(hello).encode()))
    };
    let good = Hello { link: "a-b".to_owned(), role: Role::Bob, next_block: BlockSeq(0), pending: false };
    greet(good.clone()).unwrap();
    let wrong = [
        ("link id", Hello { link: "a-c".to_owned(), ..good.clone() }),
        ("role", Hello { role: Role::Alice, ..good.clone() }),
        ("next block (was a store set back?)", Hello { next_block: BlockSeq(1), ..good.clone() }),
    ];
    for (expected, hello) in wrong {
        let error = greet(hello).unwrap_err();
        assert!(matches!(error, Error::Mismatch { field, .. } if field == expected), "{expected}: {error}");
    }
    let mut alice = fresh(Role::Alice);
    alice.handle_input(Time::ZERO, Input::Connected).unwrap();
    let simulated = [vec![1], crate::PROTOCOL_VERSION.to_be_bytes().to_vec(), vec![0; 40]].concat();
    let error = alice.handle_input(Time::ZERO, Input::Message(simulated)).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field, .. } if field.starts_with("protocol version")), "{error}");
    let early =
        Message::Offer(Offer { block: BlockSeq(0), bytes: 1, per_request: 1, ids: vec![KeyId::from_random([1; 16])] });
    let mut bob = fresh(Role::Bob);
    bob.handle_input(Time::ZERO, Input::Connected).unwrap();
    let error = bob.handle_input(Time::ZERO, Input::Message(early.encode())).unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(Misbehaviour::OutOfOrder { .. })), "{error}");
}

#[test]
fn a_store_that_was_set_back_is_noticed() {
    for at in 0..2 {
        let mut pair = Pair::new();
        pair.run_blocks(3, MINUTE);
        let old = records(&pair.nodes[at].disk);
        pair.run_blocks(3, MINUTE);
        pair.nodes[at].disk.clear();
        apply(&mut pair.nodes[at].disk, old.into_iter().map(Change::Put).collect());
        pair.restart(at);
        pair.run_for(MINUTE / 10);
        let noticed = |error: &Error| matches!(error, Error::Mismatch { field, .. } if field.starts_with("next block"));
        assert!(pair.nodes.iter().any(|node| node.errors.iter().any(noticed)), "{at}");
    }
}

#[test]
fn a_silent_peer_is_noticed() {
    let mut bob = fresh(Role::Bob);
    bob.handle_input(Time::ZERO, Input::Connected).unwrap();
    let deadline = Time::ZERO.after(Duration::from_secs(15));
    assert!(bob.poll_timeout().is_some_and(|at| at <= deadline));
    bob.handle_timeout(Time::ZERO.after(Duration::from_secs(14))).unwrap();
    assert!(matches!(bob.handle_timeout(deadline), Err(Error::PeerSilent { .. })));
    bob.handle_input(deadline, Input::Message(vec![1, 2, 3])).unwrap();
}

#[test]
fn torn_or_foreign_records_are_refused() {
    let corrupt = |records| matches!(VendorEnd::restore(config(Role::Bob), records), Err(Error::Corrupt { .. }));
    assert!(corrupt(Vec::new()));
    let mut disk = Default::default();
    apply(&mut disk, VendorEnd::provision(&config(Role::Bob).link, &initial_key()).unwrap());
    for missing in 0..disk.len() {
        let mut torn = records(&disk);
        torn.remove(missing);
        assert!(corrupt(torn), "record {missing}");
    }
    assert_eq!(records(&disk).iter().find_map(VendorEnd::made), Some(true));
    let simulated = crate::LinkEnd::provision(&config(Role::Bob).link, &initial_key()).unwrap();
    let mut disk = Default::default();
    apply(&mut disk, simulated);
    assert_eq!(records(&disk).iter().find_map(VendorEnd::made), Some(false));
    assert!(corrupt(records(&disk)));
    let tiny = VendorConfig { block_bytes: BLOCK_BYTES_MIN - 1, ..config(Role::Alice) };
    assert!(matches!(VendorEnd::restore(tiny, Vec::new()), Err(Error::ApiMisuse { .. })));
}

#[test]
fn encodings_are_pinned() {
    // docs/formats/vendor.md, byte by byte.
    let hello = Hello { link: "a-b".to_owned(), role: Role::Alice, next_block: BlockSeq(5), pending: true };
    assert_eq!(hex(&Message::Hello(hello).encode()), "0156010003612d6200000000000000000501");
    assert_eq!(hex(&Message::Alive.encode()), "02");
    let offer =
        Offer { block: BlockSeq(5), bytes: 512, per_request: 16, ids: vec![KeyId(types::id::Uuid::from_u128(9))] };
    assert_eq!(
        hex(&Message::Offer(offer).encode()),
        "0300000000000000050000020000100000000100000000000000000000000000000009"
    );
    assert_eq!(hex(&Message::Fetched { block: BlockSeq(5) }.encode()), "040000000000000005");
    let missing = Message::Missing { block: BlockSeq(5), cause: VendorCause::DifferentBits };
    assert_eq!(hex(&missing.encode()), "05000000000000000503");
    // The tags of the first commit and answer of a link with this initial key.
    let mut alice = fresh(Role::Alice);
    let key = SecretBytes::copy_of(&[7; 512]);
    let empty = crypto::tag::Tag([0; 16]);
    let commit = message::Commit { block: BlockSeq(0), counter: 0, refill: [7, 0], comparison: empty, tag: empty };
    let commit = alice.shared.tag_commit(commit, &key);
    let bob = fresh(Role::Bob);
    assert!(bob.shared.same_key(&commit, &key, bob.shared.check_commit(&commit).unwrap()));
    let decision = durable::Decision { block: BlockSeq(0), counter: 0, refused: None };
    let answer = bob.shared.tag_answer(decision);
    alice.shared.check_answer(&answer).unwrap();
    alice.shared.next_block = BlockSeq(1);
    let Change::Put(record) = alice.shared.state_change(Some(decision)) else { panic!("a record") };
    let found = [Message::Commit(commit).encode(), Message::Answer(answer).encode(), record.value];
    assert_eq!(found.map(|bytes| hex(&bytes)), [COMMIT, ANSWER, STATE]);
}

const COMMIT: &str = "0600000000000000000000000000000000000000000000000700000000000000001cb6f49924293216835dc75c2edbaf5201e699d00c7f0aae81eab8549e738014";
const ANSWER: &str = "0700000000000000000000000000000000006122f02326d12eeeaa340c35dc1ca29a";
const STATE: &str = "8100000000000000010000000000000000000000000000007e00000000000000020000000000000000000000000000007e0000000000000002010000000000000000000000000000000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fresh(role: Role) -> VendorEnd {
    let mut disk = Default::default();
    apply(&mut disk, VendorEnd::provision(&config(role).link, &initial_key()).unwrap());
    VendorEnd::restore(config(role), records(&disk)).unwrap()
}
