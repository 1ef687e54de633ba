//! The plain connections of a session, and how their bytes become records.

use std::collections::VecDeque;

use terminal::control::{Control, StreamId};
use terminal::{Class, Kind, Seal, Suite};
use types::units::Time;

use super::{BACKLOG_MAX, FLOOR_WAIT, Output, PAD_WAIT, STREAMS_MAX, Session, StreamMap, Waiting};
use crate::iec104::Classifier;
use crate::pools::Role;

/// Bytes that may be under way in one direction of one stream.
pub(super) const WINDOW: u32 = 64 * 1024;
/// A stream with more than this waiting takes no more from its plain connection.
const QUEUE_LOW: usize = 16 * 1024;
/// Bytes in front of the content of a payload record: the stream.
const STREAM_LEN: usize = 2;

#[derive(Debug)]
pub(super) struct Streams {
    first: u16,
    next: u16,
    map: StreamMap<Stream>,
    turn: StreamId,
}

#[derive(Debug)]
struct Stream {
    classifier: Classifier,
    queue: VecDeque<(Class, Vec<u8>)>,
    queued: usize,
    credit: u32,
    // What the other end may still send, and what was delivered since it was last told.
    granted: u32,
    delivered: u32,
    owes_ready: bool,
    finish: Finish,
    peer_finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    No,
    WhenSent,
    Sent,
}

impl Streams {
    pub(super) fn new(role: Role) -> Self {
        let first = u16::from(role == Role::Terminal);
        Self { first, next: first, map: StreamMap::new(), turn: StreamId(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// A new stream of this end.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        if self.map.len() >= STREAMS_MAX {
            return None;
        }
        while self.map.contains_key(&StreamId(self.next)) {
            self.next = self.next.wrapping_add(2);
        }
        let stream = StreamId(self.next);
        self.next = self.next.wrapping_add(2);
        self.map.insert(stream, Stream::new());
        Some(stream)
    }

    /// A new stream of the other end. False if there are too many.
    pub(super) fn dial(&mut self, stream: StreamId) -> Result<bool, &'static str> {
        if stream.0 % 2 == self.first || self.map.contains_key(&stream) {
            return Err("the other end opened a stream that is not its to open");
        }
        if self.map.len() >= STREAMS_MAX {
            return Ok(false);
        }
        self.map.insert(stream, Stream::new());
        Ok(true)
    }

    pub(super) fn plain_received(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(held) = self.map.get_mut(&stream) else { return };
        let mut rest = bytes;
        for segment in held.classifier.classify(bytes) {
            let (part, tail) = rest.split_at(segment.len);
            rest = tail;
            held.queued += part.len();
            match held.queue.back_mut() {
                Some((class, last)) if *class == segment.class => last.extend_from_slice(part),
                _ => held.queue.push_back((segment.class, part.to_vec())),
            }
        }
        held.owes_ready = true;
    }

    pub(super) fn plain_finished(&mut self, stream: StreamId) {
        if let Some(held) = self.map.get_mut(&stream)
            && held.finish == Finish::No
        {
            held.finish = Finish::WhenSent;
        }
    }

    /// Bytes were written to the plain connection; what to tell the other end, if it is time.
    pub(super) fn delivered(&mut self, stream: StreamId, bytes: usize) -> Option<u32> {
        let held = self.map.get_mut(&stream)?;
        held.delivered = held.delivered.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)).min(WINDOW);
        if held.delivered < WINDOW / 2 {
            return None;
        }
        held.granted += held.delivered;
        Some(std::mem::take(&mut held.delivered))
    }

    pub(super) fn credit(&mut self, stream: StreamId, bytes: u32) {
        if let Some(held) = self.map.get_mut(&stream) {
            held.credit = held.credit.saturating_add(bytes).min(WINDOW);
        }
    }

    /// The other end will send no more. True if the stream is here.
    pub(super) fn peer_finished(&mut self, stream: StreamId) -> bool {
        let Some(held) = self.map.get_mut(&stream) else { return false };
        held.peer_finished = true;
        if held.finish == Finish::Sent {
            self.map.remove(&stream);
        }
        true
    }

    /// Forgets a stream. True if it was here.
    pub(super) fn remove(&mut self, stream: StreamId) -> bool {
        self.map.remove(&stream).is_some()
    }

    /// Forgets all streams.
    pub(super) fn drain(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.map).into_keys().collect()
    }

    /// Hands over the content of a payload record.
    pub(super) fn payload(&mut self, plain: &[u8], outputs: &mut VecDeque<Output>) -> Result<(), &'static str> {
        let Some((stream, bytes)) = plain.split_first_chunk::<STREAM_LEN>() else {
            return Err("a payload record without a stream");
        };
        let stream = StreamId(u16::from_be_bytes(*stream));
        // A stream that was reset here while its bytes were under way.
        let Some(held) = self.map.get_mut(&stream) else { return Ok(()) };
        let len = u32::try_from(bytes.len()).map_err(|_| "a payload longer than a record")?;
        held.granted = held.granted.checked_sub(len).ok_or("the other end sent more than it was granted")?;
        if held.peer_finished {
            return Err("the other end sent after it had finished");
        }
        outputs.push_back(Output::Deliver { stream, bytes: bytes.to_vec() });
        Ok(())
    }

    /// The next stream, in turn, that has bytes it may send.
    fn next_to_send(&mut self) -> Option<StreamId> {
        let may = |(_, held): &(&StreamId, &Stream)| !held.queue.is_empty() && held.credit > 0;
        let after = self.map.range(StreamId(self.turn.0.saturating_add(1))..).find(may);
        let next = *after.or_else(|| self.map.iter().find(may))?.0;
        self.turn = next;
        Some(next)
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            classifier: Classifier::new(),
            queue: VecDeque::new(),
            queued: 0,
            credit: WINDOW,
            granted: WINDOW,
            delivered: 0,
            owes_ready: false,
            finish: Finish::No,
            peer_finished: false,
        }
    }

    /// Class of the bytes in front and how many of them may go.
    fn front(&self) -> Option<(Class, usize)> {
        let (class, bytes) = self.queue.front()?;
        Some((*class, bytes.len().min(usize::try_from(self.credit).unwrap_or(usize::MAX))))
    }

    /// Cuts `len` bytes off the front, behind the stream's number.
    fn take(&mut self, stream: StreamId, len: usize) -> Vec<u8> {
        let mut plain = Vec::with_capacity(STREAM_LEN + len);
        plain.extend_from_slice(&stream.0.to_be_bytes());
        if let Some((_, bytes)) = self.queue.front_mut() {
            plain.extend(bytes.drain(..len));
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        }
        self.queued -= len;
        self.credit -= u32::try_from(len).unwrap_or(self.credit);
        plain
    }
}

