//! `docker-build` with a real engine: what it sends, what it says, what comes out, and what happens on the next run.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "git and rustc make a workspace to build, and a skipped test says so"
)]

use plimsoll_core::{Ending, Platform, RunId, Timestamp, config::Profile};
use plimsoll_engine::{Resources, Setup, Silent, Start, StateDir, StepReport, log_path, try_pipeline};
use plimsoll_oci::{BlobStore, UnpackLimits, unpack};
use plimsoll_process::{Cancel, Environment};
use plimsoll_steps::{Built, Inputs, Options, Origins, Source, Workspace, built};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

const CONFIG: &str = r#"
[project]
name = "shop"

[services.api]
package = "shop"
docker_build = { dockerfile = "docker/Dockerfile", target = "shipped", args = { WORD = "hello" } }

[environments.staging]
"#;

/// Two stages, of which one runs a program; a third one that nobody asks for.
const DOCKERFILE: &str = "FROM scratch AS build
COPY tool /bin/tool
COPY files /files
ARG WORD
RUN [\"/bin/tool\", \"say\"]

FROM scratch AS shipped
COPY --from=build /bin/tool /bin/api
COPY --from=build /files /files
ENTRYPOINT [\"/bin/api\"]

FROM scratch
COPY nowhere /
";

/// A program that needs nothing around it: it says something, and fails when it is told to.
const TOOL: &str = r#"fn main() {
    let word = std::env::var("WORD").unwrap_or_default();
    println!("the tool says {word}");
    if std::env::args().nth(1).as_deref() == Some("fail") {
        eprintln!("the last words of the tool");
        std::process::exit(3);
    }
}
"#;

fn run(program: &str, args: &[&str], directory: &Path) {
    let output = Command::new(program).args(args).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A workspace with a Dockerfile, committed.
struct Place {
    directory: tempfile::TempDir,
    runs: u16,
}

/// What one run came to.
struct Ran {
    step: StepReport,
    log: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory, runs: 0 };
        place.write("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n");
        place.write("src/main.rs", "fn main() {}\n");
        place.write("tool.rs", TOOL);
        place.write("docker/Dockerfile", DOCKERFILE);
        place.write(".dockerignore", "*\n!tool\n!files\n**/*.secret\n");
        place.write(".gitignore", "files/unversioned\n/target\n");
        place.write("files/one", "1");
        // An engine that did the same before would say nothing of it again.
        place.write("files/here", &place.root().display().to_string());
        place.write("files/deep/two", "2");
        place.write("files/deep/key.secret", "never sent");
        place.write("files/unversioned", "never sent either");
        let flags =
            ["--edition", "2024", "-C", "opt-level=1", "-C", "target-feature=+crt-static", "-o", "tool", "tool.rs"];
        run("rustc", &flags, &place.root());
        run("cargo", &["generate-lockfile", "--offline"], &place.root());
        run("git", &["init", "--quiet"], &place.root());
        place.commit();
        place
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self) {
        run("git", &["add", "--all"], &self.root());
        let who = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"];
        run("git", &[&who[..], &["commit", "--quiet", "--message", "change"]].concat(), &self.root());
    }

    fn store(&self) -> Arc<BlobStore> {
        Arc::new(BlobStore::open(self.directory.path().join("store")).unwrap())
    }

    /// Builds what a release would build.
    async fn build(&mut self) -> Ran {
        self.runs += 1;
        let (root, cache) = (self.root(), self.directory.path().join("cache"));
        let environment = Environment::capture();
        let source = Source::read(&root, &environment, &"0.1.0".parse().unwrap()).await.unwrap();
        let workspace = Workspace::load(&root, &cache, &environment).await.unwrap();
        let inputs = Inputs::new(
            "image",
            CONFIG.to_owned(),
            source.clone(),
            "ann".to_owned(),
            Profile::Local,
            Options::default(),
        );
        let inputs = inputs.unwrap();
        let origins = Origins::load(&workspace, inputs.config(), &environment, &source, &cache).await.unwrap();
        let resources = Resources::new().with(Arc::new(workspace)).with(Arc::new(origins)).with(self.store());
        let state = StateDir::new(self.directory.path().join("state"));
        let setup = Setup {
            state: state.clone(),
            cache,
            root,
            environment: Arc::new(environment),
            resources,
            observer: Arc::new(Silent),
            redactor: None,
            clock: Arc::new(|| Timestamp::from_millis(1_700_000_000_000)),
            jobs: 2,
            fail_fast: false,
            use_cache: true,
        };
        let pipeline = try_pipeline("image", |g| {
            built(g, &inputs);
            Ok::<_, plimsoll_engine::StepError>(())
        });
        let id = RunId::new(Timestamp::from_millis(0), self.runs);
        let (actor, executable, engine) = ("ann".to_owned(), "none".to_owned(), "0".to_owned());
        let start = Start { inputs: serde_json::Value::Null, actor, executable, engine };
        let report = setup.start(&pipeline.unwrap(), &id, start, Cancel::new()).await.unwrap();
        let [step] = <[_; 1]>::try_from(report.steps).unwrap();
        let log = fs::read_to_string(log_path(state.run(&id).path(), &step.name)).unwrap_or_default();
        Ran { step, log }
    }
}

