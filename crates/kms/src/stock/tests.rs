//! Takes, digests, pages.

use proptest::prelude::*;

use super::*;

fn id(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

fn keys(from: u8, count: u8) -> SecretBytes {
    SecretBytes::from_vec((from..from + count).flat_map(|n| [n; PAIR_KEY_BYTES]).collect())
}

const EVERYTHING: KeyRange =
    KeyRange { from: KeyId(Uuid::from_bytes([0; 16])), upto: KeyId(Uuid::from_bytes([255; 16])) };

fn bytes(secret: &SecretBytes) -> Vec<u8> {
    secret.expose(<[u8]>::to_vec)
}

fn both(batches: &[(u8, u8, u8)]) -> (OwnStock, HeldStock) {
    let (mut own, mut held) = (OwnStock::default(), HeldStock::default());
    for &(relay, from, count) in batches {
        let origin = Arc::new(Origin::default());
        own.add(id(relay), 0, Arc::clone(&origin), keys(from, count));
        held.add(id(relay), u64::MAX >> (64 - count), origin, keys(from, count));
    }
    (own, held)
}

#[test]
fn owner_and_holder_take_the_same_bits_and_only_once() {
    let (mut own, mut held) = both(&[(1, 0, 5), (2, 5, 64)]);
    let (runs, ours) = own.take(7, &Fit::default()).unwrap();
    assert_eq!(runs, [Run { relay: id(1), first: 0, count: 5 }, Run { relay: id(2), first: 0, count: 2 }]);
    assert_eq!(ours, keys(0, 7));
    assert_eq!(held.take(&runs).unwrap(), keys(0, 7));
    assert!(held.take(&runs).is_none());
    own.forget(&runs);
    assert_eq!((own.known(id(1)), own.known(id(2))), (0, u64::MAX << 2));
    assert_eq!((own.ready(), held.count()), (62, 62));
    assert!(own.take(63, &Fit::default()).is_none());
    assert_eq!(own.take(62, &Fit::default()).unwrap().1, keys(7, 62));
}

#[test]
fn a_holder_takes_all_or_nothing_and_no_key_twice_in_one_claim() {
    let (_, mut held) = both(&[(1, 0, 8)]);
    let run = |first, count| Run { relay: id(1), first, count };
    for bad in [run(0, 9), run(8, 1), run(0, 0), run(63, 2), run(u16::MAX, 2)] {
        assert!(held.take(&[run(0, 1), bad]).is_none(), "{bad:?}");
    }
    assert!(held.take(&[run(0, 2), run(1, 1)]).is_none());
    assert_eq!(held.count(), 8);
    assert_eq!(held.burn(KeySet { relay: id(1), keys: 0b1111_0100_0010 }), [run(1, 1), run(6, 1)]);
    assert_eq!(held.burn(KeySet::whole(id(2))), []);
    assert_eq!(held.burn(KeySet::whole(id(1))), [run(0, 1), run(2, 4), run(7, 1)]);
    assert_eq!((held.count(), held.sets().len()), (0, 0));
}

#[test]
fn keys_put_back_come_first_and_unheld_ones_go() {
    let (mut own, _) = both(&[(1, 0, 3), (2, 3, 3)]);
    let (runs, stream) = own.take(4, &Fit::default()).unwrap();
    own.put_back(&runs, &stream);
    assert_eq!(own.ready(), 6);
    let (runs, stream) = own.take(1, &Fit::default()).unwrap();
    assert_eq!(stream, keys(0, 1));
    let dropped = own.drop_unheld(EVERYTHING, |relay| if relay == id(2) { 0b101 } else { 0 });
    let run = |relay, first, count| Run { relay: id(relay), first, count };
    assert_eq!(dropped, [run(1, 1, 2), run(2, 1, 1)]);
    assert_eq!(own.known(id(1)), 1, "one key is bound");
    own.forget(&runs);
    assert_eq!((own.known(id(1)), own.known(id(2)), own.ready()), (0, 0b101, 2));
    let (runs, stream) = own.take(2, &Fit::default()).unwrap();
    assert_eq!(runs, [run(2, 0, 1), run(2, 2, 1)]);
    assert_eq!(bytes(&stream), [bytes(&keys(3, 1)), bytes(&keys(5, 1))].concat());
}

#[test]
fn plain_requests_leave_combined_keys_and_wishes_find_them() {
    let path = |sites: &[&str]| sites.iter().map(|site| types::id::SiteId::new(site).unwrap()).collect::<Vec<_>>();
    let one = Arc::new(Origin::new(vec![path(&["a", "b", "z"])], types::units::UtcNanos(1)));
    let two = Arc::new(Origin::new(vec![path(&["a", "b", "z"]), path(&["a", "c", "z"])], types::units::UtcNanos(1)));
    let mut own = OwnStock::default();
    own.add(id(1), 0, Arc::clone(&two), keys(0, 3));
    own.add(id(2), 0, one, keys(3, 3));
    own.add(id(3), 0, two, keys(6, 3));
    assert_eq!((own.ready(), own.ready_of(2), own.ready_of(3)), (9, 6, 0));
    let (runs, stream) = own.take(2, &Fit::default()).unwrap();
    assert_eq!((runs[0].relay, &stream), (id(2), &keys(3, 2)));
    own.put_back(&runs, &stream);
    let wishes = crate::api::Wishes { paths: 2, ..crate::api::Wishes::default() };
    let split = Fit::new(&wishes, types::units::UtcNanos(1));
    let (runs, stream) = own.take(4, &split).unwrap();
    assert_eq!(runs.iter().map(|run| run.relay).collect::<Vec<_>>(), [id(1), id(3)]);
    assert_eq!(bytes(&stream), [bytes(&keys(0, 3)), bytes(&keys(6, 1))].concat());
    assert!(own.take(3, &split).is_none());
    let relays: BTreeSet<KeyId> = own.take(5, &Fit::default()).unwrap().0.iter().map(|run| run.relay).collect();
    assert_eq!(relays, BTreeSet::from([id(2), id(3)]));
}

#[test]
fn the_digests_of_both_sides_agree_exactly_if_their_keys_do() {
    let (mut own, mut held) = both(&[(1, 0, 5), (200, 5, 64)]);
    assert_eq!(own.digest(), held.digest());
    let (runs, _) = own.take(7, &Fit::default()).unwrap();
    assert_eq!(own.digest(), held.digest(), "bound keys count");
    held.take(&runs).unwrap();
    assert_eq!(own.digest().differs(held.digest()).collect::<Vec<_>>(), [1 / 4, 200 / 4]);
    own.forget(&runs);
    assert_eq!(own.digest(), held.digest());
    held.burn(KeySet::whole(id(200)));
    assert_eq!(held.digest(), &Digest::default());
}

#[test]
fn a_million_keys_fit_in_bounded_pages_and_little_more_memory_than_their_bits() {
    let (mut own, mut held) = (OwnStock::default(), HeldStock::default());
    let origin = Arc::new(Origin::default());
    for n in 0..16_384_u32 {
        // Scattered as random ids are.
        let n = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let relay = KeyId::from_random(n.to_be_bytes());
        own.add(relay, 0, Arc::clone(&origin), SecretBytes::from_vec(vec![1; 2_048]));
        held.add(relay, u64::MAX, Arc::clone(&origin), SecretBytes::from_vec(vec![1; 2_048]));
    }
    assert_eq!((own.ready(), held.count()), (1 << 20, 1 << 20));
    assert!(own.digest() == held.digest());
    let batch = size_of::<KeyId>() + size_of::<HeldBatch>() + 2_048;
    assert!(batch <= 64 * 34, "{batch} bytes for 64 keys");
    let (runs, _) = own.take(100, &Fit::default()).unwrap();
    held.take(&runs).unwrap();
    own.put_back(&runs, &SecretBytes::from_vec(vec![1; 3_200]));
    let mut asked: VecDeque<KeyRange> = own.digest().differs(held.digest()).map(KeyRange::of_part).collect();
    assert!((1..=2).contains(&asked.len()), "only what differs is listed");
    while let Some(range) = asked.pop_front() {
        let (covered, sets) = held.page(range, 100);
        assert!(sets.len() <= 100);
        asked.extend(covered.rest(range.upto));
        let held: BTreeMap<KeyId, u64> = sets.into_iter().map(|set| (set.relay, set.keys)).collect();
        own.drop_unheld(covered, |relay| held.get(&relay).copied().unwrap_or_default());
    }
    assert_eq!((own.ready(), own.digest() == held.digest()), ((1 << 20) - 100, true));
}

#[test]
fn wishes_take_from_their_lane_and_age_takes_the_youngest() {
    use std::time::Duration;

    use types::id::SiteId;
    use types::units::UtcNanos;

    use crate::api::{RouteWish, Wishes};

    let path = |sites: &[&str]| sites.iter().map(|site| SiteId::new(site).unwrap()).collect::<Vec<_>>();
    let (direct, around) = (path(&["a", "z"]), path(&["a", "b", "z"]));
    let origin = |paths: &[&Vec<SiteId>], made| {
        Arc::new(Origin::new(paths.iter().map(|path| (*path).clone()).collect(), UtcNanos(made)))
    };
    let mut own = OwnStock::default();
    own.add(id(1), 0, origin(&[&direct, &around], 1), keys(0, 4));
    own.add(id(2), 0, origin(&[&around], 3), keys(10, 4));
    own.add(id(3), 0, origin(&[&direct], 2), keys(20, 4));
    own.add(id(4), 0, origin(&[&direct], 9), keys(30, 4));
    let fit = |change: fn(&mut Wishes)| {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        Fit::new(&wishes, UtcNanos(10))
    };
    let (combined, direct) = (fit(|w| w.paths = 2), fit(|w| w.route = RouteWish::Direct));
    let young = fit(|w| w.max_age = Some(Duration::from_nanos(7)));
    assert_eq!([&combined, &direct, &young].map(|fit| own.ready_for(fit, 99)), [4, 8, 8]);
    assert!(own.take(5, &combined).is_none() && own.take(9, &young).is_none());
    assert_eq!(own.take(1, &young).unwrap().1, keys(10, 1));
    let (runs, stream) = own.take(5, &direct).unwrap();
    assert_eq!(bytes(&stream), [bytes(&keys(20, 4)), bytes(&keys(30, 1))].concat());
    own.put_back(&runs, &stream);
    assert_eq!(own.take(1, &Fit::default()).unwrap().1, keys(20, 1), "the oldest that is not combined");
    assert_eq!(own.take(14, &Fit::default()).unwrap().0.last().unwrap().relay, id(1), "combined keys go last");
    assert_eq!((own.ready(), own.lanes.len()), (0, 0));
}

proptest! {
    #[test]
    fn any_order_of_takes_gives_every_key_once(takes in proptest::collection::vec((1..20_usize, any::<bool>()), 1..30)) {
        let (mut own, mut held) = both(&[(1, 0, 40), (2, 40, 64), (3, 104, 50)]);
        let mut next = 0;
        for (count, back) in takes {
            let Some((runs, stream)) = own.take(count, &Fit::default()) else { break };
            if back {
                own.put_back(&runs, &stream);
            } else {
                let expected = keys(next, u8::try_from(count).unwrap());
                prop_assert_eq!(&stream, &expected);
                prop_assert_eq!(held.take(&runs).unwrap(), expected);
                own.forget(&runs);
                next += u8::try_from(count).unwrap();
            }
            prop_assert_eq!(own.ready(), held.count());
        }
    }
}
