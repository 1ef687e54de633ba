//! Opening and closing of a session: access, negotiation and closing report, each message under a one-time tag.
//!
//! A **reconstruction** of the "five links, nine steps" of the key application process, not the original figure.
//! The control center speaks first, because only its end can order keys; that message names the opening keys.
//!
//! | link | step | message | tag key |
//! |---|---|---|---|
//! | I access | 0 center → terminal | [`Opening`]: who, nonce, where the opening keys are | 0 |
//! | | 1 terminal → center | [`AccessRequest`]: id, nonce, suites, inventory | 1 |
//! | | 2 center → terminal | [`AccessResponse`]: suites accepted, where each batch goes on | 2 |
//! | II key application | 3, 4 | key ids in a control record, keys from the key management entities | - |
//! | III negotiation | 5 center → terminal | [`Negotiate`]: use, suite, floor, lifetime | 3 |
//! | | 6 terminal → center | [`Confirm`]: stock per direction, or why not | 4 |
//! | IV service | 7, 8 | records | - |
//! | V closing | 9 terminal → center | [`Report`]: what was used, what is left | 5 |
//!
//! The 256 opening bytes are six tag keys and one epoch seed per direction, so a session can always seal, even
//! with empty pools. Each tag covers all frames before it, so both nonces stand under every tag from step 1 on.
//! Everything here is information-theoretic except what the seeds protect.
//!
//! Provided: mutual authentication, agreement on the next offset of every batch after a crash or a restored
//! backup at one end. Not provided: secrecy of the inventory; protection if both ends are restored together.

use alloc::vec::Vec;

use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use crypto::tag::{OneTimeTagKey, Tag};
use types::codec::{CodecError, Reader, Writer};

use crate::error::Error;
use crate::record::{Direction, TAG_LEN, VERSION};

mod message;
pub use message::{
    AccessRequest, AccessResponse, Agreed, Confirm, Inventory, InventoryLine, KeySource, Negotiate, Opening, Refused,
    Report,
};
pub use message::{IDS_MAX, INVENTORY_MAX};

/// Bytes of key that one opening takes.
pub const OPENING_LEN: usize = TAGS * OneTimeTagKey::LEN + 2 * SEED_LEN;
/// Low half of the first byte of an access frame.
pub const ACCESS_KIND: u8 = 0xf;
/// Largest access frame.
pub const FRAME_MAX: usize = 32 * 1024;

const TAGS: usize = 6;
const SEED_LEN: usize = crate::epoch::SEED_LEN;

/// A step of the exchange; its number is on the wire and picks the tag key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Opening = 0,
    Request = 1,
    Response = 2,
    Negotiate = 3,
    Confirm = 4,
    Report = 5,
}

/// Number of the frame that refuses an opening; it has no tag.
const REFUSED: u8 = 255;

/// The key bytes of one opening, cut up by purpose.
#[derive(Debug)]
pub struct OpeningKeys {
    tags: [Option<OneTimeTagKey>; TAGS],
    down: SecretBytes,
    up: SecretBytes,
}

impl OpeningKeys {
    /// Cuts up 256 bytes. `None` for any other length.
    #[must_use]
    pub fn new(mut bytes: SecretBytes) -> Option<Self> {
        if bytes.len() != OPENING_LEN {
            return None;
        }
        let mut tags = [const { None }; TAGS];
        for tag in &mut tags {
            *tag = OneTimeTagKey::new(bytes.split_front(OneTimeTagKey::LEN)?);
        }
        Some(Self { tags, down: bytes.split_front(SEED_LEN)?, up: bytes })
    }
}

/// The epoch seeds of an opened session. Batch number 0 stands for them in record headers.
#[derive(Debug)]
pub struct Seeds {
    /// For records to the terminal.
    pub down: SecretBytes,
    /// For records to the control center.
    pub up: SecretBytes,
}

impl Seeds {
    /// The batch number that stands for the seeds of the running session.
    pub const BATCH: u32 = 0;

    /// The seed of a direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> &SecretBytes {
        match direction {
            Direction::Down => &self.down,
            Direction::Up => &self.up,
        }
    }
}

/// Control center, after step 0: waits for the request.
#[derive(Debug)]
pub struct AwaitRequest(Chain);

