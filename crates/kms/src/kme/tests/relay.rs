//! Relay and filling.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crypto::domain::Domain;
use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use crypto::tag::{OneTimeTagKey, Tag};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use types::id::{BlockSeq, KeyId, LinkId, SiteId};

use super::net::{Net, ids, site};
use crate::Input;
use crate::kme::relay::open_sealed;
use crate::message::{Message, PadRange, Relay, ShareOf};

/// Bytes of a link block that fill all stocks of a small net with room to spare.
const PLENTY: usize = 60_000;

#[test]
fn background_relay_fills_every_ordered_pair_over_several_hops() {
    let mut net = Net::line(&["a", "b", "c", "d"], |_| {});
    net.blocks(PLENTY);
    for from in ["a", "b", "c", "d"] {
        for to in ["a", "b", "c", "d"] {
            if from != to {
                assert_eq!((net.ready(from, to), net.held(to, from)), (64, 64), "{from} to {to}");
            }
        }
    }
    assert!(net.kmes[&site("b")].counters().transit_keys > 0);
    assert!(net.codes("b").contains("RELAY_HOP") && net.codes("d").contains("KEYS_STORED"));
    let keys = net.encrypt("a1", "d1", 3, 256).unwrap();
    assert_eq!(net.decrypt("d1", "a1", &ids(&keys)).unwrap().len(), 3);
    assert_eq!(net.ready("a", "d"), 61, "filled again by batches of eight or more");
    net.encrypt("a1", "d1", 7, 256).unwrap();
    assert_eq!(net.ready("a", "d"), 64);
}

#[test]
fn scarce_link_key_is_shared_evenly_and_nothing_is_sent_without_it() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    net.blocks(2 * 2_000);
    let (near, far) = (net.ready("a", "b"), net.ready("a", "c"));
    assert!(near >= 8 && far >= 8 && near.abs_diff(far) <= 16, "{near} {far}");
    let spent = net.kmes[&site("a")].link_stock()[0].bits_out.0;
    net.advance(Duration::from_secs(60));
    assert!(net.kmes[&site("a")].link_stock()[0].bits_out.0 <= spent);
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(20));
    assert_eq!((net.ready("a", "b"), net.ready("a", "c"), net.ready("b", "c")), (64, 64, 64));
}

#[test]
fn a_flipped_bit_on_a_hop_is_noticed_and_its_keys_are_never_used() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    let flips = Rc::new(RefCell::new(0));
    let count = Rc::clone(&flips);
    net.tap = Box::new(move |from, to, bytes| {
        if (from.as_str(), to.as_str()) == ("b", "c") && matches!(Message::decode(bytes), Ok(Message::Relay(_))) {
            let at = bytes.len() - 20;
            bytes[at] ^= 4;
            *count.borrow_mut() += 1;
        }
        true
    });
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(3));
    assert!(*flips.borrow() > 2);
    assert_eq!((net.ready("a", "c"), net.held("c", "a"), net.ready("b", "c")), (0, 0, 0));
    assert!(net.codes("a").contains("RELAY_FAILED") && net.codes("c").contains("KEY_BURNED"));
    assert_eq!(net.misbehaved.len(), *flips.borrow());
    assert_eq!(net.ready("c", "a"), 64, "the other direction is not touched");
    net.tap = Box::new(|_, _, _| true);
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(60));
    assert_eq!(net.ready("a", "c"), 64);
}

/// One sealed hop with one key, and the link key that it spends.
fn sealed_hop(rng: &mut impl CryptoRng) -> (Relay, SecretBytes) {
    let key = SecretBytes::random(OneTimeTagKey::LEN + 64, rng);
    let path = ["a", "b", "c"].map(site).to_vec();
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let mut relay = Relay {
        relay: KeyId::from_random(id),
        share: ShareOf { index: 0, count: 2 },
        path,
        hop: 1,
        link: LinkId::new("b-c").unwrap(),
        ranges: vec![
            PadRange { seq: BlockSeq(7), offset: 100, len: 40 },
            PadRange { seq: BlockSeq(9), offset: 0, len: 56 },
        ],
        sealed: vec![0; 64],
        tag: Tag([0; Tag::LEN]),
    };
    rng.fill_bytes(&mut relay.sealed);
    let header = Relay::header(relay.relay, relay.share, &relay.path, relay.hop, &relay.link, &relay.ranges);
    let tag_key = OneTimeTagKey::new(key.part(0, OneTimeTagKey::LEN).unwrap()).unwrap();
    relay.tag = tag_key.tag(Domain::RelayHop, &[&header, &relay.sealed]);
    (relay, key)
}

