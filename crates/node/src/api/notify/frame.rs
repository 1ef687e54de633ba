//! Frames of channel 6 between key management entities: a notification of key ids, and the answer to one.
//! `docs/formats/notice.md` gives them byte by byte.

use types::codec::{CodecError, Reader, Writer};
use types::id::{KeyId, SaeId, Uuid};

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// An SAE of the sender's site tells one of the receiver's which keys they share.
    Notice {
        /// Correlates the answer.
        request: u64,
        /// Who tells.
        from: SaeId,
        /// Who is told.
        to: SaeId,
        /// What is told.
        told: Told,
    },
    /// Whether a notification was kept.
    Answer {
        /// Which.
        request: u64,
        /// Whether it was kept.
        kept: bool,
    },
}

/// What one SAE tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Counts up by one from notification to notification of these two SAEs.
    pub(super) sequence: u64,
    /// Which keys.
    pub(super) ids: Vec<KeyId>,
    /// What the applications make of it; nothing to the KMEs.
    pub(super) note: String,
}

impl Frame {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        match self {
            Self::Notice { request, from, to, told } => {
                out.u8(NOTICE).u64(*request).bytes16(from.as_str().as_bytes()).bytes16(to.as_str().as_bytes());
                out.u64(told.sequence).count(told.ids.len());
                for id in &told.ids {
                    out.put(id.0.as_bytes());
                }
                out.bytes16(told.note.as_bytes());
            }
            Self::Answer { request, kept } => {
                out.u8(ANSWER).u64(*request).u8(u8::from(*kept));
            }
        }
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut bytes = Reader::new(bytes);
        if bytes.u8("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let frame = match bytes.u8("type")? {
            NOTICE => Self::Notice {
                request: bytes.u64("request")?,
                from: sae(bytes.text16("from", SAE_MAX)?, "from")?,
                to: sae(bytes.text16("to", SAE_MAX)?, "to")?,
                told: told(&mut bytes)?,
            },
            ANSWER => {
                let request = bytes.u64("request")?;
                let kept = match bytes.u8("kept")? {
                    0 => false,
                    1 => true,
                    _ => return Err(CodecError::Value { field: "kept" }),
                };
                Self::Answer { request, kept }
            }
            _ => return Err(CodecError::Value { field: "type" }),
        };
        bytes.end()?;
        Ok(frame)
    }
}

fn told(bytes: &mut Reader<'_>) -> Result<Told, CodecError> {
    let sequence = bytes.u64("sequence")?;
    let count = bytes.count("ids", IDS_MAX)?;
    if count == 0 {
        return Err(CodecError::Value { field: "ids" });
    }
    let ids = (0..count).map(|_| Ok(KeyId(Uuid::from_bytes(bytes.array("id")?)))).collect::<Result<_, CodecError>>()?;
    let note = bytes.text16("note", NOTE_MAX)?;
    if !is_note(note) {
        return Err(CodecError::Value { field: "note" });
    }
    Ok(Told { sequence, ids, note: note.to_owned() })
}

fn sae(text: &str, field: &'static str) -> Result<SaeId, CodecError> {
    SaeId::new(text).map_err(|_| CodecError::Value { field })
}

/// Whether a text may be a note.
pub(super) fn is_note(text: &str) -> bool {
    text.len() <= NOTE_MAX && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// Takes any bytes; whatever decodes encodes to the same bytes.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
    }
}

/// Most key ids of one notification.
pub(super) const IDS_MAX: usize = 128;
/// Most bytes of a note.
pub(super) const NOTE_MAX: usize = 64;
const SAE_MAX: usize = 128;
const VERSION: u8 = 1;
const NOTICE: u8 = 1;
const ANSWER: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Frame {
        let told = Told {
            sequence: 7,
            ids: vec![KeyId(Uuid::from_bytes([0x11; 16])), KeyId(Uuid::from_bytes([0x22; 16]))],
            note: "wg0 ready".to_owned(),
        };
        Frame::Notice { request: 258, from: SaeId::new("a").unwrap(), to: SaeId::new("bb").unwrap(), told }
    }

    #[test]
    fn frames_are_pinned_and_read_back() {
        let pinned = concat!(
            "0101",
            "0000000000000102",
            "000161",
            "00026262",
            "0000000000000007",
            "00000002",
            "11111111111111111111111111111111",
            "22222222222222222222222222222222",
            "0009777730207265616479"
        );
        // The note is "wg0 ready"; its bytes are spelled out so that a change of the codec shows.
        let pinned = pinned.replace("7777302072", "7767302072");
        assert_eq!(hex::encode(notice().encode()), pinned);
        let answer = Frame::Answer { request: 258, kept: true };
        assert_eq!(hex::encode(answer.encode()), "0102000000000000010201");
        for frame in [notice(), answer, Frame::Answer { request: 0, kept: false }] {
            assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn wrong_frames_are_refused() {
        let wire = notice().encode();
        for len in 0..wire.len() {
            assert!(Frame::decode(&wire[..len]).is_err(), "cut to {len}");
        }
        let changed = |at: usize, to: u8| {
            let mut wire = wire.clone();
            wire[at] = to;
            Frame::decode(&wire)
        };
        let vectors = [
            ("version 2", changed(0, 2)),
            ("type 3", changed(1, 3)),
            ("no ids", changed(28, 0)),
            ("more ids than there are", changed(28, 3)),
            ("a note with a line break", changed(wire.len() - 1, b'\n')),
            ("a note that is no ASCII", changed(wire.len() - 1, 0xc3)),
            ("an SAE with a control code", changed(12, 0)),
            ("a byte behind the end", Frame::decode(&[wire.clone(), vec![0]].concat())),
            ("neither kept nor not", Frame::decode(&hex::decode("0102000000000000010202").unwrap())),
        ];
        for (name, decoded) in vectors {
            assert!(decoded.is_err(), "{name}");
        }
        let mut long = notice();
        let Frame::Notice { told, .. } = &mut long else { unreachable!() };
        told.ids = vec![KeyId(Uuid::nil()); IDS_MAX + 1];
        assert!(Frame::decode(&long.encode()).is_err(), "too many ids");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        use crypto::rand_core::Rng as _;
        use rand_chacha::rand_core::SeedableRng as _;
        let mut rng = rand_chacha::ChaCha12Rng::from_seed([5; 32]);
        let wire = notice().encode();
        for round in 0..20_000_u32 {
            let mut bytes = wire.clone();
            for _ in 0..=round % 4 {
                let at = rng.next_u32() as usize % bytes.len();
                bytes[at] = rng.next_u32().to_le_bytes()[0];
            }
            bytes.truncate(rng.next_u32() as usize % (wire.len() * 2));
            fuzz(&bytes);
        }
    }
}
