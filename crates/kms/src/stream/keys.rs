//! Where chunks come from: the owner has keys supplied and cuts them, the guest fetches the same keys by their ids.
//!
//! ```text
//! owner   Encrypt --> keys --> Chunks(ids) --> Accepted --> held, given
//! guest                        Chunks(ids) --> offered --first GET_KEY--> Decrypt --> held, given
//! ```
//! The owner gives no chunk before the guest's site has noted its keys, so that what one application has the other can
//! have. One request supplies many chunks when they are asked for in a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::secret::SecretBytes;
use etsi::etsi004::Status;
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::Time;

use super::Streams;
use super::book::Held;
use super::end::{Batch, EndId, Offer, Owner, Work};
use super::message::{Body, Lack, Party};
use super::qos::{Cut, wishes};
use crate::config::{NUMBER_MAX, REQUEST_BYTES_MAX};
use crate::{Refusal, SuppliedKey, SupplyReply, SupplyRequest};

/// Why the KME was asked.
#[derive(Debug)]
pub(super) enum Asked {
    /// For new chunks from `first` on.
    Allot { end: EndId, run: u64, first: u32, chunks: u32, peer: SiteId, owner: SaeId, guest: SaeId },
    /// For the keys of an offer.
    Fetch { end: EndId, run: u64, first: u32 },
    /// To destroy keys that nobody will ask for.
    Burn,
}