#[test]
fn none_of_a_million_flipped_bits_passes() {
    let mut rng = ChaCha12Rng::from_seed([5; 32]);
    let (mut flips, mut tags) = (0, 0);
    while flips < 1_000_000 {
        let (relay, key) = sealed_hop(&mut rng);
        assert!(open_sealed(&relay, key.duplicate()).is_some(), "what nobody touched passes");
        let mut wire = Message::Relay(relay).encode();
        for bit in 0..wire.len() * 8 {
            wire[bit / 8] ^= 1 << (bit % 8);
            // Even if the attacker had the receiver take the same key.
            if let Ok(Message::Relay(bent)) = Message::decode(&wire) {
                tags += 1;
                assert!(open_sealed(&bent, key.duplicate()).is_none(), "bit {bit} of {wire:?}");
            }
            wire[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
    }
    assert!(tags > flips / 2, "most flips are found by the tag: {tags} of {flips}");
}

#[test]
fn a_replayed_relay_is_refused() {
    let mut net = Net::line(&["a", "b"], |_| {});
    let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let tape = Rc::clone(&seen);
    net.tap = Box::new(move |from, _, bytes| {
        if from.as_str() == "a" && matches!(Message::decode(bytes), Ok(Message::Relay(_))) {
            tape.borrow_mut().push(bytes.clone());
        }
        true
    });
    net.blocks(PLENTY);
    let held = net.held("b", "a");
    let replays = seen.borrow().clone();
    assert!(!replays.is_empty());
    for bytes in replays {
        net.input("b", Input::Message { from: site("a"), bytes });
    }
    net.settle();
    assert_eq!(net.held("b", "a"), held);
    assert!(net.kmes[&site("b")].counters().messages_refused > 0);
}

#[test]
fn a_relay_from_a_site_that_is_not_on_its_way_is_refused() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    let seen: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
    let tape = Rc::clone(&seen);
    net.tap = Box::new(move |from, _, bytes| {
        if from.as_str() == "a" && matches!(Message::decode(bytes), Ok(Message::Relay(_))) {
            *tape.borrow_mut() = Some(bytes.clone());
            return false;
        }
        true
    });
    net.blocks(PLENTY);
    let bytes = seen.borrow().clone().unwrap();
    net.input("b", Input::Message { from: site("c"), bytes: bytes.clone() });
    net.input("c", Input::Message { from: site("a"), bytes });
    net.input("c", Input::Message { from: site("a"), bytes: vec![1, 99] });
    assert_eq!(net.misbehaved.len(), 3);
    assert_eq!((net.held("b", "a"), net.held("c", "a")), (0, 0));
}

#[test]
fn lost_messages_and_crashes_leave_no_key_that_only_one_side_has() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    // Acknowledgements get lost: the holder has keys that the owner gave up.
    net.tap = Box::new(|_, _, bytes| {
        !matches!(Message::decode(bytes), Ok(Message::RelayAck { .. } | Message::RelayVoid { .. }))
    });
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(6));
    assert!(net.held("c", "a") > 0);
    assert_eq!(net.ready("a", "c"), 0);
    net.crash("a");
    net.tap = Box::new(|_, _, _| true);
    net.advance(Duration::from_secs(120));
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(60));
    assert_eq!((net.ready("a", "c"), net.held("c", "a")), (64, 64));
    // The holder loses its disk: the owner drops what nobody holds any more.
    net.disks.remove(&site("c"));
    net.crash("c");
    assert_eq!(net.ready("a", "c"), 0);
    assert_eq!(net.disks[&site("a")].count(crypto::record::Table::PairKey), 128, "64 own and 64 held with site b");
}

#[test]
fn no_relay_leaves_before_its_mark_is_durable() {
    let mut net = Net::line(&["a", "b"], |_| {});
    let relays: Rc<RefCell<BTreeMap<SiteId, u32>>> = Rc::default();
    let seen = Rc::clone(&relays);
    net.tap = Box::new(move |from, _, bytes| {
        if matches!(Message::decode(bytes), Ok(Message::Relay(_))) {
            *seen.borrow_mut().entry(from.clone()).or_default() += 1;
        }
        true
    });
    net.stalled.insert(site("a"), Default::default());
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(10));
    assert_eq!(relays.borrow().get(&site("a")), None);
    net.crash("a");
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(20));
    assert_eq!((net.ready("a", "b"), net.ready("b", "a")), (64, 64));
}

#[test]
fn a_cut_peer_fails_its_relays_at_once() {
    let mut net = Net::line(&["a", "b"], |_| {});
    net.tap = Box::new(|_, _, bytes| !matches!(Message::decode(bytes), Ok(Message::Relay(_))));
    net.blocks(PLENTY);
    net.input("a", Input::PeerDown(site("b")));
    assert!(net.kmes[&site("a")].counters().relays_failed > 0);
}
