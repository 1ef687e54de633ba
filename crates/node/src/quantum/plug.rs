//! The plug between a QKD module and the simulated fibre: messages over loopback TCP, specified in
//! `docs/formats/fibre.md`.
//!
//! These connections stand for light. They carry no authentication because light carries none: what an
//! attacker does to them is what an attacker does to photons, and the protocol above has to notice.

use bytes::Bytes;
use crypto::secret::SecretBytes;
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use types::codec::{CodecError, Reader, Writer};
use types::id::LinkId;
use types::quantum::{Basis, Detection, ReceiverReading, Role, Slot, TransmitterReading};

/// A framed connection between module and fibre.
pub type PlugStream = Framed<TcpStream, LengthDelimitedCodec>;

/// Frames a TCP connection.
#[must_use]
pub fn frame(tcp: TcpStream) -> PlugStream {
    Framed::new(tcp, LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec())
}

/// First message of a module.
#[derive(Debug)]
pub enum Hello {
    /// The transmitter, with the light that it is going to send.
    Alice(LinkId, SecretBytes),
    /// The receiver.
    Bob(LinkId),
}

/// Message of the fibre.
#[derive(Clone, Debug, PartialEq)]
pub enum FromFibre {
    /// Both modules are plugged in; slots count from 0.
    Started {
        /// Number of this quantum session, the same at both ends and larger than any before.
        session: u64,
    },
    /// Clicks of the receiver in all slots before `until` that were not reported yet.
    Clicks {
        /// Slots before this one are complete.
        until: Slot,
        /// In order of slot.
        clicks: Vec<Detection>,
    },
    /// What the receiver's watchdogs measured; comes before the clicks of the same slots.
    Receiver(ReceiverReading),
    /// What the transmitter's watchdog measured.
    Transmitter(TransmitterReading),
    /// The fibre does not take this module.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Hello {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.put(MAGIC).u8(VERSION);
        match self {
            Self::Alice(link, emission) => {
                w.u8(role_number(Role::Alice)).bytes16(link.as_str().as_bytes());
                emission.expose(|emission| w.bytes16(emission).len());
            }
            Self::Bob(link) => {
                w.u8(role_number(Role::Bob)).bytes16(link.as_str().as_bytes());
            }
        }
        w.finish().into()
    }

    /// Parses a first message.
    ///
    /// # Errors
    /// If it is no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.take("magic", MAGIC.len())? != MAGIC || r.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "magic and version" });
        }
        let role = r.u8("role")?;
        let link = LinkId::new(r.text16("link", 32)?).map_err(|_| CodecError::Value { field: "link" })?;
        let hello = match role {
            0 => Self::Alice(link, SecretBytes::copy_of(r.bytes16("emission", EMISSION_MAX)?)),
            1 => Self::Bob(link),
            _ => return Err(CodecError::Value { field: "role" }),
        };
        r.end()?;
        Ok(hello)
    }
}

