//! Plain types every other crate speaks: ids, digests, references, secrets, retry policy, events, configuration. No I/O, clock or randomness.
