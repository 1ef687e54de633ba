//! The header of a safetensors file, read with bounds and refused with the field that is wrong.
//!
//! ```text
//! u64 little endian: header length N | N bytes of JSON | tensors
//! {"__metadata__": {"k": "v"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
//! ```
//! The format's own library merges tensors of the same name and speaks of a "buffer" where a person needs the
//! tensor's name, so only its list of number formats is used. Bytes that no tensor covers become pieces of
//! their own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};

use super::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::limits::{HEADER_MAX, NAME_MAX, PIECES_MAX, RANK_MAX};

/// Why a header is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A field contradicts the format.
    Field { field: String, reason: String },
    /// A field reaches past the end of the file.
    Short { field: String, needed: u64 },
}

impl Refused {
    fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}

/// Reads the header of an open file of `len` bytes.
pub(super) fn read(file: &File, path: &Path, len: u64) -> Result<Vec<Piece>> {
    let refuse = |refused| match refused {
        Refused::Field { field, reason } => Error::NotSafetensors { path: path.to_owned(), field, reason },
        Refused::Short { field, needed } => Error::CutShort { path: path.to_owned(), len, field, needed },
    };
    let mut prefix = [0; 8];
    let got = read_up_to(file, &mut prefix).map_err(Error::file("read", path))?;
    let json_len = json_len(prefix.get(..got).unwrap_or_default(), len).map_err(refuse)?;
    let mut json = vec![0; usize::try_from(json_len).expect("a header is at most 100 MB")];
    file.read_exact_at(&mut json, 8).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::SourceChanged { path: path.to_owned() },
        _ => Error::file("read", path)(source),
    })?;
    pieces(&json, len).map_err(refuse)
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Length of the JSON part, checked against the file's length before anything is allocated.
pub(crate) fn json_len(prefix: &[u8], file_len: u64) -> Result<u64, Refused> {
    if let Some(other) = known_other(prefix) {
        return Err(Refused::field("first bytes", format!("they are those of {other}")));
    }
    let Ok(prefix) = <[u8; 8]>::try_from(prefix) else {
        return Err(Refused::field("header length", format!("the file has only {file_len} bytes")));
    };
    let json_len = u64::from_le_bytes(prefix);
    if json_len > HEADER_MAX {
        return Err(Refused::field("header length", format!("it says {json_len}, at most {HEADER_MAX} is allowed")));
    }
    if json_len < 2 {
        return Err(Refused::field("header length", format!("it says {json_len}, no header is that short")));
    }
    if json_len + 8 > file_len {
        return Err(Refused::Short { field: "header".to_owned(), needed: json_len + 8 });
    }
    Ok(json_len)
}

/// The pieces of a file of `file_len` bytes whose header is `json`.
pub(crate) fn pieces(json: &[u8], file_len: u64) -> Result<Vec<Piece>, Refused> {
    if json.first() != Some(&b'{') {
        return Err(Refused::field("header", "it does not begin with {"));
    }
    let header: Header = serde_json::from_slice(json).map_err(|error| Refused::field("header", error.to_string()))?;
    let data_start = 8 + json.len() as u64;
    let mut tensors =
        header.tensors.into_iter().map(|tensor| place(tensor, data_start, file_len)).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by(|a, b| (a.offset, a.len, &a.name).cmp(&(b.offset, b.len, &b.name)));

    let mut pieces = Vec::with_capacity(tensors.len() + 2);
    pieces.push(Piece::bytes("#header".to_owned(), 0, data_start));
    let mut end = data_start;
    for tensor in tensors {
        if tensor.offset < end {
            let before = pieces.last().map_or("", |piece| piece.name.as_str());
            return Err(Refused::field(
                format!("data_offsets of tensor {:?}", tensor.name),
                format!("it overlaps tensor {before:?}"),
            ));
        }
        if tensor.offset > end {
            pieces.push(Piece::bytes(format!("#gap-{end}"), end, tensor.offset - end));
        }
        end = tensor.offset + tensor.len;
        pieces.push(tensor);
    }
    if end < file_len {
        pieces.push(Piece::bytes(format!("#gap-{end}"), end, file_len - end));
    }
    if pieces.len() > PIECES_MAX {
        return Err(Refused::field("header", format!("it has more than {PIECES_MAX} tensors and gaps")));
    }
    Ok(pieces)
}

