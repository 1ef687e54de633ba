//! The daemon and the qurrent command.
