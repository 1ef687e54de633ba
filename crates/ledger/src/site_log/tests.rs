//! The log against a model, cut and bent on disk, and read while it is written.

use crypto::secret::Key256;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use types::id::LinkId;

use super::*;
use crate::tree::{Hash, Nodes};
use crate::{Anchor, LogReader, Unanchored};

fn origin() -> Origin {
    "net/site/audit".parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&Key256::copy_of(&[1; 32]))
}

fn event(n: u64) -> Event {
    Event::LinkDown { link: LinkId::new("a-b").unwrap(), reason: format!("reason {n}") }
}

fn events(range: Range<u64>) -> Vec<Event> {
    range.map(event).collect()
}

fn open(folder: &Path) -> Result<SiteLog, Error> {
    SiteLog::open(folder, origin(), key(), UtcNanos(99))
}

/// A folder with `bytes` as its log, and the checkpoint of `from` if `signed`.
fn folder_with(bytes: &[u8], from: Option<&Path>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(log_path(folder.path()), bytes).unwrap();
    if let Some(from) = from {
        std::fs::copy(checkpoint_path(from), checkpoint_path(folder.path())).unwrap();
    }
    folder
}

#[test]
fn entries_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    assert_eq!((log.size(), log.unsigned()), (0, 0));
    assert_eq!(log.append(UtcNanos(5), &events(0..3)).unwrap(), 0..3);
    assert_eq!(log.append(UtcNanos(6), &[]).unwrap(), 3..3);
    assert!(matches!(open(folder.path()), Err(Error::Locked { .. })));
    let signed = log.checkpoint().unwrap().clone();
    assert_eq!(log.append(UtcNanos(7), &events(3..5)).unwrap(), 3..5);
    assert_eq!((log.unsigned(), log.last_checkpoint()), (2, Some(&signed)));
    let mut anchor = Unanchored::default();
    anchor.submit(log.checkpoint().unwrap()).unwrap();
    assert_eq!((anchor.anchored_size(), anchor.waiting()), (0, 5));
    let root = log.root();
    drop(log);

    let log = open(folder.path()).unwrap();
    assert_eq!((log.size(), log.root(), log.unsigned()), (5, root, 0));
    let recent: Vec<&Entry> = log.recent(2).collect();
    assert_eq!((recent[0].seq, recent[1].seq, recent[1].time, &recent[1].code[..]), (3, 4, UtcNanos(7), "LINK_DOWN"));
    assert_eq!(log.recent(100).count(), 5);
    assert_eq!(
        LogReader::open(folder.path(), &origin()).unwrap().last(2).unwrap(),
        [recent[0].clone(), recent[1].clone()]
    );
}

#[test]
fn a_large_append_goes_in_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    let many = GROUP_ENTRIES_MAX as u64 + 10;
    assert_eq!(log.append(UtcNanos(1), &events(0..many)).unwrap(), 0..many);
    assert_eq!(log.recent(usize::MAX).count(), SiteLog::RECENT_MAX);
    drop(log);
    assert_eq!(open(folder.path()).unwrap().size(), many);
}

