//! OCI images without a daemon: layers, indexes, push and pull, an embedded registry.
