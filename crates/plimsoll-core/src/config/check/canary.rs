//! What is wrong with a canary.

use super::{
    super::{Activation, CanarySettings, Environment, Period, StrategyKind, explain::choice},
    Check,
};
use crate::ServiceName;

/// What a query must name to tell the slots apart.
const SLOT: &str = "{slot}";

impl Check<'_> {
    pub(super) fn canary(&mut self, name: &str, environment: &Environment) {
        let path = ["environments", name, "canary"];
        if environment.strategy.kind != StrategyKind::Canary {
            if self.places.has(&path) {
                let hint = "write `strategy = { kind = \"canary\" }`, or remove `canary`";
                self.key(&path, "no canary is asked for", hint);
            }
            return;
        }
        self.shares(name, &environment.canary);
        self.limits(name, &environment.canary);
        self.tried(name, &environment.canary);
        self.prometheus(name, &environment.canary);
    }

    fn shares(&mut self, name: &str, canary: &CanarySettings) {
        let below = |key| ["environments", name, "canary", key];
        let growing = canary.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let within = canary.steps.iter().all(|share| (1..=99).contains(share));
        if canary.steps.is_empty() || !growing || !within {
            let message = format!("{:?} are no growing shares", canary.steps);
            self.value(&below("steps"), message, "such as [5, 25, 50], each from 1 to 99");
        }
        if canary.step < Period::from_secs(1) {
            self.value(&below("step"), format!("{} is too short to see anything", canary.step), "at least \"1s\"");
        }
        let steps = u64::try_from(canary.steps.len()).unwrap_or(u64::MAX);
        let shortest = canary.step.millis().saturating_mul(steps);
        if canary.hold.millis() <= shortest || canary.hold > Period::from_secs(24 * 3600) {
            let message =
                format!("{} is not more than {steps} steps of {} and at most a day", canary.hold, canary.step);
            self.value(&below("hold"), message, "such as \"1h\"");
        }
        if canary.min_requests == 0 {
            self.value(&below("min_requests"), "nothing is judged by no requests", "at least 1");
        }
    }

    fn limits(&mut self, name: &str, canary: &CanarySettings) {
        let below = |key| ["environments", name, "canary", key];
        if !(canary.max_error_diff > 0.0 && canary.max_error_diff <= 100.0) {
            let message = format!("a difference of {} points is never known to be kept", canary.max_error_diff);
            self.value(&below("max_error_diff"), message, "above 0, such as 0.5");
        }
        if !(0.0..=100.0).contains(&canary.abort_error_pct) {
            let message = format!("{} per cent cannot fail", canary.abort_error_pct);
            self.value(&below("abort_error_pct"), message, "from 0 to 100");
        }
        if canary.abort_error_ratio.is_nan() || canary.abort_error_ratio <= 1.0 {
            let message = format!("{} times as many failures are no more", canary.abort_error_ratio);
            self.value(&below("abort_error_ratio"), message, "above 1, such as 2.0");
        }
        if !(canary.error_rate > 0.0 && canary.error_rate <= 0.5) {
            let message = format!("no test is wrong with a chance of {}", canary.error_rate);
            self.value(&below("error_rate"), message, "above 0, at most 0.5, such as 0.05");
        }
    }

    fn tried(&mut self, name: &str, canary: &CanarySettings) {
        let names: Vec<&str> = self.config.services.keys().map(ServiceName::as_str).collect();
        for (nth, service) in canary.services.iter().enumerate() {
            let nth = nth.to_string();
            let path = ["environments", name, "canary", "services", &nth];
            match self.config.services.get(service) {
                None => {
                    let hint = choice(service.as_str(), &names, "no service is declared");
                    self.value(&path, format!("there is no service `{service}`"), hint);
                }
                Some(known) if known.activation == Activation::Exclusive => {
                    let message = format!("`{service}` is exclusive: two slots of it never work at a time");
                    self.value(&path, message, "remove it");
                }
                Some(_) => {}
            }
        }
    }

    fn prometheus(&mut self, name: &str, canary: &CanarySettings) {
        let Some(prometheus) = &canary.prometheus else { return };
        let below = |key| ["environments", name, "canary", "prometheus", key];
        if !["http://", "https://"].iter().any(|scheme| prometheus.url.starts_with(scheme)) {
            let message = format!("`{}` is no URL of a server", prometheus.url);
            self.value(&below("url"), message, "such as \"http://prometheus.monitoring:9090\"");
        }
        let queries =
            [("requests", &prometheus.requests), ("failed", &prometheus.failed), ("latency", &prometheus.latency)];
        for (key, query) in queries {
            if !query.contains(SLOT) {
                let message = "this query does not tell the slots apart";
                self.value(&below(key), message, "write `{slot}` where blue or green stands, such as slot=\"{slot}\"");
            }
        }
    }
}
