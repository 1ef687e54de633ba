//! Two ends of a pool against the rule that no byte is used twice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::Stored;

fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

type Place = (crypto::record::Table, Vec<u8>);

/// One end with what it made durable.
struct End {
    name: &'static str,
    pool: LinkPool,
    disk: BTreeMap<Place, (Vec<u8>, Option<SecretBytes>)>,
}

impl End {
    fn new(name: &'static str, peer: &str) -> Self {
        let pool = LinkPool::new(LinkId::new("a-b").unwrap(), site(peer));
        Self { name, pool, disk: BTreeMap::new() }
    }

    fn with<R>(&mut self, step: impl FnOnce(&mut LinkPool, &mut Journal) -> R) -> R {
        let mut journal = Journal::default();
        let result = step(&mut self.pool, &mut journal);
        journal.close();
        self.save(&mut journal);
        result
    }

    fn save(&mut self, journal: &mut Journal) {
        while let Some(crate::Output::Commit { changes, .. }) = journal.poll() {
            for change in changes {
                match change {
                    crypto::record::Change::Put(r) => _ = self.disk.insert((r.table, r.key), (r.value, r.secret)),
                    crypto::record::Change::Delete { table, key } => _ = self.disk.remove(&(table, key)),
                    crypto::record::Change::Update { .. } => panic!("a pool updates nothing in place"),
                }
            }
        }
    }

    fn file(&mut self, seq: u64, len: usize) -> ByteLen {
        let name = site(self.name);
        let key = block(seq, len);
        self.with(|pool, journal| pool.file(&name, BlockSeq(seq), &key, 1 << 20, journal))
    }

