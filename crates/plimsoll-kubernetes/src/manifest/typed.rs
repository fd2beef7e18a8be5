//! The objects of one service, before they are put into a slot. Pure.

use super::{
    Autoscaler, Build, Claim, Container, Context, Deployment, Disruption, Labels, ManifestError, Meta, Mistake,
    NetworkPolicy, Nonsense, Peer, Pod, Port, Probe, Resources, Scaling, Service, ServiceAccount, StatefulSet, Volume,
    Workload, context::port_of, meta::OF_PODS, objects,
};
use crate::{Object, names};
use plimsoll_core::{ByteSize, ServiceName, Slot};
use plimsoll_deploy::{Activation, Autoscale, ServiceSpec, StatePolicy, Storage};
use std::collections::BTreeMap;

/// The name of the one port.
const HTTP: &str = "http";
/// Where containers listen. No service needs a privileged port in a pod of its own.
const CONTAINER_PORT: u16 = 8080;
/// Where a pod is told who it is.
const IDENTITY: &str = "/plimsoll";
/// Where a pod keeps what outlives it.
const STATE: &str = "/state";
/// The volume at [`STATE`].
const STATE_VOLUME: &str = "state";
/// The storage of a service that keeps state and does not say how much.
const DEFAULT_STORAGE: ByteSize = ByteSize::new(1 << 30);
/// The namespace of the cluster's DNS, and its port.
const DNS: (&str, u16) = ("kube-system", 53);

/// The objects of a service in an environment, each called as the service is and in no slot yet.
///
/// An account, the workload, the address, and the rules of who talks to whom; a disruption budget when there is more than
/// one pod, an autoscaler when there is `autoscale`, a claim of storage when state is not external (whether both slots
/// mount one or each its copy is decided where they are put into slots). The workload is a `StatefulSet` where two pods
/// must never be, for exclusive services, else a `Deployment`. It refers to what is made with the
/// slot: the `ConfigMap` `NAME-identity` and, when there are secret variables, the Secret `NAME`.
pub fn typed(spec: &ServiceSpec, context: &Context) -> Result<Vec<Object>, ManifestError> {
    let typed = Typed { spec, context };
    let mut mistakes = typed.mistakes();
    let built = if typed.is_stateful() {
        let workload = StatefulSet::new(typed.meta(), typed.pod()).service(spec.name.as_str());
        typed.around(&workload.selector(&context.pods(&spec.name)).replicas(typed.replicas()))
    } else {
        let workload = Deployment::new(typed.meta(), typed.pod());
        typed.around(&workload.selector(&context.pods(&spec.name)).replicas(typed.replicas()))
    };
    match built {
        Ok(objects) if mistakes.is_empty() => Ok(objects),
        Ok(_) => Err(ManifestError::Nonsense(mistakes)),
        Err(ManifestError::Nonsense(more)) => {
            mistakes.extend(more);
            Err(ManifestError::Nonsense(mistakes))
        }
        Err(other) => Err(other),
    }
}

struct Typed<'a> {
    spec: &'a ServiceSpec,
    context: &'a Context,
}

