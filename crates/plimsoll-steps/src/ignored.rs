//! What `.dockerignore` leaves out of a build's context. Pure.
//!
//! As Docker reads it: patterns with `*`, `?`, `[…]` and `**`, always from the context's root, the last one that matches a
//! path, or a directory above it, decides; `!` takes back in.

use globset::{GlobBuilder, GlobMatcher};
use std::path::Path;

/// The patterns of a `.dockerignore`, in their order.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    matcher: GlobMatcher,
    /// It takes back in.
    except: bool,
}

impl Ignored {
    pub(crate) fn parse(text: &str) -> Result<Self, globset::Error> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pattern = |line: &str| {
            let (except, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()?;
            Ok(Pattern { matcher: glob.compile_matcher(), except })
        };
        Ok(Self(lines.map(pattern).collect::<Result<_, _>>()?))
    }

    /// Whether a file is not sent.
    pub(crate) fn leaves_out(&self, path: &Path) -> bool {
        let matches =
            |pattern: &&Pattern| path.ancestors().any(|part| part != Path::new("") && pattern.matcher.is_match(part));
        self.0.iter().rev().find(matches).is_some_and(|pattern| !pattern.except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_docker() {
        let cases: [(&str, &[&str], &[&str]); 7] = [
            ("", &["a", "a/b"], &[]),
            ("# nothing\n\n  target  \n", &["src/target", "targets"], &["target", "target/debug/x"]),
            ("*\n!Cargo.toml\n!crates\n**/target", &["Cargo.toml", "crates/a/lib.rs"], &["b", "crates/a/target/x"]),
            ("/docs/*.md\n", &["docs/a/b.md", "x.md"], &["docs/a.md"]),
            ("**/*.log", &["log"], &["a.log", "a/b/c.log"]),
            ("docs/\n!docs/README.md", &["docs/README.md"], &["docs/a", "docs/sub/README.md"]),
            ("!docs/README.md\ndocs", &["a"], &["docs/README.md"]),
        ];
        for (text, sent, left_out) in cases {
            let ignored = Ignored::parse(text).unwrap();
            assert!(sent.iter().all(|path| !ignored.leaves_out(Path::new(path))), "{text}: {sent:?} are sent");
            assert!(left_out.iter().all(|path| ignored.leaves_out(Path::new(path))), "{text}: {left_out:?} are not");
        }
        assert!(Ignored::parse("a[").unwrap_err().to_string().contains("a["));
    }
}
