//! What somebody who only watches the wire can check: which pad a message spends.
//!
//! A pad of the authentication key may hide one tag. Whoever records the classical channel, on either side of a crash,
//! can hold this against it without any secret.

use types::quantum::Role;

use crate::message::{Message, Step};

/// The pad that a tagged message spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagSpent {
    /// Whether Alice sent it; Bob otherwise.
    pub by_alice: bool,
    /// Counter in the sender's stream.
    pub counter: u64,
}

/// The pad that a message spends; `None` for messages without a tag and for bytes that are no message. The same pad may
/// be seen again only with the very same bytes: Alice may repeat a verdict.
#[must_use]
pub fn tag_spent(wire: &[u8]) -> Option<TagSpent> {
    let (from, counter) = match Message::decode(wire).ok()? {
        Message::Verdict(verdict) => (Role::Alice, verdict.counter),
        Message::Block(_, Step::Finish(finish)) => (Role::Alice, finish.counter),
        Message::Block(_, Step::Confirm { counter, .. }) => (Role::Bob, counter),
        _ => return None,
    };
    Some(TagSpent { by_alice: from == Role::Alice, counter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::samples;

    #[test]
    fn tagged_messages_and_no_others_spend_a_pad() {
        let spent: Vec<_> = samples().iter().filter_map(|message| tag_spent(&message.encode())).collect();
        let pad = |by_alice, counter| TagSpent { by_alice, counter };
        assert_eq!(spent, [pad(true, 5), pad(true, 5), pad(false, 4)]);
        assert_eq!(tag_spent(b"no message"), None);
    }
}
