//! Two ends under virtual time: agreement, tampering, crashes, cuts.

mod pair;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use self::pair::{Fate, Pair, apply, config, initial_key};
use super::*;
use crate::error::Misbehaviour;
use crate::message::Kind;
use crate::record::Outcome;

const BITS: u32 = 12_000;

#[test]
fn blocks_come_out_equal_over_many_seeds() {
    for seed in 0..6 {
        let mut pair = Pair::new(BITS, seed);
        pair.qber = [0.002, 0.01, 0.02][(seed % 3) as usize];
        pair.run(3.2);
        pair.check();
        let [alice, bob] = &pair.nodes;
        assert!(alice.errors.is_empty() && bob.errors.is_empty(), "seed {seed}: {:?} {:?}", alice.errors, bob.errors);
        assert_eq!(alice.pool.len() + alice.aborted.len(), 3, "seed {seed}");
        assert!(!alice.pool.is_empty(), "seed {seed}");
        for record in &alice.records {
            let efficiency = record.efficiency().unwrap();
            assert!(pair.qber < 0.01 || efficiency < 1.3, "f at 12,000 bits: {efficiency}");
            assert_eq!(record.sifted(), u64::from(BITS));
            assert!(record.slots > 100_000);
        }
    }
}

/// Block sizes, error rates and methods from the seed: keys equal or none, every parity charged, no pad used twice.
#[test]
fn two_thousand_seeds_keep_every_promise_slow_() {
    let mut filed = 0;
    let mut aborted = 0;
    for seed in 0..2_000_u64 {
        let bits = [1_500, 5_000, 12_000][(seed % 3) as usize];
        let shape: pair::Shape = match seed / 3 % 3 {
            0 => |config| config.reconciliation = Reconciliation::Cascade,
            1 => |config| config.reconciliation = Reconciliation::Ldpc,
            _ => |config| config.beyond_one_way = BeyondOneWay::AdvantageDistillation,
        };
        let mut pair = Pair::shaped(bits, seed, shape);
        pair.qber = [0.0, 0.004, 0.012, 0.03, 0.08, 0.15][(seed / 9 % 6) as usize];
        pair.run(1.1);
        pair.check();
        let [alice, bob] = &pair.nodes;
        assert!(alice.errors.is_empty() && bob.errors.is_empty(), "seed {seed}: {:?} {:?}", alice.errors, bob.errors);
        assert_eq!(alice.pool.len() + alice.aborted.len(), 1, "seed {seed}");
        assert_eq!(alice.aborted.len(), bob.aborted.len(), "seed {seed}");
        filed += alice.pool.len();
        aborted += alice.aborted.len();
    }
    assert!(filed > 150 && aborted > 500, "{filed} filed, {aborted} given up");
}

#[test]
fn the_reserve_is_kept_up_by_the_blocks() {
    let mut pair = Pair::new(BITS, 5);
    pair.run(6.2);
    pair.check();
    let (ours, theirs) = pair.nodes[0].end.tags_left();
    assert_eq!((ours, theirs), (authenticate::RESERVE_TAGS, authenticate::RESERVE_TAGS));
    let last = pair.nodes[0].records.last().unwrap();
    assert_eq!((last.spent.0, last.kept.0), (3 * 128, authenticate::BLOCK_COST_BITS));
    assert!(pair.nodes.iter().all(|node| node.disk.len() < 20), "spent pieces are destroyed");
}

#[test]
fn a_noisy_block_is_given_up_at_both_ends_and_costs_no_authentication_key() {
    for (qber, discloses) in [(0.25, false), (0.08, true)] {
        let mut pair = Pair::new(BITS, 3);
        pair.qber = qber;
        pair.run(1.2);
        pair.check();
        for node in &pair.nodes {
            assert!(node.pool.is_empty());
            assert!(matches!(node.aborted[0].outcome, Outcome::Aborted(AbortCause::NoKey)), "{:?}", node.aborted);
            assert_eq!(node.end.tags_left(), (authenticate::RESERVE_TAGS, authenticate::RESERVE_TAGS));
        }
        assert_eq!(pair.kinds.contains(&Kind::Parities), discloses, "{qber}");
        pair.qber = 0.01;
        pair.new_session();
        // What was left of the noise spoils one more block.
        pair.run(2.2);
        pair.check();
        assert!(!pair.nodes[0].pool.is_empty(), "the block after works");
    }
}

