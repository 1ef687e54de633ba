//! Keys combined from several ways, and other ways round what fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crypto::manipulation::CHECK_LEN;
use crypto::record::Table;
use crypto::secret::SecretBytes;
use types::id::{BlockSeq, KeyId, LinkId, SiteId};
use types::units::UtcNanos;

use super::net::{Net, site};
use crate::kme::confirm;
use crate::message::{Message, Relay};
use crate::wish::Fit;
use crate::{Input, Wishes};

const PLENTY: usize = 60_000;
const RING: [&str; 4] = ["a", "b", "c", "d"];

type Tape = Rc<RefCell<Vec<(SiteId, SiteId, Vec<u8>)>>>;

/// Everything that goes over a wire, as an eavesdropper on all wires has it.
fn tape(net: &mut Net) -> Tape {
    let tape = Tape::default();
    let all = Rc::clone(&tape);
    net.tap = Box::new(move |from, to, bytes| {
        all.borrow_mut().push((from.clone(), to.clone(), bytes.clone()));
        true
    });
    tape
}

fn relays(tape: &Tape) -> Vec<Relay> {
    let relay = |(_, _, bytes): &(SiteId, SiteId, Vec<u8>)| match Message::decode(bytes) {
        Ok(Message::Relay(relay)) => Some(relay),
        _ => None,
    };
    tape.borrow().iter().filter_map(relay).collect()
}

/// Bits of all four links of the ring, the same in every world.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let bits = |n: u64| (0..PLENTY as u64).map(|at| (at * 7 + at / 251 + n * 89).to_be_bytes()[7]).collect();
    BTreeMap::from([("a-b", bits(1)), ("b-c", bits(2)), ("c-d", bits(3)), ("d-a", bits(4))])
}

/// Where in its block the bytes of a hop's key lie: first the tag key, then the pad.
fn places(relay: &Relay) -> Vec<usize> {
    let (from, to) = (&relay.path[usize::from(relay.hop)], &relay.path[usize::from(relay.hop) + 1]);
    let half = if from < to { 0 } else { PLENTY / 2 };
    let bytes = |range: &crate::message::PadRange| (range.offset..range.offset + range.len).map(|at| at as usize);
    relay.ranges.iter().flat_map(bytes).map(|at| half + at).collect()
}

/// What the owner of a link's bits reads in a hop over it.
fn opened(relay: &Relay, blocks: &BTreeMap<&'static str, Vec<u8>>) -> Vec<u8> {
    let block = &blocks[relay.link.as_str()];
    relay.sealed.iter().zip(&places(relay)[32..]).map(|(byte, at)| byte ^ block[*at]).collect()
}

/// The code words of all batches, by the eyes of who has all link key: the sums of their shares, and their ways.
fn words(tape: &Tape, blocks: &BTreeMap<&'static str, Vec<u8>>) -> BTreeMap<KeyId, (Vec<u8>, Vec<Vec<SiteId>>)> {
    let mut words: BTreeMap<KeyId, (Vec<u8>, Vec<Vec<SiteId>>)> = BTreeMap::new();
    let mut first: Vec<Relay> = relays(tape).into_iter().filter(|relay| relay.hop == 0).collect();
    first.sort_by_key(|relay| (relay.relay, relay.share.index));
    for relay in first {
        let share = opened(&relay, blocks);
        let (word, ways) = words.entry(relay.relay).or_insert_with(|| (vec![0; share.len()], Vec::new()));
        word.iter_mut().zip(&share).for_each(|(sum, bits)| *sum ^= bits);
        ways.push(relay.path.clone());
    }
    words
}

