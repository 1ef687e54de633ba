//! Keys combined from several ways, and relays that change what they carry.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crypto::domain::Domain;
use crypto::record::Table;
use crypto::secret::SecretBytes;
use crypto::tag::OneTimeTagKey;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, SiteId};

use super::net::{Net, bits, ids, site};
use crate::Input;
use crate::kme::{confirm, fill};
use crate::message::{Message, Relay, ShareOf};

type Blocks = Rc<RefCell<BTreeMap<(LinkId, BlockSeq), Vec<u8>>>>;

const PLENTY: usize = 60_000;
const SITES: [&str; 5] = ["a", "b", "c", "d", "z"];
/// Three ways from `a` to `z` that share no site.
const LINKS: [(&str, &str); 6] = [("a", "b"), ("b", "z"), ("a", "c"), ("c", "z"), ("a", "d"), ("d", "z")];

/// A net whose links have key that liars know of their own links.
fn net(adjust: fn(&mut crate::Config)) -> (Net, Blocks) {
    let mut net = Net::of(&SITES, &LINKS, adjust);
    let blocks = Blocks::default();
    SITES.iter().filter(|name| **name != "a").for_each(|name| net.input(name, Input::Routes(BTreeMap::new())));
    let only_z = net.routes("a").into_iter().filter(|(to, _)| *to == site("z")).collect();
    net.input("a", Input::Routes(only_z));
    (0..3).for_each(|seq| more_key(&mut net, &blocks, seq));
    (net, blocks)
}

fn more_key(net: &mut Net, blocks: &Blocks, seq: u64) {
    for (a, b) in LINKS {
        let key = SecretBytes::random(PLENTY, &mut net.rng);
        let link = LinkId::new(&format!("{a}-{b}")).unwrap();
        blocks.borrow_mut().insert((link, BlockSeq(seq)), key.expose(<[u8]>::to_vec));
        net.block(a, b, BlockSeq(seq), &key);
    }
    net.settle();
}

/// What a liar makes of a relay that it sends: it changes the message and the keys in it, and makes the tag anew.
fn lie(relay: &mut Relay, blocks: &Blocks, change: impl FnOnce(&mut Relay, &mut Vec<u8>)) {
    let (from, to) = (&relay.path[usize::from(relay.hop)], &relay.path[usize::from(relay.hop) + 1]);
    let half = if from < to { 0 } else { PLENTY / 2 };
    let blocks = blocks.borrow();
    let key = relay.ranges.iter().flat_map(|range| {
        let block = &blocks[&(relay.link.clone(), range.seq)];
        block[half + range.offset as usize..half + (range.offset + range.len) as usize].to_vec()
    });
    let key: Vec<u8> = key.collect();
    let pad = |bits: &mut Vec<u8>| bits.iter_mut().zip(&key[32..]).for_each(|(bits, key)| *bits ^= key);
    let mut keys = relay.sealed.clone();
    pad(&mut keys);
    change(relay, &mut keys);
    pad(&mut keys);
    relay.sealed = keys;
    let header = Relay::header(relay.relay, relay.share, &relay.path, relay.hop, &relay.link, &relay.ranges);
    let tag_key = OneTimeTagKey::new(SecretBytes::copy_of(&key[..32])).unwrap();
    relay.tag = tag_key.tag(Domain::RelayHop, &[&header, &relay.sealed]);
}

/// From now on these sites lie about what they relay.
fn liars(net: &mut Net, blocks: &Blocks, who: &[&str], change: impl Fn(&mut Relay, &mut Vec<u8>) + 'static) {
    let (who, blocks) = (who.iter().map(|name| site(name)).collect::<BTreeSet<SiteId>>(), Rc::clone(blocks));
    net.tap = Box::new(move |from, _, bytes| {
        if let Ok(Message::Relay(mut relay)) = Message::decode(bytes)
            && who.contains(from)
            && relay.hop > 0
        {
            lie(&mut relay, &blocks, &change);
            *bytes = Message::Relay(relay).encode();
        }
        true
    });
}

fn two(config: &mut crate::Config) {
    (config.paths_wanted, config.target_keys) = (2, 0);
}