#[test]
fn a_flipped_bit_in_any_message_gives_no_key_and_the_next_block_works() {
    let clean = {
        let mut pair = Pair::new(BITS, 2);
        pair.run(1.05);
        assert_eq!(pair.nodes[0].pool.len(), 1);
        let end = pair.kinds.iter().position(|kind| *kind == Kind::Verdict).unwrap() + 1;
        pair.kinds.truncate(end);
        pair.kinds
    };
    // The first message of each kind, and the last of those that come often.
    let mut targets: Vec<usize> = Kind::ALL.iter().filter_map(|kind| clean.iter().position(|k| k == kind)).collect();
    targets.extend([Kind::Parities, Kind::Ask].map(|kind| clean.iter().rposition(|k| *k == kind).unwrap()));
    for target in targets {
        for place in [1, 3] {
            let mut pair = Pair::new(BITS, 2);
            pair.bend = Some(Box::new(move |number, _, wire| {
                if number == target {
                    let at = wire.len() * place / 3 - 1;
                    wire[at] ^= 1 << (place % 3);
                }
                Fate::Arrives
            }));
            pair.run(1.05);
            pair.check();
            let kind = clean[target];
            // Bent before sifting, another attempt follows with the same detections. A verdict comes when the block
            // is decided, and the true one settles it after all.
            let again = kind == Kind::Hello;
            let filed = usize::from(kind == Kind::Verdict);
            let errors: usize = pair.nodes.iter().map(|node| node.errors.len()).sum();
            let aborted = pair.nodes[0].aborted.len() + pair.nodes[1].aborted.len();
            if !again {
                assert_eq!(pair.nodes[0].pool.len(), filed, "{kind:?} {place}");
                assert!(filed == 1 || aborted > 0, "{kind:?} {place}");
            }
            // A block number in a greeting may be bent upwards a little; nothing comes of it.
            assert!(errors > 0 || aborted > 0 || kind == Kind::Hello, "{kind:?} {place} was noticed");
            for node in &pair.nodes {
                let misbehaved = node.errors.iter().any(|error| matches!(error, Error::PeerMisbehaved(_)));
                let named = node.alarms.contains(&crate::watch::Suspicion::Tampering);
                assert_eq!(named, misbehaved, "{kind:?} {place} is named");
            }
            let before = pair.nodes[0].pool.len();
            pair.run(1.2);
            pair.check();
            assert!(pair.nodes[0].pool.len() > before, "{kind:?} {place}: the next block works");
        }
    }
}

#[test]
fn a_crash_of_either_end_at_any_step_files_at_both_or_neither() {
    let steps = {
        let mut pair = Pair::new(BITS, 4);
        pair.run(1.05);
        pair.steps
    };
    for (at, role) in [Role::Alice, Role::Bob].into_iter().enumerate() {
        // Every step around the commit, every 40th of the long reconciliation before it.
        let interesting = (1..=steps[at]).filter(|step| *step + 24 > steps[at] || step % 70 == 0 || *step < 6);
        for step in interesting {
            let mut pair = Pair::new(BITS, 4);
            pair.crash = Some((role, step));
            pair.run(1.05);
            pair.check();
            let filed = pair.nodes[0].pool.len();
            pair.run(1.2);
            pair.check();
            assert!(pair.nodes[0].pool.len() > filed, "{role:?} step {step}: the next block works");
        }
    }
}

