//! Keys for SAEs of several sites, or from another network: the same key bits carried to each site under a one-time
//! pad and a one-time tag of that pair's stock (ETSI GS QKD 014 V1.1.1, 6.2 and annex B). All sites or none.
//!
//! ```text
//! keys -> a part per site and size -> sealed, sent -> all acknowledged -> own slaves' keys stored, answered
//!                                          `-- one refuses, is down or late --> all parts void, pads burned
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crypto::domain::Domain;
use crypto::pad::OneTimePad;
use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use crypto::tag::{OneTimeTagKey, Tag};
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::Time;

use super::owner::{Assignment, Stage, refusal_of};
use super::supply::{Places, Wanted, random_id};
use super::{Kme, RETRY_SOON, Timer};
use crate::api::{Output, Refusal, Wishes};
use crate::config::{
    ASSIGN_ATTEMPTS_MAX, IMPORT_BYTES_MAX, NUMBER_MAX, PAIR_KEY_BYTES, REQUEST_BYTES_MAX, SIZE_MAX_BITS, SIZE_MIN_BITS,
    SLAVES_MAX, WITHDRAW_MAX,
};
use crate::message::{Assign, AssignFailure, Carried};
use crate::origin::Origin;
use crate::record::Kind;
use crate::stock::Run;

/// Keys on their way to several sites.
#[derive(Debug)]
pub(super) struct Group {
    asker: Asker,
    wanted: Wanted,
    keys: BTreeMap<KeyId, SecretBytes>,
    /// The order in which the asker gets the keys.
    order: Vec<KeyId>,
    /// Slaves of this site.
    here: Vec<SaeId>,
    parts: BTreeSet<KeyId>,
    deadline: Time,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A master SAE of this site.
    Request(RequestId),
    /// Another network.
    Import(RequestId),
}

/// Keys of one size for the slaves of one site.
struct Part {
    peer: SiteId,
    slaves: Vec<SaeId>,
    size_bits: u32,
    ids: Vec<KeyId>,
}

/// A part with the key that hides it.
struct Drawn {
    part: Part,
    runs: Vec<Run>,
    pad: SecretBytes,
}

impl Part {
    /// Pair keys that carry it.
    fn pair_keys(&self) -> usize {
        let bytes = usize::try_from(self.size_bits / 8).expect("key sizes are small") * self.ids.len();
        (bytes + OneTimeTagKey::LEN).div_ceil(PAIR_KEY_BYTES)
    }
}

impl Kme {
    /// Carries keys to all places. All or nothing.
    pub(super) fn start_group(
        &mut self,
        now: Time,
        asker: Asker,
        wanted: &Wanted,
        keys: Vec<(KeyId, SecretBytes)>,
        mut places: Places,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        let here = places.remove(&self.config.site).unwrap_or_default();
        if places.keys().any(|site| !self.answers(site)) {
            return Err(Refusal::PeerDown { retry_after: RETRY_SOON });
        }
        let room = here.is_empty() || self.deliveries.len() + keys.len() <= self.config.deliveries_max;
        let parts: Vec<Part> = places.iter().flat_map(|(peer, slaves)| parts(peer, slaves, &keys)).collect();
        if !room || self.assignments.len() + parts.len() > self.config.requests_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        for peer in places.keys() {
            let needed = parts.iter().filter(|part| part.peer == *peer).map(Part::pair_keys).sum();
            self.check_keys(peer, needed, wanted)?;
        }
        let mut drawn: Vec<Drawn> = Vec::new();
        for part in parts {
            match self.take_keys(&part.peer, part.pair_keys(), wanted) {
                Ok((runs, pad)) => drawn.push(Drawn { part, runs, pad }),
                Err(refusal) => {
                    // Nothing was sealed with these yet.
                    for Drawn { part, runs, pad } in drawn {
                        self.peer(&part.peer).own.put_back(&runs, &pad);
                    }
                    return Err(refusal);
                }
            }
        }
        self.groups_begun += 1;
        let number = self.groups_begun;
        let order = keys.iter().map(|(id, _)| *id).collect();
        let deadline = now.after(self.config.supply_deadline);
        let (wanted, parts) = (wanted.clone(), BTreeSet::new());
        let group = Group { asker, wanted, keys: keys.into_iter().collect(), order, here, parts, deadline };
        self.groups.insert(number, group);
        self.timers.insert((deadline, Timer::Group(number)));
        for drawn in drawn {
            self.send_part(now, number, drawn, 1, rng);
        }
        if self.groups[&number].parts.is_empty() {
            self.finish_group(now, number, rng);
        }
        Ok(())
    }

