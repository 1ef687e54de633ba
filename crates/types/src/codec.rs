//! Bounded big-endian codec for wire and disk.
//!
//! Every length is checked against what is left and against a maximum that the caller names, so that no byte
//! string from outside can make us allocate more than it carries. Formats that use it are specified byte by
//! byte in `docs/formats/`.
//!
//! ```
//! use types::codec::{Reader, Writer};
//! let mut w = Writer::new();
//! w.u16(7).bytes16(b"abc");
//! let wire = w.finish();
//! let mut r = Reader::new(&wire);
//! assert_eq!(r.u16("count").unwrap(), 7);
//! assert_eq!(r.bytes16("name", 8).unwrap(), b"abc");
//! r.end().unwrap();
//! ```

use alloc::vec::Vec;

/// Why bytes did not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than the field needs.
    #[error("field {field} is cut short: needs {needed} bytes, {left} are left")]
    Short {
        /// Name of the field.
        field: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length above the field's maximum.
    #[error("field {field} says {len} but at most {max} is allowed")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// The length found.
        len: usize,
        /// The maximum.
        max: usize,
    },
    /// A value that the field cannot have.
    #[error("field {field} has a value that it cannot have")]
    Value {
        /// Name of the field.
        field: &'static str,
    },
    /// Bytes after the last field.
    #[error("{left} bytes stand after the last field")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Reads fields in order from a byte string.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`CodecError::Short`] if there are fewer.
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], CodecError> {
        if len > self.rest.len() {
            return Err(CodecError::Short { field, needed: len, left: self.rest.len() });
        }
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`CodecError::Short`] if there are fewer.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`CodecError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes, big endian.
    ///
    /// # Errors
    /// [`CodecError::Short`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Four bytes, big endian.
    ///
    /// # Errors
    /// [`CodecError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Eight bytes, big endian.
    ///
    /// # Errors
    /// [`CodecError::Short`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A `u32` count of at most `max` that follows.
    ///
    /// # Errors
    /// [`CodecError::Short`] or [`CodecError::TooLong`].
    pub fn count(&mut self, field: &'static str, max: usize) -> Result<usize, CodecError> {
        let len = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if len > max {
            return Err(CodecError::TooLong { field, len, max });
        }
        Ok(len)
    }

    /// A `u16` length of at most `max` and that many bytes.
    ///
    /// # Errors
    /// [`CodecError::Short`] or [`CodecError::TooLong`].
    pub fn bytes16(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], CodecError> {
        let len = usize::from(self.u16(field)?);
        if len > max {
            return Err(CodecError::TooLong { field, len, max });
        }
        self.take(field, len)
    }

    /// A `u32` length of at most `max` and that many bytes.
    ///
    /// # Errors
    /// [`CodecError::Short`] or [`CodecError::TooLong`].
    pub fn bytes32(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], CodecError> {
        let len = self.count(field, max)?;
        self.take(field, len)
    }

    /// A `u16`-long UTF-8 text of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes16`], or [`CodecError::Value`] if it is not UTF-8.
    pub fn text16(&mut self, field: &'static str, max: usize) -> Result<&'a str, CodecError> {
        core::str::from_utf8(self.bytes16(field, max)?).map_err(|_| CodecError::Value { field })
    }

    /// An unsigned LEB128 number of at most 64 bits, in its shortest form.
    ///
    /// # Errors
    /// [`CodecError::Short`], or [`CodecError::Value`] if it is longer than needed or too large.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for index in 0..10_u32 {
            let byte = self.u8(field)?;
            if index == 9 && byte > 1 {
                return Err(CodecError::Value { field });
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(CodecError::Value { field });
                }
                return Ok(value);
            }
        }
        Err(CodecError::Value { field })
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`CodecError::Trailing`].
    pub fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing { left: self.rest.len() }) }
    }
}

/// Appends fields to a byte string.
///
/// Lengths that pass a field's width are a bug of the caller and panic: a writer's input is our own.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty byte string.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    /// Two bytes, big endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// Four bytes, big endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// Eight bytes, big endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// A `u32` count.
    pub fn count(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("a count of our own fits 32 bits"))
    }

    /// A `u16` length and the bytes.
    pub fn bytes16(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).expect("a field of our own fits 16 bits of length")).put(bytes)
    }

    /// A `u32` length and the bytes.
    pub fn bytes32(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).put(bytes)
    }

    /// An unsigned LEB128 number.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.out.push(low7(value) | 0x80);
            value >>= 7;
        }
        self.out.push(low7(value));
        self
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The byte string.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

fn low7(value: u64) -> u8 {
    (value & 0x7f).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_round_trip_and_shortest_form_only() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut w = Writer::new();
            w.varint(value);
            let wire = w.finish();
            let mut r = Reader::new(&wire);
            assert_eq!(r.varint("v"), Ok(value));
            assert_eq!(r.end(), Ok(()));
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).varint("v"), Err(CodecError::Value { field: "v" }));
        assert_eq!(Reader::new(&[0xff; 10]).varint("v"), Err(CodecError::Value { field: "v" }));
    }

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        assert!(matches!(Reader::new(&[0xff, 0xff, 0xff, 0xff]).bytes32("x", 16), Err(CodecError::TooLong { .. })));
        assert!(matches!(Reader::new(&[0, 5, 1]).bytes16("x", 16), Err(CodecError::Short { .. })));
    }
}