#[test]
fn a_cut_at_any_message_files_at_both_or_neither() {
    let verdict = {
        let mut pair = Pair::new(BITS, 6);
        pair.run(1.05);
        pair.kinds.iter().position(|kind| *kind == Kind::Verdict).unwrap()
    };
    for cut in (0..=verdict).filter(|cut| *cut + 8 > verdict || cut % 80 == 0 || *cut < 5) {
        let mut pair = Pair::new(BITS, 6);
        pair.bend = Some(Box::new(move |number, _, _| if number == cut { Fate::Cut } else { Fate::Arrives }));
        pair.run(1.05);
        pair.check();
        let filed = pair.nodes[0].pool.len();
        // A cut verdict is only news lost: the block was committed before.
        assert!(cut < 5 || filed == usize::from(cut >= verdict), "cut at {cut}, verdict at {verdict}");
        pair.run(1.2);
        pair.check();
        assert!(pair.nodes[0].pool.len() > filed, "cut at {cut}: the next block works");
    }
}

#[test]
fn the_reserve_survives_the_stated_number_of_failed_rounds() {
    let mut pair = Pair::new(BITS, 7);
    // Somebody bends every tag of Bob's, so that each round fails after both have spent theirs.
    pair.bend = Some(Box::new(|_, _, wire| {
        if wire[0] == Kind::Confirm as u8 {
            wire[5] ^= 1;
        }
        Fate::Arrives
    }));
    for round in 0..authenticate::FAILED_ROUNDS {
        // What the last round left is dropped, so that each has one block.
        pair.disconnect();
        pair.new_session();
        pair.run(1.05);
        pair.check();
        assert_eq!(pair.nodes[1].pool.len(), 0, "round {round}");
    }
    let full = authenticate::RESERVE_TAGS;
    assert_eq!(pair.nodes[0].end.tags_left(), (2, full), "none of Bob's tags was accepted");
    assert_eq!(pair.nodes[1].end.tags_left(), (full - authenticate::FAILED_ROUNDS, 2));
    // One round more and Alice says that she has nothing left; nothing is spent on it.
    let disks = [0, 1].map(|at| pair::records(&pair.nodes[at].disk));
    pair.disconnect();
    pair.new_session();
    pair.run(1.05);
    assert_eq!(pair.nodes[0].end.tags_left().0, 0);
    pair.bend = None;
    pair.disconnect();
    pair.new_session();
    pair.try_to_open();
    assert_eq!(pair.nodes[1].aborted.last().unwrap().outcome, Outcome::Aborted(AbortCause::ReserveEmpty));
    // Without that round, the last two tags carry a block.
    for (node, disk) in pair.nodes.iter_mut().zip(disks) {
        node.restart_from(disk, BITS);
    }
    pair.forget_tags();
    pair.disconnect();
    pair.new_session();
    pair.run(1.05);
    pair.check();
    assert_eq!(pair.nodes[0].pool.len(), 1, "the last two tags carry a block");
    assert!(pair.nodes[0].end.tags_left().0 >= 8, "half of which goes to the reserve");
}

#[test]
fn a_new_session_drops_what_waited_of_the_old_one() {
    let mut pair = Pair::new(BITS, 9);
    pair.run(0.5);
    pair.new_session();
    pair.run(0.7);
    pair.check();
    assert_eq!(pair.nodes[0].pool.len(), 1, "bits of both sessions fill one block");
    // Alice alone moves on: Bob's detections are refused until he is told.
    let prepare = |slot: &types::quantum::Slot| pair::prepare(77, *slot, types::network::Decoys::Two);
    let source = Box::new(move |slots: &[types::quantum::Slot]| slots.iter().map(prepare).collect());
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    pair.nodes[0].end.handle_input(pair.now, Input::Transmitting { session: 77, source }, &mut rng).unwrap();
    pair.run(1.2);
    pair.check();
    assert_eq!(pair.nodes[0].pool.len(), 1);
    assert!(pair.kinds.contains(&Kind::Refused));
}

#[test]
fn a_frame_under_way_when_the_session_changes_is_not_announced_in_the_next() {
    let mut pair = Pair::new(BITS, 9);
    pair.try_to_open();
    let detections = pair.detect(400);
    pair.input(1, Input::Detections(detections));
    let announced = |pair: &Pair| pair.kinds.iter().filter(|kind| **kind == Kind::Sift).count();
    let before = announced(&pair);
    while announced(&pair) == before {
        assert!(pair.step(), "Bob announces");
    }
    // Alice is in the next session when she reads it, and so is Bob when he reads that she refuses.
    pair.new_session();
    pair.run(1.2);
    pair.check();
    assert!(pair.nodes.iter().all(|node| node.errors.is_empty()), "{:?}", pair.nodes[0].errors);
    assert_eq!(pair.nodes[0].pool.len(), 1, "the next session makes key at once");
}

