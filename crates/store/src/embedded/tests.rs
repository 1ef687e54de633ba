//! The store against a model, with the power cut anywhere, on full and broken disks, and scanned for secrets.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use crypto::record::Table;
use crypto::secret::Key256;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::disk::sim::SimDisk;
use crate::model::{Model, apply, as_model, delete, put};
use crate::store::{Back, Damaged, Store};

fn root() -> RootKey {
    RootKey::from_key(Key256::copy_of(&[7; 32]))
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Small segments, so that short tests rotate and compact.
fn open_sim(disk: &SimDisk, seed: u64) -> Result<(Store, Vec<Record>, Vec<Damaged>), Error> {
    open_with(disk, root(), seed)
}

fn open_with(disk: &SimDisk, root: RootKey, seed: u64) -> Result<(Store, Vec<Record>, Vec<Damaged>), Error> {
    let embedded = recovery::open(Arc::new(disk.clone()), root, Box::new(rng(seed)), 512)?;
    let store = Store::of(Back::Folder(Box::new(embedded)));
    let (records, damaged) = store.sorted()?;
    Ok((store, records, damaged))
}

fn inside(store: &Store) -> &Embedded {
    let Back::Folder(embedded) = &store.back else { panic!("a folder was opened") };
    embedded
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A random change that the model allows.
fn random_change(model: &Model, rng: &mut ChaCha20Rng) -> Change {
    let mut below = |n: u64| rng.next_u64() % n;
    let table = Table::ALL[usize::try_from(below(9)).unwrap()];
    let key = vec![0xaa; usize::try_from(below(5)).unwrap()];
    let value = vec![1; usize::try_from(below(30)).unwrap()];
    match below(5) {
        0 if model.contains_key(&(table, key.clone())) => Change::Update { table, key, value },
        1 | 2 => Change::Delete { table, key },
        _ => {
            let len = [0, 1, 32, 40, 200, 700][usize::try_from(below(6)).unwrap()];
            let mut secret = vec![0; len];
            rng.fill_bytes(&mut secret);
            put(table, &key, &value, (len > 0).then_some(&secret[..]))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_is_a_map(seed in any::<u64>()) {
        let disk = SimDisk::default();
        let mut random = rng(seed);
        let mut model = Model::new();
        let (mut store, ..) = open_sim(&disk, seed).unwrap();
        for step in 0..60 {
            if random.next_u32().is_multiple_of(8) {
                drop(store);
                let (reopened, records, damaged) = open_sim(&disk, seed ^ step).unwrap();
                prop_assert!(damaged.is_empty());
                prop_assert_eq!(as_model(records), model.clone());
                store = reopened;
            }
            let mut next = model.clone();
            let mut changes = Vec::new();
            for _ in 0..=random.next_u32() % 4 {
                let change = random_change(&next, &mut random);
                apply(&mut next, &change);
                changes.push(change);
            }
            store.commit(&changes).unwrap();
            model = next;
            prop_assert_eq!(store.stats().secrets, model.values().filter(|(_, secret)| secret.is_some()).count() as u64);
        }
        while store.compact().unwrap() {}
        // Housekeeping keeps up: what is set aside is bounded by what is live.
        let stats = store.stats();
        prop_assert!(stats.reserved_bytes <= 4 * stats.live_bytes + 3 * 512 + 512, "{:?}", stats);
        drop(store);
        prop_assert_eq!(as_model(open_sim(&disk, 1).unwrap().1), model);
    }
}

/// Runs a fixed script with the power cut at every operation, and reopens each of several remains.
#[test]
fn a_power_cut_anywhere_loses_nothing_acknowledged_and_revives_nothing() {
    let script = |disk: &SimDisk| {
        let mut states = vec![Model::new()];
        let mut random = rng(11);
        let mut model = Model::new();
        let Ok((mut store, ..)) = open_sim(disk, 5) else {
            return (states, 0);
        };
        for step in 0..14 {
            if step == 7 || step == 11 {
                close(store, step == 11);
                match open_sim(disk, 6) {
                    Ok((reopened, ..)) => store = reopened,
                    Err(_) => return (states, step),
                }
            }
            let mut next = model.clone();
            let changes: Vec<Change> = (0..3)
                .map(|_| {
                    let change = random_change(&next, &mut random);
                    apply(&mut next, &change);
                    change
                })
                .collect();
            states.push(next.clone());
            if store.commit(&changes).is_err() {
                assert!(matches!(store.commit(&changes), Err(Error::Poisoned)));
                return (states, step);
            }
            if step % 4 == 2 && store.wipe().is_err() {
                return (states, step + 1);
            }
            model = next;
        }
        (states, 14)
    };
    let whole = SimDisk::default();
    assert_eq!(script(&whole).1, 14);
    for operation in 0..whole.operations() {
        let disk = SimDisk::default();
        disk.cut_power_at(operation);
        let (states, acknowledged) = script(&disk);
        for seed in [0, 1, 2 + operation, 3 + operation] {
            let remains = disk.after_power_cut(seed);
            let found = open_sim(&remains, 8).unwrap_or_else(|error| panic!("cut {operation} seed {seed}: {error:?}"));
            assert!(found.2.is_empty(), "cut {operation} seed {seed}: {:?}", found.2);
            let found = as_model(found.1);
            let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
            assert!(allowed.contains(&found), "cut {operation} seed {seed}: {found:?}\nnot in {allowed:?}");
            assert_nothing_but_live(&remains, &found);
        }
    }
}

/// What is dead stands on the medium until the next wipe, drop or opening, and not after, whatever the process met.
#[test]
fn what_is_wiped_is_gone_from_the_medium_and_so_is_what_a_killed_process_left() {
    let disk = SimDisk::default();
    let (mut model, mut random) = (Model::new(), rng(3));
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let (mut dirty, mut freed_by_commits) = (0_u64, 0_u64);
    for step in 0..120 {
        let mut changes = Vec::new();
        for _ in 0..3 {
            let change = random_change(&model, &mut random);
            apply(&mut model, &change);
            changes.push(change);
        }
        let before = dead_bytes(&store, &disk);
        store.commit(&changes).unwrap();
        freed_by_commits += u64::from(before > 0 && dead_bytes(&store, &disk) == 0);
        dirty += u64::from(store.is_dirty());
        match step % 4 {
            0 => store.wipe().unwrap(),
            1 => {}
            end => {
                close(store, end == 2);
                store = open_sim(&disk, 100 + step).unwrap().0;
            }
        }
        if step % 4 != 1 {
            assert!(!store.is_dirty());
            assert_eq!(dead_bytes(&store, &disk.after_power_cut(0)), 0, "step {step}");
        }
    }
    assert!(dirty > 20 && freed_by_commits > 0, "{dirty}, {freed_by_commits}");
    store.wipe().unwrap();
    assert_eq!(as_model(open_sim(&disk.after_power_cut(0), 5).unwrap().1), model);
}

/// In order, or as `kill -9` does it.
fn close(store: Store, is_killed: bool) {
    if is_killed { std::mem::forget(store) } else { drop(store) }
}

/// Bytes in segment files that are not zero and not in a live slot.
fn dead_bytes(store: &Store, disk: &SimDisk) -> usize {
    let files = disk.dump();
    let dead = |segment: &Segment| {
        let mut content = files[&segment.id().keys_name()].clone();
        for slot in segment.live() {
            let start = usize::try_from(slot.offset).unwrap();
            content[start..start + usize::try_from(slot.len).unwrap()].fill(0);
        }
        content.iter().filter(|byte| **byte != 0).count()
    };
    inside(store).segments.values().map(dead).sum()
}

/// Any single operation fails, of any kind, and the disk is well again: what was acknowledged is there at reopening,
/// nothing is half there, the store goes on, and a power cut after that takes nothing back.
#[test]
fn a_failure_of_any_one_operation_loses_nothing_acknowledged_and_revives_nothing() {
    let changes_of = |model: &Model, random: &mut ChaCha20Rng| {
        let mut next = model.clone();
        let changes: Vec<Change> = (0..3)
            .map(|_| {
                let change = random_change(&next, random);
                apply(&mut next, &change);
                change
            })
            .collect();
        (changes, next)
    };
    let whole = SimDisk::default();
    let (mut store, ..) = open_sim(&whole, 5).unwrap();
    let (mut model, mut random) = (Model::new(), rng(11));
    let commit = |store: &mut Store, changes: &[Change], step: u64| {
        store.commit(changes).and_then(|()| if step % 3 == 1 { store.wipe() } else { Ok(()) })
    };
    for step in 0..6 {
        let (changes, next) = changes_of(&model, &mut random);
        commit(&mut store, &changes, step).unwrap();
        model = next;
    }
    drop(store);
    let kinds = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::ReadOnlyFilesystem, std::io::ErrorKind::Other];
    for (operation, kind) in (0..whole.operations()).flat_map(|operation| kinds.map(|kind| (operation, kind))) {
        let disk = SimDisk::default();
        disk.fail_once_at(operation, kind);
        let at = format!("operation {operation}, {kind:?}");
        let mut store = match open_sim(&disk, 5) {
            Ok((store, ..)) => store,
            Err(_) => open_sim(&disk, 5).unwrap_or_else(|error| panic!("{at}: {error:?}")).0,
        };
        let (mut model, mut random) = (Model::new(), rng(11));
        for step in 0..6 {
            let (changes, next) = changes_of(&model, &mut random);
            if let Err(error) = commit(&mut store, &changes, step) {
                assert!(matches!(error, Error::Io { .. } | Error::State { .. }), "{at}: {error:?}");
                drop(store);
                let (reopened, records, damaged) = open_sim(&disk, 20 + step).unwrap_or_else(|e| panic!("{at}: {e:?}"));
                assert!(damaged.is_empty(), "{at}: {damaged:?}");
                let found = as_model(records);
                assert!(found == model || found == next, "{at} step {step}");
                (store, model) = (reopened, found);
                continue;
            }
            model = next;
        }
        drop(store);
        for seed in [0, 2 + operation] {
            let (_, records, damaged) = open_sim(&disk.after_power_cut(seed), 9).unwrap();
            assert!(damaged.is_empty() && as_model(records) == model, "{at} seed {seed}");
        }
    }
}

/// The power is cut anywhere in a change of the root key: one of the two keys opens everything, the other nothing.
#[test]
fn a_power_cut_anywhere_in_a_change_of_the_root_key_leaves_one_key_that_opens_all() {
    let other = || RootKey::from_key(Key256::copy_of(&[8; 32]));
    let filled = |disk: &SimDisk| {
        let (mut store, ..) = open_sim(disk, 1).unwrap();
        for n in 0..20_u8 {
            store.commit(&[put(Table::PairKey, &[n], b"v", Some(&[n; 32]))]).unwrap();
        }
        store
    };
    let whole = SimDisk::default();
    let mut store = filled(&whole);
    let (before, content) = (whole.operations(), whole.dump());
    store.rekey(other()).unwrap();
    let sealed_before = content["0000000000000001.kek"][19..83].to_vec();
    assert!(whole.dump().values().all(|file| !contains(file, &sealed_before)), "sealed under the old key: gone");
    store.commit(&[put(Table::PairKey, b"new", b"", Some(b"secret"))]).unwrap();
    drop(store);
    assert_eq!(open_with(&whole, other(), 2).unwrap().1.len(), 21);
    let mut opened = [0; 2];
    for operation in before..whole.operations() {
        let disk = SimDisk::default();
        let mut store = filled(&disk);
        disk.cut_power_at(operation);
        let result = store.rekey(other());
        drop(store);
        for seed in [0, 1, 2 + operation, 3 + operation] {
            let at = format!("cut {operation} seed {seed}");
            let remains = disk.after_power_cut(seed);
            let new = open_with(&remains, other(), 3);
            let old = open_with(&remains, root(), 3);
            let (opens, refuses, which) = if new.is_ok() { (new, old, 1) } else { (old, new, 0) };
            let (_, records, damaged) = opens.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            assert_eq!((records.len(), damaged.len()), (20, 0), "{at}");
            assert!(matches!(refuses, Err(Error::WrongRootKey { .. })), "{at}");
            assert!(result.is_err() || which == 1, "{at}: an acknowledged change went back");
            opened[which] += 1;
        }
    }
    assert!(opened[0] > 0 && opened[1] > 0, "{opened:?}");
}

/// A store as version 1 wrote it: slots without the key of their row.
#[test]
fn a_store_of_version_1_is_taken_over() {
    let disk = SimDisk::default();
    drop(open_sim(&disk, 1).unwrap());
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let Back::Folder(inner) = &mut store.back else { panic!("a folder was opened") };
    let id = SegmentId(7);
    let description =
        crate::kek::KekSlot { id, layout: Layout::Bare, class: Class::Stock, capacity: 512, sealed: Vec::new() };
    let (_, kek) = crate::kek::create(&disk, &root(), description, &mut rng(4)).unwrap();
    let keys = disk.create(&id.keys_name(), 512).unwrap();
    let transaction = inner.state.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(ROWS).unwrap();
        for n in 0..3_u8 {
            let (row, place) = ([6, n], Place { segment: id, offset: 48 * u32::from(n), len: 32 });
            let sealed = segment::seal_bare(&kek, place, &row, &SecretBytes::copy_of(&[n; 32]));
            keys.write_at(u64::from(place.offset), &sealed).unwrap();
            rows.insert(&row[..], Entry { value: b"v", place: Some(place) }.encode().as_slice()).unwrap();
        }
        let mut marks = transaction.open_table(MARKS).unwrap();
        let mut mark = recovery::sealed_mark(&root(), &mut rng(5));
        mark[1] = 1;
        marks.insert(recovery::FORMAT, mark.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    keys.sync_data().unwrap();
    disk.sync_names().unwrap();
    drop(store);
    disk.flip(&id.keys_name(), 50, 1);
    for round in 0..2 {
        let (store, records, damaged) = open_sim(&disk, 2).unwrap();
        let secrets: Vec<_> = as_model(records).into_values().map(|(_, secret)| secret.unwrap()).collect();
        assert_eq!(secrets, [vec![0; 32], vec![2; 32]], "round {round}");
        assert_eq!((damaged.len(), &damaged[0].key[..]), (1, &[1][..]));
        assert_eq!(store.stats().segments, 2, "the damaged slot stays until its record goes");
    }
    let (mut store, ..) = open_sim(&disk, 3).unwrap();
    store.commit(&[delete(Table::PairKey, &[1])]).unwrap();
    drop(store);
    assert!(!disk.dump().contains_key(&id.keys_name()));
}

/// After opening, segment files hold live slots and zeros, nothing else.
fn assert_nothing_but_live(disk: &SimDisk, model: &Model) {
    let secrets = model.iter().filter_map(|((_, key), (_, secret))| secret.as_ref().map(|secret| (key, secret)));
    let live: usize = secrets.map(|(key, secret)| 2 + 1 + key.len() + secret.len() + 16).sum();
    let used = |(name, content): (&String, &Vec<u8>)| {
        if name.ends_with(".keys") { content.iter().filter(|byte| **byte != 0).count() } else { 0 }
    };
    let used: usize = disk.dump().iter().map(used).sum();
    assert!(used <= live, "{used} bytes are in use for {live} live ones");
}

#[test]
fn secrets_are_on_disk_only_sealed_and_only_while_they_live() {
    let folder = tempfile::tempdir().unwrap();
    let scan = |needle: &[u8]| {
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| contains(&std::fs::read(entry.as_ref().unwrap().path()).unwrap(), needle))
            .count()
    };
    let (secret, other) = (*b"canary key bytes, thirty-two!!!!", *b"another key that lives on a bit.");
    let (mut store, _) = Store::open(folder.path(), root(), rng(1)).unwrap();
    let changes =
        [put(Table::PairKey, b"a", b"public value", Some(&secret)), put(Table::PairKey, b"b", b"", Some(&other))];
    store.commit(&changes).unwrap();
    let segment = inside(&store).segments.values().next().unwrap();
    let mut images = Vec::new();
    for slot in segment.live() {
        assert_eq!(slot.len, 2 + 2 + 48, "row key \x06a, secret and tag");
        let at = usize::try_from(slot.offset).unwrap() + 4;
        images.push(segment.read_all().unwrap()[at..at + 48].to_vec());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    assert_eq!((scan(&secret), scan(&hex(&secret)), scan(&images[0]), scan(&images[1])), (0, 0, 1, 1));
    assert_eq!(scan(b"public value"), 1);

    store.commit(&[delete(Table::PairKey, b"a")]).unwrap();
    assert!(store.is_dirty());
    store.wipe().unwrap();
    assert_eq!((scan(&secret), scan(&images[0]), scan(&images[1])), (0, 0, 1), "overwritten in place");
    store.commit(&[put(Table::PairKey, b"b", b"", None)]).unwrap();
    store.commit(&[put(Table::PairKey, b"c", b"", Some(&other))]).unwrap();
    assert_eq!(
        (scan(&images[1]), store.is_dirty()),
        (0, false),
        "overwritten together with what the next commit writes"
    );
    store.commit(&[delete(Table::PairKey, b"c")]).unwrap();
    drop(store);
    assert!(segment_bytes(folder.path()).iter().all(|byte| *byte == 0), "a store that is closed overwrites the rest");
    let (store, records) = Store::open(folder.path(), root(), rng(2)).unwrap();
    assert_eq!((records.len(), store.stats()), (1, Stats::default()), "a segment without a secret is destroyed");
    assert_eq!((scan(&secret), scan(&other), scan(&images[0]), scan(&images[1])), (0, 0, 0, 0));
    assert!(!std::fs::read_dir(folder.path()).unwrap().any(|e| e.unwrap().path().extension() == Some("kek".as_ref())));
}

/// All bytes of all segments.
fn segment_bytes(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension() == Some("keys".as_ref()));
    segments.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn a_mostly_dead_segment_is_emptied_and_its_key_destroyed() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let secret = |n: u8| [n; 28];
    for n in 0..40_u8 {
        store.commit(&[put(Table::PoolBlock, &[n], b"", Some(&secret(n)))]).unwrap();
    }
    assert_eq!(store.stats().segments, 4, "ten slots of 48 bytes go into 512");
    let first_kek = disk.dump()["0000000000000001.kek"].clone();
    for n in (0..40_u8).filter(|n| n % 10 != 0) {
        store.commit(&[delete(Table::PoolBlock, &[n])]).unwrap();
    }
    while store.compact().unwrap() {}
    let stats = store.stats();
    assert_eq!((stats.secrets, stats.segments), (4, 1), "{stats:?}");
    for content in disk.dump().values() {
        assert!(!contains(content, &first_kek[22..86]), "the sealed key of the first segment is gone");
    }
    drop(store);
    let model = as_model(open_sim(&disk, 2).unwrap().1);
    for n in [0, 10, 20, 30] {
        assert_eq!(model[&(Table::PoolBlock, vec![n])].1, Some(secret(n).to_vec()));
    }
}

#[test]
fn a_wrong_root_key_changes_nothing() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    store.commit(&[put(Table::PairKey, b"a", b"v", Some(b"secret"))]).unwrap();
    drop(store);
    let segments = |disk: &SimDisk| -> BTreeMap<_, _> {
        disk.dump().into_iter().filter(|(name, _)| name != "state.redb").collect()
    };
    let before = segments(&disk);
    let wrong = RootKey::from_key(Key256::copy_of(&[8; 32]));
    let refused = open_with(&disk, wrong, 1);
    assert!(matches!(refused, Err(Error::WrongRootKey { .. })));
    assert_eq!(segments(&disk), before);
    assert_eq!(as_model(open_sim(&disk, 1).unwrap().1).len(), 1);
}

#[test]
fn a_flipped_bit_names_its_record_and_spares_the_others() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    for n in 0..3_u8 {
        store.commit(&[put(Table::PairKey, &[0xc0 + n], b"v", Some(&[n; 32]))]).unwrap();
    }
    drop(store);
    for at in 52..104 {
        let bent = disk.copy();
        bent.flip("0000000000000001.keys", at, 1 << (at % 8));
        let (mut store, records, damaged) = open_sim(&bent, 2).unwrap();
        assert_eq!(records.iter().map(|record| record.key[0]).collect::<Vec<_>>(), [0xc0, 0xc2]);
        let [lost] = &damaged[..] else { panic!("{damaged:?}") };
        assert_eq!((lost.table, &lost.key[..], &lost.value[..]), (Table::PairKey, &[0xc1][..], &b"v"[..]));
        // It can be deleted like any other, and then all is well.
        store.commit(&[delete(Table::PairKey, &[0xc1])]).unwrap();
        drop(store);
        let (_, records, damaged) = open_sim(&bent, 3).unwrap();
        assert_eq!((records.len(), damaged.len()), (2, 0));
    }
    // A damaged key file takes its whole segment.
    for at in [0, 5, 10, 14, 18, 19, 40, 80] {
        let bent = disk.copy();
        bent.flip("0000000000000001.kek", at, 1);
        let (mut store, records, damaged) = open_sim(&bent, 2).unwrap();
        assert_eq!((records.len(), damaged.len()), (0, 3), "byte {at}");
        store.commit(&[delete(Table::PairKey, &[0xc0]), put(Table::PairKey, &[0xc1], b"", Some(b"new"))]).unwrap();
        store.commit(&[delete(Table::PairKey, &[0xc2])]).unwrap();
        drop(store);
        let (_, records, damaged) = open_sim(&bent, 3).unwrap();
        assert_eq!((records.len(), damaged.len()), (1, 0), "byte {at}");
        assert!(!bent.dump().contains_key("0000000000000001.kek"), "nothing points into it any more");
    }
}

#[test]
fn a_damaged_state_table_is_an_error_and_not_a_panic() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let mut model = Model::new();
    for n in 0..20_u8 {
        let change = put(Table::PairKey, &[n], &[n; 200], Some(&[n; 32]));
        apply(&mut model, &change);
        store.commit(&[change]).unwrap();
    }
    drop(store);
    let len = disk.dump()["state.redb"].len();
    let mut noticed = 0;
    for at in (0..len).step_by(len / 150) {
        let bent = disk.copy();
        bent.flip("state.redb", at, 0x10);
        match open_sim(&bent, 2) {
            Ok((_, records, damaged)) => {
                assert!(damaged.is_empty());
                assert_eq!(as_model(records), model, "byte {at}: an unused byte");
            }
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 0);
    // A state table that was lost must not make the keys look like leftovers.
    let lost = disk.copy();
    lost.remove("state.redb").unwrap();
    assert!(matches!(open_sim(&lost, 2), Err(Error::Corrupt { .. })));
    assert!(matches!(open_sim(&lost, 2), Err(Error::Corrupt { .. })), "and not at the second try either");
    assert!(lost.dump().contains_key("0000000000000001.kek"));
}

#[test]
fn a_refused_change_changes_nothing() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let good = || put(Table::PairKey, b"k", b"v", Some(b"s"));
    let long = |key: usize, value: usize, secret: usize| {
        put(Table::PairKey, &vec![0; key], &vec![0; value], Some(&vec![0; secret]))
    };
    let update = Change::Update { table: Table::PairKey, key: vec![1], value: vec![] };
    for bad in [update, long(257, 0, 0), long(0, 65_537, 0), long(0, 0, 2 * 1024 * 1024 + 1)] {
        assert!(matches!(store.commit(&[good(), bad]), Err(Error::ApiMisuse(_))));
    }
    store.commit(&[]).unwrap();
    assert_eq!(store.stats().secrets, 0);
    store.commit(&[long(256, 65_536, 2 * 1024 * 1024), delete(Table::PairKey, b"none")]).unwrap();
    store.commit_many([&[good()][..], &[delete(Table::PairKey, b"k"), good()][..]]).unwrap();
    drop(store);
    let model = as_model(open_sim(&disk, 2).unwrap().1);
    assert_eq!(model.len(), 2);
    assert_eq!(model[&(Table::PairKey, b"k".to_vec())], (b"v".to_vec(), Some(b"s".to_vec())));
}

