//! Keys that were assigned and wait for their slave SAEs, or are on their way into another network.
//!
//! What many keys have in common is held once: who they are for, and how they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crypto::secret::SecretBytes;
use types::id::{KeyId, SaeId, SiteId};
use types::units::Time;

use crate::record::{DeliveryRecord, Kind, Parties};

#[derive(Debug)]
struct Waiting {
    record: DeliveryRecord,
    /// None if all slaves have it and only its id is kept.
    key: Option<SecretBytes>,
}

/// All keys that wait for slaves of this site.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    keys: BTreeMap<KeyId, Waiting>,
    assigned: BTreeSet<(KeyId, KeyId)>,
    expiry: VecDeque<(Time, KeyId)>,
    parties: BTreeSet<Arc<Parties>>,
    parties_max: usize,
    /// Keys that a withdrawal holds, until when.
    withheld: BTreeMap<KeyId, (KeyId, Time)>,
}

/// Why keys are not given to a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDelivered {
    /// At least one is not here.
    Missing,
    /// At least one is for another SAE.
    NotTheSlave,
    /// At least one is being withdrawn.
    Withheld,
}

/// A key for its slave.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) id: KeyId,
    pub(crate) key: SecretBytes,
    /// With the slave's bit cleared.
    pub(crate) record: DeliveryRecord,
    /// What is left of the record.
    pub(crate) left: Left,
}

/// What a fetch leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The key, for other slaves.
    Key,
    /// The id.
    Id,
    /// Nothing.
    Nothing,
}

/// A key that was destroyed.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) id: KeyId,
    pub(crate) record: DeliveryRecord,
    /// Bytes of the key; 0 if only the id was here.
    pub(crate) bytes: usize,
}

impl Deliveries {
    /// Keys that wait, and ids that are kept.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What is known of a key id.
    pub(crate) fn record(&self, id: KeyId) -> Option<&DeliveryRecord> {
        self.keys.get(&id).map(|waiting| &waiting.record)
    }

    /// Whether the bits wait under this id. A key that all slaves have passes for any.
    pub(crate) fn is_same(&self, id: KeyId, key: &SecretBytes) -> bool {
        self.keys.get(&id).is_some_and(|waiting| waiting.key.as_ref().is_none_or(|ours| ours == key))
    }

    /// The keys of an assignment.
    pub(crate) fn ids(&self, assign: KeyId) -> Vec<KeyId> {
        let nil = KeyId(types::id::Uuid::nil());
        self.assigned.range((assign, nil)..).take_while(|(of, _)| *of == assign).map(|(_, id)| *id).collect()
    }

    /// Whose the keys of an assignment are.
    pub(crate) fn parties_of(&self, assign: KeyId) -> Option<&Arc<Parties>> {
        let nil = KeyId(types::id::Uuid::nil());
        let (_, id) = self.assigned.range((assign, nil)..).next().filter(|(of, _)| *of == assign)?;
        self.record(*id).map(|record| &record.parties)
    }

    /// The one copy of what many keys have in common.
    pub(crate) fn shared(&mut self, parties: Parties) -> Arc<Parties> {
        if let Some(shared) = self.parties.get(&parties) {
            return Arc::clone(shared);
        }
        if self.parties.len() >= self.parties_max {
            self.parties.retain(|parties| Arc::strong_count(parties) > 1);
            self.parties_max = 2 * self.parties.len() + 256;
        }
        let shared = Arc::new(parties);
        self.parties.insert(Arc::clone(&shared));
        shared
    }

    /// Adds a key, or the id of one; `expires` must not go back from call to call unless [`Self::sort_expiry`] follows.
    pub(crate) fn add(&mut self, id: KeyId, record: DeliveryRecord, key: Option<SecretBytes>, expires: Time) {
        self.assigned.insert((record.assign, id));
        let before = self.keys.insert(id, Waiting { record, key });
        assert!(before.is_none(), "the caller checked that the id is new");
        self.expiry.push_back((expires, id));
        if self.expiry.len() > 2 * self.keys.len() + 1_024 {
            self.expiry.retain(|(_, id)| self.keys.contains_key(id));
        }
    }

    /// Puts in order what was added in any order.
    pub(crate) fn sort_expiry(&mut self) {
        self.expiry.make_contiguous().sort_by_key(|(at, _)| *at);
    }

