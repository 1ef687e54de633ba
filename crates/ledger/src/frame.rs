//! The log file: a header, then groups of frames, one group per append.
//!
//! ```text
//! file  = magic "QURRLOG\0" | version u16 | origin u16+n | group*
//! group = magic "QGRP" | first seq u64 | frames u32 | bytes u32 | frame*
//! frame = length u32 | first 4 bytes of the leaf hash | envelope
//! ```
//!
//! The next group is written only after the last one is durable. So a group that does not hold is a torn tail
//! if no group follows it, and damage if one does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use types::codec::{CodecError, Reader, Writer};
use types::id::SiteId;

use crate::envelope::leaf_hash;
use crate::tree::Hash;
use crate::{Entry, Error, Origin};

/// An entry as it stands in a log or an export.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    pub(crate) envelope: Vec<u8>,
    pub(crate) leaf: Hash,
}

/// What must hold from entry to entry.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    site: SiteId,
    next: u64,
    prev: [u8; 32],
}

impl Chain {
    pub(crate) fn new(site: &SiteId) -> Self {
        Self { site: site.clone(), next: 0, prev: [0; 32] }
    }

    /// Number of the entry that must come next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// What the next entry names as its predecessor.
    pub(crate) fn prev(&self) -> [u8; 32] {
        self.prev
    }

    /// Takes the next entry after checking its leaf, place, site and predecessor.
    pub(crate) fn take(&mut self, check: [u8; 4], envelope: &[u8]) -> Result<Stored, &'static str> {
        let stored = stand_alone(&self.site, check, envelope)?;
        if stored.entry.seq != self.next {
            return Err("it has another entry's number");
        }
        if stored.entry.prev != self.prev {
            return Err("it does not follow the entry before it");
        }
        self.advance(stored.leaf);
        Ok(stored)
    }

    /// Steps over an entry that we made ourselves.
    pub(crate) fn advance(&mut self, leaf: Hash) {
        self.next += 1;
        self.prev = leaf.0;
    }
}

fn stand_alone(site: &SiteId, check: [u8; 4], envelope: &[u8]) -> Result<Stored, &'static str> {
    let leaf = leaf_hash(envelope);
    if leaf.0.first_chunk() != Some(&check) {
        return Err("its leaf hash differs");
    }
    let entry = Entry::decode(envelope).map_err(|error| error.reason())?;
    if entry.site != *site {
        return Err("it is of another site");
    }
    Ok(Stored { entry, envelope: envelope.to_vec(), leaf })
}

pub(crate) fn file_header(origin: &Origin) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(FILE_MAGIC).u16(FILE_VERSION).bytes16(origin.as_str().as_bytes());
    w.finish()
}

pub(crate) fn put_frame(w: &mut Writer, envelope: &[u8], leaf: Hash) {
    let check = leaf.0.first_chunk::<4>().expect("a hash has more than four bytes");
    w.count(envelope.len()).put(check).put(envelope);
}

/// A group around frames made by [`put_frame`].
pub(crate) fn group(first_seq: u64, count: usize, frames: &[u8]) -> Vec<u8> {
    assert!(0 < count && count <= GROUP_ENTRIES_MAX && frames.len() <= GROUP_BYTES_MAX, "a group within its limits");
    let mut w = Writer::new();
    w.put(GROUP_MAGIC).u64(first_seq).count(count).count(frames.len()).put(frames);
    w.finish()
}

struct GroupHeader {
    first_seq: u64,
    count: usize,
    len: usize,
}

impl GroupHeader {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.take("magic", GROUP_MAGIC.len())? != GROUP_MAGIC {
            return Err(CodecError::Value { field: "magic" });
        }
        let first_seq = r.u64("first seq")?;
        let count = r.count("frames", GROUP_ENTRIES_MAX)?;
        let len = r.count("bytes", GROUP_BYTES_MAX)?;
        if count == 0 {
            return Err(CodecError::Value { field: "frames" });
        }
        Ok(Self { first_seq, count, len })
    }
}

/// The frames of a group, each checked by `check`.
fn frames(
    body: &[u8],
    count: usize,
    mut check: impl FnMut([u8; 4], &[u8]) -> Result<Stored, &'static str>,
) -> Result<VecDeque<Stored>, &'static str> {
    let mut r = Reader::new(body);
    let mut entries = VecDeque::new();
    for _ in 0..count {
        let cut = |_| "a frame is cut short or too long";
        let len = r.count("length", Entry::ENVELOPE_MAX).map_err(cut)?;
        let leaf_check = r.array("check").map_err(cut)?;
        entries.push_back(check(leaf_check, r.take("envelope", len).map_err(cut)?)?);
    }
    r.end().map_err(|_| "bytes stand after the last frame of a group")?;
    Ok(entries)
}

/// Reads a log file entry by entry up to the length that it had at the start.
#[derive(Debug)]
pub(crate) struct Scan {
    reader: BufReader<File>,
    path: PathBuf,
    chain: Chain,
    len: u64,
    offset: u64,
    queue: VecDeque<Stored>,
    is_over: bool,
}

