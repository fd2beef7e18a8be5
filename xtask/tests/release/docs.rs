//! Every command that the documentation names is run as it stands there, and does not fail.

use crate::place::Place;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Verbs that check this repository, not the shop; CI runs them here. They are asked for their help.
const CHECKS: [&str; 6] = ["ci", "lint", "scan", "test", "tidy", "doctor"];

/// The pages, from the root of the repository.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let book = fs::read_dir(root.join("docs/book")).unwrap().map(|entry| entry.unwrap().path());
    let top =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "crates/kairos/README.md"].map(|name| root.join(name));
    let mut pages: Vec<_> = top.into_iter().chain(book).filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

/// The commands of a page: lines of console blocks, and what stands between backticks.
fn commands(page: &str) -> impl Iterator<Item = &str> {
    let console = page.lines().filter_map(|line| line.strip_prefix("$ cargo xtask "));
    let inline = page.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("cargo xtask "));
    let without_comment = |line: &str| line.find(" #").unwrap_or(line.len());
    console.chain(inline).map(move |line| line[..without_comment(line)].trim()).filter(|line| !line.contains('\n'))
}

/// The verbs of the README's table.
fn table(readme: &str) -> impl Iterator<Item = &str> {
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
}

/// What a reader would type for the words in capitals, and for what may be left out.
fn typed(command: &str, run: &str, image: &str) -> Vec<String> {
    let word = |word: &str| match word {
        "RUN" => run.to_owned(),
        "ENV" => "production".to_owned(),
        "OTHER" => "recovery".to_owned(),
        "IMAGE" => image.to_owned(),
        "STEP" => "push".to_owned(),
        "PIPELINE" => "release".to_owned(),
        "SHELL" => "bash".to_owned(),
        _ if word.starts_with("2026") => run.to_owned(),
        _ => word.to_owned(),
    };
    let must = command.split('[').next().unwrap();
    must.split_whitespace().map(word).collect()
}

/// An image that was pushed.
fn image(place: &Place) -> String {
    format!("web@{}", place.status().live("staging").digests()["web"])
}

#[test]
fn every_command_of_the_documentation_can_be_given_as_it_stands_there() {
    let place = Place::new();
    place.at("second");
    let worker = "package = \"worker\"\n";
    let backup = "backup = { save = [\"/bin/worker\", \"save\"], load = [\"/bin/worker\", \"load\"] }\n";
    place.configure(worker, &format!("{worker}{backup}"));
    place.configure("[environments.production]\n", "[environments.recovery]\n\n[environments.production]\n");
    for _ in 0..2 {
        place.commit("something to go back to");
        place.release().expect(0);
    }
    let texts: Vec<String> = pages().into_iter().map(|page| fs::read_to_string(page).unwrap()).collect();
    let readme = texts.iter().find(|text| text.starts_with("# Plimsoll\n")).unwrap();
    let all: BTreeSet<&str> = texts.iter().flat_map(|text| commands(text)).chain(table(readme)).collect();
    assert!(all.len() > 25, "{all:?}");
    for command in all {
        place.commit("something to decide about");
        let parked = place.run(&["release"]).expect(75).run();
        let args = typed(command, &parked, &image(&place));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (args, allowed): (Vec<&str>, &[i32]) = match args[0] {
            verb if CHECKS.contains(&verb) => (vec![verb, "--help"], &[0]),
            // It serves until it is ended.
            "registry" if args[1] == "serve" => (vec!["registry", "serve", "--help"], &[0]),
            // There is none in the directory that a page names.
            "registry" if args.contains(&"./images") => (args, &[2]),
            // The shop is in no cluster.
            "rightsize" | "adopt" => (args, &[2]),
            // Nobody is there to be asked.
            "release" | "deploy" | "promote" | "resume" => (args, &[0, 75]),
            _ => (args, &[0]),
        };
        println!("cargo xtask {}", args.join(" "));
        let ran = place.run(&args);
        assert!(allowed.contains(&ran.code), "cargo xtask {command}: {}", ran.text());
        match args[0] {
            "stop" => drop(place.run(&["start", "production"]).expect(0)),
            "rollback" | "down" => drop(place.release().expect(0)),
            _ => {}
        }
    }
}
