//! What builders refuse, and what they say without being asked.

use super::*;
use plimsoll_core::Secret as Value;
use serde_json::json;

fn labels() -> Labels {
    Labels::from([("app".to_owned(), "web".to_owned())])
}

/// A container of which a Service can be made.
fn web() -> Container {
    Container::new("web", "shop/web:1").port("http", 8080).readiness(Probe::http("/ready", "http"))
}

fn of(container: Container) -> Deployment {
    Deployment::new("web", Pod::new(&labels(), container)).replicas(2)
}

/// Everything that is wrong with one object, by words of its lines, and nothing else.
fn check(builder: &dyn Build, expected: &[&str]) {
    let said = match objects(&[builder]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), expected.len(), "expected {expected:#?}, found {lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "expected {words}, found {line}");
    }
}

#[test]
fn what_makes_sense_is_built() {
    let full = of(web().resources(Resources::default().cpu("100m").cpu_limit("1").memory("64Mi").memory_limit("64Mi")));
    check(&full, &[]);
    check(&Service::of(&full, "web").port("http", 80), &[]);
    check(&Autoscaler::of(&full, "web", 1, 1).cpu(70).memory(80).pods_metric("inflight", "2500m"), &[]);
    check(&Disruption::of(&full, "web").min_available(1), &[]);
    check(&NetworkPolicy::of(&labels(), "web").from([Peer::EveryPod], [Port::Tcp(80)]), &[]);
    check(&CronJob::new("tidy", "*/5 * * * *", Pod::new(&labels(), Container::new("tidy", "i"))), &[]);
    check(&Ingress::new("web").route("*.shop.test", "/", "web", "http").tls("*.shop.test", "cert"), &[]);
    check(&PriorityClass::new("high", 1000, "first").preempting(), &[]);
    check(&ExternalSecret::new("web", "vault").entry("KEY", "shop/key"), &[]);
}

#[test]
fn resources_that_contradict_each_other_are_refused() {
    let with = |resources| of(web().resources(resources));
    let none = Resources::default;
    let at = "Deployment web: spec.containers[web].resources";
    check(&with(none().cpu("1").cpu_limit("999m")), &[&format!("{at}.limits.cpu: the limit 999m is below")]);
    check(&with(none().memory("1Gi").memory_limit("1G")), &[&format!("{at}.limits.memory: the limit 1G is below")]);
    check(&with(none().cpu("lots")), &[&format!("{at}.requests.cpu: `lots` is no quantity")]);
    check(&with(none().memory_limit("64mb")), &[&format!("{at}.limits.memory: `64mb` is no quantity")]);
    check(&Claim::new("state", "1GB"), &["spec.resources.requests.storage: `1GB` is no quantity"]);
    check(&Claim::new("state", "0"), &["storage: 0 is below 1"]);
    check(&of(web()).replicas(1), &[]);
    let scratch = Deployment::new("web", Pod::new(&labels(), web()).volume(Volume::scratch("tmp", "big")));
    check(&scratch, &["spec.volumes[tmp]: `big` is no quantity"]);
}

#[test]
fn probes_and_the_end_of_pods_must_fit_in_time() {
    let slow = Probe::http("/ready", "http").period(2).timeout(3);
    check(&of(web().readiness(slow)), &["readinessProbe.timeoutSeconds: an answer may take 3 s, and the next"]);
    check(&of(web().liveness(Probe::tcp("grpc"))), &["livenessProbe.port: no container of `web` exposes"]);
    check(&of(web().startup(Probe::tcp("http").failures(0))), &["startupProbe.failureThreshold: 0 is below 1"]);
    let pod = |grace| Pod::new(&labels(), web().pre_stop_sleep(5)).grace(grace);
    check(&Deployment::new("web", pod(5)), &["terminationGracePeriodSeconds: 5 s are over before the sleep of 5 s"]);
    check(&Deployment::new("web", pod(6)), &[]);
}

#[test]
fn a_service_needs_pods_that_say_when_they_are_ready_and_ports_they_have() {
    let blind = of(Container::new("web", "i").port("http", 8080));
    check(
        &Service::of(&blind, "web").port("http", 80),
        &["Service web: spec.selector: Service web would send traffic"],
    );
    let ready = of(web());
    let wrong = Service::of(&ready, "web").port("grpc", 80).port("grpc", 0).headless();
    check(
        &wrong,
        &["`grpc` is there twice", "no container of Deployment web", "no container of Deployment web", "0 is below 1"],
    );
    check(&Service::of(&ready, "web"), &["spec.ports: nothing is said"]);
    check(&Service::of(&ready, "w".repeat(64)).port("http", 80), &["metadata.name: `www"]);
}

