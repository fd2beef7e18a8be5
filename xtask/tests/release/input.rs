//! Input that cannot be used: it is said where, and nothing is touched.

use crate::place::Place;
use std::fs;

#[test]
fn an_unknown_key_is_shown_with_place_and_hint_before_anything_is_touched() {
    let place = Place::new();
    place.configure("stop_grace", "stop_grase");
    let ran = place.release().expect(2).says("plimsoll.toml:10:1").says("^").says("did you mean `stop_grace`?");
    assert_eq!(ran.out, "");
    assert!(!place.state().exists());
    place.run(&["status"]).expect(2).says("plimsoll.toml:10:1");
    assert!(!place.state().exists());
}

/// Every mistake is shown with its line, a mark under what is wrong and what to write instead; nothing is touched.
fn check_refused(from: &str, to: &str, place_of: (usize, usize), message: &str, hint: &str) {
    let place = Place::new();
    place.configure(from, to);
    let (line, column) = place_of;
    let config = fs::read_to_string(place.repository().join("plimsoll.toml")).unwrap();
    let source = config.lines().nth(line - 1).unwrap();
    let value = source.split(" = ").nth(1).unwrap();
    let gutter = " ".repeat(line.to_string().len());
    let shown = [
        format!("plimsoll.toml:{line}:{column}: {message}"),
        format!("{line} | {source}"),
        format!("{gutter} | {}{}", " ".repeat(column - 1), "^".repeat(value.len())),
        format!("{gutter} = hint: {hint}"),
    ];
    // A command that only looks refuses it as well.
    for args in [&["release", "--yes"][..], &["plan", "release"], &["status"]] {
        let ran = place.run(args).expect(2);
        assert!(ran.err.contains(&shown.join("\n")), "{shown:#?} is not in: {}", ran.text());
        assert_eq!(ran.out, "");
        assert!(!place.state().exists(), "{args:?}");
    }
}

#[test]
fn a_value_of_another_type_is_shown_with_a_mark_and_what_to_write_before_anything_is_touched() {
    let text = "expected a text, found integer `2`";
    check_refused("drain = \"2s\"", "drain = 2", (9, 9), text, "write it in quotes");
    let text = "expected a list, found string \"linux/all\"";
    let place = Place::new();
    let config = fs::read_to_string(place.repository().join("plimsoll.toml")).unwrap();
    let line = config.lines().find(|line| line.starts_with("platforms")).unwrap();
    check_refused(line, "platforms = \"linux/all\"", (5, 13), text, "write it in brackets: [ … ]");
}

#[test]
fn without_a_repository_or_a_commit_a_release_says_so() {
    let place = Place::new();
    fs::remove_dir_all(place.repository().join(".git")).unwrap();
    place.release().expect(2).says("is not in a git repository");
    place.git(&["init", "--quiet"]);
    place.release().expect(2).says("has no commit yet");
    assert!(!place.state().exists());
}

#[test]
fn a_dirty_tree_is_released_from_a_laptop_as_dirty_and_from_nowhere_else() {
    let place = Place::new();
    fs::write(place.repository().join("notes.txt"), "not committed\n").unwrap();
    let ran = place.run(&["release", "--yes", "--profile", "github"]);
    assert_ne!(ran.code, 0, "{}", ran.text());
    ran.says("dirty");
    assert_eq!(place.status().0["production"].live, None);
    place.release().expect(0);
    let status = place.status();
    assert!(status.live("production").version.ends_with("-dirty"), "{status:?}");
    status.live("production").answers();
}
