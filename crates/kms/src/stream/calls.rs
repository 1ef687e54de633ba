//! The three calls of an application, and those that wait (ETSI GS QKD 004 V2.1.1, 6.1).
//!
//! ```text
//! OPEN_CONNECT  new id ------> the other site knows it: 1 at once (6.2.2), 0 if the peer is there already
//!               given id ----> the peer opens it: 0; Timeout: 1 (6.2.4)
//! GET_KEY       chunk held --> 0 or 8; spent --> 2; peer closed --> 3; else waits
//!               Timeout -----> 3 peer not there, 2 no key, 4 other site not reached, 6 anything else
//! ```

use crypto::rand_core::CryptoRng;
use etsi::etsi004::{GetRequest, GetResponse, Ksid, OpenRequest, OpenResponse, Qos, Request, Response, Status};
use types::id::SaeId;
use types::units::Time;

use super::end::{Between, End, EndId, Work};
use super::message::{Body, Party, Role};
use super::names::other_sae;
use super::{CallId, Output, Streams, Timer, qos};

/// A call that waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) end: EndId,
    sae: SaeId,
    what: What,
    deadline: Time,
    /// What the call is told if its time passes now.
    obstacle: Status,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// OPEN_CONNECT; with a new id it does not wait for the peer.
    Open {
        new: bool,
    },
    Get {
        index: u32,
        metadata_size: u32,
    },
}

/// What came of trying a call.
enum Tried {
    Answer(Response),
    Waits(Status),
    /// It needs a chunk that is not here.
    Lacks(u32),
}

impl Streams {
    pub(super) fn call(&mut self, now: Time, id: CallId, sae: SaeId, request: Request, rng: &mut impl CryptoRng) {
        let response = match request {
            Request::Open(open) => self.open(now, id, sae, open, rng).err().map(Response::Open),
            Request::Get(get) => {
                let index = get.index;
                let refused = self.get(now, id, sae, &get).err();
                refused.map(|status| Response::Get(GetResponse::refused(status, index)))
            }
            Request::Close { ksid } => Some(Response::Close { status: self.close(now, ksid, &sae) }),
        };
        if let Some(response) = response {
            self.answer(id, response);
        }
    }

    fn open(
        &mut self,
        now: Time,
        call: CallId,
        sae: SaeId,
        open: OpenRequest,
        rng: &mut impl CryptoRng,
    ) -> Result<(), OpenResponse> {
        let OpenRequest { source, destination, qos, ksid } = open;
        let refused = |status, qos| OpenResponse { status, qos, ksid };
        if self.directory.get(&sae) != Some(&self.config.site) || self.waiting_of(&sae) {
            return Err(refused(Status::NoConnection, qos));
        }
        let taken = [Role::Owner, Role::Guest].iter().any(|role| self.ends.contains_key(&EndId { ksid, role: *role }));
        if !ksid.is_null() && taken {
            let id = self.end_of(ksid, &sae).ok_or_else(|| refused(Status::KsidInUse, qos.clone()))?;
            return self.join(now, call, id, sae).map_err(|status| refused(status, qos));
        }
        let other = other_sae(&self.directory, &sae, &source, &destination);
        let Some((other, peer)) = other.and_then(|other| Some((other.clone(), self.directory.get(&other)?.clone())))
        else {
            return Err(refused(Status::NoConnection, qos));
        };
        if self.is_full(&sae) {
            return Err(refused(Status::NoConnection, qos));
        }
        let qos = qos::settle(qos, &self.config, self.forecast.get(&peer).copied())
            .map_err(|counter| refused(Status::QosNotMet, counter))?;
        let mut random = [0; 24];
        rng.fill_bytes(&mut random);
        let (name, run) = random.split_at(16);
        let new = ksid.is_null();
        let ksid = if new { Ksid::from_random(name.try_into().expect("16 bytes were split off")) } else { ksid };
        let run = u64::from_be_bytes(run.try_into().expect("8 bytes are left"));
        let deadline = now.after(qos::timeout(&qos));
        let id = EndId { ksid, role: Role::Owner };
        let between = Between { run, sae: sae.clone(), other, peer, qos };
        self.ends.insert(id, End::owner(now, between, self.config.resend));
        self.counters.opened += 1;
        self.wait(call, Wait { end: id, sae, what: What::Open { new }, deadline, obstacle: Status::Timeout });
        self.step(now, id);
        Ok(())
    }

    /// An application opens a stream that the other one opened before, or again one that it opened itself. It gets the
    /// QoS of the first opening whatever it asks for.
    fn join(&mut self, now: Time, call: CallId, id: EndId, sae: SaeId) -> Result<(), Status> {
        let end = self.ends.get_mut(&id).expect("the caller found it");
        if end.here == Party::Closed {
            return Err(Status::KsidInUse);
        }
        end.used = now;
        end.here = Party::Open;
        let deadline = now.after(qos::timeout(&end.qos));
        self.wait(call, Wait { end: id, sae, what: What::Open { new: false }, deadline, obstacle: Status::Timeout });
        self.hurry(now, id);
        self.step(now, id);
        Ok(())
    }