impl Typed<'_> {
    fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    fn meta(&self) -> Meta {
        Meta::named(self.name()).labels(&self.labels())
    }

    fn labels(&self) -> Labels {
        self.context.labels(&self.spec.name)
    }

    fn is_stateful(&self) -> bool {
        // Two pods of one worker must never be: a Deployment starts the next before the last has ended.
        self.spec.activation == Activation::Exclusive
    }

    fn keeps_state(&self) -> bool {
        self.spec.state != StatePolicy::External
    }

    fn replicas(&self) -> u16 {
        // Bounds that contradict each other are the autoscaler's to refuse.
        self.spec.autoscale.map_or(self.spec.replicas, |by| self.spec.replicas.min(by.max).max(by.min))
    }

    /// What no builder can know: names that are too long once they are in a slot, services that are not there.
    fn mistakes(&self) -> Vec<Mistake> {
        let kind = if self.is_stateful() { "StatefulSet" } else { "Deployment" };
        let wrong =
            |field: &str, why| Mistake { object: format!("{kind} {}", self.name()), field: field.to_owned(), why };
        let mut mistakes = Vec::new();
        let slotted = names::slotted(self.name(), Slot::Green);
        if self.is_stateful() && slotted.len() > OF_PODS {
            let rule = "with its slot at most 52 characters";
            mistakes
                .push(wrong("metadata.name", Nonsense::Name { name: slotted, kind: "name of a StatefulSet", rule }));
        }
        for needed in self.spec.depends_on.iter().filter(|needed| self.context.port(needed).is_none()) {
            mistakes.push(wrong("spec.template.spec.containers.env", Nonsense::UnknownService(needed.to_string())));
        }
        mistakes
    }

    fn around<W: Workload + Build>(&self, workload: &W) -> Result<Vec<Object>, ManifestError> {
        let account = ServiceAccount::new(self.meta());
        let service = Service::of(workload, self.meta()).port(HTTP, port_of(self.spec));
        let network = self.network();
        let claim = self.keeps_state().then(|| self.claim());
        let budget = (self.replicas() > 1).then(|| Disruption::of(workload, self.meta()));
        let autoscaler = self.spec.autoscale.map(|by| self.autoscaler(workload, by));
        let mut builders: Vec<&dyn Build> = vec![&account];
        builders.extend(claim.as_ref().map(|it| it as &dyn Build));
        builders.extend([workload as &dyn Build, &service, &network]);
        builders.extend(budget.as_ref().map(|it| it as &dyn Build));
        builders.extend(autoscaler.as_ref().map(|it| it as &dyn Build));
        objects(&builders)
    }

    fn pod(&self) -> Pod {
        let lame_duck = self.context.lame_duck_s;
        let grace = seconds(self.spec.stop_grace_ms).saturating_add(lame_duck);
        let pod = Pod::new(&self.labels(), self.container())
            .service_account(self.name())
            .grace(grace)
            .volume(Volume::config_map("identity", format!("{}-identity", self.name())));
        if self.keeps_state() { pod.volume(Volume::claim(STATE_VOLUME, self.state_claim())) } else { pod }
    }

    fn container(&self) -> Container {
        let spec = self.spec;
        let (path, period) = (spec.health.path.as_str(), seconds(spec.health.interval_ms));
        let ready = Probe::http(path, HTTP).period(period);
        let tries = seconds(spec.health.deadline_ms).div_ceil(period);
        let image = spec.image.at(spec.digest.clone()).to_string();
        let mut container = Container::new(self.name(), image)
            .port(HTTP, CONTAINER_PORT)
            .resources(self.resources())
            .startup(ready.clone().failures(tries))
            .readiness(ready)
            // Not its readiness: a service must not be killed because one that it depends on is away.
            .liveness(Probe::tcp(HTTP))
            .pre_stop_sleep(self.context.lame_duck_s)
            .mount("identity", IDENTITY);
        for (name, value) in self.variables() {
            container = container.env(name, value);
        }
        if !spec.secret_env.is_empty() {
            container = container.env_of_secret(self.name(), spec.secret_env.keys());
        }
        if self.keeps_state() { container.mount_writable(STATE_VOLUME, STATE) } else { container }
    }

    /// The spec's, then ours, which nobody overrides.
    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.spec.env.clone();
        for needed in &self.spec.depends_on {
            if let Some(port) = self.context.port(needed) {
                variables.insert(needed.url_variable(), format!("http://{needed}:{port}"));
            }
        }
        let mut ours = vec![
            ("HOST", "0.0.0.0".to_owned()),
            ("PORT", CONTAINER_PORT.to_string()),
            ("PLIMSOLL_ENVIRONMENT", self.context.environment.to_string()),
            ("PLIMSOLL_IDENTITY", format!("{IDENTITY}/identity.json")),
        ];
        if self.keeps_state() {
            ours.push(("STATE_DIR", STATE.to_owned()));
        }
        variables.extend(ours.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables
    }

    fn resources(&self) -> Resources {
        let said = self.spec.resources;
        let mut resources = Resources::default();
        if let Some(amount) = said.cpu {
            resources = resources.cpu(amount);
        }
        if let Some(amount) = said.memory {
            resources = resources.memory(amount);
        }
        if let Some(amount) = said.cpu_limit {
            resources = resources.cpu_limit(amount);
        }
        if let Some(amount) = said.memory_limit {
            resources = resources.memory_limit(amount);
        }
        resources
    }

    fn state_claim(&self) -> String {
        format!("{}-state", self.name())
    }

    fn claim(&self) -> Claim {
        let meta = Meta::named(self.state_claim()).labels(&self.labels());
        match &self.spec.storage {
            None => Claim::new(meta, DEFAULT_STORAGE),
            Some(Storage { size, class, access }) => {
                let claim = Claim::new(meta, size).access(*access);
                class.iter().fold(claim, Claim::class)
            }
        }
    }

    /// Its callers come in, and everybody where it has a public port; it goes out to DNS and to what it depends on.
    fn network(&self) -> NetworkPolicy {
        // By number: names of ports are not understood everywhere in what goes out.
        let http = || [Port::Tcp(CONTAINER_PORT)];
        let pods = |service: &ServiceName| Peer::Pods(self.context.pods(service));
        let (namespace, port) = DNS;
        let dns = Labels::from([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]);
        let mut policy = NetworkPolicy::of(&self.context.pods(&self.spec.name), self.meta())
            .to([Peer::Namespaces(dns)], [Port::Udp(port), Port::Tcp(port)]);
        if self.spec.public_port.is_some() {
            policy = policy.from([Peer::EveryPod], http());
        } else if !self.context.callers(&self.spec.name).is_empty() {
            policy = policy.from(self.context.callers(&self.spec.name).iter().map(pods), http());
        }
        if self.spec.depends_on.is_empty() { policy } else { policy.to(self.spec.depends_on.iter().map(pods), http()) }
    }

    fn autoscaler<'w, W: Workload>(&self, workload: &'w W, by: Autoscale) -> Autoscaler<'w, W> {
        let Autoscale { min, max, cpu_pct, memory_pct, scale_down_after_s } = by;
        let down = Scaling::after(scale_down_after_s).percent(50, 60);
        let autoscaler = Autoscaler::of(workload, self.meta(), min, max).down(down);
        let autoscaler = cpu_pct.into_iter().fold(autoscaler, Autoscaler::cpu);
        memory_pct.into_iter().fold(autoscaler, Autoscaler::memory)
    }
}

/// Whole seconds that are not less, and at least one: the cluster counts in nothing smaller.
fn seconds(millis: u64) -> u32 {
    u32::try_from(millis.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
