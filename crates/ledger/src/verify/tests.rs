//! The tamper matrix: whatever is changed, removed, repeated, moved, cut or added, the verifier says where.

use crypto::secret::Key256;
use crypto::sign::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use types::codec::Writer;
use types::event::Event;
use types::id::LinkId;

use super::*;
use crate::envelope::leaf_hash;
use crate::frame::put_frame;
use crate::tree::Hash;
use crate::{Error, InclusionProof, LogReader, SiteLog, Source, export};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Key256::copy_of(&[seed; 32]))
}

fn origin(n: u8) -> Origin {
    format!("net/site-{n}/audit").parse().unwrap()
}

fn trust(sites: impl IntoIterator<Item = u8>) -> Trust {
    Trust::new(sites.into_iter().map(|n| (origin(n).to_string(), hex::encode(key(n).verifying_key().fingerprint()))))
        .unwrap()
}

fn event(n: u64) -> Event {
    Event::LinkDown { link: LinkId::new("l").unwrap(), reason: format!("{n}") }
}

/// The folders of sites 1, 2, … with as many entries as given.
fn logs(entries: &[u64]) -> Vec<tempfile::TempDir> {
    let log = |(count, n): (&u64, u8)| {
        let folder = tempfile::tempdir().unwrap();
        let mut log = SiteLog::open(folder.path(), origin(n), key(n), UtcNanos(0)).unwrap();
        for seq in 0..*count {
            log.append(UtcNanos(100 + seq), &[event(seq)]).unwrap();
        }
        log.checkpoint().unwrap();
        folder
    };
    entries.iter().zip(1..).map(log).collect()
}

