//! What SAEs of this site ask (ETSI GS QKD 014): status, get key, get key with key IDs.
//!
//! ```text
//! get key -> checked -> quota -> key for it? -- yes --> one site: assignment; several: carried group; none: here
//!                                     `-- no --> waits in the order of classes, or is refused with a forecast
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crypto::rand_core::CryptoRng;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::{BitLen, Time};

use super::owner::Stage;
use super::{Kme, RETRY_SOON};
use crate::api::{KeyOrigin, Output, PairStatus, Priority, Refusal, SuppliedKey, SupplyReply, SupplyRequest, Wishes};
use crate::config::{ADDITIONAL_MAX, NUMBER_MAX, PAIR_KEY_BYTES, REQUEST_BYTES_MAX, SIZE_MAX_BITS, SIZE_MIN_BITS};
use crate::delivery::{Delivered, Left, NotDelivered};
use crate::kme::group::Asker;
use crate::origin::Origin;
use crate::record::{self, DeliveryRecord, Kind, Parties};
use crate::wish::Fit;

/// A request for keys whose parameters are in range.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) master: SaeId,
    pub(super) slaves: Vec<SaeId>,
    pub(super) size_bits: u32,
    pub(super) number: usize,
    pub(super) wishes: Wishes,
    pub(super) class: Priority,
}

impl Wanted {
    pub(super) fn key_bytes(&self) -> usize {
        usize::try_from(self.size_bits / 8).expect("key sizes are small")
    }

    pub(super) fn bytes(&self) -> usize {
        self.key_bytes() * self.number
    }
}

/// Slaves by the site that serves them.
pub(super) type Places = BTreeMap<SiteId, Vec<SaeId>>;

impl Kme {
    pub(super) fn request(
        &mut self,
        now: Time,
        id: RequestId,
        sae: SaeId,
        request: SupplyRequest,
        rng: &mut impl CryptoRng,
    ) {
        let ours = self.directory.get(&sae) == Some(&self.config.site) && !self.foreign.contains_key(&sae);
        let outcome = if ours {
            match request {
                SupplyRequest::Status { slave } => self.status(id, &sae, slave),
                SupplyRequest::Encrypt { slave, additional, number, size_bits, wishes } => self
                    .wanted(&sae, slave, additional, number, size_bits, wishes)
                    .and_then(|wanted| self.admit(now, id, wanted, rng)),
                SupplyRequest::Decrypt { master, ids } => self.deliver(id, &master, &sae, &ids),
            }
        } else {
            Err(Refusal::NotAuthorised { reason: "the SAE is not registered at this KME" })
        };
        if let Err(refusal) = outcome {
            if matches!(refusal, Refusal::NotAuthorised { .. } | Refusal::KeysNotFound) {
                self.journal.event(Event::RequestRefused { sae, reason: refusal.to_string() });
            }
            self.refuse(id, refusal);
        }
    }

    pub(super) fn refuse(&mut self, id: RequestId, refusal: Refusal) {
        self.counters.requests_refused += 1;
        self.quotas.refund(id);
        self.journal.effect(Output::Reply { id, result: Err(refusal) });
    }

    fn status(&mut self, id: RequestId, master: &SaeId, slave: SaeId) -> Result<(), Refusal> {
        let Some(target) = self.directory.get(&slave) else { return Err(Refusal::UnknownSae { sae: slave }) };
        let target_keys = self.config.target_keys;
        let stored = if *target == self.config.site {
            target_keys
        } else {
            let class = self.quotas.policy(master).priority;
            let ready = self.peers.get(target).map_or(0, |peer| peer.own.ready());
            let keys = ready.saturating_sub(self.floor(class)) * PAIR_KEY_BYTES * 8;
            let keys = keys / usize::try_from(self.config.key_size_bits).unwrap_or(usize::MAX);
            u32::try_from(keys).unwrap_or(u32::MAX).min(target_keys)
        };
        let status = PairStatus {
            source_kme: self.config.site.clone(),
            target_kme: target.clone(),
            master: master.clone(),
            slave,
            key_size: self.config.key_size_bits,
            stored_key_count: stored,
            max_key_count: target_keys,
            max_key_per_request: NUMBER_MAX,
            max_key_size: SIZE_MAX_BITS,
            min_key_size: SIZE_MIN_BITS,
            max_sae_id_count: u32::try_from(ADDITIONAL_MAX).expect("it is a small number"),
        };
        self.journal.direct(Output::Reply { id, result: Ok(SupplyReply::Status(status)) });
        Ok(())
    }

