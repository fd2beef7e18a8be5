//! All pipelines of this repository, handed to `plimsoll::main`: what `cargo xtask release` becomes.

mod pipelines {
    //! Graphs only.

    pub(crate) mod ci;
    mod environments;
    pub(crate) mod release;
    pub(crate) mod rollback;
}

use pipelines::{ci, release, rollback};

fn main() -> std::process::ExitCode {
    let project = plimsoll::Project::new(env!("CARGO_PKG_NAME"))
        .pipeline("ci", ci::ci)
        .pipeline("release", release::release)
        .pipeline("rollback", rollback::rollback);
    plimsoll::main(project)
}
