//! Ways on named graphs and against an exhaustive search.

use proptest::prelude::*;

use super::*;

fn graph(sites: usize, hops: &[(usize, usize, u64)]) -> Graph {
    let mut graph = Graph::new(sites);
    for &(one, other, price) in hops {
        graph.add(one, other, price);
        graph.add(other, one, price);
    }
    graph
}

fn apart(one: &[usize], other: &[usize]) -> bool {
    !one[1..one.len() - 1].iter().any(|site| other[1..other.len() - 1].contains(site))
}

/// The most of the ways that share no site pairwise.
fn most_apart(ways: &[Vec<usize>]) -> usize {
    let sets = (0..1_u32 << ways.len()).filter(|set| {
        let chosen: Vec<&Vec<usize>> = (0..ways.len()).filter(|i| set >> i & 1 == 1).map(|i| &ways[i]).collect();
        (0..chosen.len()).all(|i| chosen[..i].iter().all(|other| apart(other, chosen[i])))
    });
    sets.map(u32::count_ones).max().unwrap_or_default() as usize
}

/// All ways that meet no site twice.
fn all_ways(graph: &Graph, way: &mut Vec<usize>, to: usize, out: &mut Vec<Vec<usize>>) {
    let at = way[way.len() - 1];
    if at == to {
        return out.push(way.clone());
    }
    for &(next, _) in &graph.hops[at] {
        if !way.contains(&next) {
            way.push(next);
            all_ways(graph, way, to, out);
            way.pop();
        }
    }
}

#[test]
fn the_cheapest_way_may_have_to_give_way_for_two_that_are_apart() {
    // The trap: the cheapest way 0-1-2-5 uses a site of both ways that are apart.
    let graph = graph(6, &[(0, 1, 1), (1, 2, 1), (2, 5, 1), (0, 3, 4), (3, 2, 1), (1, 4, 1), (4, 5, 4)]);
    let ways = graph.ways(0, 5);
    assert_eq!(ways[0], [0, 1, 2, 5]);
    assert!(ways.contains(&vec![0, 1, 4, 5]) && ways.contains(&vec![0, 3, 2, 5]), "{ways:?}");
    assert_eq!(most_apart(&ways), 2);
}

#[test]
fn a_ring_has_two_ways_and_pairs_of_equal_ways_spread_over_both_sides() {
    let hops: Vec<(usize, usize, u64)> = (0..10).map(|i| (i, (i + 1) % 10, 1_000)).collect();
    let ring = graph(10, &hops);
    assert_eq!(ring.ways(0, 2), [vec![0, 1, 2], vec![0, 9, 8, 7, 6, 5, 4, 3, 2]]);
    let clockwise = (0..10).filter(|i| ring.ways(*i, (i + 5) % 10)[0][1] == (i + 1) % 10).count();
    assert!((3..=7).contains(&clockwise), "{clockwise} of 10");
}

#[test]
fn a_detour_is_found_where_only_a_part_can_be_avoided() {
    let ladder = graph(5, &[(0, 1, 1), (1, 2, 1), (1, 3, 1), (2, 4, 1), (3, 4, 2)]);
    assert_eq!(ladder.ways(0, 4), [vec![0, 1, 2, 4], vec![0, 1, 3, 4]]);
    assert!(Graph::new(3).ways(0, 2).is_empty());
}

proptest! {
    #[test]
    fn ways_are_ways_the_first_is_cheapest_and_as_many_are_apart_as_can_be(
        n in 2..7_usize,
        hops in proptest::collection::vec((0..7_usize, 0..7_usize, 1..50_u64), 0..18),
    ) {
        let mut graph = Graph::new(n);
        hops.iter().filter(|(i, j, _)| i != j && *i < n && *j < n).for_each(|&(i, j, price)| graph.add(i, j, price));
        let ways = graph.ways(0, n - 1);
        let mut all = Vec::new();
        all_ways(&graph, &mut vec![0], n - 1, &mut all);
        prop_assert!(ways.len() <= WAYS_MAX);
        prop_assert!(ways.iter().all(|way| all.contains(way)), "{ways:?}");
        prop_assert_eq!(ways.iter().collect::<BTreeSet<_>>().len(), ways.len());
        prop_assert_eq!(ways.first().map(|way| graph.price(way)), all.iter().map(|way| graph.price(way)).min());
        all.truncate(16);
        prop_assert!(most_apart(&ways) >= most_apart(&all).min(APART_MAX), "{ways:?} of {all:?}");
        prop_assert_eq!(&ways, &graph.clone().ways(0, n - 1));
    }
}
