//! Releases that change the schema of a state: which are refused, and what a rollback says is safe.

use crate::place::Place;

/// Commits a configuration in which `web` has this schema.
fn with_schema(place: &Place, version: u32, readable_from: u32) {
    place.at(if version == 1 { "first" } else { "second" });
    let line = "package = \"web\"\n";
    place.configure(line, &format!("{line}schema = {{ version = {version}, readable_from = {readable_from} }}\n"));
}

#[test]
fn a_state_is_expanded_before_it_is_contracted_and_a_rollback_says_what_is_safe() {
    let place = Place::new();
    with_schema(&place, 1, 1);
    place.release().expect(0);
    let first = place.status().live("production").version.clone();
    with_schema(&place, 2, 2);
    place.release().expect(2).says("there would be no way back").says("it reads up to schema 1, and 2 is needed");
    assert_eq!(place.status().live("production").version, first);

    with_schema(&place, 2, 1);
    place.release().expect(0);
    let expanded = place.status().live("production").version.clone();
    place.run(&["rollback", "production", "--dry-run"]).expect(0).says(&first);

    with_schema(&place, 2, 2);
    place.commit("contracted");
    place.release().expect(0);
    for dry in [&["--dry-run"][..], &[]] {
        let args = [&["rollback", "production", "--to", &first], dry].concat();
        let ran = place.run(&args).expect(2).says(&format!("{first} cannot read the state of web"));
        ran.says(&format!("safe to go back to: {expanded};"));
    }
    place.run(&["rollback", "production"]).expect(0);
    assert_eq!(place.status().live("production").version, expanded);
}
