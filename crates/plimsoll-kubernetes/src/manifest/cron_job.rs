//! Pods that run at times and end.

use super::{
    Build,
    meta::{Meta, OF_PODS},
    mistake::{Findings, Nonsense},
    pod::Pod,
    probe::number,
    schedule,
};
use crate::{Object, ObjectError};
use k8s_openapi::api::batch::v1::{CronJob as Typed, CronJobSpec, JobSpec, JobTemplateSpec};

/// A `CronJob` in UTC: never two at a time, each with an end, tried again twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronJob {
    meta: Meta,
    schedule: String,
    pod: Pod,
    deadline: u32,
    retries: u32,
}

impl CronJob {
    /// Runs the pod at these times, for an hour at most.
    pub fn new(meta: impl Into<Meta>, schedule: impl Into<String>, pod: Pod) -> Self {
        Self { meta: meta.into(), schedule: schedule.into(), pod, deadline: 3_600, retries: 2 }
    }

    /// For so many seconds at most, all tries together.
    pub const fn deadline(mut self, seconds: u32) -> Self {
        self.deadline = seconds;
        self
    }

    /// Tried again so many times.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }
}

impl Build for CronJob {
    fn title(&self) -> String {
        format!("CronJob {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        if let Err(why) = schedule::check(&self.schedule) {
            found.wrong("spec.schedule", why);
        }
        let below = || Nonsense::Below { number: 0, least: 1 };
        found.unless(self.deadline > 0, "spec.jobTemplate.spec.activeDeadlineSeconds", below);
        let mut template = self.pod.checked(&[], None, found);
        if let Some(spec) = &mut template.spec {
            spec.restart_policy = Some("Never".to_owned());
        }
        let job = JobSpec {
            active_deadline_seconds: Some(i64::from(self.deadline)),
            backoff_limit: Some(number(self.retries)),
            // The history limits of the CronJob count jobs; this ends the pods of those that nobody counts.
            ttl_seconds_after_finished: Some(86_400),
            template,
            ..JobSpec::default()
        };
        let spec = CronJobSpec {
            schedule: self.schedule.clone(),
            time_zone: Some("Etc/UTC".to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            // Without one, a hundred missed times stop a CronJob for good.
            starting_deadline_seconds: Some(200),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(3),
            job_template: JobTemplateSpec { metadata: None, spec: Some(job) },
            suspend: None,
        };
        Object::of(&Typed { metadata: self.meta.checked(OF_PODS, found), spec: Some(spec), status: None })
    }
}