    fn get(&mut self, now: Time, call: CallId, sae: SaeId, get: &GetRequest) -> Result<(), Status> {
        let id = self.end_of(get.ksid, &sae).ok_or(Status::NoConnection)?;
        if self.waiting_of(&sae) {
            return Err(Status::InsufficientKey);
        }
        let end = self.ends.get_mut(&id).expect("it was just found");
        if end.here != Party::Open {
            return Err(Status::NoConnection);
        }
        end.used = now;
        let deadline = now.after(qos::timeout(&end.qos));
        let what = What::Get { index: get.index, metadata_size: get.metadata_size };
        self.wait(call, Wait { end: id, sae, what, deadline, obstacle: Status::Timeout });
        self.step(now, id);
        Ok(())
    }

    fn close(&mut self, now: Time, ksid: Ksid, sae: &SaeId) -> Status {
        let Some(id) = self.end_of(ksid, sae) else { return Status::NoConnection };
        let end = self.ends.get_mut(&id).expect("it was just found");
        if end.here != Party::Open {
            return Status::NoConnection;
        }
        end.here = Party::Closed;
        end.used = now;
        end.book.wipe();
        let calls = std::mem::take(&mut end.calls);
        if let Work::Guest(work) = &mut end.work {
            let offers = std::mem::take(&mut work.offers);
            (work.offered_keys, work.wanted) = (0, Default::default());
            work.expiry.clear();
            let (sae, other) = (end.sae.clone(), end.other.clone());
            offers.into_values().for_each(|offer| self.burn(&sae, &other, offer));
        }
        calls.into_iter().for_each(|call| self.refuse_wait(call, Status::NoConnection));
        self.hurry(now, id);
        self.step(now, id);
        Status::Success
    }

    /// The caller is gone.
    pub(super) fn abandoned(&mut self, call: CallId) {
        if let Some(wait) = self.end_wait(call)
            && let Some(end) = self.ends.get_mut(&wait.end)
        {
            end.calls.retain(|other| *other != call);
        }
    }

    /// Tries the calls that wait at an end; says which chunks they lack.
    pub(super) fn serve(&mut self, now: Time, id: EndId) -> Vec<u32> {
        let Some(end) = self.ends.get_mut(&id) else { return Vec::new() };
        end.again_at = None;
        let mut lacking = Vec::new();
        for call in end.calls.clone() {
            match self.attempt(now, id, call) {
                Tried::Answer(response) => {
                    self.abandoned(call);
                    self.answer(call, response);
                }
                Tried::Waits(obstacle) => self.obstacle(call, obstacle),
                Tried::Lacks(index) => lacking.push(index),
            }
        }
        lacking
    }

    fn attempt(&mut self, now: Time, id: EndId, call: CallId) -> Tried {
        let wait = self.waits.get(&call).expect("an end's calls wait");
        let end = self.ends.get_mut(&id).expect("the caller found it");
        match wait.what {
            What::Open { new } => {
                let known = !matches!(&end.work, Work::Owner(work) if !work.standing);
                let status = match end.there {
                    _ if !known => return Tried::Waits(Status::Timeout),
                    Party::Open => Status::Success,
                    Party::Closed => Status::PeerNotConnected,
                    Party::Absent if new => Status::PeerNotConnected,
                    Party::Absent => return Tried::Waits(Status::PeerNotConnected),
                };
                Tried::Answer(Response::Open(OpenResponse { status, qos: end.qos.clone(), ksid: id.ksid }))
            }
            What::Get { index, metadata_size } => {
                let tried = attempt_get(now, end, index, metadata_size);
                if let Tried::Answer(Response::Get(GetResponse { status: Status::Success, key, .. })) = &tried {
                    self.counters.chunks += 1;
                    self.counters.bytes += key.len() as u64;
                }
                tried
            }
        }
    }

    /// Notes why a call waits.
    pub(super) fn obstacle(&mut self, call: CallId, obstacle: Status) {
        if let Some(wait) = self.waits.get_mut(&call) {
            wait.obstacle = obstacle;
        }
    }

    /// Notes why the calls for chunks of an end wait.
    pub(super) fn obstacle_of_all(&mut self, id: EndId, obstacle: Status) {
        for call in self.ends.get(&id).map(|end| end.calls.clone()).unwrap_or_default() {
            if self.waits.get(&call).is_some_and(|wait| matches!(wait.what, What::Get { .. })) {
                self.obstacle(call, obstacle);
            }
        }
    }

