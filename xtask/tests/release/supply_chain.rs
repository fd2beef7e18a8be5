//! What is said of images beside them, read by programs that are not ours: `cosign` for signatures and provenance, a validator
//! of `CycloneDX` for bills of materials. And `verify`, which says by itself what does not hold.

use crate::{
    fixture::{advise, tool},
    place::{Place, Ran},
    plain::registry_port,
    world::get,
};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(f'{errors}' if errors else 0)
";

/// What `.ci/run` provides, or a word that it is missing here.
fn provided(name: &str, what: &str) -> Option<OsString> {
    let found = env::var_os(name).filter(|value| !value.is_empty());
    // CI provides it where Go and Python are.
    if found.is_none() {
        println!("skipped: {name} names no {what}");
    }
    found
}

/// A place whose images are pushed, and the service `web` in its registry: host with port, and the index's digest.
fn pushed() -> (Place, String, String) {
    let place = Place::new();
    place.run(&["push"]).expect(0);
    let host = format!("127.0.0.1:{}", registry_port(&place));
    let tags: Value = serde_json::from_str(&get(&format!("http://{host}"), "/v2/shop/web/tags/list").unwrap()).unwrap();
    let tag = tags["tags"][0].as_str().unwrap();
    let verdict = place.json(&["verify", &format!("web:{tag}"), "--json"]);
    assert!(verdict["rules"].as_array().unwrap().iter().all(|ruled| ruled["holds"] == true), "{verdict}");
    let digest = verdict["image"].as_str().unwrap().rsplit_once('@').unwrap().1.to_owned();
    (place, host, digest)
}

/// The images that something is said of: the index and what it names.
fn subjects(place: &Place, digest: &str) -> Vec<String> {
    let verdict = place.json(&["verify", &format!("web@{digest}"), "--json"]);
    verdict["subjects"].as_array().unwrap().iter().map(|subject| subject.as_str().unwrap().to_owned()).collect()
}

/// Runs cosign, which is to know nothing of the network's keys and logs.
fn cosign(program: &OsString, home: &Path, args: &[&str]) -> Ran {
    let own = ["--insecure-ignore-tlog=true", "--allow-http-registry"];
    Ran::of(Command::new(program).args(args).args(own).env("HOME", home).output().unwrap())
}

#[test]
fn cosign_accepts_signatures_and_statements_of_every_image_and_those_of_no_other_key() {
    let Some(program) = provided("PLIMSOLL_COSIGN", "cosign") else { return };
    let (place, host, digest) = pushed();
    let home = place.beside("home");
    let generated = Command::new(&program)
        .args(["generate-key-pair", "--output-key-prefix", "other"])
        .current_dir(&home)
        .env("COSIGN_PASSWORD", "open sesame")
        .output();
    Ran::of(generated.unwrap()).expect(0);
    let key = place.state().join("signing/plimsoll.pub");
    let (key, other) = (key.to_str().unwrap(), home.join("other.pub"));
    for subject in subjects(&place, &digest) {
        let image = format!("{host}/shop/web@{subject}");
        cosign(&program, &home, &["verify", "--key", key, &image]).expect(0);
        for kind in ["slsaprovenance1", "cyclonedx"] {
            cosign(&program, &home, &["verify-attestation", "--key", key, "--type", kind, &image]).expect(0);
        }
        let refused = cosign(&program, &home, &["verify", "--key", other.to_str().unwrap(), &image]);
        assert_ne!(refused.code, 0, "{}", refused.text());
    }

    // A key that cosign made and sealed signs as well, and from then on counts instead of the machine's own.
    fs::copy(home.join("other.key"), place.repository().join("other.key")).unwrap();
    let text = fs::read_to_string(place.repository().join("plimsoll.toml")).unwrap();
    let signing = "[signing]\nkey = { file = \"other.key\" }\npassword = { env = \"SHOP_PASSWORD\" }\n";
    fs::write(place.repository().join("plimsoll.toml"), format!("{text}\n{signing}")).unwrap();
    let mut place = place;
    place.set("SHOP_PASSWORD", "open sesame");
    let web = format!("web@{digest}");
    place.run(&["verify", &web]).expect(1).says("signature   BROKEN").says("none of the trusted keys");
    place.run(&["push"]).expect(0);
    place.run(&["verify", &web]).expect(0);
    cosign(&program, &home, &["verify", "--key", other.to_str().unwrap(), &format!("{host}/shop/{web}")]).expect(0);
}