    /// Takes the keys for a slave. All or nothing.
    pub(crate) fn take(
        &mut self,
        now: Time,
        master: &SaeId,
        slave: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<Delivered>, NotDelivered> {
        for id in ids {
            let Waiting { record, .. } = self.keys.get(id).ok_or(NotDelivered::Missing)?;
            let parties = &record.parties;
            let bit = parties.slaves.iter().position(|other| other == slave).ok_or(NotDelivered::NotTheSlave)?;
            let here = matches!(parties.kind, Kind::Supplied | Kind::Imported);
            if parties.master != *master || !here || record.pending >> bit & 1 == 0 {
                return Err(NotDelivered::Missing);
            }
            if self.withheld.get(id).is_some_and(|(_, until)| now < *until) {
                return Err(NotDelivered::Withheld);
            }
        }
        Ok(ids.iter().filter_map(|id| self.give(*id, slave)).collect())
    }

    fn give(&mut self, id: KeyId, slave: &SaeId) -> Option<Delivered> {
        let waiting = self.keys.get_mut(&id)?;
        let bit = waiting.record.parties.slaves.iter().position(|other| other == slave)?;
        waiting.record.pending &= !(1 << bit);
        let record = waiting.record.clone();
        if record.pending != 0 {
            let key = waiting.key.as_ref()?.duplicate();
            return Some(Delivered { id, key, record, left: Left::Key });
        }
        let key = waiting.key.take()?;
        if record.parties.kind == Kind::Imported {
            return Some(Delivered { id, key, record, left: Left::Id });
        }
        self.remove(id);
        Some(Delivered { id, key, record, left: Left::Nothing })
    }

    /// Destroys the keys of an assignment.
    pub(crate) fn void(&mut self, assign: KeyId) -> Vec<Gone> {
        self.ids(assign).into_iter().filter_map(|id| self.destroy(id)).collect()
    }

    /// The assignments of a site of which keys are still here, each once.
    pub(crate) fn assigned_by(&self, owner: &SiteId) -> BTreeSet<KeyId> {
        let here = |waiting: &&Waiting| waiting.key.is_some() && waiting.record.parties.owner == *owner;
        self.keys.values().filter(here).map(|waiting| waiting.record.assign).collect()
    }

    /// Destroys one key and forgets its id.
    pub(crate) fn destroy(&mut self, id: KeyId) -> Option<Gone> {
        let waiting = self.remove(id)?;
        Some(Gone { id, record: waiting.record, bytes: waiting.key.map_or(0, |key| key.len()) })
    }

    /// Destroys what waited too long.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Gone> {
        let mut gone = Vec::new();
        while let Some((_, id)) = self.expiry.pop_front_if(|(at, _)| *at <= now) {
            gone.extend(self.destroy(id));
        }
        gone
    }

