//! How a batch of end-to-end keys came to its two sites: over which ways, and when it was made.
//!
//! The time is that of the shell's wall clock at the KME's start plus the monotonic time since, so that an age is
//! known across restarts; while the process runs no step of the clock changes it.

use std::sync::Arc;
use std::time::Duration;

use types::codec::{CodecError, Reader, Writer};
use types::id::SiteId;
use types::units::UtcNanos;

use crate::api::KeyOrigin;
use crate::config::{PATH_MAX, WAYS_MAX};
use crate::record;

/// How a batch, or what was cut from several, came.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The ways that carried it, owner first. Empty if a program stored it that did not note them.
    pub(crate) paths: Vec<Vec<SiteId>>,
    /// From how many node-disjoint ways the weakest part is combined, that is, is the sum of a share over each.
    pub(crate) combined: u8,
    /// When the oldest part was made.
    pub(crate) made: UtcNanos,
}

impl Origin {
    /// Of a batch whose keys are the sum of a share over each of the ways.
    pub(crate) fn new(paths: Vec<Vec<SiteId>>, made: UtcNanos) -> Self {
        assert!(paths.len() <= WAYS_MAX && paths.iter().all(|path| path.len() <= PATH_MAX), "ways are bounded");
        let apart = |at: usize| {
            let ours = inner(&paths[at]);
            !paths[..at].iter().any(|other| inner(other).iter().any(|site| ours.contains(site)))
        };
        let combined = if (0..paths.len()).all(apart) { count(paths.len()) } else { 1 };
        Self { paths, combined, made }
    }

    /// Of a key that is cut from several batches.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Arc<Self>>) -> Arc<Self> {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Arc::default() };
        let mut whole = Arc::clone(first);
        for part in parts.filter(|part| !Arc::ptr_eq(part, first)) {
            let whole = Arc::make_mut(&mut whole);
            let new = part.paths.iter().filter(|path| !whole.paths.contains(path)).cloned();
            let new: Vec<Vec<SiteId>> = new.take(WAYS_MAX - whole.paths.len()).collect();
            whole.paths.extend(new);
            whole.combined = whole.combined.min(part.combined);
            whole.made = whole.made.min(part.made);
        }
        whole
    }

    /// Time since it was made; 0 if the clock went back.
    pub(crate) fn age(&self, now: UtcNanos) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.made.0))
    }

    /// As an SAE is told it.
    pub(crate) fn told(&self, source: &SiteId, target: &SiteId, now: UtcNanos) -> KeyOrigin {
        let (source, target, paths) = (source.clone(), target.clone(), self.paths.clone());
        KeyOrigin { source, target, paths, combined: self.combined, age: self.age(now) }
    }

    /// Writes it: made, combined, number of ways, of each the number of sites and the sites.
    pub(crate) fn put(&self, w: &mut Writer) {
        w.u64(self.made.0).u8(self.combined).u8(count(self.paths.len()));
        for path in &self.paths {
            w.u8(count(path.len()));
            path.iter().for_each(|site| _ = w.bytes16(site.as_str().as_bytes()));
        }
    }

    /// Reads what [`Self::put`] wrote.
    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (made, combined) = (UtcNanos(r.u64("made")?), r.u8("combined")?);
        let ways = bounded(r, "ways", 0, WAYS_MAX)?;
        let way = |r: &mut Reader<'_>| {
            let sites = bounded(r, "sites", 2, PATH_MAX)?;
            (0..sites).map(|_| record::site(r, "path")).collect()
        };
        let paths = (0..ways).map(|_| way(r)).collect::<Result<_, CodecError>>()?;
        if usize::from(combined) > ways || (combined == 0) != (ways == 0) {
            return Err(CodecError::Value { field: "combined" });
        }
        Ok(Self { paths, combined, made })
    }
}

/// The trusted nodes of a way.
fn inner(path: &[SiteId]) -> &[SiteId] {
    path.get(1..path.len().saturating_sub(1)).unwrap_or_default()
}

fn count(len: usize) -> u8 {
    u8::try_from(len).expect("ways and their sites are bounded far below 256")
}

fn bounded(r: &mut Reader<'_>, field: &'static str, min: usize, max: usize) -> Result<usize, CodecError> {
    let count = usize::from(r.u8(field)?);
    if (min..=max).contains(&count) { Ok(count) } else { Err(CodecError::Value { field }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(sites: &[&str]) -> Vec<SiteId> {
        sites.iter().map(|site| SiteId::new(site).unwrap()).collect()
    }

    #[test]
    fn ways_that_share_a_node_count_as_one() {
        let of = |paths: &[&[&str]]| Origin::new(paths.iter().map(|p| path(p)).collect(), UtcNanos(5));
        assert_eq!(of(&[]).combined, 0);
        assert_eq!(of(&[&["a", "b"]]).combined, 1);
        let apart = of(&[&["a", "b", "z"], &["a", "c", "d", "z"], &["a", "z"]]);
        let told = apart.told(&apart.paths[0][0], &apart.paths[0][2], UtcNanos(8));
        assert_eq!((told.combined, told.hops(), told.age), (3, 2, Duration::from_nanos(3)));
        assert_eq!(of(&[&["a", "b", "z"], &["a", "c", "b", "z"]]).combined, 1);
        assert_eq!(apart.age(UtcNanos(4)), Duration::ZERO);
    }

    #[test]
    fn a_key_of_several_parts_is_as_weak_and_as_old_as_its_worst() {
        let both = Arc::new(Origin::new(vec![path(&["a", "b", "z"]), path(&["a", "c", "z"])], UtcNanos(7)));
        let one = Arc::new(Origin::new(vec![path(&["a", "c", "z"])], UtcNanos(9)));
        let whole = Origin::of_parts([&both, &one, &both]);
        assert_eq!((whole.paths.len(), whole.combined, whole.made), (2, 1, UtcNanos(7)));
        assert!(Arc::ptr_eq(&Origin::of_parts([&one, &one]), &one));
    }

    #[test]
    fn the_encoding_is_pinned_and_bounded() {
        let origin = Origin::new(vec![path(&["a", "b"])], UtcNanos(258));
        let mut w = Writer::new();
        origin.put(&mut w);
        let wire = w.finish();
        assert_eq!(wire, b"\0\0\0\0\0\0\x01\x02\x01\x01\x02\0\x01a\0\x01b");
        let read = |wire: &[u8]| Origin::read(&mut Reader::new(wire));
        assert_eq!(read(&wire), Ok(origin));
        let many = [&[0; 8][..], &[1, 33]].concat();
        assert_eq!(read(&many), Err(CodecError::Value { field: "ways" }));
        let short = [&[0; 8][..], &[1, 1, 1, 0, 1, b'a']].concat();
        assert_eq!(read(&short), Err(CodecError::Value { field: "sites" }));
        let more = [&[0; 8][..], &[2, 1], &wire[10..]].concat();
        assert_eq!(read(&more), Err(CodecError::Value { field: "combined" }));
        assert!((0..wire.len()).all(|end| read(&wire[..end]).is_err()));
    }
}