/// Only `a` fills, and only its stock for `c`: over `b`, and over `d` if two ways are wanted.
fn world(paths: u8, blocks: &BTreeMap<&'static str, Vec<u8>>, bend: Vec<u8>) -> (Net, Tape) {
    let adjust = if paths == 2 { |config: &mut crate::Config| config.paths_wanted = 2 } else { |_: &mut _| {} };
    let mut net = Net::ring(&RING, adjust);
    RING.iter().for_each(|name| net.input(name, Input::Routes(BTreeMap::new())));
    let tape = tape(&mut net);
    // Of the two long draws for each batch the first is the keys, the second the first share.
    let mut draws = 0;
    net.rng.bend = Box::new(move |bytes| {
        if bytes.len() >= 256 {
            draws += 1;
            if draws % 2 == 1 {
                bytes.iter_mut().zip(bend.iter().cycle()).for_each(|(byte, bend)| *byte ^= bend);
            }
        }
    });
    for (link, bits) in blocks {
        let (one, other) = link.split_once('-').unwrap();
        net.block(one, other, BlockSeq(0), &SecretBytes::copy_of(bits));
    }
    net.settle();
    let routes = net.routes("a").into_iter().filter(|(to, _)| *to == site("c")).collect();
    net.input("a", Input::Routes(routes));
    net.settle();
    (net, tape)
}

#[test]
fn a_relay_on_one_of_two_ways_sees_the_same_whatever_the_keys_are() {
    let blocks = blocks();
    let (mut first, tape) = world(2, &blocks, vec![0]);
    let words = words(&tape, &blocks);
    let keys = first.disks[&site("a")].secrets(Table::PairKey);
    assert_eq!((keys.len(), first.held("c", "a")), (64, 64));
    for seed in 1..6_u8 {
        // Any other keys: only the bits of the links a-d and c-d, which b never has, tell one world from the other.
        let delta: Vec<u8> =
            (0..32).map(|at: u8| at.wrapping_mul(31).wrapping_add(seed.wrapping_mul(97)) | 1).collect();
        let mut other = blocks.clone();
        for relay in relays(&tape).iter().filter(|relay| relay.path[1] == site("d")) {
            // The word of the other keys with the same random part.
            let (word, ways) = &words[&relay.relay];
            let (keys, check) = word.split_at(word.len() - CHECK_LEN);
            let x = check[..16].to_vec();
            first.rng.bend = Box::new(move |bytes| bytes.copy_from_slice(&x));
            let bent = SecretBytes::from_vec(keys.iter().zip(delta.iter().cycle()).map(|(k, d)| k ^ d).collect());
            let (bent, _) = confirm::encode(relay.relay, ways, &bent, &mut first.rng);
            let block = other.get_mut(relay.link.as_str()).unwrap();
            let change = bent.expose(|bent| word.iter().zip(bent).map(|(one, other)| one ^ other).collect::<Vec<u8>>());
            places(relay)[32..].iter().zip(change).for_each(|(at, change)| block[*at] ^= change);
        }
        assert_eq!((&other["a-b"], &other["b-c"]), (&blocks["a-b"], &blocks["b-c"]));
        let (second, seen) = world(2, &other, delta.clone());
        assert!(*seen.borrow() == *tape.borrow(), "all messages on all wires are the same");
        for table in [Table::PoolBlock, Table::PairKey] {
            let at_b = |net: &Net| net.disks[&site("b")].secrets(table);
            assert!(at_b(&first) == at_b(&second), "and so is all that b has");
        }
        let expected: Vec<Vec<u8>> =
            keys.iter().map(|key| key.iter().zip(&delta).map(|(key, delta)| key ^ delta).collect()).collect();
        for at in ["a", "c"] {
            let others = second.disks[&site(at)].secrets(Table::PairKey);
            assert!(others == expected && others != keys, "but the keys at {at} are others");
        }
    }
}