    /// When [`Self::expire`] may have something to do.
    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.expiry.front().map(|(at, _)| *at)
    }

    /// Gives the keys of an assignment another kind; keys that another network has or had are wiped here. Says the
    /// keys that were.
    pub(crate) fn turn(&mut self, assign: KeyId, kind: &Kind) -> Vec<(KeyId, DeliveryRecord, Option<SecretBytes>)> {
        let Some(parties) =
            self.parties_of(assign).map(|parties| Parties { kind: kind.clone(), ..(**parties).clone() })
        else {
            return Vec::new();
        };
        let parties = self.shared(parties);
        let mut turned = Vec::new();
        for id in self.ids(assign) {
            let waiting = self.keys.get_mut(&id).expect("assigned keys are there");
            waiting.record.parties = Arc::clone(&parties);
            turned.push((id, waiting.record.clone(), waiting.key.take()));
        }
        turned
    }

    /// Copies of the keys of an assignment.
    pub(crate) fn copies(&self, assign: KeyId) -> Vec<(KeyId, SecretBytes)> {
        let key = |id| Some((id, self.keys.get(&id)?.key.as_ref()?.duplicate()));
        self.ids(assign).into_iter().filter_map(key).collect()
    }

    /// Assignments that are on their way into another network or out of it, each once.
    pub(crate) fn exports(&self) -> Vec<KeyId> {
        let abroad =
            |waiting: &&Waiting| matches!(waiting.record.parties.kind, Kind::Export { .. } | Kind::ExportVoid { .. });
        let assigns: BTreeSet<KeyId> = self.keys.values().filter(abroad).map(|waiting| waiting.record.assign).collect();
        assigns.into_iter().collect()
    }

    /// Of the ids, those of keys that a site imported for a master; [`None`] if a slave has fetched one.
    pub(crate) fn withdrawable(&self, owner: &SiteId, master: &SaeId, ids: &[KeyId]) -> Option<Vec<KeyId>> {
        let imported = |id: &&KeyId| {
            let record = self.record(**id);
            record.is_some_and(|DeliveryRecord { parties, .. }| {
                parties.kind == Kind::Imported && parties.owner == *owner && parties.master == *master
            })
        };
        let ids: Vec<KeyId> = ids.iter().filter(imported).copied().collect();
        let whole = |id: &KeyId| self.record(*id).is_some_and(|record| record.pending == record.parties.all());
        ids.iter().all(whole).then_some(ids)
    }

    /// Gives none of the keys away until `until`.
    pub(crate) fn withhold(&mut self, now: Time, withdraw: KeyId, ids: &[KeyId], until: Time) {
        self.withheld.retain(|_, (_, until)| now < *until);
        ids.iter().for_each(|id| _ = self.withheld.insert(*id, (withdraw, until)));
    }

    /// Ends [`Self::withhold`].
    pub(crate) fn release(&mut self, withdraw: KeyId) {
        self.withheld.retain(|_, (by, _)| *by != withdraw);
    }

    fn remove(&mut self, id: KeyId) -> Option<Waiting> {
        let waiting = self.keys.remove(&id)?;
        self.assigned.remove(&(waiting.record.assign, id));
        self.withheld.remove(&id);
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use types::units::UtcNanos;

    use super::*;

    fn id(n: u8) -> KeyId {
        KeyId::from_random([n; 16])
    }

    fn sae(name: &str) -> SaeId {
        SaeId::new(name).unwrap()
    }

    fn record(deliveries: &mut Deliveries, slaves: &[&str], kind: Kind) -> DeliveryRecord {
        let slaves = slaves.iter().map(|name| sae(name)).collect();
        let parties = Parties { owner: SiteId::new("a").unwrap(), master: sae("m"), slaves, kind };
        let parties = deliveries.shared(parties);
        let (since, pending) = (UtcNanos(0), parties.all());
        DeliveryRecord { assign: id(100), since, parties, pending, origin: Arc::default() }
    }

    fn take(d: &mut Deliveries, master: &str, slave: &str, ids: &[KeyId]) -> Result<Vec<Left>, NotDelivered> {
        let taken = d.take(Time::from_nanos(1), &sae(master), &sae(slave), ids);
        taken.map(|keys| keys.into_iter().map(|key| key.left).collect())
    }

    #[test]
    fn only_the_slave_gets_all_keys_once() {
        let mut deliveries = Deliveries::default();
        for n in 0..3 {
            let record = record(&mut deliveries, &["s"], Kind::Supplied);
            deliveries.add(id(n), record, Some(SecretBytes::copy_of(&[n; 32])), Time::from_nanos(5));
        }
        assert_eq!(deliveries.parties.len(), 1, "what is common is held once");
        let d = &mut deliveries;
        assert_eq!(take(d, "m", "t", &[id(0)]), Err(NotDelivered::NotTheSlave));
        assert_eq!(take(d, "n", "s", &[id(0)]), Err(NotDelivered::Missing));
        assert_eq!(take(d, "m", "s", &[id(0), id(9)]), Err(NotDelivered::Missing));
        assert_eq!(take(d, "m", "s", &[id(0), id(2)]), Ok(vec![Left::Nothing, Left::Nothing]));
        assert_eq!(take(d, "m", "s", &[id(0)]), Err(NotDelivered::Missing));
        assert!(deliveries.expire(Time::from_nanos(4)).is_empty());
        assert_eq!(deliveries.next_expiry(), Some(Time::from_nanos(5)));
        let gone = deliveries.expire(Time::from_nanos(5));
        assert_eq!((gone.len(), gone[0].id, gone[0].bytes), (1, id(1), 32));
        assert_eq!((deliveries.next_expiry(), deliveries.parties_of(id(100)).is_none()), (None, true));
    }

    #[test]
    fn each_slave_fetches_once_and_the_id_of_an_imported_key_stays() {
        let mut deliveries = Deliveries::default();
        let record = record(&mut deliveries, &["s", "t"], Kind::Imported);
        deliveries.add(id(1), record, Some(SecretBytes::copy_of(&[1; 32])), Time::from_nanos(5));
        let owner = SiteId::new("a").unwrap();
        assert_eq!(deliveries.withdrawable(&owner, &sae("m"), &[id(1), id(2)]), Some(vec![id(1)]));
        assert_eq!(deliveries.withdrawable(&owner, &sae("n"), &[id(1)]), Some(vec![]));
        deliveries.withhold(Time::ZERO, id(50), &[id(1)], Time::from_nanos(9));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(1)]), Err(NotDelivered::Withheld));
        deliveries.release(id(50));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(1)]), Ok(vec![Left::Key]));
        assert_eq!(take(&mut deliveries, "m", "s", &[id(1)]), Err(NotDelivered::Missing));
        assert_eq!(deliveries.withdrawable(&owner, &sae("m"), &[id(1)]), None);
        assert_eq!(take(&mut deliveries, "m", "t", &[id(1)]), Ok(vec![Left::Id]));
        assert_eq!(take(&mut deliveries, "m", "t", &[id(1)]), Err(NotDelivered::Missing));
        assert_eq!((deliveries.len(), deliveries.void(id(100))[0].bytes), (1, 0));
    }
}
