//! Known answers. Made by an independent program: Poly1305 in big integers, HKDF from HMAC, AES-GCM from the
//! Python package `cryptography`.

use crypto::secret::SecretBytes;
use terminal::{Class, Direction, Floor, PadChunk, PadReceiver, PadSender, Suite};

use crate::payload;

const PLAIN: [u8; 16] = [0x68, 0x0e, 0, 0, 0, 0, 0x2d, 1, 6, 0, 0x2f, 0, 0x88, 0x13, 0, 1];
const CONTEXT: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 5];

fn key() -> SecretBytes {
    SecretBytes::from_vec((0..256_u32).map(|i| u8::try_from((7 * i + 3) & 0xff).unwrap()).collect())
}

#[test]
fn suite_0() {
    let batch = Direction::Up.batch(9);
    let mut source = std::iter::once(PadChunk::new(batch, 48, key().part(48, 208).unwrap()));
    let mut sender = PadSender::new(Direction::Up);
    let record = sender.seal(&mut source, payload(Suite::OtpWc128, Class::Command), &CONTEXT, &PLAIN).unwrap();
    assert_eq!(
        hex::encode(&record),
        "100003008000000900000000000000305b3441484f5670656d7256800f9d959ded7cb5b44c52791145104ee578847744"
    );
    let mut receiver = PadReceiver::new(Direction::Up, Floor::default());
    receiver.install(batch, &key()).unwrap();
    assert!(receiver.open(&record, &[]).is_err(), "the context is under the tag");
    assert_eq!(receiver.open(&record, &CONTEXT).unwrap().plain, PLAIN);
}

#[test]
fn suite_4() {
    let batch = Direction::Down.batch(9);
    let mut source = std::iter::once(PadChunk::new(batch, 64, key().part(64, 64).unwrap()));
    let mut sender = PadSender::new(Direction::Down);
    let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
    receiver.install(batch, &key()).unwrap();
    for vector in [
        "1004010000000009000000000400000012261ff7bf797e7cbed88cde9ffa0f9c8b855cdadb5a26b8bcb8b577d38b263c",
        "100401000000000900000000040000013cb9c12eb9d5f8fd59f4b72d8dfc6af993a0a6945302062b17a2a8cfe19152a4",
    ] {
        let seal = payload(Suite::Aes256Gcm, Class::Telemetry);
        let record = sender.seal(&mut source, seal, &CONTEXT, &PLAIN).unwrap();
        assert_eq!(hex::encode(&record), vector);
        assert_eq!(receiver.open(&record, &CONTEXT).unwrap().plain, PLAIN);
    }
}
