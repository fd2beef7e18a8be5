//! A release engine for Rust workspaces: the facade an adopter depends on.
