//! What types cannot say: names that must exist, orders without cycle, ports that must not clash, values with bounds.
//!
//! Every check looks on after a mistake. What was taken out because of its shape is not missed here: whether a name
//! exists is asked of the file, not of the types.

mod canary;
mod capacity;
mod kubernetes;
mod metrics;
mod state;

use super::explain::choice;
use super::mistake::Found;
use super::order::order;
use super::places::Places;
use super::values::is_variable_name;
use super::{
    Activation, Config, Environment, Gate, HealthSettings, Method, Period, SecretSource, Service, Smoke, Target,
};
use crate::ServiceName;
use std::collections::{BTreeMap, BTreeSet};

/// More processes of one service than any one proxy table is meant for.
const MOST_REPLICAS: u16 = 1000;

/// Looking for an order takes the square of this; a workspace has a few dozen.
const MOST_SERVICES: usize = 1000;

/// All mistakes of a configuration whose shape is right.
pub(super) fn check(config: &Config, places: &Places) -> Vec<Found> {
    let mut check = Check { config, places, found: Vec::new() };
    check.defaults();
    for (name, service) in &config.services {
        check.service(name.as_str(), service);
    }
    check.cycles();
    for (name, environment) in &config.environments {
        check.environment(name.as_str(), environment);
    }
    check.namespaces();
    check.ports();
    check.delivery();
    check.found
}

struct Check<'a> {
    config: &'a Config,
    places: &'a Places,
    found: Vec<Found>,
}

