//! Whole KMEs against each other under virtual time; one named test per defect that must not be ours.

mod net;
mod relay;
mod supply;