#[test]
fn a_full_or_read_only_disk_says_so_and_half_applies_nothing() {
    let disk = SimDisk::default();
    let (mut store, ..) = open_sim(&disk, 1).unwrap();
    let before = put(Table::PairKey, b"before", b"", Some(b"kept"));
    store.commit(&[before]).unwrap();
    drop(store);
    let mut refusals = 0;
    for room in [0, 100, 512, 4096, 8000, 20_000, 200_000] {
        let full = disk.copy();
        let Ok((mut store, ..)) = open_sim(&full, 2) else { panic!("opening needs no room") };
        full.fill_up(room);
        let batch = |n: u8| {
            [
                put(Table::PoolBlock, &[n, 0], &[n; 3000], Some(&[n; 400])),
                put(Table::ModelKey, &[n, 1], b"", Some(&[n])),
            ]
        };
        let mut done = 0;
        for n in 0..40 {
            match store.commit(&batch(n)) {
                Ok(()) => done += 1,
                Err(error) => {
                    assert!(matches!(&error, Error::Io { .. }), "{error:?}");
                    let text = error.to_string();
                    assert!(text.contains("/sim/") && text.contains("free space"), "{text}");
                    assert!(matches!(store.commit(&batch(n)), Err(Error::Poisoned)));
                    refusals += 1;
                    break;
                }
            }
        }
        drop(store);
        let model = as_model(open_sim(&full.copy(), 3).unwrap().1);
        assert!(
            model.len() == 1 + 2 * done || model.len() == 1 + 2 * (done + 1),
            "{} records, {done} batches",
            model.len()
        );
        assert_eq!(model.len() % 2, 1, "no half batch");
    }
    assert!(refusals >= 5);

    let (mut store, ..) = open_sim(&disk, 2).unwrap();
    disk.set_read_only();
    let error = store.commit(&[put(Table::PairKey, b"x", b"", Some(b"y"))]).unwrap_err();
    assert!(matches!(&error, Error::Io { .. }) && error.to_string().contains("read-only"), "{error}");
    drop(store);
    assert_eq!(as_model(open_sim(&disk.copy(), 2).unwrap().1).len(), 1);
}

