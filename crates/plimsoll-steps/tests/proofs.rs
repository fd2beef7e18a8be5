//! Each gate as a pair of programs that differ in one line: one compiles, the other does not, and its message names the
//! proof that is missing.

#![expect(clippy::type_complexity, reason = "each file is a program by itself")]

#[path = "proofs/approve_pass.rs"]
mod approve_pass;
#[path = "proofs/deploy_pass.rs"]
mod deploy_pass;
#[path = "proofs/promote_pass.rs"]
mod promote_pass;

/// Refused ones only: with them alone nothing needs to be more than checked.
#[test]
fn a_pipeline_that_skips_a_gate_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/proofs/*_fail.rs");
}

#[test]
fn one_that_skips_none_does() {
    approve_pass::main();
    deploy_pass::main();
    promote_pass::main();
}
