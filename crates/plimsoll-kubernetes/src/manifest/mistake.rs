//! What is wrong with a manifest: the object, the field and why, all of it at once.

use crate::ObjectError;
use std::fmt;

/// Objects that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// What was asked for contradicts itself.
    #[error("{}", lines(.0))]
    Nonsense(Vec<Mistake>),
    /// An object has no JSON form.
    #[error("cannot write {object}")]
    Object {
        /// Kind and name.
        object: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
}

impl ManifestError {
    /// Everything that was found wrong.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Nonsense(mistakes) => mistakes,
            Self::Object { .. } => &[],
        }
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// One field that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Kind and name, such as `Deployment web`.
    pub object: String,
    /// The path of the field, such as `spec.replicas`.
    pub field: String,
    /// Why not.
    pub why: Nonsense,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.why)
    }
}

/// Why a field makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A name the API server refuses.
    #[error("`{name}` is no {kind}: {rule}")]
    Name {
        /// The name, cut.
        name: String,
        /// What it was to be.
        kind: &'static str,
        /// What it must look like.
        rule: &'static str,
    },
    /// A quantity that is none.
    #[error("`{0}` is no quantity, such as `250m` or `64Mi`")]
    Quantity(String),
    /// A pod could not take what it is promised.
    #[error("the limit {limit} is below the request {request}")]
    LimitBelowRequest {
        /// The limit.
        limit: String,
        /// The request.
        request: String,
    },
    /// Traffic would reach pods that cannot take it.
    #[error("Service {service} would send traffic to pods that are not ready: they have no readiness probe")]
    NoReadinessProbe {
        /// The Service.
        service: String,
    },
    /// A probe that overlaps itself.
    #[error("an answer may take {timeout} s, and the next question comes after {period} s")]
    TimeoutOverPeriod {
        /// Seconds an answer may take.
        timeout: u32,
        /// Seconds between two questions.
        period: u32,
    },
    /// A number that is too small for its field.
    #[error("{number} is below {least}")]
    Below {
        /// The number.
        number: i64,
        /// The least that makes sense.
        least: i64,
    },
    /// A number that is too large for its field.
    #[error("{number} is above {most}")]
    Above {
        /// The number.
        number: i64,
        /// The most that makes sense.
        most: i64,
    },
    /// No number is both.
    #[error("at least {min} and at most {max}")]
    Range {
        /// The fewest.
        min: u16,
        /// The most.
        max: u16,
    },
    /// A share of nothing.
    #[error("a share of the {resource} request, which no container of {workload} has")]
    NoRequest {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// Kind and name.
        workload: String,
    },
    /// A pod is killed while it still waits to be forgotten by its clients.
    #[error("{grace} s are over before the sleep of {sleep} s before the end is")]
    GraceTooShort {
        /// Seconds until the kill.
        grace: u32,
        /// Seconds of `preStop`.
        sleep: u32,
    },
    /// No node could be emptied.
    #[error("{min} of {replicas} pods must be there: no node could be emptied")]
    NoDisruption {
        /// How many must be there.
        min: u16,
        /// How many there are.
        replicas: u16,
    },
    /// A budget of one pod blocks every node or protects nothing.
    #[error("a budget for one pod: it would forbid that its node is emptied, or protect nothing")]
    OnePod,
    /// A port that is not there.
    #[error("no container of {workload} exposes a port `{port}`")]
    NoPort {
        /// The port's name.
        port: String,
        /// Kind and name.
        workload: String,
    },
    /// A workload that does not find its own pods.
    #[error("selects `{key}={value}`, which the template's labels do not have")]
    Selector {
        /// The label.
        key: String,
        /// The selected value.
        value: String,
    },
    /// Two things of one name.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// A mount of nothing.
    #[error("there is no volume `{0}`")]
    NoVolume(String),
    /// A secret that is also written plainly.
    #[error("`{variable}` is in Secret {secret} too: its value would stand in plain sight, and win")]
    PlainSecret {
        /// The variable.
        variable: String,
        /// The Secret.
        secret: String,
    },
    /// A schedule that names no time.
    #[error("`{schedule}` is no schedule: {why}")]
    Schedule {
        /// The schedule.
        schedule: String,
        /// The field and what it must be.
        why: String,
    },
    /// A field that must be filled.
    #[error("nothing is said: {0}")]
    Empty(&'static str),
    /// An empty list that means all.
    #[error("an empty list of peers means everybody; say so with `{0}`")]
    Everybody(&'static str),
    /// A service nobody told us about.
    #[error("nothing is known of service `{0}`, on which it depends")]
    UnknownService(String),
}

/// Collects what is wrong with one object.
#[derive(Debug)]
pub struct Findings {
    object: String,
    mistakes: Vec<Mistake>,
}

impl Findings {
    pub(super) const fn of(object: String) -> Self {
        Self { object, mistakes: Vec::new() }
    }

    /// A mistake in `field`.
    pub(super) fn wrong(&mut self, field: impl Into<String>, why: Nonsense) {
        self.mistakes.push(Mistake { object: self.object.clone(), field: field.into(), why });
    }

    /// A mistake in `field`, unless `fine`.
    pub(super) fn unless(&mut self, fine: bool, field: impl Into<String>, why: impl FnOnce() -> Nonsense) {
        if !fine {
            self.wrong(field, why());
        }
    }

    /// Every name that comes more than once.
    pub(super) fn once<'n>(&mut self, field: &str, names: impl IntoIterator<Item = &'n str>) {
        let mut seen = std::collections::BTreeMap::new();
        for name in names {
            *seen.entry(name).or_insert(0_usize) += 1;
        }
        for (name, _) in seen.into_iter().filter(|(_, count)| *count > 1) {
            self.wrong(field, Nonsense::Twice(name.to_owned()));
        }
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }
}
