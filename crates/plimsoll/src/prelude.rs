//! What a pipeline needs: `use plimsoll::prelude::*;`.

pub use plimsoll_core::{EnvironmentName, Platform, ServiceName};
pub use plimsoll_engine::{
    Answer, Cx, Effect, Finally, Gate, Graph, Handle, Output, Pure, Reads, Repeat, Step, StepError, Summary, World,
};
pub use plimsoll_steps::*;