impl FromFibre {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        match self {
            Self::Started { session } => {
                w.u8(1).u64(*session);
            }
            Self::Clicks { until, clicks } => {
                w.u8(2).u64(until.0).count(clicks.len());
                let mut last = 0;
                for click in clicks {
                    let flags =
                        u8::from(click.basis == Basis::Test) | u8::from(click.bit) << 1 | u8::from(click.double) << 2;
                    w.varint(click.slot.0 - last).u8(flags);
                    last = click.slot.0;
                }
            }
            Self::Refused { reason } => {
                w.u8(3).bytes16(reason.as_bytes());
            }
            Self::Receiver(reading) => {
                w.u8(4).u64(reading.slots).u64(reading.photocurrent_ua.to_bits()).u32(reading.doubles);
                reading.arrivals.iter().flatten().for_each(|clicks| _ = w.u32(*clicks));
            }
            Self::Transmitter(reading) => {
                w.u8(5).u64(reading.slots).u64(reading.incoming_nw.to_bits());
            }
        }
        w.finish().into()
    }

    /// Parses a message of the fibre.
    ///
    /// # Errors
    /// If it is malformed, or its clicks are not in order before `until`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let message = match r.u8("kind")? {
            1 => Self::Started { session: r.u64("session")? },
            2 => {
                let until = Slot(r.u64("until")?);
                let count = r.count("clicks", r.left() / 2)?;
                let mut clicks = Vec::with_capacity(count);
                let mut last = 0_u64;
                for index in 0..count {
                    let delta = r.varint("slot")?;
                    let slot = last.checked_add(delta).ok_or(CodecError::Value { field: "slot" })?;
                    if slot >= until.0 || (index > 0 && delta == 0) {
                        return Err(CodecError::Value { field: "slot" });
                    }
                    last = slot;
                    let flags = r.u8("flags")?;
                    if flags > 7 {
                        return Err(CodecError::Value { field: "flags" });
                    }
                    let basis = if flags & 1 == 0 { Basis::Key } else { Basis::Test };
                    clicks.push(Detection { slot: Slot(slot), basis, bit: flags & 2 != 0, double: flags & 4 != 0 });
                }
                Self::Clicks { until, clicks }
            }
            3 => Self::Refused { reason: r.text16("reason", 1_024)?.to_owned() },
            4 => {
                let slots = r.u64("slots")?;
                let photocurrent_ua = finite(&mut r, "photocurrent")?;
                let doubles = r.u32("double clicks")?;
                let mut arrivals = [[0; ReceiverReading::GATE_PARTS]; 2];
                for clicks in arrivals.iter_mut().flatten() {
                    *clicks = r.u32("arrivals")?;
                }
                Self::Receiver(ReceiverReading { slots, photocurrent_ua, arrivals, doubles })
            }
            5 => Self::Transmitter(TransmitterReading {
                slots: r.u64("slots")?,
                incoming_nw: finite(&mut r, "incoming power")?,
            }),
            _ => return Err(CodecError::Value { field: "kind" }),
        };
        r.end()?;
        Ok(message)
    }
}

/// A measured figure: finite and not negative.
fn finite(r: &mut Reader<'_>, field: &'static str) -> Result<f64, CodecError> {
    let value = f64::from_bits(r.u64(field)?);
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(CodecError::Value { field }) }
}

fn role_number(role: Role) -> u8 {
    match role {
        Role::Alice => 0,
        Role::Bob => 1,
    }
}

const MAGIC: &[u8] = b"QFIB";
const VERSION: u8 = 2;
const EMISSION_MAX: usize = 1_024;
const FRAME_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_round_trip_and_disorder_is_refused() {
        let click = |slot| Detection { slot: Slot(slot), basis: Basis::Test, bit: true, double: false };
        let message = FromFibre::Clicks { until: Slot(100), clicks: vec![click(0), click(7), click(99)] };
        assert_eq!(FromFibre::decode(&message.encode()), Ok(message));
        let late = FromFibre::Clicks { until: Slot(99), clicks: vec![click(99)] };
        assert!(FromFibre::decode(&late.encode()).is_err());
        let twice = FromFibre::Clicks { until: Slot(99), clicks: vec![click(5), click(5)] };
        assert!(FromFibre::decode(&twice.encode()).is_err());
        assert!(FromFibre::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn readings_round_trip_and_no_number_is_refused() {
        let arrivals = [[1, 2, 3, 4, 5, 6, 7, 8], [9; 8]];
        let receiver = FromFibre::Receiver(ReceiverReading { slots: 7, photocurrent_ua: 0.25, arrivals, doubles: 3 });
        let transmitter = FromFibre::Transmitter(TransmitterReading { slots: 7, incoming_nw: 1.5 });
        for message in [receiver, transmitter] {
            assert_eq!(FromFibre::decode(&message.encode()), Ok(message));
        }
        for power in [f64::NAN, f64::INFINITY, -1.0] {
            let reading = FromFibre::Transmitter(TransmitterReading { slots: 7, incoming_nw: power });
            assert!(FromFibre::decode(&reading.encode()).is_err(), "{power}");
        }
    }
}
