//! The checks of this repository, handed to `plimsoll::main`: `cargo xtask`. For all other verbs it becomes `xtask-delivery`.

mod pipelines {
    //! Graphs only.

    pub(crate) mod ci;
}

fn main() -> std::process::ExitCode {
    plimsoll::main(plimsoll::Project::new(env!("CARGO_PKG_NAME")).pipeline("ci", pipelines::ci::ci))
}
