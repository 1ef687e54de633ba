//! End-to-end confirmation of keys that are combined from several ways, before either end has them in stock.
//!
//! A relay holds its share of a batch openly and may change it. It then adds an offset of its choice to the sum: the
//! tags of the hops, which it makes itself, do not notice, and both ends would have different keys. So the owner does
//! not split the keys but a code word of them that notices offsets ([`crypto::manipulation`]):
//!
//! ```text
//! owner    word = keys | x | f(x; relay, ways, keys)      splits the word into shares
//! holder   adds the shares up, checks f                   stores the keys only if it holds
//!          RelayAck with x                                destroys them, RelayNack "unconfirmed" if not
//! owner    stores the keys only if x is the x drawn       else destroys them, RelayVoid
//! ```
//! Relays on all ways but one together have shares that are independent of keys and x, and see from the answer only
//! whether the offset was 0. So they
//! - **learn** nothing about keys that are used: x is independent of the keys, f is not shown;
//! - **change** keys, or the ways and the relay that the holder notes, unnoticed with probability n / 2^128 at most,
//!   n = blocks of 16 bytes of all that f covers: about 150 for full batches over short ways, never above 1,300;
//! - **pass a share off** as a whole batch, so that the holder has keys which a relay knows, or claim that keys are
//!   stored which are not, with probability 2^-128: who acknowledges must show x. This holds even for an attacker who
//!   can speak for the holder.
//!
//! Relays on all ways know the word and can do anything; so can the relays of a plain batch, which is why plain batches
//! carry no such check: it would bind nobody, and what goes wrong on the wire the tags of the hops notice.
//!
//! Who lied is not known, only that one of the ways did. Each way is charged its part of the failure, a confirmed batch
//! takes an eighth off its ways' charge, and ways with less charge are taken first ([`super::ways`]). Fewer ways are
//! never combined because of a charge: a liar who knows one share must not bring it about that it is the only one.

use crypto::domain::Domain;
use crypto::manipulation::{self, Proof};
use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use types::codec::Writer;
use types::event::Event;
use types::id::{KeyId, SiteId};
use types::units::Time;

use super::Kme;

/// What a batch that is combined from several ways is split from, and what the holder must show.
pub(super) fn encode(
    relay: KeyId,
    ways: &[Vec<SiteId>],
    keys: &SecretBytes,
    rng: &mut impl CryptoRng,
) -> (SecretBytes, Proof) {
    manipulation::encode(Domain::RelayCombined, &[&known(relay, ways)], keys, rng)
}

/// The keys of a word that came in shares over these ways, and what is shown to the owner. `None` if it was changed.
pub(super) fn decode(relay: KeyId, ways: &[Vec<SiteId>], word: SecretBytes) -> Option<(SecretBytes, Proof)> {
    manipulation::decode(Domain::RelayCombined, &[&known(relay, ways)], word).ok()
}

/// What both ends know of a batch: its id, and the ways in the order of their shares.
fn known(relay: KeyId, ways: &[Vec<SiteId>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(relay.0.as_bytes()).count(ways.len());
    for way in ways {
        w.count(way.len());
        way.iter().for_each(|site| _ = w.bytes16(site.as_str().as_bytes()));
    }
    w.finish()
}

impl Kme {
    /// A site on one of these ways changed something: says so, and charges the ways.
    pub(super) fn unconfirmed(&mut self, now: Time, relay: KeyId, peer: &SiteId, ways: &[Vec<SiteId>], keys: usize) {
        let text = |way: &Vec<SiteId>| way.iter().map(SiteId::as_str).collect::<Vec<_>>().join(" ");
        let ways_text = ways.iter().map(text).collect::<Vec<_>>().join(", ");
        self.counters.batches_unconfirmed += 1;
        let (peer, keys) = (peer.clone(), keys as u64);
        self.journal.event(Event::KeysUnconfirmed { relay, peer, ways: ways_text, keys });
        self.ways.unconfirmed(now, ways);
    }
}
