//! One end of a stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crypto::secret::SecretBytes;
use etsi::etsi004::{Ksid, Qos};
use types::id::{KeyId, RequestId, SaeId, SiteId};
use types::units::Time;

use super::book::Book;
use super::message::{Body, Party, Role};
use super::qos::{self, Bucket};
use super::{CallId, RETIRED_MAX, Streams, Timer};

/// Which end of which stream. Both are at one site when both applications are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId {
    pub(super) ksid: Ksid,
    pub(super) role: Role,
}

/// One end of a stream.
#[derive(Debug)]
pub(super) struct End {
    pub(super) run: u64,
    /// The application of this end.
    pub(super) sae: SaeId,
    /// The application of the other end.
    pub(super) other: SaeId,
    /// The site of the other end.
    pub(super) peer: SiteId,
    pub(super) qos: Qos,
    pub(super) here: Party,
    pub(super) there: Party,
    /// What the other end is known to know of `here`; nothing after the connection was lost.
    pub(super) told: Option<Party>,
    pub(super) book: Book,
    pub(super) bucket: Bucket,
    pub(super) work: Work,
    /// Calls that wait, in the order in which they came.
    pub(super) calls: Vec<CallId>,
    /// When tokens or key may suffice for a call that waits.
    pub(super) again_at: Option<Time>,
    pub(super) resend_at: Time,
    pub(super) pause: Duration,
    pub(super) used: Time,
    /// When its timer is set.
    pub(super) due: Option<Time>,
}

/// What an end does by its role.
#[derive(Debug)]
pub(super) enum Work {
    Owner(Owner),
    Guest(Guest),
}

/// Allots chunks.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// Whether the guest's site knows the stream.
    pub(super) standing: bool,
    /// The KME was asked for keys.
    pub(super) asked: Option<RequestId>,
    /// Supplied and not accepted by the guest's site yet, by first index.
    pub(super) batches: BTreeMap<u32, Batch>,
    /// What the guest waits for.
    pub(super) wants: BTreeSet<u32>,
    /// The index after the last one allotted.
    pub(super) next: u32,
    /// Chunks of the next batch if it goes on at `next`.
    pub(super) ahead: u32,
    /// No request before, because there was no key.
    pub(super) retry_at: Time,
}

/// Chunks on their way.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) per: u8,
    pub(super) ids: Vec<KeyId>,
    pub(super) chunks: Vec<SecretBytes>,
    pub(super) facts: Arc<str>,
    pub(super) expires: Time,
}

/// Fetches what the owner allotted.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Keys that wait at the KME, by first index.
    pub(super) offers: BTreeMap<u32, Offer>,
    pub(super) expiry: VecDeque<(Time, u32)>,
    pub(super) offered_keys: usize,
    /// What the owner was asked for and has not sent yet.
    pub(super) wanted: BTreeSet<u32>,
}

/// Keys of some chunks that wait at the KME.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) per: u8,
    pub(super) ids: Vec<KeyId>,
    pub(super) since: Time,
    pub(super) asked: Option<RequestId>,
    pub(super) retry_at: Time,
}

impl Offer {
    /// Whether it has the chunk, being offered from `first` on.
    pub(super) fn covers(&self, first: u32, index: u32) -> bool {
        index >= first && index - first < self.chunks()
    }

    pub(super) fn chunks(&self) -> u32 {
        u32::try_from(self.ids.len() / usize::from(self.per)).expect("an offer has few keys")
    }
}

/// Who is at the two sides of a new end.
pub(super) struct Between {
    pub(super) run: u64,
    pub(super) sae: SaeId,
    pub(super) other: SaeId,
    pub(super) peer: SiteId,
    pub(super) qos: Qos,
}

impl End {
    pub(super) fn owner(now: Time, between: Between, pause: Duration) -> Self {
        let work = Work::Owner(Owner { ahead: 1, ..Owner::default() });
        Self::new(now, between, pause, work, (Party::Open, Party::Absent))
    }

    /// The owner's application opened the stream.
    pub(super) fn guest(now: Time, between: Between, pause: Duration) -> Self {
        Self::new(now, between, pause, Work::Guest(Guest::default()), (Party::Absent, Party::Open))
    }

    fn new(now: Time, between: Between, pause: Duration, work: Work, (here, there): (Party, Party)) -> Self {
        let Between { run, sae, other, peer, qos } = between;
        Self {
            run,
            sae,
            other,
            peer,
            here,
            there,
            told: Some(here),
            book: Book::default(),
            bucket: Bucket::new(&qos, now),
            qos,
            work,
            calls: Vec::new(),
            again_at: None,
            resend_at: now,
            pause,
            used: now,
            due: None,
        }
    }

