//! Handles: promises of outputs, and the wires that turn them into a step's input.

use crate::output::Output;
use std::{any::Any, marker::PhantomData, sync::Arc};

/// A graph's brand. The function pointer makes the lifetime invariant, so handles of two graphs are of two types.
pub(crate) type Brand<'g> = PhantomData<fn(&'g ()) -> &'g ()>;

/// The promise of a step's output, usable only as an input in the same graph.
///
/// It has no public constructor and no serde: the only way to hold a `Handle<'g, T>` is to have added a step that makes `T`.
pub struct Handle<'g, T> {
    pub(crate) node: usize,
    pub(crate) of: PhantomData<fn() -> T>,
    pub(crate) brand: Brand<'g>,
}

impl<T> Clone for Handle<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<'_, T> {}

/// A finished step's value together with its recorded form.
#[derive(Clone)]
pub(crate) struct Finished {
    pub(crate) value: Arc<dyn Any + Send + Sync>,
    pub(crate) encoded: Arc<str>,
}

impl Finished {
    pub(crate) fn of<T: Output>(value: T) -> Self {
        let encoded = value.encode().into();
        Self { value: Arc::new(value), encoded }
    }
}

/// Finished steps: all of a run's, by node, or those one step needs, in the order in which its wires name them.
pub struct Values(pub(crate) Vec<Option<Finished>>);

impl Values {
    /// What a step with these needs gets.
    pub(crate) fn of(&self, needs: &[usize]) -> Self {
        Self(needs.iter().map(|need| self.0[*need].clone()).collect())
    }
}

/// Takes a step's input from the finished steps. It carries no brand: it belongs to one node of one graph already.
pub trait Take: Send + Sync + 'static {
    /// What is taken.
    type Value: Clone + Send + Sync + 'static;

    /// The input, from what the step needs, once all of that has finished.
    fn take(&self, values: &Values) -> Self::Value;
}

/// Handles on the outside, values on the inside: one handle, a tuple of wires, or a `Vec` of wires (a fan-out known
/// before the graph is built). Nothing else, so a step can read nothing it was not wired to.
pub trait Wire<'g> {
    /// What the step receives.
    type Value: Clone + Send + Sync + 'static;
    /// The unbranded taker of it.
    type Take: Take<Value = Self::Value>;

    /// Adds the nodes this comes from to `needs`, and makes the taker.
    fn connect(self, needs: &mut Vec<usize>) -> Self::Take;
}

/// [`Take`] of a single handle: its place among the step's needs, which stays when the graph around it is made smaller.
pub struct TakeOne<T>(usize, PhantomData<fn() -> T>);

impl<T: Output> Take for TakeOne<T> {
    type Value = T;

    fn take(&self, values: &Values) -> T {
        let finished = values.0[self.0].as_ref().expect("a step starts after the steps it needs");
        finished.value.downcast_ref::<T>().expect("a handle's type is its step's output type").clone()
    }
}

impl<'g, T: Output> Wire<'g> for Handle<'g, T> {
    type Value = T;
    type Take = TakeOne<T>;

    fn connect(self, needs: &mut Vec<usize>) -> TakeOne<T> {
        needs.push(self.node);
        TakeOne(needs.len() - 1, PhantomData)
    }
}

impl<T: Take> Take for Vec<T> {
    type Value = Vec<T::Value>;

    fn take(&self, values: &Values) -> Self::Value {
        self.iter().map(|one| one.take(values)).collect()
    }
}

impl<'g, W: Wire<'g>> Wire<'g> for Vec<W> {
    type Value = Vec<W::Value>;
    type Take = Vec<W::Take>;

    fn connect(self, needs: &mut Vec<usize>) -> Self::Take {
        self.into_iter().map(|one| one.connect(needs)).collect()
    }
}

impl Take for () {
    type Value = ();

    fn take(&self, _: &Values) {}
}

impl Wire<'_> for () {
    type Value = ();
    type Take = ();

    fn connect(self, _: &mut Vec<usize>) {}
}

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Take),*> Take for ($($name,)*) {
            type Value = ($($name::Value,)*);

            fn take(&self, values: &Values) -> Self::Value {
                ($(self.$index.take(values),)*)
            }
        }

        impl<'g, $($name: Wire<'g>),*> Wire<'g> for ($($name,)*) {
            type Value = ($($name::Value,)*);
            type Take = ($($name::Take,)*);

            fn connect(self, needs: &mut Vec<usize>) -> Self::Take {
                ($(self.$index.connect(needs),)*)
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
