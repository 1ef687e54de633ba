//! Secret memory, one-time pad, Wegman-Carter tags, AEAD suites, key derivation, signatures.
