//! The rules of `resources`, `autoscale` and `storage`: what a cluster would refuse, or do nothing with.

use super::Check;
use crate::{
    ByteSize, Millicores, ServiceName,
    config::{Access, Activation, Autoscale, Environment, Period, Resources, Service, StatePolicy, Storage},
};

/// The use that is aimed at, in per cent of what was promised; more than all of it is possible, this much a slip.
const MOST_PCT: u16 = 1_000;

/// The longest look back of a `HorizontalPodAutoscaler`.
const LONGEST_LOOK_BACK: Period = Period::from_secs(3_600);

/// One table of settings and where it stands; the nearest comes last.
type Level<'p, T> = (&'p [&'p str], T);

impl Check<'_> {
    /// `[defaults]`.
    pub(super) fn default_capacity(&mut self) {
        self.resources(&[(&["defaults", "resources"], self.config.defaults.resources)]);
    }

    /// `[services.NAME]`.
    pub(super) fn service_capacity(&mut self, name: &str, service: &Service) {
        let at = ["services", name, "resources"];
        self.resources(&[(&["defaults", "resources"], self.config.defaults.resources), (&at, service.resources)]);
        let resources = service.resources.or(self.config.defaults.resources);
        if let Some(autoscale) = &service.autoscale {
            self.autoscale(&["services", name, "autoscale"], autoscale, service, resources);
        }
        if let Some(storage) = &service.storage {
            self.storage(&["services", name, "storage"], storage, service);
        }
    }

    /// `[environments.NAME.services.NAME]`: what it says, and what becomes of the service's own settings by it.
    pub(super) fn override_capacity(&mut self, environment: &str, name: &ServiceName, settings: &Environment) {
        let (Some(over), Some(service)) = (settings.services.get(name), self.config.services.get(name)) else { return };
        let below = |key| ["environments", environment, "services", name.as_str(), key];
        let (defaults, own) = (self.config.defaults.resources, service.resources);
        let (here, there) = (below("resources"), ["services", name.as_str(), "resources"]);
        self.resources(&[(&["defaults", "resources"], defaults), (&there, own), (&here, over.resources)]);
        if let Some(autoscale) = &over.autoscale {
            self.autoscale(&below("autoscale"), autoscale, service, over.resources.or(own).or(defaults));
        }
        if let Some(storage) = &over.storage {
            self.storage(&below("storage"), storage, service);
        }
    }

    /// A limit below what is promised. Told at the nearest level that takes part: the others were looked at on their own.
    fn resources(&mut self, levels: &[Level<'_, Resources>]) {
        let amounts = |read: fn(&Resources) -> Option<u64>| -> Option<(u64, usize)> {
            levels.iter().enumerate().rev().find_map(|(nth, (_, table))| Some((read(table)?, nth)))
        };
        let nearest = levels.len() - 1;
        let (at, table) = levels[nearest];
        let keys = [
            ("cpu", table.cpu.map(Millicores::get)),
            ("memory", table.memory.map(ByteSize::get)),
            ("cpu_limit", table.cpu_limit.map(Millicores::get)),
            ("memory_limit", table.memory_limit.map(ByteSize::get)),
        ];
        for (key, _) in keys.into_iter().filter(|(_, amount)| *amount == Some(0)) {
            let hint = "leave the key out to ask for nothing, or name an amount";
            self.value(&[at, &[key]].concat(), format!("`{key}` is nothing at all"), hint);
        }
        let cpu = (amounts(|r| r.cpu.map(Millicores::get)), amounts(|r| r.cpu_limit.map(Millicores::get)));
        let memory = (amounts(|r| r.memory.map(ByteSize::get)), amounts(|r| r.memory_limit.map(ByteSize::get)));
        for (key, limit_key, pair) in [("cpu", "cpu_limit", cpu), ("memory", "memory_limit", memory)] {
            let (Some((promised, by)), Some((limit, limit_by))) = pair else { continue };
            if limit >= promised || limit == 0 || nearest != by.max(limit_by) {
                continue;
            }
            let place = if limit_by == nearest { limit_key } else { key };
            let message = format!("`{limit_key}` is below `{key}`: no replica could take what it is promised");
            self.value(&[at, &[place]].concat(), message, format!("raise `{limit_key}` or lower `{key}`"));
        }
    }

    fn autoscale(&mut self, at: &[&str], autoscale: &Autoscale, service: &Service, resources: Resources) {
        let below = |key| [at, &[key]].concat();
        let Autoscale { min, max, cpu_pct, memory_pct, scale_down_after } = *autoscale;
        if service.activation == Activation::Exclusive {
            self.key(at, "an exclusive service has one replica, whatever its load", "remove `autoscale`");
            return;
        }
        for (key, count) in [("min", min), ("max", max)] {
            self.replicas(&below(key), Some(count));
        }
        if min > max {
            self.value(&below("min"), format!("at least {min} replicas and at most {max}"), "swap `min` and `max`");
        }
        if cpu_pct.is_none() && memory_pct.is_none() {
            self.key(at, "replicas by no load", "add `cpu_pct = 70`, or remove `autoscale` and set `replicas`");
        }
        let uses = [
            ("cpu_pct", "cpu", cpu_pct, resources.cpu.is_some()),
            ("memory_pct", "memory", memory_pct, resources.memory.is_some()),
        ];
        for (key, of, pct, promised) in uses.into_iter().filter_map(|(key, of, pct, is)| Some((key, of, pct?, is))) {
            if !(1..=MOST_PCT).contains(&pct) {
                self.value(&below(key), format!("{pct} per cent"), format!("from 1 to {MOST_PCT}"));
            }
            if !promised {
                let message = format!("`{key}` is a share of `resources.{of}`, which is not set");
                self.value(&below(key), message, format!("add `{of}` to `resources` of the service"));
            }
        }
        if let Some(after) = scale_down_after.filter(|it| *it > LONGEST_LOOK_BACK || it.millis() % 1_000 != 0) {
            let message = format!("{after} cannot be looked back upon");
            self.value(&below("scale_down_after"), message, "whole seconds, at most \"1h\"");
        }
    }

    fn storage(&mut self, at: &[&str], storage: &Storage, service: &Service) {
        let below = |key| [at, &[key]].concat();
        if service.state == StatePolicy::External {
            let hint = "write `state = \"shared\"` or `state = \"per-slot\"`, or remove `storage`";
            self.key(at, "a service whose state lies elsewhere mounts no storage", hint);
        }
        if storage.size.get() == 0 {
            self.value(&below("size"), "storage of no size", "such as \"1Gi\"");
        }
        if service.state == StatePolicy::Shared && storage.access == Access::ReadWriteOncePod {
            let message = "both slots mount what they share, and `ReadWriteOncePod` admits one pod";
            self.value(&below("access"), message, "write \"ReadWriteOnce\" or \"ReadWriteMany\"");
        }
        if let Some(class) = storage.class.as_deref().filter(|class| !is_subdomain(class)) {
            let hint = "lower-case letters, digits, hyphens and dots, as `kubectl get storageclass` prints it";
            self.value(&below("class"), format!("`{class}` is no name of a storage class"), hint);
        }
    }
}

/// RFC 1123: labels with dots between them.
fn is_subdomain(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label =
        |part: &str| !part.is_empty() && part.bytes().all(word) && !part.starts_with('-') && !part.ends_with('-');
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    /// A service that keeps no state, with its own settings in line 6 and those of an environment in line 8.
    fn told(own: &str, here: &str) -> Vec<String> {
        let text = format!(
            "[project]\nname = \"p\"\n[services.web]\npackage = \"p\"\nstate = \"shared\"\n{own}\n[environments.a.services.web]\n{here}\n"
        );
        match Config::parse(&text, "f") {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes.iter().map(|m| format!("{}:{} {}", m.line, m.column, m.message)).collect(),
        }
    }

    fn check(own: &str, here: &str, expected: &str) {
        let found = told(own, here);
        let [one] = found.as_slice() else { panic!("not one mistake in {own} / {here}: {found:?}") };
        assert!(one.starts_with(expected), "{own} / {here}\n{one}\n{expected}");
    }

    #[test]
    fn settings_that_make_sense_are_read() {
        for (own, here) in [
            ("resources = { cpu = \"100m\", memory = \"64Mi\", cpu_limit = \"500m\", memory_limit = \"128Mi\" }", ""),
            ("resources = { cpu = \"1\" }", "resources = { cpu_limit = \"1\" }"),
            ("resources = { cpu = \"1\" }", "autoscale = { min = 2, max = 6, cpu_pct = 70 }"),
            ("", "resources = { memory = \"1Gi\" }\nautoscale = { min = 1, max = 1, memory_pct = 150 }"),
            ("storage = { size = \"1Gi\", class = \"fast.ssd\", access = \"ReadWriteMany\" }", ""),
        ] {
            assert_eq!(told(own, here), [""; 0], "{own} / {here}");
        }
    }

    #[test]
    fn a_limit_below_what_is_promised_is_refused_where_the_two_meet() {
        check("resources = { cpu = \"1\", cpu_limit = \"500m\" }", "", "6:38 `cpu_limit` is below `cpu`");
        check("resources = { memory = \"1Gi\", memory_limit = \"1G\" }", "", "6:46 `memory_limit` is below");
        check("resources = { cpu = \"1\" }", "resources = { cpu_limit = \"10m\" }", "8:27 `cpu_limit` is below `cpu`");
        check("resources = { cpu_limit = \"1\" }", "resources = { cpu = \"2\" }", "8:21 `cpu_limit` is below `cpu`");
        check("resources = { cpu = \"0\" }", "", "6:21 `cpu` is nothing at all");
        check("resources = { cpu = \"many\" }", "", "6:21 `many` is no amount of processor time");
        check("resources = { memory = \"64mb\" }", "", "6:24 `64mb` is no amount of bytes");
    }

    #[test]
    fn replicas_by_load_need_bounds_and_a_load_that_can_be_measured() {
        let on_cpu = "resources = { cpu = \"1\" }\n";
        for (rest, expected) in [
            ("min = 0, max = 2, cpu_pct = 70", "7:21 a service cannot have 0 replicas"),
            ("min = 3, max = 2, cpu_pct = 70", "7:21 at least 3 replicas and at most 2"),
            ("min = 1, max = 1001, cpu_pct = 70", "7:30 a service cannot have 1001"),
            ("min = 1, max = 2", "7:1 replicas by no load"),
            ("min = 1, max = 2, cpu_pct = 0", "7:43 0 per cent"),
            ("min = 1, max = 2, memory_pct = 80", "7:46 `memory_pct` is a share of `resources.memory`"),
            ("min = 1, max = 2, cpu_pct = 70, scale_down_after = \"2h\"", "7:66 2h cannot"),
            ("min = 1, max = 2, cpu_pct = 70, scale_down_after = \"1500ms\"", "7:66 1500ms cannot"),
        ] {
            check(&format!("{on_cpu}autoscale = {{ {rest} }}"), "", expected);
        }
        let exclusive = "activation = \"exclusive\"\nautoscale = { min = 1, max = 2, cpu_pct = 70 }";
        check(exclusive, "", "7:1 an exclusive service has one replica");
        check("", "autoscale = { min = 1, max = 2, cpu_pct = 70 }", "8:43 `cpu_pct` is a share");
    }

    #[test]
    fn storage_is_for_services_that_keep_something() {
        check("storage = { size = \"0\" }", "", "6:20 storage of no size");
        check("storage = { size = \"1Gi\", class = \"Fast\" }", "", "6:35 `Fast` is no name of a storage class");
        check("storage = { size = \"1Gi\", access = \"ReadWriteOncePod\" }", "", "6:36 both slots mount");
        check("storage = { size = \"1Gi\", access = \"ReadOnlyMany\" }", "", "6:36 unknown value `ReadOnlyMany`");
        check("", "storage = { size = \"0\" }", "8:20 storage of no size");
        let text = "[project]\nname = \"p\"\n[services.web]\npackage = \"p\"\nstorage = { size = \"1Gi\" }\n";
        let error = Config::parse(text, "f").unwrap_err().to_string();
        assert!(error.contains("mounts no storage"), "{error}");
    }
}