impl AwaitRequest {
    /// Makes the opening frame.
    #[must_use]
    pub fn open(keys: OpeningKeys, opening: &Opening) -> (Self, Vec<u8>) {
        let mut chain = Chain { keys, transcript: Vec::new() };
        let frame = chain.seal(Step::Opening, &opening.encode());
        (Self(chain), frame)
    }

    /// Takes the terminal's request.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn request(mut self, frame: &[u8]) -> Result<(Respond, AccessRequest), Error> {
        let request = AccessRequest::decode(self.0.check(Step::Request, frame)?)?;
        Ok((Respond(self.0), request))
    }
}

/// Control center, after step 1: to answer.
#[derive(Debug)]
pub struct Respond(Chain);

impl Respond {
    /// Makes the response and the negotiation.
    #[must_use]
    pub fn respond(mut self, response: &AccessResponse, negotiate: &Negotiate) -> (AwaitConfirm, [Vec<u8>; 2]) {
        let frames =
            [self.0.seal(Step::Response, &response.encode()), self.0.seal(Step::Negotiate, &negotiate.encode())];
        (AwaitConfirm(self.0), frames)
    }
}

/// Control center, after step 5: waits for the confirmation.
#[derive(Debug)]
pub struct AwaitConfirm(Chain);

impl AwaitConfirm {
    /// Takes the confirmation; the session is open.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn confirm(mut self, frame: &[u8]) -> Result<(CenterClosing, Seeds, Confirm), Error> {
        let confirm = Confirm::decode(self.0.check(Step::Confirm, frame)?)?;
        let (chain, seeds) = self.0.seeds();
        Ok((CenterClosing(chain), seeds, confirm))
    }
}

/// Control center, session open: can check the closing report.
#[derive(Debug)]
pub struct CenterClosing(Chain);

impl CenterClosing {
    /// Takes the closing report.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn report(mut self, frame: &[u8]) -> Result<Report, Error> {
        Ok(Report::decode(self.0.check(Step::Report, frame)?)?)
    }
}

/// Terminal, after step 0 arrived: knows where the opening keys are, and trusts nothing yet.
#[derive(Debug)]
pub struct Unverified {
    frame: Vec<u8>,
}

impl Unverified {
    /// Reads an opening frame.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn parse(frame: &[u8]) -> Result<(Self, Opening), Error> {
        let (body, _) = split(Step::Opening, frame)?;
        Ok((Self { frame: frame.to_vec() }, Opening::decode(body)?))
    }

    /// Checks the opening with its keys. Only then may the keys be destroyed and the request sent.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if whoever made the frame does not hold the keys.
    pub fn verify(self, keys: OpeningKeys) -> Result<Request, Error> {
        let mut chain = Chain { keys, transcript: Vec::new() };
        chain.check(Step::Opening, &self.frame)?;
        Ok(Request(chain))
    }
}

/// Terminal: the opening is authentic.
#[derive(Debug)]
pub struct Request(Chain);

impl Request {
    /// Makes the request. The opening keys must be durably gone from the pool by now.
    #[must_use]
    pub fn request(mut self, request: &AccessRequest) -> (AwaitResponse, Vec<u8>) {
        let frame = self.0.seal(Step::Request, &request.encode());
        (AwaitResponse(self.0), frame)
    }
}

/// Terminal, after step 1: waits for the response.
#[derive(Debug)]
pub struct AwaitResponse(Chain);

impl AwaitResponse {
    /// Takes the response.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn response(mut self, frame: &[u8]) -> Result<(AwaitNegotiate, AccessResponse), Error> {
        let response = AccessResponse::decode(self.0.check(Step::Response, frame)?)?;
        Ok((AwaitNegotiate(self.0), response))
    }
}

/// Terminal, after step 2: waits for the negotiation.
#[derive(Debug)]
pub struct AwaitNegotiate(Chain);

impl AwaitNegotiate {
    /// Takes the negotiation.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] or [`Error::Malformed`].
    pub fn negotiate(mut self, frame: &[u8]) -> Result<(Confirming, Negotiate), Error> {
        let negotiate = Negotiate::decode(self.0.check(Step::Negotiate, frame)?)?;
        Ok((Confirming(self.0), negotiate))
    }
}

/// Terminal, after step 5: to confirm.
#[derive(Debug)]
pub struct Confirming(Chain);

