//! What `rightsize` proposes, as data and as lines of `plimsoll.toml`. Pure.

use super::Samples;
use plimsoll_core::{
    EnvironmentName, ServiceName,
    config::{Config, Period, ResolvedService, Resources as Configured},
};
use plimsoll_deploy::{MIN_SAMPLES, Resources, Usage, rightsize};
use serde::Serialize;
use std::fmt;

/// `rightsize --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Advice {
    environment: EnvironmentName,
    /// How long it looked.
    looked_for: Period,
    services: Vec<ServiceAdvice>,
}

#[derive(Debug, Serialize)]
struct ServiceAdvice {
    name: ServiceName,
    /// What holds there now.
    present: Resources,
    #[serde(flatten)]
    usage: Usage,
    /// Whether replicas are added by load, which is counted in per cent of what is promised.
    autoscaled: bool,
    #[serde(flatten)]
    whose: Whose,
}

/// The table of `plimsoll.toml` that says what a service asks for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Whose {
    table: String,
    #[serde(skip)]
    says: Configured,
}

impl Whose {
    /// The environment's own table where it says something of this, else the service's.
    pub(crate) fn of(config: &Config, environment: &EnvironmentName, service: &ServiceName) -> Self {
        let here = config.environments.get(environment).and_then(|e| e.services.get(service)).map(|s| s.resources);
        match here.filter(|resources| !resources.is_empty()) {
            Some(says) => Self { table: format!("environments.{environment}.services.{service}"), says },
            None => Self {
                table: format!("services.{service}"),
                says: config.services.get(service).map(|s| s.resources).unwrap_or_default(),
            },
        }
    }
}

impl Advice {
    /// Sums the samples of each service up.
    pub(crate) fn new(
        environment: &EnvironmentName,
        looked_for: Period,
        services: &[ResolvedService],
        whose: impl Fn(&ServiceName) -> Whose,
        samples: &Samples,
    ) -> Self {
        let advice = |service: &ResolvedService| {
            let present = deployed(service.resources);
            let seen = samples.get(&service.name).map(Vec::as_slice).unwrap_or_default();
            ServiceAdvice {
                usage: rightsize(seen, &present),
                name: service.name.clone(),
                present,
                autoscaled: service.autoscale.is_some(),
                whose: whose(&service.name),
            }
        };
        Self { environment: environment.clone(), looked_for, services: services.iter().map(advice).collect() }
    }
}

/// As a difference of `plimsoll.toml`.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.services.iter().try_for_each(|service| service.tell(f, self.looked_for))
    }
}

impl ServiceAdvice {
    fn tell(&self, f: &mut fmt::Formatter<'_>, looked_for: Period) -> fmt::Result {
        let Usage { samples, pods, span_s, cpu_p95, cpu_max, memory_max, proposed } = &self.usage;
        let Some(proposed) = proposed else {
            return writeln!(
                f,
                "# {}: {samples} samples in {looked_for}, fewer than {MIN_SAMPLES}: nothing is proposed; look longer (--for)",
                self.name
            );
        };
        let of = if *pods == 1 { "pod" } else { "pods" };
        writeln!(f, "# {}: {samples} samples of {pods} {of} over {span_s} s", self.name)?;
        writeln!(f, "# cpu p95 {cpu_p95}, at most {cpu_max}; memory at most {memory_max}")?;
        if *proposed == self.present {
            return writeln!(f, "# it asks for what it needs");
        }
        if self.autoscaled && proposed.cpu != self.present.cpu {
            writeln!(f, "# replicas are added by per cent of what is promised: review `autoscale` too")?;
        }
        writeln!(f, "  [{}]", self.whose.table)?;
        if !self.whose.says.is_empty() {
            writeln!(f, "- {}", line(&deployed(self.whose.says)))?;
        }
        writeln!(f, "+ {}", line(proposed))
    }
}

fn deployed(of: Configured) -> Resources {
    let Configured { cpu, memory, cpu_limit, memory_limit } = of;
    Resources { cpu, memory, cpu_limit, memory_limit }
}