#[test]
fn a_log_cut_anywhere_keeps_its_whole_groups_and_says_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    let mut ends = vec![(log.end, 0)];
    for (n, len) in [(0, 1), (1, 3), (4, 2)] {
        log.append(UtcNanos(1), &events(n..n + len)).unwrap();
        ends.push((log.end, log.size()));
    }
    drop(log);
    let bytes = std::fs::read(log_path(folder.path())).unwrap();
    // All lengths of header and first group, then some, then all at the end.
    let dense = |len: &usize| *len < 280 || len.is_multiple_of(7) || *len + 30 > bytes.len();
    for len in (0..=bytes.len()).filter(dense) {
        let cut = folder_with(&bytes[..len], None);
        let whole = ends.iter().rev().find(|(end, _)| *end <= len as u64);
        let log = open(cut.path()).unwrap();
        let last = log.recent(1).next();
        match whole {
            None => assert_eq!(log.size(), 0, "cut to {len}: within the header"),
            Some((end, size)) if *end == len as u64 => assert_eq!(log.size(), *size, "cut to {len}"),
            Some((end, size)) => {
                assert_eq!(log.size(), size + 1, "cut to {len}");
                let event = Event::LogRecovered { cut: len as u64 - end };
                assert_eq!(
                    *last.unwrap(),
                    Entry::of_event(origin().site(), *size, UtcNanos(99), last.unwrap().prev, &event)
                );
            }
        }
        let (size, root) = (log.size(), log.root());
        drop(log);
        let log = open(cut.path()).unwrap();
        assert_eq!((log.size(), log.root()), (size, root), "cut to {len}: recovered once");
    }
}

#[test]
fn a_bent_byte_is_noticed_unless_it_is_an_unsigned_tail() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    log.append(UtcNanos(1), &events(0..2)).unwrap();
    log.append(UtcNanos(1), &events(2..4)).unwrap();
    let last_group = usize::try_from(log.end).unwrap();
    log.append(UtcNanos(1), &events(4..6)).unwrap();
    log.checkpoint().unwrap();
    drop(log);
    let bytes = std::fs::read(log_path(folder.path())).unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        let unsigned = folder_with(&bent, None);
        if at < last_group {
            let error = open(unsigned.path()).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}");
        } else {
            // Nothing says that the last group was ever acknowledged: it is cut like a torn tail, and that is logged.
            let log = open(unsigned.path()).unwrap();
            assert_eq!((log.size(), &log.recent(1).next().unwrap().code[..]), (5, "LOG_RECOVERED"), "byte {at}");
        }
        let signed = folder_with(&bent, Some(folder.path()));
        let error = open(signed.path()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. } | Error::BadCheckpoint { .. }), "byte {at}: {error}");
        assert_eq!(std::fs::read(log_path(signed.path())).unwrap(), bent, "byte {at}: a refused log is left alone");
    }
}

#[test]
fn torn_sectors_of_the_last_group_are_a_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    log.append(UtcNanos(1), &events(0..3)).unwrap();
    let start = usize::try_from(log.end).unwrap();
    log.append(UtcNanos(1), &events(3..60)).unwrap();
    drop(log);
    let bytes = std::fs::read(log_path(folder.path())).unwrap();
    let mut random = ChaCha20Rng::seed_from_u64(1);
    for _ in 0..40 {
        let mut torn = bytes.clone();
        let mut is_torn = false;
        for (number, sector) in torn.chunks_mut(512).enumerate() {
            if number * 512 >= start && random.next_u32() & 1 == 0 {
                sector.fill(0);
                is_torn = true;
            }
        }
        let folder = folder_with(&torn, None);
        assert_eq!(open(folder.path()).unwrap().size(), if is_torn { 4 } else { 60 });
    }
}

#[test]
fn a_checkpoint_binds_the_log_to_its_past() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    log.append(UtcNanos(1), &events(0..2)).unwrap();
    let early = std::fs::read(log_path(folder.path())).unwrap();
    log.append(UtcNanos(1), &events(2..4)).unwrap();
    log.checkpoint().unwrap();
    drop(log);
    let shorter = folder_with(&early, Some(folder.path()));
    let error = open(shorter.path()).unwrap_err();
    assert!(matches!(&error, Error::BadCheckpoint { reason, .. } if reason.contains("fewer")), "{error}");
    let reader = LogReader::open(shorter.path(), &origin()).unwrap();
    assert!(matches!(reader.sign_head(&key()), Err(Error::BadCheckpoint { .. })), "never signs a fork");

    let other_key = SigningKey::from_seed(&Key256::copy_of(&[2; 32]));
    let refused = SiteLog::open(folder.path(), origin(), other_key, UtcNanos(0));
    assert!(matches!(refused, Err(Error::BadCheckpoint { .. })));
    let other = || "net/other/audit".parse().unwrap();
    std::fs::remove_file(checkpoint_path(folder.path())).unwrap();
    assert!(matches!(SiteLog::open(folder.path(), other(), key(), UtcNanos(0)), Err(Error::Corrupt { .. })));
    assert!(matches!(LogReader::open(folder.path(), &other()), Err(Error::Corrupt { .. })));
}

