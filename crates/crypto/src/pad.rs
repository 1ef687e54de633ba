//! One-time pad. A pad is taken by value: using it twice does not compile.
//!
//! ```
//! use crypto::{pad::OneTimePad, secret::SecretBytes};
//! let (ours, theirs) = (SecretBytes::copy_of(&[7; 4]), SecretBytes::copy_of(&[7; 4]));
//! let mut message = *b"trip";
//! OneTimePad::new(ours).apply(&mut message).unwrap();
//! OneTimePad::new(theirs).apply(&mut message).unwrap();
//! assert_eq!(&message, b"trip");
//! ```

use crate::Error;
use crate::secret::SecretBytes;

/// Key bits that hide one message of the same length.
#[derive(Debug)]
pub struct OneTimePad(SecretBytes);

impl OneTimePad {
    /// Marks secret bytes as a pad.
    #[must_use]
    pub fn new(bits: SecretBytes) -> Self {
        Self(bits)
    }

    /// XORs the pad into the message and destroys the pad. Encrypts and decrypts.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; the message is unchanged then, and the pad is gone.
    pub fn apply(self, message: &mut [u8]) -> Result<(), Error> {
        self.0.expose(|pad| {
            if pad.len() != message.len() {
                return Err(Error::Malformed { what: "pad length" });
            }
            for (byte, key) in message.iter_mut().zip(pad) {
                *byte ^= key;
            }
            Ok(())
        })
    }
}
