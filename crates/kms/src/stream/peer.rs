//! What the other site says: rendezvous of two openings, presence of the applications, chunks.
//!
//! ```text
//! owner                         guest
//!   Announce ------------------>  an end without application   (repeated until acknowledged)
//!   <------------------ Announced
//!   <-------------- Presence open  when its application opens the stream
//!   Noted ---------------------->
//! ```
//! Two first openings at once: both announce; the site with the smaller id stays the owner, the other becomes the guest.

use types::id::SiteId;
use types::units::Time;

use super::end::{Between, End, EndId, Work};
use super::message::{Body, Message, Objection, Party, Role};
use super::{Streams, qos};

impl Streams {
    pub(super) fn message(&mut self, now: Time, from: &SiteId, message: Message) {
        let Message { ksid, run, body } = message;
        let to = match &body {
            Body::Announce { .. } => return self.announced(now, from, Message { ksid, run, body }),
            Body::Announced | Body::Refused { .. } | Body::Want { .. } | Body::Accepted { .. } => Role::Owner,
            Body::Unmet { .. } | Body::Chunks { .. } => Role::Guest,
            Body::Presence { to, .. } | Body::Noted { to, .. } | Body::Gone { to } => *to,
        };
        let id = EndId { ksid, role: to };
        let Some(end) = self.ends.get_mut(&id).filter(|end| end.run == run && end.peer == *from) else {
            let answer = Body::Gone { to: to.other() };
            match body {
                Body::Gone { .. } | Body::Refused { .. } => return,
                Body::Chunks { owner, guest, ids, .. } => self.burn_stray(from, &owner, &guest, ids),
                _ => {}
            }
            return self.send(from, ksid, run, answer);
        };
        match body {
            Body::Announce { .. } => unreachable!("it was taken above"),
            Body::Announced => {
                if let Work::Owner(work) = &mut end.work {
                    work.standing = true;
                }
                self.hurry(now, id);
            }
            // Once the stream stands, an objection is an old one.
            Body::Refused { .. } if matches!(&end.work, Work::Owner(work) if work.standing) => return,
            Body::Refused { reason } => return self.objected(id, reason),
            Body::Presence { party, .. } => {
                end.there = end.there.max(party);
                end.used = now;
                if let Work::Owner(work) = &mut end.work {
                    work.standing = true;
                }
                self.send(from, ksid, run, Body::Noted { to: to.other(), party });
            }
            Body::Noted { party, .. } => end.told = end.told.max(Some(party)),
            Body::Want { index } => {
                end.used = now;
                if let Work::Owner(work) = &mut end.work
                    && work.wants.len() < WANTS_MAX
                {
                    work.wants.insert(index);
                }
            }
            Body::Unmet { lack } => self.unmet(now, id, lack),
            Body::Chunks { owner, guest, first, per, ids } => {
                end.used = now;
                if (&owner, &guest) != (&end.other, &end.sae) {
                    return self.misbehaved(from, "chunks for another pair of applications");
                }
                self.offered(now, id, from, first, per, ids);
            }
            Body::Accepted { first, taken } => self.accepted(now, id, first, taken),
            Body::Gone { .. } => return self.drop_end(id),
        }
        self.step(now, id);
    }

    /// Another site owns a new stream, or says so again.
    fn announced(&mut self, now: Time, from: &SiteId, message: Message) {
        let Message { ksid, run, body } = message;
        let Body::Announce { known, owner, guest, qos } = body else { return };
        let refuse = |streams: &mut Self, reason| streams.send(from, ksid, run, Body::Refused { reason });
        let (mine, theirs) = (EndId { ksid, role: Role::Owner }, EndId { ksid, role: Role::Guest });
        let served = self.directory.get(&owner) == Some(from) && self.directory.get(&guest) == Some(&self.config.site);
        // Not beyond our own limits, whatever the other site grants.
        let size = qos.key_chunk_size;
        let granted = qos::settle(qos, &self.config, None).ok().filter(|granted| granted.key_chunk_size == size);
        let Some(qos) = granted.filter(|_| served && owner != guest) else {
            return refuse(self, Objection::NotServed);
        };
        if let Some(end) = self.ends.get(&theirs) {
            if end.peer != *from || end.other != owner || end.sae != guest {
                return refuse(self, Objection::InUse);
            }
            if end.run == run {
                return self.send(from, ksid, run, Body::Announced);
            }
        }
        if known || self.retired.contains(&(ksid, run)) {
            return self.send(from, ksid, run, Body::Gone { to: Role::Owner });
        }
        // The same owner under another run: it restarted, and what we have of the old one is worth nothing.
        self.drop_end(theirs);
        let mut calls = Vec::new();
        if *from != self.config.site
            && let Some(end) = self.ends.get(&mine)
        {
            if end.peer != *from || end.other != owner || end.sae != guest {
                return refuse(self, Objection::InUse);
            }
            let standing = matches!(&end.work, Work::Owner(work) if work.standing);
            if standing || self.config.site < *from {
                // Ours stands, or wins. If the other site lost it meanwhile, it says that it is gone.
                let (owner, guest) = (end.sae.clone(), end.other.clone());
                let again = Body::Announce { known: standing, owner, guest, qos: end.qos.clone() };
                let run = end.run;
                return self.send(from, ksid, run, again);
            }
            calls = self.ends.get_mut(&mine).map(|end| std::mem::take(&mut end.calls)).unwrap_or_default();
            self.drop_end(mine);
        } else if self.is_full_of(&owner, &guest) {
            return refuse(self, Objection::NotServed);
        }
        let between = Between { run, sae: guest, other: owner, peer: from.clone(), qos };
        let mut end = End::guest(now, between, self.config.resend);
        if !calls.is_empty() {
            end.here = Party::Open;
        }
        self.move_calls(&calls, theirs);
        end.calls = calls;
        self.ends.insert(theirs, end);
        self.send(from, ksid, run, Body::Announced);
        self.step(now, theirs);
    }

    /// The other site does not take a stream of ours.
    fn objected(&mut self, id: EndId, reason: Objection) {
        let status = match reason {
            Objection::InUse => etsi::etsi004::Status::KsidInUse,
            Objection::NotServed => etsi::etsi004::Status::NoConnection,
        };
        let calls = self.ends.get_mut(&id).map(|end| std::mem::take(&mut end.calls)).unwrap_or_default();
        calls.into_iter().for_each(|call| self.refuse_wait(call, status));
        self.drop_end(id);
    }
}

const WANTS_MAX: usize = 64;
