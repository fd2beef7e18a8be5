//! One container: what it runs, with which variables, ports, mounts and probes.
//!
//! Without being asked it runs as nobody in particular, can write nothing but its mounts, has no capabilities and cannot
//! get any.

use super::{
    meta::{LABEL, list, name},
    mistake::{Findings, Nonsense},
    probe::Probe,
    resources::Resources,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container as Typed, ContainerPort, EnvFromSource, EnvVar, Lifecycle, LifecycleHandler,
    SecretEnvSource, SecurityContext, SleepAction, VolumeMount,
};

/// Longest name of a port (RFC 6335).
const PORT_NAME: usize = 15;

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub(super) name: String,
    pub(super) resources: Resources,
    pub(super) readiness: Option<Probe>,
    pub(super) pre_stop: u32,
    image: String,
    args: Vec<String>,
    ports: Vec<(String, u16)>,
    env: Vec<(String, String)>,
    secrets: Vec<(String, Vec<String>)>,
    mounts: Vec<Mount>,
    startup: Option<Probe>,
    liveness: Option<Probe>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    volume: String,
    path: String,
    read_only: bool,
}

impl Container {
    /// A container of this image.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            args: Vec::new(),
            ports: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            startup: None,
            readiness: None,
            liveness: None,
            pre_stop: 0,
        }
    }

    /// With these arguments.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Listens on a port, which is found by its name.
    pub fn port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.ports.push((name.into(), port));
        self
    }

    /// With a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With all variables of a Secret, which holds these.
    pub fn env_of_secret<T: Into<String>>(
        mut self,
        secret: impl Into<String>,
        variables: impl IntoIterator<Item = T>,
    ) -> Self {
        self.secrets.push((secret.into(), variables.into_iter().map(Into::into).collect()));
        self
    }

    /// Mounts a volume of the pod to read it.
    pub fn mount(mut self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        self.mounts.push(Mount { volume: volume.into(), path: path.into(), read_only: true });
        self
    }

    /// Mounts a volume of the pod to write to it.
    pub fn mount_writable(mut self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        self.mounts.push(Mount { volume: volume.into(), path: path.into(), read_only: false });
        self
    }

    /// Is promised, and may take.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Has started when this succeeds; before, nothing else is asked.
    pub fn startup(mut self, probe: Probe) -> Self {
        self.startup = Some(probe);
        self
    }

    /// Takes traffic while this succeeds.
    pub fn readiness(mut self, probe: Probe) -> Self {
        self.readiness = Some(probe);
        self
    }

    /// Is started again when this fails.
    pub fn liveness(mut self, probe: Probe) -> Self {
        self.liveness = Some(probe);
        self
    }

    /// Goes on for so many seconds when it is to end, until its clients have forgotten it.
    pub const fn pre_stop_sleep(mut self, seconds: u32) -> Self {
        self.pre_stop = seconds;
        self
    }

    pub(super) fn port_names(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn checked(&self, volumes: &[&str], found: &mut Findings) -> Typed {
        let at = format!("spec.containers[{}]", self.name);
        name(found, &format!("{at}.name"), &self.name, LABEL);
        found.unless(!self.image.is_empty(), format!("{at}.image"), || Nonsense::Empty("which image it runs"));
        self.check_ports(&at, found);
        self.check_env(&at, found);
        found.once(&format!("{at}.volumeMounts"), self.mounts.iter().map(|m| m.path.as_str()));
        for mount in self.mounts.iter().filter(|mount| !volumes.contains(&mount.volume.as_str())) {
            found.wrong(format!("{at}.volumeMounts"), Nonsense::NoVolume(mount.volume.clone()));
        }
        let ports: Vec<&str> = self.port_names().collect();
        let mut probe = |key: &str, probe: &Option<Probe>| {
            probe.as_ref().map(|probe| probe.checked(&format!("{at}.{key}"), &ports, &self.name, found))
        };
        Typed {
            startup_probe: probe("startupProbe", &self.startup),
            readiness_probe: probe("readinessProbe", &self.readiness),
            liveness_probe: probe("livenessProbe", &self.liveness),
            resources: self.resources.checked(&at, found),
            name: self.name.clone(),
            image: Some(self.image.clone()),
            args: list(self.args.iter().map(|arg| literal(arg)).collect()),
            ports: list(self.ports.iter().map(port).collect()),
            env: list(self.env.iter().map(variable).collect()),
            env_from: list(self.secrets.iter().map(|(secret, _)| from_secret(secret)).collect()),
            volume_mounts: list(self.mounts.iter().map(mount).collect()),
            lifecycle: (self.pre_stop > 0).then(|| sleep(self.pre_stop)),
            security_context: Some(confined()),
            ..Typed::default()
        }
    }

    fn check_ports(&self, at: &str, found: &mut Findings) {
        let field = format!("{at}.ports");
        found.once(&field, self.port_names());
        let numbers: Vec<String> = self.ports.iter().map(|(_, port)| port.to_string()).collect();
        found.once(&field, numbers.iter().map(String::as_str));
        for (name, port) in &self.ports {
            let letters = name.bytes().any(|b| b.is_ascii_lowercase());
            let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let edges = !name.starts_with('-') && !name.ends_with('-') && !name.contains("--");
            let fine = letters && edges && name.len() <= PORT_NAME && name.bytes().all(word);
            found.unless(fine, field.as_str(), || Nonsense::Name {
                name: super::meta::cut(name),
                kind: "name of a port",
                rule: "at most 15 lower-case letters, digits and inner hyphens, at least one letter",
            });
            found.unless(*port > 0, field.as_str(), || Nonsense::Below { number: 0, least: 1 });
        }
    }

    fn check_env(&self, at: &str, found: &mut Findings) {
        found.once(&format!("{at}.env"), self.env.iter().map(|(name, _)| name.as_str()));
        for (variable, _) in &self.env {
            for (secret, _) in self.secrets.iter().filter(|(_, variables)| variables.contains(variable)) {
                let why = Nonsense::PlainSecret { variable: variable.clone(), secret: secret.clone() };
                found.wrong(format!("{at}.env[{variable}]"), why);
            }
        }
    }
}

fn port((name, port): &(String, u16)) -> ContainerPort {
    ContainerPort {
        name: Some(name.clone()),
        container_port: i32::from(*port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn variable((name, value): &(String, String)) -> EnvVar {
    EnvVar { name: name.clone(), value: Some(literal(value)), value_from: None }
}

/// Kubernetes expands `$(NAME)` in variables and arguments, and `$$` is its way to write a dollar.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn from_secret(secret: &str) -> EnvFromSource {
    let secret_ref = Some(SecretEnvSource { name: secret.to_owned(), optional: None });
    EnvFromSource { secret_ref, ..EnvFromSource::default() }
}

fn mount(mount: &Mount) -> VolumeMount {
    VolumeMount {
        name: mount.volume.clone(),
        mount_path: mount.path.clone(),
        read_only: mount.read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn sleep(seconds: u32) -> Lifecycle {
    let sleep = Some(SleepAction { seconds: i64::from(seconds) });
    Lifecycle { pre_stop: Some(LifecycleHandler { sleep, ..LifecycleHandler::default() }), ..Lifecycle::default() }
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}