    /// Checks the parameters of get key.
    fn wanted(
        &self,
        master: &SaeId,
        slave: SaeId,
        additional: Vec<SaeId>,
        number: u32,
        size_bits: Option<u32>,
        wishes: Wishes,
    ) -> Result<Wanted, Refusal> {
        let bad = |message: String| Err(Refusal::BadParameter { message });
        let size_bits = size_bits.unwrap_or(self.config.key_size_bits);
        if !(1..=NUMBER_MAX).contains(&number) {
            return bad(format!("number shall be between 1 and {NUMBER_MAX}"));
        }
        // ETSI GS QKD 014, 6.2.
        if !size_bits.is_multiple_of(8) {
            return bad("size shall be a multiple of 8".to_owned());
        }
        if !(SIZE_MIN_BITS..=SIZE_MAX_BITS).contains(&size_bits) {
            return bad(format!("size shall be between {SIZE_MIN_BITS} and {SIZE_MAX_BITS}"));
        }
        if additional.len() > ADDITIONAL_MAX {
            return bad(format!("additional_slave_SAE_IDs shall name at most {ADDITIONAL_MAX} SAEs"));
        }
        let multicast = !additional.is_empty();
        let slaves: Vec<SaeId> = std::iter::once(slave).chain(additional).collect();
        if slaves.contains(master) && (multicast || !self.config.allow_self_pair) {
            return bad("master and slave SAE shall differ".to_owned());
        }
        if slaves.iter().collect::<BTreeSet<_>>().len() != slaves.len() {
            return bad("each slave SAE shall be named once".to_owned());
        }
        if let Some(unknown) = slaves.iter().find(|slave| !self.directory.contains_key(slave)) {
            return Err(Refusal::UnknownSae { sae: unknown.clone() });
        }
        if multicast && slaves.iter().any(|slave| self.foreign.contains_key(slave)) {
            return bad(NO_SHARING_ABROAD.to_owned());
        }
        let number = usize::try_from(number).expect("it was checked to be small");
        // A wish lowers the class, it never raises it.
        let policy = self.quotas.policy(master).priority;
        let class = wishes.priority.map_or(policy, |wish| wish.max(policy));
        let wanted = Wanted { master: master.clone(), slaves, size_bits, number, wishes, class };
        if wanted.bytes() > REQUEST_BYTES_MAX {
            return bad(format!("number times size shall be at most {} bits", REQUEST_BYTES_MAX * 8));
        }
        Ok(wanted)
    }

    /// Slaves by site.
    pub(super) fn places(&self, slaves: &[SaeId]) -> Result<Places, Refusal> {
        let mut places = Places::new();
        for slave in slaves {
            let site = self.directory.get(slave).ok_or_else(|| Refusal::UnknownSae { sae: slave.clone() })?;
            places.entry(site.clone()).or_default().push(slave.clone());
        }
        Ok(places)
    }

    /// Meets a request now, if there is key for it.
    pub(super) fn supply(
        &mut self,
        now: Time,
        id: RequestId,
        wanted: &Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        let places = self.places(&wanted.slaves)?;
        let mut remote = places.keys().filter(|site| **site != self.config.site);
        match (remote.next().cloned(), remote.next(), places.contains_key(&self.config.site)) {
            (None, ..) => self.supply_here(now, id, wanted, rng),
            (Some(peer), None, false) => self.supply_there(now, id, peer, wanted, rng),
            _ => {
                let keys = (0..wanted.number).map(|_| SecretBytes::random(wanted.key_bytes(), rng)).collect::<Vec<_>>();
                let keys = keys.into_iter().map(|key| (random_id(rng), key)).collect();
                self.start_group(now, Asker::Request(id), wanted, keys, places, rng)
            }
        }
    }

    /// All slaves are of one other site.
    fn supply_there(
        &mut self,
        now: Time,
        id: RequestId,
        peer: SiteId,
        wanted: &Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        if !self.answers(&peer) {
            return Err(Refusal::PeerDown { retry_after: RETRY_SOON });
        }
        let deadline = now.after(self.config.supply_deadline);
        if self.revive(now, id, wanted, deadline) {
            return Ok(());
        }
        if self.assignments.len() >= self.config.requests_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        self.start_assignment(now, peer, wanted.clone(), Stage::Requested { id, deadline }, 1, rng)
    }

    /// Whether a peer is up and does not leave requests unanswered.
    pub(super) fn answers(&self, site: &SiteId) -> bool {
        self.peers.get(site).is_some_and(|peer| peer.up && !peer.silent)
    }

