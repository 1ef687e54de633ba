//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use crate::advertisement::Advertisement;

/// Whatever decodes encodes to the same bytes; nothing panics.
pub fn advertisement(bytes: &[u8]) {
    if let Ok(advertisement) = Advertisement::decode(bytes) {
        assert_eq!(advertisement.encode(), bytes);
    }
}
