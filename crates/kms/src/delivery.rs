//! Keys that were assigned and wait for their slave SAE.

use std::collections::{BTreeMap, VecDeque};

use crypto::secret::SecretBytes;
use types::id::{KeyId, SaeId, SiteId};
use types::units::Time;

use crate::record::DeliveryRecord;

#[derive(Debug)]
struct Waiting {
    record: DeliveryRecord,
    key: SecretBytes,
}

/// All keys that wait for slaves of this site.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    keys: BTreeMap<KeyId, Waiting>,
    assigned: BTreeMap<KeyId, Vec<KeyId>>,
    expiry: VecDeque<(Time, KeyId)>,
}

/// Why keys are not given to a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDelivered {
    /// At least one is not here.
    Missing,
    /// At least one is for another SAE.
    NotTheSlave,
}

impl Deliveries {
    /// Keys that wait.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key with this id waits.
    pub(crate) fn has(&self, id: KeyId) -> bool {
        self.keys.contains_key(&id)
    }

    /// The site that made an assignment of which keys wait here.
    pub(crate) fn origin_of(&self, assign: KeyId) -> Option<&SiteId> {
        let first = self.assigned.get(&assign)?.first()?;
        self.keys.get(first).map(|waiting| &waiting.record.origin)
    }

    /// Adds a key; `expires` must not go back from call to call.
    pub(crate) fn add(&mut self, id: KeyId, record: DeliveryRecord, key: SecretBytes, expires: Time) {
        self.assigned.entry(record.assign).or_default().push(id);
        let before = self.keys.insert(id, Waiting { record, key });
        assert!(before.is_none(), "the caller checked that the id is new");
        self.expiry.push_back((expires, id));
        if self.expiry.len() > 2 * self.keys.len() + 1_024 {
            self.expiry.retain(|(_, id)| self.keys.contains_key(id));
        }
    }

    /// Takes the keys for their slave. All or nothing.
    pub(crate) fn take(
        &mut self,
        master: &SaeId,
        slave: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<(KeyId, SecretBytes)>, NotDelivered> {
        for id in ids {
            let waiting = self.keys.get(id).ok_or(NotDelivered::Missing)?;
            if waiting.record.slave != *slave {
                return Err(NotDelivered::NotTheSlave);
            }
            if waiting.record.master != *master {
                return Err(NotDelivered::Missing);
            }
        }
        Ok(ids.iter().filter_map(|id| self.remove(*id).map(|key| (*id, key))).collect())
    }

    /// Destroys the keys of an assignment; says which and how many bytes.
    pub(crate) fn void(&mut self, assign: KeyId) -> (Vec<KeyId>, usize) {
        let ids = self.assigned.get(&assign).cloned().unwrap_or_default();
        let bytes = ids.iter().filter_map(|id| self.remove(*id)).map(|key| key.len()).sum();
        (ids, bytes)
    }

    /// Destroys what waited too long; says which and how many bytes.
    pub(crate) fn expire(&mut self, now: Time) -> (Vec<KeyId>, usize) {
        let (mut ids, mut bytes) = (Vec::new(), 0);
        while let Some((_, id)) = self.expiry.pop_front_if(|(at, _)| *at <= now) {
            if let Some(key) = self.remove(id) {
                bytes += key.len();
                ids.push(id);
            }
        }
        (ids, bytes)
    }

    /// When [`Self::expire`] may have something to do.
    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.expiry.front().map(|(at, _)| *at)
    }

    fn remove(&mut self, id: KeyId) -> Option<SecretBytes> {
        let waiting = self.keys.remove(&id)?;
        if let Some(ids) = self.assigned.get_mut(&waiting.record.assign) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.assigned.remove(&waiting.record.assign);
            }
        }
        Some(waiting.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> KeyId {
        KeyId::from_random([n; 16])
    }

    fn sae(name: &str) -> SaeId {
        SaeId::new(name).unwrap()
    }

    fn record() -> DeliveryRecord {
        DeliveryRecord { assign: id(100), origin: SiteId::new("a").unwrap(), master: sae("m"), slave: sae("s") }
    }

    #[test]
    fn only_the_slave_gets_all_keys_once() {
        let mut deliveries = Deliveries::default();
        for n in 0..3 {
            deliveries.add(id(n), record(), SecretBytes::copy_of(&[n; 32]), Time::from_nanos(5));
        }
        let take = |d: &mut Deliveries, master: &str, slave: &str, ids: &[KeyId]| {
            d.take(&sae(master), &sae(slave), ids).map(|keys| keys.len())
        };
        assert_eq!(take(&mut deliveries, "m", "t", &[id(0)]), Err(NotDelivered::NotTheSlave));
        assert_eq!(take(&mut deliveries, "n", "s", &[id(0)]), Err(NotDelivered::Missing));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(0), id(9)]), Err(NotDelivered::Missing));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(0), id(2)]), Ok(2));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(0)]), Err(NotDelivered::Missing));
        assert_eq!(deliveries.expire(Time::from_nanos(4)), (vec![], 0));
        assert_eq!(deliveries.next_expiry(), Some(Time::from_nanos(5)));
        assert_eq!(deliveries.expire(Time::from_nanos(5)), (vec![id(1)], 32));
        assert_eq!((deliveries.next_expiry(), deliveries.origin_of(id(100))), (None, None));
    }
}
