//! IEC 60870-5-104 just far enough to tell the class of every byte of a stream.
//!
//! ```text
//!  0x68 | length 4..253 | control 4 B | ASDU: type id, VSQ, cause 2, common address 2, objects
//!  control byte 1: xxxxxxx0 = I, xxxxxx01 = S, xxxxxx11 = U
//! ```
//! Provided: I, S and U frames, classes by type id, frames cut anywhere, return to the framing after foreign
//! bytes. Not provided: any check of content, sequence numbers or answers; nothing is held back or changed.
//! Bytes that are not recognised are [`Class::Telemetry`]; bytes of a frame whose type is not here yet count as
//! [`Class::Command`], the strongest.

use terminal::Class;

/// Finds the class of each byte of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Classifier {
    state: State,
}

/// So many bytes of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Their class.
    pub class: Class,
    /// How many.
    pub len: usize,
}

impl Classifier {
    /// At the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Head(Head::default()) }
    }

    /// The classes of the next bytes, in order; the lengths add up to that of `bytes`.
    pub fn classify(&mut self, bytes: &[u8]) -> Vec<Segment> {
        if matches!(self.state, State::Foreign) && is_whole_frames(bytes) {
            self.state = State::Head(Head::default());
        }
        let mut segments = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (class, used) = self.step(rest);
            push(&mut segments, class, used);
            rest = rest.get(used..).unwrap_or_default();
        }
        segments
    }

    /// The class of the first bytes of `rest` (not empty), and how many they are (at least one).
    fn step(&mut self, rest: &[u8]) -> (Class, usize) {
        match &mut self.state {
            State::Foreign => (Class::Telemetry, rest.len()),
            State::Inside { class, left } => {
                let (class, used) = (*class, rest.len().min(*left));
                *left -= used;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                (class, used)
            }
            State::Head(head) => {
                for (index, byte) in rest.iter().enumerate() {
                    head.bytes[head.len] = *byte;
                    head.len += 1;
                    let used = index + 1;
                    match judge(&head.bytes[..head.len]) {
                        Verdict::Unknown => {}
                        Verdict::Foreign => {
                            self.state = State::Foreign;
                            return (Class::Telemetry, rest.len());
                        }
                        Verdict::Frame { class, len } => {
                            let left = len - head.len;
                            let now = left.min(rest.len() - used);
                            self.state = if left == now {
                                State::Head(Head::default())
                            } else {
                                State::Inside { class, left: left - now }
                            };
                            return (class, used + now);
                        }
                    }
                }
                (Class::Command, rest.len())
            }
        }
    }
}

impl Default for Classifier {
    fn default() -> Self {
        Self::new()
    }
}

/// The class of an ASDU by its type id (IEC 60870-5-101, 7.2.1; IEC 60870-5-104, table 1).
#[must_use]
pub fn class_of_type(type_id: u8) -> Class {
    match type_id {
        // Commands and set points without and with time tag; reset process; parameters.
        45..=51 | 58..=64 | 105 | 110..=113 => Class::Command,
        // Interrogation, counters, read, clock, test, delay.
        100..=104 | 106 | 107 => Class::Interrogation,
        _ => Class::Telemetry,
    }
}

#[derive(Clone, Debug)]
enum State {
    Head(Head),
    Inside { class: Class, left: usize },
    Foreign,
}

#[derive(Clone, Debug, Default)]
struct Head {
    bytes: [u8; HEAD_LEN],
    len: usize,
}

enum Verdict {
    Unknown,
    Foreign,
    Frame { class: Class, len: usize },
}

/// Start byte, length, four control bytes, type id.
const HEAD_LEN: usize = 7;
const START: u8 = 0x68;

fn judge(head: &[u8]) -> Verdict {
    match head {
        [] | [START] => Verdict::Unknown,
        [START, len, ..] if !(4..=253).contains(len) => Verdict::Foreign,
        [START, _] => Verdict::Unknown,
        // S and U frames have no ASDU; an I frame has at least its six-byte head.
        [START, 4, control, ..] if control & 1 == 1 => Verdict::Frame { class: Class::Supervisory, len: 6 },
        [START, len, control, ..] if control & 1 == 1 || *len < 10 => Verdict::Foreign,
        [START, len, _, _, _, _, type_id, ..] => {
            Verdict::Frame { class: class_of_type(*type_id), len: usize::from(*len) + 2 }
        }
        [START, ..] => Verdict::Unknown,
        _ => Verdict::Foreign,
    }
}

