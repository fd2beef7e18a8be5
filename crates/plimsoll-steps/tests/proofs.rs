//! Each gate as a pair of programs that differ in one line: one compiles, the other does not, and its message names the
//! proof that is missing.

#[test]
fn a_pipeline_that_skips_a_gate_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/proofs/*_pass.rs");
    cases.compile_fail("tests/proofs/*_fail.rs");
}
