//! Tests of the session opening.

use alloc::vec;
use alloc::vec::Vec;

use types::id::{BatchId, KeyId, SaeId, TerminalId};

use super::*;
use crate::receiver::Floor;
use crate::record::Class;
use crate::suite::{Strength, Suite};

fn keys(fill: u8) -> OpeningKeys {
    OpeningKeys::new(SecretBytes::from_vec((0..OPENING_LEN).map(|i| fill ^ u8::try_from(i).unwrap()).collect()))
        .unwrap()
}

fn opening() -> Opening {
    Opening {
        center: SaeId::new("gateway-1").unwrap(),
        terminal: TerminalId::new("ftu-7").unwrap(),
        nonce: [1; 16],
        keys: KeySource::Keys(vec![KeyId::from_random([9; 16])]),
    }
}

fn request() -> AccessRequest {
    AccessRequest {
        terminal: TerminalId::new("ftu-7").unwrap(),
        nonce: [2; 16],
        suites: vec![0, 4],
        highest: 5,
        inventory: vec![InventoryLine { batch: BatchId(5), mark: 16, len: 1024 }],
    }
}

fn response() -> AccessResponse {
    AccessResponse { suites: vec![0, 4], agreed: vec![Agreed { batch: BatchId(5), start: 32 }] }
}

fn negotiate() -> Negotiate {
    Negotiate {
        suite: Suite::OtpWc128,
        floor: Floor::default().with(Class::Command, Strength::InformationTheoretic),
        volume: 65_536,
        lifetime_s: 3600,
    }
}

/// Runs the exchange; `tamper` sees every frame with its number.
fn exchange(mut tamper: impl FnMut(usize, &mut Vec<u8>)) -> Result<(), Error> {
    let confirm = Confirm { down: 992, up: 0, refusal: "".into() };
    let report = Report { otp_records: 1, aead_records: 2, refused: 3, down: 4, up: 5 };

    let (center, mut frame) = AwaitRequest::open(keys(3), &opening());
    tamper(0, &mut frame);
    let (unverified, seen) = Unverified::parse(&frame)?;
    let terminal = unverified.verify(keys(3))?;
    assert_eq!(seen, opening());
    let (terminal, mut frame) = terminal.request(&request());
    tamper(1, &mut frame);
    let (center, seen) = center.request(&frame)?;
    assert_eq!(seen, request());
    let (center, [mut frame, mut next]) = center.respond(&response(), &negotiate());
    tamper(2, &mut frame);
    tamper(3, &mut next);
    let (terminal, seen) = terminal.response(&frame)?;
    assert_eq!(seen, response());
    let (terminal, seen) = terminal.negotiate(&next)?;
    assert_eq!(seen, negotiate());
    let (terminal, ours, mut frame) = terminal.confirm(&confirm);
    tamper(4, &mut frame);
    let (center, theirs, seen) = center.confirm(&frame)?;
    assert_eq!(seen, confirm);
    assert_eq!((&ours.down, &ours.up), (&theirs.down, &theirs.up));
    assert_ne!(ours.down, ours.up);
    let mut frame = terminal.report(&report);
    tamper(5, &mut frame);
    assert_eq!(center.report(&frame)?, report);
    Ok(())
}

#[test]
fn both_ends_agree() {
    exchange(|_, _| {}).unwrap();
}

#[test]
fn every_flipped_bit_of_every_frame_is_noticed() {
    let mut lengths = [0; 6];
    exchange(|number, frame| lengths[number] = frame.len()).unwrap();
    for (number, len) in lengths.into_iter().enumerate() {
        for bit in 0..len * 8 {
            let result = exchange(|at, frame| {
                if at == number {
                    frame[bit / 8] ^= 1 << (bit % 8);
                }
            });
            assert!(result.is_err(), "frame {number} bit {bit}");
        }
        let cut = exchange(|at, frame| {
            if at == number {
                frame.pop();
            }
        });
        assert!(cut.is_err());
    }
}

#[test]
fn other_keys_open_nothing() {
    let (_, frame) = AwaitRequest::open(keys(3), &opening());
    assert!(matches!(Unverified::parse(&frame).unwrap().0.verify(keys(4)), Err(Error::PeerMisbehaved { .. })));
}

#[test]
fn a_refusal_goes_round() {
    for reason in [Refused::NotForMe, Refused::UnknownSlot, Refused::NoKeys, Refused::NotAuthentic] {
        assert_eq!(refusal(&refuse(reason)), Some(reason));
    }
    assert_eq!(refusal(&[0x1f, 255, 77]), None);
    assert!(is_access(&refuse(Refused::NoKeys)));
}

#[test]
fn a_batch_check_notices_one_bit() {
    let batch = |flip: usize| {
        let mut bytes: Vec<u8> = (0..96).collect();
        bytes[flip / 8] ^= u8::from(flip < 96 * 8) << (flip % 8);
        let mut bytes = SecretBytes::from_vec(bytes);
        let tag = batch_check(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 64);
        tag
    };
    let mut clean = SecretBytes::from_vec((0..96).collect());
    let clean = batch_check(&mut clean).unwrap();
    // Poly1305 clamps 22 bits of its key half: those alone change nothing.
    for bit in 32 * 8..96 * 8 {
        assert_ne!(batch(bit), clean, "bit {bit}");
    }
    assert!(batch_check(&mut SecretBytes::from_vec(vec![0; 32])).is_none());
}
