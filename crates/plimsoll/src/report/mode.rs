//! How a run is reported. Decided once, from options, environment and terminal.

use crate::{cli::Global, settings::Settings};

/// The shape of a run's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// JSON events, one per line, and nothing else on standard output.
    Json,
    /// Lines that move, on a terminal.
    Live,
    /// A line per thing that happens.
    Plain,
    /// Groups and annotations of GitHub Actions.
    Github,
}

/// How to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) style: Style,
    pub(crate) color: bool,
    pub(crate) quiet: bool,
}

impl Mode {
    pub(crate) fn of(global: &Global, settings: &Settings, terminal: bool) -> Self {
        let style = match () {
            () if global.json => Style::Json,
            () if settings.github => Style::Github,
            () if settings.plain || settings.no_color || !terminal || global.quiet => Style::Plain,
            () => Style::Live,
        };
        let color = terminal && !global.no_color && !settings.no_color && !settings.plain && style != Style::Json;
        Self { style, color, quiet: global.quiet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn check(args: &[&str], settings: &Settings, terminal: bool, style: Style, color: bool) {
        let args = ["xtask", "ci"].iter().chain(args);
        let mode = Mode::of(&Cli::try_parse_from(args).unwrap().global, settings, terminal);
        assert_eq!((mode.style, mode.color), (style, color));
    }

    #[test]
    fn lines_move_only_where_somebody_looks() {
        let laptop = Settings::default();
        check(&[], &laptop, true, Style::Live, true);
        check(&["--no-color"], &laptop, true, Style::Live, false);
        check(&["--quiet"], &laptop, true, Style::Plain, true);
        check(&[], &laptop, false, Style::Plain, false);
        check(&[], &Settings { no_color: true, ..Settings::default() }, true, Style::Plain, false);
        check(&[], &Settings { github: true, plain: true, ..Settings::default() }, false, Style::Github, false);
        check(&["--json"], &Settings { github: true, ..Settings::default() }, true, Style::Json, false);
    }
}