#[test]
fn a_validator_accepts_the_bill_of_materials_of_every_image() {
    let Some(packages) = provided("PLIMSOLL_CYCLONEDX", "directory with the Python package cyclonedx") else { return };
    let (place, host, digest) = pushed();
    for subject in subjects(&place, &digest) {
        let bom = document(&host, &subject, "application%2Fvnd.cyclonedx%2Bjson");
        let read: Value = serde_json::from_str(&bom).unwrap();
        let names: Vec<&str> =
            read["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        // The service itself, what it is linked with, and nothing that only builds it.
        assert!(names.contains(&"web") && names.contains(&"std"), "{names:?}");
        let sums = document(&host, &subject, "application%2Fvnd.plimsoll.checksums.v1%2Btext");
        assert!(sums.ends_with("bin/web\n") && sums.split(' ').next().unwrap().len() == 64, "{sums}");
        let file = place.beside("boms").join("bom.json");
        fs::write(&file, bom).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", VALIDATE]).env("PYTHONPATH", &packages).stdin(fs::File::open(&file).unwrap());
        Ran::of(python.output().unwrap()).expect(0);
    }
}

/// The first document of a kind that the registry lists for an image.
fn document(host: &str, subject: &str, kind: &str) -> String {
    let ask = |path: String| get(&format!("http://{host}"), &format!("/v2/shop/web/{path}")).unwrap();
    let first = |text: String, list: &str| {
        let read: Value = serde_json::from_str(&text).unwrap();
        read[list][0]["digest"].as_str().unwrap_or_else(|| panic!("{list} in {text}")).to_owned()
    };
    let manifest = first(ask(format!("referrers/{subject}?artifactType={kind}")), "manifests");
    let layer = first(ask(format!("manifests/{manifest}")), "layers");
    ask(format!("blobs/{layer}"))
}

#[test]
fn what_became_known_to_be_vulnerable_is_not_released_until_it_is_looked_at() {
    let (place, host, digest) = pushed();
    for subject in subjects(&place, &digest) {
        let scan: Value = serde_json::from_str(&document(&host, &subject, "application%2Fsarif%2Bjson")).unwrap();
        assert_eq!(scan["runs"][0]["results"], Value::Array(Vec::new()), "{scan}");
    }
    let web = format!("web@{digest}");
    place.run(&["verify", &web]).expect(0).says("advisories  holds: 1 advisories as of 2026-01-01");

    // Every executable has the standard library in it.
    advise(place.repository(), "RUSTSEC-2026-0002", "rust", "std", "99.0.0");
    place.run(&["verify", &web]).expect(1).says("advisories  BROKEN").says("RUSTSEC-2026-0002: std");
    place.release().expect(1).says("the policy refuses web, by its rule `advisories`").says("cargo xtask verify");
    assert!(place.status().0["production"].live.is_none());
    let known = "[advisories]\n";
    let ignored = "ignore = [{ id = \"RUSTSEC-2026-0002\", reason = \"nobody calls it\" }]\n";
    place.configure(known, &format!("{known}{ignored}"));
    place.run(&["verify", &web]).expect(0);
    place.release().expect(0);
}

#[test]
fn a_release_that_asks_for_advisories_is_refused_without_them() {
    let place = Place::new();
    place.configure("database = \"advisories\"", "database = \"nowhere\"\nrequired = true");
    place.release().expect(3).says("nowhere cannot be read");
    place.configure("required = true", "required = false");
    place.release().expect(0).says("the rule `advisories` is not looked at");
}

#[test]
fn verify_names_what_does_not_hold() {
    let (place, host, digest) = pushed();
    let web = format!("web@{digest}");
    place.run(&["verify", &web]).expect(0).says("signature   holds");
    place.run(&["verify", &format!("{host}/shop/{web}")]).expect(0);
    let commit = tool("git", &["rev-parse", "HEAD"], place.repository());
    let other = "0123456789012345678901234567890123456789";
    place.run(&["verify", &web, "--commit", commit.trim()]).expect(0);
    place.run(&["verify", &web, "--commit", other]).expect(1).says("provenance  BROKEN").says(other);
    place.run(&["verify", "web:no-such"]).expect(1).says("the registry has no");
    place.run(&["verify", "nonsense"]).expect(2).says("a service with a tag or digest");

    let repository: PathBuf = place.state().join("registry/repositories/shop/web");
    fs::remove_dir_all(repository.join("_referrers")).unwrap();
    place.run(&["verify", &web]).expect(1).says("signature   BROKEN").says("there is no signature");
    // What is missing is said anew.
    place.run(&["push"]).expect(0);
    place.run(&["verify", &web]).expect(0);
}

#[test]
fn an_image_that_is_built_again_is_the_same_or_it_is_said_why_not() {
    let (place, host, digest) = pushed();
    let web = format!("web@{digest}");
    place.run(&["image", "--verify", &web]).expect(0).says("same: ");
    // A title is no source: the same commit and the same tools make another image.
    let whole = format!("{host}/shop/{web}");
    place.configure("name = \"shop\"", "name = \"bazaar\"");
    let title = "/config/Labels/org.opencontainers.image.title of the configuration: \"shop/web\" and \"bazaar/web\"";
    place.run(&["image", "--verify", &whole]).expect(1).says("different: ").says(title);
    place.configure("name = \"bazaar\"", "name = \"shop\"");
    let text = fs::read_to_string(place.repository().join("plimsoll.toml")).unwrap();
    let platform = format!("linux/{}", if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" });
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let named = format!("[images.toolchains.\"{platform}\"]\ntarget = \"{target}\"\nlinker = \"gcc\"\n");
    fs::write(place.repository().join("plimsoll.toml"), format!("{text}\n{named}")).unwrap();
    let reason = format!("{platform}: linker differs: ");
    place.run(&["image", "--verify", &web]).expect(2).says("not comparable: ").says(&reason);
    fs::write(place.repository().join("plimsoll.toml"), text).unwrap();
    place.at("second");
    place.run(&["image", "--verify", &web]).expect(2).says("it was built from");
    place.run(&["image", "--verify", &format!("{host}/shop/no-such@{digest}")]).expect(2).says("no-such");
}

#[test]
fn a_build_that_is_not_reproducible_is_found_out_although_it_was_built_before() {
    let place = Place::new();
    let web = place.repository().join("web");
    let script = "fn main() {\n    let now = std::time::SystemTime::now();\n    let now = now.duration_since(std::time::UNIX_EPOCH);\n    println!(\"cargo:rustc-env=STAMP={}\", now.unwrap().as_nanos());\n    println!(\"cargo:rerun-if-changed=build.rs\");\n}\n";
    fs::write(web.join("build.rs"), script).unwrap();
    let main = fs::read_to_string(web.join("src/main.rs")).unwrap();
    fs::write(web.join("src/main.rs"), format!("{main}\n#[used]\nstatic STAMP: &str = env!(\"STAMP\");\n")).unwrap();
    place.commit("a time in the executable");
    place.run(&["push"]).expect(0);
    let host = format!("127.0.0.1:{}", registry_port(&place));
    let tags: Value = serde_json::from_str(&get(&format!("http://{host}"), "/v2/shop/web/tags/list").unwrap()).unwrap();
    let image = format!("web:{}", tags["tags"][0].as_str().unwrap());
    place.run(&["image", "--verify", &image]).expect(1).says("different: ").says("/bin/web: ");
}
