//! The opening of a session, both roles.

use crypto::secret::SecretBytes;
use terminal::access::{
    self, AccessRequest, AccessResponse, Agreed, AwaitConfirm, AwaitNegotiate, AwaitRequest, AwaitResponse, Confirm,
    KeySource, Negotiate, OPENING_LEN, OpeningKeys, Refused, Request, Unverified,
};
use terminal::{Class, Floor, Suite};
use types::event::Event;
use types::id::{KeyId, RequestId};
use types::units::{BitLen, ByteLen, Time};

use super::{Closing, Output, RequestPurpose, Session, State, chain};
use crate::pools::Role;

/// Where the opening stands.
#[derive(Debug)]
pub(super) enum Opening {
    /// Gateway: keys are ordered.
    Ordering { request: RequestId },
    /// Gateway: a slot is being destroyed in the store.
    Burning { seq: u64, keys: OpeningKeys, source: KeySource },
    /// Gateway: step 0 was sent.
    AwaitRequest(AwaitRequest),
    /// Gateway: steps 2 and 5 were sent.
    AwaitConfirm(AwaitConfirm),
    /// Terminal: nothing came yet.
    Listening,
    /// Terminal: keys are being collected.
    Collecting { request: RequestId, unverified: Unverified },
    /// Terminal: a slot is being destroyed in the store.
    GivingUp { seq: u64, verified: Request },
    /// Terminal: step 1 was sent.
    AwaitResponse(AwaitResponse),
    /// Terminal: step 2 came.
    AwaitNegotiate(AwaitNegotiate),
    /// Over, one way or the other.
    Failed,
}

/// The next step, or the next state if the session opened, or why it did not.
type Step = Result<Result<State, Opening>, String>;

impl Session {
    pub(super) fn begin_opening(&mut self) -> Opening {
        if self.role == Role::Terminal {
            return Opening::Listening;
        }
        if let Some((batch, slot, key, changes)) = self.pools.take_slot(None)
            && let Some(keys) = OpeningKeys::new(key)
        {
            let seq = self.commit(changes).expect("a slot is a record");
            return Opening::Burning { seq, keys, source: KeySource::Slot { batch, slot } };
        }
        let ByteLen(key_len) = self.config.supply.key_len;
        let request = self.next_request();
        let number = u32::try_from((OPENING_LEN as u64).div_ceil(key_len.max(1))).unwrap_or(u32::MAX);
        let size = BitLen::from(ByteLen(key_len));
        self.outputs.push_back(Output::OrderKeys { request, purpose: RequestPurpose::Opening, number, size });
        Opening::Ordering { request }
    }

    /// A frame came while opening.
    pub(super) fn opening_frame(&mut self, now: Time, step: Opening, access: bool, frame: &[u8]) -> Step {
        match step {
            _ if !access => Err("a record came before the session was open".to_owned()),
            Opening::AwaitRequest(state) => self.answer_request(state, frame).map(Err),
            Opening::AwaitConfirm(state) => self.take_confirm(now, state, frame).map(Ok),
            Opening::Listening => self.take_opening(frame).map(Err),
            Opening::AwaitResponse(state) => self.take_response(state, frame).map(Err),
            Opening::AwaitNegotiate(state) => self.take_negotiation(now, state, frame).map(Ok),
            _ => Err("a frame came that was not due".to_owned()),
        }
    }

    /// Keys for the opening were ordered. True if the request was the opening's.
    pub(super) fn opening_ordered(
        &mut self,
        request: RequestId,
        keys: &mut Result<Vec<(KeyId, SecretBytes)>, String>,
    ) -> bool {
        let State::Opening { step: step @ Opening::Ordering { .. }, .. } = &mut self.state else { return false };
        if !matches!(step, Opening::Ordering { request: ours } if *ours == request) {
            return false;
        }
        let keys = std::mem::replace(keys, Ok(Vec::new()));
        let result = keys.and_then(|keys| {
            let (ids, bytes): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
            let keys = opening_keys(&bytes).ok_or("the key management entity gave too little key")?;
            Ok((keys, KeySource::Keys(ids)))
        });
        match result {
            Ok((keys, source)) => self.send_opening(keys, source),
            Err(reason) => self.close(&format!("no keys to open the session with: {reason}")),
        }
        true
    }