impl Ran {
    fn built(&self) -> Built {
        serde_json::from_str(self.step.output.as_ref().unwrap_or_else(|| panic!("{:?}\n{}", self.step, self.log)))
            .unwrap()
    }
}

/// Whether an engine answers. Where everything is to be tested, it must.
async fn an_engine_answers() -> bool {
    let environment = Environment::capture();
    let host = environment.get("DOCKER_HOST").map(|host| host.to_string_lossy());
    let answered = plimsoll_docker::version(&plimsoll_docker::socket(host.as_deref()).unwrap()).await;
    assert!(answered.is_ok() || environment.get("CI").is_none_or(|ci| ci != "true"), "{answered:?}");
    if let Err(reason) = &answered {
        println!("skipped: {reason}");
    }
    answered.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_becomes_an_image_as_any_other_and_a_failing_line_is_shown() {
    if !an_engine_answers().await {
        return;
    }
    let mut place = Place::new();
    let first = place.build().await;
    let image = first.built();
    assert!(first.log.contains("the tool says hello"), "its output is in the log: {}", first.log);
    assert_eq!(image.platforms.keys().collect::<Vec<_>>(), [&Platform::host().unwrap()]);
    let root = place.directory.path().join("root");
    let manifest = &image.platforms[&Platform::host().unwrap()];
    let rootfs = unpack(&place.store(), manifest, &root, UnpackLimits::default()).unwrap();
    assert_eq!(rootfs.entrypoint, ["/bin/api"]);
    assert_eq!(fs::read_to_string(root.join("files/deep/two")).unwrap(), "2");
    assert!(!root.join("files/deep/key.secret").exists() && !root.join("files/unversioned").exists());

    // What is not sent does not build it again; what is sent does, with what the engine still has.
    place.write("src/main.rs", "fn main() { }\n");
    place.write("files/unversioned", "other");
    place.write("notes.txt", "neither ignored by git nor sent");
    assert_eq!(place.build().await.step.ending, Ending::Cached);
    // What it is built from is told by its commit, whatever the package's last one is.
    place.write("files/one", "one");
    place.commit();
    let second = place.build().await;
    let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(place.root()).output().unwrap().stdout;
    assert_eq!(second.built().revision, String::from_utf8(head).unwrap().trim());
    assert_ne!(second.built().digest, image.digest);
    assert!(second.log.contains("Using cache"), "{}", second.log);

    // An image of which a part was lost is not taken from the cache.
    fs::remove_file(place.store().path(&second.built().platforms[&Platform::host().unwrap()])).unwrap();
    let third = place.build().await;
    assert_eq!((third.step.ending.clone(), third.built().digest), (Ending::Done, second.built().digest));

    place.write("docker/Dockerfile", &DOCKERFILE.replace("\"say\"", "\"fail\""));
    let failed = place.build().await;
    let Ending::Failed { class, .. } = &failed.step.ending else { panic!("{:?}", failed.step) };
    assert_eq!(*class, plimsoll_core::ErrorClass::User);
    let Ending::Failed { error, .. } = &failed.step.ending else { panic!("{:?}", failed.step) };
    for says in
        ["`docker/Dockerfile`", "RUN [\"/bin/tool\", \"fail\"]", "the tool says hello", "the last words of the tool"]
    {
        assert!(error.contains(says), "{says}: {error}");
    }

    place.write("docker/Dockerfile", "FRM scratch\n");
    let Ending::Failed { error, class, .. } = place.build().await.step.ending else { panic!("it was built") };
    assert!(error.contains("FRM") && class == plimsoll_core::ErrorClass::User, "{error}");
    run("docker", &["image", "rm", "--force", "shop/api:docker-build"], place.directory.path());
}
