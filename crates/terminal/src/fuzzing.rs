//! Fuzz bodies as plain functions; tests replay them over generated input.

use crypto::secret::SecretBytes;

use crate::access::Unverified;
use crate::control::Control;
use crate::record::Direction;
use crate::{Floor, PadReceiver, access};

/// No bytes from the cipher side make a receiver panic, open, or lose key; what decodes encodes to the same bytes.
pub fn cipher_side(bytes: &[u8]) {
    let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
    let key = SecretBytes::copy_of(&[0x5a; 4096]);
    receiver.install(Direction::Down.batch(1), &key).expect("a batch of the right shape");
    let before = receiver.stock();
    assert!(receiver.open(bytes, &[]).is_err(), "nothing unauthentic opens");
    assert_eq!(receiver.stock(), before, "a forger burns nothing");
    if let Ok(control) = Control::decode(bytes) {
        assert_eq!(control.encode(), bytes);
    }
    let _ = Unverified::parse(bytes);
    let _ = access::refusal(bytes);
}
