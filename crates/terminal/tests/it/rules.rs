//! The receiver's rules, each with the case that breaks it, and the sender's ends of pad and epoch.

use terminal::receiver::FORGERIES_MAX;
use terminal::{
    Class, Direction, EpochLimits, Error, Floor, Header, Kind, PadChunk, PadReceiver, PadSender, Refusal, Seal,
    Strength, Suite,
};
use types::id::BatchId;

use crate::{payload, shared_key, source};

const BATCH: BatchId = BatchId(1);

fn pair(len: usize) -> (PadSender, impl Iterator<Item = PadChunk> + use<>, PadReceiver) {
    let key = shared_key(2, len);
    let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
    receiver.install(BATCH, &key).unwrap();
    (PadSender::new(Direction::Down), source(BATCH, &key, 1024), receiver)
}

#[test]
fn both_directions_at_offset_0_share_no_pad() {
    // The same bits installed under the same number in both directions would be a two-time pad; the ids differ, so
    // a pool cannot hold one key under both, and a record of one direction is refused in the other.
    let key = shared_key(3, 1024);
    let (down, up) = (Direction::Down.batch(1), Direction::Up.batch(1));
    assert_ne!(down, up);
    let mut sender = PadSender::new(Direction::Down);
    let otp = payload(Suite::OtpWc128, Class::Command);
    let record = sender.seal(&mut source(down, &key, 1024), otp, &[], b"select").unwrap();
    let mut receiver = PadReceiver::new(Direction::Up, Floor::default());
    assert!(receiver.install(down, &key).is_err());
    receiver.install(up, &key).unwrap();
    assert_eq!(receiver.open(&record, &[]), Err(Refusal::Direction { batch: down }));
    let mut turned = record;
    turned[4] |= 0x80;
    assert_eq!(receiver.open(&turned, &[]), Err(Refusal::Forged { offset: 0 }));
}

#[test]
fn a_forger_burns_no_key_and_is_blocked_with_an_alarm() {
    let (mut sender, mut pads, mut receiver) = pair(4096);
    let otp = payload(Suite::OtpWc128, Class::Command);
    let record = sender.seal(&mut pads, otp, &[], b"close breaker 3").unwrap();
    let later = sender.seal(&mut pads, otp, &[], &[0; 256]).unwrap();
    let far = sender.seal(&mut pads, otp, &[], b"far").unwrap();
    let mut forged = record.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 1..FORGERIES_MAX {
        assert_eq!(receiver.open(&forged, &[]), Err(Refusal::Forged { offset: 0 }));
    }
    assert_eq!(receiver.stock(), 4096);
    assert!(receiver.open(&later, &[]).is_ok(), "below the limit the range still opens");
    assert_eq!(receiver.open(&forged, &[]), Err(Refusal::Forged { offset: 0 }));
    assert_eq!(receiver.counts().blocked, 1, "one alarm");
    assert_eq!(receiver.open(&record, &[]), Err(Refusal::Blocked { offset: 0 }));
    assert!(receiver.open(&far, &[]).is_ok(), "other ranges are not touched");
    assert_eq!(receiver.counts().forged, u64::from(FORGERIES_MAX));
}

#[test]
fn a_lie_about_the_length_shifts_nothing() {
    let (mut sender, mut pads, mut receiver) = pair(1024);
    let otp = payload(Suite::OtpWc128, Class::Telemetry);
    let first = sender.seal(&mut pads, otp, &[], &[1; 20]).unwrap();
    let second = sender.seal(&mut pads, otp, &[], &[2; 20]).unwrap();
    let mut longer = first.clone();
    longer.insert(20, 0);
    let mut shorter = first.clone();
    shorter.remove(20);
    assert!(receiver.open(&longer, &[]).is_err());
    assert!(receiver.open(&shorter, &[]).is_err());
    assert_eq!(receiver.open(&second, &[]).unwrap().plain, [2; 20]);
    assert_eq!(receiver.open(&first, &[]).unwrap().plain, [1; 20]);
}

#[test]
fn the_receiver_enforces_the_floor() {
    let (mut sender, mut pads, mut receiver) = pair(1024);
    receiver.set_floor(Floor::default().with(Class::Command, Strength::InformationTheoretic));
    let weak = sender.seal(&mut pads, payload(Suite::Aes256Gcm, Class::Command), &[], b"x").unwrap();
    let refusal = Refusal::BelowFloor { class: Class::Command, suite: Suite::Aes256Gcm };
    assert_eq!(receiver.open(&weak, &[]), Err(refusal));
    // Relabelling the class does not help: the header is under the tag.
    let mut relabelled = weak;
    relabelled[2] = Class::Telemetry as u8;
    assert!(matches!(receiver.open(&relabelled, &[]), Err(Refusal::Forged { .. })));
    let strong = sender.seal(&mut pads, payload(Suite::OtpWc128, Class::Command), &[], b"x").unwrap();
    assert!(receiver.open(&strong, &[]).is_ok());
}

#[test]
fn a_restored_receiver_finds_no_old_key() {
    let (mut sender, mut pads, mut receiver) = pair(4096);
    let otp = payload(Suite::OtpWc128, Class::Command);
    let record = sender.seal(&mut pads, otp, &[], &[0; 1500]).unwrap();
    receiver.open(&record, &[]).unwrap();
    receiver.settle();
    assert_eq!(receiver.take_destroyed(), [(BATCH, 0)]);

    // A backup of the receiver that still holds everything, told the sender's mark by the session opening.
    let key = shared_key(2, 4096);
    let mut restored = PadReceiver::new(Direction::Down, Floor::default());
    restored.install(BATCH, &key).unwrap();
    restored.burn_below(BATCH, 1536);
    assert_eq!(restored.open(&record, &[]), Err(Refusal::Replayed { offset: 0 }));

    // A receiver that restarts from its store: the first piece is gone there.
    let pieces = (1_u32..4).map(|index| (index, key.part(index as usize * 1024, 1024).unwrap()));
    let mut restarted = PadReceiver::new(Direction::Down, Floor::default());
    restarted.install_pieces(BATCH, 4096, pieces).unwrap();
    assert_eq!(restarted.stock(), 3072);
    assert!(restarted.open(&record, &[]).is_err());
}