#[test]
fn different_settings_are_named() {
    type Change = fn(&mut LinkConfig);
    let changes: [(&str, Change); 6] = [
        ("link id", |config| config.link = LinkId::new("a-c").unwrap()),
        ("role", |config| config.role = Role::Alice),
        ("block size", |config| config.decoy.block_bits = 30_000),
        ("decoy settings", |config| config.decoy.key_basis = 0.51),
        ("beyond one-way", |config| config.beyond_one_way = BeyondOneWay::AdvantageDistillation),
        ("security parameters", |config| config.security.epsilon_secrecy = 1e-5),
    ];
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (expected, change) in changes {
        let mut theirs = config(Role::Bob, BITS);
        change(&mut theirs);
        let mut alice = fresh(config(Role::Alice, BITS));
        let mut other = fresh(theirs);
        other.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
        alice.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
        let Some(Output::Send(hello)) = other.poll_output() else { panic!("a greeting") };
        let error = alice.handle_input(Time::ZERO, Input::Message(hello), &mut rng).unwrap_err();
        assert!(matches!(error, Error::Mismatch { field, .. } if field == expected), "{expected}: {error}");
    }
    let mut alice = fresh(config(Role::Alice, BITS));
    alice.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
    let error = alice.handle_input(Time::ZERO, Input::Message(vec![1, 0, 9]), &mut rng).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field: "protocol version", .. }));
}

#[test]
fn a_silent_peer_is_noticed_and_a_late_message_ignored() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut bob = fresh(config(Role::Bob, BITS));
    bob.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
    let deadline = bob.poll_timeout().unwrap();
    assert_eq!(deadline, Time::ZERO.after(Duration::from_secs(30)));
    bob.handle_timeout(Time::ZERO.after(Duration::from_secs(29))).unwrap();
    assert!(matches!(bob.handle_timeout(deadline), Err(Error::PeerSilent { .. })));
    assert_eq!(bob.poll_timeout(), None);
    bob.handle_input(deadline, Input::Message(vec![1, 2, 3]), &mut rng).unwrap();
}

#[test]
fn a_reflected_greeting_and_garbage_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut alice = fresh(config(Role::Alice, BITS));
    alice.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
    let Some(Output::Send(hello)) = alice.poll_output() else { panic!("a greeting") };
    let error = alice.handle_input(Time::ZERO, Input::Message(hello), &mut rng).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field: "role", .. }));
    alice.handle_input(Time::ZERO, Input::Connected, &mut rng).unwrap();
    let error = alice.handle_input(Time::ZERO, Input::Message(vec![200]), &mut rng).unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(Misbehaviour::Malformed(_))));
}

#[test]
fn an_unprovisioned_or_torn_link_is_refused() {
    let corrupt = |records| matches!(LinkEnd::restore(config(Role::Bob, BITS), records), Err(Error::Corrupt { .. }));
    assert!(corrupt(Vec::new()));
    let mut disk = Default::default();
    apply(&mut disk, LinkEnd::provision(&config(Role::Bob, BITS).link, &initial_key()).unwrap());
    let records = pair::records(&disk);
    for missing in 0..records.len() {
        let mut torn = pair::records(&disk);
        torn.remove(missing);
        assert!(corrupt(torn), "record {missing}");
    }
    let short = SecretBytes::copy_of(&[0; 100]);
    assert!(LinkEnd::provision(&config(Role::Bob, BITS).link, &short).is_err());
}

