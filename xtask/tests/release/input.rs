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
