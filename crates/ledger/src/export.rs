//! One file with the logs of one or several sites, for an auditor who trusts none of them.

use std::io::Write;
use std::path::Path;

use crypto::sign::{SigningKey, VerifyingKey};
use types::codec::Writer;

use crate::checkpoint::SignedCheckpoint;
use crate::frame::put_frame;
use crate::reader::LogReader;
use crate::tree::Frontier;
use crate::{Error, Origin};

/// A log to export.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its folder; only read.
    pub folder: &'a Path,
    /// Its name.
    pub origin: &'a Origin,
    /// The site's key.
    pub key: &'a VerifyingKey,
    /// If it is at hand, the head is signed afresh (in memory) and the export reaches the last entry; otherwise
    /// it reaches to the head that the site signed last.
    pub signing_key: Option<&'a SigningKey>,
}

/// What went into an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Which log.
    pub origin: Origin,
    /// Entries exported.
    pub entries: u64,
    /// SHA-256 of the site's key, hexadecimal: what belongs into a trust file.
    pub fingerprint: String,
}

/// Writes an export; sites are ordered by origin. The logs may be in use.
///
/// # Errors
/// [`Error`]; what was written so far is then no export.
pub fn export(out: &mut impl Write, sources: &[Source<'_>]) -> Result<Vec<Exported>, Error> {
    let mut sources: Vec<&Source<'_>> = sources.iter().collect();
    sources.sort_by_key(|source| source.origin);
    if sources.is_empty() || sources.len() > SITES_MAX {
        return Err(Error::ApiMisuse(format!("an export holds 1 to {SITES_MAX} logs, not {}", sources.len())));
    }
    if let Some(twice) = sources.windows(2).find(|pair| pair.first().map(|s| s.origin) == pair.last().map(|s| s.origin))
        && let Some(source) = twice.first()
    {
        return Err(Error::ApiMisuse(format!("{} is given twice", source.origin)));
    }
    let mut w = Writer::new();
    w.put(MAGIC).u16(VERSION).u16(u16::try_from(sources.len()).expect("the number of sites was checked"));
    put(out, &w.finish())?;
    sources.into_iter().map(|source| export_site(out, source)).collect()
}

fn export_site(out: &mut impl Write, source: &Source<'_>) -> Result<Exported, Error> {
    let reader = LogReader::open(source.folder, source.origin)?;
    let head = match source.signing_key {
        Some(key) => reader.sign_head(key)?,
        None => reader.last_checkpoint(source.key)?.ok_or_else(|| {
            Error::ApiMisuse(format!("{} has no signed checkpoint yet and its key is not readable here", source.origin))
        })?,
    };
    let mut w = Writer::new();
    w.bytes16(source.origin.as_str().as_bytes()).bytes16(source.key.as_bytes()).bytes32(head.note()).u64(head.size());
    put(out, &w.finish())?;
    let mut tree = Frontier::default();
    for stored in reader.scan()? {
        if tree.size() == head.size() {
            break;
        }
        let stored = stored?;
        let mut frame = Writer::new();
        put_frame(&mut frame, &stored.envelope, stored.leaf);
        put(out, &frame.finish())?;
        tree.push(stored.leaf);
    }
    check_head(source, &tree, &head)?;
    let fingerprint = hex::encode(source.key.fingerprint());
    Ok(Exported { origin: source.origin.clone(), entries: tree.size(), fingerprint })
}

fn check_head(source: &Source<'_>, tree: &Frontier, head: &SignedCheckpoint) -> Result<(), Error> {
    if tree.size() == head.size() && tree.root().0 == head.root() {
        return Ok(());
    }
    let path = crate::reader::checkpoint_path(source.folder);
    Err(Error::BadCheckpoint { path, reason: "the log's entries are not those that it signed" })
}

fn put(out: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes).map_err(Error::io("write", Path::new("the export")))
}

pub(crate) const MAGIC: &[u8; 8] = b"QURAUDIT";
pub(crate) const VERSION: u16 = 1;
/// Most logs in one export.
pub(crate) const SITES_MAX: usize = 4096;