impl Streams {
    /// Asks the KME for the first chunk that somebody lacks, and for more if they are asked for in a row.
    pub(super) fn allot(&mut self, now: Time, id: EndId, lacking: &[u32]) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let Work::Owner(work) = &mut end.work else { return };
        let known = &end.book.known;
        work.wants.retain(|index| !known.contains(*index));
        let lacked = lacking.iter().filter(|index| !known.contains(**index)).chain(&work.wants).min().copied();
        let Some(first) = lacked else { return };
        if !work.standing || work.asked.is_some() || (end.here, end.there) != (Party::Open, Party::Open) {
            return;
        }
        if now < work.retry_at {
            end.again_at = Some(end.again_at.map_or(work.retry_at, |at| at.min(work.retry_at)));
            return;
        }
        let cut = Cut::of(&end.qos);
        let held: usize = self.ends.values().map(|end| end.book.bytes()).sum();
        let Some(end) = self.ends.get_mut(&id) else { return };
        let (known, Work::Owner(work)) = (&end.book.known, &mut end.work) else { return };
        let room = end.book.bytes() + cut.chunk <= self.config.held_bytes_max
            && held + cut.chunk <= self.config.held_bytes_total_max
            && work.batches.len() < BATCHES_MAX
            && known.has_room();
        if !room {
            return self.no_key(now, id, Lack::Key);
        }
        let chunks = known.free(first, chunks_at_once(work, first, cut, end.qos.max_bps));
        let run = end.run;
        let (owner, guest, peer) = (end.sae.clone(), end.other.clone(), end.peer.clone());
        let request = SupplyRequest::Encrypt {
            slave: guest.clone(),
            additional: Vec::new(),
            number: chunks * u32::from(cut.per),
            size_bits: Some(cut.size_bits()),
            wishes: wishes(&end.qos, chunks),
        };
        if !self.reaches(&peer) {
            return self.no_key(now, id, Lack::Connection);
        }
        let sae = owner.clone();
        let asked = self.ask(sae, request, Asked::Allot { end: id, run, first, chunks, peer, owner, guest });
        if let Some(Work::Owner(work)) = self.ends.get_mut(&id).map(|end| &mut end.work) {
            work.asked = Some(asked);
        }
    }

    /// Fetches the offers that hold what is lacking; asks the owner for the rest.
    pub(super) fn fetch(&mut self, now: Time, id: EndId, lacking: &[u32]) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let room = end.book.bytes() <= self.config.held_bytes_max;
        let (run, sae, master) = (end.run, end.sae.clone(), end.other.clone());
        let Work::Guest(work) = &mut end.work else { return };
        let mut fetched: Vec<(u32, Vec<KeyId>)> = Vec::new();
        let mut wanted = std::collections::BTreeSet::new();
        let mut again = None::<Time>;
        for index in lacking {
            let offer =
                work.offers.range_mut(..=*index).next_back().filter(|(first, offer)| offer.covers(**first, *index));
            match offer {
                Some((_, offer)) if offer.asked.is_some() || !room => {}
                Some((_, offer)) if now < offer.retry_at => {
                    again = Some(again.map_or(offer.retry_at, |at| at.min(offer.retry_at)));
                }
                Some((first, offer)) if fetched.iter().all(|(other, _)| other != first) => {
                    fetched.push((*first, offer.ids.clone()));
                }
                Some(_) => {}
                None => _ = wanted.insert(*index),
            }
        }
        let new = wanted.iter().any(|index| !work.wanted.contains(index));
        work.wanted = wanted;
        if let Some(again) = again {
            end.again_at = Some(end.again_at.map_or(again, |at| at.min(again)));
        }
        if new {
            self.hurry(now, id);
        }
        if !room {
            self.obstacle_of_all(id, Status::InsufficientKey);
        }
        for (first, ids) in fetched {
            let request = SupplyRequest::Decrypt { master: master.clone(), ids };
            let asked = self.ask(sae.clone(), request, Asked::Fetch { end: id, run, first });
            if let Some(Work::Guest(work)) = self.ends.get_mut(&id).map(|end| &mut end.work)
                && let Some(offer) = work.offers.get_mut(&first)
            {
                offer.asked = Some(asked);
            }
        }
    }

    /// Destroys keys that wait at the KME.
    pub(super) fn burn(&mut self, sae: &SaeId, master: &SaeId, offer: Offer) {
        if offer.asked.is_none() {
            let request = SupplyRequest::Decrypt { master: master.clone(), ids: offer.ids };
            self.ask(sae.clone(), request, Asked::Burn);
        }
    }

    /// The KME answered.
    pub(super) fn supplied(&mut self, now: Time, id: RequestId, result: Result<SupplyReply, Refusal>) {
        let keys = match result {
            Ok(SupplyReply::Keys(keys)) => Ok(keys),
            Ok(SupplyReply::Status(_)) => Ok(Vec::new()),
            Err(refusal) => Err(refusal),
        };
        match self.asked.remove(&id) {
            Some(Asked::Allot { end, run, first, chunks, peer, owner, guest }) => {
                if self.ends.get(&end).is_some_and(|end| end.run == run) {
                    self.allotted(now, end, first, chunks, keys);
                } else if let Ok(keys) = keys {
                    // The stream ended meanwhile: the other site shall destroy its copies as we do.
                    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
                    let per = u8::try_from(ids.len() / usize::try_from(chunks).unwrap_or(1)).unwrap_or(1);
                    self.send(&peer, end.ksid, run, Body::Chunks { owner, guest, first, per, ids });
                }
            }
            Some(Asked::Fetch { end, run, first }) => self.fetched(now, end, run, first, keys),
            Some(Asked::Burn) | None => {}
        }
    }

    fn allotted(&mut self, now: Time, id: EndId, first: u32, chunks: u32, keys: Result<Vec<SuppliedKey>, Refusal>) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let expires = Self::expires(end, now);
        let Work::Owner(work) = &mut end.work else { return };
        work.asked = None;
        let cut = Cut::of(&end.qos);
        match keys {
            Ok(keys) if keys.len() == usize::try_from(chunks).unwrap_or(usize::MAX) * usize::from(cut.per) => {
                let ids = keys.iter().map(|key| key.id).collect();
                let facts = facts(&keys);
                let pieces = cut_chunks(keys, cut);
                work.ahead = if first == work.next { (work.ahead * 2).min(AHEAD_MAX) } else { 2 };
                work.next = first.saturating_add(chunks);
                end.book.known.add(first, chunks);
                work.batches.insert(first, Batch { per: cut.per, ids, chunks: pieces, facts, expires });
                self.hurry(now, id);
            }
            Ok(_) => return self.no_key(now, id, Lack::Key),
            Err(_) if chunks > 1 => work.ahead = 1,
            Err(Refusal::PeerDown { .. } | Refusal::UnknownSae { .. } | Refusal::NotAuthorised { .. }) => {
                return self.no_key(now, id, Lack::Connection);
            }
            Err(_) => return self.no_key(now, id, Lack::Key),
        }
        self.step(now, id);
    }

    /// There is no key now: whoever waits goes on waiting and asks again a little later.
    fn no_key(&mut self, now: Time, id: EndId, lack: Lack) {
        let retry_at = now.after(self.config.retry);
        let Some(end) = self.ends.get_mut(&id) else { return };
        let (peer, run) = (end.peer.clone(), end.run);
        if let Work::Owner(work) = &mut end.work {
            work.retry_at = retry_at;
            end.again_at = Some(end.again_at.map_or(retry_at, |at| at.min(retry_at)));
            if !std::mem::take(&mut work.wants).is_empty() {
                self.send(&peer, id.ksid, run, Body::Unmet { lack });
            }
        }
        self.obstacle_of_all(id, status_of(lack));
        self.reschedule(id);
    }

    /// The guest's site noted the keys of a batch: now its chunks can be had here.
    pub(super) fn accepted(&mut self, now: Time, id: EndId, first: u32, taken: bool) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let expires = Self::expires(end, now);
        let Work::Owner(work) = &mut end.work else { return };
        if !taken {
            return self.obstacle_of_all(id, Status::InsufficientKey);
        }
        let Some(batch) = work.batches.remove(&first) else { return };
        if end.here == Party::Open {
            for (index, key) in (first..=u32::MAX).zip(batch.chunks) {
                end.book.hold(index, Held { key, since: now, facts: batch.facts.clone() }, expires);
            }
        }
    }

    /// The owner sent keys.
    pub(super) fn offered(&mut self, now: Time, id: EndId, from: &SiteId, first: u32, per: u8, ids: Vec<KeyId>) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let expires = Self::expires(end, now);
        let (run, closed) = (end.run, end.here == Party::Closed);
        let (sae, other) = (end.sae.clone(), end.other.clone());
        let fits = per == Cut::of(&end.qos).per;
        let Work::Guest(work) = &mut end.work else { return };
        let offer = Offer { per, ids, since: now, asked: None, retry_at: now };
        let known = &mut end.book.known;
        let chunks = offer.chunks();
        let taken = if !fits {
            return self.misbehaved(from, "chunks of another size than the stream's");
        } else if known.contains(first) {
            // Repeated because our answer was late or lost.
            true
        } else if known.free(first, chunks) < chunks {
            return self.misbehaved(from, "chunks that overlap with others");
        } else if closed {
            known.add(first, chunks);
            self.burn(&sae, &other, offer);
            true
        } else if known.has_room() && work.offered_keys + offer.ids.len() <= self.config.offered_keys_max {
            known.add(first, chunks);
            work.offered_keys += offer.ids.len();
            work.offers.insert(first, offer);
            work.expiry.push_back((expires, first));
            true
        } else {
            false
        };
        self.send(from, id.ksid, run, Body::Accepted { first, taken });
    }

    fn fetched(&mut self, now: Time, id: EndId, run: u64, first: u32, keys: Result<Vec<SuppliedKey>, Refusal>) {
        let retry_at = now.after(self.config.retry);
        let Some(end) = self.ends.get_mut(&id).filter(|end| end.run == run) else { return };
        let cut = Cut::of(&end.qos);
        let ttl = super::qos::ttl(&end.qos);
        let Work::Guest(work) = &mut end.work else { return };
        let Some(offer) = work.offers.get_mut(&first) else { return };
        match keys {
            Ok(keys) => {
                let offer = work.offers.remove(&first).expect("it was just found");
                work.offered_keys -= offer.ids.len();
                work.expiry.retain(|(_, other)| *other != first);
                if let Some(keys) = in_order(keys, &offer.ids) {
                    let facts = facts(&keys);
                    for (index, key) in (first..=u32::MAX).zip(cut_chunks(keys, cut)) {
                        let held = Held { key, since: offer.since, facts: facts.clone() };
                        end.book.hold(index, held, offer.since.after(ttl));
                    }
                }
            }
            // They are gone here: the chunks can never be had, and say so.
            Err(Refusal::KeysNotFound | Refusal::NotAuthorised { .. } | Refusal::BadParameter { .. }) => {
                let offer = work.offers.remove(&first).expect("it was just found");
                work.offered_keys -= offer.ids.len();
                work.expiry.retain(|(_, other)| *other != first);
            }
            Err(_) => (offer.asked, offer.retry_at) = (None, retry_at),
        }
        self.step(now, id);
    }

    /// Keys came for a stream that is not here: nobody will ask for them.
    pub(super) fn burn_stray(&mut self, from: &SiteId, owner: &SaeId, guest: &SaeId, ids: Vec<KeyId>) {
        let of_them = self.directory.get(owner) == Some(from) && self.directory.get(guest) == Some(&self.config.site);
        if of_them && self.asked.len() < BURNS_MAX {
            self.ask(guest.clone(), SupplyRequest::Decrypt { master: owner.clone(), ids }, Asked::Burn);
        }
    }

    /// The owner has nothing to give now.
    pub(super) fn unmet(&mut self, now: Time, id: EndId, lack: Lack) {
        let retry_at = now.after(self.config.retry);
        if let Some(end) = self.ends.get_mut(&id) {
            end.resend_at = end.resend_at.min(retry_at);
            end.pause = self.config.resend;
        }
        self.obstacle_of_all(id, status_of(lack));
    }
}

