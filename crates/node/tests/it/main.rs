//! Processes on loopback: the real program, real sockets, real files, third-party programs on the other end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, unreachable_pub)]

mod audit;
mod bad_input;
mod crash;
mod demo;
mod keys;
mod link;
mod link_crash;
mod link_rate;
mod model;
mod randomness;
mod telecontrol;
mod vendor;
mod world;
