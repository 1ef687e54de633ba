//! A record's row in the state table: public value, and where the sealed secret stands.
//!
//! | length | field | rule |
//! |---|---|---|
//! | 1 | version | 1 |
//! | 1 | flags | bit 0: the record has a secret; other bits 0 |
//! | 4 + n | value | length, then bytes; at most [`Record::VALUE_MAX`] |
//! | 8 | segment | only with a secret |
//! | 4 | offset | only with a secret |
//! | 4 | length | only with a secret: bytes of the secret alone |

use crypto::record::{Record, Table};
use types::codec::{CodecError, Reader, Writer};

use crate::segment::SegmentId;

/// Where a sealed secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// In which segment.
    pub(crate) segment: SegmentId,
    /// First byte of the slot.
    pub(crate) offset: u32,
    /// Bytes of the secret; the slot is longer.
    pub(crate) len: u32,
}

/// A row's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) place: Option<Place>,
}

impl<'a> Entry<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(u8::from(self.place.is_some())).bytes32(self.value);
        if let Some(place) = self.place {
            w.u64(place.segment.0).u32(place.offset).u32(place.len);
        }
        w.finish()
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let flags = r.u8("flags")?;
        let value = r.bytes32("value", Record::VALUE_MAX)?;
        let place = match flags {
            0 => None,
            1 => {
                let place = Place {
                    segment: SegmentId(r.u64("segment")?),
                    offset: r.u32("offset")?,
                    len: u32::try_from(r.count("length", Record::SECRET_MAX)?)
                        .map_err(|_| CodecError::Value { field: "length" })?,
                };
                Some(place)
            }
            _ => return Err(CodecError::Value { field: "flags" }),
        };
        r.end()?;
        Ok(Self { value, place })
    }
}

/// A row's key: the table's number, then the record's key.
pub(crate) fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(table as u8);
    row.extend_from_slice(key);
    row
}

/// Takes a row's key apart.
pub(crate) fn split_row_key(row: &[u8]) -> Option<(Table, &[u8])> {
    let (number, key) = row.split_first()?;
    Some((Table::from_number(*number)?, key))
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_pinned_and_every_other_is_refused() {
        let place = Some(Place { segment: SegmentId(0x0102), offset: 0x30, len: 0x20 });
        let row = Entry { value: b"ab", place };
        let bytes = row.encode();
        assert_eq!(bytes, *b"\x01\x01\0\0\0\x02ab\0\0\0\0\0\0\x01\x02\0\0\0\x30\0\0\0\x20");
        assert_eq!(Entry::decode(&bytes), Ok(row));
        let without = Entry { value: b"", place: None };
        assert_eq!(Entry::decode(&without.encode()), Ok(without));

        let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bent = bytes.clone();
            change(&mut bent);
            assert!(Entry::decode(&bent).is_err(), "{name}");
        };
        refused("version 0", &|b| b[0] = 0);
        refused("version 2", &|b| b[0] = 2);
        refused("unknown flag", &|b| b[1] = 3);
        refused("place without flag", &|b| b[1] = 0);
        refused("value too long", &|b| b[2] = 1);
        refused("secret too long", &|b| b[20] = 1);
        refused("trailing byte", &|b| b.push(0));
        for len in 0..bytes.len() {
            refused("cut short", &|b| b.truncate(len));
        }
    }

    #[test]
    fn row_keys_come_apart_as_they_went_together() {
        assert_eq!(split_row_key(&row_key(Table::PairKey, b"k")), Some((Table::PairKey, &b"k"[..])));
        assert_eq!(split_row_key(&[0, 1]), None);
        assert_eq!(split_row_key(&[]), None);
    }
}