/// As many chunks as the row of demands, the KME's limits and one second of the stream's rate allow.
fn chunks_at_once(work: &Owner, first: u32, cut: Cut, max_bps: u32) -> u32 {
    let ahead = if first == work.next { work.ahead } else { 1 };
    let per_request = (usize::try_from(NUMBER_MAX).unwrap_or(usize::MAX) / usize::from(cut.per))
        .min(REQUEST_BYTES_MAX / (cut.key * usize::from(cut.per)));
    let per_second = usize::try_from(max_bps / 8).unwrap_or(usize::MAX) / cut.chunk;
    let most = if max_bps == 0 { per_request } else { per_request.min(per_second) };
    ahead.min(u32::try_from(most).unwrap_or(u32::MAX)).max(1)
}

/// Cuts every chunk from its keys; what the keys have more is destroyed.
fn cut_chunks(keys: Vec<SuppliedKey>, cut: Cut) -> Vec<SecretBytes> {
    let chunks = keys.chunks(usize::from(cut.per)).map(|keys| {
        let mut whole = SecretBytes::copy_of(&vec![0; cut.key * keys.len()]);
        whole.expose_mut(|whole| {
            for (place, key) in whole.chunks_mut(cut.key).zip(keys) {
                key.key.expose(|key| place.copy_from_slice(key));
            }
        });
        whole.part(0, cut.chunk).expect("the keys hold the chunk")
    });
    chunks.collect()
}

