//! Bodies of the fuzz targets: plain functions that must not panic on any input.

use crate::entry::{Entry, split_row_key};
use crate::segment::{KekSlot, SegmentId};

/// Rows, key files and file names of the store.
pub fn disk_formats(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes, "a row has one encoding");
    }
    let _ = split_row_key(bytes);
    let _ = KekSlot::decode(bytes);
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = SegmentId::of_name(name);
    }
}
