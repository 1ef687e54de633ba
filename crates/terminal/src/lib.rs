//! Record format, suites, pads, replay window, session opening: the core inside a field terminal. `no_std`.
//!
//! The offset into a batch is at once sequence number, key pointer and replay key: what a record consumes is a
//! pure function of its suite and length, so loss, reordering and restarts leave both ends in step without a
//! message. Bytes of every format: `docs/formats/record.md`.
//!
//! | module | holds |
//! |---|---|
//! | [`suite`] | suites by number, what each consumes, what each is worth |
//! | [`record`] | the 16-byte header, direction, kind, class |
//! | [`pad`] | where a sender's pad comes from, taken by value |
//! | [`sender`] | seals records: [`PadSender`] |
//! | [`window`] | which positions were seen: [`Window`] |
//! | [`receiver`] | opens records: [`PadReceiver`] |
//! | [`mask`] | hides headers on a stream: [`HeaderMask`] |
//! | [`access`] | the tagged opening of a session (links I, III and V of the nine steps) |
//! | [`control`] | messages inside control records: streams, batches, levels |
//!
//! ```
//! use crypto::secret::SecretBytes;
//! use terminal::{Class, Direction, Floor, Kind, PadChunk, PadReceiver, PadSender, Seal, Suite};
//! let batch = Direction::Down.batch(1);
//! let key = || SecretBytes::copy_of(&[7; 256]);
//! let mut pads = vec![PadChunk::new(batch, 0, key())].into_iter();
//! let mut receiver = PadReceiver::new(Direction::Down, Floor::default());
//! receiver.install(batch, &key()).unwrap();
//!
//! let mut sender = PadSender::new(Direction::Down);
//! let seal = Seal { suite: Suite::OtpWc128, kind: Kind::Payload, class: Class::Command };
//! let record = sender.seal(&mut pads, seal, &[], b"open breaker 4").unwrap();
//! assert_eq!(receiver.open(&record, &[]).unwrap().plain, b"open breaker 4");
//! assert!(receiver.open(&record, &[]).is_err(), "a record opens once");
//! ```
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod access;
pub mod control;
mod epoch;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod mask;
pub mod pad;
pub mod receiver;
pub mod record;
pub mod sender;
pub mod suite;
pub mod window;

pub use epoch::EpochLimits;
pub use error::{Error, Refusal};
pub use mask::HeaderMask;
pub use pad::{PadChunk, PadSource};
pub use receiver::{Floor, Opened, PadReceiver, ReceiverCounts};
pub use record::{Class, Direction, Header, Kind};
pub use sender::{PadSender, Seal};
pub use suite::{Strength, Suite};
pub use window::Window;