    /// Whether both applications are done with it, and the other end knows.
    pub(super) fn is_over(&self) -> bool {
        match (self.here, self.there) {
            (Party::Closed, Party::Absent | Party::Closed) => self.told == Some(Party::Closed),
            (Party::Absent, Party::Closed) => true,
            _ => false,
        }
    }

    pub(super) fn is_idle(&self, now: Time, idle_max: Duration) -> bool {
        self.calls.is_empty() && now >= self.used.after(idle_max)
    }

    /// What the other end has to acknowledge and did not.
    pub(super) fn outstanding(&self, role: Role) -> Vec<Body> {
        let mut bodies = Vec::new();
        let (owner, guest) = match role {
            Role::Owner => (&self.sae, &self.other),
            Role::Guest => (&self.other, &self.sae),
        };
        match &self.work {
            Work::Owner(work) if !work.standing => {
                let (owner, guest) = (owner.clone(), guest.clone());
                return vec![Body::Announce { known: false, owner, guest, qos: self.qos.clone() }];
            }
            Work::Owner(work) => bodies.extend(work.batches.iter().map(|(first, batch)| Body::Chunks {
                owner: owner.clone(),
                guest: guest.clone(),
                first: *first,
                per: batch.per,
                ids: batch.ids.clone(),
            })),
            Work::Guest(work) => bodies.extend(work.wanted.iter().map(|index| Body::Want { index: *index })),
        }
        if self.told != Some(self.here) {
            bodies.push(Body::Presence { to: role.other(), party: self.here });
        }
        bodies
    }

    /// When there is something to do.
    pub(super) fn next_due(&self, idle_max: Duration) -> Time {
        let work = match &self.work {
            Work::Owner(work) => work.batches.values().map(|batch| batch.expires).min(),
            Work::Guest(work) => work.expiry.front().map(|(at, _)| *at),
        };
        let due = [self.book.next_expiry(), work, self.again_at, Some(self.resend_at)].into_iter().flatten().min();
        let idle = if self.calls.is_empty() { self.used.after(idle_max) } else { Time::from_nanos(u64::MAX) };
        due.map_or(idle, |due| due.min(idle))
    }
}

impl Streams {
    /// The end that an application has of a stream.
    pub(super) fn end_of(&self, ksid: Ksid, sae: &SaeId) -> Option<EndId> {
        let ids = [Role::Owner, Role::Guest].map(|role| EndId { ksid, role });
        ids.into_iter().find(|id| self.ends.get(id).is_some_and(|end| end.sae == *sae))
    }

    /// Whether an application may open no further stream.
    pub(super) fn is_full(&self, sae: &SaeId) -> bool {
        let opened = self.ends.values().filter(|end| end.sae == *sae && end.here != Party::Absent);
        self.ends.len() >= self.config.ends_max || opened.count() >= self.config.ends_per_sae_max
    }

    /// Whether an owner's application may announce no further stream to a guest's.
    pub(super) fn is_full_of(&self, owner: &SaeId, guest: &SaeId) -> bool {
        let of_pair = |end: &&End| end.sae == *guest && end.other == *owner && end.here == Party::Absent;
        self.ends.len() >= self.config.ends_max
            || self.ends.values().filter(of_pair).count() >= self.config.ends_per_pair_max
    }

    /// Destroys what waited too long.
    pub(super) fn expire(&mut self, now: Time, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.book.expire(now);
        let work = match &mut end.work {
            Work::Owner(work) => return work.batches.retain(|_, batch| batch.expires > now),
            Work::Guest(work) => work,
        };
        let mut gone = Vec::new();
        while let Some((_, first)) = work.expiry.pop_front_if(|(at, _)| *at <= now) {
            // What is being fetched comes at once and is destroyed then.
            if let Some(offer) = work.offers.remove(&first) {
                work.offered_keys -= offer.ids.len();
                gone.push(offer);
            }
        }
        let (sae, other) = (end.sae.clone(), end.other.clone());
        gone.into_iter().for_each(|offer| self.burn(&sae, &other, offer));
    }

    /// Ends an end: its chunks are destroyed, its calls are told that there is no stream.
    pub(super) fn drop_end(&mut self, id: EndId) {
        let Some(mut end) = self.ends.remove(&id) else { return };
        if let Some(due) = end.due {
            self.timers.remove(&(due, Timer::End(id)));
        }
        if self.retired.len() == RETIRED_MAX {
            self.retired.pop_front();
        }
        self.retired.push_back((id.ksid, end.run));
        for call in std::mem::take(&mut end.calls) {
            self.refuse_wait(call, etsi::etsi004::Status::NoConnection);
        }
        if let Work::Guest(work) = end.work {
            work.offers.into_values().for_each(|offer| self.burn(&end.sae, &end.other, offer));
        }
    }

    /// How long unused key of an end is kept from `since` on.
    pub(super) fn expires(end: &End, since: Time) -> Time {
        since.after(qos::ttl(&end.qos))
    }
}