    fn restart(&mut self) -> ByteLen {
        let peer = self.pool.peer.clone();
        self.pool = LinkPool::new(LinkId::new("a-b").unwrap(), peer);
        let mut halves = Vec::new();
        let mut marks = BTreeMap::new();
        for ((table, key), (value, secret)) in &self.disk {
            let secret = secret.as_ref().map(SecretBytes::duplicate);
            let record = Record { table: *table, key: key.clone(), value: value.clone(), secret };
            match record::decode(record).unwrap().unwrap() {
                Stored::Window { next, bits, .. } => self.pool.restore_window(FiledWindow { next, bits }),
                Stored::Half { seq, direction, bytes, .. } => halves.push((seq, direction, bytes)),
                Stored::Mark { seq, direction, mark, lease_from, .. } => {
                    marks.insert((seq, direction), (as_usize(mark), as_usize(lease_from)));
                }
                Stored::Spent { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let mut burned = ByteLen(0);
        for (seq, direction, bytes) in halves {
            let mark = marks.get(&(seq, direction)).copied().unwrap_or_default();
            burned += self.with(|pool, journal| pool.restore_half(seq, direction, bytes, mark, journal));
        }
        burned
    }
}

/// The bits of a block; every byte position differs from its neighbours.
fn block(seq: u64, len: usize) -> SecretBytes {
    SecretBytes::from_vec((0..len as u64).map(|at| (seq * 31 + at * 7 + at / 256).to_be_bytes()[7]).collect())
}

fn meet(a: &mut End, b: &mut End) {
    let (from_a, from_b) = (a.pool.state(), b.pool.state());
    a.with(|pool, journal| pool.learn(&from_b, journal));
    b.with(|pool, journal| pool.learn(&from_a, journal));
}

fn ends() -> (End, End) {
    (End::new("a", "b"), End::new("b", "a"))
}

#[test]
fn key_is_usable_only_when_both_ends_filed_it() {
    let (mut a, mut b) = ends();
    a.file(0, 1_000);
    meet(&mut a, &mut b);
    assert_eq!(a.pool.available(), 0);
    b.file(0, 1_000);
    assert_eq!(b.pool.available(), 500, "b heard of a's block before it filed its own");
    meet(&mut a, &mut b);
    assert_eq!(a.pool.available(), 500);
    let pad = a.with(|pool, journal| pool.draw(64, 0, Class::Own, journal)).unwrap();
    assert_eq!(pad.ranges, [PadRange { seq: BlockSeq(0), offset: 0, len: 64 }]);
    assert_eq!(pad.bytes, block(0, 1_000).part(0, 64).unwrap());
    let (theirs, holes) = b.with(|pool, journal| pool.take(&pad.ranges, journal)).unwrap();
    assert_eq!((theirs, holes), (pad.bytes, ByteLen(0)));
    assert_eq!(b.with(|pool, journal| pool.take(&pad.ranges, journal)), Err(RangesRefused), "a replay");
}

#[test]
fn the_receiver_refuses_what_is_not_ahead_of_its_mark() {
    let (mut a, mut b) = ends();
    a.file(3, 200);
    b.file(3, 200);
    meet(&mut a, &mut b);
    let range = |seq, offset, len| PadRange { seq: BlockSeq(seq), offset, len };
    let refused = [
        vec![range(3, 0, 101)],
        vec![range(3, 100, 1)],
        vec![range(3, u32::MAX, u32::MAX)],
        vec![range(2, 0, 1)],
        vec![range(3, 0, 1), range(3, 1, 1)],
        vec![range(3, 0, 0)],
    ];
    for ranges in refused {
        assert_eq!(b.with(|pool, journal| pool.take(&ranges, journal)), Err(RangesRefused), "{ranges:?}");
    }
    let (_, holes) = b.with(|pool, journal| pool.take(&[range(3, 40, 10)], journal)).unwrap();
    assert_eq!(holes, ByteLen(40));
    assert_eq!(b.with(|pool, journal| pool.take(&[range(3, 39, 1)], journal)), Err(RangesRefused));
    assert_eq!(b.pool.stock().bits_in, BitLen(50 * 8));
}

#[test]
fn a_block_is_filed_once_even_after_it_was_used_up() {
    let (mut a, mut b) = ends();
    for end in [&mut a, &mut b] {
        end.file(7, 200);
        assert_eq!(end.file(7, 200), ByteLen(0));
        end.file(5, 200);
    }
    meet(&mut a, &mut b);
    assert_eq!(a.pool.stock().blocks, 2);
    let pad = a.with(|pool, journal| pool.draw(200, 0, Class::Own, journal));
    assert_eq!(pad.unwrap().ranges.len(), 2);
    a.file(7, 200);
    a.restart();
    a.file(5, 200);
    assert_eq!(a.pool.stock().bits_out, BitLen(0));
    assert!(a.pool.out.is_empty());
}

#[test]
fn what_is_spent_is_counted_by_what_it_is_for() {
    let (mut a, mut b) = ends();
    for end in [&mut a, &mut b] {
        end.file(0, 2_000);
    }
    meet(&mut a, &mut b);
    for (len, class) in [(132, Class::Own), (64, Class::Transit), (64, Class::Transit)] {
        a.with(|pool, journal| pool.draw(len, 32, class, journal)).unwrap();
    }
    a.pool.ask(70);
    let bytes = |n: u64| BitLen(8 * n);
    let used = LinkUse { own: bytes(100), transit: bytes(64), tags: bytes(96), asked: bytes(70) };
    assert_eq!((a.pool.stock().used, a.pool.stock().bits_out), (used, bytes(1_000 - 260)));
    assert!(a.with(|pool, journal| pool.draw(741, 32, Class::Own, journal)).is_none());
    assert_eq!(a.pool.stock().used, used);
}

#[test]
fn a_sender_whose_disk_was_set_back_draws_nothing_that_the_receiver_has_seen() {
    let (mut a, mut b) = ends();
    for end in [&mut a, &mut b] {
        end.file(0, 40_000);
        end.file(1, 40_000);
    }
    meet(&mut a, &mut b);
    let old = a.disk.iter().map(|(place, (v, s))| (place.clone(), (v.clone(), s.as_ref().map(SecretBytes::duplicate))));
    let old: BTreeMap<_, _> = old.collect();
    let mut seen = Vec::new();
    for _ in 0..15 {
        let pad = a.with(|pool, journal| pool.draw(2_000, 0, Class::Own, journal)).unwrap();
        b.with(|pool, journal| pool.take(&pad.ranges, journal)).unwrap();
        seen.extend(pad.ranges);
    }
    // Everything that the first block had is drawn, and a part of the second.
    assert_eq!(seen.last().unwrap().seq, BlockSeq(1));
    a.disk = old;
    a.restart();
    assert!(a.with(|pool, journal| pool.draw(100, 0, Class::Own, journal)).is_none(), "not before the other end spoke");
    meet(&mut a, &mut b);
    let pad = a.with(|pool, journal| pool.draw(100, 0, Class::Own, journal)).unwrap();
    let overlaps = |one: &PadRange, other: &PadRange| {
        one.seq == other.seq && one.offset < other.offset + other.len && other.offset < one.offset + one.len
    };
    assert!(pad.ranges.iter().all(|range| !seen.iter().any(|other| overlaps(range, other))), "{:?}", pad.ranges);
    assert!(b.with(|pool, journal| pool.take(&pad.ranges, journal)).is_ok());
    // The move is durable: another crash does not undo it.
    a.restart();
    meet(&mut a, &mut b);
    let pad = a.with(|pool, journal| pool.draw(100, 0, Class::Own, journal)).unwrap();
    assert!(pad.ranges.iter().all(|range| !seen.iter().any(|other| overlaps(range, other))), "{:?}", pad.ranges);
}

#[test]
fn after_a_set_back_all_pad_goes_and_no_block_that_the_other_end_knows_is_filed_again() {
    let (mut a, mut b) = ends();
    for end in [&mut a, &mut b] {
        end.file(0, 2_000);
    }
    b.file(9, 2_000);
    assert_eq!(a.with(|pool, journal| pool.set_back(journal)), ByteLen(1_000));
    assert_eq!(a.file(3, 2_000), ByteLen(2_000), "nobody knows yet whether it was spent");
    meet(&mut a, &mut b);
    assert!(!a.pool.is_set_back());
    for seq in 0..10 {
        assert!(a.pool.has_filed(BlockSeq(seq)), "{seq}");
    }
    a.restart();
    a.file(9, 2_000);
    meet(&mut a, &mut b);
    assert_eq!((a.pool.available(), b.pool.stock().bits_in), (0, BitLen(0)));
    for end in [&mut a, &mut b] {
        end.file(10, 2_000);
    }
    meet(&mut a, &mut b);
    assert_eq!(a.pool.available(), 1_000);
}

#[test]
fn key_that_one_end_lost_is_burned_at_the_other() {
    let (mut a, mut b) = ends();
    a.file(0, 200);
    meet(&mut a, &mut b);
    assert_eq!(a.pool.stock().blocks, 1, "b may file it later");
    b.file(65, 200);
    meet(&mut a, &mut b);
    assert_eq!(a.pool.stock().blocks, 0, "b will never file block 0 now");
    assert_eq!(b.pool.stock().blocks, 1, "a may file block 65 later");
}

#[test]
fn a_full_pool_burns_the_block_and_says_so() {
    let (mut a, _) = ends();
    let key = block(0, 400);
    let name = site("a");
    assert_eq!(a.with(|pool, journal| pool.file(&name, BlockSeq(0), &key, 199, journal)), ByteLen(400));
    assert_eq!(a.pool.stock().blocks, 0);
    assert!(a.pool.has_filed(BlockSeq(0)));
}

#[test]
fn what_a_crash_leaves_of_a_lease_is_burned() {
    let (mut a, mut b) = ends();
    for end in [&mut a, &mut b] {
        end.file(0, 20_000);
    }
    meet(&mut a, &mut b);
    a.with(|pool, journal| pool.draw(100, 0, Class::Own, journal)).unwrap();
    assert_eq!(a.restart(), ByteLen(LEASE_BYTES as u64), "upper bound");
    assert_eq!(a.restart(), ByteLen(0), "once");
    meet(&mut a, &mut b);
    let pad = a.with(|pool, journal| pool.draw(100, 0, Class::Own, journal)).unwrap();
    assert_eq!(as_usize(pad.ranges[0].offset), LEASE_BYTES);
}

#[derive(Clone, Debug)]
enum Step {
    File { at_a: bool, at_b: bool, len: usize },
    Send { from_a: bool, len: usize, class: bool, lost: bool },
    Restart { a: bool },
    Meet,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), any::<bool>(), 2..3_000_usize).prop_map(|(at_a, at_b, len)| Step::File { at_a, at_b, len }),
        (any::<bool>(), 1..800_usize, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(from_a, len, class, lost)| Step::Send { from_a, len, class, lost }),
        (any::<bool>(), 1..800_usize, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(from_a, len, class, lost)| Step::Send { from_a, len, class, lost }),
        any::<bool>().prop_map(|a| Step::Restart { a }),
        Just(Step::Meet),
    ]
}

