//! Two ends of a cipher connection under virtual time.
#![allow(clippy::unwrap_used, clippy::panic)]

mod attacks;
mod crashes;
mod fallback;
mod service;
mod world;
