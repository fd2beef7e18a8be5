//! `cache`: its verbs and options.

use clap::{Args, Subcommand};
use std::num::NonZeroUsize;

/// `cache`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Cache {
    /// Do work again whose output is recorded, of steps taken at random, and compare
    #[command(
        after_help = "What is compiled to be shipped is compiled in an empty directory; checks and tests run again where they always do.\n\nExamples:\n  cargo xtask cache verify --count 5\n  cargo xtask cache verify --pipeline ci"
    )]
    Verify(VerifyCacheArgs),
    /// Remove entries of the shared cache that are too old, and the oldest above its size
    Prune {
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// `cache verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyCacheArgs {
    /// How many steps
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) count: NonZeroUsize,
    /// Of which pipeline
    #[arg(long, value_name = "PIPELINE", default_value = "release")]
    pub(crate) pipeline: String,
}
