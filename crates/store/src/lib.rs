//! Durable encrypted state: sealed key segments and a state table.
