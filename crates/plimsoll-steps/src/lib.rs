//! The ready steps, one file each: adapters from the engine to the domain.
