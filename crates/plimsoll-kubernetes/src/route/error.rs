//! Why a route is left as it is.

use crate::names;

/// Why a route is left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    /// The annotation is not ours any more.
    #[error(
        "its annotation {} cannot be read; take {twins} out of its backendRefs, and remove the annotation",
        names::SHARE
    )]
    Memory {
        /// What may be left of a share.
        twins: String,
        /// Why it cannot be read.
        #[source]
        source: serde_json::Error,
    },
    /// A reference to a slot's Service stands where nobody put it, or beside others.
    #[error(
        "somebody else changed backendRefs of its rule {rule} while {twin} had a share; take {twin} out of them, and remove \
         the annotation {}",
        names::SHARE
    )]
    Changed {
        /// The rule, from 0.
        rule: usize,
        /// The slot's Service.
        twin: String,
    },
    /// What was given is gone.
    #[error(
        "somebody else took away the weight of {twin}; whatever keeps the route as it was must leave backendRefs alone, or \
         shares be given by `canary_by = \"replicas\"`"
    )]
    TakenAway {
        /// The slot's Service.
        twin: String,
    },
    /// Another run put the route back since.
    #[error("what this run announced in it is not there any more")]
    NotAnnounced,
    /// Too many references, or weights that are too large.
    #[error("the API has no room for a share in its rule {rule}; use `canary_by = \"replicas\"`")]
    NoRoom {
        /// The rule, from 0.
        rule: usize,
    },
}