#[test]
fn two_relays_on_both_ways_together_have_the_keys_and_one_on_the_only_way_has_them_alone() {
    let blocks = blocks();
    let (net, tape) = world(2, &blocks, vec![0]);
    let keys = net.disks[&site("c")].secrets(Table::PairKey).concat();
    // By relay id, as the disk has them.
    let mut shares: BTreeMap<(KeyId, SiteId), Vec<u8>> = BTreeMap::new();
    for relay in relays(&tape).into_iter().filter(|relay| relay.hop == 0) {
        shares.insert((relay.relay, relay.path[1].clone()), opened(&relay, &blocks));
    }
    let of = |relay: &str| -> Vec<u8> {
        shares.iter().filter(|((_, via), _)| via.as_str() == relay).flat_map(|(_, share)| share.clone()).collect()
    };
    assert!(of("b") != keys && of("d") != keys);
    let sum = |(word, _): (Vec<u8>, _)| word[..word.len() - CHECK_LEN].to_vec();
    assert!(words(&tape, &blocks).into_values().flat_map(sum).collect::<Vec<u8>>() == keys);

    let (net, tape) = world(1, &blocks, vec![0]);
    let mut alone: Vec<Relay> = relays(&tape).into_iter().filter(|relay| relay.hop == 0).collect();
    alone.sort_by_key(|relay| relay.relay);
    let seen: Vec<u8> = alone.iter().flat_map(|relay| opened(relay, &blocks)).collect();
    assert!(seen == net.disks[&site("c")].secrets(Table::PairKey).concat());
}

#[test]
fn a_share_that_is_lost_takes_its_batch_with_it_and_a_crash_leaves_nothing_half() {
    let mut net = Net::ring(&RING, |config| config.paths_wanted = 2);
    net.tap = Box::new(|from, to, bytes| {
        let relay = matches!(Message::decode(bytes), Ok(Message::Relay(_)));
        !(relay && from.as_str() == "d" && to.as_str() == "c")
    });
    RING.iter().for_each(|name| net.input(name, Input::Routes(BTreeMap::new())));
    net.blocks(PLENTY);
    for name in RING {
        let routes = net.routes(name);
        net.input(name, Input::Routes(routes));
    }
    net.settle();
    assert_eq!((net.ready("a", "c"), net.held("c", "a")), (0, 0), "one share of each batch is missing");
    net.crash("c");
    net.advance(Duration::from_secs(3));
    assert_eq!((net.ready("a", "c"), net.held("c", "a")), (64, 64), "around the hop that lets nothing pass");
    let paths = |net: &Net, at: &str| {
        let kme = &net.kmes[&site(at)];
        let own = kme.peers[&site("c")].own.known_origins();
        own.iter().map(|origin| origin.combined).collect::<Vec<u8>>()
    };
    assert!(paths(&net, "a").iter().all(|combined| *combined == 1), "as many ways as there are");
    net.tap = Box::new(|_, _, _| true);
    net.crash("a");
    assert_eq!((net.ready("a", "c"), net.held("c", "a")), (64, 64));
}

#[test]
fn keys_of_several_ways_are_made_on_demand_beside_plain_ones() {
    let mut net = Net::ring(&RING, |_| {});
    net.blocks(PLENTY);
    let ready = |net: &Net| {
        let own = &net.kmes[&site("a")].peers[&site("c")].own;
        (own.ready(), own.ready_of(2))
    };
    assert_eq!(ready(&net), (64, 0));
    let (now, two) = (net.now, Fit::new(&Wishes { paths: 2, ..Wishes::default() }, UtcNanos(0)));
    net.kmes.get_mut(&site("a")).unwrap().demand_keys(now, &site("c"), &two, 10);
    net.advance(Duration::from_secs(11));
    assert_eq!(ready(&net), (128, 64));
    let origin = |net: &Net, at: &str, peer: &str| match at {
        "a" => net.kmes[&site(at)].peers[&site(peer)].own.known_origins(),
        _ => net.kmes[&site(at)].peers[&site(peer)].held.known_origins(),
    };
    for (at, peer) in [("a", "c"), ("c", "a")] {
        let both = origin(&net, at, peer).into_iter().find(|origin| origin.combined == 2).unwrap();
        let mut paths: Vec<String> =
            both.paths.iter().map(|path| path.iter().map(SiteId::as_str).collect::<String>()).collect();
        paths.sort();
        assert_eq!(paths, ["abc", "adc"], "both ends note both ways");
    }
    net.crash("a");
    net.crash("c");
    assert_eq!(ready(&net), (128, 64), "it is known after a restart too");
}

