//! Processes on loopback: the real program, real sockets, real files, third-party programs on the other end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, unreachable_pub)]

mod audit;
mod backup;
mod bad_input;
mod bench;
mod bridge;
mod campaign;
mod conformance;
mod crash;
mod defects;
mod demo;
mod disk;
mod identity;
mod interwork;
mod keys;
mod kill;
mod leaks;
mod limits;
mod link;
mod link_crash;
mod link_rate;
mod model;
mod policy;
mod postgres;
mod randomness;
mod raw;
mod replicas;
mod skip;
mod streams;
mod telecontrol;
mod traces;
mod vendor;
mod view;
mod wishes;
mod world;
