//! The offline verifier: an export and a list of key fingerprints in, the truth out.
//!
//! Checked per site: the key against its fingerprint, both signatures of the checkpoint, the number of entries,
//! and for each entry its frame, leaf hash, encoding, site, number and predecessor; then the tree's root against
//! the checkpoint. Every trusted site must be there, and nothing may follow. So no byte can change unnoticed.
//!
//! Not seen by it: entries after the checkpoint, and a whole older export that is passed off as the newest;
//! compare sizes and times with the last one, or have them anchored.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};

use crypto::sign::{VERIFYING_KEY_LEN, VerifyingKey};
use types::units::UtcNanos;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::export::{MAGIC, SITES_MAX, VERSION};
use crate::frame::Chain;
use crate::tree::Frontier;
use crate::{Entry, Origin};

#[cfg(test)]
mod tests;

/// Which key belongs to which log: the verifier's only trust input, delivered out of band.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(BTreeMap<Origin, [u8; 32]>);

/// Why a trust list is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trust entry {origin:?} = {fingerprint:?} is not a log's origin and the 64 hexadecimal digits of a SHA-256")]
pub struct TrustError {
    origin: String,
    fingerprint: String,
}

impl Trust {
    /// From pairs of origin and SHA-256 of the verifying key in hexadecimal.
    ///
    /// # Errors
    /// [`TrustError`] if one is malformed.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, TrustError> {
        let mut trust = BTreeMap::new();
        for (origin, fingerprint) in pairs {
            let bytes = <[u8; 32]>::try_from(hex::decode(&fingerprint).unwrap_or_default());
            match (origin.parse(), bytes) {
                (Ok(origin), Ok(bytes)) => trust.insert(origin, bytes),
                _ => return Err(TrustError { origin, fingerprint }),
            };
        }
        Ok(Self(trust))
    }

    /// The key, if it is the one trusted for this log.
    pub(crate) fn key(&self, origin: &Origin, key: &[u8]) -> Result<VerifyingKey, Reason> {
        let fingerprint = self.0.get(origin).ok_or(Reason::UntrustedSite)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| Reason::Malformed("the key has the wrong length"))?;
        if key.fingerprint() == *fingerprint { Ok(key) } else { Err(Reason::OtherKey) }
    }
}

/// What a verified export holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each site, by origin.
    pub sites: Vec<SiteReport>,
}

/// One site of a verified export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteReport {
    /// Which log.
    pub origin: Origin,
    /// Entries.
    pub entries: u64,
    /// Root of their tree.
    pub root: [u8; 32],
    /// Time of the first entry, by the site's clock.
    pub first: Option<UtcNanos>,
    /// Time of the last entry.
    pub last: Option<UtcNanos>,
}

