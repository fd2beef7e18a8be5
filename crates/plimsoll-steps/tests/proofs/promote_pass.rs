//! An approved release is promoted.

use plimsoll_engine::{Graph, Handle, StepError};
use plimsoll_steps::{
    Approval, Approve, Attested, Deploy, Deployed, Environment, Inputs, Open, Promote, Pushed, Smoked,
};

struct Staging;
impl Environment for Staging {
    const NAME: &'static str = "staging";
    type Gate = Open<Self>;
}

struct Production;
impl Environment for Production {
    const NAME: &'static str = "production";
    type Gate = Approval<Self>;
}

struct Canada;
impl Environment for Canada {
    const NAME: &'static str = "canada";
    type Gate = Approval<Self>;
}

#[allow(unused_variables)]
fn release<'g>(
    g: &mut Graph<'g>,
    inputs: &Inputs,
    pushed: Handle<'g, Pushed>,
    attested: Handle<'g, Attested>,
    deployed: Handle<'g, Deployed<Staging>>,
    smoked: Handle<'g, Smoked<Staging>>,
    approval: Handle<'g, Approval<Production>>,
) -> Result<(), StepError> {
    g.effect("production", Promote::<Production>::new(inputs)?, approval);
    Ok(())
}

pub(crate) fn main() {
    let _ = (Deploy::<Staging>::new, Promote::<Canada>::new, Approve::<Canada, Staging>::new);
    let _: for<'g> fn(
        &mut Graph<'g>,
        &Inputs,
        Handle<'g, Pushed>,
        Handle<'g, Attested>,
        Handle<'g, Deployed<Staging>>,
        Handle<'g, Smoked<Staging>>,
        Handle<'g, Approval<Production>>,
    ) -> Result<(), StepError> = release;
}