proptest! {
    #[test]
    fn no_byte_is_drawn_twice_and_both_ends_see_the_same(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut a, mut b) = ends();
        let mut used: BTreeMap<(bool, BlockSeq), Vec<bool>> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::File { at_a, at_b, len } => {
                    // A block of another length at each end would be a bug of the link.
                    if at_a { a.file(n as u64, len); }
                    if at_b { b.file(n as u64, len); }
                }
                Step::Meet => meet(&mut a, &mut b),
                Step::Restart { a: true } => _ = a.restart(),
                Step::Restart { a: false } => _ = b.restart(),
                Step::Send { from_a, len, class, lost } => {
                    let class = if class { Class::Own } else { Class::Transit };
                    let (from, to) = if from_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
                    let Some(pad) = from.with(|pool, journal| pool.draw(len, 0, class, journal)) else { continue };
                    for range in &pad.ranges {
                        let used = used.entry((from_a, range.seq)).or_insert_with(|| vec![false; 1_500]);
                        for at in range.offset..range.offset + range.len {
                            prop_assert!(!std::mem::replace(&mut used[as_usize(at)], true), "byte {at} of {:?}", range.seq);
                        }
                    }
                    if !lost {
                        let taken = to.with(|pool, journal| pool.take(&pad.ranges, journal));
                        prop_assert_eq!(taken.unwrap().0, pad.bytes);
                    }
                }
            }
            for end in [&a, &b] {
                let usable: usize =
                    end.pool.out.values().filter(|half| half.confirmed).map(|half| half.bytes.len() - half.next).sum();
                prop_assert_eq!(end.pool.usable, usable);
            }
        }
    }
}
