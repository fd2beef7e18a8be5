//! Checks reports against the schemas in `docs/`, in tests: the words of JSON Schema that those use, and no others.

use serde_json::Value;

/// What is wrong with `value`, by path; a word that is not known here is wrong, so that no schema is checked in part.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "$", &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let empty = serde_json::Map::new();
    for (word, rule) in schema.as_object().unwrap_or(&empty) {
        match word.as_str() {
            "$schema" | "title" | "description" => {}
            "type" => {
                let types: Vec<&str> = rule.as_array().map_or_else(
                    || rule.as_str().into_iter().collect(),
                    |types| types.iter().filter_map(Value::as_str).collect(),
                );
                if !types.contains(&type_of(value)) {
                    found.push(format!("{path} is {}, not {}", type_of(value), types.join(" or ")));
                }
            }
            "enum" if rule.as_array().is_some_and(|all| all.contains(value)) => {}
            "enum" => found.push(format!("{path} must not be {value}")),
            "required" => {
                let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                found.extend(missing.map(|name| format!("{path} has no {name}")));
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
                let names = value.as_object().unwrap_or(&empty).keys();
                found.extend(names.filter(|n| !known.contains_key(*n)).map(|n| format!("{path} must not have {n}")));
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap_or(&empty) {
                    if let Some(value) = value.get(name) {
                        check(rule, value, &format!("{path}.{name}"), found);
                    }
                }
            }
            "items" => {
                for (at, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, value, &format!("{path}[{at}]"), found);
                }
            }
            other => found.push(format!("{path}: the check does not know `{other}`")),
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A schema of `docs/`.
pub(crate) fn documented(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let text = std::fs::read_to_string(path).expect("the schema is part of the repository");
    serde_json::from_str(&text).expect("the schema is JSON")
}

#[test]
fn runs_are_printed_as_their_schema_says() {
    let schema = documented("runs.schema.json");
    let runs = serde_json::to_value(super::runs::tests::sample()).unwrap();
    assert_eq!(violations(&schema, &runs), Vec::<String>::new());
    let wrong = serde_json::json!({ "runs": [{ "id": 7, "outcome": "odd", "more": 1 }] });
    let found = violations(&schema, &wrong).join("\n");
    for part in
        ["$.runs[0].id is integer", "$.runs[0].outcome must not be \"odd\"", "has no steps", "must not have more"]
    {
        assert!(found.contains(part), "{part}: {found}");
    }
}

#[test]
fn the_schema_of_status_takes_a_status_and_nothing_less() {
    let schema = documented("status.schema.json");
    let service = serde_json::json!({
        "name": "api", "slot": "blue", "digest": "sha256:0", "url": "http://127.0.0.1:1", "replicas": 1, "ready": 1
    });
    let live = serde_json::json!({
        "version": "1.0.0", "run": "20260101-000000-0000", "since": "2026-01-01T00:00:00Z", "approved_by": "ada",
        "services": [service]
    });
    let status = |live| {
        serde_json::json!({
            "environments": [{ "name": "production", "target": "local", "generation": 3, "live": live }]
        })
    };
    assert_eq!(violations(&schema, &status(live)), Vec::<String>::new());
    assert_eq!(violations(&schema, &status(Value::Null)), Vec::<String>::new());
    assert!(!violations(&schema, &status(serde_json::json!({}))).is_empty());
}
