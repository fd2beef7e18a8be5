//! The rules of `schema` and `backup`: numbers that fit each other, and programs that an image can have.

use super::Check;
use crate::config::Service;

impl Check<'_> {
    pub(super) fn state(&mut self, name: &str, service: &Service) {
        if let Some(schema) = service.schema {
            let at = |key| ["services", name, "schema", key];
            if schema.version == 0 {
                self.value(&at("version"), "no schema has the number 0", "the first one is 1");
            } else if !(1..=schema.version).contains(&schema.readable_from) {
                let message = format!("a state of schema {} readable from {}", schema.version, schema.readable_from);
                self.value(&at("readable_from"), message, format!("from 1 to {}", schema.version));
            }
        }
        let commands = service.backup.iter().flat_map(|backup| [("save", &backup.save), ("load", &backup.load)]);
        for (key, command) in commands {
            if !command.first().is_some_and(|program| program.starts_with('/')) {
                let hint = "the program's path in the image and its arguments, such as [\"/bin/shop\", \"backup\"]";
                self.value(&["services", name, "backup", key], "this names no program of the image", hint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn schemas_that_contradict_themselves_and_programs_that_no_image_has_are_refused() {
        let check = |line: &str, words: &str| {
            let text = format!("[project]\nname = \"p\"\n[services.web]\npackage = \"p\"\n{line}\n");
            match (Config::parse(&text, "plimsoll.toml"), words) {
                (Ok(_), "") => {}
                (Err(error), words) if !words.is_empty() => assert!(error.to_string().contains(words), "{error}"),
                (result, words) => panic!("{line}: {result:?}, expected `{words}`"),
            }
        };
        check("schema = { version = 3, readable_from = 2 }", "");
        check("schema = { version = 0, readable_from = 0 }", "no schema has the number 0");
        check("schema = { version = 2, readable_from = 3 }", "a state of schema 2 readable from 3");
        check("schema = { version = 2 }", "readable_from");
        check("backup = { save = [\"/bin/web\", \"backup\"], load = [\"/bin/web\", \"restore\"] }", "");
        check("backup = { save = [], load = [\"/bin/web\"] }", "names no program of the image");
        check("backup = { save = [\"/bin/web\"], load = [\"restore\"] }", "names no program of the image");
    }
}
