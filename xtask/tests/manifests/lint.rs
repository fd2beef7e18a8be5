//! `helm lint --strict` of the chart with every set of values.

use crate::{objects::helm, values};

#[test]
fn the_chart_is_without_complaint_with_every_set_of_values() {
    let sets = values::all();
    for values in &sets {
        let Some((done, out, error)) = helm(&["lint", "--strict"], values) else { return };
        assert!(done && !out.contains("[WARNING]") && !out.contains("[ERROR]"), "{}: {out}{error}", values.name);
    }
    println!("helm lint --strict: {} sets of values", sets.len());
}