#[test]
fn reading_beside_a_writer_stops_at_the_last_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    log.append(UtcNanos(1), &events(0..4)).unwrap();
    let whole = log.end;
    log.append(UtcNanos(1), &events(4..6)).unwrap();
    let bytes = std::fs::read(log_path(folder.path())).unwrap();
    for len in usize::try_from(whole).unwrap()..bytes.len() {
        let halfway = folder_with(&bytes[..len], None);
        let reader = LogReader::open(halfway.path(), &origin()).unwrap();
        assert_eq!(reader.last(100).unwrap().len(), 4);
        assert_eq!(std::fs::read(log_path(halfway.path())).unwrap().len(), len, "nothing is written");
    }
    // The writer is still there.
    let reader = LogReader::open(folder.path(), &origin()).unwrap();
    assert_eq!(reader.last_checkpoint(log.verifying_key()).unwrap(), None);
    assert_eq!(reader.sign_head(&key()).unwrap().size(), 6);
    assert_eq!(log.append(UtcNanos(1), &events(6..7)).unwrap(), 6..7);
    assert!(!checkpoint_path(folder.path()).exists(), "a head signed by a reader stays in memory");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_log_is_a_list_and_proves_it(steps in proptest::collection::vec((0..6_u64, any::<bool>(), any::<bool>()), 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path()).unwrap();
        let mut expected: Vec<Entry> = Vec::new();
        let mut nodes = Nodes::default();
        let mut heads = Vec::new();
        for (len, reopen, sign) in steps {
            let events = events(0..len);
            for event in &events {
                let prev = expected.last().map_or([0; 32], |last| leaf_hash(&last.encode()).0);
                let entry = Entry::of_event(origin().site(), expected.len() as u64, UtcNanos(len), prev, event);
                nodes.push(leaf_hash(&entry.encode()));
                expected.push(entry);
            }
            log.append(UtcNanos(len), &events).unwrap();
            if sign {
                heads.push(log.checkpoint().unwrap().clone());
            }
            if reopen {
                drop(log);
                log = open(folder.path()).unwrap();
            }
            prop_assert_eq!(Hash(log.root()), tlog_tiles::tree_hash(nodes.size(), &nodes).unwrap());
        }
        let reader = LogReader::open(folder.path(), &origin()).unwrap();
        prop_assert_eq!(reader.entries().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), expected.clone());
        let trust = crate::Trust::new([(origin().to_string(), hex::encode(log.verifying_key().fingerprint()))]).unwrap();
        let head = reader.sign_head(&key()).unwrap();
        for (entry, seq) in expected.iter().zip(0..) {
            let text = reader.prove(seq, &head, log.verifying_key()).unwrap().to_text();
            let (proven, under) = crate::InclusionProof::parse(&text).unwrap().verify(&trust).unwrap();
            prop_assert_eq!((&proven, &under), (entry, &head));
        }
        prop_assert!(reader.prove(head.size(), &head, log.verifying_key()).is_err());
        for old in heads.iter().filter(|old| old.size() > 0) {
            let proof = reader.prove_consistency(old.size(), &head).unwrap();
            prop_assert!(proof.holds(old, &head));
            let mut hashes = proof.hashes();
            if let Some(hash) = hashes.first_mut() {
                hash[0] ^= 1;
                prop_assert!(!crate::ConsistencyProof::from_hashes(&hashes).holds(old, &head));
            }
        }
    }
}
