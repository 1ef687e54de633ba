//! Fuzz bodies: plain functions over bytes from outside. `fuzz/` wraps them; a test replays them.

use crate::message::Message;

/// Whatever decodes must encode to the same bytes; nothing may panic or take more memory than the bytes justify.
pub fn message(wire: &[u8]) {
    if let Ok(message) = Message::decode(wire)
        && !matches!(message, Message::OtherVersion(_))
    {
        assert_eq!(message.encode(), wire, "one message has one encoding");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::message(&wire);
        }

        #[test]
        fn any_bytes_of_a_kind(kind in 0_u8..19, wire in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60)) {
            super::message(&[vec![kind], wire].concat());
        }
    }
}
