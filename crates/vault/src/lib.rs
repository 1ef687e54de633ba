//! Models: manifest, key-data mapping, sealed chunks, publish, fetch.