#[test]
fn one_process_at_a_time_and_private_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (mut store, _) = Store::open(&path, root(), rng(1)).unwrap();
    let refused = Store::open(&path, root(), rng(1)).unwrap_err();
    assert!(matches!(&refused, Error::Locked { holder, .. } if *holder == std::process::id().to_string()));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())));
    store.commit(&[put(Table::PairKey, b"a", b"", Some(b"s"))]).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(store);
    Store::open(&path, root(), rng(1)).unwrap();
}

#[test]
fn disk_formats_hold_against_any_bytes() {
    let mut random = rng(9);
    for len in 0..400_usize {
        let mut bytes = vec![0; len];
        random.fill_bytes(&mut bytes);
        crate::fuzzing::disk_formats(&bytes);
        let mut row = Entry { value: &bytes, place: None }.encode();
        crate::fuzzing::disk_formats(&row);
        row[1] = 1;
        crate::fuzzing::disk_formats(&row);
        for head in [&b"QKEK\0\x01"[..], b"QRKS\0\x01\x01\0\0\x60", b"QRKS\0\x01\x02\0\x01t", b"QBAK\0\x01\0\x01a"] {
            let mut headed = head.to_vec();
            headed.extend_from_slice(&bytes);
            crate::fuzzing::disk_formats(&headed);
            crate::fuzzing::backup(&headed);
        }
        bytes.insert(0, 1);
        crate::fuzzing::backup(&bytes);
    }
}
