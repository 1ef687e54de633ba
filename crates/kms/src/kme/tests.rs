//! Whole KMEs against each other under virtual time; one named test per defect that must not be ours.

mod carry;
mod confirm;
mod crash;
mod net;
mod paths;
mod quality;
mod relay;
mod restore;
mod set_back;
mod streams;
mod supply;
