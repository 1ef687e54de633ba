//! Wegman-Carter authentication: two streams of key, one per direction, spent tag by tag and refilled from the
//! link's own output.
//!
//! ```text
//!  stream of one direction: | piece 0: hash key, pads 0..64 | piece 1: hash key, pads 64..128 | piece 2 … |
//!                                       spent ^ next                                          end ^
//! ```
//!
//! Tag `c` of a direction is hidden by pad `c` and hashed under the hash key of the piece that holds it, so hash keys
//! are refreshed with every piece (at most [`PIECE_TAGS`] tags). A sender moves `next` on and makes that durable
//! before the tag leaves; a receiver accepts a counter once and never one below it. Counter and direction are part of
//! what is hashed, so a tag cannot be replayed or reflected.
//!
//! **Reserve.** Every block refills both directions to [`RESERVE_TAGS`]. Alice spends 2 tags on a block that reaches
//! its end (one is kept for her verdict), Bob 1, so a full reserve survives [`FAILED_ROUNDS`] failed rounds in a row;
//! a round that fails before its end, or a connection that is cut, spends nothing.

use std::collections::VecDeque;

use crypto::domain::Domain;
use crypto::record::{Change, Record, Table};
use crypto::secret::SecretBytes;
use crypto::tag::{TagHashKey, TagHasher, TagPad};
use types::codec::{CodecError, Reader, Writer};
use types::id::LinkId;
use types::quantum::Role;

use crate::error::{Error, Misbehaviour};

/// Tags that each direction is refilled to.
pub const RESERVE_TAGS: u64 = 64;
/// Most tags in one piece of a stream.
pub const PIECE_TAGS: u64 = 64;
/// Failed rounds in a row after which a full reserve still carries a block to its end.
pub const FAILED_ROUNDS: u64 = RESERVE_TAGS / 2 - 1;
/// Key bits that one block's own authentication costs: three tags and two fresh hash keys.
pub const BLOCK_COST_BITS: u64 = 8 * (3 * TagPad::LEN as u64 + 2 * TagHashKey::LEN as u64);
/// Authentication bits that the tags of one block spend.
pub const SPENT_BITS: u64 = 8 * 3 * TagPad::LEN as u64;
/// Fewest bytes of pre-shared key: a full reserve for both directions.
pub const PROVISION_MIN: usize = 2 * piece_len(RESERVE_TAGS);
/// Most bytes of pre-shared key.
pub const PROVISION_MAX: usize = 1 << 16;

/// Bytes of a piece with this many pads.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a piece has few tags")]
pub(crate) const fn piece_len(tags: u64) -> usize {
    if tags == 0 { 0 } else { TagHashKey::LEN + TagPad::LEN * tags as usize }
}

/// The authentication key of one direction at one end.
pub(crate) struct Stream {
    from: Role,
    pieces: VecDeque<Piece>,
    marks: Marks,
}

/// Where a stream stands; public.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The first counter not used yet.
    pub(crate) next: u64,
    /// The first counter that has no pad yet.
    pub(crate) end: u64,
    /// Number of the next piece.
    pub(crate) pieces: u64,
}

struct Piece {
    number: u64,
    first: u64,
    tags: u64,
    hash_key: TagHashKey,
    pads: SecretBytes,
}

impl Stream {
    pub(crate) fn empty(from: Role) -> Self {
        Self { from, pieces: VecDeque::new(), marks: Marks::default() }
    }