impl Scan {
    /// Starts after the header. A file that is cut within its header has no entries.
    pub(crate) fn new(file: File, path: &Path, origin: &Origin) -> Result<Self, Error> {
        let len = file.metadata().map_err(Error::io("inspect", path))?.len();
        let expected = file_header(origin);
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let mut header = vec![0; expected.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        reader.rewind().and_then(|()| reader.read_exact(&mut header)).map_err(Error::io("read", path))?;
        if !expected.starts_with(&header) {
            let reason = "the file is no log of this origin and version";
            return Err(Error::Corrupt { path: path.into(), offset: 0, entry: 0, reason });
        }
        let is_over = header.len() < expected.len();
        let (path, chain) = (path.to_path_buf(), Chain::new(origin.site()));
        let offset = if is_over { 0 } else { expected.len() as u64 };
        Ok(Self { reader, path, chain, len, offset, queue: VecDeque::new(), is_over })
    }

    /// After the last entry: where the last whole group ends, and how many bytes follow it.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.offset, self.len - self.offset)
    }

    /// Makes durable what was read.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.reader.get_ref().sync_data().map_err(Error::io("sync", &self.path))
    }

    /// What a further entry has to continue.
    pub(crate) fn into_chain(self) -> Chain {
        self.chain
    }

    fn next_group(&mut self) -> Result<(), Error> {
        if self.offset == self.len {
            self.is_over = true;
            return Ok(());
        }
        match self.read_group()? {
            Ok((chain, group_len)) => {
                self.chain = chain;
                self.offset += group_len;
                Ok(())
            }
            Err(reason) => {
                self.check_tail(reason)?;
                self.is_over = true;
                Ok(())
            }
        }
    }

    /// The group at `offset`, queued; or why it does not hold.
    fn read_group(&mut self) -> Result<Result<(Chain, u64), &'static str>, Error> {
        let left = self.len - self.offset;
        let mut header = [0; GROUP_HEADER_LEN];
        if left < header.len() as u64 {
            return Ok(Err("a group is cut short"));
        }
        self.reader.read_exact(&mut header).map_err(Error::io("read", &self.path))?;
        let Ok(header) = GroupHeader::decode(&header) else { return Ok(Err("a group's header is malformed")) };
        if header.first_seq != self.chain.next {
            return Ok(Err("a group begins at another entry"));
        }
        if header.len as u64 > left - GROUP_HEADER_LEN as u64 {
            return Ok(Err("a group is cut short"));
        }
        let mut body = vec![0; header.len];
        self.reader.read_exact(&mut body).map_err(Error::io("read", &self.path))?;
        let mut chain = self.chain.clone();
        Ok(frames(&body, header.count, |check, envelope| chain.take(check, envelope)).map(|entries| {
            self.queue = entries;
            (chain, (GROUP_HEADER_LEN + header.len) as u64)
        }))
    }

    /// What does not hold must be a torn tail: no longer than one group, and no whole group in it.
    fn check_tail(&mut self, reason: &'static str) -> Result<(), Error> {
        let corrupt =
            || Error::Corrupt { path: self.path.clone(), offset: self.offset, entry: self.chain.next, reason };
        let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
        if left > GROUP_HEADER_LEN + GROUP_BYTES_MAX {
            return Err(corrupt());
        }
        let mut tail = vec![0; left];
        self.reader
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| self.reader.read_exact(&mut tail))
            .map_err(Error::io("read", &self.path))?;
        if holds_later_group(&tail, self.chain.next, &self.chain.site) { Err(corrupt()) } else { Ok(()) }
    }
}

impl Iterator for Scan {
    type Item = Result<Stored, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.queue.is_empty() && !self.is_over {
            if let Err(error) = self.next_group() {
                self.is_over = true;
                return Some(Err(error));
            }
        }
        self.queue.pop_front().map(Ok)
    }
}

/// Whether a whole group of entries after `seq` stands anywhere in `tail`.
pub(crate) fn holds_later_group(tail: &[u8], seq: u64, site: &SiteId) -> bool {
    let begins = |at: &usize| tail.get(*at..).is_some_and(|rest| rest.starts_with(GROUP_MAGIC));
    (1..tail.len()).filter(begins).any(|at| {
        let Some((header, rest)) = tail.get(at..).and_then(|rest| rest.split_at_checked(GROUP_HEADER_LEN)) else {
            return false;
        };
        let Ok(header) = GroupHeader::decode(header) else { return false };
        let Some(body) = rest.get(..header.len) else { return false };
        let mut expected = header.first_seq;
        header.first_seq > seq
            && frames(body, header.count, |check, envelope| {
                let stored = stand_alone(site, check, envelope)?;
                let is_next = stored.entry.seq == expected;
                expected = expected.wrapping_add(1);
                if is_next { Ok(stored) } else { Err("out of order") }
            })
            .is_ok()
    })
}

const FILE_MAGIC: &[u8] = b"QURRLOG\0";
const FILE_VERSION: u16 = 1;
const GROUP_MAGIC: &[u8] = b"QGRP";
pub(crate) const GROUP_HEADER_LEN: usize = 20;
/// Most entries of one group.
pub(crate) const GROUP_ENTRIES_MAX: usize = 4096;
/// Most bytes of frames in one group.
pub(crate) const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
