//! The shell: sockets, TLS, HTTP APIs, files, clock, configuration, metrics, dashboard and the `qurrent`
//! command. It decides nothing about protocol: it moves bytes, time and disk between the cores.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`commands`] | the command line; one module for each command |
//! | [`site`] | one site's process, assembled from the modules below |
//! | [`keeper`], [`backups`] | the thread that owns key management core, store and audit log; backups it makes |
//! | [`quantum`] | modules, classical channel and post-processing thread of each link; the simulated fibres |
//! | [`pairs`] | which pairs of SAEs hold which key ids |
//! | [`kx`], [`routes`] | transport between sites; link states, routes and reports |
//! | [`streams`] | the task that owns the key streams' core |
//! | [`interwork`] | listeners and callers of KMEs of other networks (ETSI GS QKD 020) |
//! | [`api`] | ETSI GS QKD 004, 014, 020, SKIP, the view of 015, key-id notifications, the intake of events |
//! | [`bridge`] | keys for WireGuard, IKEv2 and commands, in step at two sites |
//! | [`telecontrol`] | gateway and terminal: plain side, cipher side, pools |
//! | [`dashboard`], [`metrics`], [`board`], [`report`] | what people and Prometheus see |
//! | [`demo`] | the reference network on one machine, and its story |
//! | [`config`], [`provision`], [`pki`] | configuration files; one folder from a network file; certificates |
//! | [`tls`], [`serve`], [`sae`] | mutual TLS, accept loops, acting as an SAE of ETSI GS QKD 014 |
//! | [`refusals`] | who was turned away: few audit entries, all counts |
//! | [`bench`] | published figures, measured again |
//! | [`failure`] | what a command says when it fails |
//! | [`policies`], [`fresh`] | what SAEs may draw, and files that are read again while the site runs |
//! | [`entropy`], [`clock`], [`stop`] | randomness, time and the clean stop |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod api;
pub mod backups;
pub mod bench;
pub mod board;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod entropy;
pub mod failure;
pub mod fresh;
pub mod interwork;
pub mod keeper;
pub mod kx;
pub mod metrics;
pub mod pairs;
pub mod pki;
pub mod policies;
pub mod provision;
pub mod quantum;
pub mod refusals;
pub mod report;
pub mod routes;
pub mod sae;
pub mod serve;
pub mod site;
pub mod stop;
pub mod streams;
pub mod telecontrol;
pub mod tls;
