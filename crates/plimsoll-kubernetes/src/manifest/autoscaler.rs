//! More pods when there is more to do, and fewer when there is less.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN, cut},
    mistake::{Findings, Nonsense},
    probe::number,
    workload::Workload,
};
use crate::{Object, ObjectError};
use k8s_openapi::{
    api::autoscaling::v2::{
        CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
        HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
        PodsMetricSource, ResourceMetricSource,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use plimsoll_core::{ByteSize, Millicores};

/// The longest look back the API allows, in seconds.
const LONGEST_WINDOW: u32 = 3_600;
/// The longest period of a policy the API allows, in seconds.
const LONGEST_PERIOD: u32 = 1_800;

/// A `HorizontalPodAutoscaler` (autoscaling/v2).
#[derive(Debug, Clone)]
pub struct Autoscaler<'w, W> {
    meta: Meta,
    workload: &'w W,
    min: u16,
    max: u16,
    metrics: Vec<Metric>,
    up: Scaling,
    down: Scaling,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Metric {
    Resource { name: &'static str, pct: u16 },
    Pods { name: String, average: String },
}

/// How fast the number of pods may change in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    window: u32,
    policies: Vec<(&'static str, u16, u32)>,
}

impl Scaling {
    /// Only what holds for so many seconds changes anything.
    pub const fn after(window: u32) -> Self {
        Self { window, policies: Vec::new() }
    }

    /// By at most so many pods in so many seconds; the most that any policy allows.
    pub fn pods(mut self, pods: u16, seconds: u32) -> Self {
        self.policies.push(("Pods", pods, seconds));
        self
    }

    /// By at most such a share of the pods in so many seconds; the most that any policy allows.
    pub fn percent(mut self, percent: u16, seconds: u32) -> Self {
        self.policies.push(("Percent", percent, seconds));
        self
    }

    fn checked(&self, field: &str, found: &mut Findings) -> HPAScalingRules {
        let above = |number: u32, most: u32| Nonsense::Above { number: i64::from(number), most: i64::from(most) };
        let (window, at) = (self.window, format!("{field}.stabilizationWindowSeconds"));
        found.unless(window <= LONGEST_WINDOW, at, || above(window, LONGEST_WINDOW));
        for &(_, value, period) in &self.policies {
            let at = format!("{field}.policies");
            found.unless(period <= LONGEST_PERIOD, at.as_str(), || above(period, LONGEST_PERIOD));
            found.unless(value > 0 && period > 0, at, || Nonsense::Below { number: 0, least: 1 });
        }
        let policy = |&(kind, value, period): &(&str, u16, u32)| HPAScalingPolicy {
            type_: kind.to_owned(),
            value: i32::from(value),
            period_seconds: number(period),
        };
        HPAScalingRules {
            stabilization_window_seconds: Some(number(self.window)),
            policies: super::meta::list(self.policies.iter().map(policy).collect()),
            select_policy: Some("Max".to_owned()),
            tolerance: None,
        }
    }
}

impl<'w, W: Workload> Autoscaler<'w, W> {
    /// From `min` to `max` pods of `workload`; it needs at least one metric. Doubles at once, and halves once a minute
    /// when it was too many for five.
    pub fn of(workload: &'w W, meta: impl Into<Meta>, min: u16, max: u16) -> Self {
        let (up, down) = (Scaling::after(0).percent(100, 15).pods(4, 15), Scaling::after(300).percent(50, 60));
        Self { meta: meta.into(), workload, min, max, metrics: Vec::new(), up, down }
    }

    /// Aims at this use of processor time, in per cent of what is promised.
    pub fn cpu(mut self, pct: u16) -> Self {
        self.metrics.push(Metric::Resource { name: "cpu", pct });
        self
    }

    /// Aims at this use of memory, in per cent of what is promised.
    pub fn memory(mut self, pct: u16) -> Self {
        self.metrics.push(Metric::Resource { name: "memory", pct });
        self
    }

    /// Aims at this average of a metric of the pods, such as `250m` or `100`.
    pub fn pods_metric(mut self, name: impl Into<String>, average: impl Into<String>) -> Self {
        self.metrics.push(Metric::Pods { name: name.into(), average: average.into() });
        self
    }

    /// How fast there are more.
    pub fn up(mut self, scaling: Scaling) -> Self {
        self.up = scaling;
        self
    }

    /// How fast there are fewer.
    pub fn down(mut self, scaling: Scaling) -> Self {
        self.down = scaling;
        self
    }

    fn metric(&self, metric: &Metric, found: &mut Findings) -> MetricSpec {
        let at = "spec.metrics";
        match metric {
            Metric::Resource { name, pct } => {
                found.unless(*pct > 0, at, || Nonsense::Below { number: 0, least: 1 });
                found.unless(self.workload.common().pod.promises(name), at, || Nonsense::NoRequest {
                    resource: name,
                    workload: Workload::title(self.workload),
                });
                let target = MetricTarget {
                    type_: "Utilization".to_owned(),
                    average_utilization: Some(i32::from(*pct)),
                    ..MetricTarget::default()
                };
                let resource = Some(ResourceMetricSource { name: (*name).to_owned(), target });
                MetricSpec { type_: "Resource".to_owned(), resource, ..MetricSpec::default() }
            }
            Metric::Pods { name, average } => {
                let fine = average.parse::<Millicores>().is_ok() || average.parse::<ByteSize>().is_ok();
                found.unless(fine, at, || Nonsense::Quantity(cut(average)));
                found.unless(!name.is_empty(), at, || Nonsense::Empty("the name of a metric"));
                let average_value = Some(Quantity(average.clone()));
                let target =
                    MetricTarget { type_: "AverageValue".to_owned(), average_value, ..MetricTarget::default() };
                let metric = MetricIdentifier { name: name.clone(), selector: None };
                let pods = Some(PodsMetricSource { metric, target });
                MetricSpec { type_: "Pods".to_owned(), pods, ..MetricSpec::default() }
            }
        }
    }
}

impl<W: Workload> Build for Autoscaler<'_, W> {
    fn title(&self) -> String {
        format!("HorizontalPodAutoscaler {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let (min, max) = (self.min, self.max);
        found.unless(min >= 1, "spec.minReplicas", || Nonsense::Below { number: i64::from(min), least: 1 });
        found.unless(min <= max, "spec.maxReplicas", || Nonsense::Range { min, max });
        found.unless(!self.metrics.is_empty(), "spec.metrics", || Nonsense::Empty("by which load"));
        let spec = HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: W::KIND.to_owned(),
                name: self.workload.common().meta.name.clone(),
            },
            min_replicas: Some(i32::from(min)),
            max_replicas: i32::from(max),
            metrics: Some(self.metrics.iter().map(|metric| self.metric(metric, found)).collect()),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(self.up.checked("spec.behavior.scaleUp", found)),
                scale_down: Some(self.down.checked("spec.behavior.scaleDown", found)),
            }),
        };
        Object::of(&HorizontalPodAutoscaler {
            metadata: self.meta.checked(SUBDOMAIN, found),
            spec: Some(spec),
            status: None,
        })
    }
}
