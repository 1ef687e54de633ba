//! The key pool of one link: blocks split by direction, marks that only grow.
//!
//! ```text
//! block n:   [ half 0: the smaller site id sends ][ half 1: the larger site id sends ]
//! out half:  [ spent | lease | untouched ]    spent = next, lease end = durable mark
//! in half:   [ spent or hole | untouched ]    durable mark moves before a range is used
//! ```
//! The sender alone chooses ranges; the receiver takes none below its mark, so no bit is used twice even if the
//! sender came back from an old backup. What a crash leaves of a lease and what a lost message leaves as a hole is
//! burned. The two ends tell each other their marks: a sender whose records were set back moves ahead to what the
//! receiver has seen before it draws anything. Who gets key when it is scarce is decided by [`crate::queue`].

use std::collections::{BTreeMap, BTreeSet};

use crypto::record::Record;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{BlockSeq, LinkId, SiteId};
use types::units::{BitLen, ByteLen};

use crate::api::{LinkStock, LinkUse};
use crate::config::{BLOCKS_MAX, LEASE_BYTES, RANGES_MAX};
use crate::journal::Journal;
use crate::record::{self, Direction};

/// A range of one block's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PadRange {
    /// Which block.
    pub seq: BlockSeq,
    /// First byte within the half.
    pub offset: u32,
    /// How many bytes, at least 1.
    pub len: u32,
}

/// Who draws key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Relays that start here.
    Own,
    /// Relays that pass through.
    Transit,
}

/// Key drawn for one message.
#[derive(Debug)]
pub(crate) struct Pad {
    pub(crate) ranges: Vec<PadRange>,
    pub(crate) bytes: SecretBytes,
}

/// Why the receiving side does not take ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangesRefused;

/// Which blocks of a link were filed, so that none is filed twice: the highest number and the 64 up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FiledWindow {
    /// Highest filed number plus one; 0 if none.
    pub(crate) next: u64,
    /// Bit `i` says that `next - 1 - i` was filed.
    pub(crate) bits: u64,
}

impl FiledWindow {
    /// Whether the block was filed or is too old to be filed.
    pub(crate) fn has(self, seq: BlockSeq) -> bool {
        match self.next.checked_sub(seq.0.saturating_add(1)) {
            None => false,
            Some(age) => age >= 64 || self.bits >> age & 1 == 1,
        }
    }

    fn insert(&mut self, seq: BlockSeq) {
        let next = seq.0.checked_add(1).expect("links count their blocks from 0");
        if let Some(ahead) = next.checked_sub(self.next)
            && ahead > 0
        {
            self.bits = if ahead >= 64 { 0 } else { self.bits << ahead };
            self.bits |= 1;
            self.next = next;
        } else {
            self.bits |= 1 << (self.next - next);
        }
    }
}

#[derive(Debug)]
struct OutHalf {
    bytes: SecretBytes,
    next: usize,
    mark: usize,
    confirmed: bool,
}

#[derive(Debug)]
struct InHalf {
    bytes: SecretBytes,
    mark: usize,
}

/// What one end of a link tells the other about its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Which link.
    pub link: LinkId,
    /// Highest filed block plus one.
    pub next: u64,
    /// Which of the 64 blocks below `next` were filed; bit 0 is the highest.
    pub bits: u64,
    /// Blocks of which the teller still takes ranges, and from where on.
    pub receive: Vec<(BlockSeq, u32)>,
    /// Blocks of which the teller still sends ranges, and from where on.
    pub send: Vec<(BlockSeq, u32)>,
}

/// The pool of one link at one end.
#[derive(Debug)]
pub(crate) struct LinkPool {
    link: LinkId,
    pub(crate) peer: SiteId,
    pub(crate) up: bool,
    filed: FiledWindow,
    out: BTreeMap<BlockSeq, OutHalf>,
    inward: BTreeMap<BlockSeq, InHalf>,
    /// Blocks of which the peer said that it takes ranges, and from where on.
    heard: BTreeMap<BlockSeq, u32>,
    /// Bytes of confirmed halves that were not drawn.
    usable: usize,
    used: LinkUse,
    /// This site's records were set back: nothing is drawn, and no block is filed up to the highest that the other end
    /// knows.
    set_back: bool,
}

impl LinkPool {
    /// An empty pool.
    pub(crate) fn new(link: LinkId, peer: SiteId) -> Self {
        let (out, inward) = (BTreeMap::new(), BTreeMap::new());
        let (filed, used) = (FiledWindow::default(), LinkUse::default());
        let heard = BTreeMap::new();
        Self { link, peer, up: false, filed, out, inward, heard, usable: 0, used, set_back: false }
    }

