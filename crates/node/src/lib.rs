//! The shell: sockets, TLS, HTTP APIs, files, clock, configuration, metrics, dashboard and the `qurrent`
//! command. It decides nothing about protocol: it moves bytes, time and disk between the cores.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`commands`] | the command line; one module for each command |
//! | [`site`] | one site's process, assembled from the modules below |
//! | [`keeper`] | the thread that owns key management core, store and audit log |
//! | [`quantum`] | modules, classical channel and post-processing thread of each link; the simulated fibres |
//! | [`kx`], [`routes`] | transport between sites; link states, routes and reports |
//! | [`api`] | ETSI GS QKD 014, and the intake of events from processes of the site |
//! | [`telecontrol`] | gateway and terminal: plain side, cipher side, pools |
//! | [`dashboard`], [`metrics`], [`board`], [`report`] | what people and Prometheus see |
//! | [`demo`] | the reference network on one machine, and its story |
//! | [`config`], [`provision`], [`pki`] | configuration files; one folder from a network file; certificates |
//! | [`tls`], [`serve`], [`http`], [`client`] | mutual TLS, accept loops, the client of ETSI GS QKD 014 |
//! | [`bench`] | published figures, measured again |
//! | [`failure`] | what a command says when it fails |
//! | [`entropy`], [`clock`], [`stop`] | randomness, time and the clean stop |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod api;
pub mod bench;
pub mod board;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod entropy;
pub mod failure;
pub mod http;
pub mod keeper;
pub mod kx;
pub mod metrics;
pub mod pki;
pub mod provision;
pub mod quantum;
pub mod report;
pub mod routes;
pub mod serve;
pub mod site;
pub mod stop;
pub mod telecontrol;
pub mod tls;