/// Checks one tensor's numbers against each other and against the file's length.
fn place(tensor: RawTensor, data_start: u64, file_len: u64) -> Result<Piece, Refused> {
    let RawTensor { name, info } = tensor;
    let [start, end] = info.data_offsets;
    let field = |part: &str| format!("{part} of tensor {name:?}");
    if end < start {
        return Err(Refused::field(field("data_offsets"), format!("the end {end} is before the start {start}")));
    }
    if info.shape.len() > RANK_MAX {
        let reason = format!("it has {} dimensions, at most {RANK_MAX} are allowed", info.shape.len());
        return Err(Refused::field(field("shape"), reason));
    }
    let dtype =
        Dtype::deserialize(<&str as IntoDeserializer<'_, ValueError>>::into_deserializer(&info.dtype)
            as StrDeserializer<'_, ValueError>)
        .map_err(|_| {
            Refused::field(
                field("dtype"),
                format!("{:?} is not known", info.dtype.chars().take(20).collect::<String>()),
            )
        })?;
    let bits = info
        .shape
        .iter()
        .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
        .and_then(|count| count.checked_mul(dtype.bitsize() as u64));
    match bits {
        Some(bits) if bits % 8 == 0 && bits / 8 == end - start => {}
        Some(bits) => {
            let reason = format!("shape and dtype need {bits} bits, data_offsets give {} bytes", end - start);
            return Err(Refused::field(field("shape"), reason));
        }
        None => return Err(Refused::field(field("shape"), "its size passes 64 bits")),
    }
    let needed =
        end.checked_add(data_start).ok_or_else(|| Refused::field(field("data_offsets"), "they pass 64 bits"))?;
    if needed > file_len {
        return Err(Refused::Short { field: format!("tensor {name:?}"), needed });
    }
    let kind = PieceKind::Tensor { dtype: info.dtype, shape: info.shape };
    Ok(Piece { name, kind, offset: data_start + start, len: end - start })
}

fn known_other(prefix: &[u8]) -> Option<&'static str> {
    [
        (b"GGUF".as_slice(), "a GGUF file"),
        (b"PK\x03\x04", "a ZIP archive (PyTorch checkpoint?)"),
        (b"\x80\x02", "a Python pickle (PyTorch checkpoint?)"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUM", "a NumPy file"),
        (b"\x1f\x8b", "a gzip file"),
        (b"version ", "a Git LFS pointer, not the model itself"),
    ]
    .into_iter()
    .find_map(|(magic, name)| prefix.starts_with(magic).then_some(name))
}

struct RawTensor {
    name: String,
    info: RawInfo,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

struct Header {
    tensors: Vec<RawTensor>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut names, mut tensors) = (HashSet::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            let shown = || name.chars().take(80).collect::<String>();
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{:?} stands there twice", shown())));
            }
            if name == "__metadata__" {
                map.next_value::<HashMap<String, String>>()
                    .map_err(|error| A::Error::custom(format!("__metadata__: {error}")))?;
                continue;
            }
            if name.len() > NAME_MAX {
                return Err(A::Error::custom(format!("the name {:?}… is longer than {NAME_MAX} bytes", shown())));
            }
            if tensors.len() >= PIECES_MAX {
                return Err(A::Error::custom(format!("there are more than {PIECES_MAX} tensors")));
            }
            let info = map.next_value().map_err(|error| A::Error::custom(format!("tensor {:?}: {error}", shown())))?;
            tensors.push(RawTensor { name, info });
        }
        Ok(Header { tensors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str, data_len: u64) -> String {
        match pieces(json.as_bytes(), 8 + json.len() as u64 + data_len) {
            Err(Refused::Field { field, reason }) => format!("{field}: {reason}"),
            Err(Refused::Short { field, needed }) => {
                format!("{field} short by {}", needed - 8 - json.len() as u64 - data_len)
            }
            Ok(pieces) => panic!("accepted: {pieces:?}"),
        }
    }

    #[test]
    fn hostile_headers_are_refused_by_name() {
        let one = |info: &str| format!(r#"{{"a":{{{info}}}}}"#);
        let at = |start: u64, end: u64| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
        };
        let cases = [
            // not an object
            ("[1]".to_owned(), 0, "header: it does not begin with {"),
            (r#"{"a":1}"#.to_owned(), 0, r#"header: tensor "a": invalid type"#),
            ("{".to_owned(), 0, "header: EOF"),
            (r#"{"a":"#.to_owned(), 0, r#"header: tensor "a": EOF"#),
            // duplicate names
            (format!(r#"{{"a":{},"a":{}}}"#, at(0, 1), at(1, 2)), 2, r#"header: "a" stands there twice"#),
            // overlap, reversed, out of range, past 64 bits
            (
                format!(r#"{{"a":{},"b":{}}}"#, at(0, 4), at(3, 6)),
                6,
                r#"data_offsets of tensor "b": it overlaps tensor "a""#,
            ),
            (one(r#""dtype":"U8","shape":[0],"data_offsets":[4,3]"#), 9, r#"data_offsets of tensor "a": the end 3"#),
            (one(r#""dtype":"U8","shape":[9],"data_offsets":[0,9]"#), 4, r#"tensor "a" short by 5"#),
            (
                one(r#""dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]"#),
                4,
                r#"shape of tensor "a": its size passes"#,
            ),
            (
                one(r#""dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]"#),
                4,
                r#"data_offsets of tensor "a": they pass 64 bits"#,
            ),
            (
                one(r#""dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]"#),
                8,
                r#"shape of tensor "a": its size"#,
            ),
            // shape and dtype contradict the offsets
            (
                one(r#""dtype":"F32","shape":[2,3],"data_offsets":[0,23]"#),
                24,
                r#"shape of tensor "a": shape and dtype need 192"#,
            ),
            (
                one(r#""dtype":"F4","shape":[3],"data_offsets":[0,1]"#),
                1,
                r#"shape of tensor "a": shape and dtype need 12"#,
            ),
            (one(r#""dtype":"F33","shape":[1],"data_offsets":[0,4]"#), 4, r#"dtype of tensor "a": "F33" is not known"#),
            (one(r#""dtype":"U8","shape":[-1],"data_offsets":[0,4]"#), 4, r#"header: tensor "a": invalid value"#),
            (one(r#""dtype":"U8","shape":[1],"data_offsets":[0]"#), 4, r#"header: tensor "a": invalid length"#),
            (one(r#""shape":[1],"data_offsets":[0,1]"#), 4, r#"header: tensor "a": missing field `dtype`"#),
            (
                format!(r#"{{"a":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}}}"#, "1,".repeat(40)),
                1,
                r#"shape of tensor "a": it has 41"#,
            ),
            (format!(r#"{{"{}":{}}}"#, "n".repeat(600), at(0, 1)), 1, "header: the name"),
            (r#"{"__metadata__":{"k":1}}"#.to_owned(), 0, "header: __metadata__: invalid type"),
            (format!("{{\"a\":{}", "[".repeat(100_000)), 0, r#"header: tensor "a": invalid type"#),
        ];
        for (json, data_len, expected) in cases {
            let got = refused(&json, data_len);
            assert!(got.starts_with(expected), "wanted {expected:?}, got {got:?}");
        }
    }

    #[test]
    fn first_bytes_are_judged_before_anything_is_allocated() {
        let field = |prefix: &[u8], len| match json_len(prefix, len) {
            Err(Refused::Field { reason, .. }) => reason,
            Err(Refused::Short { needed, .. }) => format!("needs {needed}"),
            Ok(len) => len.to_string(),
        };
        assert_eq!(field(b"", 0), "the file has only 0 bytes");
        assert_eq!(field(&[2, 0, 0], 3), "the file has only 3 bytes");
        assert_eq!(field(&[0xff; 8], 1 << 40), "it says 18446744073709551615, at most 100000000 is allowed");
        assert_eq!(field(&99_000_000_u64.to_le_bytes(), 1000), "needs 99000008");
        assert_eq!(field(b"GGUF\x03\0\0\0", 1000), "they are those of a GGUF file");
        assert_eq!(field(&2_u64.to_le_bytes(), 10), "2");
    }

    #[test]
    fn gaps_and_empty_tensors_are_pieces() {
        let json = br#"{"b":{"dtype":"I64","shape":[1],"data_offsets":[3,11]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[3,3]}}  "#;
        let start = 8 + json.len() as u64;
        let pieces = pieces(json, start + 13).unwrap();
        let names: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.name.as_str(), piece.offset - start.min(piece.offset), piece.len))
            .collect();
        let (gap, tail) = (format!("#gap-{start}"), format!("#gap-{}", start + 11));
        assert_eq!(names, [("#header", 0, start), (&*gap, 0, 3), ("e", 3, 0), ("b", 3, 8), (&*tail, 11, 2)]);
    }
}