    /// Files a block. Says how many bytes were burned because the pool is full, or that the block was known.
    pub(crate) fn file(
        &mut self,
        site: &SiteId,
        seq: BlockSeq,
        key: &SecretBytes,
        bytes_max: usize,
        journal: &mut Journal,
    ) -> ByteLen {
        if self.filed.has(seq) {
            return ByteLen(0);
        }
        self.filed.insert(seq);
        journal.change(record::put_window(&self.link, &self.peer, self.filed.next, self.filed.bits));
        let half = key.len() / 2;
        let held: usize = self.inward.values().map(|half| half.bytes.len()).sum();
        let full = held + half > bytes_max || self.inward.len().max(self.out.len()) >= BLOCKS_MAX;
        if full || self.set_back || half == 0 || half > Record::SECRET_MAX {
            let burned = ByteLen(key.len() as u64);
            let reason = match (self.set_back, full) {
                (true, _) => "filed before the other end said what it knows",
                (_, true) => "link pool full",
                _ => "block too small or too large",
            };
            journal.event(Event::KeyBurned { reason: reason.to_owned(), bits: burned.into() });
            return burned;
        }
        let (ours, theirs) = if *site < self.peer { (0, half) } else { (half, 0) };
        let cut = |start| key.part(start, half).expect("both halves lie inside the block");
        journal.change(record::put_half(&self.link, &self.peer, seq, Direction::Out, cut(ours)));
        journal.change(record::put_half(&self.link, &self.peer, seq, Direction::In, cut(theirs)));
        let confirmed = self.heard.contains_key(&seq);
        self.out.insert(seq, OutHalf { bytes: cut(ours), next: 0, mark: 0, confirmed });
        self.inward.insert(seq, InHalf { bytes: cut(theirs), mark: 0 });
        // If the other end has seen pad of this block already, then it was filed here before.
        if let Some(mark) = self.heard.get(&seq).filter(|mark| **mark > 0) {
            self.skip_out(seq, as_usize(*mark), journal);
        }
        self.settle();
        ByteLen(0)
    }

    /// Bytes that one message may draw now.
    pub(crate) fn available(&self) -> usize {
        if self.set_back {
            return 0;
        }
        let halves = self.out.values().filter(|half| half.confirmed).take(RANGES_MAX);
        halves.map(|half| half.bytes.len() - half.next).sum()
    }

    /// Draws key for one message, of which `tag` bytes are for its tag. `None`, and nothing changes, if there is not
    /// enough.
    pub(crate) fn draw(&mut self, len: usize, tag: usize, class: Class, journal: &mut Journal) -> Option<Pad> {
        if self.available() < len {
            return None;
        }
        let mut ranges = Vec::new();
        let mut missing = len;
        for (seq, half) in self.out.iter().filter(|(_, half)| half.confirmed) {
            let take = missing.min(half.bytes.len() - half.next);
            ranges.push((*seq, half.next, take));
            missing -= take;
            if missing == 0 {
                break;
            }
        }
        let mut bytes = SecretBytes::from_vec(vec![0; len]);
        let mut filled = 0;
        for &(seq, offset, take) in &ranges {
            let half = self.out.get_mut(&seq).expect("the range was found in this half");
            move_out(&mut half.bytes, offset, take, &mut bytes, filled);
            filled += take;
            half.next = offset + take;
            if half.next == half.bytes.len() {
                self.out.remove(&seq);
                record::delete_half(&self.link, seq, Direction::Out).into_iter().for_each(|c| journal.change(c));
            } else if half.next > half.mark {
                half.mark = half.bytes.len().min(half.next.max(half.mark + LEASE_BYTES));
                let (mark, from) = (as_u32(half.mark), as_u32(offset));
                journal.change(record::put_mark(&self.link, seq, Direction::Out, mark, from));
            }
        }
        self.usable -= len;
        let bits = |bytes: usize| BitLen::from(ByteLen(bytes as u64));
        self.used.tags += bits(tag);
        match class {
            Class::Own => self.used.own += bits(len - tag),
            Class::Transit => self.used.transit += bits(len - tag),
        }
        let ranges = ranges
            .into_iter()
            .map(|(seq, offset, len)| PadRange { seq, offset: as_u32(offset), len: as_u32(len) })
            .collect();
        Some(Pad { ranges, bytes })
    }

