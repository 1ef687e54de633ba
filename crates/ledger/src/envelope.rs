//! One audit record and its one encoding: deterministic CBOR (RFC 8949, 4.2.1).
//!
//! A Merkle leaf is the RFC 6962 hash of these bytes. `prev` is the leaf hash of the entry before, so that a
//! change shows at its entry and not only in the root.

use std::borrow::Cow;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use types::event::{Event, FieldValue};
use types::id::SiteId;
use types::units::UtcNanos;

use crate::tree::Hash;

/// One audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The site whose log it is in.
    pub site: SiteId,
    /// Position in the log, from 0.
    pub seq: u64,
    /// When, by the site's clock.
    pub time: UtcNanos,
    /// Kind of event, see [`Event::code`].
    pub code: String,
    /// The event's content, names in the encoding's order: shorter first, then alphabetic.
    pub fields: Vec<(String, FieldValue)>,
    /// Leaf hash of the entry before; zeros at the first.
    pub prev: [u8; 32],
}

/// Why bytes are no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvelopeError(&'static str);

impl EnvelopeError {
    /// The reason as a text that lives on.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.0
    }
}

impl Entry {
    /// Longest envelope in bytes.
    pub const ENVELOPE_MAX: usize = 64 * 1024;
    /// Longest text of a field in bytes; a longer one is cut and ends with an ellipsis.
    pub const TEXT_MAX: usize = 1024;
    /// Most fields.
    pub const FIELDS_MAX: usize = 32;

    /// The record of an event.
    #[must_use]
    pub fn of_event(site: &SiteId, seq: u64, time: UtcNanos, prev: [u8; 32], event: &Event) -> Self {
        let clip = |value| match value {
            FieldValue::Text(text) => FieldValue::Text(clip(&text).into_owned()),
            number => number,
        };
        let mut fields: Vec<_> =
            event.fields().into_iter().map(|(name, value)| (name.to_owned(), clip(value))).collect();
        fields.sort_by(|(a, _), (b, _)| canonical_order(a, b));
        assert!(fields.len() <= Self::FIELDS_MAX, "events have few fields");
        Self { site: site.clone(), seq, time, code: event.code().to_owned(), fields, prev }
    }

    /// The envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(256));
        self.encode_into(&mut e).expect("writing to a vector does not fail");
        let bytes = e.into_writer();
        debug_assert!(bytes.len() <= Self::ENVELOPE_MAX);
        bytes
    }

    fn encode_into(&self, e: &mut Encoder<Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.map(7)?;
        e.str("v")?.u64(VERSION)?;
        e.str("seq")?.u64(self.seq)?;
        e.str("code")?.str(&self.code)?;
        e.str("prev")?.bytes(&self.prev)?;
        e.str("site")?.str(self.site.as_str())?;
        e.str("fields")?.map(self.fields.len() as u64)?;
        for (name, value) in &self.fields {
            e.str(name)?;
            match value {
                FieldValue::Number(number) => e.u64(*number)?,
                FieldValue::Text(text) => e.str(text)?,
            };
        }
        e.str("time_ns")?.u64(self.time.0)?;
        Ok(())
    }

    /// Decodes an envelope; any other bytes than those that [`Entry::encode`] makes are refused.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > Self::ENVELOPE_MAX {
            return Err(EnvelopeError("the envelope is too long"));
        }
        let mut d = Decoder::new(bytes);
        let entry = Self::decode_from(&mut d)?;
        let is_sorted = entry.fields.is_sorted_by(|(a, _), (b, _)| canonical_order(a, b).is_lt());
        if d.position() != bytes.len() || !is_sorted || entry.encode() != bytes {
            return Err(EnvelopeError("the envelope is not in its one encoding"));
        }
        Ok(entry)
    }

    fn decode_from(d: &mut Decoder<'_>) -> Result<Self, EnvelopeError> {
        if map_len(d)? != 7 {
            return Err(EnvelopeError("the envelope has not seven parts"));
        }
        key(d, "v")?;
        if number(d)? != VERSION {
            return Err(EnvelopeError("the envelope is of another version"));
        }
        key(d, "seq")?;
        let seq = number(d)?;
        key(d, "code")?;
        let code = text(d, NAME_MAX)?;
        key(d, "prev")?;
        let prev = d.bytes().ok().and_then(|bytes| bytes.try_into().ok()).ok_or(EnvelopeError("prev is no hash"))?;
        key(d, "site")?;
        let site = SiteId::new(&text(d, NAME_MAX)?).map_err(|_| EnvelopeError("the site's name is not valid"))?;
        key(d, "fields")?;
        let count = map_len(d)?;
        if count > Self::FIELDS_MAX as u64 {
            return Err(EnvelopeError("too many fields"));
        }
        let mut fields = Vec::new();
        for _ in 0..count {
            let name = text(d, NAME_MAX)?;
            let value = match d.datatype() {
                Ok(Type::String) => FieldValue::Text(text(d, Self::TEXT_MAX)?),
                Ok(Type::U8 | Type::U16 | Type::U32 | Type::U64) => FieldValue::Number(number(d)?),
                _ => return Err(EnvelopeError("a field is neither number nor text")),
            };
            fields.push((name, value));
        }
        key(d, "time_ns")?;
        let time = UtcNanos(number(d)?);
        Ok(Self { site, seq, time, code, fields, prev })
    }
}

