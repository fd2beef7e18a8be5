//! Expand and contract with real processes: this version beside the one before, and the end of the way back.

use serde_json::json;

use crate::durability::{printed, refused, run};
use crate::support::{RISK, command, start, text};
use crate::{order, position};

#[test]
fn the_version_before_shares_the_state_until_it_is_contracted_and_then_refuses_to_start() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = ("STATE_DIR", text(directory.path()));
    let before = start(RISK, &[state, ("STATE_SCHEMA", "2")]);
    assert_eq!(before.get("/_plimsoll/compat").1, json!({"schema": 2, "readable_from": 2}));
    let this = start(RISK, &[state]);
    for (number, risk) in [&before, &this, &before, &this].into_iter().enumerate() {
        assert_eq!(risk.post("/orders", &order(&number.to_string(), 1, Some(10.5))).0, 200);
    }
    assert_eq!((position(&before), position(&this)), (4, 4));
    assert_eq!(before.get("/orders").1, this.get("/orders").1);
    let compat = json!({"schema": 3, "readable_from": 2});
    assert_eq!(printed(&run(directory.path(), &["compat"])), compat, "the version before can be returned to");
    assert_eq!(this.get("/_plimsoll/compat").1, compat);

    let orders = this.get("/orders").1;
    assert_eq!(printed(&run(directory.path(), &["contract"])), json!({"schema": 3, "readable_from": 3}));
    assert_eq!(this.get("/_plimsoll/compat").1["readable_from"], 3, "told by a service that has run all the time");
    assert_eq!((this.get("/orders").1, position(&this)), (orders, 4));
    assert_eq!(this.post("/orders", &order("after", 1, Some(10.5))).0, 200);

    let reason = "the state needs a version that reads schema 3: this one reads up to 2";
    let (status, answer) = before.post("/orders", &order("late", 1, Some(10.5)));
    assert_eq!((status, &answer["reason"]), (503, &json!(reason)), "one that still runs refuses too");
    let output = command(RISK, &[state, ("STATE_SCHEMA", "2")]).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(reason));
    assert_eq!(position(&this), 5);
}

#[test]
fn what_is_not_there_has_no_compatibility() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for what in ["compat", "contract"] {
        assert!(refused(&run(directory.path(), &[what]), 1).contains("there is no order database"));
    }
}