#[test]
fn blocks_are_in_flight_together_and_finish_in_order() {
    let mut pair = Pair::new(BITS, 12);
    pair.run(9.5);
    pair.check();
    assert_eq!(pair.nodes[1].pool.len() + pair.nodes[1].aborted.len(), 9);
    assert!(pair.in_flight > 4, "{} in flight", pair.in_flight);
    for node in &pair.nodes {
        let order: Vec<_> = node.records.iter().map(|record| record.block).collect();
        assert!(order.is_sorted() && order.len() > 6, "{order:?}");
    }
    // Estimates of later blocks come between the questions of earlier ones.
    let last_estimate = pair.kinds.iter().rposition(|kind| *kind == Kind::Estimate).unwrap();
    let first_finish = pair.kinds.iter().position(|kind| *kind == Kind::Finish).unwrap();
    assert!(first_finish > last_estimate, "nine blocks fit in flight");
}

#[test]
fn one_decoy_blocks_tell_the_errors_of_the_key_basis() {
    fn one_decoy(config: &mut LinkConfig, proof: Proof) {
        config.decoy.intensities = [0.3, 0.1, 0.0];
        config.decoy.probabilities = [0.1, 0.9, 0.0];
        config.proof = proof;
    }
    let shapes: [(Proof, pair::Shape); 2] = [
        (Proof::Rusca2018, |config| one_decoy(config, Proof::Rusca2018)),
        (Proof::Wiesemann2026, |config| one_decoy(config, Proof::Wiesemann2026)),
    ];
    for (proof, shape) in shapes {
        let mut pair = Pair::shaped(40_000, 13, shape);
        pair.run(2.2);
        pair.check();
        let record = pair.nodes[0].records.first().expect("key");
        assert_eq!(record.proof, proof);
        assert_eq!(record.counts.key_errors.unwrap().iter().sum::<u64>(), record.corrected);
        assert_eq!(record.rule().to_string(), proof.name());
    }
}

/// 11.4 %, the highest error rate of Paper 1: no key one-way, some by advantage distillation, under its own name.
#[test]
fn beyond_one_way_works_where_it_is_enabled_and_says_so() {
    let shape = |config: &mut LinkConfig| config.decoy.intensities = [0.1, 0.03, 0.0002];
    let mut off = Pair::shaped(200_000, 14, shape);
    off.qber = 0.114;
    off.run(1.2);
    off.check();
    assert!(matches!(off.nodes[0].aborted[0].outcome, Outcome::Aborted(AbortCause::NoKey)));
    let mut on = Pair::shaped(200_000, 14, |config| {
        config.decoy.intensities = [0.1, 0.03, 0.0002];
        config.beyond_one_way = BeyondOneWay::AdvantageDistillation;
    });
    on.qber = 0.114;
    on.run(1.2);
    on.check();
    let record = on.nodes[0].records.first().expect("key at 11.4 %");
    assert_eq!(record.rule().to_string(), "lim2014+ad-asymptotic");
    assert!(record.distilled.0 < 100_000 && record.qber().unwrap() < 0.03, "{record:?}");
    // A quiet link with the mode enabled stays one-way.
    on.qber = 0.01;
    on.disconnect();
    on.new_session();
    on.run(1.2);
    on.check();
    assert_eq!(on.nodes[1].records.last().unwrap().rule().to_string(), "lim2014");
}

#[test]
fn watchdogs_stop_key_and_the_link_comes_back() {
    use types::quantum::{ReceiverReading, TransmitterReading};

    use crate::watch::Suspicion;
    let quiet = ReceiverReading { slots: 1, photocurrent_ua: 0.1, ..ReceiverReading::default() };
    let blinded = Input::ReceiverReading(ReceiverReading { photocurrent_ua: 50.0, ..quiet });
    let shone_at = Input::TransmitterReading(TransmitterReading { slots: 1, incoming_nw: 900.0 });
    for (at, alarm, suspicion) in [(1, blinded, Suspicion::Blinding), (0, shone_at, Suspicion::TrojanLight)] {
        let mut pair = Pair::new(BITS, 15);
        pair.run(0.6);
        pair.read(at, alarm);
        pair.run(0.9);
        assert!(
            pair.nodes.iter().all(|node| node.pool.is_empty() && node.errors.is_empty()),
            "no key under {suspicion}"
        );
        assert_eq!(pair.nodes[at].alarms, [suspicion]);
        for node in &pair.nodes {
            assert!(matches!(node.aborted[0].outcome, Outcome::Aborted(AbortCause::Alarm)), "{:?}", node.aborted);
        }
        pair.read(0, Input::TransmitterReading(TransmitterReading { slots: 1, incoming_nw: 0.1 }));
        pair.read(1, Input::ReceiverReading(quiet));
        pair.run(2.2);
        pair.check();
        assert!(!pair.nodes[0].pool.is_empty(), "key again after {suspicion}");
    }
}

