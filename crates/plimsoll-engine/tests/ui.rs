//! What must not compile, each beside a sibling that differs in one line and does.

#[test]
fn what_must_not_compile_does_not_and_its_sibling_does() {
    let cases = trybuild::TestCases::new();
    for compiles in ["right_output", "handle_of_the_same_graph", "plain_data_from_json", "replay_as_given"] {
        cases.pass(format!("tests/ui/{compiles}.rs"));
    }
    for refused in ["wrong_output", "handle_of_another_graph", "proof_from_json", "replay_made_outside"] {
        cases.compile_fail(format!("tests/ui/{refused}.rs"));
    }
}
