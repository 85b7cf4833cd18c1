//! What the server counts, in Prometheus' text form.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use skerry_wire::Digest;

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which object was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Object {
    object: String,
}

/// The counters of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Polls that were answered.
    pub polls: Counter,
    /// Nodes that enrolled, repetitions included.
    pub enrolments: Counter,
    /// Bundles built.
    pub bundles_built: Counter,
    /// Bundles that could not be built.
    pub bundles_failed: Counter,
    /// Files of bundles that were found damaged.
    pub objects_damaged: Counter,
    /// Bytes of layers received.
    pub layer_bytes: Counter,
    objects: Family<Object, Counter>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("skerry");
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let objects = Family::<Object, Counter>::default();
        registry.register("object_bytes_sent", "Bytes of bundles sent to nodes, per object", objects.clone());
        Self {
            polls: counter(&mut registry, "polls", "Polls answered"),
            enrolments: counter(&mut registry, "enrolments", "Enrolments answered"),
            bundles_built: counter(&mut registry, "bundles_built", "Bundles built"),
            bundles_failed: counter(&mut registry, "bundles_failed", "Bundles that could not be built"),
            objects_damaged: counter(&mut registry, "objects_damaged", "Files of bundles that were found damaged, and built again"),
            layer_bytes: counter(&mut registry, "layer_bytes_received", "Bytes of layers received"),
            objects,
            registry: Mutex::new(registry),
        }
    }

    /// Counts bytes of an object that were handed to the connection.
    pub fn sent(&self, object: &Digest, bytes: u64) {
        self.objects.get_or_create(&Object { object: object.hex() }).inc_by(bytes);
    }

    /// Forgets the count of an object that was deleted.
    pub fn forget(&self, object: &Digest) {
        self.objects.remove(&Object { object: object.hex() });
    }

    /// All of them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes every write");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_rely_on() {
        let metrics = Metrics::new();
        metrics.polls.inc();
        metrics.sent(&Digest::new([0xab; 32]), 100);
        metrics.sent(&Digest::new([0xab; 32]), 11);
        let text = metrics.text();
        assert!(text.contains("skerry_polls_total 1\n"), "{text}");
        assert!(text.contains(&format!("skerry_object_bytes_sent_total{{object=\"{}\"}} 111\n", "ab".repeat(32))), "{text}");
        metrics.forget(&Digest::new([0xab; 32]));
        assert!(!metrics.text().contains("abab"));
    }
}
