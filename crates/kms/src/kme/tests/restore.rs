//! What a KME makes of records one by one, and of records that no store gives.

use crypto::record::Record;
use crypto::secret::SecretBytes;
use types::id::{KeyId, SiteId};
use types::units::{Time, UtcNanos};

use crate::config::{Config, PAIR_KEY_BYTES};
use crate::kme::Kme;
use crate::origin::Origin;
use crate::record::{self, Side};
use crate::stock::{KeySet, Run};
use crate::wish::Fit;
use crate::{Error, Restore};

fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

fn relay(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

/// Key `index` of relay `n`; its bits are both numbers.
fn key(side: Side, n: u8, index: u16, made: u64) -> Record {
    let origin = Origin::new(vec![vec![site("a"), site("b")]], UtcNanos(made));
    let mut bits = vec![n; PAIR_KEY_BYTES];
    bits[0] = u8::try_from(index).unwrap();
    let change = record::put_pair_key(side, &site("b"), relay(n), index, &origin, SecretBytes::from_vec(bits));
    change.into_put().unwrap()
}

fn restored(records: Vec<Record>) -> Result<Kme, Error> {
    Kme::restore(Time::ZERO, Config::new(site("a")), records)
}

#[test]
fn keys_come_back_as_the_runs_and_batches_that_they_were() {
    let mut records: Vec<Record> = [0, 1, 2, 7, 8, 63].map(|index| key(Side::Own, 1, index, 9)).into();
    records.extend((0..64).map(|index| key(Side::Own, 2, index, 5)));
    records.extend([3, 4, 40].map(|index| key(Side::Held, 3, index, 1)));
    let mut kme = restored(records).unwrap();
    let peer = kme.peers.get_mut(&site("b")).unwrap();
    assert_eq!((peer.own.ready(), peer.held.count()), (70, 3));
    assert_eq!(peer.own.known(relay(1)), 0b1_1000_0111 | 1 << 63);
    assert_eq!(peer.held.sets().collect::<Vec<_>>(), [KeySet { relay: relay(3), keys: 0b1_1000 | 1 << 40 }]);
    let (runs, bits) = peer.own.take(66, &Fit::default()).unwrap();
    let run = |n, first, count| Run { relay: relay(n), first, count };
    assert_eq!(runs, [run(2, 0, 64), run(1, 0, 2)], "the oldest first");
    bits.expose(|bits| {
        assert!(bits[..64 * PAIR_KEY_BYTES].chunks(PAIR_KEY_BYTES).zip(0..).all(|(key, n)| key[0] == n && key[1] == 2));
        assert_eq!(bits[65 * PAIR_KEY_BYTES..][..2], [1, 1]);
    });
    let bits = peer.held.take(&[run(3, 40, 1), run(3, 3, 2)]).unwrap();
    bits.expose(|bits| assert!(bits.chunks(PAIR_KEY_BYTES).map(|key| key[0]).eq([40, 3, 4])));
}

#[test]
fn records_that_no_store_gives_are_refused() {
    let own = |n, index| key(Side::Own, n, index, 1);
    for (name, records) in [
        ("twice", vec![own(1, 0), own(1, 0)]),
        ("backwards", vec![own(1, 1), own(1, 0)]),
        ("a relay that came apart", vec![own(1, 0), own(2, 0), own(1, 1)]),
        ("two origins of one relay", vec![own(1, 0), key(Side::Own, 1, 1, 2)]),
        ("beyond a batch", vec![own(1, 64)]),
        ("tables out of order", vec![own(1, 0), record::put_spent(3).into_put().unwrap()]),
    ] {
        assert!(matches!(restored(records), Err(Error::Corrupt { .. })), "{name}");
    }
    let mut restore = Restore::new(Time::ZERO, Config::new(site("a")));
    restore.record(own(1, 0)).unwrap();
    assert!(
        restore.record(own(1, 0)).is_err() && restore.record(own(1, 1)).is_ok(),
        "a refused record leaves no trace"
    );
    assert_eq!(restore.finish().unwrap().stock()[0].ready, 2);
}
