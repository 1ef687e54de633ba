//! ETSI GS QKD 004 V2.1.1: key streams (OPEN_CONNECT, GET_KEY, CLOSE), as frames over a byte stream.
//!
//! The standard gives functions and types; the frames are those of the two open implementations, which do not
//! understand each other (`docs/api/etsi004.md`). [`Dialect`] tells them apart.
//!
//! ```text
//! bytes --Decoder--> RawFrame --ServerSession::request--> Request     server
//!                                      respond <-- Response
//! Client::open, get, close --> bytes ... RawFrame --Client::response--> Response     client
//! ```
//!
//! Provided: both dialects, told apart by their frames and answered in kind; the caller's version bytes echoed; a bound
//! on every length; a session of a server and of a client without IO.
//! Not provided: transport and authentication (TLS's), what a stream is (`kms::stream`).

mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod request;
mod response;
mod session;
mod types;

pub use self::frame::{Decoder, RawFrame, Service};
pub use self::request::{GetRequest, OpenRequest, Request};
pub use self::response::{GetResponse, OpenResponse, Response};
pub use self::session::{Client, ServerSession};
pub use self::types::{Dialect, Ksid, Mimetype, Qos, Status, Version};

/// Most bytes of a URI.
pub const URI_MAX: usize = 1_024;
/// Most bytes of a metadata buffer that a request carries or a response fills.
pub const METADATA_MAX: usize = 64 * 1_024;
/// Most bytes of key in one response.
pub const KEY_MAX: usize = 1 << 20;
/// Bytes of a mimetype field with its NUL.
pub const MIMETYPE_BYTES: usize = 256;

/// Why bytes are no frame, or a frame no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The header names a service that this side does not take.
    #[error("service {0:#04x} is not for this side")]
    Service(u8),
    /// The header says more than a message may have.
    #[error("a payload of {len} bytes where at most {max} are allowed")]
    TooLong {
        /// What the header says.
        len: usize,
        /// The most.
        max: usize,
    },
    /// The payload is not what its service needs.
    #[error("malformed payload")]
    Malformed(#[from] ::types::codec::CodecError),
    /// A call or an answer out of turn.
    #[error("{0}")]
    OutOfTurn(&'static str),
}

#[cfg(test)]
mod tests;
