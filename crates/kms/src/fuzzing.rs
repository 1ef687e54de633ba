//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use crate::message::Message;

/// Whatever decodes encodes to the same bytes; nothing panics.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes, "decoding accepts only what encoding makes");
    }
}