fn want(net: &mut Net, keys: u32) {
    net.kmes.get_mut(&site("a")).unwrap().config.target_keys = keys;
    // Any input makes it look.
    net.input("a", Input::PeerUp(site("z")));
    net.settle();
    net.advance(Duration::from_secs(30));
}

fn unconfirmed(net: &Net, at: &str) -> Vec<String> {
    let of = |(site, event): &(SiteId, Event)| match event {
        Event::KeysUnconfirmed { ways, peer, keys, .. } if site.as_str() == at => {
            assert!(*keys > 0 && peer.as_str() == if at == "a" { "z" } else { "a" });
            Some(ways.clone())
        }
        _ => None,
    };
    net.events.iter().filter_map(of).collect()
}

/// All stocks and disks of the two ends agree.
fn both_ends_agree(net: &Net) {
    let (own, held) = (net.ready("a", "z"), net.held("z", "a"));
    assert_eq!(own, held);
    let keys = |at: &str| net.disks[&site(at)].secrets(Table::PairKey);
    let (a, z) = (keys("a"), keys("z"));
    let same = a.iter().zip(&z).filter(|(a, z)| a == z).count();
    assert!(a == z, "{} keys at a, {} at z, {same} the same", a.len(), z.len());
}

#[test]
fn a_relay_that_changes_its_share_is_noticed_named_and_avoided() {
    let (mut net, blocks) = net(two);
    liars(&mut net, &blocks, &["b"], |_, keys| keys[5] ^= 1);
    want(&mut net, 320);
    let seen = (unconfirmed(&net, "a"), unconfirmed(&net, "z"));
    assert!(!seen.0.is_empty() && seen.0 == seen.1, "both ends name the ways: {seen:?}");
    assert!(seen.0.iter().all(|ways| ways.contains("a b z") && ways.contains(", ")), "{seen:?}");
    assert!(seen.0.len() <= 16, "it is avoided: {seen:?}");
    assert!(net.codes("z").contains("KEY_BURNED") && net.codes("a").contains("RELAY_FAILED"));
    assert_eq!(net.ready("a", "z"), 320, "over the two other ways");
    both_ends_agree(&net);
    let own = &net.kmes[&site("a")].peers[&site("z")].own;
    assert!(own.known_origins().iter().all(|origin| origin.combined == 2), "and never over fewer ways");
    // A while later it is still avoided: not one more batch is lost.
    want(&mut net, 400);
    assert_eq!((net.ready("a", "z"), unconfirmed(&net, "a").len()), (400, seen.0.len()));
    let keys = net.encrypt("a1", "z1", 3, 256).unwrap();
    assert_eq!(bits(&net.decrypt("z1", "a1", &ids(&keys)).unwrap()), bits(&keys));
}

#[test]
fn all_but_one_way_lying_together_makes_no_key_and_takes_none() {
    fn three(config: &mut crate::Config) {
        (config.paths_wanted, config.target_keys) = (3, 0);
    }
    let (mut net, blocks) = net(three);
    liars(&mut net, &blocks, &["b", "d"], |relay, keys| {
        let offset = u8::from(relay.path[1].as_str() == "b") + 1;
        let at = keys.len() - 20;
        keys[at] ^= offset;
    });
    want(&mut net, 64);
    assert_eq!((net.ready("a", "z"), net.held("z", "a")), (0, 0));
    assert!(!unconfirmed(&net, "z").is_empty());
    // Two whose offsets cancel out change nothing.
    liars(&mut net, &blocks, &["b", "d"], |_, keys| keys[7] ^= 8);
    want(&mut net, 64);
    assert_eq!(net.ready("a", "z"), 64);
    both_ends_agree(&net);
}

#[test]
fn a_share_that_is_passed_off_as_a_whole_batch_gives_nobody_a_key() {
    let (mut net, blocks) = net(two);
    // The relay knows every bit of this share; what else comes of the batch is refused at the holder.
    liars(&mut net, &blocks, &["b", "c", "d"], |relay, _| relay.share = ShareOf::WHOLE);
    want(&mut net, 64);
    net.advance(Duration::from_secs(1));
    assert_eq!(net.ready("a", "z"), 0, "the owner takes none of them");
    assert!(!unconfirmed(&net, "a").is_empty() && unconfirmed(&net, "z").is_empty());
    assert_eq!(net.held("z", "a"), 0, "and the holder drops them");
    assert_eq!(net.disks[&site("z")].count(Table::PairKey), 0);
}