#[test]
fn shares_over_ways_that_cross_are_refused_by_the_holder() {
    let mut net = Net::ring(&RING, |_| {});
    net.blocks(PLENTY);
    let held = net.held("c", "a");
    let path = || ["a", "b", "c"].map(site).to_vec();
    for index in 0..2 {
        let share = crate::message::ShareOf { index, count: 2 };
        let keys = SecretBytes::copy_of(&[index; 256]);
        let (since, class) = (net.now, crate::pool::Class::Transit);
        let relay = KeyId::from_random([9; 16]);
        let waiting = crate::queue::Waiting { relay, share, path: path(), hop: 1, keys, class, since };
        let now = net.now;
        net.kmes.get_mut(&site("b")).unwrap().queue_hop(now, waiting);
    }
    net.advance(Duration::from_secs(1));
    assert_eq!(net.held("c", "a"), held);
}

#[test]
fn a_relay_that_cannot_go_on_takes_another_way_at_once() {
    let mut net = Net::ring(&RING, |_| {});
    let long = |n: u8| SecretBytes::copy_of(&vec![n; PLENTY]);
    for (n, a, b) in [(0, "a", "b"), (1, "c", "d"), (2, "d", "a")] {
        net.block(a, b, BlockSeq(0), &long(n));
    }
    net.settle();
    assert_eq!((net.ready("a", "c"), net.held("c", "a")), (64, 64), "no time has passed");
    assert!(net.codes("a").contains("RELAY_FAILED"), "the way over b was tried first");
    assert_eq!(net.kmes[&site("b")].counters().transit_keys, 0);
}

#[test]
fn a_site_that_swallows_everything_is_gone_round_within_a_second() {
    let mut net = Net::ring(&RING, |config| config.target_keys = 640);
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(1));
    net.tap = Box::new(|from, to, _| from.as_str() != "b" && to.as_str() != "b");
    let before = net.ready("a", "c");
    net.kmes.get_mut(&site("a")).unwrap().config.target_keys = 900;
    for _ in 0..2 {
        net.blocks(PLENTY);
    }
    net.advance(Duration::from_secs(1));
    assert!(net.ready("a", "c") >= before + 200, "{before} then {}", net.ready("a", "c"));
}

#[test]
fn what_waits_for_key_is_not_lost_and_goes_on_when_there_is_some() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    let link = |name: &str| LinkId::new(name).unwrap();
    for (at, name, peer) in [("a", "a-b", "b"), ("b", "a-b", "a"), ("b", "b-c", "c"), ("c", "b-c", "b")] {
        net.input(at, Input::LinkUp { link: link(name), peer: site(peer) });
    }
    net.block("a", "b", BlockSeq(0), &SecretBytes::copy_of(&vec![1; PLENTY]));
    net.advance(Duration::from_secs(60));
    assert_eq!((net.ready("a", "c"), net.kmes[&site("a")].counters().relays_failed), (0, 0), "b says that it waits");
    net.block("b", "c", BlockSeq(0), &SecretBytes::copy_of(&vec![2; PLENTY]));
    net.settle();
    assert!(net.ready("a", "c") >= 16);
    // A link that stops for good gives back what waits for it.
    net.block("a", "b", BlockSeq(1), &SecretBytes::copy_of(&vec![1; PLENTY]));
    net.input("b", Input::LinkDown { link: link("b-c") });
    net.settle();
    assert_eq!(net.ready("a", "c"), 64, "from what the link has left");
}
