//! Sources, fibre, detectors, eavesdroppers: detection records from a seed.
