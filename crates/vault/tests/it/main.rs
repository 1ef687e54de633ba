//! The vault from outside: publish, look, fetch, and everything that a store can do wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
mod interruption;
mod plan;
mod round_trip;
mod support;
