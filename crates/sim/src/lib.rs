//! Seeded network, disk and time around the real cores.