#[test]
fn an_autoscaler_needs_bounds_and_a_load_that_can_be_measured() {
    let plain = of(web());
    check(
        &Autoscaler::of(&plain, "web", 1, 2).cpu(70),
        &["a share of the cpu request, which no container of Deployment"],
    );
    check(&Autoscaler::of(&plain, "web", 1, 2).memory(70), &["a share of the memory request"]);
    check(&Autoscaler::of(&plain, "web", 1, 2), &["spec.metrics: nothing is said"]);
    let metered = of(web().resources(Resources::default().cpu("1")));
    let autoscaler = |min, max| Autoscaler::of(&metered, "web", min, max).cpu(70);
    check(&autoscaler(0, 2), &["spec.minReplicas: 0 is below 1"]);
    check(&autoscaler(3, 2), &["spec.maxReplicas: at least 3 and at most 2"]);
    check(&autoscaler(1, 2).down(Scaling::after(3_601)), &["stabilizationWindowSeconds: 3601 is above 3600"]);
    check(&autoscaler(1, 2).up(Scaling::after(0).pods(0, 1_801)), &["1801 is above 1800", "0 is below 1"]);
    check(&autoscaler(1, 2).pods_metric("", "few"), &["`few` is no quantity", "the name of a metric"]);
}

#[test]
fn a_budget_must_let_nodes_be_emptied() {
    let two = of(web());
    check(&Disruption::of(&two, "web").min_available(2), &["spec.minAvailable: 2 of 2 pods must be there"]);
    check(&Disruption::of(&two, "web").max_unavailable(0), &["spec.maxUnavailable: 2 of 2 pods must be there"]);
    let one = of(web()).replicas(1);
    check(&Disruption::of(&one, "web"), &["PodDisruptionBudget web: spec: a budget for one pod"]);
}

#[test]
fn a_policy_that_would_allow_everything_by_accident_is_refused() {
    let policy = || NetworkPolicy::of(&labels(), "web");
    let http = || [Port::Named("http".to_owned())];
    check(&policy(), &[]);
    check(&policy().from([], http()), &["spec.ingress.from: an empty list of peers means everybody"]);
    check(
        &policy().to([Peer::Pods(Labels::new())], http()),
        &["spec.egress.to: an empty list of peers means everybody"],
    );
    check(
        &policy().from([Peer::Namespaces(Labels::new())], http()),
        &["means everybody; say so with `Peer::EveryPod`"],
    );
    check(&policy().from([Peer::EveryPod], []), &["which ports; an empty list means all"]);
    check(&NetworkPolicy::of(&Labels::new(), "web"), &["spec.podSelector: nothing is said"]);
}

#[test]
fn a_workload_finds_its_own_pods_and_names_each_thing_once() {
    let other = Labels::from([("app".to_owned(), "api".to_owned())]);
    check(&of(web()).selector(&other), &["spec.selector: selects `app=api`, which the template's labels do not have"]);
    check(&of(web()).selector(&Labels::new()), &["spec.selector: nothing is said"]);
    check(&of(web().port("http", 81)), &["spec.containers.ports: `http`", "[web].ports: `http` is there twice"]);
    check(&of(web().port("admin", 8080)), &["[web].ports: `8080` is there twice"]);
    check(&of(web().env("A", "1").env("A", "2")), &["spec.containers[web].env: `A` is there twice"]);
    let volumes = |container: Container| Pod::new(&labels(), container).volume(Volume::config_map("v", "c"));
    let twice = Deployment::new("web", volumes(web()).volume(Volume::secret("v", "s")));
    check(&twice, &["spec.volumes: `v` is there twice"]);
    let mounts = web().mount("v", "/a").mount("v", "/a");
    check(&Deployment::new("web", volumes(mounts)), &["volumeMounts: `/a` is there twice"]);
    check(&Deployment::new("web", volumes(web().mount("w", "/a"))), &["volumeMounts: there is no volume `w`"]);
    let containers = Deployment::new("web", Pod::new(&labels(), web()).container(Container::new("web", "i")));
    check(&containers, &["spec.containers: `web` is there twice"]);
}

