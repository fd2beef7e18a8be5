//! The conformance suite of the OCI distribution specification, which is not ours, against the embedded registry.
//!
//! `PLIMSOLL_OCI_CONFORMANCE` names its program: `conformance` of opencontainers/distribution-spec, built with Go.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the suite is started, and its figures are printed"
)]

mod common;

use common::Lab;
use std::{env, process::Command};

/// What the suite leaves out unless it is asked for: parts of the next version that are here already.
const FURTHER: [(&str, &str); 2] = [("OCI_API_BLOBS_UPLOAD_CANCEL", "true"), ("OCI_API_MANIFESTS_TAG_PARAM", "true")];

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_the_specification_finds_nothing_to_fail_and_nothing_to_skip() {
    let Some(program) = env::var_os("PLIMSOLL_OCI_CONFORMANCE") else {
        println!("skipped: PLIMSOLL_OCI_CONFORMANCE names no conformance suite");
        return;
    };
    let lab = Lab::start();
    let mut command = Command::new(program);
    command.env("OCI_REGISTRY", lab.address.to_string()).env("OCI_TLS", "disabled").envs(FURTHER);
    command.env("OCI_RESULTS_DIR", lab.dir.path().join("results")).current_dir(lab.dir.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // `  Pass..........................:        986`
    let figure = |name: &str| {
        let line = told.lines().find(|line| line.trim_start().starts_with(&format!("{name}..")));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        number.unwrap_or_else(|| panic!("no figure of {name} in {told}"))
    };
    let figures = ["Pass", "FAIL", "Error", "Skip", "Disabled"].map(figure);
    println!(
        "passed {}, failed {}, errors {}, skipped {}, disabled {}",
        figures[0], figures[1], figures[2], figures[3], figures[4]
    );
    let failed: Vec<&str> = told.lines().filter(|line| line.ends_with(": FAIL") || line.ends_with(": Skip")).collect();
    assert_eq!(figures[1..], [0, 0, 0, 0], "{failed:#?}");
    assert!(output.status.success() && figures[0] > 900);
}
