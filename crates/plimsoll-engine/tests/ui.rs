//! What must not compile, each beside a sibling that differs in one line and does.

#![expect(unreachable_pub, reason = "each file is a program by itself")]

#[path = "ui/handle_of_the_same_graph.rs"]
mod handle_of_the_same_graph;
#[path = "ui/plain_data_from_json.rs"]
mod plain_data_from_json;
#[path = "ui/replay_as_given.rs"]
mod replay_as_given;
#[path = "ui/right_output.rs"]
mod right_output;

/// Refused ones only: with them alone nothing needs to be more than checked.
#[test]
fn what_must_not_compile_does_not() {
    let cases = trybuild::TestCases::new();
    for refused in ["wrong_output", "handle_of_another_graph", "proof_from_json", "replay_made_outside"] {
        cases.compile_fail(format!("tests/ui/{refused}.rs"));
    }
}

#[test]
fn its_sibling_does() {
    right_output::main();
    handle_of_the_same_graph::main();
    plain_data_from_json::main();
    replay_as_given::main();
}