impl Check<'_> {
    /// A mistake in the value at `path`.
    fn value(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.found.push(Found::new(self.places.value(path), message, hint));
    }

    /// A mistake in the key at `path`.
    fn key(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.found.push(Found::new(self.places.key(path), message, hint));
    }

    fn defaults(&mut self) {
        let defaults = &self.config.defaults;
        self.replicas(&["defaults", "replicas"], defaults.replicas);
        self.health(&["defaults", "health"], &defaults.health);
        self.env(&["defaults"], &defaults.env);
        self.default_capacity();
    }

    fn service(&mut self, name: &str, service: &Service) {
        let at = ["services", name];
        self.package(&["services", name, "package"], &service.package);
        if let Some(bin) = &service.bin {
            self.package(&["services", name, "bin"], bin);
        }
        if let Some(build) = &service.docker_build {
            self.dockerfile(&["services", name, "docker_build", "dockerfile"], &build.dockerfile);
        }
        self.replicas(&["services", name, "replicas"], service.replicas);
        self.port(&["services", name, "port"], service.port);
        self.health(&["services", name, "health"], &service.health);
        self.env(&at, &service.env);
        for (variable, source) in &service.secrets {
            self.variable(&["services", name, "secrets", variable], variable);
            self.source(&["services", name, "secrets", variable], source);
            if self.config.defaults.env.contains_key(variable) || service.env.contains_key(variable) {
                let message = format!("`{variable}` is set by both `env` and `secrets`");
                self.key(&["services", name, "secrets", variable], message, "keep one of them");
            }
        }
        for (nth, smoke) in service.smoke.iter().enumerate() {
            self.smoke(&["services", name, "smoke", &nth.to_string()], smoke);
        }
        self.dependencies(name, service);
        self.service_capacity(name, service);
        if let Some(metrics) = &service.metrics {
            self.metrics(name, metrics);
        }
        self.state(name, service);
    }

    fn dependencies(&mut self, name: &str, service: &Service) {
        let names: Vec<&str> = self.config.services.keys().map(ServiceName::as_str).collect();
        let mut seen = BTreeSet::new();
        for (nth, needed) in service.depends_on.iter().enumerate() {
            let nth = nth.to_string();
            let path = ["services", name, "depends_on", &nth];
            if !self.places.has(&["services", needed.as_str()]) {
                let message = format!("there is no service `{needed}`");
                self.value(&path, message, choice(needed.as_str(), &names, "no service is declared"));
            } else if !seen.insert(needed) {
                self.value(&path, format!("`{needed}` is named twice"), "remove one of them");
            }
        }
    }

    fn cycles(&mut self) {
        if self.config.services.len() > MOST_SERVICES {
            let message = format!("{} services", self.config.services.len());
            self.key(&["services"], message, format!("at most {MOST_SERVICES}"));
            return;
        }
        let depends: BTreeMap<&ServiceName, &[ServiceName]> =
            self.config.services.iter().map(|(name, service)| (name, service.depends_on.as_slice())).collect();
        if let Err(cycle) = order(&depends) {
            let path = cycle.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ");
            let first = cycle.first().map_or("", |name| name.as_str());
            let message = format!("services depend on each other in a circle: {path}");
            self.value(&["services", first, "depends_on"], message, "remove one of these dependencies");
        }
    }

    fn smoke(&mut self, at: &[&str], smoke: &Smoke) {
        let below = |key| [at, &[key]].concat();
        self.path(&below("path"), &smoke.path);
        if !(200..=599).contains(&smoke.status) {
            self.value(&below("status"), format!("no answer has the status {}", smoke.status), "from 200 to 599");
        }
        if smoke.method == Method::Head && (smoke.contains.is_some() || !smoke.json.is_empty()) {
            let hint = "use `GET`, or leave out `contains` and `json`";
            self.value(&below("method"), "the answer to `HEAD` has no body to look into", hint);
        }
        if smoke.within == Some(Period::from_millis(0)) {
            self.value(&below("within"), "no answer comes within no time", "such as \"1s\"");
        }
        for pointer in smoke.json.keys().filter(|pointer| !is_json_pointer(pointer)) {
            let message = format!("`{pointer}` is no JSON pointer");
            self.key(&[at, &["json", pointer]].concat(), message, "write \"/service\" or \"/list/0/name\" (RFC 6901)");
        }
        for (name, value) in &smoke.headers {
            if !is_header_name(name) {
                self.key(
                    &[at, &["headers", name]].concat(),
                    format!("`{name}` is no header name"),
                    "such as content-type",
                );
            }
            if value.chars().any(char::is_control) {
                let message = "a header's value has no control characters";
                self.value(&[at, &["headers", name]].concat(), message, "remove line ends and tabs");
            }
        }
    }

    fn environment(&mut self, name: &str, environment: &Environment) {
        let below = |key| ["environments", name, key];
        self.kubernetes(name, environment);
        self.canary(name, environment);
        if let Some(branch) = environment.branch.as_deref().filter(|branch| !is_branch(branch)) {
            self.value(
                &below("branch"),
                format!("`{branch}` is no branch name"),
                "such as \"main\" or \"release/1.x\"",
            );
        }
        if environment.gate == Some(Gate::Open) && self.places.has(&below("approval")) {
            let hint = "write `gate = \"approval\"`, or remove `approval`";
            self.key(&below("approval"), "an open gate asks nobody", hint);
        }
        self.approval(name, environment);
        self.slo(name, environment);
        self.env(&["environments", name], &environment.env);
        self.overrides(name, environment);
        self.clashes_with_secrets(name, environment);
    }

    fn approval(&mut self, name: &str, environment: &Environment) {
        let rule = &environment.approval;
        let below = |key| ["environments", name, "approval", key];
        let people: BTreeSet<String> = rule.approvers.iter().map(|one| one.to_lowercase()).collect();
        if rule.quorum == 0 {
            self.value(&below("quorum"), "a quorum of nobody", "at least 1; for no approval write `gate = \"open\"`");
        } else if !people.is_empty() && usize::from(rule.quorum) > people.len() {
            let message = format!("{} people must say yes, but only {} may", rule.quorum, people.len());
            self.value(&below("quorum"), message, "add to `approvers` or lower `quorum`");
        }
        if rule.expires.millis() == 0 {
            self.value(&below("expires"), "an approval that never holds", "such as \"24h\"");
        }
        for (nth, approver) in rule.approvers.iter().enumerate().filter(|(_, text)| !is_address(text)) {
            let path = ["environments", name, "approval", "approvers", &nth.to_string()];
            let message = format!("`{approver}` is no e-mail address");
            self.value(&path, message, "such as \"ann@example.org\", as git has it in `user.email`");
        }
    }

    fn slo(&mut self, name: &str, environment: &Environment) {
        let slo = &environment.slo;
        let below = |key| ["environments", name, "slo", key];
        if !(0.0..=100.0).contains(&slo.max_error_pct) {
            let message = format!("{} per cent cannot fail", slo.max_error_pct);
            self.value(&below("max_error_pct"), message, "from 0 to 100");
        }
        if slo.max_p99.millis() == 0 {
            self.value(&below("max_p99"), "no answer takes no time", "such as \"1s\"");
        }
        if slo.watch > Period::from_secs(3600) {
            self.value(&below("watch"), format!("{} is too long to watch a cut-over", slo.watch), "at most \"1h\"");
        }
        if !(1..=200).contains(&slo.probe_rate) {
            self.value(&below("probe_rate"), format!("{} probes per second", slo.probe_rate), "from 1 to 200");
        }
    }

    fn overrides(&mut self, name: &str, environment: &Environment) {
        let names: Vec<&str> = self.config.services.keys().map(ServiceName::as_str).collect();
        for (service, over) in &environment.services {
            let service = service.as_str();
            let path = ["environments", name, "services", service];
            if !self.places.has(&["services", service]) {
                let hint = choice(service, &names, "no service is declared");
                self.key(&path, format!("there is no service `{service}`"), hint);
            }
            self.replicas(&[&path[..], &["replicas"]].concat(), over.replicas);
            self.port(&[&path[..], &["port"]].concat(), over.port);
            self.env(&path, &over.env);
        }
        for (service, settings) in &self.config.services {
            self.exclusive(name, service, settings, environment);
            self.override_capacity(name, service, environment);
        }
    }

    /// Two replicas of a worker would do its work twice.
    fn exclusive(&mut self, environment: &str, name: &ServiceName, service: &Service, settings: &Environment) {
        let service_name = name.as_str();
        let here = settings.services.get(name).and_then(|over| over.replicas);
        let replicas = here.or(service.replicas).or(self.config.defaults.replicas).unwrap_or(1);
        if service.activation != Activation::Exclusive || replicas <= 1 {
            return;
        }
        let override_path = ["environments", environment, "services", service_name, "replicas"];
        let own_path = ["services", service_name, "replicas"];
        let path: &[&str] = match (here, service.replicas) {
            (Some(_), _) => &override_path,
            (None, Some(_)) => &own_path,
            (None, None) => &["defaults", "replicas"],
        };
        let message = format!("`{name}` is exclusive and cannot have {replicas} replicas");
        self.value(path, message, format!("write `replicas = 1` for `{name}`"));
    }

    fn clashes_with_secrets(&mut self, name: &str, environment: &Environment) {
        let secret = |variable: &String| self.config.services.values().any(|one| one.secrets.contains_key(variable));
        let clashing: Vec<&String> = environment.env.keys().filter(|variable| secret(variable)).collect();
        for variable in clashing {
            let message = format!("`{variable}` is a secret of a service and cannot be set plainly");
            self.key(&["environments", name, "env", variable], message, "remove it here");
        }
        for (service, over) in &environment.services {
            let Some(settings) = self.config.services.get(service) else { continue };
            for variable in over.env.keys().filter(|variable| settings.secrets.contains_key(*variable)) {
                let path = ["environments", name, "services", service.as_str(), "env", variable];
                let message = format!("`{variable}` is a secret of `{service}` and cannot be set plainly");
                self.key(&path, message, "remove it here");
            }
        }
    }

    /// Environments of this machine share it: a port belongs to one service of one of them.
    fn ports(&mut self) {
        let mut taken: BTreeMap<u16, (&str, &str)> = BTreeMap::new();
        let here = self.config.environments.iter().filter(|(_, e)| e.target != Target::Kubernetes);
        for (environment, settings) in here {
            for (name, service) in &self.config.services {
                let over = settings.services.get(name).and_then(|over| over.port);
                let Some(port) = over.or(service.port) else { continue };
                let (environment, name) = (environment.as_str(), name.as_str());
                let Some(first) = taken.get(&port) else {
                    taken.insert(port, (environment, name));
                    continue;
                };
                let message = format!(
                    "port {port} is used twice: by `{}` in `{}` and by `{name}` in `{environment}`",
                    first.1, first.0
                );
                let path: &[&str] = match over {
                    Some(_) => &["environments", environment, "services", name, "port"],
                    None => &["services", name, "port"],
                };
                let hint = format!("give it another: `[environments.{environment}.services.{name}]` with `port = …`");
                self.value(path, message, hint);
            }
        }
    }

    fn delivery(&mut self) {
        let config = self.config;
        let platforms = &config.images.platforms;
        if platforms.is_empty() && !self.places.has(&["images", "platforms", "0"]) {
            let hint = "remove the key for all, or name one, such as \"linux/amd64\"";
            self.value(&["images", "platforms"], "images for no platform", hint);
        }
        for (nth, platform) in platforms.iter().enumerate().filter(|(nth, one)| platforms[..*nth].contains(one)) {
            let path = ["images", "platforms", &nth.to_string()];
            self.value(&path, format!("`{platform}` is named twice"), "remove one of them");
        }
        for (platform, toolchain) in &config.images.toolchains {
            let triples = ["musl", "gnu"].map(|libc| format!("{}-unknown-linux-{libc}", platform.rust_arch()));
            if toolchain.target.as_ref().is_some_and(|target| !triples.contains(target)) {
                let message = format!("static executables of {platform} are not made for this target");
                let hint = format!("write \"{}\" or \"{}\"", triples[0], triples[1]);
                self.value(&["images", "toolchains", platform.as_str(), "target"], message, hint);
            }
        }
        for (host, access) in &config.registries {
            let path = ["registries", host.as_str()];
            if format!("{host}/x").parse::<crate::ImageRef>().is_err() || host.contains('/') {
                self.key(&path, format!("`{host}` is no registry"), "write its host, with a port if it has one");
            }
            if access.username.is_some() != access.password.is_some() {
                self.key(&path, "a name and a password belong together", "write both, or neither");
            }
            if access.plain_http && access.ca.is_some() {
                self.value(&["registries", host, "ca"], "plain HTTP has no certificates", "remove one of the two");
            }
            if let Some(password) = &access.password {
                self.source(&["registries", host, "password"], password);
            }
            for (at, mirror) in access.mirrors.iter().enumerate() {
                if format!("{mirror}/image").parse::<crate::ImageRef>().is_err() {
                    let message = format!("`{mirror}` is no registry");
                    self.value(&["registries", host, "mirrors", &at.to_string()], message, "as `host:5000/path`");
                }
            }
        }
        self.signing();
        self.advisories();
        self.cache();
        if let Some(slack) = &config.notify.slack {
            self.source(&["notify", "slack", "webhook"], &slack.webhook);
        }
        if let Some(webhook) = &config.notify.webhook {
            self.source(&["notify", "webhook", "url"], &webhook.url);
            if let Some(secret) = &webhook.secret {
                self.source(&["notify", "webhook", "secret"], secret);
            }
        }
    }

    fn dockerfile(&mut self, path: &[&str], dockerfile: &str) {
        let within = |part| matches!(part, std::path::Component::Normal(_));
        if dockerfile.is_empty() || !std::path::Path::new(dockerfile).components().all(within) {
            let message = format!("`{dockerfile}` is no path within the workspace");
            self.value(path, message, "name it from the workspace's root, as `docker/Dockerfile`");
        }
    }

    fn package(&mut self, path: &[&str], name: &str) {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(word) || name.starts_with('-') {
            let hint = "letters, digits, hyphens and underscores, as in Cargo.toml";
            self.value(path, format!("`{name}` is no name of a cargo package or binary"), hint);
        }
    }

    fn replicas(&mut self, path: &[&str], replicas: Option<u16>) {
        if let Some(count) = replicas.filter(|count| !(1..=MOST_REPLICAS).contains(count)) {
            self.value(path, format!("a service cannot have {count} replicas"), format!("from 1 to {MOST_REPLICAS}"));
        }
    }

    fn port(&mut self, path: &[&str], port: Option<u16>) {
        if port == Some(0) {
            self.value(path, "no client can use port 0", "from 1 to 65535, or none to let the target choose");
        }
    }

    fn health(&mut self, at: &[&str], health: &HealthSettings) {
        let below = |key| [at, &[key]].concat();
        if let Some(path) = &health.path {
            self.path(&below("path"), path);
        }
        for (key, period) in [("deadline", health.deadline), ("interval", health.interval)] {
            if period == Some(Period::from_millis(0)) {
                self.value(&below(key), format!("`{key}` cannot be zero"), "such as \"30s\" or \"100ms\"");
            }
        }
    }

    /// The path of a request: it is put behind a host as it is.
    fn path(&mut self, path: &[&str], text: &str) {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !text.starts_with('/') || !plain || text.len() > 2048 {
            let hint = "begin with a slash, such as \"/health\"; write spaces and other letters as %20";
            self.value(path, format!("`{text}` is no path of a request"), hint);
        }
    }

    fn env(&mut self, at: &[&str], env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let path = [at, &["env", name]].concat();
            self.variable(&path, name);
            if value.contains('\0') {
                self.value(&path, "a variable cannot hold a zero character", "remove \\u0000");
            }
        }
    }

    fn variable(&mut self, path: &[&str], name: &str) {
        if !is_variable_name(name) {
            let hint = "letters, digits and underscores, no digit first, such as RISK_LIMIT_PCT";
            self.key(path, format!("`{name}` is no name of a variable"), hint);
        } else if matches!(name, "HOST" | "PORT") || name.starts_with("PLIMSOLL_") {
            self.key(path, format!("`{name}` is set by Plimsoll"), "choose another name");
        }
    }

    fn cache(&mut self) {
        let repository = self.config.cache.repository.as_ref();
        if repository.is_some_and(|one| one.tag.is_some() || one.digest.is_some()) {
            let hint = "name the repository alone: each entry gets a tag of its own";
            self.value(&["cache", "repository"], "a tag or digest where a repository is meant", hint);
        }
    }

    fn advisories(&mut self) {
        let advisories = &self.config.advisories;
        if advisories.database.trim().is_empty() {
            self.value(&["advisories", "database"], "no database", "leave the key out for RustSec's own");
        }
        for (at, ignored) in advisories.ignore.iter().enumerate() {
            let at = at.to_string();
            if ignored.id.trim().is_empty() {
                self.value(&["advisories", "ignore", &at, "id"], "no id", "as in `RUSTSEC-2024-0001`");
            }
            if ignored.reason.trim().is_empty() {
                self.value(
                    &["advisories", "ignore", &at, "reason"],
                    "an advisory is ignored without a reason",
                    "say why it does not count here",
                );
            }
        }
    }

    fn signing(&mut self) {
        let signing = &self.config.signing;
        for (name, source) in [("key", &signing.key), ("password", &signing.password)] {
            if let Some(source) = source {
                self.source(&["signing", name], source);
            }
        }
        if signing.password.is_some() && signing.key.is_none() {
            self.key(&["signing", "password"], "a password without a key", "name the `key` that it opens");
        }
        let repository = self.config.project.repository.as_deref();
        let path = repository.map(|address| address.trim_start_matches("https://").trim_start_matches("http://"));
        // Credentials in it would be signed and pushed with every image.
        let plain = path.is_none_or(|path| Some(path) != repository && !path.contains(['@', '?', '#']));
        if !plain {
            let hint = "write a web address without credentials, such as \"https://github.com/example/shop\"";
            self.value(&["project", "repository"], "this is no plain web address", hint);
        }
    }

    /// What is refused here may be the secret itself: it is not repeated.
    fn source(&mut self, path: &[&str], source: &SecretSource) {
        match source {
            SecretSource::Env(name) if !is_variable_name(name) => {
                let message = "`env` names the variable that holds the secret, and this is no such name";
                self.value(
                    &[path, &["env"]].concat(),
                    message,
                    "such as { env = \"API_KEY\" }; never the value itself",
                );
            }
            SecretSource::File(file) if file.is_empty() || file.contains('\0') => {
                let message = "`file` names the file that holds the secret, and this is no path";
                self.value(&[path, &["file"]].concat(), message, "such as { file = \"/run/secrets/api-key\" }");
            }
            SecretSource::Env(_) | SecretSource::File(_) => {}
        }
    }
}

/// RFC 6901: empty, or parts that each begin with a slash, where `~` is followed by 0 or 1.
fn is_json_pointer(text: &str) -> bool {
    let escaped = |part: &str| part.starts_with('0') || part.starts_with('1');
    (text.is_empty() || text.starts_with('/')) && text.split('~').skip(1).all(escaped)
}

/// RFC 9110, section 5.1: a token.
fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(token)
}

/// The rules of `git check-ref-format` that keep a name from being something else.
fn is_branch(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"~^:?*[\\".contains(c);
    (1..=200).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !["..", "//", "@{", "/."].iter().any(|part| name.contains(part))
}

fn is_address(text: &str) -> bool {
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && text.split_once('@').is_some_and(|(who, at)| !who.is_empty() && !at.is_empty() && !at.contains('@'))
}
