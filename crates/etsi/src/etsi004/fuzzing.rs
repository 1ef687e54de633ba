//! Fuzz bodies: plain functions over bytes, replayed by tests over generated inputs.

use super::{Decoder, Dialect, Request, Response, ServerSession};

/// Whatever a server reads it can write again, byte by byte the same, however the bytes came in; nothing panics.
pub fn requests(bytes: &[u8], cut: usize) {
    let mut whole = Decoder::of_requests();
    whole.push(bytes);
    let mut pieces = Decoder::of_requests();
    let mut parts = bytes.chunks(cut.clamp(1, 4_096));
    loop {
        let frame = whole.next_frame();
        let mut other = pieces.next_frame();
        while matches!(other, Ok(None))
            && let Some(part) = parts.next()
        {
            pieces.push(part);
            other = pieces.next_frame();
        }
        match (frame, other) {
            (Ok(Some(frame)), Ok(Some(other))) => {
                assert!(frame.payload.expose(|a| other.payload.expose(|b| a == b)), "cutting changes nothing");
                let mut session = ServerSession::new();
                if let Ok(request) = session.request(&frame) {
                    frame.payload.expose(|payload| same(&request, payload));
                }
            }
            (Ok(None), Ok(None)) => return,
            (Err(one), Err(other)) => return assert_eq!(one, other),
            (one, other) => unreachable!("{one:?} {other:?}"),
        }
    }
}

/// Whatever a client reads it can write again, byte by byte the same, in the dialect that it was read in.
pub fn responses(bytes: &[u8]) {
    let mut decoder = Decoder::of_responses();
    decoder.push(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        for dialect in [Dialect::Terminated, Dialect::Fixed] {
            let Ok(response) = frame.payload.expose(|payload| Response::decode(frame.service, payload, dialect)) else {
                continue;
            };
            let again = response.encode(dialect);
            let read = Response::decode(frame.service, &again, dialect).expect("what is written is read");
            assert_eq!(again, read.encode(dialect));
        }
    }
}

fn same(request: &Request, payload: &[u8]) {
    let written = [Dialect::Terminated, Dialect::Fixed].map(|dialect| request.encode(dialect));
    assert!(written.iter().any(|one| one == payload), "reading accepts only what writing makes");
}
