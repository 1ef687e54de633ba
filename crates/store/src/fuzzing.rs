//! Bodies of the fuzz targets: plain functions that must not panic on any input.

use crate::backup::{BackupFile, read_records};
use crate::database::seal;
use crate::entry::{Entry, split_row_key};
use crate::kek::KekSlot;
use crate::root_key::protected::Protected;
use crate::segment::{SegmentId, split_named};

/// A backup's file, and the records in one that was opened.
pub fn backup(bytes: &[u8]) {
    let mut file = bytes.to_vec();
    file.extend_from_slice(&crypto::hash::sha256(bytes));
    let _ = BackupFile::decode(&file);
    let _ = BackupFile::decode(bytes);
    if let Some((records, body)) = bytes.split_first() {
        let _ = read_records(body, u32::from(*records));
    }
}

/// Rows, key files and file names of the store.
pub fn disk_formats(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes, "a row has one encoding");
    }
    let _ = split_row_key(bytes);
    let _ = KekSlot::decode(bytes);
    if let Some((row, sealed)) = split_named(bytes) {
        assert_eq!(2 + row.len() + sealed.len(), bytes.len(), "a slot is used whole");
    }
    if let Ok(protected) = Protected::decode(bytes) {
        assert_eq!(protected.encode(), bytes, "a sealed root secret has one encoding");
    }
    if let Some((_, body, _)) = seal::split(bytes) {
        assert_eq!(8 + body.len() + 16, bytes.len(), "a piece is used whole");
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = SegmentId::of_name(name);
    }
}
