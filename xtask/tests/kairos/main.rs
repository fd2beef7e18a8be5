//! Releases of this repository's own four services, to production and back, while clients that are not ours use them and
//! while they trade. What a release is made of is tested in `release`, with a smaller shop.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the executable is started as a person does, and what was measured is printed"
)]

mod cluster;
mod crash;
mod cutover;
mod elsewhere;
#[path = "../support/executable.rs"]
mod executable;
#[path = "../release/journals.rs"]
mod journals;
mod load;
mod market;
mod orders;
mod place;
mod recovery;
mod scaling;
mod scene;
mod trading;
mod watch;
mod whole;
#[path = "../release/world.rs"]
#[expect(dead_code, reason = "the other tests look at more of the world")]
mod world;
