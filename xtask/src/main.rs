//! This repository's own pipelines, handed to `plimsoll::main`.

fn main() {}