    /// The time of a call has passed.
    pub(super) fn call_due(&mut self, now: Time, call: CallId) {
        let Some(wait) = self.waits.get(&call) else { return };
        let (id, what, obstacle) = (wait.end, wait.what, wait.obstacle);
        self.abandoned(call);
        let end = self.ends.get(&id).expect("a call waits at an end that is there");
        match what {
            What::Get { index, .. } => self.answer(call, Response::Get(GetResponse::refused(obstacle, index))),
            What::Open { .. } => {
                let reached = self.reaches(&end.peer);
                let status = if obstacle == Status::Timeout && !reached { Status::NoConnection } else { obstacle };
                let (qos, peer, run) = (end.qos.clone(), end.peer.clone(), end.run);
                self.answer(call, Response::Open(OpenResponse { status, qos, ksid: id.ksid }));
                if matches!(&self.ends[&id].work, Work::Owner(work) if !work.standing) {
                    // Nobody but this caller knows of it.
                    self.send(&peer, id.ksid, run, Body::Gone { to: Role::Guest });
                    return self.drop_end(id);
                }
            }
        }
        self.step(now, id);
    }

    /// Answers a call that waits with a bare status.
    pub(super) fn refuse_wait(&mut self, call: CallId, status: Status) {
        let Some(wait) = self.end_wait(call) else { return };
        let response = match wait.what {
            What::Open { .. } => Response::Open(OpenResponse { status, qos: Qos::default(), ksid: wait.end.ksid }),
            What::Get { index, .. } => Response::Get(GetResponse::refused(status, index)),
        };
        self.answer(call, response);
    }

    fn wait(&mut self, call: CallId, wait: Wait) {
        let end = self.ends.get_mut(&wait.end).expect("the caller found or made it");
        end.calls.push(call);
        self.timers.insert((wait.deadline, Timer::Call(call)));
        let before = self.waits.insert(call, wait);
        assert!(before.is_none(), "the shell numbers every call anew");
    }

    fn end_wait(&mut self, call: CallId) -> Option<Wait> {
        let wait = self.waits.remove(&call)?;
        self.timers.remove(&(wait.deadline, Timer::Call(call)));
        Some(wait)
    }

    /// The calls of an end now wait at another one.
    pub(super) fn move_calls(&mut self, calls: &[CallId], to: EndId) {
        for call in calls {
            if let Some(wait) = self.waits.get_mut(call) {
                wait.end = to;
            }
        }
    }

    /// Whether as many calls of an application wait as may.
    fn waiting_of(&self, sae: &SaeId) -> bool {
        self.waits.values().filter(|wait| wait.sae == *sae).count() >= self.config.calls_per_sae_max
    }

    fn answer(&mut self, id: CallId, response: Response) {
        if !matches!(response.status(), Status::Success | Status::PeerNotConnected) {
            self.counters.refused += 1;
        }
        self.out.push_back(Output::Answer { id, response });
    }
}

/// Gives a chunk that is held, unless its metadata does not fit or the stream's rate is used up.
fn attempt_get(now: Time, end: &mut End, index: u32, metadata_size: u32) -> Tried {
    let refused = |status| Tried::Answer(Response::Get(GetResponse::refused(status, index)));
    let Some(held) = end.book.held(index) else {
        let coming = match &end.work {
            Work::Owner(work) => work.batches.range(..=index).next_back().is_some_and(|(first, batch)| {
                usize::try_from(index - first).is_ok_and(|place| place < batch.chunks.len())
            }),
            Work::Guest(work) => {
                work.offers.range(..=index).next_back().is_some_and(|(first, offer)| offer.covers(*first, index))
            }
        };
        return match end.there {
            _ if coming => Tried::Lacks(index),
            _ if end.book.known.contains(index) => refused(Status::InsufficientKey),
            Party::Closed => refused(Status::GetPeerNotConnected),
            Party::Absent => Tried::Waits(Status::GetPeerNotConnected),
            Party::Open => Tried::Lacks(index),
        };
    };
    let mut metadata = Vec::new();
    if metadata_size > 0 && !end.qos.mimetype.as_str().is_empty() {
        let age = u32::try_from(now.since(held.since).as_millis()).unwrap_or(u32::MAX);
        metadata = json(age, &held.facts);
        // Counted with the longest age, so that asking again with that size cannot fail.
        let needed = u32::try_from(json(u32::MAX, &held.facts).len()).unwrap_or(u32::MAX);
        if usize::try_from(metadata_size).is_ok_and(|size| size < metadata.len()) {
            let response = GetResponse { needed, ..GetResponse::refused(Status::MetadataTooSmall, index) };
            return Tried::Answer(Response::Get(response));
        }
    }
    if let Err(at) = end.bucket.take(held.key.len() as u64 * 8, now) {
        end.again_at = Some(end.again_at.map_or(at, |before| before.min(at)));
        return Tried::Waits(Status::Timeout);
    }
    let key = end.book.take(index).expect("it is held");
    Tried::Answer(Response::Get(GetResponse { status: Status::Success, index, key, metadata, needed: 0 }))
}

/// ETSI GS QKD 004 V2.1.1, table 3.
fn json(age_ms: u32, facts: &str) -> Vec<u8> {
    format!("{{\"age\":{age_ms},{facts}}}").into_bytes()
}
