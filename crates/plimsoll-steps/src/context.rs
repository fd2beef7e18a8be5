//! The context of a build by a Docker Engine: the files of the workspace that neither git nor `.dockerignore` ignores.
//!
//! `.dockerignore` as Docker reads it: patterns with `*`, `?`, `[…]` and `**`, always from the context's root, the last one that matches a
//! path, or a directory above it, decides; `!` takes back in.

use crate::workspace::Workspace;
use globset::{GlobBuilder, GlobMatcher};
use plimsoll_engine::StepError;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

const IGNORE: &str = ".dockerignore";

/// The files of the context, relative to the workspace's root. The Dockerfile and `.dockerignore` are among them in any case:
/// the engine reads both, and hides from the Dockerfile's own copies what the second one leaves out.
pub(crate) fn context_files(workspace: &Workspace, dockerfile: &str) -> Result<Vec<PathBuf>, StepError> {
    let ignored = match fs::read_to_string(workspace.root().join(IGNORE)) {
        Ok(text) => Ignored::parse(&text).map_err(|e| StepError::user(format!("`{IGNORE}`: {e}")))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ignored::default(),
        Err(e) => return Err(StepError::external(format!("cannot read `{IGNORE}`")).caused_by(&e)),
    };
    let (dockerfile, root) = (Path::new(dockerfile), workspace.root());
    if !root.join(dockerfile).is_file() {
        let named = dockerfile.display();
        return Err(StepError::user(format!(
            "there is no `{named}` in the workspace: see `docker_build` in plimsoll.toml"
        )));
    }
    let read = |file: &Path| file == dockerfile || file == Path::new(IGNORE);
    let known = workspace.files().iter().filter(|file| !read(file) && !ignored.leaves_out(file));
    let both = [dockerfile.to_owned(), IGNORE.into()];
    // Git may know of files that were deleted.
    Ok(both.iter().chain(known).filter(|file| root.join(file).symlink_metadata().is_ok()).cloned().collect())
}

/// What decides about the context, as paths from the root that are few: whatever changes in it changes one of them, also by
/// going away.
pub(crate) fn roots(workspace: &Workspace, dockerfile: &str) -> Result<BTreeSet<PathBuf>, StepError> {
    let files = context_files(workspace, dockerfile)?;
    let first = files.iter().filter_map(|file| file.components().next()).map(|part| PathBuf::from(part.as_os_str()));
    Ok(first.chain([dockerfile.into(), IGNORE.into()]).collect())
}

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
            // Alternatives in braces are globset's alone.
            let pattern = pattern.replace('{', "[{]").replace('}', "[}]");
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build()?;
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
        let cases: [(&str, &[&str], &[&str]); 8] = [
            ("", &["a", "a/b"], &[]),
            ("# nothing\n\n  target  \n", &["src/target", "targets"], &["target", "target/debug/x"]),
            ("*\n!Cargo.toml\n!crates\n**/target", &["Cargo.toml", "crates/a/lib.rs"], &["b", "crates/a/target/x"]),
            ("/docs/*.md\n", &["docs/a/b.md", "x.md"], &["docs/a.md"]),
            ("a{b,c}", &["ab", "ac"], &["a{b,c}"]),
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