#[test]
fn a_plain_batch_that_is_passed_off_as_combined_is_refused() {
    let (mut net, _) = net(|config| config.target_keys = 0);
    net.tap = Box::new(|from, _, bytes| {
        if let Ok(Message::RelayAck { relay, proof: None }) = Message::decode(bytes)
            && from.as_str() == "z"
        {
            *bytes = Message::RelayAck { relay, proof: Some([0; 16]) }.encode();
        }
        true
    });
    want(&mut net, 64);
    assert_eq!((net.ready("a", "z"), net.held("z", "a")), (0, 0));
}

#[test]
fn ways_that_a_relay_makes_up_are_noticed() {
    let (mut net, blocks) = net(two);
    liars(&mut net, &blocks, &["b"], |relay, _| {
        relay.path = ["a", "x", "b", "z"].map(site).to_vec();
        relay.hop = 2;
    });
    want(&mut net, 64);
    assert!(unconfirmed(&net, "z").iter().all(|ways| ways.contains("a x b z")));
    assert_eq!((unconfirmed(&net, "z").is_empty(), net.ready("a", "z")), (false, 64));
    both_ends_agree(&net);
}

#[test]
fn an_acknowledgement_without_the_proof_is_refused_whoever_speaks_for_the_holder() {
    let (mut net, _) = net(two);
    net.tap = Box::new(|from, _, bytes| {
        if let Ok(Message::RelayAck { relay, proof: Some(mut proof) }) = Message::decode(bytes)
            && from.as_str() == "z"
        {
            proof[15] ^= 1;
            *bytes = Message::RelayAck { relay, proof: Some(proof) }.encode();
        }
        true
    });
    want(&mut net, 64);
    assert_eq!((net.ready("a", "z"), net.held("z", "a")), (0, 0));
    net.tap = Box::new(|_, _, _| true);
    want(&mut net, 64);
    assert_eq!(net.ready("a", "z"), 64);
}

#[test]
fn every_one_of_a_hundred_thousand_offsets_on_one_share_is_noticed() {
    let mut rng = ChaCha12Rng::from_seed([11; 32]);
    let ways = [["a", "b", "z"].map(site).to_vec(), ["a", "c", "z"].map(site).to_vec()];
    let keys = SecretBytes::random(8 * 32, &mut rng);
    for turn in 0..100_000_u32 {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let relay = KeyId::from_random(id);
        let (word, proof) = confirm::encode(relay, &ways, &keys, &mut rng);
        let mut shares = fill::split(&word, 2, &mut rng);
        let honest = shares.remove(usize::try_from(turn % 2).unwrap());
        let mut offset = vec![0; honest.len()];
        let at = rng.next_u32() as usize % offset.len();
        if turn.is_multiple_of(3) {
            offset[at] = 1 << (turn % 8)
        } else {
            rng.fill_bytes(&mut offset[at..])
        }
        if offset.iter().all(|byte| *byte == 0) {
            continue;
        }
        fill::add_share(&mut shares[0], &SecretBytes::from_vec(offset));
        fill::add_share(&mut shares[0], &honest);
        assert!(confirm::decode(relay, &ways, shares.remove(0)).is_none(), "turn {turn}");
        if turn.is_multiple_of(1_000) {
            let (same, shown) = confirm::decode(relay, &ways, word).unwrap();
            assert!(same == keys && proof.is(&shown.show()));
        }
    }
}

#[test]
fn a_liar_does_not_hide_behind_batches_that_it_leaves_alone() {
    let (mut net, blocks) = net(two);
    let turn = RefCell::new(0);
    liars(&mut net, &blocks, &["b"], move |_, keys| {
        *turn.borrow_mut() += 1;
        keys[0] ^= u8::from(*turn.borrow() % 2 == 0);
    });
    want(&mut net, 1_280);
    assert_eq!(net.ready("a", "z"), 1_280);
    let before = unconfirmed(&net, "a").len();
    want(&mut net, 1_600);
    assert_eq!((net.ready("a", "z"), unconfirmed(&net, "a").len()), (1_600, before));
    both_ends_agree(&net);
}