    /// Sets the marks that were durable; pieces come one by one after.
    pub(crate) fn restore_marks(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// Takes a piece back from its durable record.
    pub(crate) fn restore_piece(&mut self, number: u64, value: &[u8], secret: SecretBytes) -> Result<(), Error> {
        let corrupt = Error::Corrupt { what: "authentication key" };
        let mut r = Reader::new(value);
        let read = (|| -> Result<(u64, u64), CodecError> {
            let (first, tags) = (r.u64("first")?, r.u64("tags")?);
            r.end()?;
            Ok((first, tags))
        })();
        let (first, tags) = read.map_err(|_| corrupt.clone())?;
        let piece = Piece::new(number, first, tags, secret).ok_or(corrupt)?;
        let at = self.pieces.partition_point(|other| other.number < number);
        self.pieces.insert(at, piece);
        Ok(())
    }

    /// The pieces must follow each other and reach the end.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let corrupt = Err(Error::Corrupt { what: "authentication key" });
        let mut expected = self.pieces.front().map_or(self.marks.end, |piece| piece.first);
        if expected > self.marks.next {
            return corrupt;
        }
        for piece in &self.pieces {
            if piece.first != expected || piece.number >= self.marks.pieces {
                return corrupt;
            }
            expected += piece.tags;
        }
        if expected == self.marks.end && self.marks.next <= self.marks.end { Ok(()) } else { corrupt }
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    /// Tags left.
    pub(crate) fn left(&self) -> u64 {
        self.marks.end - self.marks.next
    }

    /// A counter that this end may still use or accept.
    pub(crate) fn usable(&self, counter: u64) -> Result<(), Misbehaviour> {
        if (self.marks.next..self.marks.end).contains(&counter) {
            Ok(())
        } else {
            Err(Misbehaviour::TagCounter { counter })
        }
    }

    /// Starts hashing what tag `counter` is to cover.
    pub(crate) fn hasher(&self, counter: u64, domain: Domain) -> Option<TagHasher> {
        self.piece(counter).map(|piece| piece.hash_key.hasher(domain))
    }

    /// The pad of a counter. The caller moves on with [`Stream::spend`] and makes that durable before a tag leaves.
    pub(crate) fn pad(&self, counter: u64) -> Option<TagPad> {
        let piece = self.piece(counter)?;
        let index = usize::try_from(counter - piece.first).ok()?;
        TagPad::new(piece.pads.part(index * TagPad::LEN, TagPad::LEN)?)
    }

    /// Counters below `next` are used up.
    pub(crate) fn spend(&mut self, next: u64) {
        assert!(next >= self.marks.next && next <= self.marks.end, "counters only go up");
        self.marks.next = next;
    }

    /// Destroys pieces whose counters are all below `keep_from`.
    pub(crate) fn destroy_spent(&mut self, link: &LinkId, keep_from: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(piece) = self.pieces.front()
            && piece.first + piece.tags <= keep_from.min(self.marks.next)
        {
            let key = record_key(link, self.from, piece.number);
            changes.push(Change::Delete { table: Table::LinkAuthentication, key });
            self.pieces.pop_front();
        }
        changes
    }

    /// Appends fresh key of [`piece_len`] bytes; the change makes it durable.
    pub(crate) fn append(&mut self, link: &LinkId, bytes: SecretBytes) -> Option<Change> {
        let tags = bytes.len().checked_sub(TagHashKey::LEN)? / TagPad::LEN;
        let tags = u64::try_from(tags).ok()?;
        let (number, first) = (self.marks.pieces, self.marks.end);
        let mut w = Writer::new();
        w.u64(first).u64(tags);
        let change = Change::Put(Record {
            table: Table::LinkAuthentication,
            key: record_key(link, self.from, number),
            value: w.finish(),
            secret: Some(bytes.duplicate()),
        });
        self.pieces.push_back(Piece::new(number, first, tags, bytes)?);
        self.marks = Marks { end: first + tags, pieces: number + 1, ..self.marks };
        Some(change)
    }

    fn piece(&self, counter: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| (piece.first..piece.first + piece.tags).contains(&counter))
    }
}

impl Piece {
    fn new(number: u64, first: u64, tags: u64, mut secret: SecretBytes) -> Option<Self> {
        let len = (1..=PIECE_TAGS).contains(&tags).then(|| piece_len(tags))?;
        if secret.len() != len {
            return None;
        }
        let hash_key = TagHashKey::new(secret.split_front(TagHashKey::LEN)?)?;
        Some(Self { number, first, tags, hash_key, pads: secret })
    }
}

impl Marks {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.next).u64(self.end).u64(self.pieces);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { next: r.u64("next")?, end: r.u64("end")?, pieces: r.u64("pieces")? })
    }
}

/// Cuts pre-shared key, the same at both ends, into the first pieces of both streams.
pub(crate) fn provision(link: &LinkId, key: &SecretBytes) -> Result<([Stream; 2], Vec<Change>), Error> {
    if key.len() < PROVISION_MIN || key.len() > PROVISION_MAX {
        return Err(Error::ApiMisuse { what: "length of the initial key" });
    }
    let half = key.len() / 2;
    let mut changes = Vec::new();
    let mut stream = |from, start| {
        let mut stream = Stream::empty(from);
        let mut rest = key.part(start, half).expect("two halves are inside");
        while rest.len() >= piece_len(1) {
            let fit = u64::try_from((rest.len() - TagHashKey::LEN) / TagPad::LEN).unwrap_or(PIECE_TAGS);
            let piece = rest.split_front(piece_len(fit.min(PIECE_TAGS))).expect("the piece fits what is left");
            changes.push(stream.append(link, piece).expect("the piece has a piece's length"));
        }
        stream
    };
    let streams = [stream(Role::Alice, 0), stream(Role::Bob, half)];
    Ok((streams, changes))
}

/// Tags to add to each direction from a block of `secret` bytes: up to the reserve, at most half of the block,
/// and never less than what the block itself spent.
pub(crate) fn refill(left: [u64; 2], secret: usize) -> [u64; 2] {
    let mut tags = left.map(|left| RESERVE_TAGS.saturating_sub(left).min(PIECE_TAGS));
    while piece_len(tags[0]) + piece_len(tags[1]) > (secret / 2).max(piece_len(2) + piece_len(1)) {
        let larger = usize::from(tags[1] + 1 > tags[0]);
        tags[larger] -= 1;
    }
    tags
}

/// Key of a piece's record: link id, zero, sender, number.
pub(crate) fn record_key(link: &LinkId, from: Role, number: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(link.as_str().as_bytes()).u8(0).u8(role_number(from)).u64(number);
    w.finish()
}

/// Sender and number of a piece from the key behind the link's prefix.
pub(crate) fn parse_key(rest: &[u8]) -> Result<(Role, u64), CodecError> {
    let mut r = Reader::new(rest);
    let from = match r.u8("sender")? {
        0 => Role::Alice,
        1 => Role::Bob,
        _ => return Err(CodecError::Value { field: "sender" }),
    };
    let number = r.u64("number")?;
    r.end()?;
    Ok((from, number))
}

pub(crate) fn role_number(role: Role) -> u8 {
    match role {
        Role::Alice => 0,
        Role::Bob => 1,
    }
}