/// A line of `plimsoll.toml`.
fn line(resources: &Resources) -> String {
    let keys = [
        ("cpu", resources.cpu.map(|a| a.to_string())),
        ("memory", resources.memory.map(|a| a.to_string())),
        ("cpu_limit", resources.cpu_limit.map(|a| a.to_string())),
        ("memory_limit", resources.memory_limit.map(|a| a.to_string())),
    ];
    let said = keys.into_iter().filter_map(|(key, amount)| Some(format!("{key} = \"{}\"", amount?)));
    format!("resources = {{ {} }}", said.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::{ByteSize, Timestamp};
    use plimsoll_deploy::UsageSample;

    const CONFIG: &str = "[project]\nname = \"shop\"\n[images]\nregistry = \"ghcr.io/acme\"\n\
        [services.api]\npackage = \"api\"\nresources = { cpu = \"100m\", memory = \"64Mi\" }\n\
        autoscale = { min = 1, max = 3, cpu_pct = 80 }\n\
        [services.web]\npackage = \"web\"\n\
        [services.worker]\npackage = \"worker\"\n\
        [environments.production]\ntarget = \"kubernetes\"\n\
        [environments.production.services.worker]\n\
        resources = { cpu = \"15m\", memory = \"12Mi\", memory_limit = \"16Mi\" }\n";

    fn samples(count: i64) -> Vec<UsageSample> {
        let sample = |at: i64| UsageSample {
            pod: "pod".to_owned(),
            at: Timestamp::from_millis(at * 15_000),
            cpu_nanocores: 12_000_000,
            memory: ByteSize::new(10 << 20),
        };
        (0..count).map(sample).collect()
    }

    fn advice() -> Advice {
        let config = Config::parse(CONFIG, "plimsoll.toml").unwrap();
        let environment: EnvironmentName = "production".parse().unwrap();
        let seen = [("api", 8), ("web", 3), ("worker", 8)].map(|(name, count)| (name.parse().unwrap(), samples(count)));
        let services = config.resolved(&environment).unwrap();
        let whose = |service: &ServiceName| Whose::of(&config, &environment, service);
        Advice::new(&environment, Period::from_secs(120), &services, whose, &seen.into())
    }

    #[test]
    fn lines_of_the_configuration_are_proposed_where_they_stand() {
        assert_eq!(
            advice().to_string(),
            "# api: 8 samples of 1 pod over 105 s\n# cpu p95 12m, at most 12m; memory at most 10Mi\n\
             # replicas are added by per cent of what is promised: review `autoscale` too\n  [services.api]\n\
             - resources = { cpu = \"100m\", memory = \"64Mi\" }\n\
             + resources = { cpu = \"15m\", memory = \"12Mi\", memory_limit = \"16Mi\" }\n\
             # web: 3 samples in 2m, fewer than 6: nothing is proposed; look longer (--for)\n\
             # worker: 8 samples of 1 pod over 105 s\n# cpu p95 12m, at most 12m; memory at most 10Mi\n\
             # it asks for what it needs\n"
        );
    }

    #[test]
    fn what_is_proposed_is_a_configuration() {
        let text = advice().to_string();
        let added = text.lines().find_map(|line| line.strip_prefix("+ ")).unwrap();
        let present = "resources = { cpu = \"100m\", memory = \"64Mi\" }";
        let config = Config::parse(&CONFIG.replace(present, added), "plimsoll.toml").unwrap();
        assert_eq!(line(&deployed(config.services[&"api".parse::<ServiceName>().unwrap()].resources)), added);
    }

    #[test]
    fn the_environments_own_table_is_the_one_to_change() {
        let config = Config::parse(CONFIG, "plimsoll.toml").unwrap();
        let table = |service: &str| Whose::of(&config, &"production".parse().unwrap(), &service.parse().unwrap()).table;
        assert_eq!(table("worker"), "environments.production.services.worker");
        assert_eq!(table("api"), "services.api");
    }

    #[test]
    fn a_program_is_told_counts_amounts_and_the_table() {
        let value = serde_json::to_value(advice()).unwrap();
        let api = &value["services"].as_array().unwrap().iter().find(|s| s["name"] == "api").unwrap();
        assert_eq!((&api["samples"], &api["table"]), (&8.into(), &"services.api".into()));
        assert_eq!((&api["proposed"]["cpu"], &api["present"]["cpu"]), (&"15m".into(), &"100m".into()));
        let web = &value["services"].as_array().unwrap().iter().find(|s| s["name"] == "web").unwrap();
        assert!(web["proposed"].is_null(), "{web}");
    }
}
