//! `qurrent demo`: the reference network on one machine, every site a process of its own, and a story that uses
//! each layer for real.
//!
//! | module | holds |
//! |---|---|
//! | [`processes`] | start, watch, restart and stop of the sites' processes |
//! | [`observer`] | the network's state as the dashboard's interface tells it |
//! | [`story`] | the steps, each with what it measured |
//! | [`real_model`] | where the model comes from |
//! | [`iec104`] | the telecontrol dialogue |

pub mod iec104;
pub mod observer;
pub mod processes;
pub mod real_model;
pub mod story;
