//! The pipelines that are held to the harness, with the steps that ship; only what makes an image is the tests' own.

use crate::measured::{Even, Measured, Plain};
use plimsoll_attest::Linked;
use plimsoll_core::{Platform, ServiceName, config::Profile};
use plimsoll_engine::{Cx, Graph, Handle, Pipeline, Pure, Reads, Step, StepError, try_pipeline};
use plimsoll_oci::{BlobStore, ImageError, IndexSpec, ServiceImage, service_image, write_index};
use plimsoll_steps::{
    Approval, Approve, Attest, Built, Deploy, Deployed, Environment, Inputs, Made, Open, Options, Pick, Promote, Push,
    Rollback, Smoke, Source,
};
use serde::Serialize;
use std::{collections::BTreeMap, fs};

pub(crate) struct Staging;

impl Environment for Staging {
    const NAME: &'static str = "staging";
    type Gate = Open<Self>;
}

pub(crate) struct Production;

impl Environment for Production {
    const NAME: &'static str = "production";
    type Gate = Approval<Self>;
}

/// The gate's name in the plan.
pub(crate) const GATE: &str = "approve[production]";

const CONFIG: &str = r#"
[project]
name = "kairos"

[advisories]
database = "advisories"

[services.feed]
package = "feed"
[[services.feed.smoke]]
path = "/version"
json = { "/service" = "feed" }

[services.api]
package = "api"
depends_on = ["feed"]
[[services.api.smoke]]
path = "/orders"
contains = "api"

[environments.staging]
gate = "open"
slo = { watch = "0s" }

[environments.production]
gate = "approval"
slo = { watch = "0s" }
"#;

/// What a person asked for.
pub(crate) struct Wish<'a> {
    pub(crate) version: &'a str,
    /// `approval = …` of production.
    pub(crate) rule: &'a str,
    pub(crate) yes: bool,
    pub(crate) dirty: bool,
    pub(crate) profile: Profile,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { version: "1.0.0", rule: "{}", yes: true, dirty: false, profile: Profile::Local }
    }
}

impl Wish<'_> {
    pub(crate) fn inputs(&self, pipeline: &str) -> Inputs {
        let source = Source {
            version: self.version.to_owned(),
            commit: format!("{:0>40}", self.version.replace('.', "")),
            committed_at: 0,
            repository: None,
            tag: None,
            branch: Some("main".to_owned()),
            dirty: self.dirty,
        };
        let text = format!("{CONFIG}approval = {}\n", self.rule);
        let options = Options { yes: self.yes, ..Options::default() };
        Inputs::new(pipeline, text, source, "ann@x".to_owned(), self.profile, options).unwrap()
    }

    pub(crate) fn release(&self) -> Pipeline {
        release(&self.inputs("release"))
    }
}

/// Assembles the image of a binary that says its version.
#[derive(Serialize)]
struct Bake {
    service: ServiceName,
    version: String,
}

impl Step for Bake {
    const NAME: &'static str = "bake";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Built;
}

impl Pure for Bake {
    fn reads(&self, _: &Cx) -> Result<Reads, StepError> {
        Ok(Reads::nothing())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Built, StepError> {
        let binary = cx.run_dir().join(format!("{}.bin", self.service));
        fs::write(&binary, format!("{} {}", self.service, self.version)).unwrap();
        let store = cx.resource::<BlobStore>()?;
        let bake = || {
            let image = ServiceImage {
                name: self.service.as_str(),
                binary: &binary,
                platform: Platform::LinuxAmd64,
                cmd: Vec::new(),
                env: Vec::new(),
                labels: BTreeMap::new(),
                epoch: 0,
                base: None,
                compression: plimsoll_oci::Compression::Gzip,
            };
            let manifest = service_image(&store, &image)?;
            let images = vec![(Platform::LinuxAmd64, manifest.clone())];
            let index = write_index(&store, &IndexSpec { images, annotations: BTreeMap::new() })?;
            Ok::<_, ImageError>((index.digest, BTreeMap::from([(Platform::LinuxAmd64, manifest.digest)])))
        };
        let lock = "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n";
        let linked = Linked::parse("0feed v1.0.0\tMIT\n1serde v1.0.0\tMIT\n", lock).unwrap();
        let of = store.put(&serde_json::to_vec(&linked).unwrap()).unwrap();
        let made = Made { with: BTreeMap::new(), executable: None, files: BTreeMap::new(), of };
        let made = BTreeMap::from([(Platform::LinuxAmd64, made)]);
        let (digest, platforms) = bake().map_err(|e| StepError::of(&e))?;
        Ok(Built {
            service: self.service.clone(),
            digest,
            platforms,
            revision: self.version.clone(),
            committed_at: 0,
            made,
        })
    }
}

/// Finds fault with what is live.
#[derive(Serialize)]
struct Faulty;

impl Step for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: u32 = 1;
    type In = Deployed<Production>;
    type Out = ();
}

impl Pure for Faulty {
    fn reads(&self, _: &Cx) -> Result<Reads, StepError> {
        Ok(Reads::nothing())
    }

    async fn run(&self, _: &Cx, _: Deployed<Production>) -> Result<(), StepError> {
        Err(StepError::check("the customers complain"))
    }
}

/// Staging, a yes, production.
pub(crate) fn release(inputs: &Inputs) -> Pipeline {
    until_live(inputs, |g, live| {
        g.effect("production", Smoke::<Production>::new(inputs)?, Plain(live));
        Ok(())
    })
}

/// The same, and then something fails.
pub(crate) fn regretted(inputs: &Inputs) -> Pipeline {
    until_live(inputs, |g, live| {
        g.pure("", Faulty, Plain(live));
        Ok(())
    })
}

type Live<'g> = Handle<'g, Even<Deployed<Production>>>;

fn until_live(
    inputs: &Inputs,
    then: impl for<'g> FnOnce(&mut Graph<'g>, Live<'g>) -> Result<(), StepError>,
) -> Pipeline {
    let built = try_pipeline("release", |g| {
        let mut images = Vec::new();
        for service in inputs.services() {
            let bake = Bake { service: service.clone(), version: inputs.source.version.clone() };
            images.push(g.pure(service.as_str(), bake, ()));
        }
        let checks: (Vec<Handle<'_, ()>>, Vec<Handle<'_, _>>) = (Vec::new(), Vec::new());
        let pushed = g.effect("", Push::new(inputs), (images, checks.0, checks.1));
        let attested = g.effect("", Attest::new(inputs), pushed);
        let deployed = g.effect("staging", Measured(Deploy::<Staging>::new(inputs)?), attested);
        let smoked = g.effect("staging", Smoke::<Staging>::new(inputs)?, Plain(deployed));
        let approval = g.gate("production", Approve::<Production, Staging>::new(inputs)?, smoked);
        let promoted = g.effect("production", Measured(Promote::<Production>::new(inputs)?), approval);
        then(g, promoted)
    });
    built.unwrap()
}

/// Production's former release, back.
pub(crate) fn rollback(inputs: &Inputs) -> Pipeline {
    let built = try_pipeline("rollback", |g| {
        let picked = g.effect("", Measured(Pick::<Production>::new(inputs)), ());
        g.effect("production", Measured(Rollback::<Production>::new(inputs)?), Plain(picked));
        Ok::<(), StepError>(())
    });
    built.unwrap()
}