/// What to do with the bytes in front of a stream.
enum Choice {
    Seal(Suite, usize),
    Wait,
}

impl Session {
    /// Seals what may be sent, stream by stream in turn.
    pub(super) fn pump(&mut self, now: Time) {
        while self.backlog < BACKLOG_MAX {
            let Some(stream) = self.streams.next_to_send() else {
                self.waiting = None;
                break;
            };
            let Some((class, len)) = self.streams.map.get(&stream).and_then(Stream::front) else { break };
            self.review_level(now);
            let Choice::Seal(suite, len) = self.choose(now, class, len) else { break };
            self.waiting = None;
            let Some(held) = self.streams.map.get_mut(&stream) else { break };
            let plain = held.take(stream, len);
            let seal = Seal { suite, kind: Kind::Payload, class };
            if let Err(error) = self.seal_and_send(now, seal, &plain) {
                return self.close(&format!("no key is left to seal a record: {error}"));
            }
            self.reserve();
        }
        self.finish_and_ready(now);
    }

    /// How the next bytes of a class go, and how many of them.
    fn choose(&mut self, now: Time, class: Class, len: usize) -> Choice {
        let aead = Choice::Seal(Suite::Aes256Gcm, len.min(Suite::Aes256Gcm.plain_max() - STREAM_LEN));
        if self.config.policy.suite(self.level, class) == Suite::Aes256Gcm {
            return aead;
        }
        let want = len + STREAM_LEN;
        // What epoch seeds need is left for them.
        let spare = self.send_stock().saturating_sub(self.config.policy.epoch_reserve + Suite::OtpWc128.consumption(0));
        let spare = usize::try_from(spare).unwrap_or(usize::MAX);
        let room = self.sender.otp_room(&mut self.pools.send, want.min(spare));
        if room > STREAM_LEN {
            return Choice::Seal(Suite::OtpWc128, room - STREAM_LEN);
        }
        let since = self.waiting.map_or(now, |waiting| waiting.since);
        let strict = self.must_be_otp(class);
        let until = since.after(if strict { FLOOR_WAIT } else { PAD_WAIT });
        self.waiting = Some(Waiting { since, until });
        if strict {
            if now >= until {
                self.close("no pad is left for a class that must not go without");
            }
            return Choice::Wait;
        }
        if self.reserving.is_some() && now < until {
            return Choice::Wait;
        }
        self.pad_late = true;
        self.review_level(now);
        aead
    }

    fn finish_and_ready(&mut self, now: Time) {
        let mut finished = Vec::new();
        for (stream, held) in &mut self.streams.map {
            if held.owes_ready && held.queued <= QUEUE_LOW {
                held.owes_ready = false;
                self.outputs.push_back(Output::Ready(*stream));
            }
            if held.finish == Finish::WhenSent && held.queue.is_empty() {
                held.finish = Finish::Sent;
                finished.push(*stream);
            }
        }
        for stream in finished {
            self.send_control(now, &Control::Finish(stream));
            if self.streams.map.get(&stream).is_some_and(|held| held.peer_finished) {
                self.streams.remove(stream);
            }
        }
    }
}