/// Bob's watchdog barks while Alice's last message of the block is on its way to him.
#[test]
fn an_alarm_that_crosses_finish_is_no_tampering() {
    use types::quantum::ReceiverReading;
    let quiet = ReceiverReading { slots: 1, photocurrent_ua: 0.1, ..ReceiverReading::default() };
    let mut pair = Pair::new(BITS, 17);
    pair.reconnect();
    let detections = pair.detect(60_000);
    pair.input(1, Input::Detections(detections));
    while pair.kinds.last() != Some(&Kind::Finish) {
        assert!(pair.step(), "the block comes to its end");
    }
    pair.input(1, Input::ReceiverReading(ReceiverReading { photocurrent_ua: 50.0, ..quiet }));
    pair.settle();
    for node in &pair.nodes {
        assert!(node.pool.is_empty() && node.errors.is_empty(), "{:?}", node.errors);
        assert!(matches!(node.aborted[0].outcome, Outcome::Aborted(AbortCause::Alarm)), "{:?}", node.aborted);
        assert!(!node.alarms.contains(&crate::watch::Suspicion::Tampering), "{:?}", node.alarms);
    }
    pair.input(1, Input::ReceiverReading(quiet));
    pair.run(2.2);
    pair.check();
    assert!(!pair.nodes[0].pool.is_empty(), "key again");
}

/// Somebody says in Bob's name that he gives the block up, when he holds it already.
#[test]
fn a_forged_abort_in_place_of_confirm_leaves_no_key_at_one_end() {
    let mut pair = Pair::new(BITS, 18);
    pair.bend = Some(Box::new(|_, _, wire| {
        if wire[0] == Kind::Confirm as u8 {
            let block = wire[1..9].to_vec();
            *wire = [&[Kind::Abort as u8], &block[..], &[AbortCause::Alarm as u8]].concat();
        }
        Fate::Arrives
    }));
    pair.run(1.05);
    pair.check();
    assert!(pair.nodes.iter().all(|node| node.pool.is_empty()));
    assert!(pair.nodes[1].aborted.iter().any(|record| record.outcome == Outcome::Aborted(AbortCause::NotCommitted)));
    pair.bend = None;
    pair.run(1.2);
    pair.check();
    assert!(!pair.nodes[0].pool.is_empty(), "the next block works");
}

#[test]
fn intercept_resend_aborts_within_one_block_and_is_named() {
    let mut pair = Pair::new(BITS, 16);
    pair.run(1.05);
    pair.disconnect();
    pair.new_session();
    pair.qber = 0.13;
    pair.run(1.05);
    pair.check();
    for node in &pair.nodes {
        assert_eq!(node.pool.len(), 1);
        assert_eq!(node.alarms, [crate::watch::Suspicion::InterceptResend]);
    }
}

#[test]
fn the_same_inputs_give_the_same_transcript() {
    let run = || {
        let mut pair = Pair::new(BITS, 11);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&seen);
        pair.bend = Some(Box::new(move |_, _, wire| {
            log.lock().unwrap().push(wire.clone());
            Fate::Arrives
        }));
        pair.run(1.1);
        let seen = seen.lock().unwrap();
        seen.clone()
    };
    assert!(run() == run());
}

fn fresh(config: LinkConfig) -> LinkEnd {
    let mut disk = Default::default();
    apply(&mut disk, LinkEnd::provision(&config.link, &initial_key()).unwrap());
    LinkEnd::restore(config, pair::records(&disk)).unwrap()
}