/// What does not hold, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}{} does not verify", entry.map(|entry| format!(", entry {entry}")).unwrap_or_default())]
pub struct VerifyError {
    /// The origin of the log, or which part of the file.
    pub place: String,
    /// The entry, if it is one entry's fault.
    pub entry: Option<u64>,
    /// What is wrong.
    #[source]
    pub reason: Reason,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The file could not be read.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// The file ends too early.
    #[error("the file is cut short")]
    CutShort,
    /// Bytes follow the last entry.
    #[error("bytes follow the last entry")]
    Trailing,
    /// Bytes that cannot stand there.
    #[error("{0}")]
    Malformed(&'static str),
    /// No key is trusted for this log.
    #[error("the trust file has no key for it")]
    UntrustedSite,
    /// A trusted log is not in the export.
    #[error("it is in the trust file but not in the export")]
    SiteMissing,
    /// The key is not the trusted one.
    #[error("its key is not the one in the trust file")]
    OtherKey,
    /// The checkpoint does not hold.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The number of entries is not what was signed.
    #[error("{signed} entries were signed, {found} are said to be here")]
    SizeDiffers {
        /// In the checkpoint.
        signed: u64,
        /// In the export.
        found: u64,
    },
    /// An entry does not hold.
    #[error("{0}")]
    Entry(&'static str),
    /// The entries do not give the signed root.
    #[error("the entries do not give the signed root")]
    RootDiffers,
}

impl VerifyError {
    pub(crate) fn of_file(reason: Reason) -> Self {
        Self { place: "the file".into(), entry: None, reason }
    }

    pub(crate) fn of_entry(origin: &Origin, entry: u64, reason: Reason) -> Self {
        Self { place: origin.to_string(), entry: Some(entry), reason }
    }
}

/// Checks an export, entry by entry, in memory that does not grow with it.
///
/// # Errors
/// [`VerifyError`] at the first byte that does not hold.
pub fn verify(export: impl Read, trust: &Trust) -> Result<Report, VerifyError> {
    verify_each(export, trust, |_, _| ())
}

/// [`verify`], and shows each entry once it was checked. What is shown before an error is not verified: the root
/// is checked after a log's last entry.
///
/// # Errors
/// [`VerifyError`] at the first byte that does not hold.
pub fn verify_each(
    export: impl Read,
    trust: &Trust,
    mut visit: impl FnMut(&Origin, &Entry),
) -> Result<Report, VerifyError> {
    let mut input = Input(BufReader::with_capacity(256 * 1024, export));
    let sites = header(&mut input).map_err(VerifyError::of_file)?;
    let mut report = Report { sites: Vec::new() };
    for number in 1..=sites {
        let in_site = |reason| VerifyError { place: format!("log {number} of the export"), entry: None, reason };
        let origin = input.text(Origin::LEN_MAX).map_err(in_site)?;
        let origin: Origin = origin.parse().map_err(|_| in_site(Reason::Malformed("its origin is not valid")))?;
        if report.sites.last().is_some_and(|last| last.origin >= origin) {
            return Err(in_site(Reason::Malformed("its origin is not after the one before")));
        }
        report.sites.push(site(&mut input, origin, trust, &mut visit)?);
    }
    input.end().map_err(VerifyError::of_file)?;
    let found: BTreeSet<&Origin> = report.sites.iter().map(|site| &site.origin).collect();
    match trust.0.keys().find(|origin| !found.contains(origin)) {
        Some(missing) => Err(VerifyError { place: missing.to_string(), entry: None, reason: Reason::SiteMissing }),
        None => Ok(report),
    }
}

fn header(input: &mut Input<impl Read>) -> Result<u16, Reason> {
    if input.array()? != *MAGIC {
        return Err(Reason::Malformed("it is no audit export"));
    }
    if u16::from_be_bytes(input.array()?) != VERSION {
        return Err(Reason::Malformed("it is of another version of this program"));
    }
    let sites = u16::from_be_bytes(input.array()?);
    if sites == 0 || usize::from(sites) > SITES_MAX {
        return Err(Reason::Malformed("its number of logs cannot be"));
    }
    Ok(sites)
}

fn site(
    input: &mut Input<impl Read>,
    origin: Origin,
    trust: &Trust,
    visit: &mut impl FnMut(&Origin, &Entry),
) -> Result<SiteReport, VerifyError> {
    let of_site = |reason| VerifyError { place: origin.to_string(), entry: None, reason };
    let key = input.bytes16(VERIFYING_KEY_LEN).map_err(of_site)?;
    let key = trust.key(&origin, &key).map_err(of_site)?;
    let note = input.bytes32(SignedCheckpoint::NOTE_MAX).map_err(of_site)?;
    let head = SignedCheckpoint::open(&note, &origin, &key).map_err(|error| of_site(Reason::Checkpoint(error)))?;
    let found = u64::from_be_bytes(input.array().map_err(of_site)?);
    if found != head.size() {
        return Err(of_site(Reason::SizeDiffers { signed: head.size(), found }));
    }

    let mut report = SiteReport { origin: origin.clone(), entries: found, root: head.root(), first: None, last: None };
    let (mut chain, mut tree) = (Chain::new(origin.site()), Frontier::default());
    for seq in 0..found {
        let of_entry = |reason| VerifyError::of_entry(&origin, seq, reason);
        let (check, envelope) = input.frame().map_err(of_entry)?;
        let stored = chain.take(check, &envelope).map_err(|reason| of_entry(Reason::Entry(reason)))?;
        tree.push(stored.leaf);
        report.first.get_or_insert(stored.entry.time);
        report.last = Some(stored.entry.time);
        visit(&origin, &stored.entry);
    }
    if tree.root().0 == head.root() { Ok(report) } else { Err(of_site(Reason::RootDiffers)) }
}

/// Reads fields with bounds.
struct Input<R>(BufReader<R>);

impl<R: Read> Input<R> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Reason> {
        self.0.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Reason::CutShort,
            _ => Reason::Io(error),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn bytes(&mut self, len: usize, max: usize) -> Result<Vec<u8>, Reason> {
        if len > max {
            return Err(Reason::Malformed("a length is above its maximum"));
        }
        let mut out = vec![0; len];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn bytes16(&mut self, max: usize) -> Result<Vec<u8>, Reason> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        self.bytes(len, max)
    }

    fn bytes32(&mut self, max: usize) -> Result<Vec<u8>, Reason> {
        let len = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        self.bytes(len, max)
    }

    fn text(&mut self, max: usize) -> Result<String, Reason> {
        String::from_utf8(self.bytes16(max)?).map_err(|_| Reason::Malformed("a text is not UTF-8"))
    }

    fn frame(&mut self) -> Result<([u8; 4], Vec<u8>), Reason> {
        let len = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        let check = self.array()?;
        Ok((check, self.bytes(len, Entry::ENVELOPE_MAX)?))
    }

    fn end(&mut self) -> Result<(), Reason> {
        match self.fill(&mut [0]) {
            Err(Reason::CutShort) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(Reason::Trailing),
        }
    }
}
