//! The JSON Schema of `plimsoll.toml`, for editors. It knows the shape; what [`Config::parse`] checks beyond it, it does not.

use super::{Base, Config, Period, ProjectName, Registry};
use crate::{ByteSize, Millicores};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use std::borrow::Cow;

/// The JSON Schema (draft 2020-12) of a whole `plimsoll.toml`.
pub fn json_schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), "plimsoll.toml".into());
    schema.to_value()
}

/// Types that are texts with a rule.
macro_rules! text {
    ($($name:ident: $title:literal, $description:literal, $pattern:literal;)*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        })*
    };
}

text! {
    Period: "Period", "A whole number and a unit: ms, s, m, h or d; at most 30d.", "^[0-9]+(ms|s|m|h|d)$";
    Millicores: "Millicores", "A quantity of Kubernetes: cores, or thousandths with `m`.", "^([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$";
    ByteSize: "ByteSize", "A quantity of Kubernetes: bytes, with Ki, Mi, Gi, Ti, Pi, Ei or k, M, G, T, P, E.", "^([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$";
    ProjectName: "ProjectName", "1 to 63 lower-case letters, digits and inner hyphens, a letter first.", "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
    Registry: "Registry", "`embedded`, or `host[:port][/prefix]`.", "^(embedded|[A-Za-z0-9.:\\[\\]-]+(/[a-z0-9._/-]+)?)$";
    Base: "Base", "`scratch`, or an image by digest.", "^(scratch|.+@sha256:[0-9a-f]{64})$";
    PlatformWord: "Platform", "Operating system and architecture.", "^linux/(amd64|arm64)$";
}

/// Stands for [`crate::Platform`] in the schema.
pub(super) struct PlatformWord;

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the variable asks this test to write the file")]
    fn the_committed_schema_is_the_one_the_types_have() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plimsoll.schema.json");
        let now = format!("{:#}\n", super::json_schema());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).expect("the schema can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let again = "UPDATE=1 cargo test -p plimsoll-core --features schema schema";
        assert!(committed == now, "docs/plimsoll.schema.json is out of date; run `{again}`");
    }
}
