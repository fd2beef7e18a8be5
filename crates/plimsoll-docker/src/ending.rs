//! How a container ended, in words. Pure.

use bollard::models::ContainerState;

/// Whether a container of this state runs.
pub(crate) fn runs(state: &ContainerState) -> bool {
    state.running == Some(true)
}

/// How a container that does not run ended.
pub(crate) fn words(state: &ContainerState) -> String {
    if state.oom_killed == Some(true) {
        return "it was killed: out of memory".to_owned();
    }
    if let Some(error) = state.error.as_deref().filter(|e| !e.is_empty()) {
        return format!("the engine could not run it: {error}");
    }
    match state.exit_code {
        // Engines report a signal as 128 and its number; a program that exits so on purpose means the same.
        Some(code @ 129..=192) => format!("signal {} ended it", code - 128),
        Some(code) => format!("it exited with code {code}"),
        None => "it ended unobserved".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let ended = |exit_code| ContainerState { exit_code: Some(exit_code), ..ContainerState::default() };
        for (state, text) in [
            (ended(101), "it exited with code 101"),
            (ended(0), "it exited with code 0"),
            (ended(137), "signal 9 ended it"),
            (ended(255), "it exited with code 255"),
            (ContainerState { oom_killed: Some(true), ..ended(137) }, "it was killed: out of memory"),
            (ContainerState::default(), "it ended unobserved"),
        ] {
            assert_eq!(words(&state), text);
        }
        let refused = ContainerState { error: Some("no such file".to_owned()), ..ended(127) };
        assert!(words(&refused).ends_with("no such file"));
    }
}