    /// All SAEs are of this site: fresh keys that wait for the slaves here.
    fn supply_here(
        &mut self,
        now: Time,
        request: RequestId,
        wanted: &Wanted,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refusal> {
        if !Fit::new(&wanted.wishes, self.utc()).is_met_at_home() {
            return Err(Refusal::WishUnmeetable);
        }
        if self.deliveries.len() + wanted.number > self.config.deliveries_max {
            return Err(Refusal::Busy { retry_after: RETRY_SOON });
        }
        let keys: Vec<SecretBytes> = (0..wanted.number).map(|_| SecretBytes::random(wanted.key_bytes(), rng)).collect();
        let keys: Vec<(KeyId, SecretBytes)> = keys.into_iter().map(|key| (random_id(rng), key)).collect();
        if let Some(peer) = wanted.slaves.first().and_then(|slave| self.foreign.get(slave)).cloned() {
            self.export_here(now, request, wanted, keys, peer, rng);
            return Ok(());
        }
        self.store_here(now, wanted, Kind::Supplied, &keys, rng);
        let origin = Origin::new(Vec::new(), self.utc()).told(&self.config.site, &self.config.site, self.utc());
        self.supplied(request, &wanted.master, &wanted.slaves, keys, &origin);
        Ok(())
    }

    /// Stores keys that this site assigned for slaves of this site; says under which assignment.
    pub(super) fn store_here(
        &mut self,
        now: Time,
        wanted: &Wanted,
        kind: Kind,
        keys: &[(KeyId, SecretBytes)],
        rng: &mut impl CryptoRng,
    ) -> KeyId {
        let assign = random_id(rng);
        let (owner, master, slaves) = (self.config.site.clone(), wanted.master.clone(), wanted.slaves.clone());
        let parties = self.deliveries.shared(Parties { owner, master, slaves, kind });
        let (since, pending) = (self.utc(), parties.all());
        let origin = Arc::new(Origin::new(Vec::new(), since));
        let record = DeliveryRecord { assign, since, parties, pending, origin };
        self.store_deliveries(now, &record, keys);
        assign
    }

    /// Stores keys that wait here.
    pub(super) fn store_deliveries(&mut self, now: Time, record: &DeliveryRecord, keys: &[(KeyId, SecretBytes)]) {
        let expires = now.after(self.config.delivery_ttl);
        for (id, key) in keys {
            self.journal.change(record::put_delivery(*id, record, Some(key.duplicate())));
            self.deliveries.add(*id, record.clone(), Some(key.duplicate()), expires);
        }
    }

    /// Gives keys to the master.
    pub(super) fn supplied(
        &mut self,
        request: RequestId,
        master: &SaeId,
        slaves: &[SaeId],
        keys: Vec<(KeyId, SecretBytes)>,
        origin: &KeyOrigin,
    ) {
        self.counters.supplied_keys += keys.len() as u64;
        self.note_supplied(master, slaves, &keys);
        self.quotas.settle(request);
        let supplied = |(id, key)| SuppliedKey { id, key, origin: origin.clone() };
        let keys = keys.into_iter().map(supplied).collect();
        self.journal.effect(Output::Reply { id: request, result: Ok(SupplyReply::Keys(keys)) });
    }

    /// One event per slave.
    pub(super) fn note_supplied(&mut self, master: &SaeId, slaves: &[SaeId], keys: &[(KeyId, SecretBytes)]) {
        let Some((first, key)) = keys.first() else { return };
        for slave in slaves {
            self.journal.event(Event::KeysSupplied {
                master: master.clone(),
                slave: slave.clone(),
                first: *first,
                keys: keys.len() as u64,
                size: BitLen(8 * key.len() as u64),
            });
        }
    }

    /// Get key with key IDs.
    fn deliver(&mut self, id: RequestId, master: &SaeId, slave: &SaeId, ids: &[KeyId]) -> Result<(), Refusal> {
        let distinct: BTreeSet<&KeyId> = ids.iter().collect();
        if ids.is_empty() || ids.len() > usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX) {
            return Err(Refusal::BadParameter { message: format!("key_IDs shall name 1 to {NUMBER_MAX} keys") });
        }
        if distinct.len() != ids.len() {
            return Err(Refusal::BadParameter { message: "key_IDs shall name each key once".to_owned() });
        }
        let keys = self.deliveries.take(self.now, master, slave, ids).map_err(|why| match why {
            NotDelivered::Missing => Refusal::KeysNotFound,
            NotDelivered::NotTheSlave => Refusal::NotAuthorised { reason: "a key asked for is for another SAE" },
            NotDelivered::Withheld => Refusal::Busy { retry_after: RETRY_SOON },
        })?;
        for key in &keys {
            if key.record.parties.owner == self.config.site {
                self.spending.of_this_site_alone();
            }
            self.journal.change(match key.left {
                Left::Key => record::update_delivery(key.id, &key.record),
                Left::Id => record::put_delivery(key.id, &key.record, None),
                Left::Nothing => record::delete_delivery(key.id),
            });
        }
        self.counters.delivered_keys += ids.len() as u64;
        self.journal.event(Event::KeysDelivered {
            master: master.clone(),
            slave: slave.clone(),
            first: ids[0],
            keys: ids.len() as u64,
        });
        let (site, now) = (&self.config.site, self.utc());
        let supplied = |Delivered { id, key, record, .. }: Delivered| SuppliedKey {
            id,
            key,
            origin: record.origin.told(&record.parties.owner, site, now),
        };
        let keys = keys.into_iter().map(supplied).collect();
        self.journal.effect(Output::Reply { id, result: Ok(SupplyReply::Keys(keys)) });
        Ok(())
    }
}

pub(super) fn random_id(rng: &mut impl CryptoRng) -> KeyId {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    KeyId::from_random(bytes)
}

pub(super) const NO_SHARING_ABROAD: &str = "an SAE of another network cannot share a key with other slave SAEs";
