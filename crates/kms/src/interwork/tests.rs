//! Two cores, each with a KME beside it, in virtual time: rules one by one, then every fault there is.

mod faults;
mod rules;
mod world;
