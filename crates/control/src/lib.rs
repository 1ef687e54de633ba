//! Topology, routing by key stock, admission; cannot name a key.
