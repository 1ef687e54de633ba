//! Key pools, reservation, relay, supply, batches, lifecycle.