    /// Keys for the opening were collected. True if the request was the opening's.
    pub(super) fn opening_collected(
        &mut self,
        request: RequestId,
        keys: &mut Result<Vec<SecretBytes>, String>,
    ) -> bool {
        let State::Opening { step, .. } = &mut self.state else { return false };
        if !matches!(step, Opening::Collecting { request: ours, .. } if *ours == request) {
            return false;
        }
        let Opening::Collecting { unverified, .. } = std::mem::replace(step, Opening::Failed) else { return false };
        let keys = std::mem::replace(keys, Ok(Vec::new()));
        match keys.map(|keys| opening_keys(&keys)) {
            Ok(Some(keys)) => match unverified.verify(keys) {
                Ok(verified) => self.send_request(verified),
                Err(_) => self.refuse(Refused::NotAuthentic),
            },
            Ok(None) => self.refuse(Refused::NoKeys),
            Err(reason) => {
                self.send_access(&access::refuse(Refused::NoKeys));
                self.close(&format!("the opening keys could not be collected: {reason}"));
            }
        }
        true
    }

    /// A commit became durable.
    pub(super) fn opening_durable(&mut self, seq: u64) {
        let State::Opening { step, .. } = &mut self.state else { return };
        let due = match step {
            Opening::Burning { seq: ours, .. } | Opening::GivingUp { seq: ours, .. } => *ours <= seq,
            _ => false,
        };
        if !due {
            return;
        }
        match std::mem::replace(step, Opening::Failed) {
            Opening::Burning { keys, source, .. } => self.send_opening(keys, source),
            Opening::GivingUp { verified, .. } => self.send_request(verified),
            _ => {}
        }
    }

    fn send_opening(&mut self, keys: OpeningKeys, source: KeySource) {
        let opening = access::Opening {
            center: self.config.center.clone(),
            terminal: self.config.terminal.clone(),
            nonce: self.config.nonce,
            keys: source,
        };
        let (state, frame) = AwaitRequest::open(keys, &opening);
        self.send_access(&frame);
        self.set_step(Opening::AwaitRequest(state));
    }

    fn take_opening(&mut self, frame: &[u8]) -> Result<Opening, String> {
        let (unverified, opening) = Unverified::parse(frame).map_err(|error| chain(&error))?;
        if opening.terminal != self.config.terminal || opening.center != self.config.center {
            return Err(self.refusal(Refused::NotForMe));
        }
        let (batch, slot) = match opening.keys {
            KeySource::Keys(ids) => {
                let request = self.next_request();
                self.outputs.push_back(Output::CollectKeys { request, ids });
                return Ok(Opening::Collecting { request, unverified });
            }
            KeySource::Slot { batch, slot } => (batch, slot),
        };
        let Some(keys) = self.pools.look_at_slot(batch, slot).and_then(OpeningKeys::new) else {
            return Err(self.refusal(Refused::UnknownSlot));
        };
        let Ok(verified) = unverified.verify(keys) else {
            return Err(self.refusal(Refused::NotAuthentic));
        };
        let (_, _, _, changes) = self.pools.take_slot(Some((batch, slot))).expect("the slot was looked at");
        let seq = self.commit(changes).expect("a slot is a record");
        Ok(Opening::GivingUp { seq, verified })
    }

    fn send_request(&mut self, verified: Request) {
        let request = AccessRequest {
            terminal: self.config.terminal.clone(),
            nonce: self.config.nonce,
            suites: Suite::ALL.map(Suite::number).to_vec(),
            highest: self.pools.highest(),
            inventory: self.pools.inventory(),
        };
        let (state, frame) = verified.request(&request);
        self.send_access(&frame);
        self.set_step(Opening::AwaitResponse(state));
    }

