//! Blue-green deployment decided by a pure machine and done through one Target trait.
