//! Words of the engine that something happened to containers.

use std::collections::HashMap;

use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt, stream};

use super::DockerEngine;
use crate::EngineError;

/// Ends and removals. In a filter podman knows them by its own words only, which Docker never says.
const EVENTS: [&str; 4] = ["die", "destroy", "died", "remove"];

impl DockerEngine {
    /// One word per end or removal of a container that has the label.
    pub(super) fn container_events(&self, label: &str) -> impl Stream<Item = Result<(), EngineError>> + Send + use<> {
        let filters = [("type", vec!["container"]), ("event", EVENTS.to_vec()), ("label", vec![label])];
        let filters: HashMap<String, Vec<String>> =
            filters.into_iter().map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect())).collect();
        let engine = self.clone();
        // It is listened to anew when the connection ended, and so when the engine was begun anew.
        self.known.forget();
        let docker = match self.docker() {
            Ok(docker) => docker,
            Err(error) => return stream::iter([Err(error)]).left_stream(),
        };
        let events = docker.events(Some(EventsOptions { filters: Some(filters), ..Default::default() }));
        events.map(move |event| event.map(drop).map_err(|error| engine.error("follow its events", error))).right_stream()
    }
}