fn is_whole_frames(mut bytes: &[u8]) -> bool {
    loop {
        let Verdict::Frame { len, .. } = judge(bytes.get(..HEAD_LEN).unwrap_or(bytes)) else { return false };
        match bytes.get(len..) {
            Some([]) => return true,
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
}

fn push(segments: &mut Vec<Segment>, class: Class, len: usize) {
    match segments.last_mut() {
        Some(last) if last.class == class => last.len += len,
        _ => segments.push(Segment { class, len }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STARTDT: [u8; 6] = [0x68, 4, 7, 0, 0, 0];
    const S_FRAME: [u8; 6] = [0x68, 4, 1, 0, 2, 0];
    const COMMAND: [u8; 16] = [0x68, 14, 0, 0, 0, 0, 45, 1, 6, 0, 47, 0, 0x88, 0x13, 0, 1];
    const INTERROGATION: [u8; 16] = [0x68, 14, 2, 0, 0, 0, 100, 1, 6, 0, 47, 0, 0, 0, 0, 20];
    const FLOAT: [u8; 20] = [0x68, 18, 4, 0, 2, 0, 13, 1, 3, 0, 47, 0, 0xe8, 3, 0, 0, 0, 0x80, 0x3f, 0];

    fn segments(parts: &[(Class, usize)]) -> Vec<Segment> {
        parts.iter().map(|(class, len)| Segment { class: *class, len: *len }).collect()
    }

    #[test]
    fn frames_have_their_classes() {
        let stream = [&STARTDT[..], &S_FRAME, &COMMAND, &INTERROGATION, &FLOAT, &FLOAT].concat();
        let expected = segments(&[
            (Class::Supervisory, 12),
            (Class::Command, 16),
            (Class::Interrogation, 16),
            (Class::Telemetry, 40),
        ]);
        assert_eq!(Classifier::new().classify(&stream), expected);
    }

    #[test]
    fn foreign_bytes_are_telemetry_until_whole_frames_come_again() {
        let mut classifier = Classifier::new();
        assert_eq!(classifier.classify(b"GET / HTTP/1.1"), segments(&[(Class::Telemetry, 14)]));
        assert_eq!(classifier.classify(&COMMAND[..9]), segments(&[(Class::Telemetry, 9)]));
        assert_eq!(classifier.classify(&COMMAND), segments(&[(Class::Command, 16)]));
        for foreign in [&[0x68, 3][..], &[0x68, 254], &[0x68, 8, 0], &[0x68, 14, 3], &[0x69]] {
            assert_eq!(Classifier::new().classify(foreign), segments(&[(Class::Telemetry, foreign.len())]));
        }
    }

    #[test]
    fn type_ids_of_the_standard() {
        for (type_id, class) in [
            (1, Class::Telemetry),
            (13, Class::Telemetry),
            (36, Class::Telemetry),
            (45, Class::Command),
            (50, Class::Command),
            (58, Class::Command),
            (64, Class::Command),
            (100, Class::Interrogation),
            (103, Class::Interrogation),
            (105, Class::Command),
            (110, Class::Command),
            (126, Class::Telemetry),
        ] {
            assert_eq!(class_of_type(type_id), class, "{type_id}");
        }
    }

    proptest! {
        // However the stream is cut, a byte never gets a weaker class than in one piece, and no byte is lost.
        #[test]
        fn cuts_only_strengthen(picks in proptest::collection::vec(0_usize..5, 1..12), cuts in proptest::collection::vec(1_usize..9, 0..60)) {
            let frames: [&[u8]; 5] = [&STARTDT, &S_FRAME, &COMMAND, &INTERROGATION, &FLOAT];
            let stream: Vec<u8> = picks.iter().flat_map(|pick| frames[*pick].to_vec()).collect();
            let expand = |segments: Vec<Segment>| -> Vec<Class> {
                segments.into_iter().flat_map(|segment| vec![segment.class; segment.len]).collect()
            };
            let whole = expand(Classifier::new().classify(&stream));
            let (mut cut, mut classes, mut rest) = (Classifier::new(), Vec::new(), stream.as_slice());
            for len in cuts.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(len.min(rest.len()));
                classes.extend(expand(cut.classify(piece)));
                rest = tail;
            }
            prop_assert_eq!(classes.len(), whole.len());
            for (cut, whole) in classes.iter().zip(&whole) {
                prop_assert!(cut == whole || *cut == Class::Command);
            }
        }

        #[test]
        fn any_bytes_keep_their_number(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10)) {
            let mut classifier = Classifier::new();
            for chunk in chunks {
                let total: usize = classifier.classify(&chunk).iter().map(|segment| segment.len).sum();
                prop_assert_eq!(total, chunk.len());
            }
        }
    }
}