/// The keys in the order of their ids, if all are there.
fn in_order(keys: Vec<SuppliedKey>, ids: &[KeyId]) -> Option<Vec<SuppliedKey>> {
    let mut by_id: BTreeMap<KeyId, SuppliedKey> = keys.into_iter().map(|key| (key.id, key)).collect();
    ids.iter().map(|id| by_id.remove(id)).collect()
}

/// What the keys' origins say, for the metadata of their chunks: the longest way among them.
fn facts(keys: &[SuppliedKey]) -> Arc<str> {
    let ways = keys.iter().flat_map(|key| &key.origin.paths);
    let longest: &[SiteId] = ways.max_by_key(|way| way.len()).map_or(&[], Vec::as_slice);
    let hops = longest.len().saturating_sub(2);
    // Site ids need no escaping.
    let names: Vec<String> = longest.iter().map(|site| format!("\"{site}\"")).collect();
    format!("\"hops\":{hops},\"qurrent_path\":[{}]", names.join(",")).into()
}

fn status_of(lack: Lack) -> Status {
    match lack {
        Lack::Key => Status::InsufficientKey,
        Lack::Connection => Status::NoConnection,
    }
}

const AHEAD_MAX: u32 = 64;
const BATCHES_MAX: usize = 8;
const BURNS_MAX: usize = 4_096;