#[test]
fn names_that_the_server_would_refuse_are_refused() {
    for name in ["", "Web", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
        check(&ConfigMap::new(name), &["metadata.name: `"]);
    }
    check(&StatefulSet::new("s".repeat(53), Pod::new(&labels(), web())).service("web"), &["at most 52"]);
    check(&of(Container::new("a.b", "i")), &["spec.containers[a.b].name"]);
    check(&of(Container::new("web", "")), &["spec.containers[web].image: nothing is said"]);
    check(&of(web().port("a-very-long-name", 81)), &["is no name of a port"]);
    check(&of(web().port("80", 81)), &["is no name of a port"]);
    let long = Labels::from([("app".to_owned(), "x".repeat(64))]);
    check(&ConfigMap::new(Meta::named("a").labels(&long)), &["metadata.labels[app]"]);
    check(&ConfigMap::new("a").entry("../x", ""), &["data: `../x` is no key"]);
    check(&ConfigMap::new("a").entry("x", "x".repeat(1 << 20)), &["data: 1048577 is above 1048576"]);
    check(&PriorityClass::new("system-web", 1_000_000_001, ""), &["value: 1000000001 is above", "`system-` is for"]);
}

#[test]
fn what_lacks_something_is_refused() {
    check(
        &StatefulSet::new("web", Pod::new(&labels(), web())),
        &["StatefulSet web: spec.serviceName: nothing is said"],
    );
    check(&CronJob::new("a", "61 * * * *", Pod::new(&labels(), Container::new("a", "i"))), &["spec.schedule: `61 * *"]);
    check(&of(web().env("KEY", "plain").env_of_secret("web", ["KEY"])), &["env[KEY]: `KEY` is in Secret web too"]);
    let role = Role::new("reader");
    check(&role, &["Role reader: rules: nothing is said"]);
    check(&Role::new("reader").allow("", &[], &[]), &["rules.resources", "rules.verbs"]);
    check(&RoleBinding::new("reader", &role, &[]), &["subjects: nothing is said"]);
    check(&ExternalSecret::new("web", "vault").refresh(0), &["spec.data: nothing", "refreshInterval: 0 is below 1"]);
    check(&Ingress::new("web"), &["spec.rules: nothing is said"]);
    let twice = Ingress::new("web").route("h.test", "/", "web", "http").route("h.test", "/", "api", "http");
    check(&twice.tls("i.test", "cert"), &["`h.test/` is there twice", "spec.tls[i.test]"]);
    check(&Ingress::new("web").route("h_", "x", "web", "http"), &["spec.rules.host", "`x` is no path"]);
}

#[test]
fn everything_wrong_with_all_objects_is_told_at_once() {
    let web = of(Container::new("web", "i").port("http", 8080));
    let service = Service::of(&web, "web").port("grpc", 80);
    let error = objects(&[&ConfigMap::new("Bad"), &web, &service]).unwrap_err();
    let objects: Vec<&str> = error.mistakes().iter().map(|mistake| mistake.object.as_str()).collect();
    assert_eq!(objects, ["ConfigMap Bad", "Service web", "Service web"], "{error}");
    assert!(matches!(error.mistakes()[1].why, Nonsense::NoReadinessProbe { .. }));
}

#[test]
fn pods_are_confined_without_being_asked() {
    let built = of(web()).build().unwrap();
    let pod = built.value().pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    let of_pod = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" },
    });
    assert_eq!(pod["securityContext"], of_pod);
    let of_container = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
    });
    assert_eq!(pod["containers"][0]["securityContext"], of_container);
}

#[test]
fn a_value_is_taken_as_it_is_written_and_never_shown() {
    let built = of(web().env("PRICE", "$(HOME) $$5 $").args(["$(X)"])).build().unwrap();
    let container = built.value().pointer("/spec/template/spec/containers/0").unwrap();
    assert_eq!((&container["env"][0]["value"], &container["args"]), (&json!("$$(HOME) $$$$5 $$"), &json!(["$$(X)"])));
    let secret = Secret::new("web").entry("KEY", Value::new("hunter2"));
    assert!(!format!("{secret:?}").contains("hunter2"));
    assert_eq!(secret.build().unwrap().value()["data"], json!({ "KEY": "aHVudGVyMg==" }));
    let wrong = Secret::new("Web").entry("a b", Value::new("hunter2")).build().unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"), "{wrong}");
}

#[test]
fn an_external_secret_names_the_places_of_its_values() {
    let secret = ExternalSecret::new("web", "vault").of_cluster().entry("A", "shop/a").property("B", "shop/b", "key");
    insta::assert_snapshot!(secret.build().unwrap().value()["spec"], @r#"{"data":[{"remoteRef":{"key":"shop/a"},"secretKey":"A"},{"remoteRef":{"key":"shop/b","property":"key"},"secretKey":"B"}],"refreshInterval":"3600s","secretStoreRef":{"kind":"ClusterSecretStore","name":"vault"},"target":{"creationPolicy":"Owner","name":"web"}}"#);
}
