//! The cipher connection's bytes: frames in and out, hidden headers, records opened and sealed.

use terminal::control::Control;
use terminal::record::HEADER_LEN;
use terminal::{Class, Kind, Seal, Suite};
use types::units::Time;

use super::opening::Opening;
use super::{ACCESS_BIT, Closing, EPOCH_AGE, Output, Session, State, chain};

impl Session {
    pub(super) fn handle_received(&mut self, now: Time, bytes: &[u8]) {
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.extend_from_slice(bytes);
        let mut rest = inbound.as_slice();
        while let Some((len, tail)) = rest.split_first_chunk::<2>() {
            let head = u16::from_be_bytes(*len);
            let Some((frame, tail)) = tail.split_at_checked(usize::from(head & !ACCESS_BIT)) else { break };
            self.handle_frame(now, head & ACCESS_BIT != 0, frame);
            if matches!(self.state, State::Closed) {
                return;
            }
            rest = tail;
        }
        self.inbound = rest.to_vec();
    }

    fn handle_frame(&mut self, now: Time, access: bool, frame: &[u8]) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Opening { step, until } => match self.opening_frame(now, step, access, frame) {
                Ok(state) => self.state = state.unwrap_or_else(|step| State::Opening { step, until }),
                Err(reason) => {
                    // Back into a state that can be closed.
                    self.state = State::Opening { step: Opening::Failed, until };
                    self.close(&reason);
                }
            },
            State::Open(Closing::Center(closing)) | State::Stopping { closing: Closing::Center(closing), .. }
                if access =>
            {
                let reason = match closing.report(frame) {
                    Ok(report) => format!(
                        "closed by the terminal: {} records under one-time pad, {} under epoch keys",
                        report.otp_records, report.aead_records
                    ),
                    Err(error) => chain(&error),
                };
                self.state = State::Opening { step: Opening::Failed, until: now };
                self.close(&reason);
            }
            state => {
                self.state = state;
                let mut record = frame.to_vec();
                if let Some((_, mask)) = &self.masks {
                    mask.apply(&mut record);
                }
                self.handle_record(now, &record);
            }
        }
    }

    fn handle_record(&mut self, now: Time, record: &[u8]) {
        let opened = match self.pools.receive.open(record, &self.received.to_be_bytes()) {
            Ok(opened) => opened,
            Err(refusal) => return self.close(&format!("a record was refused: {refusal}")),
        };
        self.received += 1;
        self.last_received = now;
        if opened.kind == Kind::Payload {
            if let Err(reason) = self.streams.payload(&opened.plain, &mut self.outputs) {
                self.close(reason);
            }
            return;
        }
        match Control::decode(&opened.plain) {
            Ok(control) => self.handle_control(now, control),
            Err(error) => self.close(&format!("a control message does not decode: {error}")),
        }
    }

    pub(super) fn send_control(&mut self, now: Time, control: &Control) {
        if !matches!(self.state, State::Open(_) | State::Stopping { .. }) {
            return;
        }
        let seal = Seal { suite: Suite::Aes256Gcm, kind: Kind::Control, class: Class::Session };
        if let Err(error) = self.seal_and_send(now, seal, &control.encode()) {
            self.close(&format!("no key is left to seal a control record: {error}"));
        }
    }

    pub(super) fn seal_and_send(&mut self, now: Time, seal: Seal, plain: &[u8]) -> Result<(), terminal::Error> {
        if now.since(self.epoch_since) >= EPOCH_AGE {
            self.epoch_since = now;
            self.sender.wear_epoch();
        }
        let record = self.sender.seal(&mut self.pools.send, seal, &self.sent.to_be_bytes(), plain)?;
        debug_assert!(record.len() >= HEADER_LEN);
        self.sent += 1;
        match seal.suite {
            Suite::OtpWc128 => self.sent_otp += 1,
            _ => self.sent_aead += 1,
        }
        self.last_sent = now;
        let start = self.push_frame(0, &record);
        if let (Some((mask, _)), Some(Output::Send(last))) = (&self.masks, self.outputs.back_mut()) {
            mask.apply(last.get_mut(start..).unwrap_or_default());
        }
        Ok(())
    }

    /// Sends a frame of the opening or the closing.
    pub(super) fn send_access(&mut self, frame: &[u8]) {
        self.push_frame(ACCESS_BIT, frame);
    }

    /// Queues a frame behind its length; returns where it starts in the last output.
    fn push_frame(&mut self, bit: u16, frame: &[u8]) -> usize {
        let len = u16::try_from(frame.len()).expect("records and access frames are below 32 KiB");
        debug_assert!(len & ACCESS_BIT == 0);
        let mut bytes = Vec::with_capacity(frame.len() + 2);
        bytes.extend_from_slice(&(len | bit).to_be_bytes());
        bytes.extend_from_slice(frame);
        self.backlog += bytes.len();
        match self.outputs.back_mut() {
            Some(Output::Send(last)) if last.len() < 64 * 1024 => {
                last.extend_from_slice(&bytes);
                last.len() - frame.len()
            }
            _ => {
                self.outputs.push_back(Output::Send(bytes));
                2
            }
        }
    }
}