    fn send_part(&mut self, now: Time, number: u64, drawn: Drawn, attempts: u8, rng: &mut impl CryptoRng) {
        let group = self.groups.get_mut(&number).expect("the caller has the group");
        let imported = matches!(group.asker, Asker::Import(_));
        let (master, id) = (group.wanted.master.clone(), random_id(rng));
        let Drawn { part: Part { peer, slaves, size_bits, ids }, runs, pad } = drawn;
        let carried = Some(Carried { imported, sealed: Vec::new(), tag: Tag([0; Tag::LEN]) });
        let mut assign = Assign { assign: id, master, slaves, size_bits, ids, runs, carried, passed_on: None };
        let (sealed, tag) = seal(&assign, &group.keys, pad);
        assign.carried = Some(Carried { imported, sealed, tag });
        group.parts.insert(id);
        let wanted = group.wanted.clone();
        self.grouped(now, peer, assign, number, attempts, &wanted);
    }

    /// A site has its part.
    pub(super) fn member_acked(&mut self, now: Time, number: u64, rng: &mut impl CryptoRng) {
        let Some(group) = self.groups.get(&number) else { return };
        let acked = |id: &KeyId| {
            let stage = self.assignments.get(id).map(|assignment| assignment.stage);
            matches!(stage, Some(Stage::Grouped { acked: true, .. }))
        };
        if group.parts.iter().all(acked) {
            self.finish_group(now, number, rng);
        }
    }

    /// A site has not taken its part, which is off the books already.
    pub(super) fn member_refused(
        &mut self,
        now: Time,
        number: u64,
        part: Assignment,
        reason: AssignFailure,
        rng: &mut impl CryptoRng,
    ) {
        let Assignment { peer, assign, attempts, .. } = part;
        self.burn_assigned(&peer, &assign);
        let Some(group) = self.groups.get_mut(&number) else { return };
        group.parts.remove(&assign.assign);
        let wanted = group.wanted.clone();
        let again = reason == AssignFailure::Missing && attempts < ASSIGN_ATTEMPTS_MAX;
        let Assign { slaves, size_bits, ids, .. } = assign;
        let part = Part { peer, slaves, size_bits, ids };
        let taken = if again { self.take_keys(&part.peer, part.pair_keys(), &wanted) } else { Err(refusal_of(reason)) };
        match taken {
            Ok((runs, pad)) => self.send_part(now, number, Drawn { part, runs, pad }, attempts + 1, rng),
            Err(refusal) => self.void_group(number, refusal),
        }
    }

    /// All sites have their parts: the pads are used, the slaves here get theirs, the asker is answered.
    fn finish_group(&mut self, now: Time, number: u64, rng: &mut impl CryptoRng) {
        let Some(group) = self.groups.get(&number) else { return };
        let imported = matches!(group.asker, Asker::Import(_));
        if !group.here.is_empty() {
            let taken = |id: &&KeyId| self.deliveries.record(**id).is_some();
            let (known, room) = (group.order.iter().filter(taken).count(), self.config.deliveries_max);
            let same = imported && self.is_same_import(group);
            if known > 0 && !same || self.deliveries.len() + group.order.len() - known > room {
                let refusal =
                    if known > 0 { refusal_of(AssignFailure::InUse) } else { refusal_of(AssignFailure::Refused) };
                return self.void_group(number, refusal);
            }
        }
        let Some(mut group) = self.group_ended(number) else { return };
        let mut origins = Vec::new();
        for id in &group.parts {
            if let Some(part) = self.assignment_ended(*id) {
                origins.push(self.spend(&part.peer, &part.assign.runs));
            }
        }
        let mut key = |id: &KeyId| group.keys.remove(id).map(|key| (*id, key));
        let keys: Vec<(KeyId, SecretBytes)> = group.order.iter().filter_map(&mut key).collect();
        if !group.here.is_empty() && self.deliveries.record(keys[0].0).is_none() {
            let kind = if imported { Kind::Imported } else { Kind::Supplied };
            let wanted = Wanted { slaves: group.here.clone(), ..group.wanted.clone() };
            self.store_here(now, &wanted, kind, &keys, rng);
        }
        let Wanted { master, slaves, .. } = &group.wanted;
        match group.asker {
            Asker::Request(id) => {
                let origin = Origin::of_parts(&origins);
                let target = self.directory.get(&slaves[0]).unwrap_or(&self.config.site);
                let told = origin.told(&self.config.site, target, self.utc());
                self.supplied(id, master, slaves, keys, &told);
            }
            Asker::Import(id) => {
                self.note_supplied(master, slaves, &keys);
                self.journal.effect(Output::Imported { id, result: Ok(()) });
            }
        }
    }

