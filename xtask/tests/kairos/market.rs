//! Production on one of the targets, and how those reach it who trade there.

use crate::{
    load::Load,
    orders::{self, Client},
    place::{self, Place, Ran},
    scene::Scene,
    world,
};
use std::{env, fs, process::Command};

/// Production on one of the targets.
pub(crate) enum Market<'a> {
    Local,
    Docker,
    Cluster(&'a Scene<'a>),
}

impl Market<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Cluster(_) => "kubernetes",
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place_with(str::to_owned)
    }

    /// A place whose configuration for this market is changed once more.
    pub(crate) fn place_with(&self, change: impl Fn(&str) -> String) -> Place {
        match self {
            Self::Local => Place::configured(|text| change(&place::configured(text)), Vec::new()),
            Self::Docker => Place::configured(|text| change(&in_containers(text)), Vec::new()),
            Self::Cluster(scene) => {
                let configured = |text: &str| change(&scene.configured(text, &|_| String::new()));
                Place::configured(configured, scene.cluster.variables())
            }
        }
    }

    pub(crate) fn gateway(&self, place: &Place) -> String {
        self.gateway_of(place, "production")
    }

    pub(crate) fn gateway_of(&self, place: &Place, environment: &str) -> String {
        match self {
            Self::Local | Self::Docker => place.live(environment).1.url("api-gateway").to_owned(),
            Self::Cluster(scene) => scene.gateway_of(environment),
        }
    }

    pub(crate) fn get(&self, url: &str, path: &str) -> String {
        match self {
            Self::Local | Self::Docker => world::get(url, path).unwrap(),
            Self::Cluster(scene) => scene.cluster.get(&[format!("{url}{path}")]),
        }
    }

    pub(crate) fn client(&self, url: &str) -> Client {
        let command = match self {
            Self::Local | Self::Docker => Command::new("wrk"),
            Self::Cluster(scene) => {
                let mut command = scene.cluster.inside();
                command.arg("wrk");
                command
            }
        };
        Client::new(Load::running(command, orders::SCRIPT, &["-t1", "-c1"], &format!("{url}/orders")))
    }

    /// What a service's processes in production wrote, each with its slot.
    pub(crate) fn logs(&self, place: &Place, service: &str) -> Vec<(String, String)> {
        match self {
            Self::Local => {
                let logs = fs::read_dir(place.state().join("logs/production").join(service)).unwrap().flatten();
                let slot = |name: &str| name.split('-').next().unwrap().to_owned();
                let one = |entry: fs::DirEntry| {
                    (slot(entry.file_name().to_str().unwrap()), fs::read_to_string(entry.path()).unwrap())
                };
                logs.map(one).collect()
            }
            Self::Docker => {
                containers(place, service).into_iter().map(|(slot, name)| (slot, docker(&["logs", &name]))).collect()
            }
            Self::Cluster(scene) => {
                let namespace = scene.namespace("production");
                let of = |slot: &str| {
                    let pods = format!("plimsoll.dev/service={service},plimsoll.dev/slot={slot}");
                    scene.cluster.kubectl(&["-n", &namespace, "logs", "--selector", &pods, "--tail=-1"])
                };
                ["blue", "green"].map(|slot| (slot.to_owned(), of(slot))).into()
            }
        }
    }
}

/// Both environments in containers.
fn in_containers(text: &str) -> String {
    let mut text = place::configured(text);
    for environment in ["staging", "production"] {
        let header = format!("[environments.{environment}]\n");
        text = text.replace(&header, &format!("{header}target = \"docker\"\n"));
    }
    text
}

/// What the `docker` command prints, on both streams.
fn docker(args: &[&str]) -> String {
    let ran = Ran::of(Command::new("docker").args(args).output().unwrap());
    assert_eq!(ran.code, 0, "docker {args:?}: {}", ran.text());
    ran.out + &ran.err
}

/// Whether containers can be made here. Where everything must be tested, it is an error if not.
pub(crate) fn docker_answers() -> bool {
    let answers = Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success());
    assert!(answers || env::var_os("CI").is_none(), "no Docker Engine answers");
    if !answers {
        println!("skipped: no Docker Engine answers");
    }
    answers
}

/// The containers of a service in a place's production, by slot: those that have its state mounted.
fn containers(place: &Place, service: &str) -> Vec<(String, String)> {
    let part = format!("-production-{service}-");
    let names = docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &format!("name={part}")]);
    let mounts = |name: &str| docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", name]);
    let ours = names.lines().filter(|name| mounts(name).contains(place.state().to_str().unwrap()));
    let slot = |name: &str| name.split(&part).nth(1).unwrap().split('-').next().unwrap().to_owned();
    ours.map(|name| (slot(name), name.to_owned())).collect()
}
