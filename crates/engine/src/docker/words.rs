//! Podman's words where Docker has others: for what a container does (the client takes nothing of an answer with one that it does not
//! know), and for what cannot be done now, which to podman is a failure of its own.
//!
//! In: an answer. Out: what Docker would have said.

use bollard::errors::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Of refusals with status 500 those that are a conflict: a name that is taken, an image with several tags, a container that does not run.
const CONFLICTS: [&str; 3] = ["that name is already in use", "by ID with more than one tag", "can only kill running containers"];

/// The status of a refusal.
pub(super) fn status(status: u16, message: &str) -> u16 {
    if status == 500 && CONFLICTS.iter().any(|conflict| message.contains(conflict)) { 409 } else { status }
}

/// Reads an answer about containers again where the client could not: `[{"State": WORD}]` or `{"State": {"Status": WORD}}`.
pub(super) fn known<T: DeserializeOwned>(answer: Result<T, Error>) -> Result<T, Error> {
    let Err(Error::JsonDataError { ref contents, .. }) = answer else { return answer };
    let Ok(mut body) = serde_json::from_str::<Value>(contents) else { return answer };
    let translated = match &mut body {
        Value::Array(listed) => listed.iter_mut().filter_map(|one| translate(one.get_mut("State")).then_some(())).count() > 0,
        one => translate(one.pointer_mut("/State/Status")),
    };
    match serde_json::from_value(body) {
        Ok(found) if translated => Ok(found),
        _ => answer,
    }
}

fn translate(word: Option<&mut Value>) -> bool {
    let Some(word) = word else { return false };
    let docker = match word.as_str() {
        // Ended, and its monitor has not put away what is left of it.
        Some("stopped") => "exited",
        // Made with all that it needs, not started yet.
        Some("configured" | "initialized") => "created",
        _ => return false,
    };
    *word = docker.into();
    true
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum};

    use super::*;

    fn refused<T>(contents: &str) -> Result<T, Error> {
        Err(Error::JsonDataError { message: "unknown variant".to_owned(), contents: contents.to_owned(), column: 1 })
    }

    #[test]
    fn podmans_words_are_understood() {
        let list =
            r#"[{"Id":"a","State":"running","Labels":{"State":"stopped"}},{"Id":"b","State":"stopped"},{"Id":"c","State":"initialized"}]"#;
        let found: Vec<ContainerSummary> = known(refused(list)).unwrap();
        let states: Vec<_> = found.iter().map(|c| c.state.unwrap()).collect();
        let (running, exited) = (ContainerSummaryStateEnum::RUNNING, ContainerSummaryStateEnum::EXITED);
        assert_eq!(states, [running, exited, ContainerSummaryStateEnum::CREATED]);
        assert_eq!(found[0].labels.as_ref().unwrap()["State"], "stopped");

        let one = r#"{"Id":"a","State":{"Status":"stopped","ExitCode":137}}"#;
        let state = known::<ContainerInspectResponse>(refused(one)).unwrap().state.unwrap();
        assert_eq!((state.status, state.exit_code), (Some(ContainerStateStatusEnum::EXITED), Some(137)));
    }

    #[test]
    fn conflicts_are_no_failures_of_the_engine() {
        assert_eq!(status(500, "container create: the container name \"a\" is already in use by 1: that name is already in use"), 409);
        assert_eq!((status(500, "no space left on device"), status(404, "no such container")), (500, 404));
    }

    #[test]
    fn what_nobody_knows_stays_an_error() {
        for contents in ["", "[", "7", r#"[{"State":"dancing"}]"#, r#"{"State":{"Status":"dancing"}}"#, r#"{"State":{"Status":7}}"#] {
            assert!(known::<ContainerInspectResponse>(refused(contents)).is_err(), "{contents}");
        }
    }
}