    /// Whether all keys of an import are here already, from the same import.
    fn is_same_import(&self, group: &Group) -> bool {
        group.keys.iter().all(|(id, key)| {
            let record = self.deliveries.record(*id);
            let same = record.is_some_and(|record| {
                let parties = &record.parties;
                let ours = parties.owner == self.config.site && parties.kind == Kind::Imported;
                ours && parties.master == group.wanted.master && parties.slaves == group.here
            });
            same && self.deliveries.is_same(*id, key)
        })
    }

    pub(super) fn group_due(&mut self, number: u64) {
        self.void_group(number, Refusal::PeerDown { retry_after: RETRY_SOON });
    }

    /// A site waits for another network.
    pub(super) fn extend_group(&mut self, number: u64, deadline: Time) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        self.timers.remove(&(group.deadline, Timer::Group(number)));
        group.deadline = group.deadline.max(deadline);
        self.timers.insert((group.deadline, Timer::Group(number)));
    }

    /// Voids a group at all sites and refuses it.
    pub(super) fn void_group(&mut self, number: u64, refusal: Refusal) {
        let Some(group) = self.group_ended(number) else { return };
        for id in &group.parts {
            let Some(part) = self.assignment_ended(*id) else { continue };
            if matches!(refusal, Refusal::PeerDown { .. }) && matches!(part.stage, Stage::Grouped { acked: false, .. })
            {
                self.peer(&part.peer).silent = true;
            }
            self.burn_assigned(&part.peer, &part.assign);
        }
        match group.asker {
            Asker::Request(id) => self.refuse(id, refusal),
            Asker::Import(id) => self.journal.effect(Output::Imported { id, result: Err(refusal) }),
        }
    }

    fn group_ended(&mut self, number: u64) -> Option<Group> {
        let group = self.groups.remove(&number)?;
        self.timers.remove(&(group.deadline, Timer::Group(number)));
        Some(group)
    }

    /// Whether keys of these ids are on their way.
    pub(super) fn is_importing(&self, ids: &[KeyId]) -> bool {
        self.groups.values().any(|group| ids.iter().any(|id| group.keys.contains_key(id)))
    }

    pub(super) fn import(
        &mut self,
        now: Time,
        id: RequestId,
        initiator: SaeId,
        targets: Vec<SaeId>,
        keys: Vec<(KeyId, SecretBytes)>,
        rng: &mut impl CryptoRng,
    ) {
        let started = self.importable(&initiator, &targets, &keys).and_then(|places| {
            let size_bits = SIZE_MIN_BITS;
            let class = self.quotas.policy(&initiator).priority;
            let (number, wishes) = (keys.len(), Wishes::default());
            let wanted = Wanted { master: initiator, slaves: targets, size_bits, number, wishes, class };
            self.start_group(now, Asker::Import(id), &wanted, keys, places, rng)
        });
        if let Err(refusal) = started {
            self.journal.effect(Output::Imported { id, result: Err(refusal) });
        }
    }

    fn importable(
        &self,
        initiator: &SaeId,
        targets: &[SaeId],
        keys: &[(KeyId, SecretBytes)],
    ) -> Result<Places, Refusal> {
        let bad = |message: &str| Err(Refusal::BadParameter { message: message.to_owned() });
        let site = &self.config.site;
        let ours = self.directory.get(initiator).is_some_and(|at| at != site || !self.foreign.contains_key(initiator));
        if ours {
            return bad("the initiator is an SAE of this network");
        }
        let distinct: BTreeSet<&SaeId> = targets.iter().collect();
        if !(1..=SLAVES_MAX).contains(&targets.len()) || distinct.len() != targets.len() || targets.contains(initiator)
        {
            return bad("an import shall name 1 to 17 targets, each once");
        }
        if let Some(sae) = targets.iter().find(|target| self.foreign.contains_key(target)) {
            // It would go back where it came from, or through without a site in between.
            return Err(Refusal::UnknownSae { sae: sae.clone() });
        }
        let ids: BTreeSet<&KeyId> = keys.iter().map(|(id, _)| id).collect();
        if !(1..=WITHDRAW_MAX).contains(&keys.len()) || ids.len() != keys.len() {
            return bad("an import shall have 1 to 1024 keys, each under its own id");
        }
        let sizes = usize::try_from(SIZE_MIN_BITS / 8).unwrap_or(0)..=usize::try_from(SIZE_MAX_BITS / 8).unwrap_or(0);
        if keys.iter().any(|(_, key)| !sizes.contains(&key.len())) {
            return bad("size shall be between 64 and 65536");
        }
        if keys.iter().map(|(_, key)| key.len()).sum::<usize>() > IMPORT_BYTES_MAX {
            return bad("an import has too many bytes");
        }
        let ids: Vec<KeyId> = ids.into_iter().copied().collect();
        if self.is_importing(&ids) {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        self.places(targets)
    }
}

