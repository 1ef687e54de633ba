//! Fuzz bodies: plain functions over bytes from outside. `fuzz/` wraps them; a test replays them.

use types::codec::{Reader, Writer};

use crate::message::Message;
use crate::reconcile::ldpc::Question;

/// Whatever decodes must encode to the same bytes; nothing may panic or take more memory than the bytes justify.
pub fn message(wire: &[u8]) {
    if let Ok(message) = Message::decode(wire)
        && !matches!(message, Message::OtherVersion(_))
    {
        assert_eq!(message.encode(), wire, "one message has one encoding");
    }
}

/// The same for a question of the LDPC method.
pub fn ldpc_question(wire: &[u8]) {
    let mut r = Reader::new(wire);
    if let Ok(question) = Question::read(&mut r) {
        let mut w = Writer::new();
        question.write(&mut w);
        assert_eq!(w.finish(), wire[..wire.len() - r.left()], "one question has one encoding");
    }
}

/// As [`message`], for links fed by another maker's devices.
pub fn vendor_message(wire: &[u8]) {
    if let Some(again) = crate::vendor::reencode(wire) {
        assert_eq!(again, wire, "one message has one encoding");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::message(&wire);
            super::ldpc_question(&wire);
        }

        #[test]
        fn any_bytes_of_a_kind(kind in 0_u8..19, wire in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60)) {
            super::message(&[vec![kind], wire].concat());
        }

        #[test]
        fn any_bytes_of_a_question(kind in 0_u8..4, wire in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..40)) {
            super::ldpc_question(&[vec![kind], wire].concat());
        }

        #[test]
        fn any_bytes_of_a_vendor_kind(
            kind in 0_u8..9, wire in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..80),
        ) {
            super::vendor_message(&[vec![kind], wire].concat());
        }
    }
}