    fn answer_request(&mut self, state: AwaitRequest, frame: &[u8]) -> Result<Opening, String> {
        if let Some(reason) = access::refusal(frame) {
            if reason == Refused::UnknownSlot {
                let changes = self.pools.drop_slots();
                self.commit(changes);
            }
            return Err(format!("refused: {}", reason.text()));
        }
        let (state, request) = state.request(frame).map_err(|error| chain(&error))?;
        if request.terminal != self.config.terminal {
            return Err("another terminal answered".to_owned());
        }
        let suites: Vec<u8> =
            Suite::ALL.map(Suite::number).into_iter().filter(|suite| request.suites.contains(suite)).collect();
        if suites.len() != Suite::ALL.len() {
            return Err("the terminal lacks a suite that this gateway needs".to_owned());
        }
        let change = self.pools.raise_highest(request.highest);
        self.commit(vec![change]);
        let agreed = self.pools.reconcile(&request.inventory);
        self.keep_only(&agreed);
        let policy = &self.config.policy;
        let negotiate =
            Negotiate { suite: Suite::Aes256Gcm, floor: policy.floor, volume: policy.capacity, lifetime_s: 0 };
        let (state, frames) = state.respond(&AccessResponse { suites, agreed }, &negotiate);
        frames.iter().for_each(|frame| self.send_access(frame));
        Ok(Opening::AwaitConfirm(state))
    }

    fn take_response(&mut self, state: AwaitResponse, frame: &[u8]) -> Result<Opening, String> {
        let (state, response) = state.response(frame).map_err(|error| chain(&error))?;
        if response.suites != Suite::ALL.map(Suite::number) {
            return Err("the gateway accepted other suites than were offered".to_owned());
        }
        self.keep_only(&response.agreed);
        Ok(Opening::AwaitNegotiate(state))
    }

    fn take_negotiation(&mut self, now: Time, state: AwaitNegotiate, frame: &[u8]) -> Result<State, String> {
        let (state, negotiate) = state.negotiate(frame).map_err(|error| chain(&error))?;
        self.config.policy.floor = stricter(self.config.policy.floor, negotiate.floor);
        self.config.policy.capacity = negotiate.volume;
        let confirm = Confirm { down: self.pools.receive_stock(), up: self.pools.send_stock(), refusal: String::new() };
        let (closing, seeds, frame) = state.confirm(&confirm);
        self.send_access(&frame);
        self.opened(now, Closing::Terminal(closing), &seeds)
    }

    fn take_confirm(&mut self, now: Time, state: AwaitConfirm, frame: &[u8]) -> Result<State, String> {
        let (closing, seeds, confirm) = state.confirm(frame).map_err(|error| chain(&error))?;
        if !confirm.refusal.is_empty() {
            return Err(format!("the terminal does not agree: {}", confirm.refusal));
        }
        if (confirm.down, confirm.up) != (self.pools.send_stock(), self.pools.receive_stock()) {
            return Err("the two ends do not hold the same batches".to_owned());
        }
        self.opened(now, Closing::Center(closing), &seeds)
    }

    fn keep_only(&mut self, agreed: &[Agreed]) {
        let (changes, burned) = self.pools.keep_only(agreed);
        self.commit(changes);
        if burned > 0 {
            self.outputs.push_back(Output::Event(Event::KeyBurned {
                reason: format!("not held by both ends of terminal {}", self.config.terminal),
                bits: BitLen::from(ByteLen(burned)),
            }));
        }
    }

    fn refuse(&mut self, reason: Refused) {
        let text = self.refusal(reason);
        self.close(&text);
    }

    fn refusal(&mut self, reason: Refused) -> String {
        self.send_access(&access::refuse(reason));
        reason.text().to_owned()
    }

    fn set_step(&mut self, next: Opening) {
        if let State::Opening { step, .. } = &mut self.state {
            *step = next;
        }
    }
}

/// The opening's bytes: the keys one after another, the surplus dropped.
fn opening_keys(keys: &[SecretBytes]) -> Option<OpeningKeys> {
    OpeningKeys::new(super::supply::join(keys, OPENING_LEN)?)
}

fn stricter(a: Floor, b: Floor) -> Floor {
    Class::ALL.into_iter().fold(a, |floor, class| floor.with(class, a.of(class).max(b.of(class))))
}