    /// Takes the ranges that the peer used for one message: moves the marks, burns holes, destroys what is used up.
    pub(crate) fn take(
        &mut self,
        ranges: &[PadRange],
        journal: &mut Journal,
    ) -> Result<(SecretBytes, ByteLen), RangesRefused> {
        let mut total = 0_usize;
        let mut last = None;
        for range in ranges {
            let half = self.inward.get(&range.seq).ok_or(RangesRefused)?;
            let end = as_usize(range.offset) + as_usize(range.len);
            if range.len == 0 || as_usize(range.offset) < half.mark || end > half.bytes.len() {
                return Err(RangesRefused);
            }
            if last.is_some_and(|last| last >= range.seq) {
                return Err(RangesRefused);
            }
            last = Some(range.seq);
            total += as_usize(range.len);
        }
        let mut bytes = SecretBytes::from_vec(vec![0; total]);
        let (mut filled, mut holes) = (0, 0);
        for range in ranges {
            let half = self.inward.get_mut(&range.seq).expect("every range was checked above");
            let (offset, len) = (as_usize(range.offset), as_usize(range.len));
            let hole = offset - half.mark;
            holes += hole;
            half.bytes.expose_mut(|bytes| bytes[half.mark..offset].fill(0));
            move_out(&mut half.bytes, offset, len, &mut bytes, filled);
            filled += len;
            half.mark = offset + len;
            if half.mark == half.bytes.len() {
                self.inward.remove(&range.seq);
                record::delete_half(&self.link, range.seq, Direction::In).into_iter().for_each(|c| journal.change(c));
            } else {
                let mark = as_u32(half.mark);
                journal.change(record::put_mark(&self.link, range.seq, Direction::In, mark, mark));
            }
        }
        let holes = ByteLen(holes as u64);
        if holes.0 > 0 {
            journal.event(Event::KeyBurned { reason: "skipped by the sender".to_owned(), bits: holes.into() });
        }
        Ok((bytes, holes))
    }

    /// A relay wants so many bytes.
    pub(crate) fn ask(&mut self, len: usize) {
        self.used.asked += BitLen::from(ByteLen(len as u64));
    }

    /// What this end tells the other.
    pub(crate) fn state(&self) -> PoolState {
        PoolState {
            link: self.link.clone(),
            next: self.filed.next,
            bits: self.filed.bits,
            receive: self.inward.iter().map(|(seq, half)| (*seq, as_u32(half.mark))).collect(),
            send: self.out.iter().map(|(seq, half)| (*seq, as_u32(half.next))).collect(),
        }
    }

    /// Learns from the other end which blocks can be used and from where on, and burns halves that the other end has
    /// no more. What the other end says comes after everything that it sent before.
    pub(crate) fn learn(&mut self, state: &PoolState, journal: &mut Journal) -> ByteLen {
        let filed = FiledWindow { next: state.next, bits: state.bits };
        self.heard = state.receive.iter().copied().collect();
        let sends: BTreeMap<BlockSeq, u32> = state.send.iter().copied().collect();
        let mut burned = 0;
        let (link, heard) = (&self.link, &self.heard);
        self.out.retain(|seq, half| {
            half.confirmed = heard.contains_key(seq);
            let dead = !half.confirmed && filed.has(*seq);
            if dead {
                burned += half.bytes.len() - half.next;
                record::delete_half(link, *seq, Direction::Out).into_iter().for_each(|c| journal.change(c));
            }
            !dead
        });
        self.inward.retain(|seq, half| {
            let sent = sends.get(seq).map(|next| as_usize(*next).min(half.bytes.len()));
            let dead = if sent.is_none() { filed.has(*seq) } else { sent == Some(half.bytes.len()) };
            if dead {
                burned += half.bytes.len() - half.mark;
                record::delete_half(link, *seq, Direction::In).into_iter().for_each(|c| journal.change(c));
            } else if let Some(sent) = sent.filter(|sent| *sent > half.mark) {
                // What was sent before this and has not come was lost.
                burned += sent - half.mark;
                half.bytes.expose_mut(|bytes| bytes[half.mark..sent].fill(0));
                half.mark = sent;
                journal.change(record::put_mark(link, *seq, Direction::In, as_u32(sent), as_u32(sent)));
            }
            !dead
        });
        for (seq, mark) in self.heard.clone() {
            burned += self.skip_out(seq, as_usize(mark), journal);
        }
        if std::mem::take(&mut self.set_back) {
            // Any block that the other end knows may have been filed and spent here before.
            let next = self.filed.next.max(state.next);
            self.filed = FiledWindow { next, bits: if next == 0 { 0 } else { u64::MAX } };
            journal.change(record::put_window(&self.link, &self.peer, self.filed.next, self.filed.bits));
        }
        self.settle();
        let burned = ByteLen(burned as u64);
        if burned.0 > 0 {
            let reason = "the other end has no more of the block".to_owned();
            journal.event(Event::KeyBurned { reason, bits: burned.into() });
        }
        burned
    }

