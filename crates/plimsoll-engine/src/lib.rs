//! Typed steps in a graph: plan, cache, journal, run, resume.