fn exported(folders: &[tempfile::TempDir]) -> Vec<u8> {
    let origins: Vec<Origin> = (1..).take(folders.len()).map(origin).collect();
    let keys: Vec<SigningKey> = (1..).take(folders.len()).map(key).collect();
    let source = |((folder, origin), key): ((&'_ tempfile::TempDir, _), &SigningKey)| {
        (folder.path().to_path_buf(), origin, key.verifying_key().clone())
    };
    let parts: Vec<_> = folders.iter().zip(&origins).zip(&keys).map(source).collect();
    let sources: Vec<Source<'_>> =
        parts.iter().map(|(folder, origin, key)| Source { folder, origin, key, signing_key: None }).collect();
    let mut out = Vec::new();
    export(&mut out, &sources).unwrap();
    out
}

/// An export taken apart, so that it can be put together wrongly.
#[derive(Clone)]
struct Parts {
    head: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

/// Of an export with one site.
fn take_apart(export: &[u8]) -> Parts {
    let be = |at: usize, len: usize| export[at..at + len].iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    let mut at = 12;
    at += 2 + be(at, 2);
    at += 2 + be(at, 2);
    at += 4 + be(at, 4);
    at += 8;
    let head = export[..at].to_vec();
    let mut frames = Vec::new();
    while at < export.len() {
        let len = 8 + be(at, 4);
        frames.push(export[at..at + len].to_vec());
        at += len;
    }
    Parts { head, frames }
}

impl Parts {
    fn join(&self) -> Vec<u8> {
        [self.head.clone(), self.frames.concat()].concat()
    }
}

fn refused(export: &[u8], trust: &Trust, what: &str) -> VerifyError {
    match verify(export, trust) {
        Ok(_) => panic!("{what}: it verified"),
        Err(error) => error,
    }
}

#[test]
fn an_export_verifies_and_reports() {
    let bytes = exported(&logs(&[5, 0, 3]));
    let report = verify(&bytes[..], &trust(1..=3)).unwrap();
    let figures: Vec<_> = report.sites.iter().map(|site| (site.entries, site.first, site.last)).collect();
    let times = |first, last| (Some(UtcNanos(first)), Some(UtcNanos(last)));
    assert_eq!(
        figures,
        [(5, times(100, 104).0, times(100, 104).1), (0, None, None), (3, times(100, 102).0, times(100, 102).1)]
    );
    let mut seen = 0;
    verify_each(&bytes[..], &trust(1..=3), |_, _| seen += 1).unwrap();
    assert_eq!(seen, 8);

    let error = refused(&bytes, &trust(1..=2), "a site without trust");
    assert!(matches!(error.reason, Reason::UntrustedSite) && error.place == "net/site-3/audit");
    let error = refused(&bytes, &trust(1..=4), "a site that was left out");
    assert!(matches!(error.reason, Reason::SiteMissing) && error.place == "net/site-4/audit");
    let swapped = Trust::new([(origin(1).to_string(), hex::encode(key(2).verifying_key().fingerprint()))]).unwrap();
    assert!(matches!(refused(&bytes, &swapped, "another key").reason, Reason::OtherKey));
    for (origin, fingerprint) in
        [("net/site/audit", "00"), ("net/site", &*"00".repeat(32)), ("net/site/audit", &"0g".repeat(32))]
    {
        assert!(Trust::new([(origin.to_owned(), fingerprint.to_owned())]).is_err());
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let whole = exported(&logs(&[4]));
    let (trust, parts) = (trust([1]), take_apart(&whole));
    assert_eq!(parts.join(), whole);
    let mut random = ChaCha20Rng::seed_from_u64(3);
    let mut bytes = whole.clone();
    for at in 0..bytes.len() {
        let by = u8::try_from(1 + random.next_u32() % 255).unwrap();
        bytes[at] ^= by;
        let error = refused(&bytes, &trust, &format!("byte {at}"));
        bytes[at] ^= by;
        // Entries are named: a byte of an entry's frame is that entry's fault.
        if let Some(mut into) = at.checked_sub(parts.head.len()) {
            let entry = parts.frames.iter().position(|frame| {
                let is_here = into < frame.len();
                into = into.wrapping_sub(if is_here { 0 } else { frame.len() });
                is_here
            });
            assert_eq!((error.place.as_str(), error.entry), ("net/site-1/audit", entry.map(|n| n as u64)), "byte {at}");
        } else {
            assert!(!error.place.is_empty());
        }
    }
    assert!(verify(&bytes[..], &trust).is_ok());
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let (whole, trust) = (exported(&logs(&[3, 2])), trust(1..=2));
    let samples = (0..whole.len()).filter(|at| at % 17 == 0 || *at > whole.len() - 300 || *at < 100);
    for len in samples {
        refused(&whole[..len], &trust, &format!("cut to {len}"));
        let mut bytes = whole.clone();
        bytes.remove(len);
        refused(&bytes, &trust, &format!("byte {len} removed"));
        bytes = whole.clone();
        bytes.insert(len, whole[len] ^ 0x55);
        refused(&bytes, &trust, &format!("byte inserted at {len}"));
    }
    for more in [&b"\0"[..], b"\n", &whole] {
        let error = refused(&[&whole[..], more].concat(), &trust, "bytes appended");
        assert!(matches!(error.reason, Reason::Trailing));
    }
}

#[test]
fn entries_cannot_be_left_out_repeated_or_moved() {
    let whole = exported(&logs(&[7]));
    let (trust, parts) = (trust([1]), take_apart(&whole));
    let named = |parts: &Parts, what: String, entry: usize| {
        let error = refused(&parts.join(), &trust, &what);
        assert_eq!((error.place.as_str(), error.entry), ("net/site-1/audit", Some(entry as u64)), "{what}: {error}");
    };
    for at in 0..7 {
        let mut bent = parts.clone();
        bent.frames.remove(at);
        named(&bent, format!("entry {at} removed"), at);
        let mut bent = parts.clone();
        bent.frames.insert(at, parts.frames[at].clone());
        if at < 6 {
            named(&bent, format!("entry {at} repeated"), at + 1);
        } else {
            assert!(matches!(refused(&bent.join(), &trust, "last entry repeated").reason, Reason::Trailing));
        }
        for other in at + 1..7 {
            let mut bent = parts.clone();
            bent.frames.swap(at, other);
            named(&bent, format!("entries {at} and {other} swapped"), at);
        }
        // The number of entries is adjusted too: it is not what was signed.
        let mut bent = parts.clone();
        bent.frames.remove(at);
        *bent.head.last_mut().unwrap() -= 1;
        assert!(matches!(refused(&bent.join(), &trust, "removed, count adjusted").reason, Reason::SizeDiffers { .. }));
    }
}

#[test]
fn a_rewritten_history_needs_the_key() {
    let whole = exported(&logs(&[6]));
    let (trust, mut parts) = (trust([1]), take_apart(&whole));
    // A forger changes entry 2 and makes frames, numbers and chain right again.
    let mut prev = Hash([0; 32]);
    for (n, frame) in parts.frames.iter_mut().enumerate() {
        let mut entry = Entry::decode(&frame[8..]).unwrap();
        if n == 2 {
            entry.code = "NOTHING_TO_SEE".into();
        }
        entry.prev = prev.0;
        let envelope = entry.encode();
        prev = leaf_hash(&envelope);
        let mut w = Writer::new();
        put_frame(&mut w, &envelope, prev);
        *frame = w.finish();
    }
    let error = refused(&parts.join(), &trust, "rewritten");
    assert!(matches!(error.reason, Reason::RootDiffers) && error.place == "net/site-1/audit");

    // Another site's whole log in this one's place, signed by its own key.
    let folders = logs(&[6, 6]);
    let other = exported(&folders);
    assert!(matches!(refused(&other, &trust, "more sites than trusted").reason, Reason::UntrustedSite));
}

#[test]
fn every_changed_byte_of_a_proof_is_noticed() {
    let folders = logs(&[9]);
    let (origin, key, trust) = (origin(1), key(1), trust([1]));
    let reader = LogReader::open(folders[0].path(), &origin).unwrap();
    let head = reader.last_checkpoint(key.verifying_key()).unwrap().unwrap();
    let text = reader.prove(4, &head, key.verifying_key()).unwrap().to_text();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra ") && text.contains("\nindex 4\n"));
    assert_eq!(InclusionProof::parse(&text).unwrap().verify(&trust).unwrap().0.seq, 4);
    let verifies = |text: &str| InclusionProof::parse(text).is_ok_and(|proof| proof.verify(&trust).is_ok());
    let mut bytes = text.clone().into_bytes();
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        if let Ok(bent) = std::str::from_utf8(&bytes) {
            assert!(!verifies(bent), "byte {at}");
        }
        bytes[at] ^= 1;
        if let Ok(cut) = std::str::from_utf8(&bytes[..at]) {
            assert!(!verifies(cut), "cut to {at}");
        }
    }
    assert!(!verifies(&format!("{text}\n")) && !verifies(&text.replace('\n', "\r\n")));
}

#[test]
fn an_export_needs_a_signed_head_and_distinct_logs() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, key) = (origin(1), key(1));
    let mut log = SiteLog::open(folder.path(), origin.clone(), crate::verify::tests::key(1), UtcNanos(0)).unwrap();
    log.append(UtcNanos(1), &[event(0)]).unwrap();
    let source = Source { folder: folder.path(), origin: &origin, key: key.verifying_key(), signing_key: None };
    let refused = export(&mut Vec::new(), &[source]).unwrap_err();
    assert!(matches!(&refused, Error::ApiMisuse(text) if text.contains("no signed checkpoint")), "{refused}");
    assert!(matches!(export(&mut Vec::new(), &[]), Err(Error::ApiMisuse(_))));
    let signing = Source { signing_key: Some(&key), ..source };
    assert!(matches!(export(&mut Vec::new(), &[signing, signing]), Err(Error::ApiMisuse(_))));

    // The log is in use by `log`; with the key at hand the export reaches the last entry all the same.
    log.checkpoint().unwrap();
    log.append(UtcNanos(2), &[event(1)]).unwrap();
    for (source, entries) in [(source, 1), (signing, 2)] {
        let mut out = Vec::new();
        assert_eq!(export(&mut out, &[source]).unwrap()[0].entries, entries);
        assert_eq!(verify(&out[..], &trust([1])).unwrap().sites[0].entries, entries);
    }
}

#[test]
fn parsers_hold_against_any_bytes() {
    let mut random = ChaCha20Rng::seed_from_u64(9);
    let export = exported(&logs(&[2]));
    let parts = take_apart(&export);
    for len in 0..300_usize {
        let mut bytes = vec![0; len];
        random.fill_bytes(&mut bytes);
        crate::fuzzing::envelope(&bytes);
        crate::fuzzing::untrusted(&bytes);
        let mut bent = parts.frames[0][8..].to_vec();
        let at = len % bent.len();
        bent[at] = bytes.first().copied().unwrap_or(0);
        crate::fuzzing::envelope(&bent);
        let mut bent = export.clone();
        bent.truncate(len * 30);
        crate::fuzzing::untrusted(&bent);
        crate::fuzzing::untrusted(&[b"xQGRP", &bytes[..]].concat());
    }
}
