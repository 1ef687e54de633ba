//! The bars for fairness, and ways round a site that is gone.

use super::*;

fn setup(shape: Shape, sites: usize) -> Setup {
    Setup {
        shape,
        sites,
        link_rate: BitsPerSecond(200_000.0),
        paths: 1,
        warm_up: Duration::from_secs(60),
        time: Duration::from_secs(120),
        seed: 1,
    }
}

/// Shares in a network of these links, with ways as the controller gives them.
fn shares(shape: Shape, sites: usize, capacity: f64) -> BTreeMap<(usize, usize), f64> {
    fair_shares(&Load::new(&setup(shape, sites)).idle_ways(), capacity)
}

#[test]
fn fair_shares_are_those_of_known_networks() {
    let all =
        |shares: &BTreeMap<(usize, usize), f64>, is: f64| shares.values().all(|share| (share - is).abs() < is / 50.0);
    let ring = shares(Shape::Ring, 10, 12.5);
    assert!(ring.len() == 90 && all(&ring, 1.0), "12.5 ways over each hop: {ring:?}");
    assert!(all(&shares(Shape::Star, 5, 4.0), 1.0));
    // A square: each pair has the hop between, half of the way round, and so on; six pairs over eight hops.
    let square = shares(Shape::Ladder, 4, 4.0);
    assert!(all(&square, 2.0), "{square:?}");
    // A site with a hop of its own takes what the others leave, over both ways.
    let ways = |from, to, ways: &[&[usize]]| ((from, to), ways.iter().map(|way| way.to_vec()).collect::<Vec<_>>());
    let chain = BTreeMap::from([ways(0, 2, &[&[0, 1, 2]]), ways(0, 1, &[&[0, 1]]), ways(1, 2, &[&[1, 2], &[1, 3, 2]])]);
    let chain = fair_shares(&chain, 3.0);
    assert!((chain[&(0, 2)] - 1.5).abs() < 0.02 && (chain[&(1, 2)] - 4.5).abs() < 0.02, "{chain:?}");
}

#[test]
fn on_a_ring_of_ten_every_pair_gets_its_share_when_all_want_more() {
    let ring = fairness(&setup(Shape::Ring, 10));
    assert_eq!(ring.pairs, 90);
    assert!(ring.jain >= 0.9 && ring.worst >= 0.5, "{ring:?}");
    // What it reaches with this seed is 0.96, 0.80 and 1.02.
    assert!(ring.jain >= 0.95 && ring.worst >= 0.75 && ring.of_ceiling >= 0.9, "{ring:?}");
}

/// Where scattered sites stand today (0.64 and 0.02); the module says why it is not more.
#[test]
fn scattered_sites_share_unevenly_but_none_is_left_out_slow_() {
    let (warm_up, time) = (Duration::from_secs(20), Duration::from_secs(40));
    let scattered = fairness(&Setup { warm_up, time, ..setup(Shape::Geometric { radius: 0.3 }, 24) });
    assert_eq!((scattered.pairs, scattered.failed), (552, 0));
    assert!(scattered.jain >= 0.6 && scattered.worst > 0.01, "{scattered:?}");
}

#[test]
fn a_silent_site_is_gone_round_within_a_second_by_all_pairs_under_load() {
    let rich = Setup { link_rate: BitsPerSecond(40_000_000.0), ..setup(Shape::Ring, 5) };
    let mut load = Load::new(&rich);
    load.run(Duration::from_secs(3));
    let muted = 2;
    let others = |stocks: BTreeMap<(usize, usize), u32>| {
        let of = |pair: &(usize, usize)| pair.0 != muted && pair.1 != muted;
        stocks.into_iter().filter(|(pair, _)| of(pair)).collect::<BTreeMap<_, _>>()
    };
    load.mute(muted);
    // What was on its way behind the site still arrives.
    load.run(Duration::from_millis(100));
    let before = others(load.stocks());
    load.run(Duration::from_millis(900));
    let after = others(load.stocks());
    assert_eq!(before.len(), 12);
    for (pair, keys) in &before {
        assert!(after[pair] > *keys, "{pair:?}: {keys} keys, then {}", after[pair]);
    }
}

/// Two squares side by side with a common edge 1-4: `0-1-2 / 3-4-5`, so that 1 and 4 relay to several neighbours. Rich in
/// key: where batches wait for key, time-outs are longer.
fn ladder() -> Setup {
    Setup { link_rate: BitsPerSecond(40_000_000.0), ..setup(Shape::Ladder, 6) }
}

#[test]
fn a_hop_that_is_dead_behind_a_live_relay_is_gone_round_within_a_second() {
    for (one, other) in [(1, 2), (1, 4), (4, 5)] {
        let mut load = Load::new(&ladder());
        load.run(Duration::from_secs(3));
        load.cut(one, other);
        load.run(Duration::from_millis(100));
        let before = load.stocks();
        load.run(Duration::from_millis(900));
        let after = load.stocks();
        let apart = |pair: &(usize, usize)| *pair == (one, other) || *pair == (other, one);
        for (pair, keys) in before.iter().filter(|(pair, _)| !apart(pair)) {
            assert!(after[pair] > *keys, "{one}-{other} is cut, {pair:?}: {keys} keys, then {}", after[pair]);
        }
    }
}

#[test]
fn loss_and_stalls_raise_no_false_alarm() {
    let lossy = Trouble { lost_percent: 20, resend: Duration::from_millis(40), ..Trouble::default() };
    let stalling = Trouble { stalls_permille: 2, stall: Duration::from_millis(300), ..Trouble::default() };
    for trouble in [lossy, stalling] {
        let mut load = Load::new(&Setup { link_rate: BitsPerSecond(2_000_000.0), ..ladder() });
        load.trouble(trouble);
        load.run(Duration::from_secs(10));
        assert_eq!(load.failed(), 0, "{trouble:?}");
        assert!(load.stocks().values().all(|keys| *keys > 500));
    }
}

#[test]
fn what_links_spent_is_told_hop_by_hop() {
    let mut load = Load::new(&Setup { link_rate: BitsPerSecond(100_000.0), ..setup(Shape::Star, 3) });
    load.run(Duration::from_secs(20));
    let hub = load.link_stock(0);
    assert!(hub.iter().all(|link| link.used.own.0 > 0 && link.used.transit.0 > 0 && link.used.tags.0 > 0), "{hub:?}");
    let leaf = &load.link_stock(1)[0];
    assert!(leaf.used.own.0 > 0 && leaf.used.transit.0 == 0 && leaf.reached, "{leaf:?}");
    let spent = leaf.used.own.0 + leaf.used.tags.0;
    assert!(leaf.used.tags.0 * 5 < spent && leaf.used.asked.0 >= spent, "{leaf:?}");
}