/// Leaf hash of an envelope (RFC 6962, 2.1).
pub(crate) fn leaf_hash(envelope: &[u8]) -> Hash {
    tlog_tiles::record_hash(envelope)
}

/// RFC 8949, 4.2.1: keys by their encoded bytes; a shorter text has a smaller head.
fn canonical_order(a: &str, b: &str) -> std::cmp::Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}

fn clip(text: &str) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= Entry::TEXT_MAX {
        return text.into();
    }
    let end = text.floor_char_boundary(Entry::TEXT_MAX - ELLIPSIS.len());
    let (kept, _) = text.split_at(end);
    format!("{kept}{ELLIPSIS}").into()
}

fn map_len(d: &mut Decoder<'_>) -> Result<u64, EnvelopeError> {
    d.map().ok().flatten().ok_or(EnvelopeError("a map is missing"))
}

fn key(d: &mut Decoder<'_>, name: &str) -> Result<(), EnvelopeError> {
    if d.str().is_ok_and(|found| found == name) { Ok(()) } else { Err(EnvelopeError("a part is missing or misplaced")) }
}

fn number(d: &mut Decoder<'_>) -> Result<u64, EnvelopeError> {
    d.u64().map_err(|_| EnvelopeError("a number is malformed"))
}

fn text(d: &mut Decoder<'_>, max: usize) -> Result<String, EnvelopeError> {
    let text = d.str().map_err(|_| EnvelopeError("a text is malformed"))?;
    if text.len() > max {
        return Err(EnvelopeError("a text is too long"));
    }
    Ok(text.to_owned())
}

const VERSION: u64 = 1;
const NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use types::id::LinkId;
    use types::units::BitLen;

    use super::*;

    fn entry() -> Entry {
        let event = Event::BlockFiled {
            link: LinkId::new("a-b").unwrap(),
            block: types::id::BlockSeq(3),
            secret: BitLen(1000),
            authentication: BitLen(7),
            qber_ppm: 32_000,
            proof: "one-decoy".into(),
        };
        Entry::of_event(&SiteId::new("taiyuan").unwrap(), 2, UtcNanos(5), [9; 32], &event)
    }

    #[test]
    fn an_envelope_is_pinned() {
        let bytes = entry().encode();
        assert_eq!(
            hex::encode(&bytes),
            "a761760163736571026\
             4636f64656b424c4f434b5f46494c45446470726576582009090909090909090909090909090909090909090909090909090909090909\
             09647369746567746169797561\
             6e666669656c6473a6646c696e6b63612d6265626c6f636b036570726f6f66696f6e652d6465636f7966736563726574\
             1903e868716265725f70706d197d006e61757468656e7469636174696f6e076774696d655f6e7305"
                .replace(char::is_whitespace, "")
        );
        assert_eq!(Entry::decode(&bytes), Ok(entry()));
    }

    #[test]
    fn every_other_encoding_is_refused() {
        let bytes = entry().encode();
        for at in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..at]).is_err(), "cut to {at}");
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[at] ^= 1 << bit;
                if let Ok(entry) = Entry::decode(&bent) {
                    assert_eq!(
                        entry.encode(),
                        bent,
                        "byte {at} bit {bit}: another valid envelope, in its one encoding"
                    );
                }
            }
        }
        let refused = |name: &str, find: &[u8], put: &[u8]| {
            let at = bytes.windows(find.len()).position(|window| window == find).unwrap();
            let mut bent = bytes.clone();
            bent.splice(at..at + find.len(), put.iter().copied());
            assert!(Entry::decode(&bent).is_err(), "{name}");
        };
        refused("version 2", b"\x61v\x01", b"\x61v\x02");
        refused("longer form of a number", b"\x63seq\x02", b"\x63seq\x18\x02");
        refused("indefinite map", b"\xa6\x64link", b"\xbf\x64link");
        refused("fields out of order", b"\x64link\x63a-b\x65block\x03", b"\x65block\x03\x64link\x63a-b");
        refused("the same field twice", b"\x65block\x03\x65proof", b"\x65block\x03\x65block");
        refused("negative number", b"\x65block\x03", b"\x65block\x23");
        refused("site with a capital", b"taiyuan", b"Taiyuan");
        refused("trailing byte", b"\x67time_ns\x05", b"\x67time_ns\x05\x00");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let event = Event::LinkDown { link: LinkId::new("l").unwrap(), reason: "é".repeat(5000) };
        let entry = Entry::of_event(&SiteId::new("s").unwrap(), 0, UtcNanos(0), [0; 32], &event);
        let FieldValue::Text(reason) = &entry.fields[1].1 else { panic!() };
        assert!(reason.len() <= Entry::TEXT_MAX && reason.ends_with("é…"));
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
}