    /// Moves the sending side of a block ahead to what the receiver has seen. Says how many bytes that burned.
    fn skip_out(&mut self, seq: BlockSeq, seen: usize, journal: &mut Journal) -> usize {
        let Some(half) = self.out.get_mut(&seq).filter(|half| seen > half.next) else { return 0 };
        let seen = seen.min(half.bytes.len());
        let burned = seen - half.next;
        half.bytes.expose_mut(|bytes| bytes[half.next..seen].fill(0));
        half.next = seen;
        if seen == half.bytes.len() {
            self.out.remove(&seq);
            record::delete_half(&self.link, seq, Direction::Out).into_iter().for_each(|c| journal.change(c));
        } else if seen > half.mark {
            half.mark = seen;
            journal.change(record::put_mark(&self.link, seq, Direction::Out, as_u32(seen), as_u32(seen)));
        }
        burned
    }

    /// This site's records were set back: all that it might send with may have been spent, so it goes, up to the
    /// highest block that the other end will name. Until it does nothing is drawn.
    pub(crate) fn set_back(&mut self, journal: &mut Journal) -> ByteLen {
        self.set_back = true;
        let mut burned = 0;
        for (seq, half) in std::mem::take(&mut self.out) {
            burned += half.bytes.len() - half.next;
            record::delete_half(&self.link, seq, Direction::Out).into_iter().for_each(|c| journal.change(c));
        }
        self.settle();
        ByteLen(burned as u64)
    }

    /// Whether [`Self::set_back`] waits for the other end.
    pub(crate) fn is_set_back(&self) -> bool {
        self.set_back
    }

    /// Whether the block was filed or is too old to be filed.
    pub(crate) fn has_filed(&self, seq: BlockSeq) -> bool {
        self.filed.has(seq)
    }

    /// Puts back the window that was stored.
    pub(crate) fn restore_window(&mut self, window: FiledWindow) {
        self.filed = window;
    }

    /// Puts back a half that was stored, with its mark. Says how much of an open lease was burned at most.
    pub(crate) fn restore_half(
        &mut self,
        seq: BlockSeq,
        direction: Direction,
        mut bytes: SecretBytes,
        (mark, lease_from): (usize, usize),
        journal: &mut Journal,
    ) -> ByteLen {
        assert!(mark <= bytes.len() && lease_from <= mark, "the caller checks a stored mark");
        bytes.expose_mut(|bytes| bytes[..mark].fill(0));
        if mark == bytes.len() {
            record::delete_half(&self.link, seq, direction).into_iter().for_each(|c| journal.change(c));
        } else if direction == Direction::In {
            self.inward.insert(seq, InHalf { bytes, mark });
            return ByteLen(0);
        } else {
            if mark > lease_from {
                journal.change(record::put_mark(&self.link, seq, Direction::Out, as_u32(mark), as_u32(mark)));
            }
            self.out.insert(seq, OutHalf { bytes, next: mark, mark, confirmed: false });
        }
        let burned = ByteLen((mark - lease_from) as u64);
        if burned.0 > 0 {
            let reason = "lease open at the last stop, upper bound".to_owned();
            journal.event(Event::KeyBurned { reason, bits: burned.into() });
        }
        burned
    }

    /// For dashboards and link-state advertisements.
    pub(crate) fn stock(&self) -> LinkStock {
        let bits = |bytes: usize| BitLen::from(ByteLen(bytes as u64));
        let blocks: BTreeSet<&BlockSeq> = self.out.keys().chain(self.inward.keys()).collect();
        LinkStock {
            link: self.link.clone(),
            peer: self.peer.clone(),
            up: self.up,
            reached: false,
            bits_out: bits(self.usable),
            used: self.used,
            bits_in: bits(self.inward.values().map(|half| half.bytes.len() - half.mark).sum()),
            blocks: u32::try_from(blocks.len()).expect("a pool has few blocks"),
        }
    }

    /// Counts what is usable.
    fn settle(&mut self) {
        let confirmed = self.out.values().filter(|half| half.confirmed);
        self.usable = confirmed.map(|half| half.bytes.len() - half.next).sum();
    }
}

/// Moves bytes from one secret into another and wipes them where they were.
fn move_out(from: &mut SecretBytes, offset: usize, len: usize, to: &mut SecretBytes, at: usize) {
    from.expose_mut(|from| {
        let source = &mut from[offset..offset + len];
        to.expose_mut(|to| to[at..at + len].copy_from_slice(source));
        source.fill(0);
    });
}

fn as_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("halves are below 4 GiB: a record's secret is at most 2 MiB")
}

/// A count of the wire as a length.
pub(crate) fn as_usize(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