#[test]
fn epochs_are_renewed_and_end() {
    let key = shared_key(4, 96);
    let limits = EpochLimits { records: 2, bytes: u64::MAX, records_max: 5 };
    let mut sender = PadSender::with_limits(Direction::Down, limits);
    let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
    receiver.install(BATCH, &key).unwrap();
    let mut pads = source(BATCH, &key, 32);
    let aead = payload(Suite::Aes256Gcm, Class::Telemetry);
    let mut starts = Vec::new();
    // Three seeds: two epochs of 2 records, the last goes on to its hard limit of 5.
    for _ in 0..9 {
        let record = sender.seal(&mut pads, aead, &[], b"value").unwrap();
        let header = Header::decode(record.first_chunk().unwrap()).unwrap();
        starts.push(terminal::record::split_epoch(header.offset).0);
        assert_eq!(receiver.open(&record, &[]).unwrap().plain, b"value");
        assert!(receiver.open(&record, &[]).is_err());
    }
    assert_eq!(starts, [0, 0, 32, 32, 64, 64, 64, 64, 64]);
    assert_eq!(sender.seal(&mut pads, aead, &[], b"value"), Err(Error::Exhausted { needed: 32, left: 0 }));
}

#[test]
fn an_epoch_seed_is_no_pad_and_pad_is_no_seed() {
    let (mut sender, mut pads, mut receiver) = pair(1024);
    let otp = sender.seal(&mut pads, payload(Suite::OtpWc128, Class::Telemetry), &[], b"a").unwrap();
    let aead = sender.seal(&mut pads, payload(Suite::Aes256Gcm, Class::Telemetry), &[], b"b").unwrap();
    receiver.open(&otp, &[]).unwrap();
    receiver.open(&aead, &[]).unwrap();
    receiver.end_epochs();
    assert!(matches!(receiver.open(&aead, &[]), Err(Refusal::Replayed { .. })), "the seed is gone with its session");
}

#[test]
fn the_session_seeds_stand_under_batch_0() {
    let seed = shared_key(5, 32);
    let mut sender = PadSender::new(Direction::Up);
    let mut receiver = PadReceiver::new(Direction::Up, Floor::default());
    sender.start_epoch(Direction::Up.batch(0), 0, &seed).unwrap();
    receiver.start_epoch(Direction::Up.batch(0), 0, &seed).unwrap();
    assert!(sender.start_epoch(Direction::Down.batch(0), 0, &seed).is_err());
    let control = Seal { suite: Suite::Aes256Gcm, kind: Kind::Control, class: Class::Session };
    let record = sender.seal(&mut std::iter::empty(), control, &[], b"ping").unwrap();
    assert_eq!(receiver.open(&record, &[]).unwrap().kind, Kind::Control);
    receiver.end_epochs();
    assert!(matches!(receiver.open(&record, &[]), Err(Refusal::Batch { .. })));
}

#[test]
fn room_splits_over_batches_and_burns_only_scraps() {
    let (a, b) = (shared_key(6, 144), shared_key(7, 1024));
    let second = BatchId(2);
    let mut pads = source(BATCH, &a, 48).chain(source(second, &b, 1024));
    let mut sender = PadSender::new(Direction::Down);
    let otp = payload(Suite::OtpWc128, Class::Telemetry);
    assert_eq!(sender.otp_room(&mut pads, 50), 50);
    sender.seal(&mut pads, otp, &[], &[0; 50]).unwrap();
    // 48 bytes are left of the first batch: room for 16, not for 50.
    assert_eq!(sender.otp_room(&mut pads, 50), 16);
    sender.seal(&mut pads, otp, &[], &[0; 16]).unwrap();
    assert_eq!(sender.burned(), 0);
    assert_eq!(sender.otp_room(&mut pads, 2000), 992);
    assert!(matches!(sender.seal(&mut pads, otp, &[], &[0; 1200]), Err(Error::Exhausted { needed: 1232, .. })));
    sender.seal(&mut pads, otp, &[], &[0; 992]).unwrap();
    assert_eq!((sender.otp_room(&mut pads, 1), sender.held()), (0, 0));
    assert!(matches!(sender.seal(&mut pads, otp, &[], &[0; 5000]), Err(Error::ApiMisuse { .. })));
}

#[test]
fn a_batch_of_the_wrong_shape_is_not_installed() {
    let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
    for len in [0, 17, (1 << 20) + 16] {
        assert!(receiver.install(BATCH, &shared_key(8, len)).is_err(), "{len}");
    }
    let piece = |len| shared_key(9, len);
    assert!(receiver.install_pieces(BATCH, 2048, [(2, piece(1024))]).is_err());
    assert!(receiver.install_pieces(BATCH, 2048, [(0, piece(1000))]).is_err());
    assert!(receiver.install_pieces(BATCH, 2048, [(0, piece(1024)), (0, piece(1024))]).is_err());
    assert!(receiver.install_pieces(BATCH, 2048, [(1, piece(1024))]).is_ok());
    assert!(receiver.install(BATCH, &piece(1024)).is_err(), "known already");
}