/// Splits keys by size, and so that each part fits a message.
fn parts(peer: &SiteId, slaves: &[SaeId], keys: &[(KeyId, SecretBytes)]) -> Vec<Part> {
    let mut by_size: BTreeMap<usize, Vec<KeyId>> = BTreeMap::new();
    keys.iter().for_each(|(id, key)| by_size.entry(key.len()).or_default().push(*id));
    let part = |size: usize, ids: &[KeyId]| {
        let size_bits = u32::try_from(8 * size).expect("key sizes are small");
        Part { peer: peer.clone(), slaves: slaves.to_vec(), size_bits, ids: ids.to_vec() }
    };
    let most = |size: usize| (REQUEST_BYTES_MAX / size).min(usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX));
    by_size.iter().flat_map(|(size, ids)| ids.chunks(most(*size)).map(|ids| part(*size, ids))).collect()
}

/// Hides the keys of an assignment under its pad and tags it.
fn seal(assign: &Assign, keys: &BTreeMap<KeyId, SecretBytes>, mut pad: SecretBytes) -> (Vec<u8>, Tag) {
    let tag_key = pad.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new).expect("the pad begins with it");
    let len = assign.key_bytes() * assign.ids.len();
    let pad = pad.part(0, len).expect("as much was drawn as is needed");
    let mut sealed = SecretBytes::from_vec(vec![0; len]);
    sealed.expose_mut(|sealed| {
        for (to, id) in sealed.chunks_exact_mut(assign.key_bytes()).zip(&assign.ids) {
            keys[id].expose(|key| to.copy_from_slice(key));
        }
        OneTimePad::new(pad).apply(sealed).expect("the pad is as long as the keys");
    });
    let sealed = sealed.into_public("under a one-time pad");
    let tag = tag_key.tag(Domain::AssignCarried, &[&assign.header(), &sealed]);
    (sealed, tag)
}

/// Opens carried keys with the pad; `None` if the tag is wrong.
pub(super) fn open(assign: &Assign, carried: &Carried, mut pad: SecretBytes) -> Option<SecretBytes> {
    let tag_key = pad.split_front(OneTimeTagKey::LEN).and_then(OneTimeTagKey::new)?;
    tag_key.verify(Domain::AssignCarried, &[&assign.header(), &carried.sealed], &carried.tag).ok()?;
    let pad = pad.part(0, carried.sealed.len())?;
    let mut keys = SecretBytes::copy_of(&carried.sealed);
    keys.expose_mut(|keys| OneTimePad::new(pad).apply(keys)).ok()?;
    Some(keys)
}