impl Confirming {
    /// Makes the confirmation; the session is open.
    #[must_use]
    pub fn confirm(mut self, confirm: &Confirm) -> (TerminalClosing, Seeds, Vec<u8>) {
        let frame = self.0.seal(Step::Confirm, &confirm.encode());
        let (chain, seeds) = self.0.seeds();
        (TerminalClosing(chain), seeds, frame)
    }
}

/// Terminal, session open: can make the closing report.
#[derive(Debug)]
pub struct TerminalClosing(Chain);

impl TerminalClosing {
    /// Makes the closing report.
    #[must_use]
    pub fn report(mut self, report: &Report) -> Vec<u8> {
        self.0.seal(Step::Report, &report.encode())
    }
}

/// Whether a frame of the cipher side is an access frame.
#[must_use]
pub fn is_access(frame: &[u8]) -> bool {
    frame.first() == Some(&(VERSION << 4 | ACCESS_KIND))
}

/// The frame by which a terminal refuses an opening. It carries no tag: there may be no key for one.
#[must_use]
pub fn refuse(reason: Refused) -> Vec<u8> {
    Vec::from([VERSION << 4 | ACCESS_KIND, REFUSED, reason as u8])
}

/// Reads a refusal, if a frame is one.
#[must_use]
pub fn refusal(frame: &[u8]) -> Option<Refused> {
    match frame {
        [first, REFUSED, reason] if *first == VERSION << 4 | ACCESS_KIND => Refused::from_number(*reason),
        _ => None,
    }
}

/// The check value of a batch: a one-time tag over the rest of it under its first 32 bytes, which it spends.
/// It tells both ends that they hold the same bits, and tells nobody else anything. `None` if the batch is too short.
#[must_use]
pub fn batch_check(key: &mut SecretBytes) -> Option<Tag> {
    let tag_key = OneTimeTagKey::new(key.split_front(OneTimeTagKey::LEN)?)?;
    (!key.is_empty()).then(|| key.expose(|rest| tag_key.tag(Domain::TerminalBatch, &[rest])))
}

#[derive(Debug)]
struct Chain {
    keys: OpeningKeys,
    transcript: Vec<u8>,
}

impl Chain {
    fn seal(&mut self, step: Step, body: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION << 4 | ACCESS_KIND).u8(step as u8).put(body);
        let mut frame = writer.finish();
        let key = self.keys.tags[step as usize].take().expect("the typed states pass each step once");
        let tag = key.tag(Domain::TerminalAccess, &[&self.transcript, &frame]);
        frame.extend_from_slice(&tag.0);
        self.transcript.extend_from_slice(&frame);
        frame
    }

    fn check<'a>(&mut self, step: Step, frame: &'a [u8]) -> Result<&'a [u8], Error> {
        let (body, tag) = split(step, frame)?;
        let key = self.keys.tags[step as usize].take().expect("the typed states pass each step once");
        let signed = frame.get(..frame.len() - TAG_LEN).expect("the split found a tag");
        key.verify(Domain::TerminalAccess, &[&self.transcript, signed], &tag)
            .map_err(|_| Error::PeerMisbehaved { what: "an access message is not authentic" })?;
        self.transcript.extend_from_slice(frame);
        Ok(body)
    }

    fn seeds(mut self) -> (Self, Seeds) {
        let empty = || SecretBytes::from_vec(Vec::new());
        let seeds = Seeds {
            down: core::mem::replace(&mut self.keys.down, empty()),
            up: core::mem::replace(&mut self.keys.up, empty()),
        };
        (self, seeds)
    }
}

fn split(step: Step, frame: &[u8]) -> Result<(&[u8], Tag), Error> {
    if frame.len() > FRAME_MAX {
        return Err(CodecError::TooLong { field: "access frame", len: frame.len(), max: FRAME_MAX }.into());
    }
    let mut reader = Reader::new(frame);
    if reader.u8("version and kind")? != VERSION << 4 | ACCESS_KIND || reader.u8("step")? != step as u8 {
        return Err(Error::PeerMisbehaved { what: "not the access message that is due" });
    }
    let left = reader.left().checked_sub(TAG_LEN).ok_or(CodecError::Short {
        field: "tag",
        needed: TAG_LEN,
        left: reader.left(),
    })?;
    let body = reader.take("body", left)?;
    Ok((body, Tag(reader.array("tag")?)))
}

#[cfg(test)]
mod tests;
